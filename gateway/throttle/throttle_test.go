package throttle_test

import (
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/edge-serverless-box/esb/gateway"
	"github.com/edge-serverless-box/esb/gateway/throttle"
)

func allowed(t *testing.T, s *throttle.Set, limit *gateway.Throttle, now time.Time, want int) {
	t.Helper()
	for range want {
		require.NoError(t, s.Allow(limit, now))
	}
	assert.Equal(t, gateway.CodeRouteThrottled, gateway.ErrorCode(s.Allow(limit, now)))
}

// compile makes a Set of throttles, the first of which is that of all routes.
func compile(before *throttle.Set, throttles ...*gateway.Throttle) *throttle.Set {
	var access gateway.Access
	var routes []gateway.Route
	for i, t := range throttles {
		if i == 0 {
			access.Throttle = t
		} else {
			routes = append(routes, gateway.Route{Throttle: t})
		}
	}
	return throttle.Compile(access, append(routes, gateway.Route{}), before)
}

func TestSet_BurstThenRate(t *testing.T) {
	now := time.Unix(1000, 0)
	a, b := &gateway.Throttle{ID: "a", Rate: 2, Burst: 3}, &gateway.Throttle{ID: "b", Rate: 0.1, Burst: 1}
	var s *throttle.Set
	require.NoError(t, s.Allow(a, now), "no Set throttles nothing")
	s = compile(nil, a, b)
	allowed(t, s, a, now, 3)
	allowed(t, s, b, now, 1)
	allowed(t, s, a, now.Add(time.Second), 2)
	allowed(t, s, a, now.Add(time.Hour), 3)

	var e *gateway.Error
	require.True(t, errors.As(s.Allow(b, now.Add(4*time.Second)), &e))
	assert.Equal(t, 6*time.Second, e.RetryAfter.Round(time.Millisecond), "when the next token is there")
	require.NoError(t, s.Allow(b, now.Add(10*time.Second)))
}

func TestSet_Reload_KeepsWhatHasNotChanged(t *testing.T) {
	now := time.Unix(1000, 0)
	a, b := &gateway.Throttle{ID: "a", Rate: 1, Burst: 2}, &gateway.Throttle{ID: "b", Rate: 1, Burst: 2}
	before := compile(nil, a, b)
	allowed(t, before, a, now, 2)
	allowed(t, before, b, now, 2)
	same, other := *a, gateway.Throttle{ID: "b", Rate: 1, Burst: 1}
	after := compile(before, &same, &other)
	allowed(t, after, &other, now, 1)
	allowed(t, before, b, now, 0)
	require.NoError(t, after.Allow(&same, now.Add(time.Second)))
	allowed(t, before, a, now.Add(time.Second), 0)
	require.NoError(t, compile(after).Allow(&same, now), "a throttle that is gone holds nobody back")
}

func TestSet_ManyAtOnce_GetExactlyTheBurst(t *testing.T) {
	limit := &gateway.Throttle{ID: "a", Rate: 1.0 / 60, Burst: 50}
	s := compile(nil, limit)
	now := time.Unix(1000, 0)
	var good atomic.Int64
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 100 {
				if s.Allow(limit, now) == nil {
					good.Add(1)
				}
			}
		})
	}
	wg.Wait()
	assert.EqualValues(t, 50, good.Load())
}

func BenchmarkAllow(b *testing.B) {
	limit := &gateway.Throttle{ID: "a", Rate: 1e6, Burst: 1e6}
	s := compile(nil, limit)
	b.ReportAllocs()
	for b.Loop() {
		_ = s.Allow(limit, time.Now())
	}
}
