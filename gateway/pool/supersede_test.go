package pool_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/edge-serverless-box/esb/gateway"
	"github.com/edge-serverless-box/esb/gateway/pool"
)

// digests counts the containers of each image.
func digests(b *box) map[string]int {
	b.mu.Lock()
	defer b.mu.Unlock()
	found := map[string]int{}
	for _, o := range b.containers {
		found[o.ImageDigest]++
	}
	return found
}

// TestSupersede_ImageOfATagChanges_CapacityStays: nobody but a start knows of it, and no request waits for it.
func TestSupersede_ImageOfATagChanges_CapacityStays(t *testing.T) {
	for _, c := range []struct{ max, warm, least int }{{4, 3, 3}, {20, 4, 4}, {4, 4, 3}} {
		t.Run(fmt.Sprintf("%d of %d", c.warm, c.max), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBox()
				b.pushImage("old")
				fn := function("f", gateway.Scaling{MaxCapacity: c.max, Queue: 10})
				m := mustOpen(t, b, pool.Options{Inits: inits{takes: 100 * time.Millisecond}}, fn)
				warm(t, m, fn, c.warm)
				l := mustLoad(t, m, fn, c.warm)
				b.setStart(slow(500 * time.Millisecond))
				b.setStop(func(context.Context, string) error { time.Sleep(50 * time.Millisecond); return nil })
				b.pushImage("new")
				time.Sleep(time.Second)
				assert.Zero(t, digests(b)["new"], "nothing is started for it")
				began := time.Now()
				if c.max == c.warm {
					b.change(state(m, "f").Workers[0].ID, nil) // one dies, and is found by the janitor
				}
				extra := mustLoad(t, m, fn, 1)
				for digests(b)["old"] > 0 {
					s := state(m, "f")
					require.GreaterOrEqual(t, s.Idle+s.Busy, c.least-1, "after %s", time.Since(began))
					if c.max > c.warm {
						require.GreaterOrEqual(t, s.Idle+s.Busy, c.least, "after %s", time.Since(began))
					}
					require.Less(t, time.Since(began), 2*time.Minute)
					time.Sleep(10 * time.Millisecond)
				}
				extra.stop()
				l.stop()
				assert.Zero(t, l.failures.Load()+extra.failures.Load())
				peak, _ := b.peaks("f")
				assert.LessOrEqual(t, peak, c.max)
				assert.GreaterOrEqual(t, digests(b)["new"], c.least)
			})
		})
	}
}

// TestSupersede_NewImageDoesNotWork_TheOldOnesServeOn.
func TestSupersede_NewImageDoesNotWork_TheOldOnesServeOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBox()
		b.pushImage("old")
		fn := function("f", gateway.Scaling{MaxCapacity: 4, Queue: 10})
		m := mustOpen(t, b, pool.Options{Inits: badImage("new")}, fn)
		warm(t, m, fn, 2)
		time.Sleep(time.Second)
		b.pushImage("new")
		l := mustLoad(t, m, fn, 4)
		time.Sleep(5 * time.Minute)
		l.stop()
		assert.Zero(t, l.failures.Load())
		assert.Equal(t, map[string]int{"old": 2}, digests(b))
		assert.Contains(t, state(m, "f").Error, "init has failed")
		time.Sleep(time.Second)
		b.pushImage("newer")
		l = mustLoad(t, m, fn, 4)
		time.Sleep(5 * time.Minute)
		l.stop()
		assert.Zero(t, l.failures.Load())
		assert.Equal(t, 0, digests(b)["old"])
		assert.Positive(t, digests(b)["newer"])
	})
}

// badImage is an Inits whose workers of that image fail.
type badImage string

func (i badImage) AwaitInit(_ context.Context, w gateway.Worker) error {
	if w.ImageDigest == string(i) {
		return errors.New("init has failed")
	}
	return nil
}

// TestSupersede_StandbyHasTheNewImage_OldOnesServeUntilOneIsWarm.
func TestSupersede_StandbyHasTheNewImage_OldOnesServeUntilOneIsWarm(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBox()
		b.pushImage("old")
		fn := function("f", gateway.Scaling{MaxCapacity: 9, Queue: 10, Standby: 1})
		m := mustOpen(t, b, pool.Options{Inits: inits{takes: 100 * time.Millisecond}}, fn)
		warm(t, m, fn, 2)
		time.Sleep(2 * time.Second)
		l := mustLoad(t, m, fn, 2)
		b.setStart(slow(500 * time.Millisecond))
		b.pushImage("new")
		var held []*pool.Lease
		for state(m, "f").Standby > 0 { // until the one that stands by is taken, which is replaced
			held = append(held, mustAcquire(t, m, fn))
		}
		before := state(m, "f").Idle + state(m, "f").Busy
		deadline := time.Now().Add(2 * time.Minute)
		for digests(b)["old"] > len(held) {
			s := state(m, "f")
			require.GreaterOrEqual(t, s.Idle+s.Busy, before)
			require.True(t, time.Now().Before(deadline), "%+v %v", s, digests(b))
			time.Sleep(10 * time.Millisecond)
		}
		for _, l := range held {
			l.Release()
		}
		for digests(b)["old"] > 0 {
			s := state(m, "f")
			require.GreaterOrEqual(t, s.Idle+s.Busy, 2)
			require.True(t, time.Now().Before(deadline), "%+v %v", s, digests(b))
			time.Sleep(10 * time.Millisecond)
		}
		l.stop()
		assert.Zero(t, l.failures.Load())
	})
}

// TestSupersede_OlderImageComesLate_ServesNobody: of two starts the one that began later knows better.
func TestSupersede_OlderImageComesLate_ServesNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBox()
		b.pushImage("new")
		var takes sync.Map
		takes.Store("f", 5*time.Second)
		fn := function("f", gateway.Scaling{MaxCapacity: 5, Queue: 10})
		b.setStart(func(ctx context.Context, fn *gateway.Function, standby bool) error {
			d, _ := takes.Load("f")
			err := slow(d.(time.Duration))(ctx, fn, standby)
			if d == 5*time.Second {
				b.pushImage("old") // what it had looked up
				time.AfterFunc(time.Millisecond, func() { b.pushImage("new") })
			}
			return err
		})
		m := mustOpen(t, b, pool.Options{}, fn)
		first := acquireLater(t.Context(), m, fn)
		time.Sleep(time.Second)
		takes.Store("f", time.Second)
		second := acquireLater(t.Context(), m, fn)
		r := <-second
		require.NoError(t, r.err)
		assert.Equal(t, "new", r.lease.Worker().ImageDigest)
		again := <-first
		require.NoError(t, again.err)
		again.lease.Release()
		r.lease.Release()
		time.Sleep(10 * time.Second)
		assert.Zero(t, digests(b)["old"])
	})
}
