package listen_test

import (
	"net"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/edge-serverless-box/esb/guard/listen"
)

func TestAll_OneCannotBeHad_LeavesNoneOpen(t *testing.T) {
	taken, err := listen.One(t.Context(), "A", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { _ = taken.Close() })
	// The port is held on another address all the while: who asks for one of all addresses does not get it, and nobody asks for this one's.
	held, err := listen.One(t.Context(), "B", "127.0.0.2:0")
	require.NoError(t, err)
	t.Cleanup(func() { _ = held.Close() })
	_, port, err := net.SplitHostPort(held.Addr().String())
	require.NoError(t, err)
	addr := "127.31.7.5:" + port

	_, err = listen.All(t.Context(), "S3_ADDR", []string{addr, taken.Addr().String()})
	require.ErrorContains(t, err, "S3_ADDR: "+taken.Addr().String()+" is in use")
	both, err := listen.All(t.Context(), "S3_ADDR", []string{addr})
	require.NoError(t, err, "it was closed again")
	require.Len(t, both, 1)
	require.NoError(t, both[0].Close())

	_, err = listen.One(t.Context(), "S3_ADDR", "nonsense")
	assert.ErrorContains(t, err, `S3_ADDR: cannot listen on "nonsense": want host:port of this machine`)
}

// The function network's bridge comes with the agent, which may start later.
func TestOne_AddressOfAnInterfaceThatIsToCome_IsBound(t *testing.T) {
	l, err := listen.One(t.Context(), "S3_ADDR", "198.51.100.7:0") // for documentation alone, RFC 5737
	require.NoError(t, err)
	require.NoError(t, l.Close())
}
