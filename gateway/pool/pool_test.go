package pool_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/edge-serverless-box/esb/api/reason"
	"github.com/edge-serverless-box/esb/gateway"
	"github.com/edge-serverless-box/esb/gateway/pool"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// Every test runs in a bubble with a clock of its own: a second costs nothing, and a goroutine
// that outlives Close fails the test.

func mustAcquire(t *testing.T, m *pool.Manager, fn *gateway.Function) *pool.Lease {
	t.Helper()
	l, err := m.Acquire(t.Context(), fn, "r")
	require.NoError(t, err)
	return l
}

type result struct {
	lease *pool.Lease
	err   error
	at    time.Time
}

// acquireLater acquires in a goroutine, and returns when that waits or has its answer.
func acquireLater(ctx context.Context, m *pool.Manager, fn *gateway.Function) chan result {
	ch := make(chan result, 1)
	go func() {
		l, err := m.Acquire(ctx, fn, "r")
		ch <- result{l, err, time.Now()}
	}()
	synctest.Wait()
	return ch
}

func state(m *pool.Manager, name string) pool.State {
	for _, s := range m.Snapshot() {
		if s.Function == name {
			return s
		}
	}
	return pool.State{}
}

func slow(d time.Duration) func(context.Context, *gateway.Function, bool) error {
	return func(ctx context.Context, _ *gateway.Function, _ bool) error {
		select {
		case <-time.After(d):
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func TestPool_Acquire_TakesTheMostRecentlyUsedWorker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fn := function("f", gateway.Scaling{MaxCapacity: 3})
		m := mustOpen(t, newBox(), pool.Options{}, fn)
		a, b := mustAcquire(t, m, fn), mustAcquire(t, m, fn)
		assert.True(t, a.Cold())
		b.Release()
		a.Release()
		again := mustAcquire(t, m, fn)
		assert.Equal(t, a.Worker().ID, again.Worker().ID)
		assert.False(t, again.Cold())
		again.Release()
	})
}

func TestPool_Burst_NeverMoreThanMaxCapacityAndAllServed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBox()
		b.setStart(slow(time.Second))
		fn := function("f", gateway.Scaling{MaxCapacity: 3, Queue: 100, Standby: 1})
		m := mustOpen(t, b, pool.Options{}, fn)
		var waiting []chan result
		for range 20 {
			waiting = append(waiting, acquireLater(t.Context(), m, fn))
		}
		done := make(chan error, len(waiting))
		for _, ch := range waiting {
			go func() {
				r := <-ch
				if r.err == nil {
					time.Sleep(100 * time.Millisecond)
					r.lease.Release()
				}
				done <- r.err
			}()
		}
		for range waiting {
			require.NoError(t, <-done)
		}
		peak, _ := b.peaks("f")
		assert.Equal(t, 3, peak)
	})
}

func TestPool_Queue_IsServedInOrderWhoeverLeaves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fn := function("f", gateway.Scaling{MaxCapacity: 1, Queue: 100, AcquireTimeout: time.Hour})
		m := mustOpen(t, newBox(), pool.Options{}, fn)
		lease := mustAcquire(t, m, fn)

		served := make(chan int, 50)
		cancels := make([]context.CancelFunc, 50)
		for i := range cancels {
			ctx, cancel := context.WithCancel(t.Context())
			cancels[i] = cancel
			ch := acquireLater(ctx, m, fn)
			go func() {
				if r := <-ch; r.err == nil {
					served <- i
					time.Sleep(time.Second)
					r.lease.Release()
				}
			}()
		}
		assert.Equal(t, 50, state(m, "f").Waiting)
		gone := rand.Perm(50)[:20]
		for _, i := range gone {
			cancels[i]()
		}
		synctest.Wait()
		assert.Equal(t, 30, state(m, "f").Waiting)

		lease.Release()
		last := -1
		for range 30 {
			i := <-served
			assert.Greater(t, i, last)
			assert.NotContains(t, gone, i)
			last = i
		}
		time.Sleep(2 * time.Second)
		assert.Equal(t, 1, state(m, "f").Idle)
		for _, cancel := range cancels {
			cancel()
		}
	})
}

