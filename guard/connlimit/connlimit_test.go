package connlimit_test

import (
	"context"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/edge-serverless-box/esb/guard/connlimit"
)

// fakeConn is a connection from any address.
type fakeConn struct {
	net.Conn
	from   string
	closed chan struct{}
	once   sync.Once
}

func from(addr string) *fakeConn {
	return &fakeConn{from: addr, closed: make(chan struct{})}
}

func (c *fakeConn) RemoteAddr() net.Addr {
	return net.TCPAddrFromAddrPort(netip.MustParseAddrPort(c.from))
}

func (c *fakeConn) Close() error {
	c.once.Do(func() { close(c.closed) })
	return nil
}

func (c *fakeConn) isClosed() bool {
	select {
	case <-c.closed:
		return true
	default:
		return false
	}
}

// fakeListener accepts what it is given.
type fakeListener struct {
	net.Listener
	conns chan net.Conn
}

func (l *fakeListener) Accept() (net.Conn, error) {
	c, ok := <-l.conns
	if !ok {
		return nil, net.ErrClosed
	}
	return c, nil
}

// accept hands conns over and returns those that come through.
func accept(l *connlimit.Limiter, conns ...*fakeConn) []net.Conn {
	inner := &fakeListener{conns: make(chan net.Conn, len(conns))}
	for _, c := range conns {
		inner.conns <- c
	}
	close(inner.conns)
	limited := l.Listener(inner)
	var through []net.Conn
	for {
		c, err := limited.Accept()
		if err != nil {
			return through
		}
		through = append(through, c)
	}
}

func TestLimiter_AboveABound_ClosesAndCounts(t *testing.T) {
	functions := connlimit.Network{Name: "functions", Prefix: netip.MustParsePrefix("10.88.0.0/16"), Total: 3, PerAddress: 2}
	for name, c := range map[string]struct {
		bounds connlimit.Bounds
		from   []string
		closed []bool
		reason connlimit.Reason
	}{
		"total":                {connlimit.Bounds{Total: 2}, []string{"1.1.1.1:1", "1.1.1.2:1", "1.1.1.3:1"}, []bool{false, false, true}, connlimit.Total},
		"address":              {connlimit.Bounds{PerAddress: 1}, []string{"1.1.1.1:1", "1.1.1.1:2", "1.1.1.2:1"}, []bool{false, true, false}, connlimit.PerAddress},
		"mapped address":       {connlimit.Bounds{PerAddress: 1}, []string{"1.1.1.1:1", "[::ffff:1.1.1.1]:2"}, []bool{false, true}, connlimit.PerAddress},
		"addresses of a /64":   {connlimit.Bounds{PerAddress: 1}, []string{"[2001:db8::1]:1", "[2001:db8::2]:1", "[2001:db8:0:1::1]:1"}, []bool{false, true, false}, connlimit.PerAddress},
		"network":              {connlimit.Bounds{Networks: []connlimit.Network{functions}}, []string{"10.88.0.2:1", "10.88.0.3:1", "10.88.0.4:1", "10.88.0.5:1", "1.1.1.1:1"}, []bool{false, false, false, true, false}, connlimit.InNetwork},
		"address of a network": {connlimit.Bounds{PerAddress: 9, Networks: []connlimit.Network{functions}}, []string{"10.88.0.2:1", "10.88.0.2:2", "10.88.0.2:3", "1.1.1.1:1"}, []bool{false, false, true, false}, connlimit.PerAddress},
	} {
		t.Run(name, func(t *testing.T) {
			l := connlimit.New(c.bounds)
			conns := make([]*fakeConn, len(c.from))
			for i, addr := range c.from {
				conns[i] = from(addr)
			}
			through := accept(l, conns...)
			refused := 0
			for i, conn := range conns {
				assert.Equal(t, c.closed[i], conn.isClosed(), "%s, connection %d", conn.from, i)
				if c.closed[i] {
					refused++
				}
			}
			assert.Len(t, through, len(conns)-refused)
			assert.Equal(t, uint64(refused), l.Refused(c.reason))
			assert.Equal(t, len(through), l.Open())
		})
	}
}

