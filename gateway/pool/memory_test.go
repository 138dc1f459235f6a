package pool_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/edge-serverless-box/esb/api/reason"
	"github.com/edge-serverless-box/esb/gateway"
	"github.com/edge-serverless-box/esb/gateway/pool"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// limitMemory gives a box memory for so many containers.
func limitMemory(b *box, containers int) {
	b.setStart(func(_ context.Context, fn *gateway.Function, _ bool) error {
		time.Sleep(100 * time.Millisecond)
		if _, _, live := b.count(); live >= containers {
			err := gateway.Errorf(gateway.CodeUnavailable, "no memory for another container")
			err.Reason = reason.NoMemory
			return err
		}
		return nil
	})
}

func TestManager_NoMemory_AnIdleWorkerOfAnotherFunctionMakesRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBox()
		limitMemory(b, 1)
		first, second := function("first", gateway.Scaling{MaxCapacity: 1}), function("second", gateway.Scaling{MaxCapacity: 1, Queue: 5})
		m := mustOpen(t, b, pool.Options{}, first, second)
		l := mustAcquire(t, m, first)
		l.Release()
		mustAcquire(t, m, second).Release()
		assert.Equal(t, "its memory is needed for function second", b.reason(l.Worker().ID))
		assert.Empty(t, state(m, "first").Workers)
	})
}

func TestManager_NoMemory_WhatIsWorthLeastGoesFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBox()
		kept := function("kept", gateway.Scaling{MaxCapacity: 1, MinCapacity: 1})
		old, fresh := function("old", gateway.Scaling{MaxCapacity: 1}), function("fresh", gateway.Scaling{MaxCapacity: 1})
		dear := function("dear", gateway.Scaling{MaxCapacity: 1})
		late := function("late", gateway.Scaling{MaxCapacity: 5, Queue: 5})
		b.setStart(func(ctx context.Context, fn *gateway.Function, standby bool) error {
			if fn.Name == "dear" {
				return slow(10*time.Second)(ctx, fn, standby)
			}
			return slow(100*time.Millisecond)(ctx, fn, standby)
		})
		m := mustOpen(t, b, pool.Options{}, kept, old, fresh, dear, late)
		mustAcquire(t, m, kept).Release()
		mustAcquire(t, m, dear).Release()
		mustAcquire(t, m, old).Release()
		time.Sleep(time.Minute)
		mustAcquire(t, m, fresh).Release()
		time.Sleep(10 * time.Second)
		limitMemory(b, 4)
		var order []string
		for range 4 {
			before := map[string]int{}
			for _, fn := range []*gateway.Function{kept, old, fresh, dear} {
				before[fn.Name] = state(m, fn.Name).Idle
			}
			mustAcquire(t, m, late)
			for name, n := range before {
				if n > state(m, name).Idle {
					order = append(order, name)
				}
			}
		}
		// fresh was idle for 100 of its starts, dear for 7 of its own.
		assert.Equal(t, []string{"old", "fresh", "dear", "kept"}, order)
	})
}

func TestManager_NoMemory_WorkersAtWorkStay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBox()
		limitMemory(b, 2)
		first := function("first", gateway.Scaling{MaxCapacity: 2, MinCapacity: 1})
		second := function("second", gateway.Scaling{MaxCapacity: 1, MinCapacity: 1, Queue: 5})
		m := mustOpen(t, b, pool.Options{}, first)
		busy, warm := mustAcquire(t, m, first), mustAcquire(t, m, first)
		apply(m, first, second)
		time.Sleep(time.Second)
		_, err := m.Acquire(t.Context(), second, "r")
		assert.Equal(t, gateway.CodeUnavailable, gateway.ErrorCode(err))
		var known *gateway.Error
		require.ErrorAs(t, err, &known)
		assert.Equal(t, reason.NoMemory, known.Reason)
		assert.True(t, known.NotTried, "no fault of the function: no circuit opens")
		assert.Equal(t, 2, state(m, "first").Busy)

		// One that only keeps warm gets what another has beyond its own min_capacity.
		warm.Release()
		time.Sleep(time.Minute)
		assert.Equal(t, 1, state(m, "second").Idle)
		busy.Release()
		b.change(busy.Worker().ID, func(*pool.Observed) {})
		apply(m, first, second, function("third", gateway.Scaling{MaxCapacity: 1, MinCapacity: 1}))
		time.Sleep(time.Minute)
		assert.Equal(t, 0, state(m, "third").Idle, "and never what keeps another warm")
		assert.Equal(t, 1, state(m, "first").Idle)
		assert.Equal(t, 1, state(m, "second").Idle)
	})
}

func TestManager_NoMemory_AWorkerThatDoesNotEndHurtsItsOwnFunctionAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBox()
		stuck, other := function("stuck", gateway.Scaling{MaxCapacity: 1}), function("other", gateway.Scaling{MaxCapacity: 1})
		needy := function("needy", gateway.Scaling{MaxCapacity: 1, Queue: 1})
		m := mustOpen(t, b, pool.Options{}, stuck, other, needy)
		l := mustAcquire(t, m, stuck)
		l.Release()
		b.setStop(func(ctx context.Context, id string) error {
			if id != l.Worker().ID {
				return nil
			}
			<-ctx.Done()
			return ctx.Err()
		})
		time.Sleep(time.Minute) // it is the one that is worth least
		mustAcquire(t, m, other).Release()
		limitMemory(b, 2)
		began := time.Now()
		mustAcquire(t, m, needy).Release()
		assert.Less(t, time.Since(began), 10*time.Second)
		assert.Equal(t, 1, state(m, "stuck").Stopping)
	})
}

func TestManager_NoMemory_WhatWasGivenUpIsNotTakenBackMeanwhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBox()
		kept := function("kept", gateway.Scaling{MaxCapacity: 2, MinCapacity: 1, Queue: 1})
		needy := function("needy", gateway.Scaling{MaxCapacity: 1, Queue: 1})
		m := mustOpen(t, b, pool.Options{}, kept, needy)
		synctest.Wait()
		require.Equal(t, 1, state(m, "kept").Idle)
		limitMemory(b, 1)
		b.setStop(func(ctx context.Context, _ string) error { return slow(time.Second)(ctx, nil, false) })
		l := mustAcquire(t, m, needy)
		assert.Equal(t, []string{"kept", "needy", "needy"}, b.starts, "its min_capacity waits")
		limitMemory(b, 2)
		mustAcquire(t, m, kept).Release()
		l.Release()
	})
}
