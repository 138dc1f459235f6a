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

// changed is fn in another generation.
func changed(fn *gateway.Function, generation string) *gateway.Function {
	next := *fn
	next.Generation = generation
	return &next
}

// warm makes n idle workers of fn.
func warm(t *testing.T, m *pool.Manager, fn *gateway.Function, n int) {
	t.Helper()
	var leases []*pool.Lease
	for range n {
		leases = append(leases, mustAcquire(t, m, fn))
	}
	for _, l := range leases {
		l.Release()
	}
}

// served is the generation that serves a request now.
func served(t *testing.T, m *pool.Manager, fn *gateway.Function) string {
	t.Helper()
	l := mustAcquire(t, m, fn)
	defer l.Release()
	return l.Worker().Generation
}

// inits is an Inits whose workers of a generation fail, after a while.
type inits struct {
	takes time.Duration
	bad   string
}

func (i inits) AwaitInit(ctx context.Context, w gateway.Worker) error {
	select {
	case <-time.After(i.takes):
	case <-ctx.Done():
		return ctx.Err()
	}
	if w.Generation == i.bad {
		return errors.New("init has failed")
	}
	return nil
}

func TestChange_OldWorkersServeUntilTheFirstNewOneIsReady(t *testing.T) {
	for _, c := range []struct {
		name            string
		max, min, warm  int
		oldOnesMeantime int
	}{
		{"there is room", 10, 0, 3, 3},
		{"room for one", 4, 0, 3, 3},
		{"none: one is given up", 3, 0, 3, 2},
		{"min_capacity", 10, 2, 2, 2},
		{"min_capacity, no room", 2, 2, 2, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBox()
				fn := function("f", gateway.Scaling{MaxCapacity: c.max, MinCapacity: c.min, Queue: 10})
				m := mustOpen(t, b, pool.Options{Inits: inits{takes: time.Second}}, fn)
				synctest.Wait()
				warm(t, m, fn, c.warm)
				b.setStart(slow(time.Second))
				next := changed(fn, "g2")
				apply(m, next)
				time.Sleep(1900 * time.Millisecond)
				s := state(m, "f")
				assert.Equal(t, []int{c.oldOnesMeantime, c.oldOnesMeantime}, []int{s.Idle, s.Outdated})
				began := time.Now()
				assert.Equal(t, "g1", served(t, m, next))
				assert.Equal(t, began, time.Now(), "it waits for nothing")

				time.Sleep(time.Second)
				s = state(m, "f")
				assert.GreaterOrEqual(t, s.Idle, c.oldOnesMeantime)
				began = time.Now()
				assert.Equal(t, "g2", served(t, m, next))
				assert.Equal(t, began, time.Now(), "nor does it now")
				time.Sleep(10 * time.Second)
				s = state(m, "f")
				assert.Equal(t, []int{c.warm, 0}, []int{s.Idle, s.Outdated})
				peak, _ := b.peaks("f")
				assert.LessOrEqual(t, peak, c.max)
			})
		})
	}
}

// TestChange_NewWorkersCannotStart_OldOnesServeOn, for longer than they would be kept for having nothing to do.
func TestChange_NewWorkersCannotStart_OldOnesServeOn(t *testing.T) {
	bad := func(ctx context.Context, fn *gateway.Function, standby bool) error {
		if err := slow(100*time.Millisecond)(ctx, fn, standby); err != nil || fn.Generation != "g2" {
			return err
		}
		err := gateway.Errorf(gateway.CodeUnavailable, "image missing")
		err.Permanent = true
		return err
	}
	for _, c := range []struct {
		name  string
		start startHook
		inits inits
		says  string
	}{
		{"image missing", bad, inits{}, "image missing"},
		{"init fails", nil, inits{bad: "g2", takes: 100 * time.Millisecond}, "init has failed"},
	} {
		for _, maxCapacity := range []int{2, 5} {
			t.Run(fmt.Sprintf("%s, max_capacity %d", c.name, maxCapacity), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					b := newBox()
					b.setStart(c.start)
					fn := function("f", gateway.Scaling{MaxCapacity: maxCapacity, Queue: 10, IdleTimeout: time.Minute})
					m := mustOpen(t, b, pool.Options{Inits: c.inits}, fn)
					warm(t, m, fn, 2)
					next := changed(fn, "g2")
					apply(m, next)
					for range 100 {
						assert.Equal(t, "g1", served(t, m, next))
						time.Sleep(time.Second)
					}
					time.Sleep(time.Hour)
					s := state(m, "f")
					assert.Equal(t, 1, s.Outdated)
					assert.Positive(t, s.Failures)
					assert.Contains(t, s.Error, "the configuration before the present one still serves: ")
					assert.Contains(t, s.Error, c.says)

					// Two at once, of which one has to wait.
					first := mustAcquire(t, m, next)
					second := acquireLater(t.Context(), m, next)
					time.Sleep(time.Second)
					first.Release()
					r := <-second
					require.NoError(t, r.err)
					assert.Equal(t, "g1", r.lease.Worker().Generation)
					r.lease.Release()

					good := changed(fn, "g3")
					apply(m, good)
					time.Sleep(10 * time.Second)
					assert.Equal(t, "g3", served(t, m, good))
					s = state(m, "f")
					assert.Zero(t, s.Outdated+s.Failures)
					assert.Empty(t, s.Error)
					peak, _ := b.peaks("f")
					assert.LessOrEqual(t, peak, maxCapacity)
				})
			})
		}
	}
}

