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

func TestSet_BurstThenRate(t *testing.T) {
	now := time.Unix(1000, 0)
	a, b := &gateway.Throttle{ID: "a", Rate: 2, Burst: 3}, &gateway.Throttle{ID: "b", Rate: 0.1, Burst: 1}
	var s throttle.Set
	require.NoError(t, s.Allow(a, now), "nothing is throttled before Apply")
	s.Apply([]*gateway.Throttle{a, b})
	allowed(t, &s, a, now, 3)
	allowed(t, &s, b, now, 1)
	allowed(t, &s, a, now.Add(time.Second), 2)
	allowed(t, &s, a, now.Add(time.Hour), 3)

	var e *gateway.Error
	require.True(t, errors.As(s.Allow(b, now.Add(4*time.Second)), &e))
	assert.Equal(t, 6*time.Second, e.RetryAfter.Round(time.Millisecond), "when the next token is there")
	require.NoError(t, s.Allow(b, now.Add(10*time.Second)))
}

func TestSet_Reload_KeepsWhatHasNotChanged(t *testing.T) {
	now := time.Unix(1000, 0)
	a, b := &gateway.Throttle{ID: "a", Rate: 1, Burst: 2}, &gateway.Throttle{ID: "b", Rate: 1, Burst: 2}
	var s throttle.Set
	s.Apply([]*gateway.Throttle{a, b})
	allowed(t, &s, a, now, 2)
	allowed(t, &s, b, now, 2)
	same, other := *a, gateway.Throttle{ID: "b", Rate: 1, Burst: 1}
	s.Apply([]*gateway.Throttle{&same, &other})
	allowed(t, &s, &same, now, 0)
	allowed(t, &s, &other, now, 1)
	s.Apply(nil)
	require.NoError(t, s.Allow(&same, now), "a throttle that is gone holds nobody back")
}

func TestSet_ManyAtOnce_GetExactlyTheBurst(t *testing.T) {
	limit := &gateway.Throttle{ID: "a", Rate: 1.0 / 60, Burst: 50}
	var s throttle.Set
	s.Apply([]*gateway.Throttle{limit})
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
	var s throttle.Set
	s.Apply([]*gateway.Throttle{limit})
	b.ReportAllocs()
	for b.Loop() {
		_ = s.Allow(limit, time.Now())
	}
}
