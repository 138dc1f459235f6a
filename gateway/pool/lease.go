package pool

import (
	"io"
	"sync/atomic"

	"github.com/edge-serverless-box/esb/gateway"
)

// Lease is a worker lent for one invocation. Its holder ends it by Release or Condemn, exactly one of which counts:
// the first call. A Lease is used by one goroutine.
type Lease struct {
	pool       *functionPool
	worker     *worker
	cold       bool
	cool       bool // must be thawed first
	stale      bool // must be asked for a sign of life first, when it is not cool
	mute       bool // must be asked when it is thawed
	attachment io.Closer
	ended      atomic.Bool
}

// Worker describes the worker.
func (l *Lease) Worker() gateway.Worker {
	w := l.worker.info
	w.Standby = w.Standby && l.cold
	return w
}

// Cold is true when this is the worker's first invocation.
func (l *Lease) Cold() bool { return l.cold }

// Attachment returns what an earlier holder attached to the worker, or nil.
func (l *Lease) Attachment() io.Closer { return l.attachment }

// Attach keeps c, a connection for instance, with the worker for its next holder, in place of the earlier
// attachment, which is left as it is. The pool closes c when the worker leaves it.
func (l *Lease) Attach(c io.Closer) {
	l.attachment = c
	l.pool.attach(l.worker, c)
}

// Release gives the worker back: it serves the oldest waiting request, or becomes idle. It returns false for a lease that has ended.
func (l *Lease) Release() bool { return l.end("") }

// Condemn gives the worker up: it is destroyed at once and never serves again. reason is for the log. It returns false for a lease that
// has ended.
func (l *Lease) Condemn(reason string) bool {
	if reason == "" {
		reason = "condemned"
	}
	return l.end(reason)
}

// GiveUp ends a lease that was not used: the worker is as it was before.
func (l *Lease) GiveUp() {
	if !l.ended.CompareAndSwap(false, true) {
		return
	}
	l.pool.putBack(l.worker)
	l.pool.manager.leaseEnded()
}

func (l *Lease) end(condemned string) bool {
	if !l.ended.CompareAndSwap(false, true) {
		return false
	}
	l.pool.takeBack(l.worker, condemned)
	l.pool.manager.leaseEnded()
	return true
}
