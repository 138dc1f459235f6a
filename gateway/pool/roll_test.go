package pool_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/edge-serverless-box/esb/gateway"
	"github.com/edge-serverless-box/esb/gateway/pool"
)

// load is as many clients without a pause as a pool of n workers with a queue may have, whose requests take 100 ms.
type load struct {
	answers, failures atomic.Int64
	stop              func()
}

func mustLoad(t *testing.T, m *pool.Manager, fn *gateway.Function, clients int) *load {
	l := &load{}
	var running sync.WaitGroup
	ended := make(chan struct{})
	l.stop = sync.OnceFunc(func() {
		close(ended)
		running.Wait()
	})
	t.Cleanup(l.stop)
	for range clients {
		running.Go(func() {
			for {
				select {
				case <-ended:
					return
				default:
				}
				lease, err := m.Acquire(context.Background(), fn, "r")
				if err != nil {
					l.failures.Add(1)
					t.Log(err)
					time.Sleep(time.Second)
					continue
				}
				time.Sleep(100 * time.Millisecond)
				lease.Release()
				l.answers.Add(1)
			}
		})
	}
	return l
}

// TestRoll_FullLoad_CapacityStays: at any moment there are as many workers as there were, or one fewer when max_capacity has no room
// for one more, and it comes to an end.
func TestRoll_FullLoad_CapacityStays(t *testing.T) {
	for _, c := range []struct{ max, warm, least int }{{2, 2, 1}, {4, 4, 3}, {5, 4, 4}, {20, 4, 4}} {
		for _, queue := range []int{0, 3} {
			t.Run(fmt.Sprintf("%d of %d, queue of %d", c.warm, c.max, queue), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					b := newBox()
					fn := function("f", gateway.Scaling{MaxCapacity: c.max, Queue: queue})
					m := mustOpen(t, b, pool.Options{Inits: inits{takes: 100 * time.Millisecond}}, fn)
					warm(t, m, fn, c.warm)
					clients := c.warm
					if c.max == c.warm {
						clients += queue
					}
					l := mustLoad(t, m, fn, clients)
					b.setStart(slow(500 * time.Millisecond))
					b.setStop(func(context.Context, string) error { time.Sleep(50 * time.Millisecond); return nil })
					time.Sleep(2 * time.Second)
					next := changed(fn, "g2")
					apply(m, next)
					began := time.Now()
					for state(m, "f").Outdated > 0 {
						s := state(m, "f")
						require.GreaterOrEqual(t, s.Idle+s.Busy, c.least, "after %s", time.Since(began))
						require.Less(t, time.Since(began), 20*time.Second)
						time.Sleep(10 * time.Millisecond)
					}
					t.Logf("%s", time.Since(began))
					time.Sleep(2 * time.Second)
					s := state(m, "f")
					assert.GreaterOrEqual(t, s.Idle+s.Busy, c.warm)
					l.stop()
					assert.Zero(t, l.failures.Load(), "of %d", l.answers.Load())
					peak, _ := b.peaks("f")
					assert.LessOrEqual(t, peak, c.max)
				})
			})
		}
	}
}

// TestRoll_LongIdleWorkers_AreNotReplaced: what nobody has needed lately costs no start.
func TestRoll_LongIdleWorkers_AreNotReplaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBox()
		fn := function("f", gateway.Scaling{MaxCapacity: 8, Queue: 10})
		m := mustOpen(t, b, pool.Options{}, fn)
		warm(t, m, fn, 5)
		time.Sleep(15 * time.Second)
		warm(t, m, fn, 2)
		next := changed(fn, "g2")
		apply(m, next)
		time.Sleep(time.Second)
		s := state(m, "f")
		assert.Equal(t, []int{2, 0}, []int{s.Idle, s.Outdated})
		starts, _, live := b.count()
		assert.Equal(t, []int{7, 2}, []int{starts, live})
	})
}

