package pool

import (
	"errors"
	"slices"
	"time"

	"github.com/edge-serverless-box/esb/api/reason"
	"github.com/edge-serverless-box/esb/gateway"
	"github.com/edge-serverless-box/esb/guard/turns"
)

// start is a container on its way: it holds a slot from the decision until the agent has answered.
type start struct {
	requestID string
	// background is true for one that was begun without a request. It queues behind the background semaphore
	// until a request has come to need it, which closes promoted.
	background bool
	promoted   chan struct{}

	// Guarded by the pool's mu.
	isPromoted bool
	standby    bool
	// fallback is true for one of the configuration before, and sameName when that has the current one's generation: all that is new since
	// is the image that a tag points to, or the agent's settings.
	fallback, sameName bool
	// fn is the configuration it starts, nil until its turn has come, and revision is that one's.
	fn       *gateway.Function
	revision int
	begun    time.Time
}

// live counts the slots in use.
func (p *functionPool) live() int { return len(p.workers) + len(p.starts) }

// active counts the slots in use but for those whose container is already being destroyed.
func (p *functionPool) active() int { return p.live() - p.stopping }

// current is true when s starts, or will start, a worker of the current configuration.
func (p *functionPool) current(s *start) bool {
	if s.fallback {
		return false
	}
	if s.fn == nil || s.fn.Generation == p.fn.Generation {
		return true
	}
	// Which image it gets is not known yet: the new one, most likely.
	return s.fn.ImageDigest == "" && s.fn.BaseGeneration != "" && s.fn.BaseGeneration == p.fn.BaseGeneration
}

func (p *functionPool) usableStarts() int {
	n := 0
	for _, s := range p.starts {
		if p.current(s) {
			n++
		}
	}
	return n
}

// returning counts the busy workers that will serve another request when they come back.
func (p *functionPool) returning() int {
	n := 0
	for _, w := range p.workers {
		if w.phase == PhaseBusy && p.serves(w) {
			n++
		}
	}
	return n
}

// fill begins the starts that are wanted and allowed: first for requests that wait, then for min_capacity or in place of workers
// of an older configuration, then for standby. Callers hold mu.
func (p *functionPool) fill() {
	if p.removed {
		p.strand()
	}
	if p.closed || p.removed {
		return
	}
	sc, now := p.fn.Scaling, time.Now()
	p.trim()
	p.endChange(now)
	if p.unsettled() {
		return
	}
	waiting, usable, hurry := p.waiters.Len(), 0, false
	for _, s := range p.starts {
		if p.current(s) {
			if usable++; usable <= waiting {
				hurry = s.promote() || hurry
			}
		}
	}
	if hurry {
		p.manager.starts.Hurry(p.name) // those that are in the line already
	}
	p.fallBack(now)
	backedOff := now.Before(p.retryAt)
	wanted := waiting
	if p.failing() {
		wanted = min(wanted, 1) // that shows whether it can start by now; requests have the configuration before
	}
	for usable < wanted && p.live() < sc.MaxCapacity {
		if backedOff && (usable > 0 || p.returning() > 0 || p.outdatedStarts() || p.awaiting) {
			break
		}
		p.launch(&start{requestID: p.waiters.Back().Value.(*waiter).requestID})
		p.standbyAt = now.Add(standbyDelay)
		usable++
	}
	if usable < waiting && p.stopping > 0 {
		p.manager.stops.Hurry(p.name) // a slot is waited for
	}
	if backedOff {
		p.arm(p.retryAt)
		return
	}
	if now.Before(p.yieldsUntil) {
		p.arm(p.yieldsUntil)
		return
	}

	warm, standby := p.ofPresent()
	wantWarm, wantStandby := max(sc.MinCapacity, p.renewed()), sc.Standby
	if p.failing() {
		wantWarm = min(wantWarm, 1)
	}
	if p.target > 0 || p.canFallBack() {
		// A sandbox on standby shows nothing about the function, and takes no old worker's place.
		wantStandby = 0
	}
	for ; warm < wantWarm && p.live() < sc.MaxCapacity; warm++ {
		p.launch(&start{background: true})
	}
	if warm < wantWarm && p.stopping == p.stuck && len(p.standby) > 0 {
		// min_capacity was raised while standing-by sandboxes held the last slots.
		n := len(p.standby) - 1
		p.destroy(p.standby[n], idleGrace, "slot needed for min_capacity")
		p.standby = slices.Delete(p.standby, n, n+1)
		return
	}
	p.makeRoom(now)
	if standby < wantStandby && now.Before(p.standbyAt) {
		p.arm(p.standbyAt)
		return
	}
	for ; standby < wantStandby && p.live() < sc.MaxCapacity; standby++ {
		p.launch(&start{background: true, standby: true})
	}
}

