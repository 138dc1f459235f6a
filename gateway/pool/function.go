package pool

import (
	"container/list"
	"context"
	"errors"
	"io"
	"slices"
	"sync"
	"time"

	"github.com/edge-serverless-box/esb/gateway"
	"github.com/prometheus/client_golang/prometheus"
)

// worker is one container that holds a slot. Its fields are guarded by the pool's mu, but info, which never
// changes.
type worker struct {
	info gateway.Worker
	// generation is that of the configuration it was started with.
	generation string
	// fn is that configuration.
	fn *gateway.Function
	// begun is when its start began, and so about when its image was looked up.
	begun time.Time
	phase Phase
	since time.Time
	// invoked is true once a request has had it.
	invoked bool
	// doomed, when not empty, is why it is destroyed instead of being given back.
	doomed     string
	attachment io.Closer

	// freeze calls freezeNow; nil when that is not to come.
	freeze *time.Timer
	// freezeTries counts attempts that found it at work since it was lent.
	freezeTries int
	// freezing is closed when a freeze that is going on has ended; nil when there is none.
	freezing chan struct{}
	// frozen is true while its processes stand still; unsure, when a freeze has failed and may have worked.
	frozen, unsure bool
}

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
	// fn is the configuration it starts, nil until its turn has come.
	fn    *gateway.Function
	begun time.Time
}

// waiter is a request in the queue.
type waiter struct {
	requestID string
	// answered is closed when lease or err is set; the pool's mu guards both until then.
	answered chan struct{}
	lease    *Lease
	err      error
	element  *list.Element
}

// functionPool is the pool of one function. No call leaves the process while mu is held: starts and destructions
// run in goroutines of their own.
type functionPool struct {
	manager *Manager
	name    string
	wait    prometheus.Observer

	// mu guards everything below: the state that decides which request gets which worker. Two things always hold
	// when it is free: while a request waits no worker is idle or standing by, and len(workers)+len(starts) does
	// not grow above the max_capacity of fn.
	mu      sync.Mutex
	fn      *gateway.Function
	removed bool
	closed  bool
	// workers are all containers that hold a slot, by id, those being destroyed included.
	workers map[string]*worker
	// idle workers, the most recently used last.
	idle     []*worker
	standby  []*worker
	busy     int
	stopping int
	starts   []*start
	// early are workers that have ended before the agent's answer to their start came.
	early map[string]bool
	// waiters is the queue of *waiter, the oldest in front.
	waiters *list.List
	// failures counts failed starts in a row. Until retryAt, starts are made only for requests that have nothing
	// else to hope for.
	failures int
	// failure is why the last of them did, for the operator.
	failure string
	retryAt time.Time
	// standbyAt is when sandboxes for standby may be started again.
	standbyAt time.Time
	// timer calls tick at wakeAt, the next moment that something is due; zero when nothing is.
	timer  *time.Timer
	wakeAt time.Time
}

func newFunctionPool(m *Manager, fn *gateway.Function) *functionPool {
	return &functionPool{
		manager: m,
		name:    fn.Name,
		wait:    acquireWait.WithLabelValues(fn.Name),
		fn:      fn,
		workers: make(map[string]*worker),
		early:   make(map[string]bool),
		waiters: list.New(),
	}
}

// acquire lends a worker that runs.
func (p *functionPool) acquire(ctx context.Context, requestID string) (*Lease, error) {
	l, err := p.take(ctx, requestID, 0)
	if l == nil || !l.cool {
		return l, err
	}
	// Whatever it takes until a worker runs, the request has one acquire_timeout.
	began := time.Now()
	for {
		thawed, err := p.thawFor(ctx, l)
		switch {
		case err != nil:
			return nil, err
		case thawed:
			return l, nil
		}
		if l, err = p.take(ctx, requestID, time.Since(began)); l == nil || !l.cool {
			return l, err
		}
	}
}

