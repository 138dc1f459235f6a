package preflight

import (
	"net"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// TestCheckListeners_NobodyHasThePortAndThenItIsFree has a listening socket in no process: its descriptor is on its way between
// two, as those of a killed process are with threads that nobody sees any more.
func TestCheckListeners_NobodyHasThePortAndThenItIsFree(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	addr := ln.Addr().String()
	file, err := ln.(*net.TCPListener).File()
	require.NoError(t, err)
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	require.NoError(t, err)
	require.NoError(t, unix.Sendmsg(pair[0], []byte("x"), unix.UnixRights(int(file.Fd())), nil, 0))
	require.NoError(t, file.Close())
	require.NoError(t, ln.Close())
	require.Error(t, listen(addr))

	go func() {
		time.Sleep(300 * time.Millisecond) // longer than a look at all processes; how long does not matter
		_ = unix.Close(pair[0])
		_ = unix.Close(pair[1])
	}()
	assert.Empty(t, checkListeners([]Listener{{Addr: addr, Setting: "X"}}, nil))
}
