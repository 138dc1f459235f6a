package sdnotify

import (
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestTell_ReachesTheSocket(t *testing.T) {
	dir, err := os.MkdirTemp("", "sd-") // short, as a socket's path has to be
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, os.RemoveAll(dir)) })
	for _, name := range []string{filepath.Join(dir, "notify"), "@" + dir} {
		l, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: name, Net: "unixgram"})
		require.NoError(t, err)
		n := FromEnv(func(v string) string { return map[string]string{"NOTIFY_SOCKET": name}[v] }, 7)
		require.NoError(t, n.Tell(Ready))
		got := make([]byte, 64)
		size, err := l.Read(got)
		require.NoError(t, err)
		assert.Equal(t, "READY=1", string(got[:size]))
		require.NoError(t, l.Close())
		require.Error(t, n.Tell(Ready))
	}
	require.NoError(t, Notifier{}.Tell(Ready), "nobody wants to know")
}

func TestFromEnv_Watchdog(t *testing.T) {
	for pid, want := range map[string]time.Duration{"": 5 * time.Second, "7": 5 * time.Second, "8": 0} {
		n := FromEnv(func(v string) string { return map[string]string{"WATCHDOG_USEC": "10000000", "WATCHDOG_PID": pid}[v] }, 7)
		assert.Equal(t, want, n.Every, pid)
	}
	assert.Zero(t, FromEnv(func(string) string { return "" }, 7).Every)
	assert.Equal(t, []string{"A=1"}, Without([]string{"NOTIFY_SOCKET=x", "A=1", "WATCHDOG_PID=1", "WATCHDOG_USEC=1"}))
}

func TestDuring_WorkTakesLong_SaysThatItIsAlive(t *testing.T) {
	name := filepath.Join(t.TempDir(), "notify")
	l, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: name, Net: "unixgram"})
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, l.Close()) })
	n := Notifier{socket: name, Every: time.Millisecond}
	n.During(func() {
		got := make([]byte, 64)
		for range 3 {
			size, err := l.Read(got)
			require.NoError(t, err)
			assert.Equal(t, Alive, string(got[:size]))
		}
	})
	done := false
	Notifier{}.During(func() { done = true })
	assert.True(t, done)
}
