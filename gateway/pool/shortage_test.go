package pool_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/edge-serverless-box/esb/gateway"
	"github.com/edge-serverless-box/esb/gateway/pool"
)

// shortBox opens a Manager of functions with one idle worker each, "a" being idle for longest, and has its agent say each second that
// there is a shortage for as long as short says so.
func shortBox(t *testing.T, b *box, short func(live int) pool.Shortage, fns ...*gateway.Function) *pool.Manager {
	t.Helper()
	e := &exits{told: make(chan string), short: make(chan pool.Shortage)}
	m := mustOpen(t, b, pool.Options{HeartbeatInterval: time.Hour, Watcher: e}, fns...)
	for _, fn := range fns {
		mustAcquire(t, m, fn).Release()
		time.Sleep(10 * time.Second)
	}
	go func() {
		for {
			select {
			case <-time.After(time.Second):
			case <-t.Context().Done():
				return
			}
			_, _, live := b.count()
			select {
			case e.short <- short(live):
			case <-t.Context().Done():
				return
			}
		}
	}()
	return m
}

func letters(n int, sc gateway.Scaling) []*gateway.Function {
	var fns []*gateway.Function
	for i := range n {
		fns = append(fns, function(string(rune('a'+i)), sc))
	}
	return fns
}

// excess is a shortage while more than so many containers live.
func excess(most int) func(live int) pool.Shortage {
	return func(live int) pool.Shortage { return pool.Shortage{Bytes: uint64(max(0, live-most)) << 20} }
}

// TestShortage_IdleWorkersGoUntilItIsOver, those first that are worth least, and not many more than needed.
func TestShortage_IdleWorkersGoUntilItIsOver(t *testing.T) {
	for _, c := range []struct{ most, left int }{{8, 8}, {7, 7}, {6, 5}, {1, 1}, {0, 0}} {
		t.Run(fmt.Sprint(c.most, " fit"), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBox()
				b.setStop(func(ctx context.Context, _ string) error { return slow(1500*time.Millisecond)(ctx, nil, false) })
				fns := letters(8, gateway.Scaling{MaxCapacity: 1, Queue: 5})
				m := shortBox(t, b, excess(c.most), fns...)
				time.Sleep(30 * time.Second)
				for i, fn := range fns {
					want := 0
					if i >= 8-c.left {
						want = 1
					}
					assert.Equal(t, want, state(m, fn.Name).Idle, fn.Name)
				}
				if c.left < 8 {
					assert.Equal(t, "functions hold more memory than there is for them", b.reason("a-1"))
				}
			})
		})
	}
}

// TestShortage_WorkersAtWorkStay, and those that min_capacity keeps unless the machine runs out.
func TestShortage_WorkersAtWorkStay(t *testing.T) {
	for _, machine := range []bool{false, true} {
		t.Run(fmt.Sprint("machine ", machine), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBox()
				var over atomic.Bool
				fns := letters(3, gateway.Scaling{MaxCapacity: 2, Queue: 5})
				fns[0].Scaling.MinCapacity = 1
				m := shortBox(t, b, func(int) pool.Shortage {
					if over.Load() {
						return pool.Shortage{}
					}
					return pool.Shortage{Bytes: 1 << 30, Machine: machine}
				}, fns...)
				busy := mustAcquire(t, m, fns[1])
				time.Sleep(10 * time.Second)
				assert.Equal(t, 1, state(m, "b").Busy)
				assert.Zero(t, state(m, "c").Idle)
				starts, _, _ := b.count()
				if machine {
					assert.Zero(t, state(m, "a").Idle)
				} else {
					assert.Equal(t, 1, state(m, "a").Idle)
				}
				assert.Equal(t, 3, starts, "what was given up is not started again without a request")
				mustAcquire(t, m, fns[2]).Release()
				busy.Release()
				time.Sleep(10 * time.Second)
				assert.Zero(t, state(m, "b").Idle+state(m, "c").Idle, "they go once they have no work")
				over.Store(true)
				time.Sleep(time.Minute)
				assert.Equal(t, 1, state(m, "a").Idle)
			})
		})
	}
}

// TestShortage_AgentGoesAway_IsNotRemembered: only what it says counts.
func TestShortage_AgentGoesAway_IsNotRemembered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, e := newBox(), &exits{told: make(chan string), short: make(chan pool.Shortage)}
		fns := letters(8, gateway.Scaling{MaxCapacity: 1, Queue: 5})
		m := mustOpen(t, b, pool.Options{HeartbeatInterval: time.Hour, Watcher: e}, fns...)
		for _, fn := range fns {
			mustAcquire(t, m, fn).Release()
		}
		idle := func() int {
			synctest.Wait()
			n := 0
			for _, fn := range fns {
				n += state(m, fn.Name).Idle
			}
			return n
		}
		e.short <- pool.Shortage{Bytes: 1}
		require.Equal(t, 7, idle())
		e.short <- pool.Shortage{Bytes: 1}
		require.Equal(t, 5, idle())
		e.told <- ""
		time.Sleep(time.Minute)
		require.Equal(t, 5, idle())
		e.short <- pool.Shortage{Bytes: 1}
		require.Equal(t, 4, idle(), "it begins with one")
	})
}

// TestShortage_AgentIsStartedAgain_GoesOn until the new one says that it is over, or nothing of it.
func TestShortage_AgentIsStartedAgain_GoesOn(t *testing.T) {
	for _, says := range []bool{false, true} {
		t.Run(fmt.Sprint("it says so ", says), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var out bytes.Buffer
				b, e := newBox(), &exits{told: make(chan string), short: make(chan pool.Shortage)}
				mustOpen(t, b, pool.Options{HeartbeatInterval: time.Hour, Watcher: e, Logger: slog.New(slog.NewTextHandler(&out, nil))})
				times := func(text string) int {
					synctest.Wait()
					return strings.Count(out.String(), text)
				}
				const begins, over = "functions have grown beyond", "there is memory for functions again"
				e.short <- pool.Shortage{Bytes: 1}
				e.told <- "" // it is away
				time.Sleep(3 * time.Second)
				assert.Zero(t, times(over))
				for range 20 {
					e.short <- pool.Shortage{Bytes: 1}
					time.Sleep(time.Second)
				}
				assert.Equal(t, []int{1, 0}, []int{times(begins), times(over)})
				if says {
					e.short <- pool.Shortage{}
					assert.Equal(t, 1, times(over))
				}
				e.told <- ""
				time.Sleep(20 * time.Second)
				assert.Equal(t, 1, times(over))
			})
		})
	}
}
