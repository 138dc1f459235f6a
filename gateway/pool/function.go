package pool

import (
	"container/list"
	"context"
	"fmt"
	"io"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/edge-serverless-box/esb/gateway"
	"github.com/prometheus/client_golang/prometheus"
)

// worker is one container that holds a slot. Its fields are guarded by the pool's mu, but info, which never
// changes.
type worker struct {
	info gateway.Worker
	// generation is that of the configuration it was started with, and revision the pool's number of that.
	generation string
	revision   int
	// fn is that configuration.
	fn *gateway.Function
	// outdated is true when it was made with settings of the agent that are others now: whatever generation it has, it is no current one.
	outdated bool
	// begun is when its start began, and so about when its image was looked up, and ready when that was over.
	begun, ready time.Time
	phase        Phase
	since        time.Time
	// invoked is true once a request has had it.
	invoked bool
	// doomed, when not empty, is why it is destroyed instead of being given back.
	doomed     string
	attachment io.Closer
	// undying is true when its destruction has failed for stopLimit.
	undying bool
	// gone is closed when it has been destroyed; nil when nobody waits for that.
	gone chan struct{}
	// held is true while it is busy with what nobody of this gateway waits for: it was adopted, or is doubted.
	held bool
	// signed is its last sign of life but for changes of phase, or the last attempt to get one; asked is true while one is waited for.
	signed time.Time
	asked  bool
	// unheard is true when it could not be asked for its last sign of life: the next request asks it.
	unheard bool
	// doubted is true of a held one that has not answered a request's question.
	doubted bool

	// freeze calls freezeNow; nil when that is not to come.
	freeze *time.Timer
	// freezeTries counts attempts that found it at work since it was lent.
	freezeTries int
	// freezing is closed when a freeze that is going on has ended; nil when there is none.
	freezing chan struct{}
	// frozen is true while its processes stand still; unsure, when a freeze has failed and may have worked.
	frozen, unsure bool
	// thaw lets it run again without the agent; nil when that cannot be done.
	thaw func() error
	// mute is true when it did not answer the last attempt to freeze it.
	mute bool
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
	// generation is that of fn, for who has no time for mu.
	generation atomic.Pointer[string]

	// mu guards everything below: the state that decides which request gets which worker. Two things always hold
	// when it is free: while a request waits no worker is idle or standing by, and len(workers)+len(starts) does
	// not grow above the max_capacity of fn.
	mu      sync.Mutex
	fn      *gateway.Function
	removed bool
	closed  bool
	// revision counts the generations of fn; reached is the newest of which a worker has been ready, or nothing older was left.
	revision, reached    int
	changedAt, reachedAt time.Time
	// target is, while a function that was warm changes, how many workers of the current configuration it is to get, whether requests
	// wait or not: as many as were in use.
	target int
	// proven is the configuration that the pool goes back to when a changed one cannot start. trialAt is when that is tried again though
	// nothing else serves, after so many trials; fallbackAt when the start of proven is, which has failed so many times in a row.
	proven *proof
	// restored is true while proven is of an earlier Manager, and no worker has been ready since.
	restored            bool
	trials, fallbacks   int
	trialAt, fallbackAt time.Time
	// turning is true while workers older than the reached revision serve until they are replaced.
	turning bool
	// workers are all containers that hold a slot, by id, those being destroyed included.
	workers map[string]*worker
	// idle workers, the most recently used last.
	idle    []*worker
	standby []*worker
	busy    int
	// stopping counts those being destroyed, and stuck those of them that cannot be.
	stopping, stuck int
	starts          []*start
	// early are workers that have ended before the agent's answer to their start came, and why they are given up.
	early map[string]string
	// adopted is true when the workers of before are known; asking counts those that have not said yet whether they are free.
	adopted bool
	asking  int
	// waiters is the queue of *waiter, the oldest in front.
	waiters *list.List
	// failures counts failed starts in a row. Until retryAt, starts are made only for requests that have nothing
	// else to hope for.
	failures int
	// failure is why the last of them did, for the operator.
	failure string
	retryAt time.Time
	// awaiting is true when the last start failed because the agent is away, and it is waited for: until retryAt nothing is started.
	awaiting bool
	// Until yieldsUntil nothing is started that no request waits for: what another function needs was taken from this one.
	yieldsUntil time.Time
	// standbyAt is when sandboxes for standby may be started again.
	standbyAt time.Time
	// timer calls tick at wakeAt, the next moment that something is due; zero when nothing is.
	timer  *time.Timer
	wakeAt time.Time
}

func newFunctionPool(m *Manager, fn *gateway.Function) *functionPool {
	p := &functionPool{
		manager: m,
		name:    fn.Name,
		wait:    acquireWait.WithLabelValues(fn.Name),
		fn:      fn,
		workers: make(map[string]*worker),
		early:   make(map[string]string),
		adopted: !m.adopts(),
		waiters: list.New(),
	}
	p.generation.Store(&fn.Generation)
	p.restore()
	return p
}

