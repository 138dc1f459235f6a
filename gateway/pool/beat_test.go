package pool_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/edge-serverless-box/esb/gateway"
	"github.com/edge-serverless-box/esb/gateway/pool"
)

const still = "stands still: it gives no sign of life"

func TestBeat_BusyWorkerStandsStill_ItsInvocationEndsAndItIsReplaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBox()
		fn := function("f", gateway.Scaling{MinCapacity: 1, MaxCapacity: 1, Queue: 5})
		fn.Timeout = 15 * time.Minute
		m := mustOpen(t, b, pool.Options{HeartbeatInterval: time.Hour, Examiner: b}, fn)
		l := mustAcquire(t, m, fn)
		link := newClosed()
		l.Attach(link)
		time.Sleep(time.Minute)
		assert.Equal(t, 1, state(m, "f").Busy, "it answers")
		b.stop(l.Worker().ID)
		began := time.Now()
		<-link.c
		assert.LessOrEqual(t, time.Since(began), 16*time.Second)
		assert.Greater(t, time.Since(began), 10*time.Second)
		l.Condemn("the connection broke")
		time.Sleep(time.Second)
		assert.Equal(t, still, b.reason(l.Worker().ID))
		assert.Equal(t, 1, state(m, "f").Idle, "min_capacity is restored")
	})
}

// TestBeat_WhatAnswersIsLeft, and costs little.
func TestBeat_WhatAnswersIsLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBox()
		fn := function("f", gateway.Scaling{MinCapacity: 2, MaxCapacity: 2, Queue: 5})
		m := mustOpen(t, b, pool.Options{HeartbeatInterval: time.Hour, Examiner: b}, fn)
		l := mustAcquire(t, m, fn)
		id := l.Worker().ID
		b.setCondition(id, pool.ConditionBusy)
		time.Sleep(time.Hour)
		assert.Equal(t, []int{1, 1}, []int{state(m, "f").Busy, state(m, "f").Idle})
		assert.Less(t, b.questions(), 1200+60+10)
		b.setCondition(id, pool.ConditionIdle)
		l.Release()

		// A machine that is slow to answer, and one that this gateway cannot ask, is not one that stands still.
		for range 100 {
			run := b.stop(id)
			l := mustAcquire(t, m, fn)
			time.Sleep(9 * time.Second)
			run()
			time.Sleep(time.Second)
			l.Release()
		}
		b.mu.Lock()
		b.examine = func(string) error { return errors.New("no descriptor left") }
		b.mu.Unlock()
		l = mustAcquire(t, m, fn)
		time.Sleep(time.Hour)
		l.Release()
		time.Sleep(time.Hour)
		l = mustAcquire(t, m, fn)
		l.Release()
		_, stops, live := b.count()
		assert.Equal(t, []int{0, 2}, []int{stops, live})
	})
}

func TestBeat_IdleWorkerStandsStill_IsReplacedUnasked(t *testing.T) {
	for name, c := range map[string]gateway.Scaling{"warm": {MinCapacity: 1, MaxCapacity: 1}, "standby": {Standby: 1, MaxCapacity: 1}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBox()
				fn := function("f", c)
				m := mustOpen(t, b, pool.Options{HeartbeatInterval: time.Hour, Examiner: b}, fn)
				time.Sleep(time.Second)
				b.stop("f-1")
				time.Sleep(80 * time.Second)
				assert.Equal(t, still, b.reason("f-1"))
				assert.Equal(t, 1, state(m, "f").Idle+state(m, "f").Standby)
			})
		})
	}
}

