// Package handover has a service that starts, a gateway or the stores, take the listening sockets of the one that runs on the same state,
// so that no client is refused between the two: whoever connects meanwhile waits in the sockets' queues.
//
// The running one offers its sockets at a socket in the folder of its state. The one that starts asks for them, makes sure that
// it can start, and then asks the other one to end, which is when that closes the connection: with everything it does, or by its death.
package handover

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// name is the socket's in the folder of the state.
	name = "handover"
	// maxSockets bounds the sockets of a service; the kernel passes 253 at most (unix(7)).
	maxSockets = 128
	// maxMessage bounds the names of them.
	maxMessage = 64 << 10
	// answerLimit bounds each message but the end of a service.
	answerLimit = 5 * time.Second
	// acceptPause is the pause after a connection that could not be accepted.
	acceptPause = time.Second
)

// Messages of the one that starts.
const (
	askSockets = "sockets"
	askEnd     = "end"
)

// dir is the folder of a state. Its socket has a path of any length by it.
type dir struct{ *os.File }

func openDir(path string) (dir, error) {
	f, err := os.Open(path)
	if err != nil {
		return dir{}, fmt.Errorf("hand-over: %w", err)
	}
	return dir{f}, nil
}

func (d dir) addr() *net.UnixAddr {
	return &net.UnixAddr{Net: "unixpacket", Name: filepath.Join(fmt.Sprintf("/proc/self/fd/%d", d.Fd()), name)}
}

// Offer is what a running service offers.
type Offer struct {
	dir      dir
	listener *net.UnixListener
	sockets  func() map[string]net.Listener
	asked    chan struct{}
	// ended is closed by Close.
	ended   chan struct{}
	once    sync.Once
	log     *slog.Logger
	serving sync.WaitGroup

	// mu guards what follows: the connections, which Close closes.
	mu     sync.Mutex
	conns  map[*net.UnixConn]bool
	closed bool
}

// Open offers sockets, by their names, to whoever starts on the same state, home. What another process, which has ended, has left of
// its offer is replaced.
func Open(home string, sockets func() map[string]net.Listener, log *slog.Logger) (*Offer, error) {
	d, err := openDir(home)
	if err != nil {
		return nil, err
	}
	o := &Offer{dir: d, sockets: sockets, asked: make(chan struct{}), ended: make(chan struct{}), log: log, conns: map[*net.UnixConn]bool{}}
	if err := os.Remove(d.addr().Name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, errors.Join(fmt.Errorf("hand-over: %w", err), d.Close())
	}
	if o.listener, err = net.ListenUnix("unixpacket", d.addr()); err != nil {
		return nil, errors.Join(fmt.Errorf("hand-over: %w", err), d.Close())
	}
	// Nobody else's: whoever has a socket takes the requests of clients. Before that, the peer's user is looked at.
	if err := os.Chmod(d.addr().Name, 0o600); err != nil {
		return nil, errors.Join(fmt.Errorf("hand-over: %w", err), o.listener.Close(), d.Close())
	}
	o.serving.Go(o.serve)
	return o, nil
}

// Asked is closed when the service is to end, because another one takes its place. A nil Offer's never is.
func (o *Offer) Asked() <-chan struct{} {
	if o == nil {
		return nil
	}
	return o.asked
}

// Close ends the offer. It is the last thing that a service does: the next one begins.
func (o *Offer) Close() error {
	o.mu.Lock()
	o.closed = true
	o.mu.Unlock()
	close(o.ended)
	err := o.listener.Close() // removes the socket
	o.mu.Lock()
	for c := range o.conns {
		_ = c.Close()
	}
	o.mu.Unlock()
	o.serving.Wait()
	if err := errors.Join(err, o.dir.Close()); err != nil {
		return fmt.Errorf("end the offer of sockets: %w", err)
	}
	return nil
}

func (o *Offer) serve() {
	for {
		c, err := o.listener.AcceptUnix()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil { // out of descriptors, for one
			o.log.Warn("whoever is to take the place of this process could not be listened to", "error", err.Error())
			select {
			case <-o.ended:
				return
			case <-time.After(acceptPause):
			}
			continue
		}
		o.mu.Lock()
		if o.closed {
			o.mu.Unlock()
			_ = c.Close()
			return
		}
		o.conns[c] = true
		o.mu.Unlock()
		o.serving.Go(func() {
			if err := o.answer(c); err != nil {
				o.log.Warn("somebody wanted the sockets of this process", "error", err.Error())
			}
			o.mu.Lock()
			delete(o.conns, c)
			o.mu.Unlock()
			_ = c.Close()
		})
	}
}

