package logfile

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestRotating_BoundsItsFilesAndLosesNoLineOfThem(t *testing.T) {
	path := filepath.Join(t.TempDir(), "logs", "gateway.log")
	std, err := os.OpenFile(mustTouch(t, path), os.O_APPEND|os.O_WRONLY, 0o644)
	require.NoError(t, err)
	defer func() { _ = std.Close() }()
	r, err := OpenRotating(path, 4000, 0o640, std)
	require.NoError(t, err)
	assert.True(t, r.Is(std))
	folder, err := os.Stat(filepath.Dir(path))
	require.NoError(t, err)
	assert.Equal(t, os.FileMode(0o750), folder.Mode().Perm())
	var wrote []string
	for i := range 200 {
		line := fmt.Sprintf("line %d %s\n", i, strings.Repeat("x", 80))
		wrote = append(wrote, line)
		_, err := r.Write([]byte(line))
		require.NoError(t, err)
	}
	_, err = std.WriteString("panic\n")
	require.NoError(t, err)
	require.NoError(t, r.Close())
	files, err := filepath.Glob(path + "*")
	require.NoError(t, err)
	assert.Len(t, files, 4)
	var kept strings.Builder
	for _, f := range append(files[1:], files[0]) {
		data, err := os.ReadFile(f)
		require.NoError(t, err)
		assert.LessOrEqual(t, len(data), 1100)
		info, err := os.Stat(f)
		require.NoError(t, err)
		assert.Equal(t, os.FileMode(0o640), info.Mode().Perm())
		kept.Write(data)
	}
	assert.True(t, strings.HasSuffix(strings.Join(wrote, "")+"panic\n", kept.String()), "the newest lines, in order, and standard error in the current file")
	_, err = r.Write([]byte("late\n"))
	assert.ErrorIs(t, err, os.ErrClosed)
}

func mustTouch(t *testing.T, path string) string {
	t.Helper()
	r, err := OpenRotating(path, 4000, 0o640)
	require.NoError(t, err)
	require.NoError(t, r.Close())
	return path
}
