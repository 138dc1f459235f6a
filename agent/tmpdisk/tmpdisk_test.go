package tmpdisk

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/edge-serverless-box/esb/agent"
	"github.com/edge-serverless-box/esb/guard/ownthread"
)

const patience = 60 * time.Second

func mustPool(t *testing.T, cfg Config) *Pool {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("disks are made by root")
	}
	if cfg.Dir == "" {
		cfg.Dir = t.TempDir()
	}
	if cfg.SizeMB == 0 {
		cfg.SizeMB = 64
	}
	cfg.Logger = slog.New(slog.NewTextHandler(t.Output(), nil))
	p, err := Open(t.Context(), cfg)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, p.Close()) })
	return p
}

func mustTake(t *testing.T, p *Pool, sizeMB int) *Disk {
	t.Helper()
	d, err := p.Take(t.Context(), sizeMB)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, d.Close()) })
	return d
}

// file is a path on the disk, wherever it is mounted.
func (d *Disk) file(name string) string { return fmt.Sprintf("/proc/self/fd/%d/%s", d.root.Fd(), name) }

// device is the number of the loop device below it.
func (d *Disk) device(t *testing.T) string {
	t.Helper()
	var about unix.Stat_t
	require.NoError(t, unix.Fstat(int(d.root.Fd()), &about))
	return fmt.Sprintf("loop%d", unix.Minor(about.Dev))
}

// backing is what a loop device is made of, "" when it is free.
func backing(device string) string {
	text, _ := os.ReadFile("/sys/block/" + device + "/loop/backing_file")
	return strings.TrimSpace(string(text))
}

func TestPool_ADisk_HasItsSizeToTheMB(t *testing.T) {
	p := mustPool(t, Config{})
	for _, size := range []int{64, 512, 777, 10240} {
		d := mustTake(t, p, size)
		var fs unix.Statfs_t
		require.NoError(t, unix.Fstatfs(int(d.root.Fd()), &fs))
		assert.EqualValues(t, size, fs.Bavail*uint64(fs.Bsize)>>20, "room of %d MB", size)
		assert.GreaterOrEqual(t, fs.Ffree, uint64(size*inodesPerMB-16))
		entries, err := os.ReadDir(d.file(""))
		require.NoError(t, err)
		assert.Empty(t, entries, "no lost+found")
	}
}

