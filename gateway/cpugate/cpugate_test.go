package cpugate_test

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/edge-serverless-box/esb/gateway/cpugate"
)

var (
	crowded = cpugate.Load{CPUs: 2, Functions: 0.6, Runnable: 20}
	calm    = cpugate.Load{CPUs: 2, Functions: 0.6, Runnable: 1.5}
)

// crowd keeps n invocations of each of some functions running until the gate lets them go.
type crowd struct {
	t       *testing.T
	gate    *cpugate.Gate
	running map[string]*atomic.Int64
}

func newCrowd(t *testing.T) *crowd {
	return &crowd{t: t, gate: cpugate.New(nil), running: map[string]*atomic.Int64{}}
}

// ask has n callers of a function ask again and again until ctx ends; each invocation takes a second.
func (c *crowd) ask(ctx context.Context, function string, n int) {
	count := new(atomic.Int64)
	c.running[function] = count
	for range n {
		go func() {
			for ctx.Err() == nil {
				if c.gate.Enter(ctx, function, time.Hour, false) != nil {
					return
				}
				count.Add(1)
				time.Sleep(time.Second)
				count.Add(-1)
				c.gate.Leave(function)
			}
		}()
	}
	synctest.Wait()
}

func (c *crowd) total() (n int) {
	for _, r := range c.running {
		n += int(r.Load())
	}
	return n
}

// observe tells a load whose runnable threads are those of the invocations.
func (c *crowd) observe(times int) {
	for range times {
		c.gate.Observe(cpugate.Load{CPUs: 2, Functions: 0.6, Runnable: float64(c.total()) / 2})
		time.Sleep(200 * time.Millisecond)
		synctest.Wait()
	}
}

func TestGate_NobodyIsHeldBack_WhileThereIsEnough(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		c := newCrowd(t)
		c.ask(ctx, "f", 50)
		c.gate.Observe(calm)
		assert.Equal(t, 50, c.total())
		cancel()
		time.Sleep(time.Minute)
	})
}

func TestGate_Crowd_RunsAsManyAsKeepTheCPUBusy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		c := newCrowd(t)
		for i := range 6 {
			c.ask(ctx, fmt.Sprint("f", i), 10)
		}
		require.Equal(t, 60, c.total())
		c.observe(100)
		n := c.total()
		assert.LessOrEqual(t, n, 7, "three runnable for each of two CPUs, and a step of widening")
		assert.GreaterOrEqual(t, n, 4, "the CPU is kept busy")

		// One that was not there has its share at once, though others run all that may.
		begun := time.Now()
		require.NoError(t, c.gate.Enter(ctx, "quiet", time.Hour, false))
		assert.Zero(t, time.Since(begun))
		c.gate.Leave("quiet")
		cancel()
		time.Sleep(time.Minute)
	})
}

func TestGate_FewFunctions_HaveTheSame(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		c := newCrowd(t)
		c.ask(ctx, "greedy", 100)
		c.ask(ctx, "modest", 8)
		c.observe(200)
		greedy, modest := c.running["greedy"].Load(), c.running["modest"].Load()
		assert.InDelta(t, greedy, modest, 3, "greedy runs %d, modest %d", greedy, modest)
		cancel()
		time.Sleep(time.Minute)
	})
}

func TestGate_NothingGained_Opens(t *testing.T) {
	for _, n := range []int{5, 6, 11, 50} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithCancel(t.Context())
				c := newCrowd(t)
				c.ask(ctx, "waits for others", n)
				// Somebody else has many threads.
				for range 60 {
					c.gate.Observe(crowded)
					time.Sleep(200 * time.Millisecond)
				}
				synctest.Wait()
				assert.Equal(t, n, c.total(), "all run again")
				cancel()
				time.Sleep(time.Minute)
			})
		})
	}
}

// Each function may run one, which can be more than the CPU can do: that all run at once would be worse.
func TestGate_MoreFunctionsThanMayRun_StaysNarrow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		c := newCrowd(t)
		for i := range 20 {
			c.ask(ctx, fmt.Sprint("f", i), 10)
		}
		c.observe(30)
		wide := 0
		for range 300 {
			c.observe(1)
			assert.LessOrEqual(t, c.total(), 100, "never all 200")
			if c.total() > 25 {
				wide++
			}
		}
		assert.Less(t, wide, 150, "readings in which more than one each ran")
		cancel()
		time.Sleep(time.Minute)
	})
}

