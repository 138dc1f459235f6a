package pool_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/edge-serverless-box/esb/api/reason"
	"github.com/edge-serverless-box/esb/gateway"
	"github.com/edge-serverless-box/esb/gateway/pool"
)

// owned are the options of Managers of one owner.
func owned(b *box) pool.Options {
	b.owner = "me"
	return pool.Options{Owner: "me", Examiner: b, Freezer: b}
}

// gone is the end of a Manager whose process is killed, or stops: nothing is waited for.
func gone(t *testing.T, m *pool.Manager) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	require.NoError(t, m.Close(ctx))
}

func ids(s pool.State) []string {
	var list []string
	for _, w := range s.Workers {
		list = append(list, w.ID)
	}
	slices.Sort(list)
	return list
}

// warmUp has a Manager make so many idle workers of fn.
func warmUp(t *testing.T, m *pool.Manager, fn *gateway.Function, n int) {
	t.Helper()
	var leases []*pool.Lease
	for range n {
		leases = append(leases, mustAcquire(t, m, fn))
	}
	for _, l := range leases {
		l.Release()
	}
}

func TestAdopt_IdleAndFrozenWorkers_ServeOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBox()
		plain := function("f", gateway.Scaling{MaxCapacity: 3, Queue: 10})
		cold := function("cold", gateway.Scaling{MaxCapacity: 2, Queue: 10})
		cold.Freeze = true
		first := mustOpen(t, b, owned(b), plain, cold)
		warmUp(t, first, plain, 3)
		warmUp(t, first, cold, 2)
		time.Sleep(time.Second)
		before := slices.Concat(ids(state(first, "f")), ids(state(first, "cold")))
		require.Len(t, before, 5)
		gone(t, first)
		starts, stops, live := b.count()
		assert.Equal(t, []int{5, 0, 5}, []int{starts, stops, live}, "nothing ends with the gateway")

		time.Sleep(time.Hour) // it was away for long
		second := mustOpen(t, b, owned(b), plain, cold)
		synctest.Wait()
		assert.Equal(t, 3, state(second, "f").Idle)
		assert.Equal(t, 2, state(second, "cold").Frozen)
		l := mustAcquire(t, second, cold)
		_, thaws := b.isFrozen(l.Worker().ID)
		assert.Equal(t, 1, thaws)
		assert.False(t, l.Cold())
		assert.Equal(t, "10.88.0.2:8080", l.Worker().Addr)
		l.Release()
		for range 3 {
			defer mustAcquire(t, second, plain).Release()
		}
		assert.Equal(t, before, slices.Concat(ids(state(second, "f")), ids(state(second, "cold"))))
		starts, stops, _ = b.count()
		assert.Equal(t, []int{5, 0}, []int{starts, stops})
	})
}

func TestAdopt_AdoptedWorker_IsIdleFromThenOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBox()
		fn := function("f", gateway.Scaling{MaxCapacity: 1, IdleTimeout: time.Minute})
		first := mustOpen(t, b, owned(b), fn)
		warmUp(t, first, fn, 1)
		gone(t, first)
		time.Sleep(time.Hour)
		second := mustOpen(t, b, owned(b), fn)
		time.Sleep(59 * time.Second)
		assert.Equal(t, 1, state(second, "f").Idle)
		time.Sleep(2 * time.Second)
		assert.Empty(t, ids(state(second, "f")))
	})
}

// A worker that is in the middle of something holds its slot, and serves when that is over.
func TestAdopt_BusyWorker_WhenItsInvocationHasEnded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBox()
		fn := function("f", gateway.Scaling{MaxCapacity: 1, Queue: 1})
		first := mustOpen(t, b, owned(b), fn)
		l := mustAcquire(t, first, fn)
		id := l.Worker().ID
		b.setCondition(id, pool.ConditionBusy)
		gone(t, first)

		second := mustOpen(t, b, owned(b), fn)
		synctest.Wait()
		assert.Equal(t, 1, state(second, "f").Busy)
		got := make(chan string)
		go func() {
			l, err := second.Acquire(context.Background(), fn, "r")
			if err != nil {
				got <- err.Error()
				return
			}
			l.Release()
			got <- l.Worker().ID
		}()
		time.Sleep(2 * time.Second)
		select {
		case id := <-got:
			t.Fatal("served while it was busy: ", id)
		default:
		}
		b.setCondition(id, pool.ConditionIdle)
		assert.Equal(t, id, <-got)
		starts, _, _ := b.count()
		assert.Equal(t, 1, starts)
		l.Release() // of a Manager that is closed: nothing happens
	})
}