func TestBeat_UnfitIdleWorker_IsReplaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBox()
		fn := function("f", gateway.Scaling{MinCapacity: 1, MaxCapacity: 2, Queue: 5})
		m := mustOpen(t, b, pool.Options{HeartbeatInterval: time.Hour, Examiner: b}, fn)
		time.Sleep(time.Second)
		b.setCondition("f-1", pool.ConditionUnfit)
		time.Sleep(15 * time.Second)
		l := mustAcquire(t, m, fn)
		assert.Equal(t, "f-2", l.Worker().ID)
		l.Release()
		b.setCondition("f-2", pool.ConditionUnfit)
		time.Sleep(90 * time.Second)
		assert.Equal(t, "not fit to serve", b.reason("f-2"))
		assert.Equal(t, 1, state(m, "f").Idle)
	})
}

// TestBeat_IdleWorkerStandsStill_NoRequestMeetsIt, whether it goes on later or never does, and whether there is another one or not.
func TestBeat_IdleWorkerStandsStill_NoRequestMeetsIt(t *testing.T) {
	for name, c := range map[string]struct {
		max, queue int
		resumes    time.Duration
		within     time.Duration
		worker     string
	}{
		"another one":                 {max: 2, queue: 5, within: 1100 * time.Millisecond, worker: "f-2"},
		"another one, and goes on":    {max: 2, queue: 5, resumes: 3 * time.Second, within: 1100 * time.Millisecond, worker: "f-2"},
		"the only one, never goes on": {max: 1, within: 12 * time.Second, worker: "f-2"},
		"the only one, and goes on":   {max: 1, resumes: 3 * time.Second, within: 3 * time.Second, worker: "f-1"},
		"slow":                        {max: 2, resumes: 900 * time.Millisecond, within: 900 * time.Millisecond, worker: "f-1"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBox()
				fn := function("f", gateway.Scaling{MaxCapacity: c.max, Queue: c.queue})
				m := mustOpen(t, b, pool.Options{HeartbeatInterval: time.Hour, Examiner: b}, fn)
				warm(t, m, fn, 1)
				time.Sleep(20 * time.Second)
				run := b.stop("f-1")
				if c.resumes > 0 {
					time.AfterFunc(c.resumes, run)
				}
				began := time.Now()
				l := mustAcquire(t, m, fn)
				assert.LessOrEqual(t, time.Since(began), c.within)
				assert.Equal(t, c.worker, l.Worker().ID)
				l.Release()
				time.Sleep(20 * time.Second)
				s := state(m, "f")
				assert.Equal(t, []int{0, 0}, []int{s.Busy, s.Waiting})
				if c.resumes == 0 {
					assert.Equal(t, still, b.reason("f-1"))
				} else {
					assert.Empty(t, b.reason("f-1"))
				}
			})
		})
	}
}

// TestBeat_RequestLeavesWhileItsWorkerIsAsked: neither the worker nor its slot is lost.
func TestBeat_RequestLeavesWhileItsWorkerIsAsked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBox()
		fn := function("f", gateway.Scaling{MaxCapacity: 1, Queue: 5})
		m := mustOpen(t, b, pool.Options{HeartbeatInterval: time.Hour, Examiner: b}, fn)
		warm(t, m, fn, 1)
		time.Sleep(20 * time.Second)
		run := b.stop("f-1")
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		defer cancel()
		_, err := m.Acquire(ctx, fn, "r")
		assert.Equal(t, gateway.CodeIntegrationTimeout, gateway.ErrorCode(err))
		next := acquireLater(t.Context(), m, fn)
		time.Sleep(5 * time.Second)
		run()
		r := <-next
		require.NoError(t, r.err)
		assert.Equal(t, "f-1", r.lease.Worker().ID)
		r.lease.Release()
	})
}

// TestBeat_FrozenByThePool_IsNotAsked: it stands still because it is to.
func TestBeat_FrozenByThePool_IsNotAsked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBox()
		fn := function("f", gateway.Scaling{MinCapacity: 1, MaxCapacity: 1, Queue: 5})
		fn.Freeze = true
		m := mustOpen(t, b, pool.Options{HeartbeatInterval: time.Hour, Examiner: b, Freezer: b}, fn)
		warm(t, m, fn, 1)
		time.Sleep(time.Second)
		run := b.stop("f-1")
		time.Sleep(time.Hour)
		assert.Zero(t, b.questions())
		assert.Equal(t, 1, state(m, "f").Frozen)
		run()
		l := mustAcquire(t, m, fn)
		assert.Equal(t, "f-1", l.Worker().ID)
		l.Release()
	})
}

