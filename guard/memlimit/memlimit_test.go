package memlimit

import (
	"math"
	"os"
	"path/filepath"
	"runtime/debug"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const (
	v1Mounts = "30 20 0:26 / /sys/fs/cgroup/memory rw,nosuid - cgroup cgroup rw,memory\n31 20 0:27 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n"
	v2Mounts = "30 20 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw\n"
	machine  = 8 << 30
)

func TestFind(t *testing.T) {
	for name, c := range map[string]struct {
		mounts, groups string
		files          map[string]string
		bytes          float64
		source         string
	}{
		"no limit": {v2Mounts, "0::/a\n", map[string]string{"/sys/fs/cgroup/a/memory.max": "max\n"}, machine * machineShare, "/proc/meminfo"},
		"v2": {v2Mounts, "0::/a\n", map[string]string{"/sys/fs/cgroup/a/memory.max": "536870912\n"},
			512 << 20 * groupShare, "/sys/fs/cgroup/a/memory.max"},
		"v2, a parent's": {v2Mounts, "0::/a/b\n", map[string]string{"/sys/fs/cgroup/a/memory.max": "536870912\n", "/sys/fs/cgroup/a/b/memory.max": "1073741824\n"},
			512 << 20 * groupShare, "/sys/fs/cgroup/a/memory.max"},
		"v2, a namespace of its own": {v2Mounts, "0::/\n", map[string]string{"/sys/fs/cgroup/memory.max": "536870912\n"},
			512 << 20 * groupShare, "/sys/fs/cgroup/memory.max"},
		"v1": {v1Mounts, "4:memory:/a\n3:cpu:/b\n0::/\n", map[string]string{"/sys/fs/cgroup/memory/a/memory.limit_in_bytes": "536870912\n", "/sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n"},
			512 << 20 * groupShare, "/sys/fs/cgroup/memory/a/memory.limit_in_bytes"},
		"v1 of Docker": {"30 20 0:26 /docker/1 /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n", "4:memory:/docker/1\n", map[string]string{"/sys/fs/cgroup/memory/memory.limit_in_bytes": "536870912\n"},
			512 << 20 * groupShare, "/sys/fs/cgroup/memory/memory.limit_in_bytes"},
		"v1 of Docker in a namespace": {"30 20 0:26 /docker/1 /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n", "4:memory:/\n", map[string]string{"/sys/fs/cgroup/memory/memory.limit_in_bytes": "536870912\n"},
			512 << 20 * groupShare, "/sys/fs/cgroup/memory/memory.limit_in_bytes"},
		"more than the machine has": {v2Mounts, "0::/a\n", map[string]string{"/sys/fs/cgroup/a/memory.max": "99999999999999\n"}, machine * machineShare, "/proc/meminfo"},
		"no control groups":         {"", "", nil, machine * machineShare, "/proc/meminfo"},
	} {
		t.Run(name, func(t *testing.T) {
			root := t.TempDir()
			write := func(name, text string) {
				file := filepath.Join(root, name)
				require.NoError(t, os.MkdirAll(filepath.Dir(file), 0o700))
				require.NoError(t, os.WriteFile(file, []byte(text), 0o600))
			}
			write("proc/meminfo", "MemTotal:        8388608 kB\nMemFree: 1 kB\n")
			write("proc/self/mountinfo", c.mounts)
			write("proc/self/cgroup", c.groups)
			for name, text := range c.files {
				write(name, text)
			}
			l, err := find(root)
			require.NoError(t, err)
			assert.Equal(t, Limit{Bytes: int64(c.bytes), Source: c.source}, l)
		})
	}
}

func TestFind_DamagedLimit_NamesTheFile(t *testing.T) {
	root := t.TempDir()
	for name, text := range map[string]string{
		"proc/meminfo": "MemTotal: 1000 kB\n", "proc/self/mountinfo": v2Mounts, "proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": "much\n",
	} {
		file := filepath.Join(root, name)
		require.NoError(t, os.MkdirAll(filepath.Dir(file), 0o700))
		require.NoError(t, os.WriteFile(file, []byte(text), 0o600))
	}
	_, err := find(root)
	require.ErrorContains(t, err, "memory.max")
}

func TestApply(t *testing.T) {
	before := debug.SetMemoryLimit(-1)
	defer debug.SetMemoryLimit(before)
	debug.SetMemoryLimit(math.MaxInt64)
	l, err := Apply(func(string) string { return "" })
	require.NoError(t, err)
	assert.Positive(t, l.Bytes)
	assert.Equal(t, l.Bytes, debug.SetMemoryLimit(-1))

	debug.SetMemoryLimit(300 << 20)
	l, err = Apply(func(string) string { return "300MiB" })
	require.NoError(t, err)
	assert.Equal(t, Limit{Bytes: 300 << 20, Source: "GOMEMLIMIT"}, l)
}

func TestLimit_Budget(t *testing.T) {
	assert.Equal(t, int64(100<<20), Limit{Bytes: 200 << 20}.Budget(.5, 1<<30))
	assert.Equal(t, int64(1<<30), Limit{Bytes: 20 << 30}.Budget(.5, 1<<30))
	assert.Equal(t, int64(16<<20), Limit{Bytes: 1 << 20}.Budget(.5, 1<<30))
}
