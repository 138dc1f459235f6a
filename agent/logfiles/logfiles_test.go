package logfiles

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func mustOpen(t *testing.T) *Dir {
	t.Helper()
	d, err := Open(t.TempDir())
	require.NoError(t, err)
	return d
}

func TestFree_KeepsHeadSizeAndRest(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.log")
	text := strings.Repeat("0123456\n", 16<<10)
	require.NoError(t, os.WriteFile(path, []byte(text), 0o644))
	err := Free(path, 0, 100_000)
	if errors.Is(err, ErrNoHoles) {
		t.Skip("the file system of the temporary folder has no holes")
	}
	require.NoError(t, err)
	data, err := os.ReadFile(path)
	require.NoError(t, err)
	hole := 100_000 / Block * Block
	assert.Equal(t, text[:Block], string(data[:Block]))
	assert.Equal(t, text[hole:], string(data[hole:]))
	assert.Empty(t, strings.Trim(string(data[Block:hole]), "\x00"))
	info, err := os.Stat(path)
	require.NoError(t, err)
	assert.LessOrEqual(t, info.Sys().(*syscall.Stat_t).Blocks*512, int64(len(text)-hole+2*Block))
}

func TestRotating_BoundsItsFilesAndLosesNoLineOfThem(t *testing.T) {
	path := filepath.Join(t.TempDir(), "logs", "agent.log")
	std, err := os.OpenFile(mustTouch(t, path), os.O_APPEND|os.O_WRONLY, 0o644)
	require.NoError(t, err)
	defer func() { _ = std.Close() }()
	r, err := OpenRotating(path, 4000, std)
	require.NoError(t, err)
	assert.True(t, r.Is(std))
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
		kept.Write(data)
	}
	assert.True(t, strings.HasSuffix(strings.Join(wrote, "")+"panic\n", kept.String()), "the newest lines, in order, and standard error in the current file")
	_, err = r.Write([]byte("late\n"))
	assert.ErrorIs(t, err, os.ErrClosed)
}

func mustTouch(t *testing.T, path string) string {
	t.Helper()
	require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
	require.NoError(t, os.WriteFile(path, nil, 0o644))
	return path
}

func TestTail_LastLinesOnly(t *testing.T) {
	d := mustOpen(t)
	assert.Empty(t, d.Tail("none", 3))
	require.NoError(t, os.WriteFile(d.File("a"), []byte(strings.Repeat("long\n", 5000)+"b\nc\n"), 0o644))
	assert.Equal(t, "long\nb\nc", d.Tail("a", 3))
}