// answer serves one that starts until it is gone, or this one is.
func (o *Offer) answer(c *net.UnixConn) error {
	if err := ours(c); err != nil {
		return err
	}
	buffer := make([]byte, 64)
	for {
		n, err := c.Read(buffer)
		if err != nil || n == 0 {
			return nil //nolint:nilerr // it has ended, or this one does
		}
		switch string(buffer[:n]) {
		case askSockets:
			if err := o.send(c); err != nil {
				return err
			}
		case askEnd:
			o.once.Do(func() { close(o.asked) })
		default:
			return fmt.Errorf("it asks for %q", buffer[:n])
		}
	}
}

// ours refuses a peer that runs as another user, but root.
func ours(c *net.UnixConn) error {
	peer, err := peerOf(c)
	if err != nil {
		return fmt.Errorf("look at who asks: %w", err)
	}
	if peer.Uid != 0 && int(peer.Uid) != os.Geteuid() {
		return fmt.Errorf("user %d is not this process's", peer.Uid)
	}
	return nil
}

// peerOf says who is at the other end: of an offer, who has made it.
func peerOf(c *net.UnixConn) (*unix.Ucred, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return nil, err
	}
	var peer *unix.Ucred
	var failed error
	if err := raw.Control(func(fd uintptr) { peer, failed = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) }); err != nil {
		return nil, err
	}
	return peer, failed
}

func (o *Offer) send(c *net.UnixConn) error {
	var names []string
	var fds []int
	var hold func(rest []string, sockets map[string]net.Listener) error
	// Each descriptor is valid within its Control: the message is sent in the innermost one. File() would make the socket blocking,
	// for this process too.
	hold = func(rest []string, sockets map[string]net.Listener) error {
		if len(rest) == 0 {
			text, err := json.Marshal(names)
			if err != nil {
				return fmt.Errorf("name the sockets: %w", err)
			}
			_ = c.SetWriteDeadline(time.Now().Add(answerLimit))
			if _, _, err := c.WriteMsgUnix(text, unix.UnixRights(fds...), nil); err != nil {
				return fmt.Errorf("send the sockets: %w", err)
			}
			return nil
		}
		socket, ok := sockets[rest[0]].(*net.TCPListener)
		if !ok {
			return hold(rest[1:], sockets)
		}
		raw, err := socket.SyscallConn()
		if err != nil {
			return fmt.Errorf("take the socket %s: %w", rest[0], err)
		}
		var inner error
		err = raw.Control(func(fd uintptr) {
			names, fds = append(names, rest[0]), append(fds, int(fd))
			inner = hold(rest[1:], sockets)
		})
		return errors.Join(err, inner)
	}
	sockets := o.sockets()
	var all []string
	for name := range sockets {
		if len(all) < maxSockets {
			all = append(all, name)
		}
	}
	return hold(all, sockets)
}

// Predecessor is the service that runs while another one starts on its state, or what is held of one that has ended. A nil one is none.
type Predecessor struct {
	// conn is nil when it has ended.
	conn    *net.UnixConn
	sockets map[string]net.Listener
}

// Ask asks the service that runs on the state home for its sockets; it goes on as before. Nil means that none runs, or none that
// can be asked.
func Ask(ctx context.Context, home string) (*Predecessor, error) {
	ctx, cancel := context.WithTimeout(ctx, answerLimit)
	defer cancel()
	d, conn, err := reach(ctx, home)
	if conn == nil {
		return nil, err
	}
	defer func() { _ = d.Close() }()
	p := &Predecessor{conn: conn}
	names, fds, err := receive(ctx, p.conn)
	if err == nil {
		p.sockets, err = listeners(names, fds)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("the one that runs does not hand its sockets over: %w", err), p.Close())
	}
	return p, nil
}

// reach connects to the service that offers its sockets on the state home; there is no connection when none does.
func reach(ctx context.Context, home string) (dir, *net.UnixConn, error) {
	d, err := openDir(home)
	if errors.Is(err, fs.ErrNotExist) {
		return dir{}, nil, nil
	}
	if err != nil {
		return dir{}, nil, err
	}
	var dialer net.Dialer
	c, err := dialer.DialContext(ctx, "unixpacket", d.addr().Name)
	if err != nil {
		return dir{}, nil, d.Close() // nobody is there
	}
	return d, c.(*net.UnixConn), nil
}

