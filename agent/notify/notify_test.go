package notify

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func mustSend(t *testing.T, path string, lines ...string) {
	t.Helper()
	c, err := net.Dial("unixgram", path)
	require.NoError(t, err)
	defer func() { _ = c.Close() }()
	for _, l := range lines {
		_, err := c.Write([]byte(l))
		require.NoError(t, err)
	}
}

func TestSocket_PassesOnWhatItKnows_DropsTheRest(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("gives a file to another user: needs root")
	}
	path := filepath.Join(t.TempDir(), "s")
	got := make(chan Message, 10)
	s, err := Listen(path, 4711, func(m Message) { got <- m })
	require.NoError(t, err)
	mustSend(t, path, "READY=1\n", "READY=2", strings.Repeat("x", 1000), "INIT_END=ok")
	for _, want := range []Message{Ready, InitOK} {
		select {
		case m := <-got:
			assert.Equal(t, want, m)
		case <-time.After(10 * time.Second):
			t.Fatalf("no %s", want)
		}
	}
	fi, err := os.Stat(path)
	require.NoError(t, err)
	assert.Equal(t, os.FileMode(0o600), fi.Mode().Perm())
	assert.EqualValues(t, 4711, fi.Sys().(*syscall.Stat_t).Uid)

	require.NoError(t, s.Close())
	assert.NoFileExists(t, path)
	assert.Empty(t, got)
}

func TestSocket_Flood_IsReadSlowly(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	got := make(chan Message, 1000)
	s, err := Listen(path, uint32(os.Geteuid()), func(m Message) { got <- m })
	require.NoError(t, err)
	c, err := net.Dial("unixgram", path)
	require.NoError(t, err)
	until := time.Now().Add(500 * time.Millisecond)
	require.NoError(t, c.SetWriteDeadline(until))
	for err == nil {
		_, err = c.Write([]byte("INIT_END=ok"))
	}
	require.NoError(t, s.Close())
	require.NoError(t, c.Close())
	assert.Less(t, len(got), burst+20)
	assert.GreaterOrEqual(t, len(got), burst)
}

func TestListen_LongPath_SaysSo(t *testing.T) {
	_, err := Listen("/"+strings.Repeat("a", 120), 0, func(Message) {})
	assert.ErrorContains(t, err, "ESB_RUN_DIR")
}