// TestRoll_NewOnesFailLater_OldOnesLeaveInTheEnd, since the first of the new ones has shown that it can serve.
func TestRoll_NewOnesFailLater_OldOnesLeaveInTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBox()
		fn := function("f", gateway.Scaling{MaxCapacity: 3, Queue: 10})
		m := mustOpen(t, b, pool.Options{}, fn)
		warm(t, m, fn, 3)
		var proved atomic.Bool
		b.setStart(func(context.Context, *gateway.Function, bool) error {
			if proved.Swap(true) {
				return errors.New("no memory left")
			}
			return nil
		})
		next := changed(fn, "g2")
		apply(m, next)
		time.Sleep(30 * time.Second)
		s := state(m, "f")
		assert.Equal(t, []int{2, 1}, []int{s.Idle, s.Outdated})
		for range 100 {
			assert.Equal(t, "g2", served(t, m, next), "the newest is preferred")
			time.Sleep(time.Second / 2)
		}
		s = state(m, "f")
		assert.Equal(t, []int{1, 0}, []int{s.Idle, s.Outdated})
	})
}

// TestRoll_NextChangeCannotStart_TheOldestLeaveAllTheSame: what was there before the last one that works does not stay for ever.
func TestRoll_NextChangeCannotStart_TheOldestLeaveAllTheSame(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBox()
		fn := function("f", gateway.Scaling{MaxCapacity: 3, Queue: 10})
		m := mustOpen(t, b, pool.Options{}, fn)
		warm(t, m, fn, 3)
		b.setStart(slow(time.Second))
		apply(m, changed(fn, "g2"))
		time.Sleep(1500 * time.Millisecond)
		b.setStart(func(context.Context, *gateway.Function, bool) error { return errors.New("image missing") })
		broken := changed(fn, "g3")
		apply(m, broken)
		for range 120 {
			assert.Equal(t, "g2", served(t, m, broken))
			time.Sleep(time.Second)
		}
		for _, old := range []string{"f-1", "f-2", "f-3"} {
			assert.Equal(t, "configuration changed", b.reason(old))
		}
	})
}

// TestRoll_StartOfTheOldOne_ServesNobody when it comes after the first of the new ones.
func TestRoll_StartOfTheOldOne_ServesNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBox()
		fn := function("f", gateway.Scaling{MaxCapacity: 5, Queue: 10})
		m := mustOpen(t, b, pool.Options{}, fn)
		warm(t, m, fn, 1)
		busy := mustAcquire(t, m, fn)
		b.setStart(slow(5 * time.Second))
		second := acquireLater(t.Context(), m, fn)
		synctest.Wait()
		b.setStart(slow(3 * time.Second))
		next := changed(fn, "g2")
		apply(m, next)
		r := <-second
		require.NoError(t, r.err)
		assert.Equal(t, "g2", r.lease.Worker().Generation)
		third := acquireLater(t.Context(), m, next)
		time.Sleep(2500 * time.Millisecond) // the old one is there
		assert.Equal(t, "configuration changed", b.reason("f-3"))
		r.lease.Release()
		if r = <-third; assert.NoError(t, r.err) {
			r.lease.Release()
		}
		busy.Release()
	})
}

// TestChange_NewOneFailsForGood_RequestThatWaitsForTheOldOneHasIt, however often the new one fails meanwhile, which is not often.
func TestChange_NewOneFailsForGood_RequestThatWaitsForTheOldOneHasIt(t *testing.T) {
	for _, permanent := range []bool{false, true} {
		t.Run(fmt.Sprint("permanent ", permanent), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBox()
				b.setStart(slow(10 * time.Second))
				fn := function("f", gateway.Scaling{MaxCapacity: 5, Queue: 10})
				m := mustOpen(t, b, pool.Options{}, fn)
				waiting := acquireLater(t.Context(), m, fn)
				synctest.Wait()
				b.setStart(func(context.Context, *gateway.Function, bool) error {
					err := gateway.Errorf(gateway.CodeUnavailable, "image missing")
					err.Permanent = permanent
					return err
				})
				next := changed(fn, "g2")
				apply(m, next)
				r := <-waiting
				require.NoError(t, r.err)
				assert.Equal(t, "g1", r.lease.Worker().Generation)
				starts, _, _ := b.count()
				assert.Less(t, starts, 10)
				assert.Contains(t, state(m, "f").Error, "image missing")
				r.lease.Release()
				assert.Equal(t, "g1", served(t, m, next))
			})
		})
	}
}
