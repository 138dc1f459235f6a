package containerd

import (
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/opencontainers/runtime-spec/specs-go"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/edge-serverless-box/esb/agent"
	"github.com/edge-serverless-box/esb/agent/cgroup"
)

func TestContainerID_IsWhatContainerdTakes(t *testing.T) {
	for function, want := range map[string]string{
		"lambda-echo":                    "lambda-lambda-echo-abcd1234",
		"a--b__c":                        "lambda-a-b_c-abcd1234",
		"-":                              "lambda-abcd1234",
		strings.Repeat("x", 64):          "lambda-" + strings.Repeat("x", maxFunctionPart) + "-abcd1234",
		strings.Repeat("x", 59) + "-yyy": "lambda-" + strings.Repeat("x", 59) + "-abcd1234",
	} {
		got := containerID(function, "abcd1234")
		assert.Equal(t, want, got)
		assert.LessOrEqual(t, len(got), 76)
		assert.Equal(t, "abcd1234", shortID(got))
	}
}

func TestRecord_SurvivesItsLabels(t *testing.T) {
	want := record{Container: agent.Container{
		ID: "lambda-f-1", Name: "lambda-f-1", FunctionName: "f", Status: agent.StatusUnknown, IP: "10.88.0.2", Port: 8080, Image: "i",
		ImageDigest: "sha256:1", Generation: "g", Interface: agent.RIE, Standby: true,
		CreatedAt: time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC), LastUsedAt: time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC),
	}, sandbox: "lambda-f-1", attachment: "a", memoryMB: 128, madeWith: "region=01020304", firstID: 1879179264, shim: "esb-shim-01020304", code: []string{"t1", "t2"}}
	assert.Equal(t, want, recordOf("lambda-f-1", want.labels("esb0")))
	want.Interface, want.Port = agent.Supervisor, agent.SupervisorPort
	assert.Equal(t, want, recordOf("lambda-f-1", want.labels("esb0")))
	// One that was parked has its function's name, and another id in containerd.
	bound := want
	bound.sandbox = "lambda-1"
	assert.Equal(t, bound, recordOf("lambda-1", bound.labels("esb0")))
	bound.ID, bound.Name, bound.parked = "lambda-1", "lambda-1", true
	assert.Equal(t, bound, recordOf("lambda-1", bound.labels("esb0")))
	// An agent of before 8080 was left to functions has written no port.
	labels := want.labels("esb0")
	delete(labels, labelPort)
	assert.Equal(t, 8080, recordOf("lambda-f-1", labels).Port)
}

func input(change func(*specInput)) specInput {
	in := specInput{
		id: "lambda-f-1", netns: "/run/net/n1", hostname: "h", cgroupsPath: "/esb-esb0/lambda-f-1", groups: []cgroup.Folder{{Host: "/sys/fs/cgroup/memory/x", Name: "memory"}, {Host: "/sys/fs/cgroup/cpu/x", Name: "cpu"}}, meminfo: "/run/c/meminfo-512",
		lambdaInit: "/opt/lambda-init", notifyDir: "/run/n", hosts: "/run/hosts", resolvConf: "/run/resolv.conf",
		tmpSizeMB: 512, pidsLimit: 1024, noFile: 1024, region: "eu-west-1", account: "123456789012", logStream: "s",
		spec:  agent.ContainerSpec{FunctionName: "f", Image: "i", MemoryMB: 1769, Timeout: 3 * time.Second, Interface: agent.Supervisor},
		image: ocispec.ImageConfig{Entrypoint: []string{"/entry"}, Cmd: []string{"app.handler"}, Env: []string{"PATH=/image", "A=image", "B=image"}},
	}
	if change != nil {
		change(&in)
	}
	return in
}

func mustSpec(t *testing.T, change func(*specInput)) *specs.Spec {
	t.Helper()
	s, err := buildSpec(t.Context(), input(change))
	require.NoError(t, err)
	return s
}

