package http1

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/edge-serverless-box/esb/guard/rawconn"
)

const (
	// readRoom is the room for what is read ahead, in bytes: most requests come whole in it.
	readRoom = 4 << 10
	// keptRoom is the largest room that an idle connection keeps.
	keptRoom = 16 << 10
	// maxHead bounds a head, in bytes (net/http: 1 MB and 4096; runtimes may send a description of an error of 1 MB in a field).
	maxHead = 1<<20 + 4096
	// discardLimit is how much of a body that the handler did not want is read, to use the connection again.
	discardLimit = 256 << 10
	// lingerLimit is how long a client gets to read the answer to a request that was not read.
	lingerLimit = 500 * time.Millisecond
)

// longAgo ends what waits for a connection.
var longAgo = time.Unix(1, 0)

// conn is a connection and its present exchange. It belongs to its goroutine but for nc, raw and idle.
type conn struct {
	server *Server
	nc     net.Conn
	// raw is nil when nc has no descriptor.
	raw syscall.RawConn
	x   Exchange
	// buf[r:w] is read and not used yet.
	buf  []byte
	r, w int
	// out is the head of the answer.
	out []byte
	// idle says that no request has begun, sending is of who has claimed an answer, until it is sent.
	idle    atomic.Bool
	sending sync.WaitGroup
}

func (c *conn) serve() {
	defer c.server.end(c)
	defer func() {
		if p := recover(); p != nil {
			c.server.fault(fmt.Sprintf("panic while answering %s: %v\n%s", c.x.Path, p, debug.Stack()))
		}
	}()
	for first := true; ; first = false {
		if c.r == c.w && !c.awaitRequest(first) {
			return
		}
		x := &c.x
		x.reset()
		if err := c.readHead(x); err != nil {
			var refused *refusal
			if errors.As(err, &refused) {
				x.refuse(refused)
				c.linger()
			}
			return
		}
		c.server.Handler(x)
		if !c.finish(x) {
			return
		}
	}
}

// awaitRequest waits for the first byte of a request.
func (c *conn) awaitRequest(first bool) bool {
	if cap(c.buf) > keptRoom {
		c.buf = nil
	}
	if cap(c.out) > keptRoom {
		c.out = nil
	}
	limited := first && c.server.HeadTimeout > 0
	if limited {
		_ = c.nc.SetReadDeadline(time.Now().Add(c.server.HeadTimeout))
	}
	c.idle.Store(true)
	if c.server.isClosing() && !c.readable() {
		return false
	}
	err := c.fill()
	c.idle.Store(false)
	if limited && err == nil {
		err = c.nc.SetReadDeadline(time.Time{})
	}
	return err == nil
}

// endIdle ends a connection on which no request has begun.
func (c *conn) endIdle() {
	if c.idle.Load() && !c.readable() {
		_ = c.nc.Close()
	}
}

