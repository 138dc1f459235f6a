package pool

import (
	"context"
	"errors"
	"time"

	"github.com/edge-serverless-box/esb/api/reason"
	"github.com/edge-serverless-box/esb/gateway"
)

// Freezer stops the processes of workers that have nothing to do, as AWS does between invocations, and lets them run
// again; agentclient is the one of production.
type Freezer interface {
	// Freeze stops every process of a worker. It returns ErrWorking, and leaves the worker as it is, while its init is
	// going on or extensions still work on the last invocation; likewise ErrNotAsked, while the agent is away, and ErrNoAnswer.
	// thaw, when it is not nil, lets them run again at once, without asking anybody; when it fails, Thaw has to.
	Freeze(ctx context.Context, w gateway.Worker) (thaw func() error, err error)
	// Thaw lets them run again; a worker that is not frozen is no error.
	Thaw(ctx context.Context, workerID string) error
}

var (
	// ErrWorking says that a worker that could be lent is still at work and must not be frozen.
	ErrWorking = errors.New("the worker is still at work")
	// ErrNotAsked says that nobody was there who could have frozen the worker.
	ErrNotAsked = errors.New("the agent cannot be asked")
	// ErrNoAnswer says that the worker did not tell whether it is at work, and was not touched.
	ErrNoAnswer = errors.New("the worker cannot be asked")
)

const (
	// freezeDelay is how long a worker is idle before it is frozen: a busy function's workers are never frozen between two requests.
	// Whoever freezes it has lambda-init write its log lines first.
	freezeDelay = 50 * time.Millisecond
	// freezeRetry is the pause before the next attempt when a worker was at work, doubled each time up to freezeBackoff,
	// which is the pause when the agent failed.
	freezeRetry   = 100 * time.Millisecond
	freezeBackoff = 5 * time.Second
	// freezeTimeout bounds one call.
	freezeTimeout = 5 * time.Second
)

// armFreeze has the idle worker w frozen after delay, when its function is one that is frozen. Callers hold mu.
func (p *functionPool) armFreeze(w *worker, delay time.Duration) {
	if !p.fn.Freeze || p.manager.opts.Freezer == nil || p.closed || w.frozen {
		return
	}
	p.disarmFreeze(w)
	p.manager.tasks.Add(1)
	w.freeze = time.AfterFunc(delay, func() {
		defer p.manager.tasks.Done()
		p.freezeNow(w)
	})
}

// disarmFreeze takes back what armFreeze has asked for. Callers hold mu.
func (p *functionPool) disarmFreeze(w *worker) {
	if w.freeze != nil && w.freeze.Stop() {
		p.manager.tasks.Done()
	}
	w.freeze = nil
}

// freezeNow freezes w, unless it has been lent or given up meanwhile.
func (p *functionPool) freezeNow(w *worker) {
	p.mu.Lock()
	w.freeze = nil
	if w.phase != PhaseIdle || w.frozen || w.freezing != nil || p.closed {
		p.mu.Unlock()
		return
	}
	done := make(chan struct{})
	w.freezing = done
	p.mu.Unlock()

	ctx, cancel := context.WithTimeout(p.manager.ctx, freezeTimeout)
	defer cancel()
	thaw, err := p.manager.opts.Freezer.Freeze(ctx, w.info)

	p.mu.Lock()
	defer p.mu.Unlock()
	w.thaw = thaw
	// A call that failed may have done its work all the same: whoever gets the worker thaws it.
	silent := errors.Is(err, ErrNoAnswer)
	untouched := silent || errors.Is(err, ErrWorking) || errors.Is(err, ErrNotAsked)
	w.frozen, w.mute = !untouched, silent
	w.freezing = nil
	close(done)
	if err == nil {
		freezes.WithLabelValues(p.name).Inc()
		return
	}
	if w.phase != PhaseIdle {
		return
	}
	pause := min(freezeRetry<<min(w.freezeTries, 10), freezeBackoff)
	w.freezeTries++
	if !errors.Is(err, ErrWorking) {
		pause = freezeBackoff
		w.frozen, w.unsure = false, !untouched
		p.manager.log.Warn("freezing a worker failed; trying again", "function", p.name, "container_id", w.info.ID, "error", err.Error())
	}
	if silent && !w.asked && p.manager.asks(w) {
		// What stands still cannot be frozen, and as long as that is tried nobody asks it anything else.
		w.asked = true
		p.manager.tasks.Go(func() { p.listen(w) })
		pause = (silence + 2) * beat
	}
	p.armFreeze(w, pause)
}

