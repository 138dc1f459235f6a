// Package runcfront does what runc and containerd's shim are started for when there is little to do. Each of them is a large program, which takes
// 10 to 20 ms of CPU until it begins; a container has five such starts in its life, and needs two:
//
//   - runc start opens a pipe for which the container's process waits,
//   - runc delete, of a container whose process has ended, removes a folder,
//   - the shim's delete, once all that is done, finds nothing to do, and runs runc delete --force to make sure.
//
// Whatever is not exactly so is left to them. One thing is done otherwise than they would: a container that runs though its shim has ended is not killed.
package runcfront

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

const (
	runc = "runc"
	shim = "containerd-shim-runc-v2"
	// execFifo is for what the process of a created container waits (runc v1.5, libcontainer/container_linux.go).
	execFifo = "exec.fifo"
	// stateFile has what runc knows of a container.
	stateFile = "state.json"
	// startPatience is for how long a process is waited for here: runc looks then whether it has ended.
	startPatience = 100 // ms
)

// killed is what the shim's delete prints of a container whose end it has not seen: exit status 128 + SIGKILL, as containerd's DeleteResponse is
// encoded (containerd v2.4, api/runtime/task/v3/shim.proto).
var killed = []byte{2 << 3, 0x80 | 137&0x7f, 137 >> 7}

// Do does what the arguments ask for, and says whether it was done, and what is to be printed then; else program is whose work it is.
func Do(args []string) (program string, output []byte, done bool) {
	if len(args) == 0 {
		return runc, nil, false
	}
	if args[0] == "-namespace" || args[0] == "-info" || args[0] == "-v" {
		return shim, killed, args[len(args)-1] == "delete" && cleaned(args)
	}
	c, ok := parse(args)
	switch {
	case !ok:
	case c.action == "start":
		return runc, nil, start(c.dir)
	case c.action == "delete":
		return runc, nil, remove(c.dir)
	}
	return runc, nil, false
}

// call is a call of runc: the folder that it keeps of the container.
type call struct{ action, dir string }

// parse reads a call as containerd's shim makes it: options that have nothing to do with what is done here, the action, the container.
// Anything else is not ok.
func parse(args []string) (c call, ok bool) {
	root := ""
	for len(args) >= 2 && slices.Contains([]string{"--root", "--log", "--log-format"}, args[0]) {
		if args[0] == "--root" {
			root = args[1]
		}
		args = args[2:]
	}
	if len(args) != 2 || !filepath.IsAbs(root) || !name(args[1]) {
		return call{}, false
	}
	return call{action: args[0], dir: filepath.Join(root, args[1])}, true
}

// name says whether a container can be called that: a folder in the one of all, and nothing else.
func name(id string) bool {
	return id != "" && !strings.HasPrefix(id, "-") && !strings.HasPrefix(id, ".") && !strings.ContainsRune(id, '/')
}

// start lets the process of a created container go on.
func start(dir string) bool {
	fifo := filepath.Join(dir, execFifo)
	// Not closed on exec: the process goes on as soon as somebody reads, and what it writes must not be lost before runc does.
	fd, err := unix.Open(fifo, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_NOFOLLOW, 0)
	if err != nil {
		return false
	}
	poll := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	for {
		n, err := unix.Poll(poll, startPatience)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil || n == 0 || poll[0].Revents&unix.POLLIN == 0 {
			return false
		}
		break
	}
	if n, err := unix.Read(fd, make([]byte, 1)); err != nil || n == 0 {
		return false
	}
	err = os.Remove(fifo)
	return err == nil || errors.Is(err, fs.ErrNotExist)
}

// state is what runc writes down of a container, as far as it is needed (runc v1.5, libcontainer/container.go).
type state struct {
	PID     int    `json:"init_process_pid"`
	Started uint64 `json:"init_process_start"`
	Config  struct {
		Hooks  map[string][]json.RawMessage `json:"Hooks"`
		Spaces []space                      `json:"namespaces"`
	} `json:"config"`
}