// receive asks for the sockets, whose descriptors are the caller's.
func receive(ctx context.Context, c *net.UnixConn) (names []string, fds []int, err error) {
	deadline, _ := ctx.Deadline()
	_ = c.SetDeadline(deadline)
	if _, err := c.Write([]byte(askSockets)); err != nil {
		return nil, nil, err
	}
	text, rights := make([]byte, maxMessage), make([]byte, unix.CmsgSpace(4*maxSockets))
	n, m, _, _, err := c.ReadMsgUnix(text, rights)
	if err != nil {
		return nil, nil, err
	}
	defer func() {
		if err != nil {
			closeAll(fds)
			fds = nil
		}
	}()
	messages, err := unix.ParseSocketControlMessage(rights[:m])
	if err != nil {
		return nil, nil, err
	}
	for _, message := range messages {
		more, err := unix.ParseUnixRights(&message)
		if err != nil {
			return nil, fds, err
		}
		for _, fd := range more {
			unix.CloseOnExec(fd)
		}
		fds = append(fds, more...)
	}
	if err := json.Unmarshal(text[:n], &names); err != nil || len(names) != len(fds) {
		return nil, fds, fmt.Errorf("%d sockets with the names %q", len(fds), text[:n])
	}
	return names, fds, nil
}

func closeAll(fds []int) {
	for _, fd := range fds {
		_ = unix.Close(fd)
	}
}

// listeners makes listeners of descriptors, which it closes: a listener has one of its own.
func listeners(names []string, fds []int) (map[string]net.Listener, error) {
	files := make([]*os.File, len(fds))
	for i, fd := range fds {
		files[i] = os.NewFile(uintptr(fd), "socket")
	}
	defer func() {
		for _, f := range files {
			_ = f.Close()
		}
	}()
	sockets := map[string]net.Listener{}
	for i, name := range names {
		l, err := net.FileListener(files[i])
		if err != nil {
			for _, other := range sockets {
				_ = other.Close()
			}
			return nil, fmt.Errorf("the socket %s: %w", name, err)
		}
		sockets[name] = l
	}
	return sockets, nil
}

// Offered says whether a service offers its sockets on the state home: what a killed one has left there offers nothing.
func Offered(ctx context.Context, home string) bool {
	ctx, cancel := context.WithTimeout(ctx, answerLimit)
	defer cancel()
	d, conn, _ := reach(ctx, home)
	if conn == nil {
		return false
	}
	_, _ = d.Close(), conn.Close()
	return true
}

// Runs says whether it has not ended, as far as this process has done anything about that.
func (p *Predecessor) Runs() bool { return p != nil && p.conn != nil }

// Socket returns a socket that the other one listens on, nil when it has none of that name. It is the caller's then.
func (p *Predecessor) Socket(name string) net.Listener {
	if p == nil {
		return nil
	}
	l := p.sockets[name]
	delete(p.sockets, name)
	return l
}

// End has the other one end, and returns when it has: nothing of it is left then but its clients' last answers. Its error says
// that it had not when ctx ended.
func (p *Predecessor) End(ctx context.Context) error {
	if !p.Runs() {
		return p.Close()
	}
	_ = p.conn.SetDeadline(time.Time{})
	stop := context.AfterFunc(ctx, func() { _ = p.conn.SetDeadline(time.Now()) })
	defer stop()
	if _, err := p.conn.Write([]byte(askEnd)); err == nil {
		// It says nothing more.
		if _, err := p.conn.Read(make([]byte, 1)); ctx.Err() != nil && errors.Is(err, os.ErrDeadlineExceeded) {
			return fmt.Errorf("the one that runs has not ended: %w", ctx.Err())
		}
	}
	return p.Close()
}

// Close leaves the other one as it is, and gives up the sockets that nobody has taken.
func (p *Predecessor) Close() error {
	if p == nil {
		return nil
	}
	for name, l := range p.sockets {
		_ = l.Close()
		delete(p.sockets, name)
	}
	if p.conn == nil {
		return nil
	}
	if err := p.conn.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
		return fmt.Errorf("leave the one that runs: %w", err)
	}
	return nil
}
