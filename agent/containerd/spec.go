package containerd

import (
	"context"
	"fmt"
	"path/filepath"
	"runtime"
	"slices"

	"github.com/containerd/containerd/v2/contrib/seccomp"
	"github.com/containerd/containerd/v2/core/containers"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/containerd/v2/pkg/oci"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/edge-serverless-box/esb/agent"
	"github.com/edge-serverless-box/esb/agent/cgroup"
	"github.com/edge-serverless-box/esb/agent/code"
	"github.com/edge-serverless-box/esb/agent/lambdainit"
)

// oomScore makes the kernel end functions before the box's own processes when the whole machine is out of memory.
const oomScore = 500

// maskedPaths are those that tell of the machine and what else runs on it, or set something there, beside containerd's
// defaults. A path that a kernel does not have is passed over.
var maskedPaths = []string{
	"/proc/kpagecgroup", "/proc/kpagecount", "/proc/kpageflags", "/proc/kmsg", "/proc/slabinfo", "/proc/vmallocinfo",
	"/proc/pagetypeinfo", "/proc/allocinfo", "/proc/interrupts", "/proc/iomem", "/proc/ioports", "/proc/mtrr", "/proc/driver",
	"/proc/dynamic_debug", "/proc/pressure", "/sys/kernel/slab",
}

// specInput is all that a container's OCI spec depends on.
type specInput struct {
	id string
	// parked: for no function yet. It has no limits of memory and CPU, and only waits.
	parked bool
	spec   agent.ContainerSpec
	image  ocispec.ImageConfig
	// netns and userns are the paths of the network namespace and of the user namespace that it belongs to; firstID is the
	// machine's id that is 0 in there.
	netns, userns string
	firstID       uint32
	// user is whom the function runs as.
	user     user
	hostname string
	// cgroupsPath is the container's group; groups are what it is shown of it.
	cgroupsPath string
	groups      []cgroup.Folder
	limitSwap   bool
	// lambdaInit, hosts, resolvConf and meminfo are files on the host; notifyDir is the folder of the notify socket there.
	lambdaInit, notifyDir, hosts, resolvConf, meminfo string
	// logFile is where lambda-init appends log lines, logRate how many bytes of them a second.
	logFile string
	logRate int
	// tmpSizeMB is the size of /tmp in memory; 0 where a disk is mounted there.
	tmpSizeMB, pidsLimit, noFile int
	region, account, logStream   string
	// environment is that of every function; image and function may have it otherwise.
	environment map[string]string
	// code is nil for a function whose image has its code.
	code *code.Lease
}

// entrypoint and command are the function's when it names them, else the image's. As with Docker and AWS, naming an
// entrypoint alone drops the image's command.
func (in specInput) entrypoint() []string {
	if len(in.spec.Entrypoint) > 0 {
		return in.spec.Entrypoint
	}
	return in.image.Entrypoint
}

func (in specInput) command() []string {
	if len(in.spec.Command) > 0 || len(in.spec.Entrypoint) > 0 {
		return in.spec.Command
	}
	return in.image.Cmd
}

// supervisorCapabilities are what lambda-init has in its user namespace: to start the function as another user, and to end it.
// That user has none.
var supervisorCapabilities = []string{"CAP_SETUID", "CAP_SETGID", "CAP_KILL", "CAP_SETPCAP"}

// process says what process 1 is.
func (in specInput) process() (lambdainit.Call, error) {
	if in.parked {
		return lambdainit.Call{Args: []string{initPath, "-park", bindPath}, Env: []string{}, Cwd: "/"}, nil
	}
	env := environment(in)
	args := slices.Concat(nodeHeap(in.entrypoint(), in.spec.MemoryMB, variable(env, "NODE_OPTIONS")), in.command())
	if len(args) == 0 {
		return lambdainit.Call{}, agent.Errorf(agent.CodePrecondition,
			"image %s has neither ENTRYPOINT nor CMD: give it one, or set the function's entrypoint or command", in.spec.Image)
	}
	if in.spec.Interface == agent.Supervisor {
		args = slices.Concat([]string{initPath, "--"}, args)
	} else {
		args = slices.Concat([]string{initPath, "-exec", "--"}, args)
	}
	cwd := firstOf(in.spec.WorkingDirectory, in.image.WorkingDir, "/")
	if in.spec.Code != nil {
		cwd = taskRoot
	}
	return lambdainit.Call{Args: args, Env: env, Cwd: cwd}, nil
}

