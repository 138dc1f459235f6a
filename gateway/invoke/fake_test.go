package invoke

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/edge-serverless-box/esb/gateway"
	"github.com/edge-serverless-box/esb/gateway/cpugate"
	"github.com/edge-serverless-box/esb/gateway/pool"
	"github.com/stretchr/testify/assert"
)

// box is a Provisioner whose workers are all at addr.
type box struct {
	addr string
	kind gateway.RuntimeInterface

	mu       sync.Mutex
	startErr error
	hold     time.Duration
	starts   int
	stopped  []string
}

func (b *box) Start(ctx context.Context, fn *gateway.Function, standby bool, _ string) (gateway.Worker, error) {
	b.mu.Lock()
	b.starts++
	w := gateway.Worker{ID: fmt.Sprintf("w%d", b.starts), Name: "lambda-f", Addr: b.addr, Function: fn.Name, Interface: b.kind, Standby: standby}
	err, hold := b.startErr, b.hold
	b.mu.Unlock()
	if hold > 0 {
		select {
		case <-time.After(hold):
		case <-ctx.Done():
		}
	}
	return w, err
}

func (b *box) Stop(_ context.Context, id string, _ time.Duration, reason string) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.stopped = append(b.stopped, id+": "+reason)
	return nil
}

func (b *box) List(context.Context) ([]pool.Observed, error) { return nil, errors.New("not asked for") }

func (b *box) fail(err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.startErr = err
}

func (b *box) seen() (starts int, stopped []string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.starts, slices.Clone(b.stopped)
}

func function() *gateway.Function {
	return &gateway.Function{
		Name: "f", Generation: "g1", Timeout: 3 * time.Second,
		Scaling: gateway.Scaling{MaxCapacity: 10, Queue: 10, IdleTimeout: time.Hour, AcquireTimeout: 30 * time.Second},
	}
}

// mustNew returns an Invoker of fn on b; its pool is closed at the end of the test.
func mustNew(t testing.TB, b *box, fn *gateway.Function) *Invoker {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	m := pool.Open(b, pool.Options{Logger: log})
	gate := cpugate.New(log)
	t.Cleanup(func() {
		// What has ended, however it did, has given its turn back.
		assert.Eventually(t, func() bool { return gate.Running() == 0 }, 10*time.Second, time.Millisecond, "turns of invocations that have ended are held")
	})
	i := New(m, Options{Logger: log, CPU: gate})
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		_ = m.Close(ctx)
		i.Wait()
	})
	m.Apply(map[string]*gateway.Function{fn.Name: fn})
	return i
}

// states are those of fn's workers.
func states(i *Invoker) (idle, busy, stopping int) {
	s := i.pool.Snapshot()[0]
	return s.Idle, s.Busy, s.Stopping
}

// worker is the other end: it answers each request on each connection with handle.
type worker struct {
	// handle gets a whole request, which is the n-th of all, from 0. The connection is closed when it says so.
	handle func(c net.Conn, n int, r *http.Request, body []byte) (again bool)

	mu    sync.Mutex
	dials int
	n     int
}

func (w *worker) serve(c net.Conn) {
	defer func() { _ = c.Close() }()
	w.mu.Lock()
	w.dials++
	w.mu.Unlock()
	in := bufio.NewReader(c)
	for {
		r, err := http.ReadRequest(in)
		if err != nil {
			return
		}
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		w.mu.Lock()
		n := w.n
		w.n++
		w.mu.Unlock()
		if !w.handle(c, n, r, body) {
			return
		}
	}
}

func (w *worker) seen() (dials, requests int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.dials, w.n
}

// pipe has i reach w through pipes, within the bubble of a test. Every goroutine ends with its connection.
func (w *worker) pipe(i *Invoker) {
	i.dial = func(context.Context, string, string) (net.Conn, error) {
		near, far := net.Pipe()
		go w.serve(far)
		return near, nil
	}
}

// mustListen serves w on a port of its own and returns its address.
func (w *worker) mustListen(t testing.TB) string {
	t.Helper()
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var conns sync.WaitGroup
	conns.Go(func() {
		for {
			c, err := lis.Accept()
			if err != nil {
				return
			}
			conns.Go(func() { w.serve(c) })
		}
	})
	// Registered before the pool's, so run after it: by then every connection has been closed by the invoker.
	t.Cleanup(func() {
		_ = lis.Close()
		conns.Wait()
	})
	return lis.Addr().String()
}

// timeoutAnswer is what lambda-init says when it has ended a function that ran past its timeout.
const timeoutAnswer = "HTTP/1.1 200 OK\r\nX-Amz-Function-Error: Unhandled\r\nX-Esb-Sandbox-Reset: timeout\r\nContent-Length: 2\r\n\r\n{}"

// says answers every request with raw.
func says(raw string, again bool) *worker {
	return &worker{handle: func(c net.Conn, _ int, _ *http.Request, _ []byte) bool {
		_, err := io.WriteString(c, raw)
		return err == nil && again
	}}
}
