// Package budget bounds the bytes that a program holds for others: bodies while they arrive, events while they wait,
// answers while they are sent. What does not fit is refused at once, or waits for a moment.
//
// It is fair without a setting: a caller may hold as much as it leaves free for the others. One alone gets half of the
// budget, two that want all get a third each, and there is always a place for the next one.
package budget

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
)

// ErrUsedUp says that the bytes would not fit.
var ErrUsedUp = errors.New("the budget of bytes in flight is used up")

// Budget is the bytes that there are. It is safe for concurrent use.
type Budget struct {
	limit   int64
	refused atomic.Uint64

	// mu guards used, which is the sum of held, held itself, by caller, and freed, which is closed when bytes come back;
	// nil when nobody waits.
	mu    sync.Mutex
	used  int64
	held  map[string]int64
	freed chan struct{}
}

// New returns a Budget of limit bytes.
func New(limit int64) *Budget {
	return &Budget{limit: limit, held: make(map[string]int64)}
}

// Limit returns how many bytes there are.
func (b *Budget) Limit() int64 { return b.limit }

// Used returns how many bytes are held.
func (b *Budget) Used() int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.used
}

// Refused returns how often bytes were refused.
func (b *Budget) Refused() uint64 { return b.refused.Load() }

// Claim is what one request holds. It belongs to one goroutine at a time. The zero Claim, and a nil one, has no budget and
// is never refused anything.
type Claim struct {
	budget *Budget
	caller string
	n      int64
}

// Claim returns a claim of nothing yet. caller is for whom the bytes are held, a client's address or a function for
// example. A nil Budget gives a Claim without one.
func (b *Budget) Claim(caller string) Claim { return Claim{budget: b, caller: caller} }

// Grow takes n more bytes, or none and ErrUsedUp. It costs a lock and no allocation.
func (c *Claim) Grow(n int64) error {
	if c == nil || c.budget == nil || n <= 0 {
		return nil
	}
	if !c.try(n) {
		c.budget.refused.Add(1)
		return ErrUsedUp
	}
	return nil
}

// try takes n bytes if they are there.
func (c *Claim) try(n int64) bool {
	b := c.budget
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.take(c.caller, n) {
		return false
	}
	c.n += n
	return true
}

// GrowWait is Grow that waits for bytes to come back until ctx ends. Who waits is not served in order: it is for answers
// that are there already, and better late than lost.
func (c *Claim) GrowWait(ctx context.Context, n int64) error {
	if c == nil || c.budget == nil || n <= 0 {
		return nil
	}
	b := c.budget
	for {
		b.mu.Lock()
		if b.take(c.caller, n) {
			b.mu.Unlock()
			c.n += n
			return nil
		}
		if b.freed == nil {
			b.freed = make(chan struct{})
		}
		freed := b.freed
		b.mu.Unlock()
		select {
		case <-freed:
		case <-ctx.Done():
			b.refused.Add(1)
			return ErrUsedUp
		}
	}
}

// take is called with mu held.
func (b *Budget) take(caller string, n int64) bool {
	held := b.held[caller]
	if held+n > b.limit-b.used-n {
		return false
	}
	b.used += n
	b.held[caller] = held + n
	return true
}

// Shrink gives n bytes back, at most all.
func (c *Claim) Shrink(n int64) {
	if c == nil || c.budget == nil {
		return
	}
	if n = min(n, c.n); n <= 0 {
		return
	}
	c.n -= n
	b := c.budget
	b.mu.Lock()
	defer b.mu.Unlock()
	b.used -= n
	if left := b.held[c.caller] - n; left > 0 {
		b.held[c.caller] = left
	} else {
		delete(b.held, c.caller)
	}
	if b.freed != nil {
		close(b.freed)
		b.freed = nil
	}
}

// Release gives all bytes back. A second call does nothing.
func (c *Claim) Release() {
	if c != nil {
		c.Shrink(c.n)
	}
}

// Set grows or shrinks the claim to n bytes. When it cannot grow, it stays as it is.
func (c *Claim) Set(n int64) error {
	if c == nil || c.budget == nil {
		return nil
	}
	if n < c.n {
		c.Shrink(c.n - n)
		return nil
	}
	return c.Grow(n - c.n)
}

// Held returns how many bytes the claim has.
func (c *Claim) Held() int64 { return c.n }
