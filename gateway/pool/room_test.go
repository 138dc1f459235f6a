package pool_test

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/edge-serverless-box/esb/gateway"
	"github.com/edge-serverless-box/esb/gateway/pool"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// busyFunctions opens a Manager whose functions have one worker each, which is at work.
func busyFunctions(t *testing.T, n int, opts pool.Options) (*pool.Manager, []*gateway.Function, []*pool.Lease) {
	t.Helper()
	var fns []*gateway.Function
	for i := range n {
		fns = append(fns, function(fmt.Sprintf("f%02d", i), gateway.Scaling{MaxCapacity: 1, Queue: 100, AcquireTimeout: time.Hour}))
	}
	m := mustOpen(t, newBox(), opts, fns...)
	var leases []*pool.Lease
	for _, fn := range fns {
		leases = append(leases, mustAcquire(t, m, fn))
	}
	return m, fns, leases
}

func TestRoom_AFunctionAlone_FillsIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, fns, _ := busyFunctions(t, 2, pool.Options{MaxWaiting: 10})
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		for range 10 {
			require.NoError(t, m.Admit(fns[0]))
			acquireLater(ctx, m, fns[0])
		}
		assert.Equal(t, 10, state(m, "f00").Waiting)
		began := time.Now()
		assert.Equal(t, gateway.CodeThrottled, gateway.ErrorCode(m.Admit(fns[0])))
		_, err := m.Acquire(ctx, fns[0], "r")
		assert.Equal(t, gateway.CodeThrottled, gateway.ErrorCode(err))
		assert.Zero(t, time.Since(began), "a refusal waits for nothing")
		assert.NoError(t, m.Admit(fns[1]), "another function has its share all the same")
	})
}

func TestRoom_ANewcomer_TakesThePlaceOfTheOneThatCameLast(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, fns, leases := busyFunctions(t, 2, pool.Options{MaxWaiting: 4})
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		var greedy []chan result
		for range 4 {
			greedy = append(greedy, acquireLater(ctx, m, fns[0]))
		}
		first, second := acquireLater(ctx, m, fns[1]), acquireLater(ctx, m, fns[1])
		assert.Equal(t, gateway.CodeThrottled, gateway.ErrorCode((<-greedy[3]).err), "the youngest goes first")
		assert.Equal(t, gateway.CodeThrottled, gateway.ErrorCode((<-greedy[2]).err))
		_, err := m.Acquire(ctx, fns[1], "r")
		assert.Equal(t, gateway.CodeThrottled, gateway.ErrorCode(err), "two of four are its share")
		leases[1].Release()
		l := (<-first).lease
		require.NotNil(t, l, "who took a place is served like anybody")
		l.Release()
		require.NotNil(t, (<-second).lease)
		assert.NoError(t, m.Admit(fns[0]), "its places are free again")
		cancel()
	})
}

func TestRoom_ManyFunctionsThatWantAll_ShareAndLeaveAPlaceForTheNext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const functions, places = 20, 100
		m, fns, leases := busyFunctions(t, functions+1, pool.Options{MaxWaiting: places})
		ctx, cancel := context.WithCancel(t.Context())
		for range 3 {
			// One after the other, so that the first of them have it all in the beginning.
			for _, fn := range fns[:functions] {
				for range places {
					acquireLater(ctx, m, fn)
				}
			}
		}
		total := 0
		for _, fn := range fns[:functions] {
			n := state(m, fn.Name).Waiting
			total += n
			assert.Equal(t, places/functions, n, fn.Name)
		}
		assert.Equal(t, places, total)
		quiet := acquireLater(ctx, m, fns[functions])
		leases[functions].Release()
		require.NotNil(t, (<-quiet).lease)
		cancel()
		synctest.Wait()
		// All places have come back.
		ctx, cancel = context.WithCancel(t.Context())
		defer cancel()
		for range places {
			acquireLater(ctx, m, fns[0])
		}
		assert.Equal(t, places, state(m, "f00").Waiting)
	})
}

func TestRoom_PlacesComeBack_HoweverAWaitEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, fns, leases := busyFunctions(t, 2, pool.Options{MaxWaiting: 2})
		for range 20 {
			ctx, cancel := context.WithCancel(t.Context())
			rich := []chan result{acquireLater(ctx, m, fns[0]), acquireLater(ctx, m, fns[0])}
			// One is pushed out while the other leaves, and one is served.
			go cancel()
			poor := acquireLater(t.Context(), m, fns[1])
			go leases[1].Release()
			for _, ch := range rich {
				require.Error(t, (<-ch).err)
			}
			leases[1] = (<-poor).lease
			require.NotNil(t, leases[1])
			assert.Zero(t, state(m, "f00").Waiting)
		}
		apply(m, fns[1])
		assert.Zero(t, state(m, "f00").Waiting)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		for range 2 {
			acquireLater(ctx, m, fns[1])
		}
		assert.Equal(t, 2, state(m, "f01").Waiting, "the whole room is free")
	})
}