func TestAdopt_WhatCannotServe_IsDestroyed(t *testing.T) {
	for name, c := range map[string]struct {
		condition pool.Condition
		err       error
	}{
		"unfit":             {condition: pool.ConditionUnfit},
		"without a process": {condition: pool.ConditionStandby},
		"busy for ever":     {condition: pool.ConditionBusy},
		"silent":            {err: errors.New("no answer")},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBox()
				fn := function("f", gateway.Scaling{MaxCapacity: 1, Queue: 1, AcquireTimeout: time.Hour})
				first := mustOpen(t, b, owned(b), fn)
				l := mustAcquire(t, first, fn)
				l.Release()
				id := l.Worker().ID
				gone(t, first)
				b.setCondition(id, c.condition)
				b.examine = func(string) error { return c.err }
				second := mustOpen(t, b, owned(b), fn)
				next := mustAcquire(t, second, fn)
				assert.NotEqual(t, id, next.Worker().ID)
				assert.NotEmpty(t, b.reason(id))
				peak, _ := b.peaks("f")
				assert.Equal(t, 1, peak)
				next.Release()
			})
		})
	}
}

func TestAdopt_HeldWorkerThatEnds_MakesRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBox()
		fn := function("f", gateway.Scaling{MaxCapacity: 1, Queue: 1, AcquireTimeout: time.Hour})
		fn.Timeout = 15 * time.Minute
		first := mustOpen(t, b, owned(b), fn)
		l := mustAcquire(t, first, fn)
		id := l.Worker().ID
		b.setCondition(id, pool.ConditionBusy)
		gone(t, first)
		second := mustOpen(t, b, owned(b), fn)
		synctest.Wait()
		b.change(id, nil)
		began := time.Now()
		next := mustAcquire(t, second, fn)
		assert.LessOrEqual(t, time.Since(began), pool.DefaultHeartbeatInterval)
		next.Release()
	})
}

func TestAdopt_Standby(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBox()
		fn := function("f", gateway.Scaling{MaxCapacity: 2, Standby: 1})
		first := mustOpen(t, b, owned(b), fn)
		time.Sleep(time.Second)
		require.Equal(t, 1, state(first, "f").Standby)
		before := ids(state(first, "f"))
		gone(t, first)
		b.setCondition(before[0], pool.ConditionStandby)
		second := mustOpen(t, b, owned(b), fn)
		time.Sleep(time.Second)
		assert.Equal(t, 1, state(second, "f").Standby)
		assert.Equal(t, before, ids(state(second, "f")))
		l := mustAcquire(t, second, fn)
		assert.True(t, l.Cold())
		assert.True(t, l.Worker().Standby)
		l.Release()
	})
}

// What has changed while no gateway was there serves until the first new worker is ready.
func TestAdopt_ChangedFunction_MakeBeforeBreak(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBox()
		fn := function("f", gateway.Scaling{MaxCapacity: 3, Queue: 10})
		first := mustOpen(t, b, owned(b), fn)
		warmUp(t, first, fn, 2)
		old := ids(state(first, "f"))
		gone(t, first)

		b.setStart(slow(5 * time.Second))
		changed := function("f", gateway.Scaling{MaxCapacity: 3, Queue: 10})
		changed.Generation = "g2"
		second := mustOpen(t, b, owned(b), changed)
		synctest.Wait()
		assert.Equal(t, 2, state(second, "f").Outdated)
		l := mustAcquire(t, second, changed)
		assert.Contains(t, old, l.Worker().ID, "the old ones serve")
		l.Release()
		time.Sleep(time.Minute)
		s := state(second, "f")
		assert.Zero(t, s.Outdated)
		for _, id := range ids(s) {
			assert.NotContains(t, old, id)
		}
		assert.NotEmpty(t, s.Workers)
		peak, _ := b.peaks("f")
		assert.LessOrEqual(t, peak, 3)
	})
}

