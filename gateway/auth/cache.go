package auth

import (
	"container/list"
	"crypto/sha256"
	"sync"
	"time"

	"github.com/edge-serverless-box/esb/gateway"
)

// cache remembers verified tokens, least recently used first out. Checking a signature and its claims costs many
// times what the look-up does (BenchmarkAdmit). It is keyed by hash, so that it holds no token.
type cache struct {
	size int

	// mu guards entries and order, which hold the same elements; the front was used last.
	mu      sync.Mutex
	entries map[[sha256.Size]byte]*list.Element
	order   *list.List
}

type cached struct {
	key    [sha256.Size]byte
	caller *gateway.Caller
	until  time.Time
}

func newCache(size int) *cache {
	return &cache{size: size, entries: make(map[[sha256.Size]byte]*list.Element), order: list.New()}
}

// get returns nil when the key is unknown or its time has passed.
func (c *cache) get(key [sha256.Size]byte, now time.Time) *gateway.Caller {
	c.mu.Lock()
	defer c.mu.Unlock()
	e, ok := c.entries[key]
	if !ok {
		return nil
	}
	entry := e.Value.(*cached)
	if !now.Before(entry.until) {
		c.remove(e)
		return nil
	}
	c.order.MoveToFront(e)
	return entry.caller
}

func (c *cache) put(key [sha256.Size]byte, caller *gateway.Caller, until time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if e, ok := c.entries[key]; ok {
		c.remove(e)
	}
	c.entries[key] = c.order.PushFront(&cached{key: key, caller: caller, until: until})
	if c.order.Len() > c.size {
		c.remove(c.order.Back())
	}
}

func (c *cache) remove(e *list.Element) {
	delete(c.entries, e.Value.(*cached).key)
	c.order.Remove(e)
}
