package lifecycle

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/edge-serverless-box/esb/tests/hoststate"
	"github.com/edge-serverless-box/esb/tests/stack"
)

// mustSmallDisk mounts a file system of its own of size bytes and returns a folder on it.
func mustSmallDisk(t *testing.T, size int64) string {
	t.Helper()
	dir := t.TempDir()
	image, mount := filepath.Join(dir, "disk"), filepath.Join(dir, "mount")
	require.NoError(t, os.WriteFile(image, nil, 0o600))
	require.NoError(t, os.Truncate(image, size))
	require.NoError(t, os.Mkdir(mount, 0o755))
	mkfs := "/usr/sbin/mkfs.ext4" // root's PATH does not always lead there
	if _, err := os.Stat(mkfs); err != nil {
		mkfs = "mkfs.ext4"
	}
	for _, command := range [][]string{{mkfs, "-q", "-F", "-m", "0", image}, {"mount", "-o", "loop", image, mount}} {
		out, err := exec.CommandContext(t.Context(), command[0], command[1:]...).CombinedOutput()
		require.NoError(t, err, "%s: %s", command[0], out)
	}
	t.Cleanup(func() {
		// A box that a failed test leaves behind holds the mount.
		assert.NoError(t, unix.Unmount(mount, unix.MNT_DETACH))
	})
	return filepath.Join(mount, "box")
}

// fill writes a file until the disk of dir has no more than left bytes.
func fill(t *testing.T, dir string, left int64) (name string) {
	t.Helper()
	name = filepath.Join(dir, "filler")
	f, err := os.Create(name)
	require.NoError(t, err)
	defer func() { assert.NoError(t, f.Close()) }()
	offset := int64(0)
	for step := int64(64 << 20); step >= 4<<10; {
		if err := unix.Fallocate(int(f.Fd()), 0, offset, step); err != nil {
			require.ErrorIs(t, err, unix.ENOSPC)
			step /= 2
			continue
		}
		offset += step
	}
	require.NoError(t, f.Truncate(max(offset-left, 0)))
	return name
}

// A power cut on a disk that is full is followed by a start on that disk. What is left is far below what events (64 MB), a new
// container and a warning need; the queue needs nothing (gateway/async), but pid files and containerd's databases some KB.
func TestUp_FullDisk_StartsWithAWarning(t *testing.T) {
	home := mustSmallDisk(t, 6<<30)
	require.NoError(t, os.Mkdir(home, 0o700))
	box, err := stack.Prepare(home, stack.Options{})
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, box.Down()) })
	require.NoError(t, box.Up(t.Context()))
	invokeSome(t, box)
	killAll(t, box)
	filler := fill(t, home, 24<<20)

	out, err := box.Esb(t.Context(), "up")
	require.NoError(t, err, out)
	assert.Contains(t, out, "warning: "+home+" has ")
	status, err := box.Esb(t.Context(), "status")
	require.Error(t, err, "a full disk is said")
	assert.Contains(t, status+err.Error(), "the disk of")
	_, err = box.Token(t.Context())
	require.NoError(t, err, "who has a key gets a token")

	require.NoError(t, os.Remove(filler))
	stack.Eventually(t, func() bool {
		_, err := box.Esb(t.Context(), "status")
		return err == nil
	}, "the box is healthy once the disk has room")
	invokeSome(t, box)
}

// killAll ends every process of the box as a power cut does.
func killAll(t *testing.T, box *stack.Stack) {
	t.Helper()
	// Not by the programs' folder: other boxes of this repository have the same.
	state, err := hoststate.Read(box.Home, filepath.Join(box.Home, "none"), box.Bridge)
	require.NoError(t, err)
	require.NotEmpty(t, state["processes"])
	for _, process := range state["processes"] {
		pid, _, _ := strings.Cut(process, " ")
		number, err := strconv.Atoi(pid)
		require.NoError(t, err)
		if err := syscall.Kill(number, syscall.SIGKILL); err != nil {
			require.ErrorIs(t, err, syscall.ESRCH)
		}
	}
}