// ofPresent counts the workers of the current configuration that serve, or will, and those on standby.
func (p *functionPool) ofPresent() (warm, standby int) {
	for _, w := range p.workers {
		switch {
		case w.revision != p.revision || !p.serves(w):
		case w.phase == PhaseStandby:
			standby++
		case w.phase != PhaseStopping:
			warm++
		}
	}
	for _, s := range p.starts {
		switch {
		case !p.current(s):
		case s.standby:
			standby++
		default:
			warm++
		}
	}
	return warm, standby
}

// trim destroys workers without work that a smaller max_capacity or standby has no place for. Callers hold mu.
func (p *functionPool) trim() {
	sc := p.fn.Scaling
	for len(p.standby) > 0 && (len(p.standby) > sc.Standby || p.active() > sc.MaxCapacity) {
		p.destroy(p.standby[0], idleGrace, "configuration changed")
		p.standby = slices.Delete(p.standby, 0, 1)
	}
	for len(p.idle) > 0 && p.active() > sc.MaxCapacity {
		p.destroy(p.idle[0], idleGrace, "over max_capacity")
		p.idle = slices.Delete(p.idle, 0, 1)
	}
}

// promote lets a background start run ahead for a request; it is false when nothing was to be done. One that has not begun starts
// the function process too. Callers hold mu.
func (s *start) promote() bool {
	if !s.background || s.isPromoted {
		return false
	}
	s.isPromoted = true
	if s.fn == nil {
		s.standby = false
	}
	close(s.promoted)
	return true
}

// launch takes a slot for s and runs it. Callers hold mu.
func (p *functionPool) launch(s *start) {
	s.promoted = make(chan struct{})
	p.starts = append(p.starts, s)
	p.manager.tasks.Go(func() { p.run(s) })
}

// run carries s out. Its context is the Manager's, not that of the request that caused it: that one may leave while
// another still waits for the worker.
func (p *functionPool) run(s *start) {
	m := p.manager
	fn, giveBack := p.begin(s)
	if fn == nil {
		giveBack()
		return
	}
	info, err := p.startContainer(s, fn)
	giveBack()
	awaited := m.awaits(err)
	ready, outcome := time.Now(), "ok"
	if err != nil {
		outcome = "error"
	}
	startDuration.WithLabelValues(p.name, outcome).Observe(ready.Sub(s.begun).Seconds())
	var initFailed error
	if err == nil && p.mustProve(s, info.ImageDigest) {
		initFailed = m.opts.Inits.AwaitInit(m.ctx, info)
	}

	p.mu.Lock()
	defer p.mu.Unlock()
	over := p.early[info.ID]
	p.dropStart(s)
	if err != nil {
		p.startFailed(s, err, awaited)
		return
	}
	info.Standby = s.standby
	w := &worker{info: info, generation: fn.Generation, revision: s.revision, fn: fn, begun: s.begun, ready: ready, signed: ready}
	if !s.sameName && (fn.Generation == p.fn.Generation || p.same(fn, info.ImageDigest)) {
		w.generation, w.revision = p.fn.Generation, p.revision
	}
	p.workers[info.ID] = w
	if initFailed != nil && m.ctx.Err() == nil && (p.changing() || w.revision == p.revision && p.brings(s.begun, info.ImageDigest)) {
		p.destroy(w, 0, "init failed")
		p.startFailed(s, initFailed, false)
		return
	}
	if !p.isProven(s, info) {
		p.destroy(w, 0, errOtherImage.Error())
		p.startFailed(s, errOtherImage, false)
		return
	}
	w.doomed = over
	if s.fallback {
		p.fallbacks = 0
	}
	if w.revision == p.revision {
		p.failures, p.retryAt, p.failure = 0, time.Time{}, ""
	}
	m.log.Info("worker started", "function", p.name, "container_id", info.ID, "request_id", s.requestID,
		"name", info.Name, "standby", s.standby, "duration_ms", ready.Sub(s.begun).Milliseconds())
	p.supersede(w)
	p.succeed(w)
	p.give(w)
	p.fill()
}

