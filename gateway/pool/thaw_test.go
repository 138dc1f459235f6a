package pool_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/edge-serverless-box/esb/api/reason"
	"github.com/edge-serverless-box/esb/gateway"
	"github.com/edge-serverless-box/esb/gateway/pool"
)

// slowThaw takes its time to thaw, and may fail then.
type slowThaw struct {
	*box
	takes time.Duration
	err   error
}

func (s *slowThaw) Thaw(ctx context.Context, id string) error {
	select {
	case <-time.After(s.takes):
	case <-ctx.Done():
		return ctx.Err()
	}
	if s.err != nil {
		return s.err
	}
	return s.box.Thaw(ctx, id)
}

// TestThaw_RequestHasNoTimeLeft_ItIsToldSo, and the worker is the next one's.
func TestThaw_RequestHasNoTimeLeft_ItIsToldSo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, fn := newBox(), freezing("f")
		m := mustOpen(t, b, pool.Options{Freezer: &slowThaw{box: b, takes: 3 * time.Second}}, fn)
		l := mustAcquire(t, m, fn)
		l.Release()
		time.Sleep(time.Second)
		require.Equal(t, 1, state(m, "f").Frozen)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		began := time.Now()
		_, err := m.Acquire(ctx, fn, "r")
		assert.Equal(t, gateway.CodeIntegrationTimeout, gateway.ErrorCode(err), "%v", err)
		assert.Equal(t, time.Second, time.Since(began))
		next := mustAcquire(t, m, fn)
		assert.Equal(t, l.Worker().ID, next.Worker().ID)
		assert.Equal(t, 3*time.Second, time.Since(began), "it need not be thawed again")
		next.Release()
	})
}

// TestThaw_Fails_TheRequestStillHasOneAcquireTimeout: it does not begin anew with the next worker.
func TestThaw_Fails_TheRequestStillHasOneAcquireTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, fn := newBox(), freezing("f")
		fn.Scaling.AcquireTimeout = 6 * time.Second
		m := mustOpen(t, b, pool.Options{Freezer: &slowThaw{box: b, takes: 4 * time.Second, err: errors.New("no")}}, fn)
		mustAcquire(t, m, fn).Release()
		time.Sleep(time.Second)
		require.Equal(t, 1, state(m, "f").Frozen)
		b.setStart(slow(time.Minute))
		began := time.Now()
		_, err := m.Acquire(t.Context(), fn, "r")
		assert.Equal(t, gateway.CodeUnavailable, gateway.ErrorCode(err), "%v", err)
		assert.Equal(t, 6*time.Second, time.Since(began))
	})
}

// TestThaw_TakesLongerThanAcquireTimeout_TheRequestIsToldInTime: an agent that is away is waited for no longer, and the worker is there
// for the next request.
func TestThaw_TakesLongerThanAcquireTimeout_TheRequestIsToldInTime(t *testing.T) {
	away := gateway.Errorf(gateway.CodeUnavailable, "no connection")
	away.Reason = reason.AgentAway
	for name, err := range map[string]error{"slow": nil, "away": away} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b, fn := newBox(), freezing("f")
				fn.Scaling.AcquireTimeout = 2 * time.Second
				freezer := &slowThaw{box: b, takes: 3 * time.Second, err: err}
				m := mustOpen(t, b, pool.Options{Freezer: freezer}, fn)
				mustAcquire(t, m, fn).Release()
				time.Sleep(time.Second)
				require.Equal(t, 1, state(m, "f").Frozen)
				began := time.Now()
				_, failed := m.Acquire(t.Context(), fn, "r")
				assert.Equal(t, 2*time.Second, time.Since(began))
				assert.Equal(t, gateway.CodeUnavailable, gateway.ErrorCode(failed), "%v", failed)
				assert.ErrorContains(t, failed, "acquire_timeout of 2s")
				time.Sleep(10 * time.Second)
				synctest.Wait()
				freezer.takes, freezer.err = 0, nil
				_, stops, _ := b.count()
				assert.Zero(t, stops, "the worker is the next one's")
				mustAcquire(t, m, fn).Release()
			})
		})
	}
}

