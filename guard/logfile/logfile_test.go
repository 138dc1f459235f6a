package logfile

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestFile_Full_KeepsOneFormerFileAndTheTail(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	l, err := Open(path, 10, 6)
	require.NoError(t, err)
	for _, line := range []string{"one-67\n", "two-67\n", "three-9\n"} {
		n, err := l.Write([]byte(line))
		require.NoError(t, err)
		assert.Len(t, line, n)
	}
	assert.Equal(t, "ree-9\n", l.Tail())
	l.Mark()
	assert.Empty(t, l.Tail())
	require.NoError(t, l.Close())
	require.NoError(t, l.Close(), "a second Close is harmless")

	now, err := os.ReadFile(path)
	require.NoError(t, err)
	former, err := os.ReadFile(path + ".1")
	require.NoError(t, err)
	assert.Equal(t, "three-9\n", string(now))
	assert.Equal(t, "two-67\n", string(former))
}

func TestFile_FolderIsGone_WritesGoOn(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "logs")
	require.NoError(t, os.Mkdir(dir, 0o700))
	l, err := Open(filepath.Join(dir, "log"), 4, 10)
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, l.Close()) })
	_, err = l.Write([]byte("one\n"))
	require.NoError(t, err)
	require.NoError(t, os.RemoveAll(dir))
	n, err := l.Write([]byte("two\n"))
	require.NoError(t, err)
	assert.Equal(t, 4, n)
	assert.Equal(t, "one\ntwo\n", l.Tail())
	require.NoError(t, os.Mkdir(dir, 0o700))
	_, err = l.Write([]byte("three\n"))
	require.NoError(t, err)
	text, err := os.ReadFile(filepath.Join(dir, "log"))
	require.NoError(t, err)
	assert.Equal(t, "three\n", string(text))
}

func TestTail_BeginsAtALine(t *testing.T) {
	file := filepath.Join(t.TempDir(), "log")
	require.NoError(t, os.WriteFile(file, []byte("old\none\ntwo\nthree"), 0o644))
	assert.Equal(t, "two\nthree", Tail(file, 0, 10))
	assert.Equal(t, "one\ntwo\nthree", Tail(file, 4, 100), "nothing from before the start")
	assert.Equal(t, "", Tail(file+"x", 0, 10))
}

func TestRotate_OnlyALargeLogIsMoved(t *testing.T) {
	file := filepath.Join(t.TempDir(), "log")
	require.NoError(t, Rotate(file, 3))
	require.NoError(t, os.WriteFile(file, []byte("four"), 0o644))
	require.NoError(t, Rotate(file, 4))
	assert.FileExists(t, file)
	require.NoError(t, Rotate(file, 3))
	assert.NoFileExists(t, file)
	assert.FileExists(t, file+".1")
}