func mountOf(s *specs.Spec, destination string) *specs.Mount {
	for i, m := range s.Mounts {
		if m.Destination == destination {
			return &s.Mounts[i]
		}
	}
	return nil
}

func TestBuildSpec_Supervised(t *testing.T) {
	s := mustSpec(t, func(in *specInput) { in.limitSwap = true; in.spec.Standby = true })
	assert.Equal(t, []string{"/run/esb/lambda-init", "--", "/entry", "app.handler"}, s.Process.Args)
	assert.True(t, s.Root.Readonly)
	assert.True(t, s.Process.NoNewPrivileges)
	require.NotNil(t, s.Linux.Seccomp)
	assert.Equal(t, []specs.Arch{nativeArch[runtime.GOARCH]}, s.Linux.Seccomp.Architectures)
	for _, path := range []string{"/proc/kcore", "/proc/kpageflags", "/proc/slabinfo", "/proc/pressure", "/sys/firmware"} {
		assert.Contains(t, s.Linux.MaskedPaths, path)
	}
	assert.Nil(t, mountOf(s, "/dev/shm"))
	assert.Nil(t, mountOf(s, "/dev/mqueue"))
	assert.Equal(t, "/esb-esb0/lambda-f-1", s.Linux.CgroupsPath)
	assert.EqualValues(t, 1769<<20, *s.Linux.Resources.Memory.Limit)
	assert.EqualValues(t, 1769<<20, *s.Linux.Resources.Memory.Swap)
	assert.EqualValues(t, 1024, *s.Linux.Resources.CPU.Shares)
	assert.Nil(t, s.Linux.Resources.CPU.Quota, "the quota comes after the init phase")
	assert.EqualValues(t, 1024, *s.Linux.Resources.Pids.Limit)
	assert.Contains(t, s.Linux.Namespaces, specs.LinuxNamespace{Type: specs.NetworkNamespace, Path: "/run/net/n1"})
	for destination, source := range map[string]string{
		"/run/esb/lambda-init": "/opt/lambda-init", "/run/esb/notify": "/run/n", "/sys/fs/cgroup/memory": "/sys/fs/cgroup/memory/x",
		"/sys/fs/cgroup/cpu": "/sys/fs/cgroup/cpu/x", "/proc/meminfo": "/run/c/meminfo-512",
		"/etc/hosts": "/run/hosts", "/etc/resolv.conf": "/run/resolv.conf",
	} {
		m := mountOf(s, destination)
		require.NotNil(t, m, destination)
		assert.Equal(t, source, m.Source)
		assert.Contains(t, m.Options, "ro", destination)
	}
	assert.Contains(t, mountOf(s, "/run/esb/log").Options, "rw")
	assert.Nil(t, mountOf(s, "/run"))
	assert.Contains(t, mountOf(s, "/dev").Options, "ro")
	assert.Equal(t, []string{"nosuid", "nodev", "mode=1777", "size=512m"}, mountOf(s, "/tmp").Options)
	for _, kv := range []string{"ESB_INIT_STANDBY=1", "ESB_INIT_NOTIFY=/run/esb/notify/agent.sock", "ESB_INIT_CGROUP=/sys/fs/cgroup/memory"} {
		assert.Contains(t, s.Process.Env, kv)
	}
}

// What its memory and CPU are is read there by JVM, V8, .NET and Go tools.
func TestBuildSpec_ShowsTheContainersOwnGroups(t *testing.T) {
	top := mountOf(mustSpec(t, func(*specInput) {}), "/sys/fs/cgroup")
	require.NotNil(t, top)
	assert.Equal(t, "tmpfs", top.Type)
	assert.Contains(t, top.Options, "ro")
	s := mustSpec(t, func(in *specInput) { in.groups = []cgroup.Folder{{Host: "/sys/fs/cgroup/esb-x/c"}} })
	top = mountOf(s, "/sys/fs/cgroup")
	require.NotNil(t, top)
	assert.Equal(t, "/sys/fs/cgroup/esb-x/c", top.Source)
	assert.Contains(t, top.Options, "ro")
	assert.Contains(t, s.Process.Env, "ESB_INIT_CGROUP=/sys/fs/cgroup")
}