// TestThaw_WithoutTheAgent_ServesWhileItIsAway, and the agent is asked when that has failed.
func TestThaw_WithoutTheAgent_ServesWhileItIsAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, fn := newBox(), freezing("f")
		var fails error
		b.atOnce = func() error { return fails }
		away := gateway.Errorf(gateway.CodeUnavailable, "no connection")
		away.Reason = reason.AgentAway
		freezer := &slowThaw{box: b, takes: 3 * time.Second, err: away}
		m := mustOpen(t, b, pool.Options{Freezer: freezer}, fn)
		mustAcquire(t, m, fn).Release()
		var id string
		for range 2 {
			time.Sleep(time.Second)
			require.Equal(t, 1, state(m, "f").Frozen)
			began := time.Now()
			l := mustAcquire(t, m, fn)
			assert.Zero(t, time.Since(began))
			id = l.Worker().ID
			frozen, calls := b.isFrozen(id)
			assert.False(t, frozen)
			assert.Zero(t, calls)
			assert.Zero(t, state(m, "f").Frozen)
			l.Release()
		}
		time.Sleep(time.Second)
		fails, freezer.err = errors.New("no such file"), nil
		began := time.Now()
		l := mustAcquire(t, m, fn)
		assert.Equal(t, 3*time.Second, time.Since(began))
		frozen, calls := b.isFrozen(id)
		assert.False(t, frozen)
		assert.Equal(t, 1, calls)
		l.Release()
	})
}

// TestThaw_AFreezeThatMayStillCome_IsOvertakenByTheAgentAlone: who writes the file at once would be overtaken by it.
func TestThaw_AFreezeThatMayStillCome_IsOvertakenByTheAgentAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, fn := newBox(), freezing("f")
		b.atOnce = func() error {
			t.Error("it is not known whether the freeze is over")
			return nil
		}
		b.onFreeze = func(context.Context, string) error { return errors.New("no answer") }
		m := mustOpen(t, b, pool.Options{Freezer: b}, fn)
		mustAcquire(t, m, fn).Release()
		time.Sleep(time.Second)
		mustAcquire(t, m, fn).Release()
		_, calls := b.isFrozen("f-1")
		assert.Equal(t, 1, calls)
	})
}

// TestThaw_AgentIsAway_TheWorkersStay: that is no fault of theirs, and they serve again when it is back.
func TestThaw_AgentIsAway_TheWorkersStay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, fn := newBox(), freezing("f")
		fn.Scaling.MaxCapacity = 5
		away := gateway.Errorf(gateway.CodeUnavailable, "no connection")
		away.Reason = reason.AgentAway
		freezer := &slowThaw{box: b, takes: time.Second, err: away}
		m := mustOpen(t, b, pool.Options{Freezer: freezer}, fn)
		warm(t, m, fn, 5)
		time.Sleep(time.Second)
		require.Equal(t, 5, state(m, "f").Frozen)
		b.setStart(func(context.Context, *gateway.Function, bool) error { return away })
		for i := range 3 {
			began := time.Now()
			_, err := m.Acquire(t.Context(), fn, "r")
			var known *gateway.Error
			require.ErrorAs(t, err, &known)
			assert.Equal(t, gateway.CodeUnavailable, known.Code)
			assert.Equal(t, reason.AgentAway, known.Reason)
			assert.Positive(t, known.RetryAfter)
			if i == 0 {
				assert.InDelta(t, 6, time.Since(began).Seconds(), 1, "an agent that starts again is waited for")
			} else {
				assert.Equal(t, time.Second, time.Since(began), "it has asked one worker, not one after the other")
			}
			var start *pool.StartError
			assert.NotErrorAs(t, err, &start, "no evidence for the circuit")
		}
		s := state(m, "f")
		assert.Equal(t, []int{5, 5, 0, 0}, []int{s.Idle, s.Frozen, s.Stopping, s.Busy})

		freezer.err = nil
		starts, stops, _ := b.count()
		mustAcquire(t, m, fn).Release()
		assert.Equal(t, []int{5, 0}, []int{starts, stops})
	})
}
