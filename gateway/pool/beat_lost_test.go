package pool_test

import (
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/edge-serverless-box/esb/gateway"
	"github.com/edge-serverless-box/esb/gateway/pool"
)

// TestBeat_WorkerEndsWhileARequestAsksIt_IsReplacedAtOnce, whether its address refuses or is silent: that it has ended is known.
func TestBeat_WorkerEndsWhileARequestAsksIt_IsReplacedAtOnce(t *testing.T) {
	for _, refuses := range []bool{false, true} {
		t.Run(fmt.Sprint("refuses ", refuses), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b, e := newBox(), &exits{told: make(chan string)}
				fn := function("f", gateway.Scaling{MaxCapacity: 1, Queue: 5})
				m := mustOpen(t, b, pool.Options{HeartbeatInterval: time.Hour, Watcher: e, Examiner: b}, fn)
				warm(t, m, fn, 1)
				time.Sleep(20 * time.Second)
				run := b.stop("f-1")
				if refuses {
					b.mu.Lock()
					b.examine = func(string) error { return errors.New("connection refused") }
					b.mu.Unlock()
					time.AfterFunc(200*time.Millisecond, run)
				}
				began := time.Now()
				next := acquireLater(t.Context(), m, fn)
				time.Sleep(100 * time.Millisecond)
				e.told <- "f-1"
				r := <-next
				require.NoError(t, r.err)
				assert.Equal(t, "f-2", r.lease.Worker().ID)
				assert.Less(t, time.Since(began), 2*time.Second)
				assert.Equal(t, "container ended by itself", b.reason("f-1"))
				r.lease.Release()
			})
		})
	}
}

// TestBeat_WorkerEndsBeforeItsConnectionIsAttached_NobodyWaitsForIt: whoever attaches one then finds it closed.
func TestBeat_WorkerEndsBeforeItsConnectionIsAttached_NobodyWaitsForIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, e := newBox(), &exits{told: make(chan string)}
		fn := function("f", gateway.Scaling{MaxCapacity: 1, Queue: 5})
		m := mustOpen(t, b, pool.Options{HeartbeatInterval: time.Hour, Watcher: e}, fn)
		l := mustAcquire(t, m, fn)
		e.told <- "f-1"
		time.Sleep(5 * time.Second)
		link := newClosed()
		l.Attach(link)
		select {
		case <-link.c:
		default:
			t.Error("it is open")
		}
		l.Condemn("not reached")
	})
}