func TestPool_WaiterLeaves_FreesItsPlace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fn := function("f", gateway.Scaling{MaxCapacity: 1, Queue: 1})
		m := mustOpen(t, newBox(), pool.Options{}, fn)
		lease := mustAcquire(t, m, fn)
		ctx, cancel := context.WithCancel(t.Context())
		first := acquireLater(ctx, m, fn)
		_, err := m.Acquire(t.Context(), fn, "r")
		require.Equal(t, gateway.CodeThrottled, gateway.ErrorCode(err), "the queue holds one")

		cancel()
		assert.Equal(t, gateway.CodeCanceled, gateway.ErrorCode((<-first).err))
		second := acquireLater(t.Context(), m, fn)
		lease.Release()
		r := <-second
		require.NoError(t, r.err)
		r.lease.Release()
	})
}

func TestPool_Acquire_Refusals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBox()
		b.setStart(slow(time.Hour))
		none := function("none", gateway.Scaling{MaxCapacity: 0})
		late := function("late", gateway.Scaling{MaxCapacity: 1, Queue: 1, AcquireTimeout: 10 * time.Second})
		m := mustOpen(t, b, pool.Options{}, none, late)

		_, err := m.Acquire(t.Context(), none, "r")
		assert.Equal(t, gateway.CodeThrottled, gateway.ErrorCode(err))

		began := time.Now()
		_, err = m.Acquire(t.Context(), late, "r")
		assert.Equal(t, gateway.CodeUnavailable, gateway.ErrorCode(err))
		assert.Equal(t, 10*time.Second, time.Since(began))
		var e *gateway.Error
		require.ErrorAs(t, err, &e)
		assert.Positive(t, e.RetryAfter)
		var start *pool.StartError
		assert.NotErrorAs(t, err, &start, "a full box is no failure of a start")

		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err = m.Acquire(ctx, late, "r")
		assert.Equal(t, gateway.CodeIntegrationTimeout, gateway.ErrorCode(err))

		_, err = m.Acquire(t.Context(), function("stranger", gateway.Scaling{MaxCapacity: 1}), "r")
		assert.Equal(t, gateway.CodeUnavailable, gateway.ErrorCode(err))
		b.setStart(nil)
	})
}

func TestPool_WaiterLeaves_ItsStartServesAnother(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBox()
		b.setStart(slow(10 * time.Second))
		fn := function("f", gateway.Scaling{MaxCapacity: 5, Queue: 5})
		m := mustOpen(t, b, pool.Options{}, fn)
		ctx, cancel := context.WithCancel(t.Context())
		first := acquireLater(ctx, m, fn)
		cancel()
		require.Error(t, (<-first).err)

		time.Sleep(5 * time.Second)
		l := mustAcquire(t, m, fn)
		starts, _, _ := b.count()
		assert.Equal(t, 1, starts)
		assert.True(t, l.Cold())
		l.Release()
	})
}

func TestPool_WaiterLeavesAsItIsServed_TheWorkerIsNotLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fn := function("f", gateway.Scaling{MaxCapacity: 1, Queue: 5})
		m := mustOpen(t, newBox(), pool.Options{}, fn)
		for range 200 {
			lease := mustAcquire(t, m, fn)
			ctx, cancel := context.WithCancel(t.Context())
			waiting := acquireLater(ctx, m, fn)
			next := acquireLater(t.Context(), m, fn)
			cancel()
			lease.Release() // mostly before the waiter, awake already, has left the queue
			require.Error(t, (<-waiting).err)
			r := <-next
			require.NoError(t, r.err)
			r.lease.Release()
		}
	})
}