// TestBeat_FrozenWhileItIsAsked_DoesNotCount.
func TestBeat_FrozenWhileItIsAsked_DoesNotCount(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBox()
		fn := function("f", gateway.Scaling{MinCapacity: 1, MaxCapacity: 1, Queue: 5})
		fn.Freeze = true
		m := mustOpen(t, b, pool.Options{HeartbeatInterval: time.Hour, Examiner: b, Freezer: b}, fn)
		var refuse sync.Map
		refuse.Store("working", pool.ErrWorking)
		b.mu.Lock()
		b.onFreeze = func(context.Context, string) error {
			if err, ok := refuse.Load("working"); ok {
				return err.(error)
			}
			return nil
		}
		b.mu.Unlock()
		warm(t, m, fn, 1)
		time.Sleep(58 * time.Second)
		b.stop("f-1")
		time.Sleep(4 * time.Second) // it is asked
		require.Positive(t, b.questions())
		refuse.Delete("working")
		time.Sleep(time.Minute)
		assert.Equal(t, 1, state(m, "f").Frozen)
		assert.Empty(t, b.reason("f-1"))
	})
}

func TestBeat_RIE_IsNotAsked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBox()
		fn := function("f", gateway.Scaling{MinCapacity: 1, MaxCapacity: 1, Queue: 5})
		fn.Interface = gateway.RIE
		m := mustOpen(t, b, pool.Options{HeartbeatInterval: time.Hour, Examiner: b}, fn)
		l := mustAcquire(t, m, fn)
		time.Sleep(time.Minute)
		l.Release()
		time.Sleep(time.Hour)
		l = mustAcquire(t, m, fn)
		l.Release()
		assert.Zero(t, b.questions())
	})
}

// TestBeat_AdoptedWorkerStandsStill_IsReplaced long before an invocation that it might be in the middle of had to be over.
func TestBeat_AdoptedWorkerStandsStill_IsReplaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBox()
		fn := function("f", gateway.Scaling{MaxCapacity: 1, Queue: 5})
		fn.Timeout = 15 * time.Minute
		first := mustOpen(t, b, owned(b), fn)
		warm(t, first, fn, 1)
		gone(t, first)
		b.stop("f-1")
		second := mustOpen(t, b, owned(b), fn)
		began := time.Now()
		l := mustAcquire(t, second, fn)
		assert.Less(t, time.Since(began), 15*time.Second)
		assert.Equal(t, "f-2", l.Worker().ID)
		l.Release()
	})
}

// TestBeat_CloseWhileAWorkerIsDoubted: it is left to the next one, or ended, as any other.
func TestBeat_CloseWhileAWorkerIsDoubted(t *testing.T) {
	for _, owner := range []string{"", "me"} {
		t.Run("owner "+owner, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBox()
				b.owner = owner
				fn := function("f", gateway.Scaling{MaxCapacity: 1, Queue: 5})
				m := mustOpen(t, b, pool.Options{Examiner: b, Owner: owner}, fn)
				warm(t, m, fn, 1)
				time.Sleep(20 * time.Second)
				b.stop("f-1")
				waiting := acquireLater(t.Context(), m, fn)
				time.Sleep(3 * time.Second)
				began := time.Now()
				require.NoError(t, m.Close(t.Context()))
				assert.Less(t, time.Since(began), 5*time.Second)
				assert.Error(t, (<-waiting).err)
				_, _, live := b.count()
				if owner == "" {
					assert.Zero(t, live)
				} else {
					assert.Equal(t, 1, live)
				}
			})
		})
	}
}
