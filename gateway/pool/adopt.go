package pool

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/edge-serverless-box/esb/gateway"
)

// A Manager that is told whose it is (Options.Owner) leaves its workers running when it is closed, and takes over, when it is
// opened, what one of the same owner has left, closed or killed. Each pool does so once, with the agent's list, before it starts
// anything of its own: whatever is there holds a slot of max_capacity from then on.
//
//   - A frozen container is a worker without work.
//   - One that runs may be in the middle of an invocation whose caller is gone. It is held, as a busy one, and asked until it
//     has nothing to do, or has been busy for longer than an invocation may take.
//   - One of another configuration, code or image serves until the first worker of the present one is ready, as after a reload.
//   - One whose function is not configured any more is destroyed by the janitor, and so is one that is nobody's, or another
//     owner's who has been silent for ownerLease.

// Condition is what a container that may be adopted does.
type Condition int

// Conditions.
const (
	// ConditionBusy is at work: on its init, an invocation, or what its extensions still do.
	ConditionBusy Condition = iota
	// ConditionIdle has nothing to do.
	ConditionIdle
	// ConditionStandby has nothing to do and no function process.
	ConditionStandby
	// ConditionUnfit must not serve, or cannot tell what it does.
	ConditionUnfit
)

// Examiner asks workers what they do; agentclient is the one of production.
type Examiner interface {
	// Examine asks a worker that is not frozen, until ctx ends.
	Examine(ctx context.Context, w gateway.Worker) (Condition, error)
}

const (
	// ownerLease is how long an owner may be silent until others destroy its containers.
	ownerLease = 10 * time.Minute
	// A list that cannot be had is asked for again after firstAdoption, doubled each time up to lastAdoption.
	firstAdoption, lastAdoption = 50 * time.Millisecond, time.Second
	// adoptionPatience is how long it is asked for at least until requests are refused: the agent may start beside the gateway.
	adoptionPatience = 700 * time.Millisecond
	// A held worker is asked again after firstHold, doubled each time up to lastHold. examineTimeout bounds the first question.
	firstHold, lastHold = 10 * time.Millisecond, 250 * time.Millisecond
	examineTimeout      = time.Second
	// holdMargin is how much longer than its function's timeout a held worker may be busy: for an init, and the end of extensions.
	holdMargin = 15 * time.Second
)

// adopts is true when workers outlive their Manager.
func (m *Manager) adopts() bool { return m.opts.Owner != "" }

// wantAdoption has pools that have not adopted yet do so.
func (m *Manager) wantAdoption() {
	select {
	case m.adopt <- struct{}{}:
	default:
	}
}

// adoptions has pools adopt, as long as the Manager lives.
func (m *Manager) adoptions() {
	for {
		select {
		case <-m.adopt:
		case <-m.ctx.Done():
			return
		}
		patience, logged := time.Now().Add(adoptionPatience), false
		for pause := firstAdoption; ; pause = min(2*pause, lastAdoption) {
			err := m.adoptNow(patience)
			if m.ctx.Err() != nil {
				return
			}
			if err == nil {
				break
			}
			if !logged {
				logged = true
				m.log.Warn("the workers of before are not known, so none is started; trying again", "error", err.Error())
			}
			timer := time.NewTimer(pause)
			select {
			case <-timer.C:
			case <-m.ctx.Done():
				timer.Stop()
				return
			}
		}
	}
}

// adoptNow has every pool adopt that has not yet. Its error says why that is to be tried again; after patience those
// who wait are refused.
func (m *Manager) adoptNow(patience time.Time) error {
	var pools []*functionPool
	for _, p := range *m.pools.Load() {
		if p.mustAdopt() {
			pools = append(pools, p)
		}
	}
	if len(pools) == 0 {
		return nil
	}
	list, err := m.provisioner.List(m.ctx)
	awaited := m.awaits(err)
	if err != nil {
		if m.ctx.Err() == nil && !awaited && !time.Now().Before(patience) {
			for _, p := range pools {
				p.adoptionFailed(err)
			}
		}
		return err
	}
	found := make(map[string][]Observed)
	for _, o := range list {
		if o.Owner == m.opts.Owner {
			found[o.Function] = append(found[o.Function], o)
		}
	}
	for _, p := range pools {
		p.adopt(found[p.name])
	}
	// What nobody has adopted is the janitor's.
	select {
	case m.look <- struct{}{}:
	default:
	}
	return nil
}

