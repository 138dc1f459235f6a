// Package smalldisk gives a test a disk of its own, which it can fill.
package smalldisk

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// Mount mounts a file system of its own of size bytes until the test ends, and returns a folder on it that is not there yet.
func Mount(t testing.TB, size int64) string {
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

// Fill writes a file until the disk of dir has no more than left bytes.
func Fill(t testing.TB, dir string, left int64) (name string) {
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