// acquire lends a worker that runs.
func (p *functionPool) acquire(ctx context.Context, requestID string) (*Lease, error) {
	l, err := p.take(ctx, requestID, 0)
	if l == nil || !l.cool && !l.stale {
		return l, err
	}
	// Whatever it takes until a worker runs, the request has one acquire_timeout.
	began := time.Now()
	limited, cancel := context.WithTimeout(ctx, p.acquireTimeout())
	defer cancel()
	for {
		prepare := p.check
		if l.cool {
			prepare = p.thawFor
		}
		runs, err := prepare(limited, l)
		switch {
		case err != nil && limited.Err() != nil && ctx.Err() == nil:
			return nil, p.errTooLate()
		case err != nil:
			return nil, err
		case runs && l.mute:
			l.cool, l.mute = false, false
			continue
		case runs:
			return l, nil
		}
		if l, err = p.take(ctx, requestID, time.Since(began)); l == nil || !l.cool && !l.stale {
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
		n = p.best()
		w := p.idle[n]
		p.idle = slices.Delete(p.idle, n, n+1)
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
	if err := p.queueFull(); err != nil {
		p.mu.Unlock()
		return nil, err
	}
	sc := p.fn.Scaling
	q := &waiter{requestID: requestID, answered: make(chan struct{})}
	if err := p.queue(q); err != nil {
		return nil, err
	}

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
		return nil, p.leave(q, p.errTooLate())
	}
}

func (p *functionPool) acquireTimeout() time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.fn.Scaling.AcquireTimeout
}

// errTooLate: acquire_timeout has passed.
func (p *functionPool) errTooLate() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	err := gateway.Errorf(gateway.CodeUnavailable, "no worker for function %s within its acquire_timeout of %s", p.name, p.fn.Scaling.AcquireTimeout)
	err.RetryAfter = time.Second
	err.Busy = p.busy >= p.fn.Scaling.MaxCapacity
	return err
}

// best is the index of the idle worker that is lent next: the most recently used one of the newest configuration. Callers hold mu,
// and there is one.
func (p *functionPool) best() int {
	n := len(p.idle) - 1
	for i := n - 1; i >= 0 && p.idle[n].revision < p.revision; i-- {
		if p.idle[i].revision > p.idle[n].revision {
			n = i
		}
	}
	return n
}

// leave takes q, whose request goes away with err, out of the queue. A worker that q was given in the same moment
// goes to the next.
func (p *functionPool) leave(q *waiter, err error) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if q.element != nil {
		p.unqueue(q)
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
	now := time.Now()
	stale := (w.unheard || now.Sub(w.lastSign()) >= trustFor) && p.manager.asks(w)
	w.phase, w.since = PhaseBusy, now
	p.busy++
	p.manager.leases.Add(1)
	p.disarmFreeze(w)
	w.freezeTries = 0
	return &Lease{pool: p, worker: w, cold: !w.invoked, cool: w.resting(), stale: stale, attachment: w.attachment}
}

// takeBack ends the lease of w; condemned says why w is not to be used again.
func (p *functionPool) takeBack(w *worker, condemned string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	first := !w.invoked
	w.invoked = true
	if w.phase != PhaseBusy {
		return
	}
	if first && w.info.Standby && w.revision == p.reached && condemned == "" && w.doomed == "" {
		p.prove() // its function process is there only now
	}
	p.busy--
	w.heard()
	if condemned != "" {
		if w.doomed != "" {
			condemned = w.doomed // its invocation failed because of that
		}
		p.destroy(w, 0, condemned)
		p.fill()
		return
	}
	p.give(w)
}

// putBack gives back w, which was lent and not used.
func (p *functionPool) putBack(w *worker) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if w.phase == PhaseBusy {
		p.busy--
		p.give(w)
	}
}

// give finds the use for a worker that is free: the oldest waiting request, else the idle or standing-by ones, else,
// when it may not stay, its end. Callers hold mu.
func (p *functionPool) give(w *worker) {
	reason := w.doomed
	switch {
	case p.closed && p.manager.adopts() && reason == "":
		w.phase, w.since = PhaseIdle, time.Now()
		return
	case p.closed:
		reason = "gateway stops"
	case p.removed && p.waiters.Len() == 0:
		reason = "function removed"
	case w.revision < p.reached && p.excess() > 0, w.revision < p.revision && p.gives(w):
		reason = reasonChanged
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
	p.makeRoom(w.since)
}

func (p *functionPool) answer(q *waiter, l *Lease, err error) {
	p.unqueue(q)
	q.lease, q.err = l, err
	close(q.answered)
}

func (p *functionPool) answerAll(err error) {
	for e := p.waiters.Front(); e != nil; e = p.waiters.Front() {
		p.answer(e.Value.(*waiter), nil, err)
	}
}

// attach keeps c with w.
func (p *functionPool) attach(w *worker, c io.Closer) {
	p.mu.Lock()
	gone := w.phase != PhaseBusy || w.doomed != ""
	if !gone {
		w.attachment = c
	}
	p.mu.Unlock()
	if gone {
		_ = c.Close() // Close has evicted the worker in the meantime, or it has ended
	}
}

func (p *functionPool) state() State {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := State{
		Function: p.name, Generation: p.fn.Generation, MaxCapacity: p.fn.Scaling.MaxCapacity,
		Idle: len(p.idle), Busy: p.busy, Starting: len(p.starts), Standby: len(p.standby), Stopping: p.stopping,
		Waiting: p.waiters.Len(), Workers: make([]WorkerState, 0, len(p.workers)), Failures: p.failures, Error: p.failure,
		Outdated: p.outdated(),
	}
	if s.Outdated > 0 && s.Error != "" {
		s.Error = "the configuration before the present one still serves: " + s.Error
	}
	for _, w := range p.workers {
		if w.frozen && w.phase == PhaseIdle {
			s.Frozen++
		}
		s.Workers = append(s.Workers, WorkerState{ID: w.info.ID, Name: w.info.Name, Addr: w.info.Addr, State: w.phase, Frozen: w.frozen, Since: w.since})
	}
	if p.stuck > 0 && s.Error == "" {
		s.Error = fmt.Sprintf("%d containers cannot be destroyed: their slots of max_capacity stay taken", p.stuck)
	}
	slices.SortFunc(s.Workers, func(a, b WorkerState) int { return a.Since.Compare(b.Since) })
	return s
}
