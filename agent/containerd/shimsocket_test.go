package containerd

import (
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

func TestRemoveDeadSockets_LeavesWhatIsOpenOrYoungOrNoSocket(t *testing.T) {
	dir, err := os.MkdirTemp("", "esb-s") // a test's folder may be longer than a socket's path can be
	require.NoError(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	now := time.Now()
	old := now.Add(-time.Hour)
	listen := func(name string) *net.UnixListener {
		l, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(dir, name)})
		require.NoError(t, err)
		l.SetUnlinkOnClose(false)
		t.Cleanup(func() { _ = l.Close() })
		return l
	}
	listen("living")
	require.NoError(t, listen("dead").Close())
	require.NoError(t, listen("young").Close())
	bound, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	require.NoError(t, err)
	defer func() { _ = unix.Close(bound) }()
	require.NoError(t, unix.Bind(bound, &unix.SockaddrUnix{Name: filepath.Join(dir, "bound")}))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "file"), nil, 0o600))
	for _, name := range []string{"living", "dead", "bound", "file"} {
		require.NoError(t, os.Chtimes(filepath.Join(dir, name), old, old))
	}
	require.NoError(t, os.Chtimes(filepath.Join(dir, "young"), now, now))

	removed, err := removeDeadSockets(dir, now.Add(-time.Minute))
	require.NoError(t, err)
	assert.Equal(t, 1, removed)
	assert.NoFileExists(t, filepath.Join(dir, "dead"))
	for _, name := range []string{"living", "young", "bound", "file"} {
		_, err := os.Lstat(filepath.Join(dir, name))
		assert.NoError(t, err, name)
	}

	removed, err = removeDeadSockets(filepath.Join(dir, "gone"), now)
	require.NoError(t, err)
	assert.Zero(t, removed)
}
