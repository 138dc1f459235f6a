package pool_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/edge-serverless-box/esb/gateway"
	"github.com/edge-serverless-box/esb/gateway/pool"
)

// TestFallback_FailsWhenTheNewOneServesAlready_TheNextChangeHasOneAllTheSame: what is known to work by then is another configuration.
func TestFallback_FailsWhenTheNewOneServesAlready_TheNextChangeHasOneAllTheSame(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, e := newBox(), &exits{told: make(chan string)}
		fn := function("f", gateway.Scaling{MaxCapacity: 2, Queue: 20})
		m := mustOpen(t, b, pool.Options{HeartbeatInterval: time.Hour, Watcher: e}, fn)
		warm(t, m, fn, 1)
		var g2Works, late atomic.Bool
		b.setStart(func(_ context.Context, fn *gateway.Function, _ bool) error {
			switch {
			case fn.Generation == "g1":
				time.Sleep(10 * time.Second)
				late.Store(true)
				gone := gateway.Errorf(gateway.CodeUnavailable, "image gone")
				gone.Permanent = true
				return gone
			case fn.Generation == "g2" && g2Works.Load():
				time.Sleep(100 * time.Millisecond)
				return nil
			}
			time.Sleep(100 * time.Millisecond)
			return errors.New("cannot start")
		})
		second := changed(fn, "g2")
		apply(m, second)
		time.Sleep(time.Second)
		e.told <- "f-1"
		synctest.Wait()
		first := acquireLater(t.Context(), m, second)
		time.Sleep(300 * time.Millisecond) // g1 is on its way
		g2Works.Store(true)
		time.Sleep(5 * time.Second)
		another := acquireLater(t.Context(), m, second)
		time.Sleep(2 * time.Second)
		for _, c := range []chan result{first, another} {
			r := <-c
			if assert.NoError(t, r.err) {
				assert.Equal(t, "g2", r.lease.Worker().Generation)
				r.lease.Release()
			}
		}
		time.Sleep(20 * time.Second)
		assert.True(t, late.Load())

		third := changed(fn, "g3")
		apply(m, third)
		time.Sleep(time.Second)
		for _, w := range state(m, "f").Workers {
			e.told <- w.ID
		}
		time.Sleep(time.Second)
		assert.Equal(t, "g2", served(t, m, third))
	})
}
