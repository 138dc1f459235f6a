package security

import (
	"testing"

	"github.com/stretchr/testify/require"

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