func TestPool_StartThatNobodyWaitsForAnyMore_IsNotBegun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBox()
		b.setStart(slow(10 * time.Second))
		first, second := function("a", gateway.Scaling{MaxCapacity: 1, Queue: 5}), function("b", gateway.Scaling{MaxCapacity: 1, Queue: 5})
		m := mustOpen(t, b, pool.Options{MaxConcurrentStarts: 1}, first, second)
		waiting := acquireLater(t.Context(), m, first)
		ctx, cancel := context.WithCancel(t.Context())
		gone := acquireLater(ctx, m, second)
		cancel()
		require.Error(t, (<-gone).err)
		(<-waiting).lease.Release()
		time.Sleep(time.Minute)
		assert.False(t, b.started("b"))
		assert.Zero(t, state(m, "b").Starting, "its slot is free")
		mustAcquire(t, m, second).Release()
	})
}

func TestPool_ReturnedWorker_ServesTheWaiterBeforeTheNewOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBox()
		fn := function("f", gateway.Scaling{MaxCapacity: 2, Queue: 5})
		m := mustOpen(t, b, pool.Options{}, fn)
		l := mustAcquire(t, m, fn)
		b.setStart(slow(10 * time.Second))
		waiting := acquireLater(t.Context(), m, fn)
		l.Release()
		r := <-waiting
		assert.Equal(t, l.Worker().ID, r.lease.Worker().ID)
		r.lease.Release()
		time.Sleep(11 * time.Second)
		assert.Equal(t, 2, state(m, "f").Idle, "the new one becomes idle")
	})
}

func TestPool_StartFailures(t *testing.T) {
	transient := gateway.Errorf(gateway.CodeUnavailable, "agent down")
	permanent := gateway.Errorf(gateway.CodeUnavailable, "image missing")
	permanent.Permanent = true

	t.Run("permanent: all waiters are answered at once, with the next start still running", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			b := newBox()
			n := 0
			b.setStart(func(ctx context.Context, fn *gateway.Function, standby bool) error {
				if n++; n == 1 {
					time.Sleep(time.Second)
					return permanent
				}
				return slow(time.Hour)(ctx, fn, standby)
			})
			fn := function("f", gateway.Scaling{MaxCapacity: 2, Queue: 10})
			m := mustOpen(t, b, pool.Options{MaxConcurrentStarts: 1}, fn)
			began := time.Now()
			var waiting []chan result
			for range 5 {
				waiting = append(waiting, acquireLater(t.Context(), m, fn))
			}
			for _, ch := range waiting {
				r := <-ch
				var e *gateway.Error
				require.ErrorAs(t, r.err, &e)
				assert.True(t, e.Permanent)
				assert.Equal(t, gateway.CodeUnavailable, e.Code)
				var start *pool.StartError
				require.ErrorAs(t, r.err, &start)
				assert.Equal(t, time.Second, r.at.Sub(began))
			}
		})
	})

	t.Run("transient: answered when nothing is left to hope for, and the next request tries at once", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			b := newBox()
			b.setStart(func(context.Context, *gateway.Function, bool) error { return transient })
			fn := function("f", gateway.Scaling{MaxCapacity: 1, Queue: 10})
			m := mustOpen(t, b, pool.Options{}, fn)
			began := time.Now()
			_, err := m.Acquire(t.Context(), fn, "r")
			require.ErrorIs(t, err, transient)
			_, err = m.Acquire(t.Context(), fn, "r")
			require.ErrorIs(t, err, transient)
			b.setStart(nil)
			mustAcquire(t, m, fn).Release()
			assert.Equal(t, began, time.Now(), "no request waited for a pause")
		})
	})

	t.Run("a waiter that a busy worker can serve waits on, and the start is tried again after a pause", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			b := newBox()
			fn := function("f", gateway.Scaling{MaxCapacity: 3, Queue: 10})
			m := mustOpen(t, b, pool.Options{}, fn)
			l := mustAcquire(t, m, fn)
			failures := 2
			b.setStart(func(context.Context, *gateway.Function, bool) error {
				if failures--; failures >= 0 {
					return permanent
				}
				return nil
			})
			began := time.Now()
			first := acquireLater(t.Context(), m, fn)
			r := <-first
			require.NoError(t, r.err)
			assert.NotEqual(t, l.Worker().ID, r.lease.Worker().ID)
			assert.Greater(t, time.Since(began), 500*time.Millisecond)
			assert.Less(t, time.Since(began), 2*time.Second)
			l.Release()
			r.lease.Release()
		})
	})

	t.Run("min_capacity is tried again with growing pauses", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			b := newBox()
			b.setStart(func(context.Context, *gateway.Function, bool) error { return transient })
			m := mustOpen(t, b, pool.Options{}, function("f", gateway.Scaling{MinCapacity: 1, MaxCapacity: 1}))
			time.Sleep(10 * time.Minute)
			starts, _, _ := b.count()
			assert.Greater(t, starts, 15)
			assert.Less(t, starts, 40)
			b.setStart(nil)
			time.Sleep(time.Minute)
			assert.Equal(t, 1, state(m, "f").Idle)
		})
	})

	t.Run("min_capacity is there soon after the agent is back, however long it was away", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			b := newBox()
			away := gateway.Errorf(gateway.CodeUnavailable, "agent away")
			away.Reason = reason.AgentAway
			b.setStart(func(context.Context, *gateway.Function, bool) error { return away })
			m := mustOpen(t, b, pool.Options{}, function("f", gateway.Scaling{MinCapacity: 1, MaxCapacity: 1}))
			time.Sleep(10 * time.Minute)
			b.setStart(nil)
			time.Sleep(4 * time.Second)
			assert.Equal(t, 1, state(m, "f").Idle)
		})
	})
}

