package pool_test

import (
	"context"
	"errors"
	"math/rand/v2"
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

// TestBeat_Stress: workers that stand still, for a while or for good, while they are idle, busy, asked, doubted, frozen and replaced.
// What must hold is what TestPool_Stress has, and that no slot is lost.
func TestBeat_Stress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const maxCapacity = 4
		b := newBox()
		b.setStart(slow(200 * time.Millisecond))
		sc := gateway.Scaling{MaxCapacity: maxCapacity, Queue: 40, AcquireTimeout: time.Minute, IdleTimeout: 5 * time.Minute}
		fns := []*gateway.Function{function("plain", sc), function("min", sc), function("standby", sc), function("frozen", sc)}
		fns[1].Scaling.MinCapacity = 2
		fns[2].Scaling.Standby = 1
		fns[3].Freeze = true
		m := mustOpen(t, b, pool.Options{MaxConcurrentStarts: 5, Examiner: b, Freezer: b, Inits: inits{takes: time.Second}}, fns...)

		var inUse sync.Map
		var served, refused, broken atomic.Int64
		request := func(fn *gateway.Function) {
			ctx, cancel := context.WithTimeout(t.Context(), rand.N(2*time.Minute))
			defer cancel()
			l, err := m.Acquire(ctx, fn, "r")
			if err != nil {
				refused.Add(1)
				return
			}
			id := l.Worker().ID
			_, taken := inUse.LoadOrStore(id, true)
			assert.False(t, taken, "worker %s is in two hands", id)
			link := newClosed()
			l.Attach(link)
			var cut error
			select {
			case <-time.After(rand.N(20 * time.Second)):
			case <-link.c:
				cut = errors.New("cut")
			}
			inUse.Delete(id)
			if cut != nil {
				broken.Add(1)
				l.Condemn("broken")
				return
			}
			served.Add(1)
			l.Release()
		}
		var clients, trouble sync.WaitGroup
		for range 12 {
			clients.Go(func() {
				for range 60 {
					request(fns[rand.N(len(fns))])
					time.Sleep(rand.N(40 * time.Second))
				}
			})
		}
		stop := make(chan struct{})
		trouble.Go(func() {
			for generation := 0; ; generation++ {
				select {
				case <-stop:
					return
				case <-time.After(rand.N(20 * time.Second)):
				}
				if rand.N(5) == 0 {
					var next []*gateway.Function
					for _, fn := range fns {
						next = append(next, changed(fn, string(rune('a'+generation%26))))
					}
					apply(m, next...)
				}
				for _, s := range m.Snapshot() {
					if n := len(s.Workers); n > 0 && rand.N(2) == 0 {
						id := s.Workers[rand.N(n)].ID
						run := b.stop(id)
						if rand.N(3) > 0 {
							time.AfterFunc(rand.N(20*time.Second), run)
						}
					}
				}
			}
		})
		clients.Wait()
		close(stop)
		trouble.Wait()

		time.Sleep(5 * time.Minute)
		for _, fn := range fns {
			peak, _ := b.peaks(fn.Name)
			assert.LessOrEqual(t, peak, maxCapacity, fn.Name)
			s := state(m, fn.Name)
			assert.Zero(t, s.Waiting+s.Busy+s.Starting+s.Stopping, fn.Name)
			l := mustAcquire(t, m, fn)
			l.Release()
		}
		t.Logf("%d served, %d cut, %d refused", served.Load(), broken.Load(), refused.Load())
		assert.Positive(t, broken.Load())
		assert.Greater(t, served.Load(), int64(300))
		require.NoError(t, m.Close(t.Context()))
		_, _, live := b.count()
		assert.Zero(t, live)
	})
}
