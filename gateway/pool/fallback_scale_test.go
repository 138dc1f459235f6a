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

// TestFallback_ScalesAsTheFunctionDoes: requests at the same time have workers of the configuration before, up to max_capacity, and
// min_capacity is of it; the new one is tried all the same, and takes over when it can start.
func TestFallback_ScalesAsTheFunctionDoes(t *testing.T) {
	for name, c := range map[string]struct {
		start startHook
		inits pool.Inits
	}{
		"it cannot start": {start: broken("bad", 100*time.Millisecond)},
		"its init fails":  {start: slow(100 * time.Millisecond), inits: inits{takes: 200 * time.Millisecond, bad: "bad"}},
	} {
		for _, minCapacity := range []int{0, 2} {
			t.Run(fmt.Sprint(name, ", min ", minCapacity), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					const maxCapacity = 4
					b, e := newBox(), &exits{told: make(chan string)}
					fn := function("f", gateway.Scaling{MinCapacity: minCapacity, MaxCapacity: maxCapacity, Queue: 20, IdleTimeout: time.Minute})
					m := mustOpen(t, b, pool.Options{HeartbeatInterval: time.Hour, Watcher: e, Inits: c.inits}, fn)
					warm(t, m, fn, max(minCapacity, 1))
					b.setStart(c.start)
					next := changed(fn, "bad")
					apply(m, next)
					time.Sleep(time.Second)
					for _, w := range state(m, "f").Workers {
						e.told <- w.ID // nothing of the old one is left
					}
					for range 3 {
						began := time.Now()
						var results []chan result
						for range maxCapacity {
							results = append(results, acquireLater(t.Context(), m, next))
						}
						var leases []*pool.Lease
						for _, c := range results {
							r := <-c
							require.NoError(t, r.err)
							assert.Equal(t, "g1", r.lease.Worker().Generation)
							leases = append(leases, r.lease)
						}
						assert.Less(t, time.Since(began), 2*time.Second, "none waits for another")
						for _, l := range leases {
							l.Release()
						}
						time.Sleep(5 * time.Minute)
						s := state(m, "f")
						assert.Equal(t, max(1, minCapacity), s.Idle, "what is not needed goes")
						assert.Equal(t, s.Idle, s.Outdated)
					}
					peak, _ := b.peaks("f")
					assert.LessOrEqual(t, peak, maxCapacity)

					l := mustLoad(t, m, next, maxCapacity)
					time.Sleep(time.Minute)
					b.setStart(slow(100 * time.Millisecond))
					if c.inits != nil {
						good := changed(fn, "good")
						apply(m, good)
					}
					time.Sleep(10 * time.Minute)
					l.stop()
					assert.Zero(t, l.failures.Load())
					assert.Zero(t, state(m, "f").Outdated)
					assert.Empty(t, state(m, "f").Error)
				})
			})
		}
	}
}

// TestFallback_FullOfOldOnes_TrialsAreRare: each costs a worker that serves.
func TestFallback_FullOfOldOnes_TrialsAreRare(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBox()
		fn := function("f", gateway.Scaling{MaxCapacity: 2, Queue: 20})
		m := mustOpen(t, b, pool.Options{HeartbeatInterval: time.Hour}, fn)
		warm(t, m, fn, 2)
		l := mustLoad(t, m, fn, 4)
		time.Sleep(time.Minute)
		b.setStart(broken("bad", 100*time.Millisecond))
		before, _, _ := b.count()
		apply(m, changed(fn, "bad"))
		time.Sleep(time.Hour)
		l.stop()
		assert.Zero(t, l.failures.Load())
		after, _, _ := b.count()
		assert.LessOrEqual(t, after-before, 2*25)
		assert.GreaterOrEqual(t, after-before, 2*10)
	})
}

// TestFallback_ImageAlone_IsNotTheNewOne: what a sandbox on standby has shown to be a change is no less of one when all that differs is
// the image of the tag.
func TestFallback_ImageAlone_IsNotTheNewOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, e := newBox(), &exits{told: make(chan string)}
		b.kept = true
		b.pushImage("old")
		fn := function("f", gateway.Scaling{MaxCapacity: 6, Queue: 10, Standby: 1})
		m := mustOpen(t, b, pool.Options{HeartbeatInterval: time.Hour, Watcher: e, Inits: badImage("new")}, fn)
		warm(t, m, fn, 1)
		time.Sleep(2 * time.Second)
		require.Equal(t, 1, state(m, "f").Standby)
		b.pushImage("new")
		var held []*pool.Lease
		for state(m, "f").Standby > 0 { // until the one that stands by is taken, which is replaced
			held = append(held, mustAcquire(t, m, fn))
		}
		time.Sleep(5 * time.Second)
		for _, l := range held {
			l.Release()
		}
		for _, w := range state(m, "f").Workers {
			e.told <- w.ID
		}
		time.Sleep(time.Second)
		for range 60 {
			l := mustAcquire(t, m, fn)
			assert.Equal(t, "old", l.Worker().ImageDigest)
			l.Release()
			s := state(m, "f")
			assert.Positive(t, s.Outdated)
			assert.Contains(t, s.Error, "the configuration before the present one still serves: ")
			time.Sleep(10 * time.Second)
		}
		b.pushImage("newer")
		time.Sleep(10 * time.Minute)
		assert.Zero(t, digests(b)["old"])
		assert.Positive(t, digests(b)["newer"])
		assert.Empty(t, state(m, "f").Error)
	})
}

