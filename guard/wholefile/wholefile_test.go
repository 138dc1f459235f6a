package wholefile_test

import (
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/edge-serverless-box/esb/guard/wholefile"
)

func TestWrite_ReplacesContentAndPermissions(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "key")
	require.NoError(t, os.WriteFile(path, []byte("a longer old content"), 0o644))
	require.NoError(t, wholefile.Write(path, []byte("new"), 0o600))

	data, err := os.ReadFile(path)
	require.NoError(t, err)
	assert.Equal(t, "new", string(data))
	info, err := os.Stat(path)
	require.NoError(t, err)
	assert.Equal(t, os.FileMode(0o600), info.Mode().Perm())
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	assert.Len(t, entries, 1, "no temporary file may stay")
}

func TestWrite_Failure_LeavesNothingBehind(t *testing.T) {
	dir := t.TempDir()
	target := filepath.Join(dir, "taken")
	require.NoError(t, os.Mkdir(target, 0o755)) // a file cannot be renamed over a folder
	require.ErrorContains(t, wholefile.Write(target, []byte("x"), 0o600), "write "+target)
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	assert.Len(t, entries, 1)

	missing := filepath.Join(dir, "none", "file")
	require.ErrorIs(t, wholefile.Write(missing, nil, 0o600), os.ErrNotExist)
}

// mustLeave makes a file as a writer of before leaves it, and returns its path.
func mustLeave(t *testing.T, dir, name string, age time.Duration) string {
	t.Helper()
	path := filepath.Join(dir, name)
	require.NoError(t, os.WriteFile(path, []byte("secret"), 0o600))
	then := time.Now().Add(-age)
	require.NoError(t, os.Chtimes(path, then, then))
	return path
}

func TestWrite_SweepsWhatKilledWritersOfTheSameFileHaveLeft(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "key")
	left := mustLeave(t, dir, ".key.1234567890", time.Hour)
	others := []string{
		mustLeave(t, dir, ".key.5.123", time.Hour), mustLeave(t, dir, ".key.old", time.Hour), mustLeave(t, dir, ".key.", time.Hour),
		mustLeave(t, dir, ".kez.1", time.Hour), mustLeave(t, dir, "key.1", time.Hour),
	}
	written := mustLeave(t, dir, ".key.1", time.Hour)
	busy, err := os.Open(written)
	require.NoError(t, err)
	require.NoError(t, unix.Flock(int(busy.Fd()), unix.LOCK_EX))
	young := mustLeave(t, dir, ".key.2", 0)
	link := filepath.Join(dir, ".key.3")
	require.NoError(t, os.Symlink(others[0], link))

	require.NoError(t, wholefile.Write(path, []byte("new"), 0o600))
	assert.NoFileExists(t, left)
	for _, file := range append(others, written, young, link) {
		assert.FileExists(t, file)
	}

	// They are looked at again, until nothing is left.
	require.NoError(t, busy.Close())
	then := time.Now().Add(-time.Hour)
	require.NoError(t, os.Chtimes(young, then, then))
	require.NoError(t, wholefile.Write(path, []byte("newer"), 0o600))
	assert.NoFileExists(t, written)
	assert.NoFileExists(t, young)
}

// TestWrite_ByMany_NoneTakesAnothersFile.
func TestWrite_ByMany_NoneTakesAnothersFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for range 20 {
				assert.NoError(t, wholefile.Write(path, []byte("x"), 0o600))
			}
		})
	}
	all.Wait()
}
