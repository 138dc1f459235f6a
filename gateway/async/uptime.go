package async

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

const (
	// beatInterval is how often the up-time is noted while there are events. As much of it is forgotten when the process
	// dies, which makes events younger, not older.
	beatInterval = 15 * time.Second
	// clockSlack is what a due time may be ahead beyond the longest pause: the up-time that the last process did not note.
	clockSlack = time.Minute
)

// uptime is the clock by which events grow old and become due: how long a gateway has run with this queue, all its processes
// together, in milliseconds. So an event does not grow old while the box is off, and neither a clock that is set nor one that
// a box without a battery has lost makes it older, or puts it off.
type uptime struct {
	before atomic.Int64 // of the processes before this one
	began  time.Time    // has the monotonic clock
}

// newUptime returns a clock that stands at 1, because 0 is an event without an up-time.
func newUptime() *uptime {
	u := &uptime{began: time.Now()}
	u.before.Store(1)
	return u
}

// now is the up-time in milliseconds.
func (u *uptime) now() int64 { return u.before.Load() + time.Since(u.began).Milliseconds() }

// atLeast puts the clock forward to what an earlier process is known to have reached.
func (u *uptime) atLeast(ms int64) {
	for {
		before := u.before.Load()
		behind := ms - (before + time.Since(u.began).Milliseconds())
		if behind <= 0 || u.before.CompareAndSwap(before, before+behind) {
			return
		}
	}
}

// age is how long ago an up-time was.
func (u *uptime) age(ms int64) time.Duration {
	return time.Duration(max(0, u.now()-ms)) * time.Millisecond
}

// settle gives the times of a stored event in up-time: when it was accepted, or ended, and when it is due. What is due for
// longer than any pause lasts was noted by another clock, and is due now.
func (q *Queue) settle(s state) (born, due int64) {
	born = s.Up
	if s.Outcome != nil {
		born = max(born, s.Outcome.Up)
	}
	q.up.atLeast(born)
	now := q.up.now()
	if born == 0 {
		born = now // of a version that did not note it
	}
	wall := time.Now().UnixMilli()
	if s.Due <= wall {
		return born, 0 // the wait went by while the box was off, or the clock was set forward
	}
	if due = s.DueUp; due == 0 {
		due = now + s.Due - wall
	}
	longest := max(lastPause, 2*q.opts.RetryBase) + clockSlack
	if due > now+longest.Milliseconds() {
		due = 0
	}
	return born, due
}

// readUptime puts the clock to where the last process left it.
func (q *Queue) readUptime(ctx context.Context) error {
	m, err := q.store.uptime().GetLastMsgForSubject(ctx, q.uptimeSubject())
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read the up-time: %w", err)
	}
	ms, err := strconv.ParseInt(string(m.Data), 10, 64)
	if err != nil {
		q.log.Error("the noted up-time cannot be read: events count as new", "error", err.Error())
		return nil
	}
	q.up.atLeast(ms)
	return nil
}

// beat notes the up-time while there are events, until ctx ends, and then once more.
func (q *Queue) beat(ctx context.Context) {
	tick := time.NewTicker(beatInterval)
	defer tick.Stop()
	for ctx.Err() == nil {
		select {
		case <-tick.C:
		case <-ctx.Done():
		}
		// A box without events has nothing that grows old, and its disk is left alone.
		if q.bytes.Load() == 0 || *q.broken.Load() != nil {
			continue
		}
		if err := q.noteUptime(); err != nil {
			q.log.Warn("up-time not noted: events grow old a little later", "error", err.Error())
		}
	}
}

func (q *Queue) noteUptime() error {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	_, err := q.store.publish(ctx, &nats.Msg{Subject: q.uptimeSubject(), Data: strconv.AppendInt(nil, q.up.now(), 10)})
	return err
}

func (q *Queue) uptimeSubject() string { return q.opts.Prefix + ".uptime" }