func TestLimiter_ClosedTwice_GivesOnePlaceBack(t *testing.T) {
	l := connlimit.New(connlimit.Bounds{Total: 2, PerAddress: 2})
	through := accept(l, from("1.1.1.1:1"), from("1.1.1.1:2"))
	require.Len(t, through, 2)
	_ = through[0].Close()
	_ = through[0].Close()
	assert.Equal(t, 1, l.Open())
	assert.Len(t, accept(l, from("1.1.1.1:3"), from("1.1.1.1:4")), 1)
}

func TestLimiter_OneLimiterForTwoListeners_CountsTogether(t *testing.T) {
	l := connlimit.New(connlimit.Bounds{Total: 1})
	assert.Len(t, accept(l, from("1.1.1.1:1")), 1)
	assert.Empty(t, accept(l, from("1.1.1.2:1")))
}

func TestLimiter_Evict_ClosesTheOldest(t *testing.T) {
	l := connlimit.New(connlimit.Bounds{Total: 2, Evict: true})
	first, second, third := from("1.1.1.1:1"), from("1.1.1.1:2"), from("1.1.1.1:3")
	through := accept(l, first, second, third)
	require.Len(t, through, 3)
	assert.True(t, first.isClosed())
	assert.False(t, second.isClosed())
	assert.False(t, third.isClosed())
	assert.Equal(t, 2, l.Open())
	assert.Equal(t, uint64(1), l.Refused(connlimit.Evicted))
	for _, c := range through {
		_ = c.Close()
	}
	assert.Zero(t, l.Open())
}

func TestLimiter_TLSAndHTTP2AboveIt_GivesPlacesBack(t *testing.T) {
	l := connlimit.New(connlimit.Bounds{Total: 1})
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, r.Proto) }))
	s.Listener = l.Listener(s.Listener)
	s.EnableHTTP2 = true
	s.StartTLS()
	defer s.Close()
	for range 3 {
		client := s.Client()
		res, err := client.Get(s.URL)
		require.NoError(t, err)
		proto, err := io.ReadAll(res.Body)
		require.NoError(t, err)
		assert.Equal(t, "HTTP/2.0", string(proto))
		// The place is taken, and the second one is closed during its handshake.
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		_, err = (&tls.Dialer{Config: &tls.Config{InsecureSkipVerify: true}}).DialContext(ctx, "tcp", s.Listener.Addr().String()) //nolint:gosec // a test
		cancel()
		require.Error(t, err)
		require.Eventually(t, func() bool {
			// The client takes its connection for idle a moment after the answer's end.
			client.CloseIdleConnections()
			return l.Open() == 0
		}, time.Minute, time.Millisecond)
	}
}

func TestLimiter_ManyAtOnce_CountsExactly(t *testing.T) {
	l := connlimit.New(connlimit.Bounds{Total: 50, PerAddress: 30})
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 200 {
				for _, c := range accept(l, from("1.1.1.1:1"), from("1.1.1.2:1"), from("10.0.0.1:1")) {
					wg.Go(func() { _ = c.Close() })
				}
			}
		})
	}
	wg.Wait()
	assert.Zero(t, l.Open())
}

func TestDefaults(t *testing.T) {
	functions := netip.MustParsePrefix("10.88.0.0/16")
	small := connlimit.Defaults(512<<20, functions)
	assert.LessOrEqual(t, small.Total, 512<<20/8/(40<<10))
	assert.Less(t, small.PerAddress, small.Total)
	require.Len(t, small.Networks, 1)
	assert.Less(t, small.Networks[0].PerAddress, small.Networks[0].Total)
	assert.Less(t, small.Networks[0].Total, small.Total)
	assert.LessOrEqual(t, connlimit.Defaults(0, functions).Total, 8192)
	assert.Equal(t, 64, connlimit.Defaults(1<<20, netip.Prefix{}).Total)
}
