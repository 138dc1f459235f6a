package logfiles

import (
	"errors"
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

func TestAssign_WhatWaitedIsALogFromThenOn(t *testing.T) {
	d := mustOpen(t)
	for _, name := range []string{"lambda-1", "lambda-2", "lambda-3"} {
		require.NoError(t, d.CreateWaiting(name, -1))
		_, log := Container(d.Waiting(name))
		assert.False(t, log)
	}
	writer, err := os.OpenFile(d.Waiting("lambda-1"), os.O_WRONLY|os.O_APPEND, 0)
	require.NoError(t, err)
	defer func() { require.NoError(t, writer.Close()) }()
	require.NoError(t, d.Assign("lambda-1", "lambda-f-1"))
	_, err = writer.WriteString("line\n")
	require.NoError(t, err)
	assert.Equal(t, "line", d.Tail("lambda-f-1", 1))
	assert.ErrorIs(t, d.Assign("lambda-1", "lambda-g-1"), os.ErrNotExist)
	require.NoError(t, d.RemoveWaiting("lambda-2", "lambda-none"))
	assert.NoFileExists(t, d.Waiting("lambda-2"))
	assert.FileExists(t, d.Waiting("lambda-3"))
	require.NoError(t, d.RemoveWaiting())
	assert.NoFileExists(t, d.Waiting("lambda-3"))
	assert.FileExists(t, d.File("lambda-f-1"))
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

func TestTail_LastLinesOnly(t *testing.T) {
	d := mustOpen(t)
	assert.Empty(t, d.Tail("none", 3))
	require.NoError(t, os.WriteFile(d.File("a"), []byte(strings.Repeat("long\n", 5000)+"b\nc\n"), 0o644))
	assert.Equal(t, "long\nb\nc", d.Tail("a", 3))
}
