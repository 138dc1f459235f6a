package handover

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"

	"golang.org/x/sys/unix"
)

// Held are sockets of a service, held by whoever starts it again: as long as they are, the kernel lets clients connect, and wait, while
// the service has ended unexpectedly and the next one begins. A nil one has none.
type Held struct {
	names []string
	// fds are plain descriptors: the poller of the runtime would wake this process at each connection of a client.
	fds []int
}

// Hold asks the service that runs on the state home for its sockets, which it goes on with. Nil means that none offers any.
func Hold(ctx context.Context, home string) (*Held, error) {
	ctx, cancel := context.WithTimeout(ctx, answerLimit)
	defer cancel()
	d, conn, err := reach(ctx, home)
	if conn == nil {
		return nil, err
	}
	defer func() { _, _ = d.Close(), conn.Close() }()
	if err := madeByOwner(d, conn); err != nil {
		return nil, fmt.Errorf("hold the sockets of the one that runs: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	names, fds, err := receive(ctx, conn)
	if err != nil {
		return nil, fmt.Errorf("hold the sockets of the one that runs: %w", err)
	}
	return &Held{names: names, fds: fds}, nil
}

// madeByOwner refuses an offer that is not of the folder's owner: who owns it can have made a link there to that of another service, which
// answers root, but not them.
func madeByOwner(d dir, c *net.UnixConn) error {
	var folder unix.Stat_t
	if err := unix.Fstat(int(d.Fd()), &folder); err != nil {
		return err
	}
	peer, err := peerOf(c)
	if err != nil {
		return err
	}
	if folder.Uid != 0 && folder.Uid != peer.Uid {
		return fmt.Errorf("the offer in %s is user %d's, and the folder is user %d's", d.Name(), peer.Uid, folder.Uid)
	}
	return nil
}

// Close gives the sockets up: with the last one who has one of them, clients are refused.
func (h *Held) Close() {
	if h == nil {
		return
	}
	closeAll(h.fds)
	h.names, h.fds = nil, nil
}

// Files returns the sockets for a process that is to be started, and their names in the same order. They are the caller's.
func (h *Held) Files() (names []string, files []*os.File, err error) {
	if h == nil {
		return nil, nil, nil
	}
	for i, fd := range h.fds {
		own, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			for _, f := range files {
				_ = f.Close()
			}
			return nil, nil, fmt.Errorf("hand the socket %s on: %w", h.names[i], err)
		}
		files = append(files, os.NewFile(uintptr(own), h.names[i]))
	}
	return h.names, files, nil
}

// Describe says in a text which descriptors of a process that is started are sockets: those from first on have these names.
func Describe(first int, names []string) (string, error) {
	fds := make(map[string]int, len(names))
	for i, name := range names {
		fds[name] = first + i
	}
	text, err := json.Marshal(fds)
	if err != nil {
		return "", fmt.Errorf("name the sockets: %w", err)
	}
	return string(text), nil
}

// Inherited takes the sockets that this process was started with; text is what Describe has said of them, empty for none. They are not
// handed on to the processes that it starts from then on.
func Inherited(text string) (*Predecessor, error) {
	if text == "" {
		return nil, nil
	}
	said := map[string]int{}
	if err := json.Unmarshal([]byte(text), &said); err != nil {
		return nil, fmt.Errorf("the sockets that this process was started with: %w", err)
	}
	var names []string
	var fds []int
	for name, fd := range said {
		if fd <= 2 {
			return nil, fmt.Errorf("the sockets that this process was started with: descriptor %d is none of them", fd)
		}
		unix.CloseOnExec(fd)
		names, fds = append(names, name), append(fds, fd)
	}
	sockets, err := listeners(names, fds)
	if err != nil {
		return nil, fmt.Errorf("the sockets that this process was started with: %w", err)
	}
	return &Predecessor{sockets: sockets}, nil
}