// buildSpec returns the OCI spec of a function container: containerd's defaults, tightened.
func buildSpec(ctx context.Context, in specInput) (*oci.Spec, error) {
	call, err := in.process()
	if err != nil {
		return nil, err
	}
	c := &containers.Container{ID: in.id}
	s, err := oci.GenerateSpec(namespaces.WithNamespace(ctx, agent.Namespace), nil, c)
	if err != nil {
		return nil, fmt.Errorf("make the spec of %s: %w", in.id, err)
	}
	s.Hostname = in.hostname
	s.Root.Readonly = true

	p := s.Process
	p.Args, p.Env, p.Cwd = call.Args, call.Env, call.Cwd
	p.NoNewPrivileges = true
	p.User = specs.User{}
	p.Capabilities = &specs.LinuxCapabilities{
		Bounding: supervisorCapabilities, Permitted: supervisorCapabilities, Effective: supervisorCapabilities,
	}
	// lambda-init sets them: runc would need CAP_SYS_RESOURCE for the processes of other users, which not every machine's root
	// has.
	p.Rlimits = nil
	score := oomScore
	p.OOMScoreAdj = &score

	l := s.Linux
	l.CgroupsPath = in.cgroupsPath
	pids := int64(in.pidsLimit)
	l.Resources.Pids = &specs.LinuxPids{Limit: &pids}
	if !in.parked { // cgroup.SetLimits does it later
		l.Resources.Memory = memoryLimit(in)
	}
	// What is nobody's has no more of the CPU than the smallest function: a whole interpreter may be started in it.
	memory := in.spec.MemoryMB
	if in.parked {
		memory = parkedMemoryMB
	}
	shares := cgroup.Shares(memory)
	l.Resources.CPU = &specs.LinuxCPU{Shares: &shares}
	for i := range l.Namespaces {
		if l.Namespaces[i].Type == specs.NetworkNamespace {
			l.Namespaces[i].Path = in.netns
		}
	}
	l.Namespaces = append(l.Namespaces, specs.LinuxNamespace{Type: specs.CgroupNamespace},
		specs.LinuxNamespace{Type: specs.UserNamespace, Path: in.userns})
	l.UIDMappings, l.GIDMappings = idMappings(in.firstID), idMappings(in.firstID)
	s.Mounts = mounts(in, s.Mounts)
	l.MaskedPaths = append(l.MaskedPaths, maskedPaths...)

	// The profile allows more with more capabilities, so they are settled before it.
	if err := seccomp.WithDefaultProfile()(ctx, nil, c, s); err != nil {
		return nil, fmt.Errorf("make the seccomp profile of %s: %w", in.id, err)
	}
	onlyNative(l.Seccomp)
	return s, nil
}

// nativeArch is the architecture of 64-bit programs, by GOARCH.
var nativeArch = map[string]specs.Arch{"amd64": specs.ArchX86_64, "arm64": specs.ArchAARCH64}

// onlyNative ends a process that calls the kernel in the way of another architecture, such as 32-bit programs: the kernel
// has whole tables of calls for them that next to nobody needs. It also makes a start a third faster, because libseccomp
// compiles some 350 rules for each architecture.
func onlyNative(profile *specs.LinuxSeccomp) {
	if arch, ok := nativeArch[runtime.GOARCH]; ok && slices.Contains(profile.Architectures, arch) {
		profile.Architectures = []specs.Arch{arch}
	}
}

