// Package relay passes TCP connections on to a backend whose address may change.
package relay

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"sync"
	"time"
)

const (
	// maxConns bounds the connections of one relay; more wait in the kernel's queue.
	maxConns = 4096
	// dialTimeout is how long a client waits for a backend that is being restarted.
	dialTimeout = 15 * time.Second
	// retryAccept is the pause after an accept that failed, for want of file descriptors for example.
	retryAccept = 50 * time.Millisecond
)

// Dial connects to the backend and may wait for it.
type Dial func(ctx context.Context) (net.Conn, error)

// Relay serves listeners.
type Relay struct {
	dial      Dial
	log       *slog.Logger
	listeners []net.Listener
	slots     chan struct{}
	cancel    context.CancelFunc
	running   sync.WaitGroup
}

// Start serves the listeners, which are its own from now on, until Close.
func Start(listeners []net.Listener, dial Dial, log *slog.Logger) *Relay {
	ctx, cancel := context.WithCancel(context.Background())
	r := &Relay{dial: dial, log: log, listeners: listeners, slots: make(chan struct{}, maxConns), cancel: cancel}
	for _, l := range listeners {
		r.running.Go(func() { r.serve(ctx, l) })
	}
	return r
}

// Close ends the listeners and all connections, and waits for that.
func (r *Relay) Close() error {
	r.cancel()
	var errs []error
	for _, l := range r.listeners {
		errs = append(errs, l.Close())
	}
	r.running.Wait()
	return errors.Join(errs...)
}

func (r *Relay) serve(ctx context.Context, l net.Listener) {
	for {
		select {
		case r.slots <- struct{}{}:
		case <-ctx.Done():
			return
		}
		client, err := l.Accept()
		if err != nil {
			<-r.slots
			if ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
				return
			}
			r.log.Warn("a connection could not be accepted", "address", l.Addr().String(), "error", err)
			time.Sleep(retryAccept)
			continue
		}
		r.running.Go(func() {
			defer func() { <-r.slots }()
			r.pass(ctx, client)
		})
	}
}

// pass copies both ways until both ends have closed, one has failed, or ctx ends.
func (r *Relay) pass(ctx context.Context, client net.Conn) {
	defer func() { _ = client.Close() }()
	dialing, cancel := context.WithTimeout(ctx, dialTimeout)
	backend, err := r.dial(dialing)
	cancel()
	if err != nil {
		if ctx.Err() == nil {
			r.log.Warn("a client was turned away: its store cannot be reached", "error", err)
		}
		return
	}
	defer func() { _ = backend.Close() }()
	stop := context.AfterFunc(ctx, func() {
		_ = client.Close()
		_ = backend.Close()
	})
	defer stop()
	var both sync.WaitGroup
	both.Go(func() { copyHalf(backend, client) })
	both.Go(func() { copyHalf(client, backend) })
	both.Wait()
}

// copyHalf copies until the end of from and passes that end on, so that each direction ends by itself. After a failure
// nothing more can come of either direction.
func copyHalf(to, from net.Conn) {
	// *net.TCPConn copies in the kernel (splice).
	if _, err := io.Copy(to, from); err != nil {
		_ = to.Close()
		_ = from.Close()
		return
	}
	if half, ok := to.(interface{ CloseWrite() error }); ok {
		_ = half.CloseWrite()
	}
}
