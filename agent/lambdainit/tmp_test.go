package lambdainit

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestTmpInMemory_CountsMemoryAlone(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("mounts need root")
	}
	dir := t.TempDir()
	assert.Zero(t, tmpInMemory(filepath.Join(dir, "nowhere")))
	require.NoError(t, syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=8m"))
	t.Cleanup(func() { require.NoError(t, syscall.Unmount(dir, 0)) })
	require.NoError(t, os.WriteFile(filepath.Join(dir, "f"), make([]byte, 3<<20), 0o600))
	assert.EqualValues(t, 3, tmpInMemory(dir)>>20)
}

// The agent mounts /tmp over the folder that a process was started in.
func TestEnterTmp_WorkingFolderInTmp_IsThatOfTheMount(t *testing.T) {
	home, err := os.Getwd()
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, os.Chdir(home)) })
	require.NoError(t, EnterTmp(), "elsewhere it stays")
	now, err := os.Getwd()
	require.NoError(t, err)
	assert.Equal(t, home, now)
	if os.Geteuid() != 0 {
		t.Skip("mounts need root")
	}
	dir, err := os.MkdirTemp("/tmp", "esb-enter-")
	require.NoError(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	require.NoError(t, os.Chdir(dir))
	require.NoError(t, syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=1m"))
	t.Cleanup(func() { require.NoError(t, syscall.Unmount(dir, syscall.MNT_DETACH)) })
	require.NoError(t, EnterTmp())
	require.NoError(t, os.WriteFile("here", nil, 0o600))
	assert.FileExists(t, filepath.Join(dir, "here"))
}