// The agent says nothing while functions are quiet, also when some still wait.
func TestOpen_SourceHasNothingToSay_OpensTheGate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &source{loads: make(chan cpugate.Load)}
		g := cpugate.Open(s, slog.New(slog.DiscardHandler))
		for range 10 {
			require.NoError(t, g.Enter(t.Context(), "f", time.Minute, false))
		}
		s.loads <- crowded
		synctest.Wait()
		began := time.Now()
		require.NoError(t, g.Enter(t.Context(), "f", time.Minute, false))
		assert.Less(t, time.Since(began), 5*time.Second)
		g.Close()
	})
}

// What a function waits for does not wait for the function.
func TestGate_Inner_AlwaysMay(t *testing.T) {
	g := cpugate.New(slog.New(slog.DiscardHandler))
	for range 10 {
		require.NoError(t, g.Enter(t.Context(), "f", time.Minute, false))
	}
	for range 10 {
		g.Observe(crowded)
	}
	require.ErrorIs(t, g.Enter(t.Context(), "f", time.Nanosecond, false), cpugate.ErrNoTurn)
	require.NoError(t, g.Enter(t.Context(), "f", time.Nanosecond, true))
	assert.Equal(t, 11, g.Running())
}

func TestGate_NobodyWaits_Opens(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		c := newCrowd(t)
		c.ask(ctx, "f", 50)
		c.observe(17)
		assert.Less(t, c.total(), 40)
		cancel()
		time.Sleep(time.Minute)
		for range 30 {
			c.gate.Observe(calm)
		}
		ctx, cancel = context.WithCancel(t.Context())
		c.ask(ctx, "g", 50)
		assert.Equal(t, 50, c.total())
		cancel()
		time.Sleep(time.Minute)
	})
}

// An invocation that waits for another function's must not keep that one out.
func TestGate_FunctionWithNothingRunning_AlwaysMay(t *testing.T) {
	g := cpugate.New(nil)
	for range 10 {
		require.NoError(t, g.Enter(t.Context(), "caller", time.Minute, false))
	}
	for range 30 {
		g.Observe(crowded)
	}
	require.NoError(t, g.Enter(t.Context(), "callee", time.Nanosecond, false))
	assert.ErrorIs(t, g.Enter(t.Context(), "caller", time.Nanosecond, false), cpugate.ErrNoTurn)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	assert.ErrorIs(t, g.Enter(ctx, "caller", time.Hour, false), context.Canceled)
}

type source struct{ loads chan cpugate.Load }

func (s *source) WatchCPU(ctx context.Context, tell func(cpugate.Load)) error {
	for {
		select {
		case l, ok := <-s.loads:
			if !ok {
				return context.DeadlineExceeded
			}
			tell(l)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func TestOpen_SourceIsGone_OpensTheGate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &source{loads: make(chan cpugate.Load)}
		g := cpugate.Open(s, nil)
		for range 10 {
			require.NoError(t, g.Enter(t.Context(), "f", time.Minute, false))
		}
		s.loads <- crowded
		synctest.Wait()
		require.ErrorIs(t, g.Enter(t.Context(), "f", time.Second, false), cpugate.ErrNoTurn)
		close(s.loads)
		synctest.Wait()
		require.NoError(t, g.Enter(t.Context(), "f", time.Second, false))
		g.Close()
	})
}

func TestGate_AllAtOnce_NobodyIsForgotten(t *testing.T) {
	g := cpugate.New(slog.New(slog.DiscardHandler))
	var done, observing sync.WaitGroup
	var running, served atomic.Int64
	stop := make(chan struct{})
	observing.Go(func() {
		for {
			select {
			case <-stop:
				return
			case <-time.After(time.Millisecond):
				g.Observe([]cpugate.Load{crowded, calm}[rand.N(2)])
			}
		}
	})
	for i := range 64 {
		done.Go(func() {
			for range 200 {
				ctx, cancel := context.WithTimeout(t.Context(), time.Duration(rand.N(10))*time.Millisecond)
				name := fmt.Sprint("f", i%5)
				if g.Enter(ctx, name, time.Duration(rand.N(10))*time.Millisecond, rand.N(10) == 0) == nil {
					running.Add(1)
					served.Add(1)
					running.Add(-1)
					g.Leave(name)
				}
				cancel()
			}
		})
	}
	done.Wait()
	close(stop)
	observing.Wait()
	assert.Positive(t, served.Load())
	require.NoError(t, g.Enter(t.Context(), "last", time.Nanosecond, false), "a function with nothing running always may")
}

func TestGate_Nil_IsOpen(t *testing.T) {
	var g *cpugate.Gate
	require.NoError(t, g.Enter(t.Context(), "f", 0, false))
	g.Leave("f")
}

func BenchmarkGate_Open(b *testing.B) {
	g := cpugate.New(nil)
	b.ReportAllocs()
	for b.Loop() {
		if g.Enter(b.Context(), "f", time.Second, false) == nil {
			g.Leave("f")
		}
	}
}