func TestBuildSpec_RIE_HasLambdaInitForItsLimitsUserAndLog(t *testing.T) {
	s := mustSpec(t, func(in *specInput) { in.spec.Interface = agent.RIE; in.tmpSizeMB = 0 })
	assert.Equal(t, []string{"/run/esb/lambda-init", "-exec", "--", "/entry", "app.handler"}, s.Process.Args)
	assert.Nil(t, s.Linux.Resources.Memory.Swap, "a kernel that does not count swap refuses a limit")
	assert.False(t, slices.ContainsFunc(s.Mounts, func(m specs.Mount) bool { return m.Destination == "/tmp" }), "a disk is mounted there")
	assert.Contains(t, s.Process.Env, "AWS_LAMBDA_FUNCTION_TIMEOUT=4")
	for _, m := range s.Mounts {
		assert.False(t, strings.HasPrefix(m.Destination, "/run/esb") && m.Destination != initPath && m.Destination != logPath, m.Destination)
	}
	known := []string{
		"ESB_INIT_NOFILE=1024", "ESB_INIT_NPROC=1024", "ESB_INIT_HOME=user", "ESB_INIT_LOG=/run/esb/log", "ESB_INIT_LOG_RATE=1", "ESB_INIT_USER=0:0",
	}
	assert.Subset(t, known, slices.DeleteFunc(slices.Clone(s.Process.Env), func(kv string) bool { return !strings.HasPrefix(kv, "ESB_INIT_") }))
}

func TestBuildSpec_ImageConfigOverrides(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*specInput)
		args   []string
	}{
		"command":    {func(in *specInput) { in.spec.Command = []string{"other.handler"} }, []string{"/entry", "other.handler"}},
		"entrypoint": {func(in *specInput) { in.spec.Entrypoint = []string{"/mine"} }, []string{"/mine"}},
	} {
		t.Run(name, func(t *testing.T) {
			s := mustSpec(t, c.change)
			assert.Equal(t, c.args, s.Process.Args[2:])
		})
	}
	assert.Equal(t, "/var/task", mustSpec(t, func(in *specInput) { in.image.WorkingDir = "/var/task" }).Process.Cwd)
	_, err := buildSpec(t.Context(), input(func(in *specInput) { in.image = ocispec.ImageConfig{} }))
	assert.Equal(t, agent.CodePrecondition, agent.ErrorCode(err))
	assert.ErrorContains(t, err, "ENTRYPOINT")
}

func TestEnvironment_ImageThenFunctionThenAWS(t *testing.T) {
	env := environment(input(func(in *specInput) {
		in.environment = map[string]string{"AWS_SECRET_ACCESS_KEY": "box", "AWS_ACCESS_KEY_ID": "box", "A": "box", "AWS_ENDPOINT_URL_S3": "http://10.88.0.1:9000"}
		in.spec.Env = map[string]string{
			"B": "function", "AWS_REGION": "moon", "AWS_LAMBDA_RUNTIME_API": "evil", "ESB_INIT_NOTIFY": "evil", "_HANDLER": "evil",
			"AWS_ACCESS_KEY_ID": "mine", "TZ": "Asia/Tokyo",
		}
	}))
	for _, kv := range []string{
		"AWS_SECRET_ACCESS_KEY=box", "AWS_ENDPOINT_URL_S3=http://10.88.0.1:9000", "PATH=/image", "A=image", "B=function", "AWS_REGION=eu-west-1", "AWS_DEFAULT_REGION=eu-west-1", "_HANDLER=app.handler",
		"AWS_LAMBDA_FUNCTION_NAME=f", "AWS_LAMBDA_FUNCTION_VERSION=$LATEST", "AWS_LAMBDA_FUNCTION_MEMORY_SIZE=1769",
		"AWS_LAMBDA_FUNCTION_TIMEOUT=3", "AWS_LAMBDA_LOG_GROUP_NAME=/aws/lambda/f", "LAMBDA_TASK_ROOT=/var/task",
		"AWS_ACCESS_KEY_ID=mine", "TZ=Asia/Tokyo", "ESB_INIT_STANDBY=0", "ESB_INIT_NOTIFY=" + notifyPath,
	} {
		assert.Contains(t, env, kv)
	}
	for _, kv := range env {
		assert.NotContains(t, kv, "evil")
		assert.False(t, strings.HasPrefix(kv, "AWS_EXECUTION_ENV="))
	}
	assert.True(t, slices.IsSorted(env))
}

