package async

import (
	"bytes"
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/edge-serverless-box/esb/gateway"
)

// waits is how many wait for a function.
func (p *pace) waits(function string) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	if l := p.lines[function]; l != nil {
		return len(l.waiting)
	}
	return 0
}

func TestPace_SmallEvent_WaitsForOneOfAnother(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPace(1000, 100)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		var let atomic.Int64
		var all sync.WaitGroup
		defer all.Wait()
		defer cancel()
		for range 50 {
			all.Go(func() {
				if p.wait(ctx, "big", 100, 0) == nil {
					let.Add(1)
				}
			})
		}
		eventually(t, "the line", func() bool { return p.waits("big")+int(let.Load()) == 50 && p.waits("big") > 40 })
		for range 5 {
			before := p.waits("big")
			require.NoError(t, p.wait(t.Context(), "small", 2, 0))
			assert.LessOrEqual(t, before-p.waits("big"), 2, "at most the one that was to go in, and perhaps one since")
		}
		assert.Positive(t, p.waits("big"))
	})
}

func TestPace_TwoWithLargeEvents_ShareAlike_WhoeverCameFirst(t *testing.T) {
	p := newPace(20_000, 100)
	ctx, cancel := context.WithCancel(t.Context())
	var all sync.WaitGroup
	defer all.Wait()
	defer cancel()
	var in [2]atomic.Int64
	press := func(i int) {
		for range 20 {
			all.Go(func() {
				for p.wait(ctx, fmt.Sprint(i), 100, 0) == nil {
					in[i].Add(1)
				}
			})
		}
		// Those who leave have taken nothing from the others.
		for range 5 {
			all.Go(func() {
				for ctx.Err() == nil {
					if p.wait(ctx, fmt.Sprint(i), 100, time.Millisecond) == nil {
						in[i].Add(1)
					}
				}
			})
		}
	}
	press(0)
	eventually(t, "the first goes on alone", func() bool { return in[0].Load() >= 50 })
	press(1)
	eventually(t, "both wait", func() bool { return p.waits("1") >= 10 && p.waits("0") >= 10 })
	first, second := in[0].Load(), in[1].Load()
	eventually(t, "200 more", func() bool { return in[0].Load()-first+in[1].Load()-second >= 200 })
	assert.Greater(t, in[0].Load()-first, int64(60))
	assert.Greater(t, in[1].Load()-second, int64(60))
}

func TestPace_WhoLeaves_FreesTheTurn(t *testing.T) {
	p := newPace(1, 100)
	require.NoError(t, p.wait(t.Context(), "f", 100, 0))
	ctx, cancel := context.WithCancel(t.Context())
	left := make(chan error)
	go func() { left <- p.wait(ctx, "f", 100, 0) }()
	eventually(t, "it waits", func() bool { return p.waits("f") == 1 })
	done := make(chan error)
	go func() { done <- p.wait(t.Context(), "g", 1, 0) }()
	eventually(t, "the other waits behind it", func() bool { return p.waits("g") == 1 || len(done) > 0 })
	cancel()
	require.ErrorIs(t, <-left, context.Canceled)
	require.NoError(t, <-done, "100 seconds earlier")
	assert.Zero(t, p.waits("f")+p.waits("g"))
	assert.ErrorContains(t, p.wait(t.Context(), "f", 90, time.Second), "would not come", "at once")
}

// One function's large events must not hold up another's small ones, nor make them be refused.
func TestQueue_LargeEventsOfOneFunction_DoNotHoldUpAnother(t *testing.T) {
	inv := newInvoker()
	opts := options(t.TempDir(), inv)
	opts.MaxBytes = 1 << 30
	q := mustOpen(t, opts)
	q.pace = newPace(2<<20, 1<<20)
	big, small := function("big"), function("small")
	apply(q, big, small)
	body := append(append([]byte(`"`), bytes.Repeat([]byte("x"), gateway.MaxAsyncEvent-2)...), '"')
	ctx, cancel := context.WithCancel(t.Context())
	var all sync.WaitGroup
	defer all.Wait()
	defer cancel()
	var refusals atomic.Int64
	for i := range 60 {
		all.Go(func() {
			for n := 0; ctx.Err() == nil; n++ {
				if q.Enqueue(ctx, big, gateway.Invocation{RequestID: fmt.Sprintf("b%d-%d", i, n), Payload: body}) != nil {
					refusals.Add(1)
					time.Sleep(10 * time.Millisecond)
				}
			}
		})
	}
	eventually(t, "more comes than goes in", func() bool { return refusals.Load() > 0 && q.pace.waits("big") >= 10 })
	for i := range 10 {
		enqueue(t, q, small, fmt.Sprint("s", i), `{}`)
		assert.GreaterOrEqual(t, q.pace.waits("big"), 5, "before those who wait already")
	}
}