// left puts containers of f that a gateway has left into b.
func left(b *box, generation string, standby bool, createdAt time.Time, names ...string) {
	for _, id := range names {
		b.containers[id] = pool.Observed{ID: id, Function: "f", Owner: "me", Generation: generation, Standby: standby, CreatedAt: createdAt}
		b.starting["f"]++
	}
}

// A gateway that was in the middle of a change has left both kinds: the old ones are replaced by turns all the same.
func TestAdopt_InTheMiddleOfAChange_OldWorkersServeUntilTheyAreReplaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBox()
		opts := owned(b)
		left(b, "g1", false, time.Now(), "a", "b", "c")
		left(b, "g2", false, time.Now(), "d")
		b.setStart(slow(time.Second))
		fn := changed(function("f", gateway.Scaling{MaxCapacity: 4, Queue: 10}), "g2")
		m := mustOpen(t, b, opts, fn)
		least := 4
		for range 200 {
			time.Sleep(100 * time.Millisecond)
			s := state(m, "f")
			least = min(least, s.Idle+s.Busy)
		}
		assert.Equal(t, 3, least, "one at a time makes room for the next")
		s := state(m, "f")
		assert.Equal(t, []int{4, 0}, []int{s.Idle, s.Outdated})
		assert.Contains(t, ids(s), "d")
		peak, _ := b.peaks("f")
		assert.LessOrEqual(t, peak, 4)
	})
}

// A sandbox on standby of the present configuration shows nothing about the function; one that has had a request does.
func TestAdopt_InTheMiddleOfAChange_StandbyShowsNothing(t *testing.T) {
	for name, c := range map[string]struct {
		condition pool.Condition
		served    string
	}{
		"on standby": {pool.ConditionStandby, "g1"},
		"unfit":      {pool.ConditionUnfit, "g1"},
		"used":       {pool.ConditionIdle, "g2"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBox()
				opts := owned(b)
				left(b, "g1", false, time.Now(), "a", "b")
				left(b, "g2", true, time.Now(), "c")
				b.setCondition("c", c.condition)
				b.setStart(func(context.Context, *gateway.Function, bool) error { return errors.New("broken") })
				fn := changed(function("f", gateway.Scaling{MaxCapacity: 5, Queue: 10}), "g2")
				m := mustOpen(t, b, opts, fn)
				time.Sleep(30 * time.Second)
				assert.Equal(t, 2, state(m, "f").Outdated)
				assert.Equal(t, c.served, served(t, m, fn))
			})
		})
	}
}

// When a worker was created is by the agent's clock, which may have been ahead.
func TestAdopt_WorkerOfTheFuture_IsReplaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBox()
		opts := owned(b)
		left(b, "g1", false, time.Now().Add(time.Hour), "a")
		fn := changed(function("f", gateway.Scaling{MaxCapacity: 1, Queue: 1}), "g2")
		m := mustOpen(t, b, opts, fn)
		time.Sleep(10 * time.Second)
		assert.Equal(t, "g2", served(t, m, fn))
	})
}