// take lends a worker, which may be frozen, to a request that has waited for so long already.
func (p *functionPool) take(ctx context.Context, requestID string, waited time.Duration) (*Lease, error) {
	if ctx.Err() != nil {
		return nil, contextError(ctx, p.name)
	}
	p.mu.Lock()
	switch {
	case p.closed:
		p.mu.Unlock()
		return nil, errClosing(p.name)
	case p.removed:
		p.mu.Unlock()
		return nil, errRemoved(p.name)
	}
	if n := len(p.idle); n > 0 {
		w := p.idle[n-1]
		p.idle = slices.Delete(p.idle, n-1, n)
		l := p.lend(w)
		p.mu.Unlock()
		p.wait.Observe(0)
		return l, nil
	}
	if n := len(p.standby); n > 0 {
		w := p.standby[n-1]
		p.standby = slices.Delete(p.standby, n-1, n)
		l := p.lend(w)
		p.standbyAt = time.Now().Add(standbyDelay)
		p.fill()
		p.mu.Unlock()
		p.wait.Observe(0)
		return l, nil
	}
	sc := p.fn.Scaling
	if sc.MaxCapacity <= 0 {
		p.mu.Unlock()
		return nil, gateway.Errorf(gateway.CodeThrottled, "function %s has max_capacity 0: every request is refused", p.name)
	}
	// A request that a start or a free slot answers for is not in the queue that the setting bounds.
	slots := p.usableStarts() + max(0, sc.MaxCapacity-p.live())
	if p.waiters.Len()-slots >= sc.Queue {
		p.mu.Unlock()
		return nil, gateway.Errorf(gateway.CodeThrottled, "function %s: all %d workers are busy and %d requests wait already", p.name, sc.MaxCapacity, sc.Queue)
	}
	q := &waiter{requestID: requestID, answered: make(chan struct{})}
	q.element = p.waiters.PushBack(q)
	p.fill()
	p.mu.Unlock()

	began := time.Now()
	defer func() { p.wait.Observe(time.Since(began).Seconds()) }()
	timer := time.NewTimer(sc.AcquireTimeout - waited)
	defer timer.Stop()
	select {
	case <-q.answered:
		return q.lease, q.err
	case <-ctx.Done():
		return nil, p.leave(q, contextError(ctx, p.name))
	case <-timer.C:
		err := gateway.Errorf(gateway.CodeUnavailable, "no worker for function %s within its acquire_timeout of %s", p.name, sc.AcquireTimeout)
		err.RetryAfter = time.Second
		p.mu.Lock()
		err.Busy = p.busy >= sc.MaxCapacity
		p.mu.Unlock()
		return nil, p.leave(q, err)
	}
}

// leave takes q, whose request goes away with err, out of the queue. A worker that q was given in the same moment
// goes to the next.
func (p *functionPool) leave(q *waiter, err error) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if q.element != nil {
		p.waiters.Remove(q.element)
		q.element = nil
		return err
	}
	if q.lease == nil {
		return q.err
	}
	if w := q.lease.worker; w.phase == PhaseBusy {
		p.busy--
		p.give(w)
	}
	p.manager.leaseEnded()
	return err
}

// lend marks w as busy. Callers hold mu and have taken w out of where it was.
func (p *functionPool) lend(w *worker) *Lease {
	w.phase, w.since = PhaseBusy, time.Now()
	p.busy++
	p.manager.leases.Add(1)
	p.disarmFreeze(w)
	w.freezeTries = 0
	return &Lease{pool: p, worker: w, cold: !w.invoked, cool: w.frozen || w.unsure || w.freezing != nil, attachment: w.attachment}
}

// takeBack ends the lease of w; condemned says why w is not to be used again.
func (p *functionPool) takeBack(w *worker, condemned string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	w.invoked = true
	if w.phase != PhaseBusy {
		return
	}
	p.busy--
	if condemned != "" {
		p.destroy(w, 0, condemned)
		p.fill()
		return
	}
	p.give(w)
}

// give finds the use for a worker that is free: the oldest waiting request, else the idle or standing-by ones, else,
// when it may not stay, its end. Callers hold mu.
func (p *functionPool) give(w *worker) {
	reason := w.doomed
	switch {
	case p.closed:
		reason = "gateway stops"
	case p.removed:
		reason = "function removed"
	case w.generation != p.fn.Generation:
		reason = "configuration changed"
	case p.active() > p.fn.Scaling.MaxCapacity:
		reason = "over max_capacity"
	}
	if reason != "" {
		p.destroy(w, idleGrace, reason)
		p.fill()
		return
	}
	if front := p.waiters.Front(); front != nil {
		p.answer(front.Value.(*waiter), p.lend(w), nil)
		return
	}
	w.since = time.Now()
	if w.info.Standby && !w.invoked {
		w.phase = PhaseStandby
		p.standby = append(p.standby, w)
		return
	}
	w.phase = PhaseIdle
	p.idle = append(p.idle, w)
	p.armPrune()
	p.armFreeze(w, freezeDelay)
}