func TestPool_MinCapacity_IsKeptWarm(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBox()
		fn := function("f", gateway.Scaling{MinCapacity: 2, MaxCapacity: 4, Queue: 4, IdleTimeout: 5 * time.Second})
		m := mustOpen(t, b, pool.Options{HeartbeatInterval: time.Hour}, fn)
		synctest.Wait()
		require.Equal(t, 2, state(m, "f").Idle)

		l := mustAcquire(t, m, fn)
		assert.False(t, l.Worker().Standby, "the function process runs")
		l.Condemn("test")
		synctest.Wait()
		assert.Equal(t, 2, state(m, "f").Idle, "refilled")

		leases := []*pool.Lease{mustAcquire(t, m, fn), mustAcquire(t, m, fn), mustAcquire(t, m, fn)}
		for _, l := range leases {
			l.Release()
		}
		time.Sleep(time.Minute)
		assert.Equal(t, 2, state(m, "f").Idle, "pruned down to min_capacity")
		_, _, live := b.count()
		assert.Equal(t, 2, live)
	})
}

func TestPool_Standby_IsUsedFirstReplenishedAndNotPruned(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBox()
		fn := function("f", gateway.Scaling{MaxCapacity: 2, Queue: 4, Standby: 1, IdleTimeout: 5 * time.Second})
		m := mustOpen(t, b, pool.Options{}, fn)
		time.Sleep(time.Hour)
		require.Equal(t, 1, state(m, "f").Standby)
		b.setStart(slow(time.Second))

		began := time.Now()
		l := mustAcquire(t, m, fn)
		assert.Equal(t, began, time.Now(), "no start was waited for")
		assert.True(t, l.Cold())
		assert.True(t, l.Worker().Standby)
		time.Sleep(2 * time.Second)
		assert.Equal(t, 1, state(m, "f").Standby, "replenished")
		second := mustAcquire(t, m, fn)
		time.Sleep(2 * time.Second)
		assert.Zero(t, state(m, "f").Standby, "max_capacity leaves no room")
		peak, _ := b.peaks("f")
		assert.Equal(t, 2, peak)

		l.Release()
		second.Release()
		warm := mustAcquire(t, m, fn)
		assert.False(t, warm.Worker().Standby)
		warm.Release()
		time.Sleep(20 * time.Second)
		s := state(m, "f")
		assert.Equal(t, []int{0, 1}, []int{s.Idle, s.Standby})
	})
}

func TestPool_Standby_GivesWayToMinCapacity(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fn := function("f", gateway.Scaling{MaxCapacity: 1, Standby: 1})
		m := mustOpen(t, newBox(), pool.Options{}, fn)
		synctest.Wait()
		raised := *fn
		raised.Scaling.MinCapacity = 1
		apply(m, &raised)
		synctest.Wait()
		s := state(m, "f")
		assert.Equal(t, []int{1, 0}, []int{s.Idle, s.Standby})
	})
}

