// Package throttle bounds how often routes may be called, with a token bucket each (AWS: throttling settings of stages
// and routes).
package throttle

import (
	"math"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"github.com/edge-serverless-box/esb/gateway"
)

// Set holds the bucket of each throttle. It is safe for concurrent use.
type Set struct {
	// buckets by Throttle.ID; the map never changes once it is stored.
	buckets atomic.Pointer[map[string]*bucket]
	// mu lets one Apply run at a time.
	mu sync.Mutex
}

type bucket struct {
	throttle gateway.Throttle
	limiter  *rate.Limiter
}

// Apply makes throttles the current ones. A bucket whose throttle has not changed keeps what is in it; others begin full.
func (s *Set) Apply(throttles []*gateway.Throttle) {
	s.mu.Lock()
	defer s.mu.Unlock()
	next := make(map[string]*bucket, len(throttles))
	old := s.buckets.Load()
	for _, t := range throttles {
		if old != nil {
			if b := (*old)[t.ID]; b != nil && b.throttle == *t {
				next[t.ID] = b
				continue
			}
		}
		next[t.ID] = &bucket{throttle: *t, limiter: rate.NewLimiter(rate.Limit(t.Rate), t.Burst)}
	}
	s.buckets.Store(&next)
}

// Allow takes one token for a request at now. Its error has CodeRouteThrottled, and says when the next token is there. A
// throttle that Apply does not know any more allows everything: the request was matched by routes that were just replaced.
func (s *Set) Allow(t *gateway.Throttle, now time.Time) error {
	buckets := s.buckets.Load()
	if buckets == nil {
		return nil
	}
	b := (*buckets)[t.ID]
	if b == nil || b.limiter.AllowN(now, 1) {
		return nil
	}
	err := gateway.Errorf(gateway.CodeRouteThrottled, "throttle of %s: over %g requests a second, burst %d", t.ID, t.Rate, t.Burst)
	wait := math.Max(0, 1-b.limiter.TokensAt(now)) / b.throttle.Rate
	err.RetryAfter = max(time.Duration(wait*float64(time.Second)), time.Millisecond)
	return err
}
