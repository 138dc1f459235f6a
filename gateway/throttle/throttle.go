// Package throttle bounds how often routes may be called, with a token bucket each (AWS: throttling settings of stages
// and routes).
package throttle

import (
	"math"
	"time"

	"golang.org/x/time/rate"

	"github.com/edge-serverless-box/esb/gateway"
)

// Set holds the bucket of each throttle of one configuration. It is safe for concurrent use; nil has none.
type Set struct {
	// buckets by Throttle.ID; the map never changes.
	buckets map[string]*bucket
}

type bucket struct {
	throttle gateway.Throttle
	limiter  *rate.Limiter
}

// Compile returns the Set of the throttles of access and of routes. It shares the buckets whose throttles have not changed with
// the Set before, nil for none: a reload neither fills nor empties them. Others begin full.
func Compile(access gateway.Access, routes []gateway.Route, before *Set) *Set {
	s := &Set{buckets: make(map[string]*bucket)}
	s.add(access.Throttle, before)
	for i := range routes {
		s.add(routes[i].Throttle, before)
	}
	return s
}

func (s *Set) add(t *gateway.Throttle, before *Set) {
	if t == nil {
		return
	}
	if before != nil {
		if b := before.buckets[t.ID]; b != nil && b.throttle == *t {
			s.buckets[t.ID] = b
			return
		}
	}
	s.buckets[t.ID] = &bucket{throttle: *t, limiter: rate.NewLimiter(rate.Limit(t.Rate), t.Burst)}
}

// Allow takes one token for a request at now. Its error has CodeRouteThrottled, and says when the next token is there. A
// throttle that is not of the Set holds nobody back.
func (s *Set) Allow(t *gateway.Throttle, now time.Time) error {
	if s == nil {
		return nil
	}
	b := s.buckets[t.ID]
	if b == nil || b.limiter.AllowN(now, 1) {
		return nil
	}
	err := gateway.Errorf(gateway.CodeRouteThrottled, "throttle of %s: over %g requests a second, burst %d", t.ID, t.Rate, t.Burst)
	wait := math.Max(0, 1-b.limiter.TokensAt(now)) / b.throttle.Rate
	err.RetryAfter = max(time.Duration(wait*float64(time.Second)), time.Millisecond)
	return err
}
