// Package http1 is an HTTP/1.1 server (RFC 9112) for the few connections of lambda-init: those of the gateway, and those of the
// function's runtime. One goroutine a connection reads a request, answers it and writes the answer; nobody else is woken, and nothing
// is allocated for an answer. Requests are read strictly: what could be understood in two ways is refused, and ends its connection.
package http1

import (
	"errors"
	"fmt"
	"net"
	"sync"
	"syscall"
	"time"

	"github.com/edge-serverless-box/esb/guard/rawconn"
)

// ErrClosed is what Serve returns after Close or Shutdown.
var ErrClosed = errors.New("the server is closed")

// maxAcceptPause bounds the wait for descriptors or memory that ran out.
const maxAcceptPause = time.Second

// Server answers requests. The zero value but for Handler is ready to Serve.
type Server struct {
	// Handler answers a request; it runs in the goroutine of the request's connection, and the Exchange is not valid after it.
	Handler func(*Exchange)
	// HeadTimeout bounds the wait for the first request of a connection, for the rest of a head that has begun, and for the rest of a
	// body that the handler did not want. 0 does not.
	HeadTimeout time.Duration
	// WriteTimeout bounds the writing of an answer that its client does not take at once, but for the pieces of one in chunks; 0 does not.
	WriteTimeout time.Duration
	// Date says that answers have the time.
	Date bool
	// Fault is told of panics, and of connections that cannot be accepted; nil for nobody.
	Fault func(message string)

	date date

	// mu guards the following.
	mu       sync.Mutex
	listener net.Listener
	conns    map[*conn]struct{}
	closing  bool
	// ended is told when a connection has ended.
	ended chan struct{}
}

// Serve takes connections of l until Close or Shutdown, which close l, or until l fails.
func (s *Server) Serve(l net.Listener) error {
	s.mu.Lock()
	if s.closing {
		s.mu.Unlock()
		_ = l.Close()
		return ErrClosed
	}
	s.listener = l
	s.mu.Unlock()
	pause := time.Duration(0)
	for {
		nc, err := l.Accept()
		switch {
		case err == nil:
			pause = 0
			s.begin(nc)
		case s.isClosing():
			return ErrClosed
		case passes(err):
			pause = min(max(2*pause, 5*time.Millisecond), maxAcceptPause)
			s.fault(fmt.Sprintf("accept a connection: %v; trying again in %v", err, pause))
			time.Sleep(pause)
		default:
			return err
		}
	}
}

// passes says whether an error of accept is about one connection, or about something that ran out.
func passes(err error) bool {
	for _, errno := range [...]syscall.Errno{syscall.ECONNABORTED, syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM, syscall.EPERM, syscall.EPROTO} {
		if errors.Is(err, errno) {
			return true
		}
	}
	return false
}

func (s *Server) begin(nc net.Conn) {
	c := &conn{server: s, nc: rawconn.New(nc)}
	c.x.c = c
	if sc, ok := nc.(syscall.Conn); ok {
		c.raw, _ = sc.SyscallConn()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closing {
		_ = nc.Close()
		return
	}
	if s.conns == nil {
		s.conns = make(map[*conn]struct{})
	}
	s.conns[c] = struct{}{}
	go c.serve()
}

func (s *Server) end(c *conn) {
	_ = c.nc.Close()
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.conns, c)
	if s.ended != nil {
		select {
		case s.ended <- struct{}{}:
		default:
		}
	}
}

func (s *Server) isClosing() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.closing
}

func (s *Server) fault(message string) {
	if s.Fault != nil {
		s.Fault(message)
	}
}

// Close ends the listener and all connections. It does not wait for handlers.
func (s *Server) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closing = true
	for c := range s.conns {
		_ = c.nc.Close()
	}
	if s.listener == nil {
		return nil
	}
	return s.listener.Close()
}

// Shutdown ends the listener, and each connection when the requests that have come on it are answered. It says whether all
// connections have ended within limit.
func (s *Server) Shutdown(limit time.Duration) bool {
	s.mu.Lock()
	s.closing = true
	if s.ended == nil {
		s.ended = make(chan struct{}, 1)
	}
	if s.listener != nil {
		_ = s.listener.Close()
	}
	for c := range s.conns {
		c.endIdle()
	}
	ended := s.ended
	s.mu.Unlock()
	t := time.NewTimer(limit)
	defer t.Stop()
	for {
		s.mu.Lock()
		left := len(s.conns)
		s.mu.Unlock()
		if left == 0 {
			return true
		}
		select {
		case <-ended:
		case <-t.C:
			return false
		}
	}
}

// date is the value of the field Date, made once a second.
type date struct {
	mu     sync.Mutex
	second int64
	text   []byte
}

func (d *date) append(b []byte) []byte {
	now := time.Now()
	d.mu.Lock()
	defer d.mu.Unlock()
	if s := now.Unix(); s != d.second || d.text == nil {
		d.second, d.text = s, now.UTC().AppendFormat(d.text[:0], "Mon, 02 Jan 2006 15:04:05 GMT")
	}
	return append(b, d.text...)
}
