package cni

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/edge-serverless-box/esb/agent"
)

const (
	// refillDelay keeps the plugins away from the container start that has just taken an attachment.
	refillDelay = 100 * time.Millisecond
	// Bounds of the wait after a failed preparation; it doubles each time.
	minBackoff = 250 * time.Millisecond
	maxBackoff = 30 * time.Second
)

// pool keeps attachments prepared. One goroutine makes them, one at a time: on the small machines that this is for,
// more would take the CPU from the containers that start.
type pool struct {
	size   int
	create func(context.Context) (Attachment, error)
	log    *slog.Logger
	// wake tells the goroutine that something was taken; one pending signal is enough.
	wake   chan struct{}
	cancel context.CancelFunc
	done   chan struct{}

	// mu guards ready, oldest first, and closed.
	mu     sync.Mutex
	ready  []Attachment
	closed bool
}

func startPool(size int, create func(context.Context) (Attachment, error), log *slog.Logger) *pool {
	ctx, cancel := context.WithCancel(context.Background())
	p := &pool{size: size, create: create, log: log, wake: make(chan struct{}, 1), cancel: cancel, done: make(chan struct{})}
	go p.run(ctx)
	return p
}

// take returns a prepared attachment when there is one, and an error after close.
func (p *pool) take() (Attachment, bool, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return Attachment{}, false, agent.Errorf(agent.CodeUnavailable, "the function network is closed: the agent is stopping")
	}
	if len(p.ready) == 0 {
		return Attachment{}, false, nil
	}
	a := p.ready[0]
	p.ready = p.ready[1:]
	select {
	case p.wake <- struct{}{}:
	default:
	}
	return a, true, nil
}

// close ends the goroutine, waits for it, and returns what was prepared and not taken.
func (p *pool) close() []Attachment {
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	p.cancel()
	<-p.done
	p.mu.Lock()
	defer p.mu.Unlock()
	unused := p.ready
	p.ready = nil
	return unused
}

func (p *pool) run(ctx context.Context) {
	defer close(p.done)
	for {
		p.fill(ctx)
		select {
		case <-ctx.Done():
			return
		case <-p.wake:
		}
		if !wait(ctx, refillDelay) {
			return
		}
	}
}

// fill prepares attachments until the pool is full or ctx ends.
func (p *pool) fill(ctx context.Context) {
	backoff := minBackoff
	for p.short() {
		a, err := p.create(ctx)
		if err == nil {
			// After close this is what close returns, because it waits for the goroutine.
			p.mu.Lock()
			p.ready = append(p.ready, a)
			p.mu.Unlock()
			backoff = minBackoff
			continue
		}
		if ctx.Err() != nil {
			return
		}
		if backoff == minBackoff {
			p.log.Warn("cannot prepare network attachments ahead; trying again at longer and longer intervals", "error", err)
		}
		if !wait(ctx, backoff) {
			return
		}
		backoff = min(2*backoff, maxBackoff)
	}
}

func (p *pool) short() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return !p.closed && len(p.ready) < p.size
}

// wait returns false when ctx ends first.
func wait(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}