// TestFallback_WhatWasOnStandbyAndHasServed_IsProof: a function may never have had another worker.
func TestFallback_WhatWasOnStandbyAndHasServed_IsProof(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, e := newBox(), &exits{told: make(chan string)}
		fn := function("f", gateway.Scaling{MaxCapacity: 1, Queue: 10, Standby: 1})
		m := mustOpen(t, b, pool.Options{HeartbeatInterval: time.Hour, Watcher: e}, fn)
		time.Sleep(time.Second)
		require.Equal(t, 1, state(m, "f").Standby)
		assert.Equal(t, "g1", served(t, m, fn))
		b.setStart(broken("bad", 100*time.Millisecond))
		next := changed(fn, "bad")
		apply(m, next)
		for range 10 {
			time.Sleep(10 * time.Second)
			assert.Equal(t, "g1", served(t, m, next))
		}
	})
}

// badInits is an Inits that workers of generations that begin with it fail, after a while.
type badInits string

func (i badInits) AwaitInit(ctx context.Context, w gateway.Worker) error {
	if err := slow(100*time.Millisecond)(ctx, nil, false); err != nil || !strings.HasPrefix(w.Generation, string(i)) {
		return err
	}
	return errors.New("init has failed")
}

// TestFallback_BadOnesInQuickSuccession, workers that die meanwhile, a good one after them, and a bad one that is taken back: no request
// fails, the newest that works serves, and never are there more containers than max_capacity.
func TestFallback_BadOnesInQuickSuccession(t *testing.T) {
	for _, sc := range []gateway.Scaling{{MaxCapacity: 1}, {MaxCapacity: 2}, {MaxCapacity: 3, Standby: 1}, {MaxCapacity: 4, MinCapacity: 2}, {MaxCapacity: 5, MinCapacity: 1, Standby: 2}} {
		t.Run(fmt.Sprintf("max %d, min %d, standby %d", sc.MaxCapacity, sc.MinCapacity, sc.Standby), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				sc.Queue, sc.AcquireTimeout, sc.IdleTimeout = 100, time.Minute, 3*time.Minute
				b, e := newBox(), &exits{told: make(chan string)}
				fn := function("f", sc)
				b.setStop(func(context.Context, string) error { time.Sleep(rand.N(100 * time.Millisecond)); return nil })
				m := mustOpen(t, b, pool.Options{HeartbeatInterval: time.Hour, Watcher: e, Inits: badInits("bad init")}, fn)
				warm(t, m, fn, sc.MaxCapacity)
				b.setStart(func(ctx context.Context, fn *gateway.Function, standby bool) error {
					return broken("bad start", rand.N(2*time.Second))(ctx, fn, standby)
				})
				var clients sync.WaitGroup
				var answers atomic.Int64
				stop := make(chan struct{})
				for range 2 * sc.MaxCapacity {
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
				bad := func() {
					for i := range 1 + rand.N(5) {
						apply(m, changed(fn, fmt.Sprint([]string{"bad start ", "bad init "}[rand.N(2)], i)))
						time.Sleep(rand.N([]time.Duration{100 * time.Millisecond, 3 * time.Second, 20 * time.Second}[rand.N(3)]))
					}
				}
				die := func() {
					for _, w := range state(m, "f").Workers {
						if w.State == pool.PhaseIdle && rand.N(2) == 0 {
							e.told <- w.ID
						}
					}
				}
				good := fn
				for i := range 60 {
					bad()
					die()
					time.Sleep(rand.N(time.Minute))
					die()
					time.Sleep(5 * time.Second)
					require.Equal(t, good.Generation, served(t, m, fn), "round %d: the newest that works", i)
					if rand.N(2) == 0 {
						good = changed(fn, fmt.Sprint("g", 2+i))
					}
					apply(m, good)
					time.Sleep(2 * time.Minute)
					require.Equal(t, good.Generation, served(t, m, fn), "round %d: the last is a good one", i)
					s := state(m, "f")
					require.Empty(t, s.Error)
					require.Zero(t, s.Outdated)
				}
				close(stop)
				clients.Wait()
				peak, _ := b.peaks("f")
				assert.LessOrEqual(t, peak, sc.MaxCapacity)
				t.Logf("%d answers", answers.Load())
			})
		})
	}
}