// thawFor is thaw for as long as the request has time. When that is over, the worker goes to the next request once it runs.
func (p *functionPool) thawFor(ctx context.Context, l *Lease) (bool, error) {
	if p.thawAtOnce(l.worker) {
		return true, nil
	}
	type outcome struct {
		thawed bool
		err    error
	}
	done := make(chan outcome, 1)
	p.manager.tasks.Go(func() {
		thawed, err := p.thaw(l)
		done <- outcome{thawed, err}
	})
	select {
	case o := <-done:
		return o.thawed, o.err
	case <-ctx.Done():
	}
	p.manager.tasks.Go(func() {
		if (<-done).thawed {
			l.Release()
		}
	})
	return false, contextError(ctx, p.name)
}

// thawAtOnce thaws w, which is lent, without the agent, when that is possible. A freeze that may still come is only overtaken by a
// call of the agent.
func (p *functionPool) thawAtOnce(w *worker) bool {
	began := time.Now()
	p.mu.Lock()
	thaw := w.thaw
	if !w.frozen || w.unsure || w.freezing != nil {
		thaw = nil
	}
	w.thaw = nil
	p.mu.Unlock()
	if thaw == nil {
		return false
	}
	if err := thaw(); err != nil {
		p.manager.log.Debug("a worker is thawed by the agent", "function", p.name, "container_id", w.info.ID, "error", err.Error())
		return false
	}
	p.mu.Lock()
	w.frozen = false
	p.mu.Unlock()
	thawDuration.WithLabelValues(p.name).Observe(time.Since(began).Seconds())
	return true
}

// thaw has the agent thaw w. Not in the request's context: a worker must not be lost because its client left in this moment.
func (m *Manager) thaw(w *worker) error {
	ctx, cancel := context.WithTimeout(m.ctx, freezeTimeout)
	defer cancel()
	return m.opts.Freezer.Thaw(ctx, w.info.ID)
}

// thaw makes the worker of l, which may be frozen, fit for its invocation. It returns false when that cannot be done; the
// worker is condemned then. With an error it was the agent that could not be asked: the worker is idle again, as it was.
func (p *functionPool) thaw(l *Lease) (bool, error) {
	w := l.worker
	began := time.Now()
	p.mu.Lock()
	freezing := w.freezing
	p.mu.Unlock()
	if freezing != nil {
		<-freezing // within freezeTimeout
		p.mu.Lock()
		runs := !w.frozen && !w.unsure
		l.mute = w.mute
		p.mu.Unlock()
		if runs || p.thawAtOnce(w) {
			return true, nil
		}
	}
	err := p.manager.thaw(w)
	for p.manager.awaits(err) && pauseFor(p.manager.ctx, awayPause) {
		err = p.manager.thaw(w)
	}
	if isAway(err) {
		l.GiveUp()
		away := gateway.Errorf(gateway.CodeUnavailable, "function %s: its frozen worker cannot be thawed now: %w", p.name, err)
		away.Reason, away.RetryAfter = reason.AgentAway, time.Second
		return false, away
	}
	if err != nil {
		p.manager.log.Warn("thawing a worker failed", "function", p.name, "container_id", w.info.ID, "error", err.Error())
		l.Condemn("cannot be thawed")
		return false, nil
	}
	p.mu.Lock()
	w.frozen, w.unsure = false, false
	p.mu.Unlock()
	thawDuration.WithLabelValues(p.name).Observe(time.Since(began).Seconds())
	return true, nil
}