func TestEnvironment_AWSVariables(t *testing.T) {
	value := func(change func(*specInput), key string) (string, bool) {
		for _, kv := range environment(input(change)) {
			if k, v, _ := strings.Cut(kv, "="); k == key {
				return v, true
			}
		}
		return "", false
	}
	runtime := func(name string) func(*specInput) {
		return func(in *specInput) {
			in.image.Env = append(in.image.Env, "AWS_EXECUTION_ENV=AWS_Lambda_image", "LANG=C.UTF-8")
			in.spec.Code = &agent.FunctionCode{Runtime: name, Handler: "app.handler"}
		}
	}
	for key, want := range map[string]string{
		"AWS_XRAY_CONTEXT_MISSING": "LOG_ERROR", "AWS_XRAY_DAEMON_ADDRESS": "169.254.100.1:2000",
		"_AWS_XRAY_DAEMON_ADDRESS": "169.254.100.1", "_AWS_XRAY_DAEMON_PORT": "2000", "TZ": ":UTC", "LANG": "en_US.UTF-8",
		"LAMBDA_TASK_ROOT": "/var/task", "LAMBDA_RUNTIME_DIR": "/var/runtime", "AWS_LAMBDA_INITIALIZATION_TYPE": "on-demand",
		"AWS_LAMBDA_LOG_STREAM_NAME": "s",
	} {
		got, _ := value(nil, key)
		assert.Equal(t, want, got, key)
	}
	for name, want := range map[string]string{"python3.12": "AWS_Lambda_python3.12", "nodejs24.x": "AWS_Lambda_nodejs24.x"} {
		got, _ := value(runtime(name), "AWS_EXECUTION_ENV")
		assert.Equal(t, want, got)
	}
	got, _ := value(runtime("python3.12"), "LANG")
	assert.Equal(t, "en_US.UTF-8", got)
	const libraries, programs = "/lib64:/usr/lib64:/var/runtime:/var/runtime/lib:/var/task:/var/task/lib:/opt/lib", "/usr/local/bin:/usr/bin/:/bin:/opt/bin"
	for name, want := range map[string]map[string]string{
		"python3.12": {
			"PATH": "/var/lang/bin:" + programs, "LD_LIBRARY_PATH": "/var/lang/lib:" + libraries, "PYTHONPATH": "/var/runtime", "NODE_PATH": "",
			"PWD": "/var/task", "SHLVL": "0", "ESB_INIT_WRAPPER": "1",
		},
		"nodejs20.x": {
			"PATH": "/var/lang/bin:" + programs, "LD_LIBRARY_PATH": "/var/lang/lib:" + libraries, "PYTHONPATH": "",
			"NODE_PATH": "/opt/nodejs/node20/node_modules:/opt/nodejs/node_modules:/var/runtime/node_modules:/var/runtime:/var/task",
		},
		"provided.al2023": {"PATH": programs, "LD_LIBRARY_PATH": libraries, "PYTHONPATH": "", "NODE_PATH": "", "PWD": "", "SHLVL": "", "ESB_INIT_WRAPPER": ""},
	} {
		change := func(in *specInput) {
			runtime(name)(in)
			in.image.WorkingDir = "/elsewhere"
			in.image.Entrypoint = []string{"/usr/bin/python3", "-S", "/var/runtime/bootstrap.pyc"}
			if name == "provided.al2023" {
				in.spec.Entrypoint = []string{"/var/task/bootstrap"}
			}
		}
		for key, text := range want {
			got, _ := value(change, key)
			assert.Equal(t, text, got, "%s of %s", key, name)
		}
		assert.Equal(t, "/var/task", mustSpec(t, change).Process.Cwd)
	}
	got, _ = value(func(in *specInput) { runtime("nodejs24.x")(in); in.spec.Env = map[string]string{"NODE_PATH": "/mine"} }, "NODE_PATH")
	assert.Equal(t, "/mine", got, "the function has the last word")
	operators := func(in *specInput) {
		runtime("java21")(in)
		in.spec.Code.Base = "corp/java:21"
		in.image.Env = []string{"PATH=/opt/java/bin:/bin", "LANG=C.UTF-8"}
	}
	for key, want := range map[string]string{"PATH": "/opt/java/bin:/bin", "LANG": "C.UTF-8", "TZ": ":UTC", "LD_LIBRARY_PATH": "/var/lang/lib:" + libraries} {
		got, _ = value(operators, key)
		assert.Equal(t, want, got, "%s of an image that the operator names", key)
	}
	got, _ = value(func(in *specInput) { operators(in); in.spec.Code.Base = "nodejs24.x" }, "PATH")
	assert.Equal(t, "/var/lang/bin:"+programs, got, "a base of the box has AWS's")
	for entrypoint, want := range map[string]string{"/lambda-entrypoint.sh": "", "/var/runtime/bootstrap": "", "/usr/bin/node /var/runtime/bootstrap.js": "1"} {
		got, _ := value(func(in *specInput) { in.image.Entrypoint = strings.Fields(entrypoint) }, "ESB_INIT_WRAPPER")
		assert.Equal(t, want, got, "of an image that starts %s", entrypoint)
	}
	_, ok := value(runtime("provided.al2023"), "AWS_EXECUTION_ENV")
	assert.False(t, ok, "provided runtimes have none")
	assert.Regexp(t, `^2026/01/02/\[\$LATEST\][0-9a-f]{32}$`, logStream(time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)))
}

