package authorizer

import (
	"container/list"
	"context"
	"crypto/sha256"
	"sync"
	"time"

	"github.com/edge-serverless-box/esb/gateway"
)

// Bounds of the cache of one authorizer: how many answers, and how many bytes of them.
const (
	maxEntries = 4096
	maxBytes   = 8 << 20
)

// key is a digest of the values of the identity sources, so that the cache holds no credential.
type key [sha256.Size]byte

// cache remembers the answers of one authorizer, least recently used first out, and lets requests with the same identity
// share one call.
type cache struct {
	// mu guards everything below; entries and order hold the same elements, the front was used last.
	mu      sync.Mutex
	entries map[key]*list.Element
	order   *list.List
	bytes   int
	flights map[key]*flight
}

type entry struct {
	key      key
	decision *decision
	until    time.Time
}

// flight is a call that is under way.
type flight struct {
	key key
	// done is closed when decision, latency and err are set.
	done     chan struct{}
	decision *decision
	latency  time.Duration
	err      error
	// waiters, guarded by the cache's mu, still want the answer; the last one that leaves ends the call.
	waiters int
	cancel  context.CancelFunc
}

func newCache() *cache {
	return &cache{entries: make(map[key]*list.Element), order: list.New(), flights: make(map[key]*flight)}
}

// get returns nil when the key is unknown or its time has passed. mu must be held.
func (c *cache) get(k key, now time.Time) *decision {
	e, ok := c.entries[k]
	if !ok {
		return nil
	}
	found := e.Value.(*entry)
	if !now.Before(found.until) {
		c.remove(e)
		return nil
	}
	c.order.MoveToFront(e)
	return found.decision
}

// put remembers d. mu must be held.
func (c *cache) put(k key, d *decision, until time.Time) {
	if e, ok := c.entries[k]; ok {
		c.remove(e)
	}
	c.entries[k] = c.order.PushFront(&entry{key: k, decision: d, until: until})
	c.bytes += d.size
	for c.order.Len() > maxEntries || c.bytes > maxBytes && c.order.Len() > 1 {
		c.remove(c.order.Back())
	}
}

func (c *cache) remove(e *list.Element) {
	old := e.Value.(*entry)
	c.bytes -= old.decision.size
	delete(c.entries, old.key)
	c.order.Remove(e)
}

// forget lets nobody join f any more. mu must be held.
func (c *cache) forget(f *flight) {
	if c.flights[f.key] == f {
		delete(c.flights, f.key)
	}
}

// wait returns what the flight brought, or an error when ctx ends before.
func (c *cache) wait(ctx context.Context, f *flight) (*decision, time.Duration, error) {
	select {
	case <-f.done:
		return f.decision, f.latency, f.err
	case <-ctx.Done():
	}
	c.mu.Lock()
	if f.waiters--; f.waiters == 0 {
		f.cancel()
		c.forget(f) // who comes now makes a call of its own
	}
	c.mu.Unlock()
	if ctx.Err() == context.DeadlineExceeded {
		return nil, 0, gateway.Errorf(gateway.CodeIntegrationTimeout, "the route's timeout passed before its authorizer answered: %w", ctx.Err())
	}
	return nil, 0, gateway.Errorf(gateway.CodeCanceled, "the client left before the authorizer answered: %w", ctx.Err())
}