// begin waits for the turn of s and fixes what it starts; nil when it is not wanted any more. giveBack ends the turn.
func (p *functionPool) begin(s *start) (fn *gateway.Function, giveBack func()) {
	m := p.manager
	var held []*turns.Turn
	giveBack = func() {
		for _, t := range held {
			t.Done()
		}
	}
	if s.background {
		t := m.background.Join(p.name, false)
		held = append(held, t)
		select {
		case <-t.Granted():
		case <-s.promoted:
			t.Done()
		case <-m.ctx.Done():
		}
	}
	// Under mu, so that one that is promoted either joins as urgent or is in the line that fill hurries.
	p.mu.Lock()
	t := m.starts.Join(p.name, !s.background || s.isPromoted)
	p.mu.Unlock()
	held = append(held, t)
	select {
	case <-t.Granted():
	case <-m.ctx.Done():
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	unwanted := !s.background && p.waiters.Len() == 0
	if s.fallback && (!p.canFallBack() || s.revision != p.reached) {
		unwanted = true // a new one is ready
	}
	if p.closed || p.removed || unwanted || p.unsettled() {
		p.dropStart(s)
		p.fill()
		return nil, giveBack
	}
	if s.standby && (p.target > 0 || p.canFallBack()) {
		// It was begun before a change: as long as that is on, a start is to show that the function can serve.
		s.standby = false
	}
	s.fn, s.begun = p.fn, time.Now()
	if s.fallback {
		s.fn = &p.proven.Function
		s.sameName = s.fn.Generation == p.fn.Generation
	} else {
		s.revision = p.revision
	}
	return s.fn, giveBack
}

func (p *functionPool) dropStart(s *start) {
	i := slices.Index(p.starts, s)
	p.starts = slices.Delete(p.starts, i, i+1)
	if len(p.starts) == 0 {
		clear(p.early)
	}
}

// startFailed decides what a failed start means for those who wait. A request keeps its place as long as something
// can still serve it: a busy worker, a start of an older configuration, or another start, which after a permanent failure would fail likewise. When
// nothing is left all are answered at once. The pool tries again after a pause that grows with each failure in a
// row; a new request that has nothing else to hope for does not wait for that pause, unless the agent, which is away, is awaited: all
// wait for it then. Callers hold mu.
func (p *functionPool) startFailed(s *start, cause error, awaited bool) {
	p.awaiting = awaited
	if s.fallback && !p.closed && !p.removed {
		p.fallbackFailed(s, cause)
		return
	}
	if p.closed || p.removed || !p.current(s) {
		p.fill()
		return
	}
	p.failures++
	p.failure = cause.Error()
	pause := min(firstBackoff<<min(p.failures-1, 16), lastBackoff)
	var known *gateway.Error
	if errors.As(cause, &known) && known.Reason == reason.AgentAway {
		pause = min(pause, awayBackoff)
	}
	if awaited {
		pause = min(pause, awayPause)
	}
	now := time.Now()
	p.retryAt = now.Add(pause)
	if !awaited {
		p.trialFailed(now)
	}

	err := gateway.Errorf(gateway.CodeUnavailable, "function %s: starting a container: %w", p.name, &StartError{err: cause})
	err.RetryAfter = max(pause, time.Second)
	if known != nil {
		// What the box has no memory for says nothing about the function.
		err.Permanent, err.Reason, err.NotTried = known.Permanent, known.Reason, known.NotTried || noMemory(cause)
	}
	p.manager.log.Error("start failed", "function", p.name, "request_id", s.requestID, "error", cause.Error(),
		"permanent", err.Permanent, "failures", p.failures, "retry_ms", pause.Milliseconds(), "outdated_workers_serve", p.outdated())
	if !awaited && p.returning() == 0 && !p.outdatedStarts() && (err.Permanent || p.usableStarts() == 0) && !p.fallsBack(now) {
		p.answerAll(err)
	}
	p.fill()
}