// mustAdopt is true until p has adopted.
func (p *functionPool) mustAdopt() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return !p.adopted && !p.removed && !p.closed
}

// unsettled is true while it is not known which workers of before are there, or whether they are free: nothing is started then.
// Callers hold mu.
func (p *functionPool) unsettled() bool { return !p.adopted || p.asking > 0 }

// adoptionFailed answers those who wait: the agent cannot be asked, so no worker can be started for them either. Callers do not
// hold mu.
func (p *functionPool) adoptionFailed(cause error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.waiters.Len() == 0 {
		return
	}
	err := gateway.Errorf(gateway.CodeUnavailable, "function %s: looking for its workers: %w", p.name, &StartError{err: cause})
	err.RetryAfter, err.NotTried = time.Second, true
	var known *gateway.Error
	if errors.As(cause, &known) {
		err.Reason = known.Reason
	}
	p.answerAll(err)
}

// adopt takes over the containers of the function that this owner has.
func (p *functionPool) adopt(found []Observed) {
	m := p.manager
	m.claims.Lock()
	defer m.claims.Unlock()
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.adopted || p.removed || p.closed {
		return
	}
	p.adopted = true
	slices.SortFunc(found, func(a, b Observed) int {
		if n := a.CreatedAt.Compare(b.CreatedAt); n != 0 {
			return n
		}
		return strings.Compare(a.ID, b.ID)
	})
	var frozen, held []*worker
	// Of those that are unproven it is not known whether they have a function process, or whether its init succeeds.
	current, unproven, outdated := 0, 0, 0
	for _, o := range found {
		if m.claimed[o.ID] || p.workers[o.ID] != nil {
			continue
		}
		w := p.adoptee(o)
		p.workers[o.ID] = w
		switch {
		case o.Stopped:
			// It has ended, or is about to: its slot is free when nothing is left of it.
			p.destroy(w, 0, "stopped before it was adopted")
			continue
		case o.Frozen:
			frozen = append(frozen, w)
		default:
			w.phase, w.held = PhaseBusy, true
			p.busy++
			held = append(held, w)
		}
		switch {
		case w.revision != p.revision:
			outdated++
		case !o.Frozen:
			unproven++
		default:
			current++
		}
	}
	if outdated > 0 {
		// The gateway of before may have been in the middle of the change.
		p.reached, p.changedAt = p.revision-1, time.Now()
		p.target = current + unproven + outdated
	}
	if current > 0 || unproven > 0 && !p.changing() {
		p.reach(p.revision)
	}
	current += unproven
	if current+outdated > 0 {
		m.log.Info("workers adopted", "function", p.name, "current", current, "outdated", outdated, "frozen", len(frozen))
		adopted.WithLabelValues(p.name).Add(float64(current + outdated))
	}
	p.asking = len(held)
	for _, w := range held {
		m.tasks.Go(func() { p.hold(w) })
	}
	for _, w := range frozen {
		w.frozen = true
		p.give(w)
	}
	p.fill()
}

// adoptee is the worker that o becomes. Callers hold mu.
func (p *functionPool) adoptee(o Observed) *worker {
	now := time.Now()
	w := &worker{
		info: gateway.Worker{
			ID: o.ID, Name: o.Name, Addr: o.Addr, Function: o.Function, Generation: o.Generation, ImageDigest: o.ImageDigest,
			Interface: o.Interface, Standby: o.Standby, CreatedAt: o.CreatedAt,
		},
		generation: o.Generation, revision: p.revision - 1, fn: &gateway.Function{Name: o.Function, Generation: o.Generation},
		// How long its start took is not known, and the agent's clock may have been set since.
		begun: now.Add(-time.Second), ready: now, since: now, invoked: true, outdated: o.Outdated,
	}
	if p.isCurrent(w) {
		w.generation, w.revision, w.fn = p.fn.Generation, p.revision, p.fn
	}
	return w
}