// TestChange_OneSlot_TheGapIsWaitedOut: there is no other way within max_capacity.
func TestChange_OneSlot_TheGapIsWaitedOut(t *testing.T) {
	for _, busy := range []bool{false, true} {
		t.Run(fmt.Sprint("busy ", busy), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBox()
				fn := function("f", gateway.Scaling{MaxCapacity: 1, Queue: 10})
				m := mustOpen(t, b, pool.Options{Inits: inits{takes: time.Second}}, fn)
				l := mustAcquire(t, m, fn)
				if !busy {
					l.Release()
				}
				b.setStart(slow(time.Second))
				b.setStop(func(context.Context, string) error { time.Sleep(100 * time.Millisecond); return nil })
				next := changed(fn, "g2")
				apply(m, next)
				waiting := acquireLater(t.Context(), m, next)
				began := time.Now()
				if busy {
					time.Sleep(5 * time.Second)
					began = time.Now()
					l.Release()
				}
				r := <-waiting
				require.NoError(t, r.err)
				assert.Equal(t, "g2", r.lease.Worker().Generation)
				assert.Equal(t, 2100*time.Millisecond, time.Since(began), "an end, a start and its init")
				r.lease.Release()
				peak, _ := b.peaks("f")
				assert.Equal(t, 1, peak)
			})
		})
	}
}

// TestChange_OneSlotAndNoRequest_StaysWarm: whoever comes next does not wait for a cold start.
func TestChange_OneSlotAndNoRequest_StaysWarm(t *testing.T) {
	for _, standby := range []int{0, 1} {
		t.Run(fmt.Sprint("standby ", standby), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBox()
				fn := function("f", gateway.Scaling{MaxCapacity: 1, Queue: 10, Standby: standby})
				m := mustOpen(t, b, pool.Options{}, fn)
				time.Sleep(time.Second)
				if standby == 0 {
					warm(t, m, fn, 1)
				}
				b.setStart(slow(time.Second))
				next := changed(fn, "g2")
				apply(m, next)
				time.Sleep(5 * time.Second)
				began := time.Now()
				assert.Equal(t, "g2", served(t, m, next))
				assert.Equal(t, began, time.Now())
			})
		})
	}
}

func TestChange_ColdFunction_StartsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBox()
		fn := function("f", gateway.Scaling{MaxCapacity: 5, Queue: 10, IdleTimeout: time.Minute})
		m := mustOpen(t, b, pool.Options{}, fn)
		apply(m, changed(fn, "g2"))
		time.Sleep(time.Hour)
		starts, _, _ := b.count()
		assert.Zero(t, starts)
		warm(t, m, fn, 1)
		time.Sleep(time.Hour)
		apply(m, changed(fn, "g3"))
		time.Sleep(time.Hour)
		starts, _, live := b.count()
		assert.Equal(t, []int{1, 0}, []int{starts, live})
	})
}

