package containerd

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestWithAccount_KeepsWhatIsThere(t *testing.T) {
	const root = "root:x:0:0:root:/root:/bin/sh\n"
	for before, want := range map[string]string{
		"":                      defaultAccount + "\n",
		root:                    root + defaultAccount + "\n",
		"root:x:0:0::/:/bin/sh": "root:x:0:0::/:/bin/sh\n" + defaultAccount + "\n",
		root + "\n# end\n":      root + "\n# end\n" + defaultAccount + "\n",
		root + "coredump:x:993:9::/:/n\nlast:x:1:1::/:/n\n": root + defaultAccount + "\ncoredump:x:993:9::/:/n\nlast:x:1:1::/:/n\n",
		root + defaultAccount + "\n":                        root + defaultAccount + "\n",
	} {
		got := withAccount(before)
		assert.Equal(t, want, got)
		assert.Equal(t, got, withAccount(got), "a second time changes nothing")
	}
}

func TestAddAccount_InWhateverAnImageHas(t *testing.T) {
	write := func(t *testing.T, name, text string, mode os.FileMode) {
		t.Helper()
		require.NoError(t, os.MkdirAll(filepath.Dir(name), 0o755))
		require.NoError(t, os.WriteFile(name, []byte(text), mode))
	}
	read := func(t *testing.T, name string) string {
		t.Helper()
		text, err := os.ReadFile(name)
		require.NoError(t, err)
		return string(text)
	}
	t.Run("from scratch", func(t *testing.T) {
		root := t.TempDir()
		require.NoError(t, addAccount(root))
		assert.Equal(t, defaultAccount+"\n", read(t, filepath.Join(root, passwdFile)))
		info, err := os.Stat(filepath.Join(root, passwdFile))
		require.NoError(t, err)
		assert.EqualValues(t, 0o644, info.Mode())
	})
	t.Run("its own, longer and shorter, with their modes", func(t *testing.T) {
		root := t.TempDir()
		write(t, filepath.Join(root, passwdFile), "app:x:1000:1000:App:/home/app:/bin/sh\n", 0o444)
		require.NoError(t, addAccount(root))
		assert.Equal(t, "app:x:1000:1000:App:/home/app:/bin/sh\n"+defaultAccount+"\n", read(t, filepath.Join(root, passwdFile)))
		info, err := os.Stat(filepath.Join(root, passwdFile))
		require.NoError(t, err)
		assert.EqualValues(t, 0o444, info.Mode())
	})
	t.Run("a link inside, and one that would leave it", func(t *testing.T) {
		root, outside := t.TempDir(), filepath.Join(t.TempDir(), "passwd")
		write(t, outside, "machine", 0o644)
		require.NoError(t, os.MkdirAll(filepath.Join(root, "etc"), 0o755))
		require.NoError(t, os.Symlink(outside, filepath.Join(root, passwdFile)))
		require.NoError(t, addAccount(root))
		assert.Equal(t, "machine", read(t, outside), "the machine's is not touched")
		assert.Equal(t, defaultAccount+"\n", read(t, filepath.Join(root, outside)), "the link leads to where it does in the container")
	})
	t.Run("what is no file", func(t *testing.T) {
		root := t.TempDir()
		require.NoError(t, os.MkdirAll(filepath.Join(root, passwdFile), 0o755))
		require.NoError(t, addAccount(root))
		root = t.TempDir()
		write(t, filepath.Join(root, "etc"), "", 0o644)
		require.NoError(t, addAccount(root))
	})
}