// Which digest an image has may not have been known to the one gateway or to the other.
func TestAdopt_DigestOfTheImage(t *testing.T) {
	base := "base"
	with := func(digest string) *gateway.Function {
		fn := function("f", gateway.Scaling{MaxCapacity: 2})
		fn.BaseGeneration, fn.ImageDigest, fn.Generation = base, digest, base
		if digest != "" {
			fn.Generation = gateway.GenerationWith(base, digest)
		}
		return fn
	}
	for name, c := range map[string]struct {
		before, after string
		current       bool
	}{
		"known to both":             {"sha256:1", "sha256:1", true},
		"to none":                   {"", "", true},
		"to the first":              {"sha256:1", "", true},
		"to the second":             {"", "sha256:1", true},
		"another one":               {"sha256:1", "sha256:2", false},
		"another one than it's got": {"", "sha256:2", false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBox()
				b.setDigest("sha256:1")
				first := mustOpen(t, b, owned(b), with(c.before))
				warmUp(t, first, with(c.before), 1)
				gone(t, first)
				b.setStart(func(context.Context, *gateway.Function, bool) error { return errors.New("broken") })
				second := mustOpen(t, b, owned(b), with(c.after))
				synctest.Wait()
				assert.Equal(t, c.current, state(second, "f").Outdated == 0)
				if c.current && c.after == "" {
					apply(second, with("sha256:1"))
					synctest.Wait()
					assert.Zero(t, state(second, "f").Outdated, "that it is the image of the worker is no change")
					apply(second, with("sha256:2"))
					synctest.Wait()
					assert.Equal(t, 1, state(second, "f").Outdated)
				}
			})
		})
	}
}

// As long as a store does not tell which code there is, workers are not judged by it.
func TestAdopt_CodeNotKnownYet_KeepsTheWorkers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBox()
		coded := func(version string) *gateway.Function {
			fn := function("f", gateway.Scaling{MaxCapacity: 1, Queue: 1})
			fn.Code = &gateway.FunctionCode{Source: gateway.CodeSource{Location: "s3://b/k", Version: version}}
			fn.Generation = "code " + version
			return fn
		}
		first := mustOpen(t, b, owned(b), coded("1"))
		warmUp(t, first, coded("1"), 1)
		before := ids(state(first, "f"))
		gone(t, first)
		b.setStart(func(context.Context, *gateway.Function, bool) error { return errors.New("not known") })
		second := mustOpen(t, b, owned(b), coded(""))
		time.Sleep(time.Minute)
		l := mustAcquire(t, second, coded(""))
		assert.Equal(t, before[0], l.Worker().ID)
		l.Release()
		apply(second, coded("1"))
		time.Sleep(time.Minute)
		assert.Equal(t, before, ids(state(second, "f")))
		assert.Zero(t, state(second, "f").Outdated)
	})
}

func TestAdopt_SmallerCapacity_IsKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBox()
		fn := function("f", gateway.Scaling{MaxCapacity: 4, Queue: 10})
		first := mustOpen(t, b, owned(b), fn)
		warmUp(t, first, fn, 4)
		gone(t, first)
		second := mustOpen(t, b, owned(b), function("f", gateway.Scaling{MaxCapacity: 2, Queue: 10}))
		time.Sleep(time.Second)
		assert.Equal(t, 2, state(second, "f").Idle)
		starts, _, live := b.count()
		assert.Equal(t, []int{4, 2}, []int{starts, live})
	})
}

func TestAdopt_NothingIsStartedBeforeTheWorkersAreKnown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBox()
		fn := function("f", gateway.Scaling{MaxCapacity: 1, MinCapacity: 1, Queue: 10})
		first := mustOpen(t, b, owned(b), fn)
		time.Sleep(time.Second)
		before := ids(state(first, "f"))
		require.Len(t, before, 1)
		gone(t, first)

		away := gateway.Errorf(gateway.CodeUnavailable, "agent away")
		away.Reason = reason.AgentAway
		b.setListError(away)
		second := mustOpen(t, b, owned(b), fn)
		for _, within := range []time.Duration{6 * time.Second, time.Second} { // the second one is not kept waiting for what is known
			began := time.Now()
			_, err := second.Acquire(t.Context(), fn, "r")
			var known *gateway.Error
			require.ErrorAs(t, err, &known)
			assert.Equal(t, reason.AgentAway, known.Reason)
			var start *pool.StartError
			require.ErrorAs(t, err, &start)
			assert.LessOrEqual(t, time.Since(began), within)
		}
		b.setListError(nil)
		time.Sleep(time.Second)
		l := mustAcquire(t, second, fn)
		assert.Equal(t, before[0], l.Worker().ID)
		l.Release()
		starts, _, _ := b.count()
		assert.Equal(t, 1, starts)
	})
}