func TestChange_TakenBack_KeepsTheWorkers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBox()
		fn := function("f", gateway.Scaling{MaxCapacity: 3, Queue: 10})
		m := mustOpen(t, b, pool.Options{}, fn)
		warm(t, m, fn, 3)
		b.setStart(slow(time.Second))
		apply(m, changed(fn, "g2"))
		time.Sleep(500 * time.Millisecond)
		apply(m, fn)
		time.Sleep(10 * time.Second)
		s := state(m, "f")
		assert.Equal(t, []int{3, 0}, []int{s.Idle, s.Outdated}, "the one of g2 has not come, and that which made room for it is replaced")
		for range 5 {
			assert.Equal(t, "g1", served(t, m, fn))
		}
	})
}

// TestChange_StartOfTheOldOneIsOnItsWay: it serves when it is the first to be ready, and not when the new one was.
func TestChange_StartOfTheOldOneIsOnItsWay(t *testing.T) {
	for old, want := range map[time.Duration][]string{2 * time.Second: {"g1", "g2"}, 10 * time.Second: {"g2", "g2"}} {
		t.Run(fmt.Sprint("old one takes ", old), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBox()
				b.setStart(slow(old))
				fn := function("f", gateway.Scaling{MaxCapacity: 5, Queue: 10})
				m := mustOpen(t, b, pool.Options{}, fn)
				waiting := acquireLater(t.Context(), m, fn)
				b.setStart(slow(4 * time.Second))
				next := changed(fn, "g2")
				apply(m, next)
				r := <-waiting
				require.NoError(t, r.err)
				assert.Equal(t, want[0], r.lease.Worker().Generation)
				r.lease.Release()
				time.Sleep(15 * time.Second)
				s := state(m, "f")
				assert.Equal(t, []int{1, 0}, []int{s.Idle, s.Outdated})
				assert.Equal(t, want[1], served(t, m, next))
			})
		})
	}
}

// TestChange_OldStartHangs_ItsSlotIsNotWaitedForTooLong: an image that cannot be fetched must not keep the one that mends it out.
func TestChange_OldStartHangs_ItsSlotIsNotWaitedForTooLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBox()
		fn := function("f", gateway.Scaling{MaxCapacity: 2, Queue: 10})
		m := mustOpen(t, b, pool.Options{}, fn)
		warm(t, m, fn, 1)
		b.setStart(slow(5 * time.Minute))
		apply(m, changed(fn, "g2"))
		time.Sleep(time.Second)
		b.setStart(slow(time.Second))
		mended := changed(fn, "g3")
		apply(m, mended)
		time.Sleep(29 * time.Second)
		assert.Equal(t, "g1", served(t, m, mended))
		time.Sleep(3 * time.Second)
		assert.Equal(t, "g3", served(t, m, mended))
		peak, _ := b.peaks("f")
		assert.Equal(t, 2, peak)
	})
}

// TestChange_RemovedFunction_ServesNoMore: what is taken away is taken away now.
func TestChange_RemovedFunction_ServesNoMore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBox()
		fn := function("f", gateway.Scaling{MaxCapacity: 3, Queue: 10})
		m := mustOpen(t, b, pool.Options{}, fn)
		warm(t, m, fn, 2)
		busy := mustAcquire(t, m, fn)
		apply(m)
		synctest.Wait()
		_, _, live := b.count()
		assert.Equal(t, 1, live)
		next := changed(fn, "g2")
		apply(m, next)
		busy.Release()
		assert.Equal(t, "g2", served(t, m, next))
		synctest.Wait()
		assert.Equal(t, "configuration changed", b.reason(busy.Worker().ID))
	})
}

// TestChange_RemovedAndAddedAgain_IsNew: also when it comes back with the generation that it was removed with, whose worker could
// not be started then.
func TestChange_RemovedAndAddedAgain_IsNew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBox()
		fn := function("f", gateway.Scaling{MaxCapacity: 3, Queue: 10})
		m := mustOpen(t, b, pool.Options{}, fn)
		warm(t, m, fn, 1)
		busy := mustAcquire(t, m, fn)
		b.setStart(func(context.Context, *gateway.Function, bool) error { return errors.New("no such image") })
		next := changed(fn, "g2")
		apply(m, next)
		time.Sleep(time.Second)
		apply(m)
		apply(m, next)
		b.setStart(nil)
		busy.Release()
		assert.Equal(t, "g2", served(t, m, next))
		time.Sleep(time.Second)
		assert.Zero(t, state(m, "f").Outdated)
		assert.Equal(t, "configuration changed", b.reason(busy.Worker().ID))
	})
}

