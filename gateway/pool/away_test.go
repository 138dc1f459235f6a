package pool_test

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/edge-serverless-box/esb/api/reason"
	"github.com/edge-serverless-box/esb/gateway"
	"github.com/edge-serverless-box/esb/gateway/pool"
)

func errAway() error {
	err := gateway.Errorf(gateway.CodeUnavailable, "no connection")
	err.Reason = reason.AgentAway
	return err
}

// restarting is an agent that is away: a start asks for the connection for a second, or fails at once. attempts counts.
func restarting(away *atomic.Bool, connects time.Duration, attempts *atomic.Int32) startHook {
	return func(ctx context.Context, _ *gateway.Function, _ bool) error {
		attempts.Add(1)
		for limit := time.Now().Add(connects); away.Load(); time.Sleep(10 * time.Millisecond) {
			if ctx.Err() != nil || !time.Now().Before(limit) {
				return errAway()
			}
		}
		return nil
	}
}

// TestAway_AgentStartsAgain_NoColdRequestIsRefused: that takes it some seconds, and is nobody's fault.
func TestAway_AgentStartsAgain_NoColdRequestIsRefused(t *testing.T) {
	for name, connects := range map[string]time.Duration{"it does not listen": time.Second, "it breaks calls off": 0} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b, away, attempts := newBox(), new(atomic.Bool), new(atomic.Int32)
				fn := function("f", gateway.Scaling{MaxCapacity: 3, Queue: 100, IdleTimeout: time.Second})
				m := mustOpen(t, b, pool.Options{}, fn)
				b.setStart(restarting(away, connects, attempts))
				away.Store(true)
				var waiting []<-chan result
				for i := range 40 { // ten a second
					if i == 37 {
						away.Store(false)
					}
					waiting = append(waiting, acquireLater(t.Context(), m, fn))
					time.Sleep(100 * time.Millisecond)
				}
				for i, w := range waiting {
					r := <-w
					require.NoError(t, r.err, "request %d", i)
					r.lease.Release()
				}
				assert.Less(t, attempts.Load(), int32(3*20), "it is not asked without a pause")
				assert.Zero(t, state(m, "f").Failures)
			})
		})
	}
}

// TestAway_AgentThatStaysAway_IsFoundOutOnce: whoever comes later is not kept waiting for nothing.
func TestAway_AgentThatStaysAway_IsFoundOutOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, away, attempts := newBox(), new(atomic.Bool), new(atomic.Int32)
		fn, other := function("f", gateway.Scaling{MaxCapacity: 3, Queue: 100}), function("other", gateway.Scaling{MaxCapacity: 3, Queue: 100})
		m := mustOpen(t, b, pool.Options{HeartbeatInterval: time.Hour}, fn, other)
		b.setStart(restarting(away, time.Second, attempts))
		refusedAfter := func(fn *gateway.Function) time.Duration {
			began := time.Now()
			_, err := m.Acquire(t.Context(), fn, "r")
			var known *gateway.Error
			require.ErrorAs(t, err, &known)
			assert.Equal(t, reason.AgentAway, known.Reason)
			return time.Since(began)
		}
		for range 2 { // it is away twice
			away.Store(true)
			assert.InDelta(t, 6, refusedAfter(fn).Seconds(), 1.5)
			assert.LessOrEqual(t, refusedAfter(fn), time.Second)
			assert.LessOrEqual(t, refusedAfter(other), time.Second, "nor those of another function")
			time.Sleep(time.Minute)
			assert.LessOrEqual(t, refusedAfter(fn), time.Second)
			away.Store(false)
			l := mustAcquire(t, m, fn)
			l.Condemn("test")
		}
	})
}

// TestAway_InTheMiddleOfAChange_TheOldConfigurationWaitsToo: going back to it needs the agent as well.
func TestAway_InTheMiddleOfAChange_TheOldConfigurationWaitsToo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, away, attempts := newBox(), new(atomic.Bool), new(atomic.Int32)
		fn := function("f", gateway.Scaling{MaxCapacity: 1, Queue: 100})
		m := mustOpen(t, b, pool.Options{}, fn)
		l := mustAcquire(t, m, fn)
		away.Store(true)
		b.setStart(restarting(away, time.Second, attempts))
		changed := function("f", gateway.Scaling{MaxCapacity: 1, Queue: 100})
		changed.Generation = "g2"
		apply(m, changed)
		l.Condemn("it died")
		waiting := acquireLater(t.Context(), m, changed)
		time.Sleep(4 * time.Second)
		away.Store(false)
		r := <-waiting
		require.NoError(t, r.err)
		r.lease.Release()
	})
}

// TestAway_FrozenWorkers_AreWaitedFor: it takes the agent to thaw them.
func TestAway_FrozenWorkers_AreWaitedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, fn := newBox(), freezing("f")
		m := mustOpen(t, b, pool.Options{Freezer: b}, fn)
		mustAcquire(t, m, fn).Release()
		time.Sleep(time.Second)
		require.Equal(t, 1, state(m, "f").Frozen)
		back := time.Now().Add(4 * time.Second)
		b.onThaw = func() error {
			if time.Now().Before(back) {
				return errAway()
			}
			return nil
		}
		mustAcquire(t, m, fn).Release()
		assert.InDelta(t, 0, time.Since(back).Seconds(), 0.3)
		starts, stops, _ := b.count()
		assert.Equal(t, []int{1, 0}, []int{starts, stops})
		_, thaws := b.isFrozen("f-1")
		assert.LessOrEqual(t, thaws, 25)
	})
}
