package logfiles

import (
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func mustOpen(t *testing.T, maxBytes int64) *Dir {
	t.Helper()
	d, err := Open(t.TempDir(), maxBytes)
	require.NoError(t, err)
	return d
}

func mustWrite(t *testing.T, d *Dir, name string, size int, age time.Duration) {
	t.Helper()
	require.NoError(t, os.WriteFile(d.File(name), []byte(strings.Repeat("x", size)), 0o644))
	when := time.Now().Add(-age)
	require.NoError(t, os.Chtimes(d.File(name), when, when))
}

func TestPrune_RemovesOldestOfTheGone(t *testing.T) {
	d := mustOpen(t, 1000)
	mustWrite(t, d, "oldest-running", 200, 9*time.Hour)
	mustWrite(t, d, "old", 400, 8*time.Hour)
	mustWrite(t, d, "new", 400, time.Hour)
	mustWrite(t, d, "newest", 400, time.Minute)
	require.NoError(t, d.Prune(func(n string) bool { return n == "oldest-running" }))
	assert.FileExists(t, d.File("oldest-running"))
	assert.NoFileExists(t, d.File("old"))
	assert.FileExists(t, d.File("new"))
	assert.FileExists(t, d.File("newest"))
}

func TestPrune_CutsARunningContainersHugeLog(t *testing.T) {
	d := mustOpen(t, 1000)
	mustWrite(t, d, "chatty", 900, 0)
	require.NoError(t, d.Prune(func(string) bool { return true }))
	fi, err := os.Stat(d.File("chatty"))
	require.NoError(t, err)
	assert.Zero(t, fi.Size())
}

func TestPrune_ManySmallLogs_AreBoundedToo(t *testing.T) {
	d := mustOpen(t, 1<<30)
	mustWrite(t, d, "oldest", 1, 9*time.Hour)
	mustWrite(t, d, "empty", 0, 0)
	mustWrite(t, d, "empty-running", 0, 0)
	for i := range maxEnded {
		mustWrite(t, d, strconv.Itoa(i), 1, time.Minute)
	}
	require.NoError(t, d.Prune(func(n string) bool { return n == "empty-running" }))
	assert.NoFileExists(t, d.File("oldest"))
	assert.NoFileExists(t, d.File("empty"))
	assert.FileExists(t, d.File("empty-running"))
	assert.FileExists(t, d.File("0"))
}

func TestPrune_RunningTogetherOverTheBound_CutsTheLargest(t *testing.T) {
	d := mustOpen(t, 1000)
	for _, n := range []string{"a", "b", "c", "d", "e"} {
		mustWrite(t, d, n, 210, 0)
	}
	mustWrite(t, d, "large", 240, 0)
	require.NoError(t, d.Prune(func(string) bool { return true }))
	total := 0
	for _, n := range []string{"a", "b", "c", "d", "e", "large"} {
		fi, err := os.Stat(d.File(n))
		require.NoError(t, err)
		total += int(fi.Size())
	}
	assert.LessOrEqual(t, total, 1000)
	fi, err := os.Stat(d.File("large"))
	require.NoError(t, err)
	assert.Zero(t, fi.Size())
}

func TestTail_LastLinesOnly(t *testing.T) {
	d := mustOpen(t, 1000)
	assert.Empty(t, d.Tail("none", 3))
	require.NoError(t, os.WriteFile(d.File("a"), []byte(strings.Repeat("long\n", 5000)+"b\nc\n"), 0o644))
	assert.Equal(t, "long\nb\nc", d.Tail("a", 3))
}