// space is a namespace; one without a path is the container's own.
type space struct {
	Type string `json:"type"`
	Path string `json:"path"`
}

// read reads it.
func read(dir string) (s state, ok bool) {
	text, err := os.ReadFile(filepath.Join(dir, stateFile))
	ok = err == nil && json.Unmarshal(text, &s) == nil && s.PID > 0 && s.Started > 0
	return s, ok
}

// remove removes a container whose process has ended. Its cgroups are the agent's to remove.
func remove(dir string) bool {
	if _, err := os.Lstat(filepath.Join(dir, execFifo)); !errors.Is(err, fs.ErrNotExist) {
		return false
	}
	s, ok := read(dir)
	if !ok || alive(s.PID, s.Started) {
		return false
	}
	for _, hooks := range s.Config.Hooks {
		if len(hooks) > 0 {
			return false
		}
	}
	// With a namespace of processes of its own nothing of it runs any more.
	if !slices.Contains(s.Config.Spaces, space{Type: "NEWPID"}) {
		return false
	}
	return os.RemoveAll(dir) == nil
}

// alive says whether the process with this number that has started then, in the kernel's ticks, has not ended. When that cannot be told it is.
func alive(pid int, started uint64) bool {
	text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ESRCH) {
		return false
	}
	if err != nil {
		return true
	}
	// Behind the name, which may hold anything: state, and as the 20th the start (proc_pid_stat(5)).
	rest := strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:]))
	if len(rest) < 20 {
		return true
	}
	began, err := strconv.ParseUint(rest[19], 10, 64)
	return err != nil || began == started && rest[0] != "Z" && rest[0] != "X"
}

// cleaned says whether nothing is left of a container that the shim's delete would have to remove: containerd calls that each time its connection
// to a shim ends, also when it has closed that itself at the end of all.
func cleaned(args []string) bool {
	id, bundle := value(args, "-id"), value(args, "-bundle")
	if !name(id) || !filepath.IsAbs(bundle) || filepath.Base(bundle) != id {
		return false
	}
	var options struct {
		Root string `json:"root"`
	}
	text, err := os.ReadFile(filepath.Join(bundle, "options.json"))
	if err != nil || json.Unmarshal(text, &options) != nil || !filepath.IsAbs(options.Root) {
		return false
	}
	dir := filepath.Join(options.Root, value(args, "-namespace"), id)
	if _, err := os.Lstat(dir); !errors.Is(err, fs.ErrNotExist) {
		return runsOn(dir) && unmounted(filepath.Join(bundle, "rootfs"))
	}
	mounted, err := isMounted(filepath.Join(bundle, "rootfs"))
	return err == nil && !mounted
}

// runsOn says whether a container's process runs though its shim has ended: the agent lets it serve on, and ends it when its time has come.
func runsOn(dir string) bool {
	s, ok := read(dir)
	return ok && alive(s.PID, s.Started)
}

// unmounted takes a root filesystem away from where the shim has mounted it. The container has mounts of its own.
func unmounted(root string) bool {
	for {
		mounted, err := isMounted(root)
		if err != nil || !mounted {
			return err == nil
		}
		if unix.Unmount(root, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW) != nil {
			return false
		}
	}
}

// isMounted says whether something is mounted on a folder. One that is not there has nothing on it.
func isMounted(dir string) (bool, error) {
	var s unix.Statx_t
	err := unix.Statx(unix.AT_FDCWD, dir, unix.AT_SYMLINK_NOFOLLOW, 0, &s)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return false, nil
	case err != nil:
		return false, err
	case s.Attributes_mask&unix.STATX_ATTR_MOUNT_ROOT == 0:
		return false, errors.New("the kernel does not say what is a mount point")
	}
	return s.Attributes&unix.STATX_ATTR_MOUNT_ROOT != 0, nil
}

// value is that of an option, "" when it is not there.
func value(args []string, option string) string {
	if i := slices.Index(args, option); i >= 0 && i+1 < len(args) {
		return args[i+1]
	}
	return ""
}
