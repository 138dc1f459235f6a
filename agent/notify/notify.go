// Package notify receives what lambda-init tells the agent about its life (docs/lambda-init.md): one unix datagram
// socket a container, one line a datagram.
package notify

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Message is one datagram of lambda-init. Everything else is dropped.
type Message string

// Messages of lambda-init.
const (
	// Ready: the worker endpoint listens.
	Ready Message = "READY=1"
	// InitStart: the function process is being started.
	InitStart Message = "INIT_START=1"
	// InitOK: the init phase has ended well.
	InitOK Message = "INIT_END=ok"
	// InitError: the init phase has failed.
	InitError Message = "INIT_END=error"
)

// logLost begins the message that log lines were lost; the number of them follows.
const logLost = "LOG_LOST="

// LogLost is the number of lines that the message says were lost, false for another message.
func (m Message) LogLost() (lines int, ok bool) {
	text, ok := strings.CutPrefix(string(m), logLost)
	lines, err := strconv.Atoi(text)
	return lines, ok && err == nil && lines > 0
}

// maxPath is the longest path of a unix socket (sockaddr_un, with its final zero).
const maxPath = 107

// After burst messages, one is read every interval.
const (
	burst    = 20
	interval = 100 * time.Millisecond
)

// Socket is the agent's end of one container's notify socket.
type Socket struct {
	conn  *net.UnixConn
	path  string
	stop  chan struct{}
	ended sync.WaitGroup
}

// Listen makes the socket and calls handle for each message, one after the other, until Close. Nobody but the user uid, whom
// the container's lambda-init is on this machine, can send.
func Listen(path string, uid uint32, handle func(Message)) (*Socket, error) {
	if len(path) > maxPath {
		return nil, fmt.Errorf("notify socket %s: the path has %d bytes, a unix socket's may have %d: set ESB_RUN_DIR to a shorter folder", path, len(path), maxPath)
	}
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		return nil, fmt.Errorf("listen on notify socket: %w", err)
	}
	if err := errors.Join(os.Chmod(path, 0o600), os.Lchown(path, int(uid), int(uid))); err != nil {
		return nil, errors.Join(fmt.Errorf("give the notify socket to the container's lambda-init: %w", err), conn.Close())
	}
	s := &Socket{conn: conn, path: path, stop: make(chan struct{})}
	s.ended.Go(func() { s.serve(handle) })
	return s, nil
}

func (s *Socket) serve(handle func(Message)) {
	buf := make([]byte, 256)
	pause := time.NewTicker(interval)
	defer pause.Stop()
	burst := burst
	for {
		n, err := s.conn.Read(buf)
		if err != nil {
			return
		}
		// A sender that has more to say than an init phase waits: what it says costs the agent, not its container.
		if burst--; burst <= 0 {
			select {
			case <-s.stop:
				return
			case <-pause.C:
				burst = 1
			}
		}
		switch m := Message(strings.TrimSpace(string(buf[:n]))); m {
		case Ready, InitStart, InitOK, InitError:
			handle(m)
		default:
			if _, ok := m.LogLost(); ok {
				handle(m)
			}
		}
	}
}

// Close stops listening, waits until the last call of handle has returned, and removes the socket.
func (s *Socket) Close() error {
	close(s.stop)
	err := s.conn.Close()
	s.ended.Wait()
	if e := os.Remove(s.path); e != nil && !os.IsNotExist(e) {
		err = errors.Join(err, e)
	}
	return err
}