// readable says whether there may be something to read, an end included.
func (c *conn) readable() bool {
	if c.raw == nil {
		return true
	}
	var b [1]byte
	empty := false
	err := c.raw.Control(func(fd uintptr) {
		_, _, err := syscall.Recvfrom(int(fd), b[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
		empty = errors.Is(err, syscall.EAGAIN)
	})
	return err == nil && !empty
}

// fill reads once, behind what is there.
func (c *conn) fill() error {
	switch {
	case c.r == c.w:
		if c.r, c.w = 0, 0; c.buf == nil {
			c.buf = make([]byte, readRoom)
		}
	case c.w < len(c.buf):
	case c.r > 0:
		c.w = copy(c.buf, c.buf[c.r:c.w])
		c.r = 0
	default:
		c.buf = append(c.buf, make([]byte, len(c.buf))...)
	}
	n, err := c.nc.Read(c.buf[c.w:])
	c.w += n
	if n > 0 {
		return nil
	}
	return err
}

// read reads what is there, or what comes next, into p.
func (c *conn) read(p []byte) (int, error) {
	if c.r == c.w {
		if len(p) >= readRoom {
			return c.nc.Read(p)
		}
		if err := c.fill(); err != nil {
			return 0, err
		}
	}
	n := copy(p, c.buf[c.r:c.w])
	c.r += n
	return n, nil
}

// line reads a line that ends with CR LF, of at most limit bytes, and returns it without its end. It is valid until the next read.
func (c *conn) line(limit int) ([]byte, error) {
	for seen := 0; ; {
		text := c.buf[c.r:c.w]
		for n := seen; n < len(text); n++ {
			if text[n] != '\n' {
				continue
			}
			switch {
			case n == 0 || text[n-1] != '\r':
				return nil, errors.New("a line of the body's framing does not end with CR LF")
			case n-1 > limit:
				return nil, lineTooLong(limit)
			}
			c.r += n + 1
			return text[:n-1], nil
		}
		if seen = len(text); seen > limit+1 {
			return nil, lineTooLong(limit)
		}
		if err := c.fill(); err != nil {
			return nil, cutOff(err)
		}
	}
}

func lineTooLong(limit int) error {
	return fmt.Errorf("a line of the body's framing is longer than %d bytes", limit)
}

// take sends what can be sent of head and body without waiting, and returns how much that was. Any goroutine may call it.
func (c *conn) take(head, body []byte) (n int) {
	if c.raw == nil {
		return 0
	}
	_ = c.raw.Write(func(fd uintptr) bool {
		n = write(int(fd), head, body)
		return true
	})
	return n
}

// write writes once and returns how much was taken.
func write(fd int, head, body []byte) (n int) {
	if len(body) == 0 && 0 < len(head) && len(head) <= onePiece {
		n, _ = rawconn.Write(uintptr(fd), head)
		return n
	}
	for {
		var err error
		if len(body) == 0 {
			n, err = unix.Write(fd, head)
		} else {
			n, err = unix.Writev(fd, [][]byte{head, body})
		}
		if !errors.Is(err, unix.EINTR) {
			return max(n, 0)
		}
	}
}

// send sends head and body. A deadline is set only when the client does not take them at once.
func (c *conn) send(head, body []byte) error {
	n := c.take(head, body)
	if n == len(head)+len(body) {
		return nil
	}
	if t := c.server.WriteTimeout; t > 0 {
		_ = c.nc.SetWriteDeadline(time.Now().Add(t))
		defer func() { _ = c.nc.SetWriteDeadline(time.Time{}) }()
	}
	pieces := net.Buffers{head[min(n, len(head)):], body[max(n-len(head), 0):]}
	_, err := pieces.WriteTo(c.nc)
	return err
}

// finish ends an exchange and says whether the connection serves another.
func (c *conn) finish(x *Exchange) bool {
	if !x.unwatch() || !x.answered || x.broken {
		return false
	}
	if !x.done {
		// Who was not told to go on may do so or not.
		if x.expects || x.last || x.bodyErr != nil || !c.discard(x) {
			c.linger()
			return false
		}
	}
	return !x.last
}

// discard reads the rest of a body that is not long.
func (c *conn) discard(x *Exchange) bool {
	if !x.chunked && x.left > discardLimit {
		return false
	}
	if t := c.server.HeadTimeout; t > 0 {
		_ = c.nc.SetReadDeadline(time.Now().Add(t))
		defer func() { _ = c.nc.SetReadDeadline(time.Time{}) }()
	}
	_, err := io.CopyN(io.Discard, x, discardLimit)
	return errors.Is(err, io.EOF)
}

// linger lets the client read the answer to what was not read: what comes in after the end makes the kernel take it back.
func (c *conn) linger() {
	if !c.endWriting() {
		return
	}
	if c.buf == nil {
		c.buf = make([]byte, readRoom)
	}
	for {
		if _, err := c.nc.Read(c.buf); err != nil {
			return
		}
	}
}

// endWriting tells the client that nothing more comes, and bounds what is still read. Any goroutine may call it.
func (c *conn) endWriting() bool {
	half, ok := c.nc.(interface{ CloseWrite() error })
	return ok && half.CloseWrite() == nil && c.nc.SetReadDeadline(time.Now().Add(lingerLimit)) == nil
}

// cutOff names an end that came too early.
func cutOff(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// timedOut says whether err is the end of a deadline.
func timedOut(err error) bool { return errors.Is(err, os.ErrDeadlineExceeded) }
