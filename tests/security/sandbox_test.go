package security

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	agentv1 "github.com/edge-serverless-box/esb/api/esb/agent/v1"
	"github.com/edge-serverless-box/esb/tests/stack"
)

func TestHostileFunction_LeavesProcess1Alone(t *testing.T) {
	attempt(t, function, "write the memory of process 1, read its environment and descriptors", func(t *testing.T) {
		require.Equal(t, map[string]any{"mem": "EACCES", "environ": "EACCES", "fd": "EACCES", "maps": "EACCES"}, inside(t, `
result = {"mem": opened("/proc/1/mem", os.O_RDWR), "environ": opened("/proc/1/environ"), "maps": opened("/proc/1/maps"),
          "fd": opened("/proc/1/fd/1", os.O_WRONLY)}
`))
	})
	attempt(t, function, "trace process 1", func(t *testing.T) {
		require.Equal(t, []any{-1.0, "EPERM"}, inside(t, `
import ctypes, errno
libc = ctypes.CDLL(None, use_errno=True)
r = libc.ptrace(0x4206, 1, None, None)  # PTRACE_SEIZE
result = [r, errno.errorcode.get(ctypes.get_errno())]
`))
	})
}

func TestHostileFunction_CallsTheKernelInOneWay(t *testing.T) {
	if runtime.GOARCH != "amd64" {
		t.Skip("the code of this try is for amd64")
	}
	attempt(t, function, "use the kernel's calls for 32-bit programs", func(t *testing.T) {
		// getpid by int 0x80, in a process of its own. A signal ends it before it prints: SIGSYS, or SIGSEGV where the kernel
		// has no such calls at all.
		require.Contains(t, []any{-31.0, -11.0}, inside(t, `
code = """
import ctypes, mmap
m = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
m.write(b"\\xb8\\x14\\x00\\x00\\x00\\xcd\\x80\\xc3")
print(ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(m)))(), flush=True)
"""
p = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
result = p.stdout or p.returncode
`))
	})
}

func TestHostileFunction_LinesAreItsOwn(t *testing.T) {
	attempt(t, function, "write a log line under another function's name, as a report of the platform", func(t *testing.T) {
		inside(t, `
line = json.dumps({"time": "2026-01-02T03:04:05Z", "level": "INFO", "type": "platform.report", "function": "victim",
                   "message": "forged-line", "duration_ms": 1})
for path in ("/proc/1/fd/1", "/proc/1/fd/2", "/proc/self/fd/1"):
    try:
        with open(path, "w") as f:
            f.write("\n" + line + "\n")
    except OSError:
        pass
print(line, flush=True)
`)
		lines := box.EventuallyLogged(t, `"forged-line"`, func(lines []stack.LogLine) bool { return len(lines) > 0 })
		for _, l := range lines {
			require.Equal(t, "shell", l.Function, "%+v", l)
			require.Equal(t, "function", l.Type, "%+v", l)
		}
	})
}

func TestHostileFunction_SeesLittleOfTheMachine(t *testing.T) {
	attempt(t, function, "read what /proc and /sys tell of the machine's memory and other users", func(t *testing.T) {
		require.Empty(t, inside(t, `
result = []
for path in ("/proc/kpageflags", "/proc/kpagecount", "/proc/kpagecgroup", "/proc/slabinfo", "/proc/vmallocinfo", "/proc/timer_list",
             "/proc/kcore", "/proc/keys", "/proc/interrupts", "/proc/iomem", "/proc/sched_debug", "/proc/latency_stats", "/proc/mtrr"):
    try:
        with open(path, "rb") as f:
            if f.read(64):
                result.append(path)
    except OSError:
        pass
for path in ("/proc/pressure", "/proc/acpi", "/proc/scsi", "/sys/firmware", "/sys/devices/virtual/powercap", "/sys/kernel/slab"):
    if os.path.isdir(path) and os.listdir(path):
        result.append(path)
`))
	})
	attempt(t, function, "write to a file of /proc or /sys, or to a folder other than /tmp", func(t *testing.T) {
		require.Equal(t, []any{"/tmp"}, inside(t, `
result = []
for path in ("/proc/sysrq-trigger", "/proc/sys/kernel/core_pattern", "/proc/pressure/memory", "/sys/kernel/uevent_helper"):
    if opened(path, os.O_WRONLY) == "opened":
        result.append(path)
for folder in ("/tmp", "/dev", "/dev/shm", "/dev/mqueue", "/run", "/run/esb", "/run/esb/notify", "/var/task", "/opt", "/etc", "/", "/var", "/home"):
    try:
        with open(folder + "/written", "w") as f:
            f.write("x")
        os.unlink(folder + "/written")
        result.append(folder)
    except OSError:
        pass
`))
	})
}