// An agent that starts beside the gateway is there a moment later: whoever comes in between waits.
func TestAdopt_AgentThatComesAMomentLater_NobodyIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBox()
		var logged bytes.Buffer
		opts := owned(b)
		opts.Logger = slog.New(slog.NewTextHandler(&logged, nil))
		b.setListError(errors.New("agent away"))
		fn := function("f", gateway.Scaling{MaxCapacity: 1, Queue: 1})
		m := mustOpen(t, b, opts, fn)
		waiting := acquireLater(t.Context(), m, fn)
		time.Sleep(500 * time.Millisecond)
		b.setListError(nil)
		r := <-waiting
		require.NoError(t, r.err)
		r.lease.Release()
		synctest.Wait()
		assert.Equal(t, 1, strings.Count(logged.String(), "the workers of before are not known"), "it is said once")
	})
}

func TestJanitor_LeavesWorkersOfOtherOwners(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBox()
		long := time.Now().Add(-time.Hour)
		for id, o := range map[string]pool.Observed{
			"theirs":  {Function: "f", Owner: "them", OwnerSilent: 9 * time.Minute},
			"dead":    {Function: "f", Owner: "they were", OwnerSilent: 11 * time.Minute},
			"nobodys": {Function: "f"},
			"mine":    {Function: "not configured any more", Owner: "me"},
			"stopped": {Function: "f", Owner: "me", Stopped: true},
		} {
			o.ID, o.CreatedAt = id, long
			b.containers[id] = o
		}
		m := mustOpen(t, b, owned(b), function("f", gateway.Scaling{MaxCapacity: 1}))
		synctest.Wait()
		for id, reason := range map[string]string{
			"theirs": "", "dead": "orphan", "nobodys": "orphan", "mine": "orphan",
		} {
			assert.Equal(t, reason, b.reason(id), id)
		}
		assert.NotEmpty(t, b.reason("stopped"), "it is destroyed once more, which waits for its end")
		assert.Empty(t, ids(state(m, "f")))
	})
}

func TestJanitor_BeforeTheConfigurationIsKnown_JudgesNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBox()
		b.containers["left"] = pool.Observed{ID: "left", Function: "f", Owner: "me", CreatedAt: time.Now().Add(-time.Hour)}
		m := pool.Open(b, owned(b))
		defer gone(t, m)
		time.Sleep(time.Hour)
		assert.Empty(t, b.reason("left"))
	})
}

// Freezing, reloads and requests go on while gateways come and go: no function ever has more than max_capacity.
func TestAdopt_GatewaysThatComeAndGo_NeverExceedCapacity(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBox()
		fn := function("f", gateway.Scaling{MaxCapacity: 3, MinCapacity: 1, Queue: 100})
		fn.Freeze = true
		b.setStart(slow(100 * time.Millisecond))
		b.setStop(func(context.Context, string) error { time.Sleep(50 * time.Millisecond); return nil })
		for round := range 20 {
			m := mustOpen(t, b, owned(b), fn)
			done := make(chan struct{})
			for i := range 6 {
				go func() {
					defer func() { done <- struct{}{} }()
					for n := range 10 {
						l, err := m.Acquire(context.Background(), fn, "r")
						if err != nil {
							return
						}
						time.Sleep(time.Duration(10*(i+1)) * time.Millisecond)
						if (n+i)%7 == 0 {
							l.Condemn("test")
						} else {
							l.Release()
						}
					}
				}()
			}
			time.Sleep(time.Duration(37*round%300) * time.Millisecond)
			gone(t, m)
			for range 6 {
				<-done
			}
		}
		peak, _ := b.peaks("f")
		assert.LessOrEqual(t, peak, 3)
	})
}
