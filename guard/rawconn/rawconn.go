// Package rawconn makes TCP connections that are cheap for short exchanges between processes that mostly wait.
package rawconn

import (
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"unsafe"
)

// small is up to how many bytes are read or written in one system call that the scheduler is not told of: what the kernel copies in some
// microseconds.
const small = 32 << 10

// Conn is a TCP connection whose short reads and writes are system calls that Go's scheduler is not told of. They never wait, because the
// socket is non-blocking; waiting, deadlines and Close are net's.
//
// The scheduler is told of a system call so that it can go on without the thread that is in it, and at the first one after a rest it wakes
// its monitor for that (runtime, sysmon), which looks around for some 20 µs and goes to rest again. A process that wakes up for a moment, a
// thousand times a second, spends more time on that than on the calls: three futex calls and two sleeps for each request of a gateway.
type Conn struct {
	*net.TCPConn
	raw     syscall.RawConn
	in, out side
}

// side is one direction of a connection.
type side struct {
	// mu is held by the one call that is under way; it guards the following.
	mu sync.Mutex
	// p is what is read to, or what is left to write; n of it is done.
	p   []byte
	n   int
	err syscall.Errno
	// call and peek are made once, so that no call allocates.
	call, peek func(fd uintptr) bool
}

// New returns c as a Conn; c itself when it is no TCP connection.
func New(c net.Conn) net.Conn {
	tcp, ok := c.(*net.TCPConn)
	if !ok {
		return c
	}
	return Of(tcp)
}

// Of is New for what is known to be a TCP connection. Its descriptor can be had even when it has been closed: calls fail then.
func Of(tcp *net.TCPConn) *Conn {
	raw, err := tcp.SyscallConn()
	if err != nil {
		raw = nil // of the zero TCPConn
	}
	c := &Conn{TCPConn: tcp, raw: raw}
	c.in.call, c.in.peek, c.out.call = c.in.read, c.in.look, c.out.write
	return c
}

// Read implements net.Conn.
func (c *Conn) Read(p []byte) (int, error) {
	if len(p) == 0 || c.raw == nil {
		return c.TCPConn.Read(p)
	}
	s := &c.in
	s.mu.Lock()
	defer s.mu.Unlock()
	s.p, s.n, s.err = p[:min(len(p), small)], 0, 0
	err := c.raw.Read(s.call)
	s.p = nil
	switch {
	case err != nil:
		return 0, c.failed("read", err)
	case s.err != 0:
		return 0, c.failed("read", os.NewSyscallError("read", s.err))
	case s.n == 0:
		return 0, io.EOF
	}
	return s.n, nil
}

// Write implements net.Conn.
func (c *Conn) Write(p []byte) (int, error) {
	if len(p) == 0 || len(p) > small || c.raw == nil {
		return c.TCPConn.Write(p)
	}
	s := &c.out
	s.mu.Lock()
	defer s.mu.Unlock()
	s.p, s.n, s.err = p, 0, 0
	err := c.raw.Write(s.call)
	s.p = nil
	switch {
	case err != nil:
		return s.n, c.failed("write", err)
	case s.err != 0:
		return s.n, c.failed("write", os.NewSyscallError("write", s.err))
	}
	return s.n, nil
}

// failed is err as net words it.
func (c *Conn) failed(op string, err error) error {
	var known *net.OpError
	if errors.As(err, &known) {
		err = known.Err // of the raw connection
	}
	return &net.OpError{Op: op, Net: "tcp", Source: c.LocalAddr(), Addr: c.RemoteAddr(), Err: err}
}

// read reads once; it returns false when there is nothing yet.
func (s *side) read(fd uintptr) bool {
	s.n, s.err = Read(fd, s.p)
	return s.err != syscall.EAGAIN
}

// look makes n 1 when nothing is there.
func (s *side) look(fd uintptr) bool {
	if s.n = 0; quiet(fd) {
		s.n = 1
	}
	return true
}

// write writes the rest; it returns false when the other end takes no more yet.
func (s *side) write(fd uintptr) bool {
	for s.n < len(s.p) {
		n, err := Write(fd, s.p[s.n:])
		if err != 0 {
			s.err = err
			return err != syscall.EAGAIN
		}
		s.n += n
	}
	s.err = 0
	return true
}

// Read reads from a non-blocking socket what is there of it, at most p, which must not be empty.
func Read(fd uintptr, p []byte) (int, syscall.Errno) { return again(read, fd, p) }

// Write writes to a non-blocking socket what it takes of p, which must not be empty.
func Write(fd uintptr, p []byte) (int, syscall.Errno) { return again(write, fd, p) }

func again(call func(fd uintptr, p []byte) (int, syscall.Errno), fd uintptr, p []byte) (int, syscall.Errno) {
	for {
		if n, err := call(fd, p); err != syscall.EINTR {
			return n, err
		}
	}
}

// Quiet is true when the connection is open and has nothing to read. It must not be called while it is read, and nothing waits for it.
func (c *Conn) Quiet() bool {
	if c.raw == nil {
		return false
	}
	s := &c.in
	s.mu.Lock()
	defer s.mu.Unlock()
	return c.raw.Read(s.peek) == nil && s.n == 1
}

// quiet is true when a socket is open and has nothing to read.
func quiet(fd uintptr) bool {
	var b [1]byte
	for {
		_, _, err := syscall.RawSyscall6(syscall.SYS_RECVFROM, fd, uintptr(unsafe.Pointer(&b[0])), 1, syscall.MSG_PEEK|syscall.MSG_DONTWAIT, 0, 0)
		if err != syscall.EINTR {
			return err == syscall.EAGAIN
		}
	}
}
