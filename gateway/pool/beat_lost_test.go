package pool_test

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/edge-serverless-box/esb/gateway"
	"github.com/edge-serverless-box/esb/gateway/pool"
)

// TestBeat_WorkerEndsWhileARequestAsksIt_IsReplacedAtOnce, whether its address refuses or is silent: that it has ended is known.
func TestBeat_WorkerEndsWhileARequestAsksIt_IsReplacedAtOnce(t *testing.T) {
	for _, refuses := range []bool{false, true} {
		t.Run(fmt.Sprint("refuses ", refuses), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b, e := newBox(), &exits{told: make(chan string)}
				fn := function("f", gateway.Scaling{MaxCapacity: 1, Queue: 5})
				m := mustOpen(t, b, pool.Options{HeartbeatInterval: time.Hour, Watcher: e, Examiner: b}, fn)
				warm(t, m, fn, 1)
				time.Sleep(20 * time.Second)
				run := b.stop("f-1")
				if refuses {
					b.mu.Lock()
					b.examine = func(string) error { return errors.New("connection refused") }
					b.mu.Unlock()
					time.AfterFunc(200*time.Millisecond, run)
				}
				began := time.Now()
				next := acquireLater(t.Context(), m, fn)
				time.Sleep(100 * time.Millisecond)
				e.told <- "f-1"
				r := <-next
				require.NoError(t, r.err)
				assert.Equal(t, "f-2", r.lease.Worker().ID)
				assert.Less(t, time.Since(began), 2*time.Second)
				assert.Equal(t, "container ended by itself", b.reason("f-1"))
				r.lease.Release()
			})
		})
	}
}

// TestBeat_WorkerEndsBeforeItsConnectionIsAttached_NobodyWaitsForIt: whoever attaches one then finds it closed.
func TestBeat_WorkerEndsBeforeItsConnectionIsAttached_NobodyWaitsForIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, e := newBox(), &exits{told: make(chan string)}
		fn := function("f", gateway.Scaling{MaxCapacity: 1, Queue: 5})
		m := mustOpen(t, b, pool.Options{HeartbeatInterval: time.Hour, Watcher: e}, fn)
		l := mustAcquire(t, m, fn)
		e.told <- "f-1"
		time.Sleep(5 * time.Second)
		link := newClosed()
		l.Attach(link)
		select {
		case <-link.c:
		default:
			t.Error("it is open")
		}
		l.Condemn("not reached")
	})
}

// freezeAsks has Freeze ask the worker first.
func (b *box) freezeAsks() {
	b.onFreeze = func(ctx context.Context, id string) error {
		b.mu.Lock()
		stands := b.stands[id]
		b.mu.Unlock()
		if stands == nil {
			return nil
		}
		select {
		case <-stands:
			return nil
		case <-ctx.Done():
			return fmt.Errorf("asking worker: %w: %w", pool.ErrNoAnswer, ctx.Err())
		}
	}
}

// TestBeat_StandsStillBeforeItIsFrozen_IsReplaced: it cannot be frozen either, since it does not say that it has nothing to do.
func TestBeat_StandsStillBeforeItIsFrozen_IsReplaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBox()
		fn := function("f", gateway.Scaling{MinCapacity: 1, MaxCapacity: 1, Queue: 5})
		fn.Freeze = true
		b.freezeAsks()
		m := mustOpen(t, b, pool.Options{HeartbeatInterval: time.Hour, Examiner: b, Freezer: b}, fn)
		l := mustAcquire(t, m, fn)
		b.stop(l.Worker().ID)
		l.Release()
		time.Sleep(20 * time.Second)
		assert.Equal(t, still, b.reason("f-1"))
		assert.Equal(t, 1, state(m, "f").Idle, "min_capacity is restored")
		time.Sleep(time.Second)
		assert.Equal(t, 1, state(m, "f").Frozen)

		// One that is only slow is frozen once it answers.
		l = mustAcquire(t, m, fn)
		run := b.stop(l.Worker().ID)
		l.Release()
		time.Sleep(8 * time.Second)
		run()
		time.Sleep(20 * time.Second)
		assert.Equal(t, 1, state(m, "f").Frozen)
		assert.Empty(t, b.reason("f-2"))
	})
}

// TestBeat_StandsStillWhileItIsToBeFrozen_NoRequestMeetsIt.
func TestBeat_StandsStillWhileItIsToBeFrozen_NoRequestMeetsIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBox()
		fn := function("f", gateway.Scaling{MaxCapacity: 2, Queue: 5})
		fn.Freeze = true
		b.freezeAsks()
		m := mustOpen(t, b, pool.Options{HeartbeatInterval: time.Hour, Examiner: b, Freezer: b}, fn)
		l := mustAcquire(t, m, fn)
		b.stop("f-1")
		l.Release()
		time.Sleep(time.Second)
		l = mustAcquire(t, m, fn)
		assert.Equal(t, "f-2", l.Worker().ID)
		l.Release()
		time.Sleep(20 * time.Second)
		assert.Equal(t, still, b.reason("f-1"))
		s := state(m, "f")
		assert.Equal(t, []int{1, 1, 0}, []int{s.Idle, s.Frozen, s.Busy})
	})
}

