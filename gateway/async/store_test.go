package async

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// A stream that is whole, and whose folder takes no file for the moment, stays where it is.
func TestOpen_FolderOfAStreamTakesNoFile_SetsNothingAside(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: it mounts a folder")
	}
	dir, inv := t.TempDir(), newInvoker()
	q, err := Open(t.Context(), options(dir, inv))
	require.NoError(t, err)
	f := function("f")
	for _, id := range []string{"r1", "r2", "r3", "r4"} {
		enqueue(t, q, f, id, `{}`)
	}
	stream := q.store.streamDir(q.store.eventName(2))
	mustClose(t, q)

	require.NoError(t, unix.Mount(stream, stream, "", unix.MS_BIND, ""))
	unmount := func() error { return unix.Unmount(stream, unix.MNT_DETACH) }
	t.Cleanup(func() { _ = unmount() })
	require.NoError(t, unix.Mount("", stream, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY, ""))
	_, err = Open(t.Context(), options(dir, inv))
	require.ErrorContains(t, err, "cannot be opened now")
	require.NoDirExists(t, filepath.Join(dir, "damaged"))

	require.NoError(t, unmount())
	q = mustOpen(t, options(dir, inv))
	assert.Empty(t, q.Notes())
	apply(q, f)
	empty(t, q)
	for _, id := range []string{"r1", "r2", "r3", "r4"} {
		assert.Equal(t, 1, inv.ran(id), id)
	}
}

func TestSameLimits_SeesAnAge(t *testing.T) {
	assert.True(t, sameLimits(jetstream.StreamConfig{MaxMsgs: -1}, jetstream.StreamConfig{}))
	assert.False(t, sameLimits(jetstream.StreamConfig{MaxMsgs: -1, MaxAge: 1}, jetstream.StreamConfig{}))
}

// The streams of before there were forms are of the first one, and are read.
func TestOpen_FormOfStreams_IsRead_AndANewerOneRefused(t *testing.T) {
	dir, inv := t.TempDir(), newInvoker()
	q, err := Open(t.Context(), options(dir, inv))
	require.NoError(t, err)
	f := function("f")
	for _, id := range []string{"r1", "r2", "r3", "r4"} {
		enqueue(t, q, f, id, `{}`)
	}
	set := func(shard int, form map[string]string) {
		config := q.store.shard(shard).CachedInfo().Config
		assert.Equal(t, "1", config.Metadata[formKey])
		config.Metadata = form
		_, err := q.store.js.UpdateStream(t.Context(), config)
		require.NoError(t, err)
		changed, err := q.store.js.Stream(t.Context(), config.Name)
		require.NoError(t, err)
		assert.Equal(t, form[formKey], changed.CachedInfo().Config.Metadata[formKey], "the server has it as it is told")
	}
	set(2, nil)
	mustClose(t, q)

	q, err = Open(t.Context(), options(dir, inv))
	require.NoError(t, err)
	assert.Equal(t, "1", q.store.shard(2).CachedInfo().Config.Metadata[formKey], "it says so from now on")
	apply(q, f)
	empty(t, q)
	for _, id := range []string{"r1", "r2", "r3", "r4"} {
		assert.Equal(t, 1, inv.ran(id), id)
	}
	set(2, map[string]string{formKey: "2"})
	mustClose(t, q)

	_, err = Open(t.Context(), options(dir, inv))
	require.ErrorContains(t, err, "-event-2: its events have the form 2")
	require.ErrorContains(t, err, "use the newer esb again")
}
