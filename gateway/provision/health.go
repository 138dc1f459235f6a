package provision

import (
	"context"
	"sync"
	"time"
)

const (
	// healthFresh and failureFresh are how long an answer of a store counts for the next question. Who waits for a store
	// to come back wants to know soon.
	healthFresh  = 3 * time.Second
	failureFresh = 500 * time.Millisecond
	// healthTimeout bounds one question. It is shorter than what /readyz gives all its checks.
	healthTimeout = 1500 * time.Millisecond
)

// health remembers for a moment how a store is, so that many who ask cost one request.
type health struct {
	// mu guards err and asked, and lets one ask while the others wait for its answer.
	mu    sync.Mutex
	err   error
	asked time.Time
}

// ask returns what ping said, now or a moment ago.
func (h *health) ask(ctx context.Context, ping func(context.Context) error) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	fresh := healthFresh
	if h.err != nil {
		fresh = failureFresh
	}
	if !h.asked.IsZero() && time.Since(h.asked) < fresh {
		return h.err
	}
	// The answer is for all who ask: that one of them leaves must not spoil it.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), healthTimeout)
	defer cancel()
	h.err = ping(ctx)
	h.asked = time.Now()
	return h.err
}