func TestPool_IdleTimeout_EndsTheWorkerSoonAfter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBox()
		fn := function("f", gateway.Scaling{MaxCapacity: 2, IdleTimeout: 5 * time.Second})
		m := mustOpen(t, b, pool.Options{HeartbeatInterval: time.Hour}, fn)
		x, y := mustAcquire(t, m, fn), mustAcquire(t, m, fn)
		x.Release()
		time.Sleep(3 * time.Second)
		y.Release()
		time.Sleep(2*time.Second + time.Millisecond)
		_, stops, live := b.count()
		assert.Equal(t, []int{1, 1}, []int{stops, live})
		assert.Equal(t, "idle", b.reason(x.Worker().ID))
		time.Sleep(3 * time.Second)
		_, _, live = b.count()
		assert.Zero(t, live)
		mustAcquire(t, m, fn).Release()
	})
}

func TestPool_Condemn_HoldsTheSlotUntilTheContainerIsGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBox()
		failures := 3
		b.setStop(func(context.Context, string) error {
			time.Sleep(time.Second)
			if failures--; failures >= 0 {
				return errors.New("busy")
			}
			return nil
		})
		fn := function("f", gateway.Scaling{MaxCapacity: 1, Queue: 1})
		m := mustOpen(t, b, pool.Options{}, fn)
		l := mustAcquire(t, m, fn)
		l.Condemn("test")
		l.Release() // counts for nothing
		began := time.Now()
		next := mustAcquire(t, m, fn)
		assert.NotEqual(t, l.Worker().ID, next.Worker().ID)
		assert.Greater(t, time.Since(began), 4*time.Second, "three failed destructions and one that worked")
		peak, _ := b.peaks("f")
		assert.Equal(t, 1, peak)
		next.Release()
	})
}

func TestPool_Apply_DrainsOldGenerations(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBox()
		fn := function("f", gateway.Scaling{MaxCapacity: 3, Queue: 5})
		m := mustOpen(t, b, pool.Options{}, fn)
		busy, idle := mustAcquire(t, m, fn), mustAcquire(t, m, fn)
		idle.Release()
		mustAcquire(t, m, fn).Release()
		b.setStart(slow(time.Minute))
		third := mustAcquire(t, m, fn)
		waiting := acquireLater(t.Context(), m, fn) // its start is of the old generation

		next := *fn
		next.Generation = "g2"
		b.setStart(slow(time.Second))
		apply(m, &next)
		third.Release()
		r := <-waiting
		require.NoError(t, r.err)
		assert.Equal(t, "g1", r.lease.Worker().Generation, "the new one is not ready yet")
		time.Sleep(2 * time.Minute)
		assert.Equal(t, 1, state(m, "f").Idle, "that of the new configuration")
		assert.Empty(t, b.reason(busy.Worker().ID), "its request is not over")
		busy.Release()
		r.lease.Release()
		time.Sleep(2 * time.Minute)
		assert.Equal(t, "configuration changed", b.reason(busy.Worker().ID))
		old := mustAcquire(t, m, fn) // a request that still holds the old configuration
		assert.Equal(t, "g2", old.Worker().Generation)
		old.Release()
		peak, _ := b.peaks("f")
		assert.LessOrEqual(t, peak, 3)
	})
}

