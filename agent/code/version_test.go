package code

import (
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/edge-serverless-box/esb/api/codeversion"
)

func mustOf(t *testing.T, path string) string {
	t.Helper()
	version, err := codeversion.Of(t.Context(), path)
	require.NoError(t, err)
	return version
}

// Gateway and agent of different releases must come to the same.
func TestOf_Folder_IsTheSameForEver(t *testing.T) {
	dir := t.TempDir()
	mustWrite(t, filepath.Join(dir, "b/app.py"), []byte("x"))
	mustWrite(t, filepath.Join(dir, "b.py"), []byte("y"))
	require.NoError(t, os.Symlink("b/app.py", filepath.Join(dir, "link")))
	assert.Equal(t, "sha256:f245febf22bc66743ddf95f35e8bbdfbda0bb280e344e357c6ba9947115f5435", mustOf(t, dir))
}

// A link counts by where it leads, not by what is there.
func TestOf_LinksOutOfTheFolder_AreNotFollowed(t *testing.T) {
	dir, outside := t.TempDir(), filepath.Join(t.TempDir(), "f")
	for name, target := range map[string]string{"file": outside, "folder": filepath.Dir(outside), "gone": "/nowhere/at/all", "round": "round", "up": "../../../../.."} {
		require.NoError(t, os.Symlink(target, filepath.Join(dir, name)))
	}
	mustWrite(t, outside, []byte("1"))
	first := mustOf(t, dir)
	mustWrite(t, outside, []byte("2"))
	mustWrite(t, outside+"2", []byte("2"))
	assert.Equal(t, first, mustOf(t, dir))
	require.NoError(t, os.Remove(filepath.Join(dir, "gone")))
	require.NoError(t, os.Symlink("/nowhere/else", filepath.Join(dir, "gone")))
	assert.NotEqual(t, first, mustOf(t, dir))
}

// Whoever owns the folder may put links and pipes in the place of files while it is read: what is behind a link never
// makes a version, and nobody waits for a pipe.
func TestOf_FilesBecomeLinksMeanwhile_NothingOutsideIsRead(t *testing.T) {
	dir, secret := t.TempDir(), filepath.Join(t.TempDir(), "secret")
	file, swap := filepath.Join(dir, "app.py"), filepath.Join(t.TempDir(), "swap")
	mustWrite(t, file, []byte("SECRET"))
	leaked := mustOf(t, dir)
	mustWrite(t, secret, []byte("SECRET"))
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
	for range 2000 {
		if version, err := codeversion.Of(t.Context(), dir); err == nil {
			assert.NotEqual(t, leaked, version)
		}
	}
	close(stop)
	swapping.Wait()
}