// isCurrent says whether a worker whose generation another gateway has given is of the current configuration. One of them may not
// have known its image's digest, which the container has; as long as this one does not, that counts as the present one.
func (p *functionPool) isCurrent(w *worker) bool {
	if w.outdated {
		return false
	}
	fn, digest := p.fn, w.info.ImageDigest
	if w.generation == fn.Generation {
		return true
	}
	if fn.BaseGeneration == "" || digest == "" || fn.ImageDigest != "" && fn.ImageDigest != digest {
		return false
	}
	return w.generation == fn.BaseGeneration || w.generation == gateway.GenerationWith(fn.BaseGeneration, digest)
}

// hold asks w what it does until it is free, or has been busy for too long.
func (p *functionPool) hold(w *worker) {
	m := p.manager
	p.mu.Lock()
	limit := time.Now().Add(p.fn.Timeout + holdMargin)
	p.mu.Unlock()
	first := true
	for pause := firstHold; ; pause = min(2*pause, lastHold) {
		condition, err := p.question(w, first)
		if m.ctx.Err() != nil {
			return // it is the next one's
		}
		switch {
		case errors.Is(err, errSilent):
			condition = ConditionUnfit
		case err != nil:
			condition = ConditionBusy
		}
		if condition == ConditionBusy && !time.Now().Before(limit) {
			condition = ConditionUnfit
		}
		if p.examined(w, first, condition) {
			return
		}
		first = false
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-m.ctx.Done():
			timer.Stop()
			return
		}
	}
}

// question asks the held worker w what it does. The first time others wait for the answer, and it has examineTimeout for that.
func (p *functionPool) question(w *worker, first bool) (Condition, error) {
	m := p.manager
	if first {
		ctx, cancel := context.WithTimeout(m.ctx, examineTimeout)
		defer cancel()
		return m.opts.Examiner.Examine(ctx, w.info)
	}
	return m.ask(w, func() bool {
		p.mu.Lock()
		defer p.mu.Unlock()
		return !w.held
	})
}

// examined does what follows from the condition of w; it is true when w is held no more.
func (p *functionPool) examined(w *worker, first bool, condition Condition) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if first {
		p.asking--
	}
	over := !w.held || condition != ConditionBusy
	if w.held && condition != ConditionBusy {
		p.release(w)
		switch {
		case condition == ConditionIdle:
			if w.revision == p.revision && p.changing() {
				p.reach(p.revision) // it has a function process
			}
			p.give(w)
		case condition == ConditionStandby && w.info.Standby && w.revision == p.revision && p.target > 0:
			// While a change is on, its slot is for one that shows that the function can serve.
			p.target = max(1, p.target-1)
			p.destroy(w, idleGrace, reasonChanged)
		case condition == ConditionStandby && w.info.Standby:
			w.invoked = false
			p.give(w)
		default:
			p.destroy(w, idleGrace, "not fit to be adopted")
		}
	}
	if over || first {
		p.fill()
	}
	return over
}

// release ends the hold of w. Callers hold mu.
func (p *functionPool) release(w *worker) {
	w.held, w.doubted = false, false
	p.busy--
}

// leaveWorkers ends what p has with its workers, which live on: a Manager of the same owner adopts them.
func (p *functionPool) leaveWorkers() {
	p.mu.Lock()
	var attachments []interface{ Close() error }
	for _, w := range p.workers {
		p.disarmFreeze(w)
		if w.phase == PhaseBusy {
			// Whoever has it still gives it back to nobody: what becomes of it is the next one's to find out.
			p.release(w)
			w.phase = PhaseIdle
		}
		if w.attachment != nil && w.phase != PhaseStopping {
			attachments = append(attachments, w.attachment)
			w.attachment = nil
		}
	}
	p.mu.Unlock()
	for _, a := range attachments {
		_ = a.Close() // whoever has it finds out
	}
}