func TestPool_ImagePushedAgain_ReplacesWorkersOfTheOldOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBox()
		fn := function("f", gateway.Scaling{MaxCapacity: 4, Queue: 5})
		m := mustOpen(t, b, pool.Options{}, fn)
		b.pushImage("old")
		busy, idle := mustAcquire(t, m, fn), mustAcquire(t, m, fn)
		spare := mustAcquire(t, m, fn)
		spare.Release()
		time.Sleep(time.Second)

		b.pushImage("new")
		again := mustAcquire(t, m, fn) // nothing has been started yet
		assert.Equal(t, spare.Worker().ID, again.Worker().ID)
		fresh := mustAcquire(t, m, fn)
		again.Release()
		idle.Release()
		synctest.Wait()
		assert.Equal(t, "configuration changed", b.reason(idle.Worker().ID))
		assert.Empty(t, b.reason(busy.Worker().ID), "its request is not over")
		busy.Release()
		fresh.Release()
		time.Sleep(time.Second)
		assert.Equal(t, "configuration changed", b.reason(busy.Worker().ID))
		assert.Empty(t, b.reason(fresh.Worker().ID))
		s := state(m, "f")
		assert.Equal(t, []int{3, 0}, []int{s.Idle, s.Outdated}, "as many as were in use")
	})
}

func TestPool_Apply_ScalingAloneKeepsWorkers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBox()
		fn := function("f", gateway.Scaling{MaxCapacity: 3, Queue: 5})
		m := mustOpen(t, b, pool.Options{}, fn)
		x, y, z := mustAcquire(t, m, fn), mustAcquire(t, m, fn), mustAcquire(t, m, fn)
		x.Release()
		smaller := *fn
		smaller.Scaling.MaxCapacity = 1
		apply(m, &smaller)
		synctest.Wait()
		assert.Equal(t, "over max_capacity", b.reason(x.Worker().ID))
		b.setStop(func(context.Context, string) error { time.Sleep(time.Minute); return nil })
		y.Release()
		synctest.Wait()
		assert.Equal(t, []int{0, 1}, []int{state(m, "f").Idle, state(m, "f").Stopping}, "one too many, even while it is being destroyed")
		z.Release()
		time.Sleep(2 * time.Minute)
		assert.Equal(t, 1, state(m, "f").Idle)
		assert.Empty(t, b.reason(z.Worker().ID))
	})
}

// TestPool_Apply_RemovedFunction_ServesWhoWaits with what it has, and refuses who comes later, and who waits for nothing.
func TestPool_Apply_RemovedFunction_ServesWhoWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBox()
		fn := function("f", gateway.Scaling{MaxCapacity: 1, Queue: 5})
		m := mustOpen(t, b, pool.Options{}, fn)
		busy := mustAcquire(t, m, fn)
		first, second := acquireLater(t.Context(), m, fn), acquireLater(t.Context(), m, fn)
		apply(m)
		_, err := m.Acquire(t.Context(), fn, "late")
		assert.Equal(t, gateway.CodeUnavailable, gateway.ErrorCode(err))
		busy.Release()
		for _, waiting := range []chan result{first, second} {
			r := <-waiting
			require.NoError(t, r.err)
			r.lease.Release()
		}
		time.Sleep(time.Minute)
		_, _, live := b.count()
		assert.Zero(t, live)
		assert.Empty(t, m.Snapshot(), "forgotten")
		apply(m, fn)
		mustAcquire(t, m, fn).Release()
	})
}

func TestPool_Apply_RemovedFunction_RefusesWhoWaitsForNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBox()
		fn := function("f", gateway.Scaling{MaxCapacity: 1, Queue: 5})
		m := mustOpen(t, b, pool.Options{}, fn)
		busy := mustAcquire(t, m, fn)
		waiting := acquireLater(t.Context(), m, fn)
		apply(m)
		busy.Condemn("broken")
		assert.Equal(t, gateway.CodeUnavailable, gateway.ErrorCode((<-waiting).err))

		b.setStart(slow(time.Second))
		apply(m, fn)
		begun := acquireLater(t.Context(), m, fn)
		time.Sleep(500 * time.Millisecond)
		apply(m)
		r := <-begun
		require.NoError(t, r.err, "its start was on its way")
		r.lease.Release()
		time.Sleep(time.Minute)
		assert.Empty(t, m.Snapshot())
	})
}

