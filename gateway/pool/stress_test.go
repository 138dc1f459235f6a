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

	"github.com/edge-serverless-box/esb/gateway"
	"github.com/edge-serverless-box/esb/gateway/pool"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestPool_Stress throws everything at three pools at once: requests that come, leave, release and condemn, starts
// and destructions that fail or dawdle, containers that vanish, reloads. What must hold whatever happens: never more
// containers than max_capacity, no worker in two hands, no waiter forgotten, nothing left after Close. The goroutines
// are counted by the bubble, which does not end before they do.
func TestPool_Stress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const maxCapacity = 4
		b := newBox()
		b.setStart(func(ctx context.Context, fn *gateway.Function, standby bool) error {
			if err := slow(rand.N(50*time.Millisecond))(ctx, fn, standby); err != nil {
				return err
			}
			switch rand.N(20) {
			case 0:
				err := gateway.Errorf(gateway.CodeUnavailable, "image missing")
				err.Permanent = true
				return err
			case 1, 2:
				return errors.New("agent down")
			}
			return nil
		})
		b.setStop(func(context.Context, string) error {
			time.Sleep(rand.N(20 * time.Millisecond))
			if rand.N(10) == 0 {
				return errors.New("busy")
			}
			return nil
		})
		sc := gateway.Scaling{MaxCapacity: maxCapacity, Queue: 20, AcquireTimeout: 2 * time.Second, IdleTimeout: 100 * time.Millisecond}
		fns := []*gateway.Function{function("plain", sc), function("min", sc), function("standby", sc)}
		fns[1].Scaling.MinCapacity = 2
		fns[2].Scaling.Standby = 1
		m := mustOpen(t, b, pool.Options{HeartbeatInterval: 200 * time.Millisecond, OrphanGrace: time.Second, MaxConcurrentStarts: 5}, fns...)

		var inUse sync.Map
		var served, refused atomic.Int64
		request := func(fn *gateway.Function) {
			ctx, cancel := context.WithTimeout(t.Context(), rand.N(time.Second))
			defer cancel()
			l, err := m.Acquire(ctx, fn, "r")
			if err != nil {
				refused.Add(1)
				assert.NotEqual(t, gateway.CodeInternal, gateway.ErrorCode(err), err)
				return
			}
			served.Add(1)
			id := l.Worker().ID
			_, taken := inUse.LoadOrStore(id, true)
			assert.False(t, taken, "worker %s is in two hands", id)
			time.Sleep(rand.N(30 * time.Millisecond))
			inUse.Delete(id)
			if rand.N(10) == 0 {
				l.Condemn("stress")
				return
			}
			l.Release()
		}
		var clients sync.WaitGroup
		for range 40 {
			clients.Go(func() {
				for range 100 {
					request(fns[rand.N(len(fns))])
					time.Sleep(rand.N(20 * time.Millisecond))
				}
			})
		}
		stop := make(chan struct{})
		var trouble sync.WaitGroup
		trouble.Go(func() {
			for generation := 0; ; generation++ {
				select {
				case <-stop:
					return
				case <-time.After(rand.N(500 * time.Millisecond)):
				}
				var next []*gateway.Function
				for _, fn := range fns {
					changed := *fn
					changed.Generation = string(rune('a' + generation%26))
					next = append(next, &changed)
				}
				apply(m, next...)
				b.pushImage(string(rune('a' + rand.N(4))))
				for _, s := range m.Snapshot() {
					if n := len(s.Workers); n > 0 && rand.N(2) == 0 {
						b.mu.Lock()
						id := s.Workers[rand.N(n)].ID
						_, there := b.containers[id]
						b.mu.Unlock()
						if there {
							b.change(id, nil)
						}
					}
				}
			}
		})
		clients.Wait()
		close(stop)
		trouble.Wait()

		for _, fn := range fns {
			peak, _ := b.peaks(fn.Name)
			assert.LessOrEqual(t, peak, maxCapacity, fn.Name)
		}
		t.Logf("%d served, %d refused", served.Load(), refused.Load())
		assert.Greater(t, served.Load(), int64(2000))

		time.Sleep(time.Minute)
		for _, s := range m.Snapshot() {
			assert.Zero(t, s.Waiting+s.Busy, s.Function)
		}
		b.setStop(nil)
		require.NoError(t, m.Close(t.Context()))
		_, _, live := b.count()
		assert.Zero(t, live)
	})
}

func BenchmarkAcquireRelease_Warm(b *testing.B) {
	fn := function("f", gateway.Scaling{MaxCapacity: 100, Queue: 100})
	m := mustOpen(b, newBox(), pool.Options{}, fn)
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			l, err := m.Acquire(context.Background(), fn, "r")
			if err != nil {
				b.Fatal(err)
			}
			l.Release()
		}
	})
}
