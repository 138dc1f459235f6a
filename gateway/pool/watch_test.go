package pool_test

import (
	"context"
	"errors"
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

// exits is a Watcher that the test speaks through: a worker's id, with " oom" behind it when memory was short, or "" to break off; or
// a shortage of memory.
type exits struct {
	told    chan string
	short   chan pool.Shortage
	watches atomic.Int32
}

func (e *exits) Watch(ctx context.Context, begun func(), ended func(function, workerID string, oom bool), short func(pool.Shortage)) error {
	e.watches.Add(1)
	begun()
	for {
		select {
		case id := <-e.told:
			if id == "" {
				return errors.New("agent away")
			}
			id, oom := strings.CutSuffix(id, " oom")
			ended("f", id, oom)
		case s := <-e.short:
			short(s)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// closed is an attachment that says when it was closed.
type closed struct {
	once *sync.Once
	c    chan struct{}
}

func newClosed() closed { return closed{new(sync.Once), make(chan struct{})} }

func (c closed) Close() error {
	c.once.Do(func() { close(c.c) })
	return nil
}

func TestWatch_WorkersThatEnd_LeaveAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, e := newBox(), &exits{told: make(chan string)}
		fn := function("f", gateway.Scaling{MaxCapacity: 4, Queue: 5, Standby: 1})
		m := mustOpen(t, b, pool.Options{HeartbeatInterval: time.Hour, Watcher: e}, fn)
		time.Sleep(time.Second) // for standby
		idle, busy := mustAcquire(t, m, fn), mustAcquire(t, m, fn)
		link := newClosed()
		busy.Attach(link)
		idle.Release()
		began := time.Now()
		e.told <- idle.Worker().ID
		e.told <- busy.Worker().ID + " oom"
		e.told <- "of nobody"
		synctest.Wait()
		assert.Equal(t, 0, state(m, "f").Idle)
		assert.Equal(t, "container ended by itself", b.reason(idle.Worker().ID))
		assert.Equal(t, 1, state(m, "f").Busy)
		<-link.c
		assert.Equal(t, time.Second, time.Since(began), "an answer that is on its way has a moment, and then the invocation ends")
		busy.Release()
		synctest.Wait()
		assert.Equal(t, "container ended by itself, out of memory", b.reason(busy.Worker().ID))
		assert.Equal(t, 0, state(m, "f").Idle, "it is not lent again")
		next := mustAcquire(t, m, fn)
		next.Release()
		time.Sleep(time.Minute)
	})
}

// TestWatch_WorkerThatAnswersLast_IsNotCut: what came before the lease ended counts.
func TestWatch_WorkerThatAnswersLast_IsNotCut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, e := newBox(), &exits{told: make(chan string)}
		fn := function("f", gateway.Scaling{MaxCapacity: 1, Queue: 5})
		m := mustOpen(t, b, pool.Options{HeartbeatInterval: time.Hour, Watcher: e}, fn)
		l := mustAcquire(t, m, fn)
		e.told <- l.Worker().ID
		synctest.Wait()
		l.Release()
		next := mustAcquire(t, m, fn)
		assert.NotEqual(t, l.Worker().ID, next.Worker().ID)
		link := newClosed()
		next.Attach(link)
		time.Sleep(time.Minute)
		select {
		case <-link.c:
			t.Fatal("the next worker's connection was closed")
		default:
		}
		next.Release()
	})
}

// TestWatch_ExitBeforeTheAnswerToTheStart_IsNotForgotten: the stream of exits may be faster than the answer to a start.
func TestWatch_ExitBeforeTheAnswerToTheStart_IsNotForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, e := newBox(), &exits{told: make(chan string)}
		fn := function("f", gateway.Scaling{MaxCapacity: 1, Queue: 5, AcquireTimeout: time.Minute})
		first := true
		b.setStart(func(ctx context.Context, fn *gateway.Function, standby bool) error {
			if first {
				first = false
				e.told <- "f-1" // which this start makes
			}
			return slow(time.Second)(ctx, fn, standby)
		})
		m := mustOpen(t, b, pool.Options{HeartbeatInterval: time.Hour, Watcher: e}, fn)
		l := mustAcquire(t, m, fn)
		assert.Equal(t, "f-2", l.Worker().ID)
		assert.Equal(t, "container ended by itself", b.reason("f-1"))
		l.Release()
	})
}

// TestWatch_AgentComesBack_ItIsLookedAtOnce: what ended in between is found before the next heartbeat.
func TestWatch_AgentComesBack_ItIsLookedAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, e := newBox(), &exits{told: make(chan string)}
		fn := function("f", gateway.Scaling{MaxCapacity: 1, Queue: 5})
		m := mustOpen(t, b, pool.Options{HeartbeatInterval: time.Hour, Watcher: e}, fn)
		l := mustAcquire(t, m, fn)
		l.Release()
		synctest.Wait()
		b.change(l.Worker().ID, nil)
		e.told <- ""
		synctest.Wait()
		require.Equal(t, 1, state(m, "f").Idle)
		time.Sleep(2 * time.Second)
		assert.Equal(t, 0, state(m, "f").Idle)
		assert.EqualValues(t, 2, e.watches.Load())
	})
}

// TestWatch_WorkerOfMinCapacityEnds_AnotherIsStartedAtOnce, before anybody asks for one.
func TestWatch_WorkerOfMinCapacityEnds_AnotherIsStartedAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, e := newBox(), &exits{told: make(chan string)}
		fn := function("f", gateway.Scaling{MaxCapacity: 2, MinCapacity: 2, Queue: 5})
		m := mustOpen(t, b, pool.Options{HeartbeatInterval: time.Hour, Watcher: e}, fn)
		synctest.Wait()
		require.Equal(t, 2, state(m, "f").Idle)
		e.told <- "f-1"
		synctest.Wait()
		assert.Equal(t, 2, state(m, "f").Idle)
		starts, _, live := b.count()
		assert.Equal(t, []int{3, 2}, []int{starts, live})
	})
}