func TestJanitor_DestroysOrphansAfterTheirGrace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBox()
		b.containers["left"] = pool.Observed{ID: "left", Function: "f", CreatedAt: time.Now().Add(-time.Hour)}
		b.containers["young"] = pool.Observed{ID: "young", Function: "other", CreatedAt: time.Now().Add(-time.Second)}
		m := mustOpen(t, b, pool.Options{HeartbeatInterval: 30 * time.Second, OrphanGrace: time.Minute}, function("f", gateway.Scaling{MaxCapacity: 1}))
		synctest.Wait()
		assert.Equal(t, "orphan", b.reason("left"))
		assert.Empty(t, b.reason("young"))
		time.Sleep(91 * time.Second)
		assert.Equal(t, "orphan", b.reason("young"))
		assert.Zero(t, state(m, "f").Stopping)
	})
}

func TestJanitor_LeavesTheContainerOfARunningStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBox()
		fn := function("f", gateway.Scaling{MaxCapacity: 1, Queue: 1, AcquireTimeout: time.Hour})
		b.setStart(func(ctx context.Context, fn *gateway.Function, standby bool) error {
			b.change("", func(o *pool.Observed) { *o = pool.Observed{ID: "made", Function: "f", CreatedAt: time.Now()} })
			return slow(10*time.Minute+15*time.Second)(ctx, fn, standby)
		})
		m := mustOpen(t, b, pool.Options{}, fn)
		mustAcquire(t, m, fn).Release()
		assert.Empty(t, b.reason("made"), "it was the start's until that ended")
	})
}

func TestJanitor_TakesLostWorkersOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBox()
		fn := function("f", gateway.Scaling{MaxCapacity: 4, Queue: 5})
		m := mustOpen(t, b, pool.Options{HeartbeatInterval: 30 * time.Second}, fn)
		vanished, stopped, healthy, busy := mustAcquire(t, m, fn), mustAcquire(t, m, fn), mustAcquire(t, m, fn), mustAcquire(t, m, fn)
		for _, l := range []*pool.Lease{vanished, stopped, healthy} {
			l.Release()
		}
		b.change(vanished.Worker().ID, nil)
		b.change(busy.Worker().ID, nil)
		b.change(stopped.Worker().ID, func(o *pool.Observed) { o.Stopped = true })
		b.setListError(errors.New("agent down"))
		time.Sleep(40 * time.Second)
		assert.Equal(t, 3, state(m, "f").Idle, "a list that failed proves nothing")

		b.setListError(nil)
		time.Sleep(30 * time.Second)
		s := state(m, "f")
		require.Equal(t, []int{1, 1}, []int{s.Idle, s.Busy})
		assert.Equal(t, "container stopped by itself", b.reason(stopped.Worker().ID))
		busy.Release()
		synctest.Wait()
		s = state(m, "f")
		require.Equal(t, []int{1, 0}, []int{s.Idle, s.Busy}, "what vanished does not come back")
		assert.Equal(t, healthy.Worker().ID, s.Workers[0].ID)
	})
}

func TestManager_Starts_AreBoundedAndRequestsGoFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBox()
		b.setStart(slow(500 * time.Millisecond))
		var fns []*gateway.Function
		for _, name := range []string{"a", "b", "c", "d", "e", "f", "g", "h"} {
			fns = append(fns, function(name, gateway.Scaling{MaxCapacity: 2, Queue: 5, Standby: 1}))
		}
		m := mustOpen(t, b, pool.Options{MaxConcurrentStarts: 2}, fns...)
		synctest.Wait()
		queued := slices.IndexFunc(fns, func(fn *gateway.Function) bool { return !b.started(fn.Name) })
		began := time.Now()
		mustAcquire(t, m, fns[queued]).Release()
		assert.Equal(t, 500*time.Millisecond, time.Since(began), "a start for standby ran ahead once a request needed it")
		time.Sleep(time.Minute)
		_, peak := b.peaks("")
		assert.Equal(t, 2, peak)
		for _, fn := range fns {
			s := state(m, fn.Name)
			assert.Equal(t, 1, s.Standby, fn.Name)
		}
	})
}

type closer struct{ closed int }

func (c *closer) Close() error { c.closed++; return nil }