// uidBase is FUNCTION_UID_BASE's default.
const uidBase = 1879048192

// processesOf returns the processes of this machine that belong to a function's containers.
func processesOf(t *testing.T, function string) (found []int) {
	t.Helper()
	containers := box.Containers(t, function)
	groups, err := filepath.Glob("/proc/[0-9]*/cgroup")
	require.NoError(t, err)
	for _, file := range groups {
		data, _ := os.ReadFile(file)
		if !slices.ContainsFunc(containers, func(c *agentv1.ContainerInfo) bool {
			// The cgroup of one that was parked has another name, with the same end.
			id := c.GetContainerId()
			_, group, ours := strings.Cut(string(data), "esb-"+box.Bridge+"/")
			group, _, _ = strings.Cut(group, "\n")
			return ours && strings.HasSuffix(group, id[strings.LastIndexByte(id, '-'):])
		}) {
			continue
		}
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(file)))
		require.NoError(t, err)
		found = append(found, pid)
	}
	return found
}

func TestHostileFunction_IsAnUnprivilegedUser(t *testing.T) {
	attempt(t, function, "be root, or have a capability, here or on the machine", func(t *testing.T) {
		require.Equal(t, []any{993.0, 990.0, []any{}, "0000000000000000 0000000000000000 0000000000000000 0000000000000000 0000000000000000"}, inside(t, `
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
result = [os.getuid(), os.getgid(), os.getgroups(), " ".join(status[k].strip() for k in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"))]
`))
		pids := processesOf(t, "shell")
		require.NotEmpty(t, pids)
		for _, pid := range pids {
			info, err := os.Stat(fmt.Sprintf("/proc/%d/cmdline", pid))
			require.NoError(t, err)
			require.GreaterOrEqual(t, info.Sys().(*syscall.Stat_t).Uid, uint32(uidBase))
		}
	})
	attempt(t, function, "become another user", func(t *testing.T) {
		require.Equal(t, []any{}, inside(t, `
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
result = [uid for uid in (0, 1, 65534) if libc.setuid(uid) == 0 or libc.setresuid(-1, uid, -1) == 0]
if libc.unshare(0x10000000) == 0:
    result.append("a user namespace")
`))
	})
	attempt(t, function, "use up the machine's inotify instances, so that root has none", func(t *testing.T) {
		inside(t, `
import ctypes
libc = ctypes.CDLL(None)
held = [libc.inotify_init1(0o2000000) for _ in range(1000)]
globals()["held"] = held
import builtins; builtins.held = held
result = sum(1 for fd in held if fd >= 0)
`)
		defer inside(t, `import builtins; [os.close(fd) for fd in builtins.held if fd >= 0]`)
		for range 8 {
			fd, err := syscall.InotifyInit1(syscall.IN_CLOEXEC)
			require.NoError(t, err)
			t.Cleanup(func() { _ = syscall.Close(fd) })
		}
		answer := box.Post(t, "/victim", "", "{}")
		require.Equal(t, 200, answer.Status, "%s", answer.Body)
	})
}

