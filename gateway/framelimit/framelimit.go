// Package framelimit ends HTTP/2 connections that keep the server busy with frames that bring nothing: endless SETTINGS,
// PRIORITY, PING and WINDOW_UPDATE, empty DATA, frames of unknown types. Each is cheap to send, costs the server about as
// much as a small request, and neither the protocol nor the server library bounds them all.
//
// It reads the frames' headers as they go by, 9 bytes each (RFC 9113, 4.1), and keeps an account: such a frame costs one, what
// a client needs to send them for earns some back (new requests, bytes up, bytes down that must be acknowledged, time).
// A connection that has nothing left is told ENHANCE_YOUR_CALM and closed.
package framelimit

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"fmt"
	"net/http"
	"sync/atomic"
	"time"

	"golang.org/x/net/http2"
)

// The account of a connection, in frames.
const (
	// atFirst is what a new connection has. It comes back by perSecond and never goes above that by time alone.
	atFirst   = 500
	perSecond = 20
	// perRequest is what a new stream earns: clients send a WINDOW_UPDATE or a priority with each.
	perRequest = 8
	// bytesDown are acknowledged by one frame at least; Go's client sends two for every 4 KB.
	bytesDown = 1 << 10
	// mostEarned bounds what long answers earn: their acknowledgements come late, as many as fit into a large window.
	mostEarned = 64 << 10
	// smallData is the size up to which a DATA frame costs, so that padding does not make it a large one.
	smallData = 512
)

// Frames (RFC 9113, 6).
const (
	frameData    = 0x0
	frameHeaders = 0x1
	headerBytes  = 9
)

// Configure makes s, which has its TLSConfig, serve HTTP/2 with bounded frames. ended is called for each connection that is
// ended for them. It stands in for what net/http sets up by itself, which reads from a *tls.Conn and from nothing else.
func Configure(s *http.Server, ended func()) error {
	h2 := new(http2.Server)                              //nolint:staticcheck // net/http's own takes no other connection than a *tls.Conn
	if err := http2.ConfigureServer(s, h2); err != nil { //nolint:staticcheck // as above
		return fmt.Errorf("set up HTTP/2: %w", err)
	}
	s.TLSNextProto[http2.NextProtoTLS] = func(server *http.Server, c *tls.Conn, h http.Handler) {
		var ctx context.Context
		// net/http hands the connection's context over this way, to its own HTTP/2 as to this one.
		if based, ok := h.(interface{ BaseContext() context.Context }); ok {
			ctx = based.BaseContext()
		}
		h2.ServeConn(newConn(c, ended), &http2.ServeConnOpts{Context: ctx, Handler: h, BaseConfig: server}) //nolint:staticcheck // as above
	}
	return nil
}

// conn is a connection whose frames are counted. The server reads from one goroutine and writes from others.
type conn struct {
	*tls.Conn
	meter meter
}

func newConn(c *tls.Conn, ended func()) *conn {
	return &conn{Conn: c, meter: meter{left: atFirst, skip: uint32(len(http2.ClientPreface)), last: time.Now(), ended: ended, now: time.Now}}
}

// Read implements net.Conn.
func (c *conn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if !c.meter.read(p[:n]) {
		return 0, http2.ConnectionError(http2.ErrCodeEnhanceYourCalm)
	}
	return n, err
}

// Write implements net.Conn.
func (c *conn) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	c.meter.written.Add(int64(n))
	return n, err
}

// meter keeps the account of one connection.
type meter struct {
	written atomic.Int64

	// What follows belongs to the reader. skip is how much goes by before the next frame's header, header what is there of it.
	skip   uint32
	header [headerBytes]byte
	have   int
	// left is the account; last is when time was counted in, acknowledged how many written bytes.
	left         int64
	last         time.Time
	acknowledged int64
	stream       uint32 // the last one that the client has opened
	over         bool
	ended        func()
	now          func() time.Time
}

// read looks at bytes that were read, and says whether the connection may go on.
func (m *meter) read(p []byte) bool {
	if m.over {
		return false
	}
	for len(p) > 0 {
		if m.skip > 0 {
			n := min(uint32(len(p)), m.skip) //nolint:gosec // a buffer
			p, m.skip = p[n:], m.skip-n
			continue
		}
		n := copy(m.header[m.have:], p)
		m.have, p = m.have+n, p[n:]
		if m.have < headerBytes {
			return true
		}
		m.have = 0
		size := uint32(m.header[0])<<16 | uint32(m.header[1])<<8 | uint32(m.header[2])
		m.skip = size
		if !m.frame(m.header[3], size, binary.BigEndian.Uint32(m.header[5:])&(1<<31-1)) {
			m.over = true
			m.ended()
			return false
		}
	}
	return true
}

// frame books one frame.
func (m *meter) frame(kind byte, size, stream uint32) bool {
	switch {
	case kind == frameHeaders && stream > m.stream:
		m.stream = stream
		m.earn(perRequest)
		return true
	case kind == frameData && size > smallData:
		m.earn(1)
		return true
	}
	if m.left--; m.left >= 0 {
		return true
	}
	// Only now is the clock asked.
	now := m.now()
	written := m.written.Load()
	m.earn((written - m.acknowledged) / bytesDown)
	m.acknowledged = written
	if earned := int64(now.Sub(m.last).Seconds() * perSecond); earned > 0 {
		m.last = now
		m.left = max(m.left, min(m.left+earned, atFirst))
	}
	return m.left >= 0
}

func (m *meter) earn(n int64) { m.left = min(m.left+n, mostEarned) }