func TestLease_Attachment_StaysWithTheWorkerAndIsClosedWithIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fn := function("f", gateway.Scaling{MaxCapacity: 1})
		m := mustOpen(t, newBox(), pool.Options{}, fn)
		l := mustAcquire(t, m, fn)
		require.Nil(t, l.Attachment())
		c := &closer{}
		l.Attach(c)
		l.Release()
		l = mustAcquire(t, m, fn)
		assert.Same(t, c, l.Attachment())
		assert.Zero(t, c.closed)
		l.Condemn("test")
		synctest.Wait()
		assert.Equal(t, 1, c.closed)
	})
}

func TestManager_Close_WaitsForRequestsAndLeavesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBox()
		fn := function("f", gateway.Scaling{MaxCapacity: 2, Queue: 5, AcquireTimeout: time.Hour})
		m := mustOpen(t, b, pool.Options{}, fn)
		busy := mustAcquire(t, m, fn)
		b.setStart(slow(time.Hour))
		waiting := acquireLater(t.Context(), m, fn)
		go func() {
			time.Sleep(5 * time.Second)
			busy.Release()
		}()
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		began := time.Now()
		require.NoError(t, m.Close(ctx))
		assert.Equal(t, 5*time.Second, time.Since(began))
		assert.Equal(t, gateway.CodeUnavailable, gateway.ErrorCode((<-waiting).err))
		_, _, live := b.count()
		assert.Zero(t, live)
		_, err := m.Acquire(t.Context(), fn, "r")
		assert.Equal(t, gateway.CodeUnavailable, gateway.ErrorCode(err))
		require.NoError(t, m.Close(ctx))
	})
}

func TestManager_Close_EvictsRequestsThatDoNotEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBox()
		fn := function("f", gateway.Scaling{MaxCapacity: 2})
		m := mustOpen(t, b, pool.Options{}, fn)
		stuck := mustAcquire(t, m, fn)
		c := &closer{}
		stuck.Attach(c)
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		require.NoError(t, m.Close(ctx))
		_, _, live := b.count()
		assert.Zero(t, live)
		assert.Equal(t, 1, c.closed, "its connection is closed, which ends the request")
		stuck.Condemn("transport")
	})
}

func TestManager_Close_DoesNotWaitForAnAgentThatHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBox()
		b.setStop(func(ctx context.Context, _ string) error {
			<-ctx.Done()
			return ctx.Err()
		})
		fn := function("f", gateway.Scaling{MaxCapacity: 20})
		m := mustOpen(t, b, pool.Options{MaxConcurrentStarts: 2}, fn)
		for range 20 {
			mustAcquire(t, m, fn) // a request that never ends
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		began := time.Now()
		require.ErrorContains(t, m.Close(ctx), "20 containers")
		assert.LessOrEqual(t, time.Since(began), time.Minute)
	})
}

func TestManager_Close_SaysWhatIsLeftOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBox()
		b.setStop(func(context.Context, string) error { return errors.New("agent down") })
		fn := function("f", gateway.Scaling{MaxCapacity: 2})
		m := mustOpen(t, b, pool.Options{}, fn)
		mustAcquire(t, m, fn).Release()
		assert.ErrorContains(t, m.Close(t.Context()), "1 containers")
	})
}

func TestPool_AcquireTimeout_SaysWhetherAllWorkersAreAtWork(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBox()
		fn := function("f", gateway.Scaling{MaxCapacity: 1, Queue: 1, AcquireTimeout: time.Second})
		slowOne := function("slow", gateway.Scaling{MaxCapacity: 1, Queue: 1, AcquireTimeout: time.Second})
		m := mustOpen(t, b, pool.Options{}, fn, slowOne)
		lease := mustAcquire(t, m, fn)
		var e *gateway.Error
		require.ErrorAs(t, (<-acquireLater(t.Context(), m, fn)).err, &e)
		assert.Equal(t, gateway.CodeUnavailable, e.Code)
		assert.True(t, e.Busy)
		lease.Release()

		b.setStart(slow(time.Minute))
		require.ErrorAs(t, (<-acquireLater(t.Context(), m, slowOne)).err, &e)
		assert.Equal(t, gateway.CodeUnavailable, e.Code)
		assert.False(t, e.Busy)
	})
}
