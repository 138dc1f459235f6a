package pool_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/edge-serverless-box/esb/gateway"
	"github.com/edge-serverless-box/esb/gateway/pool"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// silentRegistry makes starts of functions whose names begin with "stuck" wait for ever.
func silentRegistry(b *box) {
	b.setStart(func(ctx context.Context, fn *gateway.Function, standby bool) error {
		if strings.HasPrefix(fn.Name, "stuck") {
			<-ctx.Done()
			return ctx.Err()
		}
		return slow(200*time.Millisecond)(ctx, fn, standby)
	})
}

func TestManager_ASilentRegistry_HurtsItsOwnFunctionAlone(t *testing.T) {
	for _, stuck := range []int{1, 8} {
		t.Run(fmt.Sprint(stuck, " of them"), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBox()
				silentRegistry(b)
				good := function("good", gateway.Scaling{MaxCapacity: 1, Queue: 5})
				fns := []*gateway.Function{good}
				for i := range stuck {
					fns = append(fns, function(fmt.Sprint("stuck", i), gateway.Scaling{MaxCapacity: 10, MinCapacity: 2, Queue: 10}))
				}
				m := mustOpen(t, b, pool.Options{MaxConcurrentStarts: 4}, fns...)
				for _, fn := range fns[1:] {
					for range 10 {
						acquireLater(t.Context(), m, fn)
					}
				}
				began := time.Now()
				l, err := m.Acquire(t.Context(), good, "r")
				require.NoError(t, err)
				// Four have their turns at once, and keep them for a second: of nine functions the last waits for two others.
				assert.LessOrEqual(t, time.Since(began), time.Duration(stuck/4)*time.Second+300*time.Millisecond)
				l.Release()
			})
		})
	}
}

func TestManager_ASilentRegistry_LeavesMinCapacityOfOthersAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBox()
		silentRegistry(b)
		good := function("good", gateway.Scaling{MaxCapacity: 3, MinCapacity: 3})
		m := mustOpen(t, b, pool.Options{MaxConcurrentStarts: 2},
			function("stuck1", gateway.Scaling{MaxCapacity: 10, MinCapacity: 3}), function("stuck2", gateway.Scaling{MaxCapacity: 10, MinCapacity: 3}), good)
		time.Sleep(15 * time.Second)
		synctest.Wait()
		assert.Equal(t, 3, state(m, "good").Idle)
	})
}

func TestManager_SlowEndsOfOneFunction_LeaveTheSlotOfAnotherAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBox()
		b.setStop(func(ctx context.Context, id string) error {
			if strings.HasPrefix(id, "many") {
				return slow(3*time.Second)(ctx, nil, false)
			}
			return nil
		})
		many := function("many", gateway.Scaling{MaxCapacity: 60, IdleTimeout: time.Second})
		one := function("one", gateway.Scaling{MaxCapacity: 1, Queue: 5})
		m := mustOpen(t, b, pool.Options{MaxConcurrentStarts: 4}, many, one)
		var leases []*pool.Lease
		for range 60 {
			leases = append(leases, mustAcquire(t, m, many))
		}
		for _, l := range leases {
			l.Release()
		}
		bad := mustAcquire(t, m, one)
		time.Sleep(time.Second)
		synctest.Wait()
		require.Equal(t, 60, state(m, "many").Stopping)
		bad.Condemn("test")
		began := time.Now()
		l, err := m.Acquire(t.Context(), one, "r")
		require.NoError(t, err)
		assert.Zero(t, time.Since(began), "an end whose slot is waited for has not to wait for those of another function")
		l.Release()
	})
}

func TestPool_EndsWhoseSlotsAreWaitedFor_GoFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBox()
		b.setStop(func(ctx context.Context, id string) error { return slow(900*time.Millisecond)(ctx, nil, false) })
		many := function("many", gateway.Scaling{MaxCapacity: 60, IdleTimeout: time.Second})
		others := function("others", gateway.Scaling{MaxCapacity: 60, IdleTimeout: time.Second})
		wanted := function("wanted", gateway.Scaling{MaxCapacity: 3, IdleTimeout: time.Second, Queue: 5})
		m := mustOpen(t, b, pool.Options{MaxConcurrentStarts: 2}, many, others, wanted)
		var leases []*pool.Lease
		for _, fn := range []*gateway.Function{many, others, wanted} {
			for range fn.Scaling.MaxCapacity {
				leases = append(leases, mustAcquire(t, m, fn))
			}
		}
		for _, l := range leases {
			l.Release()
		}
		time.Sleep(time.Second)
		synctest.Wait()
		require.Equal(t, 3, state(m, "wanted").Stopping)
		began := time.Now()
		for range 3 {
			// The slots of three ends, which queued behind 120 others before anybody waited for them.
			mustAcquire(t, m, wanted)
		}
		assert.LessOrEqual(t, time.Since(began), 5*time.Second)
	})
}

func TestPool_AContainerThatCannotBeDestroyed_KeepsItsSlot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBox()
		b.setStop(func(context.Context, string) error { return errors.New("it does not end") })
		fn := function("f", gateway.Scaling{MaxCapacity: 1, Queue: 5, AcquireTimeout: time.Minute})
		other := function("other", gateway.Scaling{MaxCapacity: 1})
		m := mustOpen(t, b, pool.Options{MaxConcurrentStarts: 1}, fn, other)
		mustAcquire(t, m, fn).Condemn("test")
		time.Sleep(10 * time.Minute)
		_, err := m.Acquire(t.Context(), fn, "r")
		assert.Equal(t, gateway.CodeUnavailable, gateway.ErrorCode(err))
		peak, _ := b.peaks("f")
		assert.Equal(t, 1, peak, "never more than max_capacity")
		s := state(m, "f")
		assert.Equal(t, 1, s.Stopping)
		assert.Contains(t, s.Error, "1 containers cannot be destroyed")
		mustAcquire(t, m, other).Release()
		b.setStop(nil)
		mustAcquire(t, m, fn).Release()
		assert.Empty(t, state(m, "f").Error)
	})
}

// A start that was begun for min_capacity, and that a request waits for now, goes before others as that of any request does.
func TestPool_APromotedStart_IsNotStarvedByRequestsOfOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBox()
		b.setStart(slow(500 * time.Millisecond))
		others := []*gateway.Function{function("o1", gateway.Scaling{MaxCapacity: 1}), function("o2", gateway.Scaling{MaxCapacity: 1})}
		m := mustOpen(t, b, pool.Options{MaxConcurrentStarts: 1}, others...)
		ctx, cancel := context.WithCancel(t.Context())
		var running sync.WaitGroup
		for _, fn := range others {
			running.Go(func() {
				for ctx.Err() == nil {
					if l, err := m.Acquire(ctx, fn, "r"); err == nil {
						l.Condemn("test")
					}
				}
			})
		}
		time.Sleep(time.Second)
		// One of them is in the line of all starts, the other one still in that of starts without a request.
		sc := gateway.Scaling{MaxCapacity: 1, MinCapacity: 1, Queue: 1, AcquireTimeout: 5 * time.Second}
		mine := []*gateway.Function{function("m1", sc), function("m2", sc)}
		apply(m, append(mine, others...)...)
		synctest.Wait()
		for _, ch := range []chan result{acquireLater(t.Context(), m, mine[0]), acquireLater(t.Context(), m, mine[1])} {
			assert.NoError(t, (<-ch).err)
		}
		cancel()
		running.Wait()
	})
}
