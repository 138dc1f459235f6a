package containerd

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestMakeMountPoints_LinksStayInside(t *testing.T) {
	root, outside := t.TempDir(), t.TempDir()
	for link, target := range map[string]string{
		"etc/resolv.conf": "../run/systemd/resolve/stub.conf", // dangling
		"opt":             "/elsewhere",                       // absolute, dangling
		"var":             "/usr/var",                         // absolute, there
		"sys":             outside + "/sys",                   // a path of the host
	} {
		require.NoError(t, os.MkdirAll(filepath.Dir(filepath.Join(root, link)), 0o755))
		require.NoError(t, os.Symlink(target, filepath.Join(root, link)))
	}
	require.NoError(t, os.MkdirAll(filepath.Join(root, "usr/var"), 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(root, "etc/hosts"), []byte("mine"), 0o600))
	for range 2 {
		require.NoError(t, makeMountPoints(root, append(mountPoints, "/work/ing"), mountFiles))
	}
	for _, folder := range []string{"run/esb/notify", "elsewhere", "usr/var/task", "proc", "work/ing"} {
		assert.DirExists(t, filepath.Join(root, folder))
	}
	for _, file := range []string{"run/systemd/resolve/stub.conf", "run/esb/lambda-init"} {
		assert.FileExists(t, filepath.Join(root, file))
	}
	text, err := os.ReadFile(filepath.Join(root, "etc/hosts"))
	require.NoError(t, err)
	assert.Equal(t, "mine", string(text))
	left, err := os.ReadDir(outside)
	require.NoError(t, err)
	assert.Empty(t, left)
}

func TestMakeMountPoints_LinksInACircle_AreAnError(t *testing.T) {
	root := t.TempDir()
	require.NoError(t, os.Symlink("b", filepath.Join(root, "a")))
	require.NoError(t, os.Symlink("a", filepath.Join(root, "b")))
	assert.Error(t, makeMountPoints(root, []string{"/a"}, nil))
}
