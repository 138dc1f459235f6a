package pool

import (
	"context"
	"errors"
	"time"

	"github.com/edge-serverless-box/esb/gateway"
)

// A worker may stand still without having ended: stopped or frozen by somebody else, or because its lambda-init hangs. Nobody is told of
// that, so workers that have given no sign of life lately are asked for one (Examiner), those that the pool itself has frozen excepted:
//
//   - a busy one while its invocation goes on. When it is silent, the invocation ends as if the worker had.
//   - one that has had nothing to do for trustFor before it is lent. When it does not answer at once, the request has another one, and
//     nobody has this one until it does.
//   - any other now and then, so that min_capacity is of workers that work.
//
// One is given up when it has had silence beats to answer a question that takes it less than a millisecond. Beats of this process that
// come late do not count: the machine, or this process alone, had no time then, and the worker neither. What fails otherwise than by
// silence says nothing about the worker: this process may have no descriptor left.
const (
	beat    = time.Second
	silence = 10
	// busyBeat and idleBeat are how long after its last sign of life a busy worker, or one with nothing to do, is asked for the next.
	busyBeat, idleBeat = 3 * time.Second, time.Minute
	// trustFor is how long after its last sign of life a worker is lent unasked, and checkLimit how long a request waits for one.
	trustFor, checkLimit = 10 * time.Second, time.Second
	// checkBeat is the beat while a request waits, and lateLimit how long it does however late those come.
	checkBeat, lateLimit = 100 * time.Millisecond, 5 * time.Second
)

const (
	standsStill = "stands still: it gives no sign of life"
	notFit      = "not fit to serve"
)

// errSilent says that a worker has given no sign of life.
var errSilent = errors.New(standsStill)

// beats asks workers for signs of life, as long as the Manager lives.
func (m *Manager) beats() {
	ticker := time.NewTicker(beat)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
		case <-m.ctx.Done():
			return
		}
		now := time.Now()
		for _, p := range *m.pools.Load() {
			for _, w := range p.due(now) {
				m.tasks.Go(func() { p.listen(w) })
			}
		}
	}
}

// asks is true when w can be asked for a sign of life.
func (m *Manager) asks(w *worker) bool {
	// To the Runtime Interface Emulator everything is an invocation.
	return m.opts.Examiner != nil && w.info.Interface != gateway.RIE
}

// resting is true when w stands still because the pool wants it to, or may have wanted.
func (w *worker) resting() bool { return w.frozen || w.unsure || w.freezing != nil }

// lastSign is when w was last seen to run, or began what it does.
func (w *worker) lastSign() time.Time {
	if w.signed.After(w.since) {
		return w.signed
	}
	return w.since
}

// heard is told that w has given a sign of life. Callers hold mu.
func (w *worker) heard() { w.signed, w.unheard = time.Now(), false }

// due are the workers that are to be asked now; listen has to be called for each.
func (p *functionPool) due(now time.Time) []*worker {
	p.mu.Lock()
	defer p.mu.Unlock()
	var due []*worker
	for _, w := range p.workers {
		limit := idleBeat
		switch w.phase {
		case PhaseBusy:
			limit = busyBeat
		case PhaseIdle, PhaseStandby:
		default:
			continue
		}
		if p.closed || w.asked || w.held || w.doomed != "" || w.resting() || now.Sub(w.lastSign()) < limit || !p.manager.asks(w) {
			continue
		}
		w.asked = true
		due = append(due, w)
	}
	return due
}

// ask asks w what it does, for silence beats, or until over says that its answer does not matter any more. errSilent is the one error
// that says something about w.
func (m *Manager) ask(w *worker, over func() bool) (Condition, error) {
	return m.listenTo(m.ctx, w, beat, silence, over)
}

// listenTo is ask for so many beats of that length, until parent ends.
func (m *Manager) listenTo(parent context.Context, w *worker, each time.Duration, beats int, over func() bool) (Condition, error) {
	ctx, cancel := context.WithCancel(parent)
	defer cancel()
	type answer struct {
		condition Condition
		err       error
	}
	answers := make(chan answer, 1)
	m.tasks.Go(func() {
		condition, err := m.opts.Examiner.Examine(ctx, w.info)
		answers <- answer{condition, err}
	})
	for silent := 0; silent < beats; {
		began := time.Now()
		timer := time.NewTimer(each)
		select {
		case a := <-answers:
			timer.Stop()
			return a.condition, a.err
		case <-parent.Done():
			timer.Stop()
			return ConditionBusy, parent.Err()
		case <-timer.C:
		}
		if over() {
			return ConditionBusy, context.Canceled
		}
		if time.Since(began) < 2*each {
			silent++
		}
	}
	select {
	case a := <-answers:
		return a.condition, a.err
	default:
		return ConditionBusy, errSilent
	}
}

