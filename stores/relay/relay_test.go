package relay

import (
	"context"
	"io"
	"log/slog"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func mustListen(t *testing.T) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { _ = l.Close() })
	return l
}

func mustDial(t *testing.T, l net.Listener) *net.TCPConn {
	t.Helper()
	conn, err := net.Dial("tcp", l.Addr().String())
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	require.NoError(t, conn.SetDeadline(time.Now().Add(time.Minute)))
	return conn.(*net.TCPConn)
}

func TestRelay_ClientEndsItsHalf_StillGetsTheAnswer(t *testing.T) {
	backend, front := mustListen(t), mustListen(t)
	go func() {
		conn, err := backend.Accept()
		if err != nil {
			return
		}
		asked, _ := io.ReadAll(conn) // until the client's half has ended
		_, _ = conn.Write(append([]byte("you said "), asked...))
		_ = conn.Close()
	}()
	dial := func(ctx context.Context) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "tcp", backend.Addr().String())
	}
	r := Start([]net.Listener{front}, dial, slog.New(slog.DiscardHandler))
	defer func() { _ = r.Close() }()
	conn := mustDial(t, front)
	_, err := conn.Write([]byte("hello"))
	require.NoError(t, err)
	require.NoError(t, conn.CloseWrite())
	answer, err := io.ReadAll(conn)
	require.NoError(t, err)
	assert.Equal(t, "you said hello", string(answer))
}

func TestClose_ConnectionsOpenOrWaiting_EndsThemAndWaits(t *testing.T) {
	backend, front := mustListen(t), mustListen(t)
	dialled := make(chan struct{}, 2)
	var dials atomic.Int64
	dial := func(ctx context.Context) (net.Conn, error) {
		if dials.Add(1) == 1 { // the second connection comes when the first has been dialled
			defer func() { dialled <- struct{}{} }()
			return new(net.Dialer).DialContext(ctx, "tcp", backend.Addr().String())
		}
		dialled <- struct{}{}
		<-ctx.Done() // a store that does not come back
		return nil, ctx.Err()
	}
	r := Start([]net.Listener{front}, dial, slog.New(slog.DiscardHandler))
	open := mustDial(t, front)
	<-dialled
	waiting := mustDial(t, front)
	<-dialled
	require.NoError(t, r.Close())
	for _, conn := range []net.Conn{open, waiting} {
		_, err := conn.Read(make([]byte, 1))
		require.Error(t, err)
		assert.NotErrorIs(t, err, context.DeadlineExceeded)
	}
	_, err := net.Dial("tcp", front.Addr().String())
	assert.Error(t, err, "nobody listens any more")
}
