package containerd

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

func TestUnmountBelow_FolderBehindALinkAndWithASpace_IsFound(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: it mounts a folder")
	}
	dir := t.TempDir()
	point := filepath.Join(dir, "a state", "x")
	link := filepath.Join(dir, "link")
	require.NoError(t, os.MkdirAll(point, 0o700))
	require.NoError(t, os.Symlink("a state", link))
	require.NoError(t, unix.Mount(point, point, "", unix.MS_BIND, ""))
	t.Cleanup(func() { _ = unix.Unmount(point, unix.MNT_DETACH) })
	assert.Equal(t, []string{point}, mountsBelow(link))
	require.NoError(t, unmountBelow(link))
	assert.Empty(t, mountsBelow(link))
}
