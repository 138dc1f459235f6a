package rawconn_test

import (
	"bytes"
	"crypto/rand"
	"errors"
	"io"
	"net"
	"os"
	"runtime"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/edge-serverless-box/esb/guard/rawconn"
)

const patience = 60 * time.Second

// mustPair returns the ends of a connection.
func mustPair(t testing.TB) (own net.Conn, other *net.TCPConn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer func() { _ = l.Close() }()
	dialed, err := net.Dial("tcp", l.Addr().String())
	require.NoError(t, err)
	accepted, err := l.Accept()
	require.NoError(t, err)
	t.Cleanup(func() { _ = dialed.Close(); _ = accepted.Close() })
	return rawconn.New(accepted), dialed.(*net.TCPConn)
}

func TestConn_CarriesEverythingBothWays(t *testing.T) {
	own, other := mustPair(t)
	sent := make([]byte, 8<<20)
	_, _ = rand.Read(sent)
	pieces := []int{1, 700, 32 << 10, 32<<10 + 1, 300 << 10}
	write := func(c net.Conn) {
		rest := sent
		for i := 0; len(rest) > 0; i++ {
			n := min(pieces[i%len(pieces)], len(rest))
			wrote, err := c.Write(rest[:n])
			assert.NoError(t, err)
			assert.Equal(t, n, wrote)
			rest = rest[n:]
		}
		assert.NoError(t, c.(interface{ CloseWrite() error }).CloseWrite())
	}
	var wg sync.WaitGroup
	for _, c := range []net.Conn{own, other} {
		wg.Go(func() { write(c) })
		wg.Go(func() {
			got, err := io.ReadAll(c)
			assert.NoError(t, err)
			assert.True(t, bytes.Equal(sent, got))
		})
	}
	wg.Wait()
}

func TestConn_Deadlines_EndWhatWaits(t *testing.T) {
	own, _ := mustPair(t)
	require.NoError(t, own.SetReadDeadline(time.Now().Add(10*time.Millisecond)))
	_, err := own.Read(make([]byte, 1))
	require.ErrorIs(t, err, os.ErrDeadlineExceeded)
	var known net.Error
	require.ErrorAs(t, err, &known)
	assert.True(t, known.Timeout())
	require.NoError(t, own.SetWriteDeadline(time.Now().Add(10*time.Millisecond)))
	for err = nil; err == nil; {
		_, err = own.Write(make([]byte, 1<<10)) // until the other end's buffers are full
	}
	require.ErrorIs(t, err, os.ErrDeadlineExceeded)
	assert.ErrorContains(t, err, "write tcp 127.0.0.1:")
}

func TestConn_Closed_EndsWhatWaits(t *testing.T) {
	own, _ := mustPair(t)
	ended := make(chan error, 1)
	go func() {
		_, err := own.Read(make([]byte, 1))
		ended <- err
	}()
	time.Sleep(10 * time.Millisecond) // it waits, as a rule; both orders are right
	require.NoError(t, own.Close())
	select {
	case err := <-ended:
		require.ErrorIs(t, err, net.ErrClosed)
	case <-time.After(patience):
		require.Fail(t, "a closed connection is read on")
	}
	_, err := own.Write([]byte("x"))
	require.ErrorIs(t, err, net.ErrClosed)
	_, err = own.Read(make([]byte, 1))
	require.ErrorIs(t, err, net.ErrClosed)
}

func TestConn_OtherEndLeaves(t *testing.T) {
	own, other := mustPair(t)
	_, err := other.Write([]byte("last"))
	require.NoError(t, err)
	require.NoError(t, other.CloseWrite())
	got, err := io.ReadAll(own)
	require.NoError(t, err)
	assert.Equal(t, "last", string(got))

	own, other = mustPair(t)
	require.NoError(t, other.SetLinger(0))
	require.NoError(t, other.Close())
	_, err = own.Read(make([]byte, 1))
	require.ErrorIs(t, err, syscall.ECONNRESET)
	assert.ErrorContains(t, err, "read tcp 127.0.0.1:")
	_, err = own.Write([]byte("x"))
	require.ErrorIs(t, err, syscall.EPIPE)
}

func TestConn_Quiet(t *testing.T) {
	quiet := func(c net.Conn) bool { return c.(*rawconn.Conn).Quiet() }
	own, other := mustPair(t)
	assert.True(t, quiet(own))
	_, err := other.Write([]byte("x"))
	require.NoError(t, err)
	require.Eventually(t, func() bool { return !quiet(own) }, patience, time.Millisecond)
	_, err = own.Read(make([]byte, 1))
	require.NoError(t, err)
	assert.True(t, quiet(own))
	require.NoError(t, other.Close())
	require.Eventually(t, func() bool { return !quiet(own) }, patience, time.Millisecond)
	require.NoError(t, own.Close())
	assert.False(t, quiet(own))
}

func TestNew_OtherConnections_StayAsTheyAre(t *testing.T) {
	a, b := net.Pipe()
	defer func() { _, _ = a.Close(), b.Close() }()
	assert.Equal(t, a, rawconn.New(a))
}

func TestConn_AllocatesNothing(t *testing.T) {
	own, other := mustPair(t)
	p := []byte("0123456789")
	assert.Zero(t, testing.AllocsPerRun(100, func() {
		_, err := own.Write(p)
		if err == nil {
			_, err = other.Read(p)
		}
		if err == nil {
			_, err = other.Write(p)
		}
		if err == nil {
			_, err = own.Read(p)
		}
		if err != nil {
			panic(err)
		}
	}))
}

// BenchmarkExchange is a process that is asked and answers, as by its clients one after the other, and rests between: the time on the CPU
// of both ends, which wake each other.
func BenchmarkExchange(b *testing.B) {
	for _, c := range []struct {
		name string
		wrap func(net.Conn) net.Conn
	}{{"net", func(c net.Conn) net.Conn { return c }}, {"rawconn", rawconn.New}} {
		b.Run(c.name, func(b *testing.B) {
			defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
			own, other := mustPair(b)
			own = c.wrap(own.(*rawconn.Conn).TCPConn)
			asker := c.wrap(other)
			go func() {
				p := make([]byte, 100)
				for {
					n, err := own.Read(p)
					if err == nil {
						_, err = own.Write(p[:n])
					}
					if err != nil {
						return
					}
				}
			}()
			p := make([]byte, 100)
			began := used(b)
			b.ReportAllocs()
			for b.Loop() {
				_, err := asker.Write(p)
				if err == nil {
					_, err = asker.Read(p)
				}
				if err != nil {
					b.Fatal(errors.Unwrap(err))
				}
				time.Sleep(100 * time.Microsecond)
			}
			b.ReportMetric(float64((used(b)-began).Nanoseconds())/1e3/float64(b.N), "cpu-us/op")
		})
	}
}

// used is the time that this process has had of the CPUs.
func used(b *testing.B) time.Duration {
	var u syscall.Rusage
	require.NoError(b, syscall.Getrusage(syscall.RUSAGE_SELF, &u))
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