func (p *functionPool) answer(q *waiter, l *Lease, err error) {
	p.waiters.Remove(q.element)
	q.element = nil
	q.lease, q.err = l, err
	close(q.answered)
}

func (p *functionPool) answerAll(err error) {
	for e := p.waiters.Front(); e != nil; e = p.waiters.Front() {
		p.answer(e.Value.(*waiter), nil, err)
	}
}

// live counts the slots in use.
func (p *functionPool) live() int { return len(p.workers) + len(p.starts) }

// active counts the slots in use but for those whose container is already being destroyed.
func (p *functionPool) active() int { return p.live() - p.stopping }

// current is true when s starts, or will start, a worker of the current configuration.
func (p *functionPool) current(s *start) bool {
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
		if w.phase == PhaseBusy && w.doomed == "" && w.generation == p.fn.Generation {
			n++
		}
	}
	return n
}

// fill begins the starts that are wanted and allowed: first for requests that wait, then for min_capacity, then for
// standby. Callers hold mu.
func (p *functionPool) fill() {
	if p.closed || p.removed {
		return
	}
	sc := p.fn.Scaling
	p.trim()
	waiting, usable := p.waiters.Len(), 0
	for _, s := range p.starts {
		if p.current(s) {
			if usable++; usable <= waiting {
				s.promote()
			}
		}
	}
	now := time.Now()
	backedOff := now.Before(p.retryAt)
	for usable < waiting && p.live() < sc.MaxCapacity {
		if backedOff && (usable > 0 || p.returning() > 0) {
			break
		}
		p.launch(&start{requestID: p.waiters.Back().Value.(*waiter).requestID})
		p.standbyAt = now.Add(standbyDelay)
		usable++
	}
	if backedOff {
		p.arm(p.retryAt)
		return
	}

	warm, standby := len(p.idle)+p.returning(), len(p.standby)
	for _, s := range p.starts {
		switch {
		case !p.current(s):
		case s.standby:
			standby++
		default:
			warm++
		}
	}
	for ; warm < sc.MinCapacity && p.live() < sc.MaxCapacity; warm++ {
		p.launch(&start{background: true})
	}
	if warm < sc.MinCapacity && p.stopping == 0 && len(p.standby) > 0 {
		// min_capacity was raised while standing-by sandboxes held the last slots.
		n := len(p.standby) - 1
		p.destroy(p.standby[n], idleGrace, "slot needed for min_capacity")
		p.standby = slices.Delete(p.standby, n, n+1)
		return
	}
	if standby < sc.Standby && now.Before(p.standbyAt) {
		p.arm(p.standbyAt)
		return
	}
	for ; standby < sc.Standby && p.live() < sc.MaxCapacity; standby++ {
		p.launch(&start{background: true, standby: true})
	}
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

// promote lets a background start run ahead for a request. One that has not begun starts the function process too.
func (s *start) promote() {
	if s.background && !s.isPromoted {
		s.isPromoted = true
		if s.fn == nil {
			s.standby = false
		}
		close(s.promoted)
	}
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
	done := m.ctx.Done()
	if s.background {
		select {
		case m.background <- struct{}{}:
			defer func() { <-m.background }()
		case <-s.promoted:
		case <-done:
		}
	}
	select {
	case m.starts <- struct{}{}:
		defer func() { <-m.starts }()
	case <-done:
	}

	p.mu.Lock()
	unwanted := !s.background && p.waiters.Len() == 0
	if p.closed || p.removed || unwanted {
		p.dropStart(s)
		p.fill()
		p.mu.Unlock()
		return
	}
	s.fn, s.begun = p.fn, time.Now()
	fn, standby, begun := s.fn, s.standby, s.begun
	p.mu.Unlock()

	info, err := m.provisioner.Start(m.ctx, fn, standby, s.requestID)
	outcome := "ok"
	if err != nil {
		outcome = "error"
	}
	startDuration.WithLabelValues(p.name, outcome).Observe(time.Since(begun).Seconds())

	p.mu.Lock()
	defer p.mu.Unlock()
	over := p.early[info.ID]
	p.dropStart(s)
	if err != nil {
		p.startFailed(s, err)
		return
	}
	p.failures, p.retryAt, p.failure = 0, time.Time{}, ""
	info.Standby = standby
	w := &worker{info: info, generation: fn.Generation, fn: fn, begun: begun}
	if p.same(fn, info.ImageDigest) {
		w.generation = p.fn.Generation
	}
	if over {
		w.doomed = endedByItself
	}
	p.workers[info.ID] = w
	m.log.Info("worker started", "function", p.name, "container_id", info.ID, "request_id", s.requestID,
		"name", info.Name, "standby", standby, "duration_ms", time.Since(begun).Milliseconds())
	p.supersede(w)
	p.give(w)
	p.fill()
}

// supersede drains the workers whose image is not that of w, which has just been started: their tag points elsewhere by
// now, and requests must not get old and new code by turns. Of two starts the one that began later knows better.
// Callers hold mu.
func (p *functionPool) supersede(w *worker) {
	const reason = "image changed"
	var old []*worker
	for _, o := range p.workers {
		switch {
		case o == w || o.doomed != "" || o.generation != w.generation || o.phase == PhaseStopping || o.info.ImageDigest == w.info.ImageDigest:
		case !o.begun.Before(w.begun):
			w.doomed = reason
		case o.phase == PhaseBusy:
			o.doomed = reason
		default:
			old = append(old, o)
		}
	}
	outdated := func(o *worker) bool { return slices.Contains(old, o) }
	p.idle = slices.DeleteFunc(p.idle, outdated)
	p.standby = slices.DeleteFunc(p.standby, outdated)
	for _, o := range old {
		p.destroy(o, idleGrace, reason)
	}
}

func (p *functionPool) dropStart(s *start) {
	i := slices.Index(p.starts, s)
	p.starts = slices.Delete(p.starts, i, i+1)
	if len(p.starts) == 0 {
		clear(p.early)
	}
}

// startFailed decides what a failed start means for those who wait. A request keeps its place as long as something
// can still serve it: a busy worker, or another start, which after a permanent failure would fail likewise. When
// nothing is left all are answered at once. The pool tries again after a pause that grows with each failure in a
// row; a new request that has nothing else to hope for does not wait for that pause. Callers hold mu.
func (p *functionPool) startFailed(s *start, cause error) {
	if p.closed || p.removed || !p.current(s) {
		p.fill()
		return
	}
	p.failures++
	p.failure = cause.Error()
	pause := min(firstBackoff<<min(p.failures-1, 16), lastBackoff)
	p.retryAt = time.Now().Add(pause)

	err := gateway.Errorf(gateway.CodeUnavailable, "function %s: starting a container: %w", p.name, &StartError{err: cause})
	err.RetryAfter = max(pause, time.Second)
	var known *gateway.Error
	if errors.As(cause, &known) {
		err.Permanent, err.Reason, err.NotTried = known.Permanent, known.Reason, known.NotTried
	}
	p.manager.log.Error("start failed", "function", p.name, "request_id", s.requestID, "error", cause.Error(),
		"permanent", err.Permanent, "failures", p.failures, "retry_ms", pause.Milliseconds())
	if p.returning() == 0 && (err.Permanent || p.usableStarts() == 0) {
		p.answerAll(err)
	}
	p.fill()
}

// destroy ends w, which its caller has taken out of idle or standby, in a goroutine of its own. Its slot stays taken
// until the container is gone. Callers hold mu.
func (p *functionPool) destroy(w *worker, grace time.Duration, reason string) {
	w.phase, w.since = PhaseStopping, time.Now()
	p.stopping++
	p.disarmFreeze(w)
	attachment := w.attachment
	w.attachment = nil
	destroyed.WithLabelValues(p.name).Inc()
	p.manager.tasks.Go(func() {
		if attachment != nil {
			_ = attachment.Close() // the container ends anyway
		}
		p.manager.stop(w.info, grace, reason)
		p.mu.Lock()
		defer p.mu.Unlock()
		p.stopping--
		delete(p.workers, w.info.ID)
		p.fill()
	})
}

// attach keeps c with w.
func (p *functionPool) attach(w *worker, c io.Closer) {
	p.mu.Lock()
	gone := w.phase != PhaseBusy
	if !gone {
		w.attachment = c
	}
	p.mu.Unlock()
	if gone {
		_ = c.Close() // Close has evicted the worker in the meantime
	}
}

// apply makes fn the configuration.
func (p *functionPool) apply(fn *gateway.Function) {
	p.mu.Lock()
	defer p.mu.Unlock()
	changed := p.fn.Generation != fn.Generation
	p.fn, p.removed = fn, false
	if changed {
		p.keepSame()
		p.destroyOutdated("configuration changed")
		p.failures, p.retryAt, p.failure = 0, time.Time{}, ""
	}
	p.fill()
	p.armPrune()
}

// same says whether a worker, which was started with the configuration old, is one of the current configuration all the same: all
// that is new of that is that its image's digest is known, and it is the worker's.
func (p *functionPool) same(old *gateway.Function, digest string) bool {
	return old.BaseGeneration != "" && old.BaseGeneration == p.fn.BaseGeneration && digest != "" && digest == p.fn.ImageDigest
}

// keepSame makes workers those of the configuration that has just become the current one, if they are. Callers hold mu.
func (p *functionPool) keepSame() {
	for _, w := range p.workers {
		if w.generation != p.fn.Generation && p.same(w.fn, w.info.ImageDigest) {
			w.generation = p.fn.Generation
		}
	}
}

// destroyOutdated destroys the idle and standing-by workers of another configuration. Callers hold mu.
func (p *functionPool) destroyOutdated(reason string) {
	outdated := func(w *worker) bool {
		if w.generation == p.fn.Generation {
			return false
		}
		p.destroy(w, idleGrace, reason)
		return true
	}
	p.idle = slices.DeleteFunc(p.idle, outdated)
	p.standby = slices.DeleteFunc(p.standby, outdated)
}

// remove drains the pool of a function that is configured no more; it is true when nothing is left.
func (p *functionPool) remove() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.removed {
		p.removed = true
		p.destroyUnused("function removed")
		p.answerAll(errRemoved(p.name))
	}
	return p.live() == 0
}

