package stack

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/edge-serverless-box/esb/guard/handover"
	"github.com/edge-serverless-box/esb/native"
)

// inherits has a service take the sockets that it is started with (gateway/settings, stores/settings).
var inherits = map[string]string{native.Gateway: "GATEWAY_SOCKETS", native.Stores: "STORES_SOCKETS"}

const (
	// holdLimit is how long clients of a service that has ended wait at most; then they are refused until it serves again.
	holdLimit = 10 * time.Second
	// holdRetry is the pause until a service is asked again for sockets that it did not hand out: it serves before it offers them.
	holdRetry = 100 * time.Millisecond
	// holdTries bounds that: in some folders nothing can be offered.
	holdTries = 20
)

// holder holds the sockets of services that run, beside them, so that nobody is refused who connects while one that has ended
// unexpectedly is started again: the kernel has clients wait.
type holder struct {
	stack *Stack
	log   *slog.Logger
	limit time.Duration
	// life ends with close.
	life   context.Context
	end    context.CancelFunc
	asking sync.WaitGroup

	// mu guards what follows.
	mu     sync.Mutex
	closed bool
	// held are the sockets by service, and drops end that for those that have ended.
	held  map[string]*handover.Held
	drops map[string]*time.Timer
	// times counts how often a service has begun to serve.
	times map[string]int
}

func newHolder(s *Stack, log *slog.Logger) *holder {
	h := &holder{stack: s, log: log, limit: holdLimit, held: map[string]*handover.Held{}, drops: map[string]*time.Timer{}, times: map[string]int{}}
	h.life, h.end = context.WithCancel(context.Background())
	return h
}

// serves is told that a service has begun to serve: its sockets may be others than those before.
func (h *holder) serves(service string) {
	if inherits[service] == "" {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return
	}
	if drop := h.drops[service]; drop != nil {
		drop.Stop()
		delete(h.drops, service)
	}
	h.times[service]++
	n := h.times[service]
	h.asking.Go(func() { h.take(service, n) })
}

// take asks a service for its sockets, which has begun to serve for the nth time.
func (h *holder) take(service string, n int) {
	for range holdTries {
		held, err := handover.Hold(h.life, h.stack.offers(service))
		if err != nil && h.life.Err() == nil {
			h.log.Warn("clients of "+service+" will be refused while it is started again, should it end", "error", err)
		}
		if held != nil {
			h.replace(service, n, held)
			return
		}
		select {
		case <-time.After(holdRetry):
		case <-h.life.Done():
			return
		}
	}
	h.replace(service, n, nil) // it offers none
}

func (h *holder) replace(service string, n int, held *handover.Held) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed || n != h.times[service] {
		held.Close() // it has begun once more, and another one asks
		return
	}
	h.held[service].Close()
	delete(h.held, service)
	if held != nil {
		h.held[service] = held
	}
}

// ended is told that a service has ended.
func (h *holder) ended(service string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed || h.held[service] == nil || h.drops[service] != nil {
		return
	}
	h.drops[service] = time.AfterFunc(h.limit, func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		if h.closed || h.drops[service] == nil {
			return // it serves again
		}
		delete(h.drops, service)
		h.log.Warn(service+" does not serve again yet; its clients wait no longer", "after_s", h.limit.Seconds())
		h.held[service].Close()
		delete(h.held, service)
	})
}

// start has start start a service with what is held of its sockets, nil for none: they are held at least until it returns.
func (h *holder) start(service string, start func(*handover.Held) error) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	return start(h.held[service])
}

// close gives all sockets up.
func (h *holder) close() {
	h.end()
	h.mu.Lock()
	h.closed = true
	for service, held := range h.held {
		held.Close()
		delete(h.held, service)
	}
	for _, drop := range h.drops {
		drop.Stop()
	}
	h.mu.Unlock()
	h.asking.Wait()
}
