package pool_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
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

// broken has the starts of generations that begin with prefix fail, after a while.
func broken(prefix string, takes time.Duration) startHook {
	return func(_ context.Context, fn *gateway.Function, _ bool) error {
		time.Sleep(takes)
		if strings.HasPrefix(fn.Generation, prefix) {
			return errors.New("image missing")
		}
		return nil
	}
}

// oneSlot opens a pool of one slot with a warm worker of g1, whose ends take 50 ms.
func oneSlot(t *testing.T, b *box, opts pool.Options) (*pool.Manager, *gateway.Function) {
	t.Helper()
	fn := function("f", gateway.Scaling{MaxCapacity: 1, Queue: 20})
	b.setStop(func(context.Context, string) error { time.Sleep(50 * time.Millisecond); return nil })
	m := mustOpen(t, b, opts, fn)
	warm(t, m, fn, 1)
	return m, fn
}

// TestFallback_OneSlot_TheOldOneServesOn however the new one fails, says so, and the new one is tried again, more and more rarely.
func TestFallback_OneSlot_TheOldOneServesOn(t *testing.T) {
	for name, c := range map[string]struct {
		start startHook
		inits pool.Inits
	}{
		"it cannot start": {start: broken("bad", 100*time.Millisecond)},
		"its init fails":  {start: slow(100 * time.Millisecond), inits: inits{takes: 200 * time.Millisecond, bad: "bad"}},
	} {
		for _, busy := range []bool{false, true} {
			t.Run(fmt.Sprint(name, ", busy ", busy), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					b := newBox()
					m, fn := oneSlot(t, b, pool.Options{HeartbeatInterval: time.Hour, Inits: c.inits})
					b.setStart(c.start)
					time.Sleep(time.Minute)
					var lease *pool.Lease
					if busy {
						lease = mustAcquire(t, m, fn)
					}
					next := changed(fn, "bad")
					apply(m, next)
					if busy {
						time.Sleep(time.Second)
						lease.Release()
					}
					var worst time.Duration
					for range 3600 {
						began := time.Now()
						assert.Equal(t, "g1", served(t, m, next))
						worst = max(worst, time.Since(began))
						time.Sleep(time.Second)
					}
					assert.LessOrEqual(t, worst, 900*time.Millisecond)
					s := state(m, "f")
					assert.Equal(t, 1, s.Outdated)
					assert.Contains(t, s.Error, "the configuration before the present one still serves: ")
					starts, _, live := b.count()
					assert.LessOrEqual(t, starts, 1+2*20, "in an hour")
					assert.Greater(t, starts, 1+2*10)
					assert.Equal(t, 1, live)
					peak, _ := b.peaks("f")
					assert.Equal(t, 1, peak)

					good := changed(fn, "g2")
					apply(m, good)
					time.Sleep(time.Second)
					assert.Equal(t, "g2", served(t, m, good), "what is new is tried at once")
					assert.Empty(t, state(m, "f").Error)
				})
			})
		}
	}
}

// TestFallback_TheNewOneCanStartLater_TakesOver without being asked for.
func TestFallback_TheNewOneCanStartLater_TakesOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBox()
		m, fn := oneSlot(t, b, pool.Options{})
		b.setStart(broken("bad", 100*time.Millisecond))
		next := changed(fn, "bad")
		apply(m, next)
		time.Sleep(time.Minute)
		assert.Equal(t, 1, state(m, "f").Outdated, "a function that was warm is warm again")
		b.setStart(nil)
		time.Sleep(6 * time.Minute)
		assert.Equal(t, "bad", served(t, m, next))
		assert.Zero(t, state(m, "f").Outdated)
	})
}

// TestFallback_HasTheImageThatItHad, or does not serve at all.
func TestFallback_HasTheImageThatItHad(t *testing.T) {
	for name, kept := range map[string]bool{"it is there": true, "it is not": false} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBox()
				b.setDigest("sha256:old")
				m, fn := oneSlot(t, b, pool.Options{})
				b.setDigest("sha256:new")
				b.mu.Lock()
				b.kept = kept
				b.mu.Unlock()
				b.setStart(broken("bad", 100*time.Millisecond))
				next := changed(fn, "bad")
				apply(m, next)
				time.Sleep(5 * time.Second)
				l, err := m.Acquire(t.Context(), next, "r")
				if !kept {
					assert.ErrorContains(t, err, "image missing")
					time.Sleep(time.Hour)
					_, _, live := b.count()
					assert.Zero(t, live)
					return
				}
				require.NoError(t, err)
				assert.Equal(t, []string{"g1", "sha256:old"}, []string{l.Worker().Generation, l.Worker().ImageDigest})
				l.Release()
			})
		})
	}
}