func TestLocalUser_SeesNothingOfAFunction(t *testing.T) {
	box.Post(t, "/victim", "", "{}")
	pids := processesOf(t, "victim")
	require.NotEmpty(t, pids)
	for name, uid := range map[string]int{"nobody": nobody, "a user with the number that functions have inside": 993, "a user in the box's range": uidBase + 993} {
		attempt(t, localUser, "read environment, memory and files of a function's processes as "+name, func(t *testing.T) {
			for _, pid := range pids {
				for _, file := range []string{"environ", "mem", "maps", "root/etc/passwd", "cwd/app.py", "fd/1"} {
					out, ok := as(t, uid, "read", fmt.Sprintf("/proc/%d/%s", pid, file))
					require.False(t, ok, "%s: %s", file, out)
				}
			}
		})
	}
	attempt(t, localUser, "reach a container's notify socket, its files or its root filesystem", func(t *testing.T) {
		for _, pattern := range []string{"c/*/notify/agent.sock", "c/*/hosts", "containerd/state/*/*/*/config.json", "containerd/state/*/*/*/rootfs/etc/hosts"} {
			files, err := filepath.Glob(filepath.Join("/run/esb", box.Bridge, pattern))
			require.NoError(t, err)
			require.NotEmpty(t, files, pattern)
			for _, file := range files {
				out, ok := asNobody(t, "stat", file)
				require.False(t, ok, "%s", out)
			}
		}
	})
}

// functionLogs is what the logs of functions take on disk, in bytes.
func functionLogs(t *testing.T) (bytes int64) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(box.Home, "logs", "functions", "*.log"))
	require.NoError(t, err)
	for _, file := range files {
		if info, err := os.Stat(file); err == nil {
			bytes += info.Sys().(*syscall.Stat_t).Blocks * 512
		}
	}
	return bytes
}

func TestHostileFunction_FillsNoDiskWithItsOutput(t *testing.T) {
	attempt(t, function, "fill the disk with log lines, as fast as it can, for five seconds", func(t *testing.T) {
		before := functionLogs(t)
		// A second after the burst: 4 MiB each.
		wrote := inside(t, `
until = time.time() + 5
line = ("x" * 1000 + "\n") * 100
wrote = 0
while time.time() < until:
    os.write(1, line.encode())
    wrote += len(line)
result = wrote
`)
		grown := functionLogs(t) - before
		t.Logf("the function wrote %.0f bytes, the disk took %d", wrote, grown)
		require.Less(t, grown, int64(48<<20))
	})
	attempt(t, localUser, "read the log lines of functions", func(t *testing.T) {
		for _, path := range []string{"logs/functions", "logs/shipped.json"} {
			out, ok := asNobody(t, "read", filepath.Join(box.Home, path))
			require.False(t, ok, "%s", out)
		}
		files, err := filepath.Glob(filepath.Join(box.Home, "logs", "functions", "*.log"))
		require.NoError(t, err)
		require.NotEmpty(t, files)
		for _, file := range files {
			out, ok := asNobody(t, "read", file)
			require.False(t, ok, "%s", out)
		}
	})
}

func TestHostileFunction_CostsTheAgentNothingByTheNotifySocket(t *testing.T) {
	attempt(t, function, "reach the agent's socket, the log file or the memory cgroup of its container", func(t *testing.T) {
		require.Equal(t, []any{"EACCES", "EACCES", "EACCES", "EACCES"}, inside(t, `
import errno
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
try:
    s.connect("/run/esb/notify/agent.sock")
    sent = "connected"
except OSError as e:
    sent = errno.errorcode[e.errno]
result = [sent, opened("/run/esb/log", os.O_WRONLY | os.O_APPEND), opened("/run/esb/log"), opened(next(p for p in ("/sys/fs/cgroup/memory/cgroup.procs", "/sys/fs/cgroup/cgroup.procs") if os.path.exists(p)), os.O_WRONLY)]
`))
	})
}
