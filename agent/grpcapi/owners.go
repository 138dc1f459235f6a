package grpcapi

import (
	"math"
	"sync"
	"time"
)

// maxOwners bounds the owners that are remembered: there is one gateway, or a few.
const maxOwners = 1024

// owners knows when callers that own containers were last heard.
type owners struct {
	since time.Time

	// mu guards last.
	mu   sync.Mutex
	last map[string]time.Time
}

func newOwners() *owners {
	return &owners{since: time.Now(), last: make(map[string]time.Time)}
}

// heard notes that an owner lives; "" is nobody.
func (o *owners) heard(owner string) {
	if owner == "" {
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if _, known := o.last[owner]; !known && len(o.last) >= maxOwners {
		clear(o.last) // all count as silent since the start of the agent, until they are heard again
		o.since = time.Now()
	}
	o.last[owner] = time.Now()
}

// silent is for how many seconds an owner has not been heard.
func (o *owners) silent(owner string) uint32 {
	o.mu.Lock()
	defer o.mu.Unlock()
	last, known := o.last[owner]
	if !known {
		last = o.since
	}
	return uint32(min(time.Since(last).Seconds(), math.MaxUint32))
}