func TestBuildSpec_User_IsInARangeOfItsOwnAndHasNoCapabilities(t *testing.T) {
	who := user{uid: 65534, gid: 65533, groups: []uint32{7, 8}}
	change := func(in *specInput) { in.userns, in.firstID, in.user = "/run/users/u1", 1879179264, who }
	s := mustSpec(t, change)
	assert.Contains(t, s.Linux.Namespaces, specs.LinuxNamespace{Type: specs.UserNamespace, Path: "/run/users/u1"})
	assert.Equal(t, []specs.LinuxIDMapping{{ContainerID: 0, HostID: 1879179264, Size: 65536}}, s.Linux.UIDMappings)
	assert.Equal(t, s.Linux.UIDMappings, s.Linux.GIDMappings)
	assert.Equal(t, specs.User{}, s.Process.User, "lambda-init is another user than the function")
	assert.Equal(t, []string{"CAP_SETUID", "CAP_SETGID", "CAP_KILL", "CAP_SETPCAP"}, s.Process.Capabilities.Bounding)
	assert.Empty(t, s.Process.Capabilities.Ambient)
	assert.Empty(t, s.Process.Capabilities.Inheritable)
	assert.Contains(t, s.Process.Env, "ESB_INIT_USER=65534:65533:7,8")
	assert.Contains(t, s.Process.Env, "ESB_INIT_HOME=user")
	s = mustSpec(t, func(in *specInput) { change(in); in.user = user{uid: 993, gid: 990} })
	assert.Contains(t, s.Process.Env, "ESB_INIT_HOME=none", "AWS sets none")
	s = mustSpec(t, func(in *specInput) { change(in); in.spec.Env = map[string]string{"HOME": "/tmp"} })
	assert.NotContains(t, strings.Join(s.Process.Env, " "), "ESB_INIT_HOME")
	s = mustSpec(t, change)
	assert.Contains(t, s.Process.Env, "ESB_INIT_NPROC=1024")
	assert.Empty(t, s.Process.Rlimits, "lambda-init sets its own")

	s = mustSpec(t, func(in *specInput) { change(in); in.spec.Interface = agent.RIE })
	assert.Contains(t, s.Process.Env, "ESB_INIT_NPROC=1024")
	assert.Contains(t, s.Process.Env, "ESB_INIT_USER=65534:65533:7,8")
	assert.Equal(t, specs.User{}, s.Process.User)
	assert.Equal(t, []string{"CAP_SETUID", "CAP_SETGID", "CAP_KILL", "CAP_SETPCAP"}, s.Process.Capabilities.Bounding)
}