func TestPool_AFullDisk_SaysSo(t *testing.T) {
	d := mustTake(t, mustPool(t, Config{}), 64)
	out, err := os.Create(d.file("big"))
	require.NoError(t, err)
	n, err := io.CopyN(out, zeros{}, 65<<20)
	assert.ErrorIs(t, errors.Join(err, out.Sync()), syscall.ENOSPC)
	assert.GreaterOrEqual(t, n, int64(64<<20))
	require.NoError(t, out.Close())
	require.NoError(t, os.Remove(d.file("big")))
	for i := 0; err == nil || i == 0; i++ {
		if err = os.WriteFile(d.file(fmt.Sprint("f", i)), nil, 0o600); err != nil {
			assert.ErrorIs(t, err, syscall.ENOSPC)
			assert.Greater(t, i, 64*inodesPerMB-32)
		}
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// What is removed is given back to the machine.
func TestDisk_TakesOfTheMachineWhatIsOnIt(t *testing.T) {
	p := mustPool(t, Config{})
	f, err := p.copy(p.templates[0].file)
	require.NoError(t, err)
	defer func() { require.NoError(t, f.Close()) }()
	d, err := mountFile(f)
	require.NoError(t, err)
	defer func() { require.NoError(t, d.Close()) }()
	takes := func() int64 {
		require.NoError(t, unix.Syncfs(int(d.root.Fd())))
		var about unix.Stat_t
		require.NoError(t, unix.Fstat(int(f.Fd()), &about))
		return about.Blocks * 512
	}
	assert.Less(t, takes(), int64(2<<20), "empty")
	require.NoError(t, os.WriteFile(d.file("big"), make([]byte, 32<<20), 0o600))
	assert.Greater(t, takes(), int64(32<<20))
	require.NoError(t, os.Remove(d.file("big")))
	require.Eventually(t, func() bool { return takes() < 2<<20 }, patience, 10*time.Millisecond, "room that is given back")
}

func TestPool_Closed_LeavesNothing(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("disks are made by root")
	}
	dir := t.TempDir()
	stale := filepath.Join(dir, filePrefix+"of-another-life")
	require.NoError(t, os.WriteFile(stale, nil, 0o600))
	p, err := Open(t.Context(), Config{Dir: dir, SizeMB: 64})
	require.NoError(t, err)
	d, err := p.Take(t.Context(), 64)
	require.NoError(t, err)
	device := d.device(t)
	assert.Contains(t, backing(device), dir)
	require.NoError(t, os.WriteFile(d.file("big"), make([]byte, 2*written), 0o600))
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	assert.Empty(t, entries, "files with a name")
	mounts, err := os.ReadFile("/proc/self/mounts")
	require.NoError(t, err)
	assert.NotContains(t, string(mounts), "/dev/"+device+" ")
	require.NoError(t, d.Discard())
	require.NoError(t, p.Close())
	require.Eventually(t, func() bool { return !strings.Contains(backing(device), dir) }, patience, 10*time.Millisecond, "the loop device is free")
}

func TestPool_MachinesDiskNearlyFull_IsRefused(t *testing.T) {
	p := mustPool(t, Config{ReserveMB: 1 << 30})
	_, err := p.Take(t.Context(), 64)
	require.ErrorContains(t, err, "FUNCTION_TMP_RESERVE_MB")
	assert.Equal(t, agent.CodeExhausted, agent.ErrorCode(err))
}

// Each is whole, also of a size that nobody had before, and while others are made and given up.
func TestPool_SizesThatAreNew_AreWhole(t *testing.T) {
	p := mustPool(t, Config{})
	var all sync.WaitGroup
	for at := range 4 {
		all.Go(func() {
			for i := range 12 {
				d, err := p.Take(t.Context(), 65+at*12+i)
				if !assert.NoError(t, err) {
					return
				}
				assert.NoError(t, os.WriteFile(d.file("f"), make([]byte, 1<<20), 0o600))
				assert.NoError(t, os.MkdirAll(d.file("a/b/c"), 0o700))
				assert.NoError(t, os.RemoveAll(d.file("a")))
				assert.NoError(t, d.Discard())
			}
		})
	}
	all.Wait()
}

func TestPool_SeveralAtOnce_AreDifferentOnes(t *testing.T) {
	p := mustPool(t, Config{})
	seen := map[string]bool{}
	for range 6 {
		seen[mustTake(t, p, 64).device(t)] = true
	}
	assert.Len(t, seen, 6)
}

// TestBind_ProcessEnds_LeavesNothing moves a disk into a namespace of its own, kills who lives there, and never closes
// the disk: as an agent that is killed.
func TestBind_ProcessEnds_LeavesNothing(t *testing.T) {
	p := mustPool(t, Config{})
	d := mustTake(t, p, 64)
	device := d.device(t)
	cmd := exec.Command("sleep", "1000")
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: unix.CLONE_NEWNS}
	require.NoError(t, cmd.Start())
	defer func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }()
	process, err := os.Open(fmt.Sprintf("/proc/%d", cmd.Process.Pid))
	require.NoError(t, err)
	defer func() { _ = process.Close() }()
	container, err := os.Open(fmt.Sprintf("/proc/%d/ns/mnt", cmd.Process.Pid))
	require.NoError(t, err)
	require.NoError(t, d.Bind(container, 4711))
	assert.ErrorContains(t, d.Bind(container, 4711), "has its place already")
	require.NoError(t, container.Close())
	inside := fmt.Sprintf("/proc/%d/root/tmp", cmd.Process.Pid)
	var about unix.Stat_t
	require.NoError(t, unix.Stat(inside, &about))
	assert.EqualValues(t, 4711, about.Uid)
	assert.EqualValues(t, unix.S_IFDIR|unix.S_ISVTX|0o777, about.Mode)
	mounts, err := os.ReadFile(fmt.Sprintf("/proc/%d/mounts", cmd.Process.Pid))
	require.NoError(t, err)
	assert.Regexp(t, "(?m)^/dev/"+device+" /tmp ext4 rw,nosuid,nodev,noatime", string(mounts))
	here, err := os.ReadFile("/proc/self/mounts")
	require.NoError(t, err)
	assert.NotContains(t, string(here), "/dev/"+device+" ")

	// An agent that starts anew finds it by the process.
	require.NoError(t, d.Close())
	assert.NotEmpty(t, backing(device))
	again, err := Adopt(process)
	require.NoError(t, err)
	require.NotNil(t, again)
	assert.Equal(t, device, again.device(t))
	require.NoError(t, os.WriteFile(filepath.Join(inside, "big"), make([]byte, 2*written), 0o600))
	require.NoError(t, cmd.Process.Kill())
	_ = cmd.Wait()
	assert.Contains(t, backing(device), p.cfg.Dir, "kept by who adopted it")
	require.NoError(t, again.Discard())
	require.Eventually(t, func() bool { return !strings.Contains(backing(device), p.cfg.Dir) }, patience, 10*time.Millisecond, "the loop device is free")
	_, err = Adopt(process)
	require.Error(t, err, "it has ended, whoever has its number")
}

// The first thread of a process cannot end, and shows in /proc what the process is.
func TestOnThreadOfItsOwn_IsNeverTheFirst(t *testing.T) {
	var all sync.WaitGroup
	for range 200 {
		all.Go(func() {
			assert.NoError(t, ownthread.Do(func() error {
				assert.NotEqual(t, unix.Getpid(), unix.Gettid())
				return nil
			}))
		})
	}
	all.Wait()
}

func TestBind_NoMountNamespace_IsAnError(t *testing.T) {
	d := mustTake(t, mustPool(t, Config{}), 64)
	other, err := os.Open("/proc/self/ns/net")
	require.NoError(t, err)
	defer func() { _ = other.Close() }()
	require.ErrorContains(t, d.Bind(other, 0), "setns")
}

func BenchmarkTake(b *testing.B) {
	p, err := Open(b.Context(), Config{Dir: b.TempDir(), SizeMB: 512})
	require.NoError(b, err)
	defer func() { _ = p.Close() }()
	for b.Loop() {
		d, err := p.make(b.Context(), 512)
		require.NoError(b, err)
		require.NoError(b, d.Close())
	}
}