// unasked is a box whose workers cannot be asked while it says so: no descriptor is left, for example.
type unasked struct {
	*box
	fails atomic.Bool
}

func (u *unasked) Examine(ctx context.Context, w gateway.Worker) (pool.Condition, error) {
	if u.fails.Load() {
		return 0, errors.New("too many open files")
	}
	return u.box.Examine(ctx, w)
}

// TestBeat_DoubtedWorkerThatCannotBeAsked_NoRequestMeetsIt: that it cannot be asked is no sign of life of one that stands still.
func TestBeat_DoubtedWorkerThatCannotBeAsked_NoRequestMeetsIt(t *testing.T) {
	for _, goesOn := range []bool{false, true} {
		t.Run(fmt.Sprint("goes on ", goesOn), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				u := &unasked{box: newBox()}
				fn := function("f", gateway.Scaling{MaxCapacity: 3, Queue: 5})
				m := mustOpen(t, u.box, pool.Options{HeartbeatInterval: time.Hour, Examiner: u}, fn)
				warm(t, m, fn, 1)
				time.Sleep(20 * time.Second)
				run := u.stop("f-1")
				time.AfterFunc(950*time.Millisecond, func() { u.fails.Store(true) }) // the request's question has been put
				first := mustAcquire(t, m, fn)
				assert.Equal(t, "f-2", first.Worker().ID)
				time.Sleep(2 * time.Second)
				second := mustAcquire(t, m, fn)
				assert.Equal(t, "f-3", second.Worker().ID)
				time.Sleep(3 * time.Second)
				u.fails.Store(false)
				if goesOn {
					run()
					time.Sleep(2 * time.Second)
					assert.Equal(t, 1, state(m, "f").Idle, "it is lent again")
					assert.Empty(t, u.reason("f-1"))
				} else {
					time.Sleep(20 * time.Second)
					assert.Equal(t, still, u.reason("f-1"))
				}
				first.Release()
				second.Release()
			})
		})
	}
}

// TestBeat_DoubtedWorkerThatCanNeverBeAsked_IsNotHeldForEver: nothing is known of it, and nobody else may be there.
func TestBeat_DoubtedWorkerThatCanNeverBeAsked_IsNotHeldForEver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u := &unasked{box: newBox()}
		fn := function("f", gateway.Scaling{MaxCapacity: 1, Queue: 5})
		m := mustOpen(t, u.box, pool.Options{HeartbeatInterval: time.Hour, Examiner: u}, fn)
		warm(t, m, fn, 1)
		time.Sleep(20 * time.Second)
		u.stop("f-1")
		time.AfterFunc(950*time.Millisecond, func() { u.fails.Store(true) })
		l := mustAcquire(t, m, fn)
		assert.Equal(t, "f-1", l.Worker().ID)
		l.Release()
	})
}

// TestBeat_DoubtedWorkerThatCouldNotBeAsked_IsAskedBeforeItIsLent: that it is held no longer is no sign of life.
func TestBeat_DoubtedWorkerThatCouldNotBeAsked_IsAskedBeforeItIsLent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u := &unasked{box: newBox()}
		fn := function("f", gateway.Scaling{MaxCapacity: 2, Queue: 5})
		m := mustOpen(t, u.box, pool.Options{HeartbeatInterval: time.Hour, Examiner: u}, fn)
		warm(t, m, fn, 1)
		time.Sleep(20 * time.Second)
		u.stop("f-1")
		time.AfterFunc(950*time.Millisecond, func() { u.fails.Store(true) })
		l := mustAcquire(t, m, fn)
		require.Equal(t, "f-2", l.Worker().ID)
		for state(m, "f").Idle == 0 {
			time.Sleep(100 * time.Millisecond)
		}
		u.fails.Store(false)
		next := mustAcquire(t, m, fn)
		assert.NotEqual(t, "f-1", next.Worker().ID, "it still stands still")
		l.Release()
		next.Release()
		time.Sleep(20 * time.Second)
		assert.Equal(t, still, u.reason("f-1"))
	})
}

// TestBeat_IdleWorkerThatCouldNotBeAsked_IsAskedBeforeItIsLent, also when that was a moment ago.
func TestBeat_IdleWorkerThatCouldNotBeAsked_IsAskedBeforeItIsLent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u := &unasked{box: newBox()}
		fn := function("f", gateway.Scaling{MaxCapacity: 2, Queue: 5})
		m := mustOpen(t, u.box, pool.Options{HeartbeatInterval: time.Hour, Examiner: u}, fn)
		warm(t, m, fn, 1)
		u.fails.Store(true)
		u.stop("f-1")
		time.Sleep(65 * time.Second) // it was to be asked after a minute
		u.fails.Store(false)
		l := mustAcquire(t, m, fn)
		assert.Equal(t, "f-2", l.Worker().ID)
		l.Release()
	})
}