func TestCodeImage_BaseCountsBeforeTheRuntime(t *testing.T) {
	for want, c := range map[string]agent.FunctionCode{
		"esb/runtime-python:3.11":     {Runtime: "python3.11"},
		"esb/runtime-nodejs:24":       {Runtime: "nodejs20.x", Base: "nodejs24.x"},
		"esb/runtime-provided:latest": {Runtime: "provided.al2"},
		"my/java:21":                  {Runtime: "java21", Base: "my/java:21"},
		"":                            {Runtime: "java21"},
	} {
		assert.Equal(t, want, codeImage(c))
	}
}

func TestNamesUser(t *testing.T) {
	for text, want := range map[string]bool{"": false, "root": false, "0": false, "0:0": false, "root:root": false, "app": true, "65534": true, "1000:0": true} {
		assert.Equal(t, want, namesUser(text), text)
	}
}

func TestValidate(t *testing.T) {
	good := agent.ContainerSpec{FunctionName: "f", Image: "i", MemoryMB: 128, Timeout: time.Second}
	got, err := validate(good)
	require.NoError(t, err)
	assert.Equal(t, agent.Supervisor, got.Interface)
	assert.Equal(t, agent.PullIfNotPresent, got.PullPolicy)
	for name, change := range map[string]func(*agent.ContainerSpec){
		"name":    func(s *agent.ContainerSpec) { s.FunctionName = "a/b" },
		"image":   func(s *agent.ContainerSpec) { s.Image = "" },
		"memory":  func(s *agent.ContainerSpec) { s.MemoryMB = 0 },
		"timeout": func(s *agent.ContainerSpec) { s.Timeout = 0 },
		"standby": func(s *agent.ContainerSpec) { s.Standby = true; s.Interface = agent.RIE },
	} {
		bad := good
		change(&bad)
		_, err := validate(bad)
		assert.Equal(t, agent.CodeInvalid, agent.ErrorCode(err), name)
	}
}

func TestIsShim_OnlyTheContainersOwn(t *testing.T) {
	args := func(s string) (out [][]byte) {
		for _, a := range strings.Fields(s) {
			out = append(out, []byte(a))
		}
		return out
	}
	const own = "/opt/containerd-shim-runc-v2 -namespace esb-runtime -id lambda-f-1 -address /run/c.sock"
	assert.True(t, isShim(args(own), "lambda-f-1", "/run/c.sock"))
	for _, other := range []string{
		"", "-id lambda-f-1", strings.Replace(own, "lambda-f-1", "lambda-f-12", 1), strings.Replace(own, "/run/c.sock", "/run/d.sock", 1),
		strings.Replace(own, "esb-runtime", "moby", 1), strings.Replace(own, "containerd-shim-runc-v2", "vi", 1),
	} {
		assert.False(t, isShim(args(other), "lambda-f-1", "/run/c.sock"), other)
	}
}

func TestValidate_TakesTheRuntimesThatAnImageIsNamedFor(t *testing.T) {
	spec := agent.ContainerSpec{FunctionName: "f", MemoryMB: 128, Timeout: time.Second, Code: &agent.FunctionCode{Runtime: "java21", Handler: "a.B"}}
	_, err := validate(spec)
	assert.ErrorContains(t, err, `runtime "java21" is not known`)
	for _, base := range []string{"corp/java:21", "python3.11"} {
		spec.Code.Base = base
		_, err = validate(spec)
		assert.NoError(t, err)
	}
}