func memoryLimit(in specInput) *specs.LinuxMemory {
	limit := int64(in.spec.MemoryMB) << 20
	m := &specs.LinuxMemory{Limit: &limit}
	if in.limitSwap {
		m.Swap = &limit // memory and swap together: no swap
	}
	return m
}

// mounts returns containerd's default mounts without its writable ones (/run, and /dev read-only), and the
// container's own: /tmp is all that a function can write to (AWS: "/tmp ephemeral storage").
func mounts(in specInput, defaults []specs.Mount) []specs.Mount {
	var out []specs.Mount
	for _, m := range defaults {
		switch m.Destination {
		case "/run", "/dev/shm", "/dev/mqueue":
			continue // AWS has no usable one either: shared memory with a name does not work there
		case "/dev":
			m.Options = append(slices.Clone(m.Options), "ro")
		}
		out = append(out, m)
	}
	if in.tmpSizeMB > 0 {
		out = append(out, specs.Mount{
			Destination: "/tmp", Type: "tmpfs", Source: "tmpfs",
			Options: []string{"nosuid", "nodev", "mode=1777", fmt.Sprintf("size=%dm", in.tmpSizeMB)},
		})
	}
	out = append(out, bind(in.resolvConf, "/etc/resolv.conf"), bind(in.hosts, "/etc/hosts"))
	if !in.parked {
		// Programs take the total for all that they may use. The kernel has no such file for a container; sysinfo(2) tells the
		// machine's memory all the same.
		out = append(out, bind(in.meminfo, "/proc/meminfo", "nosuid", "nodev", "noexec"))
	}
	out = append(out, groupMounts(in.groups)...)
	if in.code != nil {
		out = append(out, bind(in.code.Task, "/var/task", "nosuid", "nodev"))
		if in.code.Opt != "" {
			out = append(out, bind(in.code.Opt, "/opt", "nosuid", "nodev"))
		}
	}
	out = append(out, bind(in.lambdaInit, initPath, "nosuid", "nodev"))
	out = append(out, specs.Mount{Destination: logPath, Type: "bind", Source: in.logFile, Options: []string{"bind", "rw", "nosuid", "nodev", "noexec"}})
	if in.spec.Interface == agent.Supervisor {
		// The folder, not the socket: an agent that starts anew makes a socket of its own in it.
		out = append(out, bind(in.notifyDir, notifyDir, "nosuid", "nodev", "noexec"))
	}
	return out
}

// groupMounts shows a container its own cgroup, read-only, where programs look for limits: JVM, V8, .NET and Go tools do.
func groupMounts(groups []cgroup.Folder) []specs.Mount {
	var out []specs.Mount
	for _, g := range groups {
		if g.Name != "" && out == nil {
			out = append(out, specs.Mount{
				Destination: cgroupPath, Type: "tmpfs", Source: "tmpfs", Options: []string{"ro", "nosuid", "nodev", "noexec", "mode=755", "size=64k"},
			})
		}
		out = append(out, bind(g.Host, filepath.Join(cgroupPath, g.Name), "nosuid", "nodev", "noexec"))
	}
	return out
}

// memoryFolder is where the container finds its memory group.
func (in specInput) memoryFolder() string {
	if slices.ContainsFunc(in.groups, func(g cgroup.Folder) bool { return g.Name == "memory" }) {
		return cgroupPath + "/memory"
	}
	return cgroupPath
}

// bind mounts one file or folder of the host read-only.
func bind(source, destination string, options ...string) specs.Mount {
	return specs.Mount{
		Destination: filepath.Clean(destination), Type: "bind", Source: source,
		Options: append([]string{"bind", "ro"}, options...),
	}
}

// firstOf returns the first string that is not empty.
func firstOf(values ...string) string {
	for _, v := range values {
		if v != "" {
			return v
		}
	}
	return ""
}