// listen asks w for a sign of life, and gives it up when there is none.
func (p *functionPool) listen(w *worker) {
	began := time.Now()
	moved := func() bool {
		// What it has been lent for, or given back from, counts anew; what stands still on purpose does not count.
		return w.since.After(began) || w.resting() || w.phase == PhaseStopping
	}
	condition, err := p.manager.ask(w, func() bool {
		p.mu.Lock()
		defer p.mu.Unlock()
		return moved()
	})
	p.mu.Lock()
	defer p.mu.Unlock()
	w.asked, w.signed = false, time.Now()
	switch {
	case p.closed || moved():
	case err == nil:
		w.unheard = false
	case !errors.Is(err, errSilent):
		w.unheard = true
	}
	switch {
	case p.closed || moved():
	case errors.Is(err, errSilent):
		p.silent(w)
	case err == nil && condition == ConditionUnfit && w.phase != PhaseBusy:
		p.lose(w, notFit) // a busy one's answer says what is wrong
	}
}

// silent gives up w, which stands still. Callers hold mu.
func (p *functionPool) silent(w *worker) {
	standstills.WithLabelValues(p.name).Inc()
	p.manager.log.Error("a worker does not run any more; it is given up", "function", p.name, "container_id", w.info.ID, "name", w.info.Name,
		"state", string(w.phase), "silent_seconds", int(time.Since(w.since).Seconds()))
	p.lose(w, standsStill)
}

// check is true when the worker of l, which has had nothing to do for long, can serve the request of ctx. It is not the request's any
// more otherwise.
func (p *functionPool) check(ctx context.Context, l *Lease) (bool, error) {
	w := l.worker
	limited, cancel := context.WithTimeout(ctx, lateLimit)
	defer cancel()
	condition, err := p.manager.listenTo(limited, w, checkBeat, int(checkLimit/checkBeat), func() bool { return false })
	switch {
	case err == nil && condition == ConditionUnfit:
		l.Condemn(notFit)
	case errors.Is(err, errSilent), err != nil && limited.Err() != nil:
		p.doubt(l)
	default:
		// What cannot be asked is lent as it is: how the request ends says what there is to know.
		p.mu.Lock()
		if err == nil {
			w.heard()
		}
		lost := err != nil && w.doomed != ""
		p.mu.Unlock()
		if !lost {
			return true, nil
		}
		l.Condemn(notFit) // it has ended meanwhile
	}
	if ctx.Err() != nil {
		return false, contextError(ctx, p.name)
	}
	return false, nil
}

// doubt ends the lease of l, which was not used: its worker is nobody's until it gives a sign of life.
func (p *functionPool) doubt(l *Lease) {
	if !l.ended.CompareAndSwap(false, true) {
		return
	}
	w := l.worker
	p.mu.Lock()
	switch {
	case w.phase != PhaseBusy:
	case p.closed:
		p.busy--
		p.give(w)
	case w.doomed != "":
		p.busy-- // it has ended meanwhile
		p.destroy(w, 0, w.doomed)
		p.fill()
	default:
		w.held, w.doubted = true, true
		p.manager.tasks.Go(func() { p.awaitSign(w) })
		p.fill()
	}
	p.mu.Unlock()
	p.manager.leaseEnded()
}

// awaitSign gives w, which is doubted, back when it gives a sign of life, or up. As long as it cannot be asked it is asked again, for as
// long as a silent one would be: then it is lent again, and asked before.
func (p *functionPool) awaitSign(w *worker) {
	gone := func() bool { return !w.doubted || w.phase != PhaseBusy }
	for tries := 1; ; tries++ {
		condition, err := p.manager.ask(w, func() bool {
			p.mu.Lock()
			defer p.mu.Unlock()
			return gone()
		})
		p.mu.Lock()
		over := true
		switch {
		case gone():
		case errors.Is(err, errSilent) && !p.closed:
			p.silent(w)
		case err == nil && condition == ConditionUnfit:
			p.lose(w, notFit)
		case err != nil && !p.closed && tries < silence:
			over = false
		default:
			if w.unheard = err != nil; err == nil {
				w.heard()
			}
			p.release(w)
			p.give(w)
			p.fill()
		}
		p.mu.Unlock()
		if over {
			return
		}
		timer := time.NewTimer(beat)
		select {
		case <-timer.C:
		case <-p.manager.ctx.Done(): // the next ask says so at once
			timer.Stop()
		}
	}
}