func (p *functionPool) empty() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.removed && p.live() == 0
}

// close ends lending for good and destroys the workers without work.
func (p *functionPool) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	p.answerAll(errClosing(p.name))
	p.destroyUnused("gateway stops")
	p.disarm()
}

// evict destroys the workers that are still busy.
func (p *functionPool) evict() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, w := range p.workers {
		if w.phase == PhaseBusy {
			p.busy--
			p.destroy(w, 0, "gateway stops")
		}
	}
}

// destroyUnused destroys idle and standing-by workers. Callers hold mu.
func (p *functionPool) destroyUnused(reason string) {
	for _, w := range slices.Concat(p.idle, p.standby) {
		p.destroy(w, idleGrace, reason)
	}
	clear(p.idle)
	clear(p.standby)
	p.idle, p.standby = p.idle[:0], p.standby[:0]
}

func (p *functionPool) state() State {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := State{
		Function: p.name, Generation: p.fn.Generation, MaxCapacity: p.fn.Scaling.MaxCapacity,
		Idle: len(p.idle), Busy: p.busy, Starting: len(p.starts), Standby: len(p.standby), Stopping: p.stopping,
		Waiting: p.waiters.Len(), Workers: make([]WorkerState, 0, len(p.workers)), Failures: p.failures, Error: p.failure,
	}
	for _, w := range p.workers {
		if w.frozen && w.phase == PhaseIdle {
			s.Frozen++
		}
		s.Workers = append(s.Workers, WorkerState{ID: w.info.ID, Name: w.info.Name, Addr: w.info.Addr, State: w.phase, Frozen: w.frozen, Since: w.since})
	}
	slices.SortFunc(s.Workers, func(a, b WorkerState) int { return a.Since.Compare(b.Since) })
	return s
}
