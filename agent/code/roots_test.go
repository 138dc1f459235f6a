package code

import (
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/edge-serverless-box/esb/agent"
	"github.com/edge-serverless-box/esb/api/codeversion"
)

func mustOpenRoots(t *testing.T, roots ...string) *Store {
	t.Helper()
	s, err := Open(t.Context(), Config{Dir: filepath.Join(t.TempDir(), "code"), MaxBytes: 1 << 30, Roots: roots, Logger: slog.New(slog.DiscardHandler)})
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, s.Close()) })
	return s
}

func TestRoots_OutsideOfThemNothingIsRead(t *testing.T) {
	root, secret := t.TempDir(), t.TempDir()
	for _, dir := range []string{root, secret, root + "-beside"} {
		require.NoError(t, os.MkdirAll(filepath.Join(dir, "fn"), 0o755))
		require.NoError(t, os.WriteFile(filepath.Join(dir, "fn", "app.py"), []byte("code of "+dir), 0o644))
	}
	t.Cleanup(func() { _ = os.RemoveAll(root + "-beside") })
	require.NoError(t, os.Symlink(filepath.Join(secret, "fn"), filepath.Join(root, "link")))
	require.NoError(t, os.Symlink(secret, filepath.Join(root, "above")))
	require.NoError(t, os.Symlink("fn", filepath.Join(root, "inside")))
	s := mustOpenRoots(t, "/no/such/root", root)
	for path, says := range map[string]string{
		filepath.Join(root, "link"):           "a symbolic link leads out of its folder in CODE_ROOTS",
		filepath.Join(root, "above", "fn"):    "a symbolic link leads out of its folder in CODE_ROOTS",
		filepath.Join(secret, "fn"):           "add its folder to CODE_ROOTS",
		filepath.Join(secret, "fn", "app.py"): "add its folder to CODE_ROOTS",
		filepath.Join(secret, "none"):         "add its folder to CODE_ROOTS",
		root + "-beside/fn":                   "add its folder to CODE_ROOTS",
		"/":                                   "add its folder to CODE_ROOTS",
		filepath.Join(root, "none"):           "the agent has no such file or folder",
	} {
		version := codeversion.Content + "0000000000000000000000000000000000000000000000000000000000000000"
		if _, err := os.Stat(path); err == nil && path != "/" {
			version, err = codeversion.Of(t.Context(), path)
			require.NoError(t, err)
		}
		_, err := s.Get(t.Context(), agent.FunctionCode{Source: agent.CodeSource{Location: path, Version: version}})
		assert.Equal(t, agent.CodePrecondition, agent.ErrorCode(err), path)
		assert.ErrorContains(t, err, says, path)
		assert.NotContains(t, err.Error(), version)
	}
	for _, name := range []string{"fn", "inside"} {
		l, err := s.Get(t.Context(), agent.FunctionCode{Source: local(t, filepath.Join(root, name))})
		require.NoError(t, err, name)
		l.Release()
	}
	// What is known by another way is not given for a path outside either.
	known := local(t, filepath.Join(root, "fn"))
	known.Location = filepath.Join(secret, "fn")
	_, err := s.Get(t.Context(), agent.FunctionCode{Source: known})
	assert.ErrorContains(t, err, "CODE_ROOTS")
}

func TestFetch_WrongVersion_TellsNoDigest(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "app.py"), []byte("x"), 0o644))
	right := local(t, dir)
	wrong := right
	wrong.Version = codeversion.Content + "0000000000000000000000000000000000000000000000000000000000000000"
	_, err := mustOpenRoots(t, dir).Get(t.Context(), agent.FunctionCode{Source: wrong})
	require.ErrorContains(t, err, "another version")
	assert.NotRegexp(t, "[0-9a-f]{16}", err.Error())
}

// Whoever owns the folder may put links and pipes in the place of files while it is copied.
func TestCopyFolder_FilesBecomeLinksMeanwhile_NothingOutsideIsCopied(t *testing.T) {
	dir, secret := t.TempDir(), filepath.Join(t.TempDir(), "secret")
	require.NoError(t, os.WriteFile(secret, []byte("SECRET"), 0o600))
	file, swap := filepath.Join(dir, "app.py"), filepath.Join(t.TempDir(), "swap")
	plain := func() { _ = os.WriteFile(swap, []byte("plain!"), 0o644) }
	plain()
	require.NoError(t, os.Rename(swap, file))
	stop := make(chan struct{})
	var swapping sync.WaitGroup
	swapping.Go(func() {
		for {
			for _, put := range []func(){func() { _ = os.Symlink(secret, swap) }, func() { _ = unix.Mkfifo(swap, 0o644) }, plain} {
				select {
				case <-stop:
					return
				default:
				}
				put()
				_ = os.Rename(swap, file)
			}
		}
	})
	copied := 0
	for range 300 {
		to := t.TempDir()
		folder, err := os.OpenRoot(dir)
		require.NoError(t, err)
		if _, err := copyFolder(t.Context(), dir, folder, to); err == nil {
			found := contents(t, to)
			require.Subset(t, []string{"app.py=plain!", "app.py->" + secret}, found)
			copied += len(found)
		}
		require.NoError(t, folder.Close())
	}
	close(stop)
	swapping.Wait()
	t.Logf("copied %d of 300 times", copied)
}

func TestOpen_TheFolderIsClosedToOthers(t *testing.T) {
	s := mustOpenRoots(t)
	info, err := os.Stat(s.cfg.Dir)
	require.NoError(t, err)
	assert.Equal(t, os.FileMode(0o700), info.Mode().Perm())
}
