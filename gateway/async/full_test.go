package async

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/edge-serverless-box/esb/gateway"
)

// mustTinyDisk mounts a file system of so many bytes.
func mustTinyDisk(t *testing.T, size string) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: it mounts a file system that it fills")
	}
	dir := t.TempDir()
	require.NoError(t, unix.Mount("tmpfs", dir, "tmpfs", 0, "size="+size))
	t.Cleanup(func() { assert.NoError(t, unix.Unmount(dir, unix.MNT_DETACH)) })
	return dir
}

// mustFill leaves not one byte on the disk of a folder, and returns the file that takes them.
func mustFill(t *testing.T, dir string) string {
	t.Helper()
	file := filepath.Join(dir, "filler")
	f, err := os.Create(file)
	require.NoError(t, err)
	defer func() { assert.NoError(t, f.Close()) }()
	for block := bytes.Repeat([]byte("x"), 64<<10); len(block) > 0; {
		if n, err := f.Write(block); err != nil {
			require.ErrorIs(t, err, unix.ENOSPC)
			if n == 0 {
				block = block[:len(block)/2]
			}
		}
	}
	var left unix.Statfs_t
	require.NoError(t, unix.Statfs(dir, &left))
	require.Zero(t, left.Bavail)
	return file
}

// A box that was switched off on a disk that is full, to the last byte, starts on it: its events are there, and run when there is
// space.
func TestOpen_DiskFull_OpensAndRunsWhenThereIsSpace(t *testing.T) {
	dir := mustTinyDisk(t, "96m")
	inv := newInvoker()
	opts := options(filepath.Join(dir, "async"), inv)
	first, err := Open(t.Context(), opts)
	require.NoError(t, err)
	enqueue(t, first, function("f"), "r1", `{}`)
	mustClose(t, first)

	filler := mustFill(t, dir)
	q := mustOpen(t, opts)
	refused := q.Enqueue(t.Context(), function("f"), gateway.Invocation{RequestID: "r2", Payload: []byte(`{}`)})
	require.Error(t, refused)
	require.NoError(t, os.Remove(filler))
	apply(q, function("f"))
	empty(t, q)
	assert.Equal(t, 1, inv.ran("r1"))
	assert.Zero(t, inv.ran("r2"))
}

// Limits that were changed while the disk is full wait for the next start.
func TestOpen_DiskFull_NewLimitsWait(t *testing.T) {
	dir := mustTinyDisk(t, "96m")
	opts := options(filepath.Join(dir, "async"), newInvoker())
	first, err := Open(t.Context(), opts)
	require.NoError(t, err)
	mustClose(t, first)
	filler := mustFill(t, dir)
	opts.MaxBytes *= 2
	limit := func(q *Queue) int64 {
		info, err := q.store.shard(0).Info(t.Context())
		require.NoError(t, err)
		return info.Config.MaxBytes
	}
	full, err := Open(t.Context(), opts)
	require.NoError(t, err)
	mustClose(t, full)
	require.NoError(t, os.Remove(filler))
	q := mustOpen(t, opts)
	assert.Equal(t, opts.MaxBytes+updateRoom, limit(q))
}

// A smaller ASYNC_MAX_MB is no reason not to start.
func TestOpen_SmallerLimits(t *testing.T) {
	opts := options(t.TempDir(), newInvoker())
	first, err := Open(t.Context(), opts)
	require.NoError(t, err)
	mustClose(t, first)
	opts.MaxBytes /= 2
	q := mustOpen(t, opts)
	info, err := q.store.shard(shards - 1).Info(t.Context())
	require.NoError(t, err)
	assert.Equal(t, opts.MaxBytes+updateRoom, info.Config.MaxBytes)
}