// TestFallback_CannotStartEither_RequestsAreAnswered, and it serves when it can.
func TestFallback_CannotStartEither_RequestsAreAnswered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBox()
		m, fn := oneSlot(t, b, pool.Options{})
		b.setStart(broken("", 100*time.Millisecond))
		next := changed(fn, "bad")
		apply(m, next)
		for range 60 {
			began := time.Now()
			_, err := m.Acquire(t.Context(), next, "r")
			assert.Error(t, err)
			assert.Less(t, time.Since(began), 2*time.Second)
			time.Sleep(time.Second)
		}
		starts, _, _ := b.count()
		assert.Less(t, starts, 200)
		b.setStart(broken("bad", 100*time.Millisecond))
		time.Sleep(time.Minute)
		assert.Equal(t, "g1", served(t, m, next))
	})
}

// TestFallback_ChangeIsTakenBack.
func TestFallback_ChangeIsTakenBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBox()
		m, fn := oneSlot(t, b, pool.Options{})
		b.setStart(broken("bad", 300*time.Millisecond))
		apply(m, changed(fn, "bad"))
		for _, after := range []time.Duration{100 * time.Millisecond, 450 * time.Millisecond, 5 * time.Second} {
			time.Sleep(after)
			apply(m, fn)
			time.Sleep(2 * time.Second)
			s := state(m, "f")
			assert.Equal(t, []int{1, 0}, []int{s.Idle, s.Outdated}, after)
			assert.Empty(t, s.Error)
			apply(m, changed(fn, "bad"))
		}
	})
}

// TestFallback_OldOneDies_AnotherOldOneServes.
func TestFallback_OldOneDies_AnotherOldOneServes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, e := newBox(), &exits{told: make(chan string)}
		fn := function("f", gateway.Scaling{MaxCapacity: 3, Queue: 20})
		m := mustOpen(t, b, pool.Options{Watcher: e}, fn)
		warm(t, m, fn, 1)
		b.setStart(broken("bad", 100*time.Millisecond))
		next := changed(fn, "bad")
		apply(m, next)
		for range 5 {
			time.Sleep(10 * time.Second)
			l := mustAcquire(t, m, next)
			id := l.Worker().ID
			assert.Equal(t, "g1", l.Worker().Generation)
			l.Release()
			e.told <- id
			assert.Equal(t, "g1", served(t, m, next))
		}
	})
}

// TestFallback_ColdFunction_HasNone: nothing of the old one served when it was changed.
func TestFallback_ColdFunction_HasNone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBox()
		m, fn := oneSlot(t, b, pool.Options{})
		time.Sleep(10 * time.Minute)
		require.Zero(t, state(m, "f").Idle)
		b.setStart(broken("bad", 100*time.Millisecond))
		next := changed(fn, "bad")
		apply(m, next)
		_, err := m.Acquire(t.Context(), next, "r")
		assert.ErrorContains(t, err, "image missing")
	})
}

// TestFallback_Stress: changes to what works and what does not, one after the other, at any pace, in any number of slots: no request
// fails, no worker of what cannot work serves, and never are there more containers than max_capacity.
func TestFallback_Stress(t *testing.T) {
	for _, maxCapacity := range []int{1, 2, 4} {
		t.Run(fmt.Sprint("slots ", maxCapacity), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBox()
				fn := function("f", gateway.Scaling{MaxCapacity: maxCapacity, Queue: 100, AcquireTimeout: time.Minute})
				b.setStop(func(context.Context, string) error { time.Sleep(rand.N(100 * time.Millisecond)); return nil })
				m := mustOpen(t, b, pool.Options{Inits: inits{takes: 100 * time.Millisecond, bad: "bad init"}}, fn)
				warm(t, m, fn, maxCapacity)
				b.setStart(func(ctx context.Context, fn *gateway.Function, standby bool) error {
					return broken("bad start", rand.N(2*time.Second))(ctx, fn, standby)
				})
				var answers atomic.Int64
				var clients sync.WaitGroup
				stop := make(chan struct{})
				for range 2 * maxCapacity {
					clients.Go(func() {
						for {
							select {
							case <-stop:
								return
							case <-time.After(rand.N(2 * time.Second)):
							}
							l, err := m.Acquire(context.Background(), fn, "r")
							if !assert.NoError(t, err) {
								return
							}
							assert.NotContains(t, l.Worker().Generation, "bad")
							time.Sleep(rand.N(300 * time.Millisecond))
							l.Release()
							answers.Add(1)
						}
					})
				}
				for i := range 200 {
					time.Sleep(rand.N([]time.Duration{2 * time.Second, 60 * time.Second}[rand.N(2)]))
					generation := []string{"bad start", "bad init", fmt.Sprint("g", i), fmt.Sprint("g", rand.N(i+1))}[rand.N(4)]
					apply(m, changed(fn, generation))
				}
				apply(m, changed(fn, "last"))
				time.Sleep(5 * time.Minute)
				assert.Equal(t, "last", served(t, m, fn))
				close(stop)
				clients.Wait()
				peak, _ := b.peaks("f")
				assert.LessOrEqual(t, peak, maxCapacity)
				t.Logf("%d answers", answers.Load())
			})
		})
	}
}
