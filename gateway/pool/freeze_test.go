package pool_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/edge-serverless-box/esb/gateway"
	"github.com/edge-serverless-box/esb/gateway/pool"
)

func freezing(name string) *gateway.Function {
	fn := function(name, gateway.Scaling{MaxCapacity: 1, Queue: 10})
	fn.Freeze = true
	return fn
}

func mustAcquireOne(t *testing.T, m *pool.Manager, fn *gateway.Function) *pool.Lease {
	t.Helper()
	l, err := m.Acquire(t.Context(), fn, "r")
	require.NoError(t, err)
	return l
}

func waitFrozen(t *testing.T, m *pool.Manager, n int) {
	t.Helper()
	require.Eventually(t, func() bool { return m.Snapshot()[0].Frozen == n }, time.Minute, time.Millisecond)
}

func TestFreeze_IdleWorker_StandsStillUntilItIsLent(t *testing.T) {
	b, fn := newBox(), freezing("f")
	m := mustOpen(t, b, pool.Options{Freezer: b}, fn)
	l := mustAcquireOne(t, m, fn)
	id := l.Worker().ID
	l.Release()
	waitFrozen(t, m, 1)
	frozen, thaws := b.isFrozen(id)
	assert.True(t, frozen)
	assert.Zero(t, thaws)
	s := m.Snapshot()[0]
	assert.Equal(t, 1, s.Idle)
	assert.True(t, s.Workers[0].Frozen)

	l = mustAcquireOne(t, m, fn)
	assert.Equal(t, id, l.Worker().ID)
	frozen, thaws = b.isFrozen(id)
	assert.False(t, frozen, "it runs before it gets the request")
	assert.Equal(t, 1, thaws)
	assert.False(t, m.Snapshot()[0].Workers[0].Frozen)
	l.Release()
	waitFrozen(t, m, 1)
}

func TestFreeze_BusyOrOtherFunction_IsLeftAlone(t *testing.T) {
	b, other := newBox(), function("f", gateway.Scaling{MaxCapacity: 1})
	b.onFreeze = func(context.Context, string) error {
		t.Error("nothing is to be frozen")
		return nil
	}
	m := mustOpen(t, b, pool.Options{Freezer: b}, other)
	mustAcquireOne(t, m, other).Release()
	l := mustAcquireOne(t, m, other)
	_, thaws := b.isFrozen(l.Worker().ID)
	assert.Zero(t, thaws)
	l.Release()
}

func TestFreeze_RequestComesMeanwhile_WaitsAndThaws(t *testing.T) {
	b, fn := newBox(), freezing("f")
	begun, goOn := make(chan struct{}), make(chan struct{})
	b.onFreeze = func(context.Context, string) error {
		close(begun)
		<-goOn
		return nil
	}
	m := mustOpen(t, b, pool.Options{Freezer: b}, fn)
	mustAcquireOne(t, m, fn).Release()
	<-begun
	got := make(chan *pool.Lease)
	go func() {
		l, err := m.Acquire(context.Background(), fn, "r")
		assert.NoError(t, err)
		got <- l
	}()
	require.Eventually(t, func() bool { return m.Snapshot()[0].Busy == 1 }, time.Minute, time.Millisecond)
	select {
	case <-got:
		require.Fail(t, "lent while it was being frozen")
	default:
	}
	b.mu.Lock()
	b.onFreeze = nil
	b.mu.Unlock()
	close(goOn)
	l := <-got
	frozen, thaws := b.isFrozen(l.Worker().ID)
	assert.False(t, frozen)
	assert.Equal(t, 1, thaws)
	l.Release()
}

func TestFreeze_WorkerStillAtWork_IsTriedAgain(t *testing.T) {
	b, fn := newBox(), freezing("f")
	tries := make(chan struct{}, 10)
	b.onFreeze = func(context.Context, string) error {
		tries <- struct{}{}
		if len(tries) < 3 {
			return pool.ErrWorking
		}
		return nil
	}
	m := mustOpen(t, b, pool.Options{Freezer: b}, fn)
	mustAcquireOne(t, m, fn).Release()
	waitFrozen(t, m, 1)
	assert.Len(t, tries, 3)
}

func TestFreeze_AgentFails_WorkerIsThawedAllTheSame(t *testing.T) {
	b, fn := newBox(), freezing("f")
	failed := make(chan struct{}, 10)
	b.onFreeze = func(context.Context, string) error {
		failed <- struct{}{}
		return errors.New("no answer")
	}
	m := mustOpen(t, b, pool.Options{Freezer: b}, fn)
	mustAcquireOne(t, m, fn).Release()
	<-failed
	l := mustAcquireOne(t, m, fn)
	_, thaws := b.isFrozen(l.Worker().ID)
	assert.Equal(t, 1, thaws, "the call may have done its work before its answer was lost")
	l.Release()
}

// A worker that nobody could freeze runs, and serves without being thawed: the agent is away, and could not thaw it.
func TestFreeze_AgentIsAway_WorkerThatRunsServes(t *testing.T) {
	b, fn := newBox(), freezing("f")
	asked := make(chan struct{}, 10)
	b.onFreeze = func(context.Context, string) error {
		asked <- struct{}{}
		return fmt.Errorf("agent at 127.0.0.1:1: %w", pool.ErrNotAsked)
	}
	m := mustOpen(t, b, pool.Options{Freezer: b}, fn)
	mustAcquireOne(t, m, fn).Release()
	<-asked
	l := mustAcquireOne(t, m, fn)
	_, thaws := b.isFrozen(l.Worker().ID)
	assert.Zero(t, thaws)
	l.Release()
}

func TestFreeze_CannotBeThawed_AnotherWorkerServes(t *testing.T) {
	b, fn := newBox(), freezing("f")
	m := mustOpen(t, b, pool.Options{Freezer: b}, fn)
	l := mustAcquireOne(t, m, fn)
	id := l.Worker().ID
	l.Release()
	waitFrozen(t, m, 1)
	b.mu.Lock()
	b.onThaw = func() error { return errors.New("gone") }
	b.mu.Unlock()
	l = mustAcquireOne(t, m, fn)
	assert.NotEqual(t, id, l.Worker().ID)
	assert.Equal(t, "cannot be thawed", b.reason(id))
	l.Release()
}

func TestFreeze_SwitchedOff_FrozenWorkerGoes(t *testing.T) {
	b, fn := newBox(), freezing("f")
	m := mustOpen(t, b, pool.Options{Freezer: b}, fn)
	mustAcquireOne(t, m, fn).Release()
	waitFrozen(t, m, 1)
	off := *fn
	off.Freeze, off.Generation = false, "g2" // package config digests it
	apply(m, &off)
	require.Eventually(t, func() bool { _, stops, _ := b.count(); return stops == 1 }, time.Minute, time.Millisecond)
}

func TestFreeze_Close_DoesNotHang(t *testing.T) {
	b, fn := newBox(), freezing("f")
	m := mustOpen(t, b, pool.Options{Freezer: b}, fn)
	mustAcquireOne(t, m, fn).Release()
	require.NoError(t, m.Close(t.Context()))
	_, _, live := b.count()
	assert.Zero(t, live)
}