// TestChange_EachSecond_NoRequestFails, with starts that take less than the time between two changes, and more.
func TestChange_EachSecond_NoRequestFails(t *testing.T) {
	for _, maxCapacity := range []int{1, 2, 4, 20} {
		for _, takes := range []time.Duration{200 * time.Millisecond, 2500 * time.Millisecond} {
			t.Run(fmt.Sprintf("max_capacity %d, starts of %s", maxCapacity, takes), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					b := newBox()
					b.setStart(slow(takes))
					b.setStop(func(context.Context, string) error { time.Sleep(50 * time.Millisecond); return nil })
					fn := function("f", gateway.Scaling{MaxCapacity: maxCapacity, Queue: 10})
					m := mustOpen(t, b, pool.Options{MaxConcurrentStarts: 4, Inits: inits{takes: 100 * time.Millisecond}}, fn)
					var answers, failures atomic.Int64
					var clients sync.WaitGroup
					stop := make(chan struct{})
					for range 8 {
						clients.Go(func() {
							for {
								select {
								case <-stop:
									return
								case <-time.After(20 * time.Millisecond):
								}
								l, err := m.Acquire(context.Background(), fn, "r")
								if err != nil {
									failures.Add(1)
									t.Log(err)
									continue
								}
								time.Sleep(30 * time.Millisecond)
								l.Release()
								answers.Add(1)
							}
						})
					}
					time.Sleep(5 * time.Second)
					before := answers.Load()
					for i := range 30 {
						apply(m, changed(fn, fmt.Sprint("g", i+2)))
						time.Sleep(time.Second)
					}
					during := answers.Load() - before
					time.Sleep(10 * time.Second)
					assert.Equal(t, "g31", served(t, m, fn))
					close(stop)
					clients.Wait()
					peak, _ := b.peaks("f")
					assert.LessOrEqual(t, peak, maxCapacity)
					assert.Zero(t, failures.Load())
					t.Logf("%d answers in 30 s", during)
					assert.Greater(t, during, int64(300))
				})
			})
		}
	}
}

// TestChange_AContainerThatCannotBeDestroyed_IsNoReasonToWait: its slot is taken, and the change goes on in those that are left.
func TestChange_AContainerThatCannotBeDestroyed_IsNoReasonToWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBox()
		fn := function("f", gateway.Scaling{MaxCapacity: 2})
		m := mustOpen(t, b, pool.Options{}, fn)
		undying, other := mustAcquire(t, m, fn), mustAcquire(t, m, fn)
		b.setStop(func(_ context.Context, id string) error {
			if id == undying.Worker().ID {
				return errors.New("it does not end")
			}
			return nil
		})
		undying.Condemn("test")
		other.Release()
		time.Sleep(3 * time.Minute)
		require.Equal(t, "g1", served(t, m, fn))
		next := changed(fn, "g2")
		apply(m, next)
		time.Sleep(time.Minute)
		assert.Equal(t, "g2", served(t, m, next))
		b.setStop(nil)
		time.Sleep(time.Minute)
		s := state(m, "f")
		assert.Zero(t, s.Stopping)
		assert.Empty(t, s.Error)
	})
}

// TestChange_StandbyThatIsQueuedMeanwhile_ShowsThatTheFunctionCanServe, or it would be lent with nothing known of it.
func TestChange_StandbyThatIsQueuedMeanwhile_ShowsThatTheFunctionCanServe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBox()
		fn, other := function("f", gateway.Scaling{MaxCapacity: 3}), function("other", gateway.Scaling{MaxCapacity: 1})
		m := mustOpen(t, b, pool.Options{MaxConcurrentStarts: 1, Inits: inits{bad: "g2"}}, fn, other)
		warm(t, m, fn, 1)
		time.Sleep(time.Second) // standby keeps out of the way of that one
		b.setStart(slow(900 * time.Millisecond))
		taken := acquireLater(t.Context(), m, other)
		fn = changed(fn, "g1")
		fn.Scaling.Standby = 1
		apply(m, fn, other)
		synctest.Wait()
		require.Equal(t, 1, state(m, "f").Starting, "the one for standby waits for its turn")
		next := changed(fn, "g2")
		apply(m, next, other)
		require.NoError(t, (<-taken).err)
		time.Sleep(10 * time.Second)
		s := state(m, "f")
		assert.Equal(t, []int{0, 1}, []int{s.Standby, s.Outdated})
		assert.Equal(t, "g1", served(t, m, next))
	})
}
