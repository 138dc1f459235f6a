package pool

import (
	"context"
	"slices"
	"time"

	"github.com/edge-serverless-box/esb/gateway"
)

// A function whose configuration, code or image has changed is served by the workers that it has until the first worker of the
// new generation is ready: those of a new one that cannot start serve on. Each change is a revision of the pool's; the pool has
// reached the newest one of which a worker was ready.
//
// From then on the older ones are replaced by turns: as many new ones as were in use lately (target) come, and with each of them an
// old one leaves, so that the function can do as much at any moment as it could before. All of it is within max_capacity: when
// nothing else gives a new worker a slot, one of the old ones is given up for it, and the next one when it is ready. With a
// max_capacity of 1 that is the only one, and requests wait in the queue meanwhile: for the new one, or, when that cannot start, for
// another old one.

// Inits says how the init of a worker went; agentclient is the one of production.
type Inits interface {
	// AwaitInit returns when the init of a worker that has just been started is over. Its error says that the function cannot
	// serve; a worker that cannot tell is no error.
	AwaitInit(ctx context.Context, w gateway.Worker) error
}

const (
	// changeLimit is how long after a change the slot of a start of an older configuration is waited for, before an idle worker is
	// given up for the new one.
	changeLimit = 30 * time.Second
	// lately is how long a worker without work counts as one that is in use.
	lately = 10 * time.Second
	// rollLimit is how long after the first new worker the old ones leave, whether there are as many new ones or not.
	rollLimit = time.Minute
	// mostService bounds earned.
	mostService = 10 * time.Second
)

const reasonChanged = "configuration changed"

// apply makes fn the configuration.
func (p *functionPool) apply(fn *gateway.Function) {
	p.mu.Lock()
	defer p.mu.Unlock()
	changed, wasRemoved := p.fn.Generation != fn.Generation, p.removed
	fellBack := p.canFallBack()
	p.fn, p.removed = fn, false
	p.generation.Store(&fn.Generation)
	if changed {
		p.revision++
		p.changedAt = time.Now()
		p.failures, p.retryAt, p.failure = 0, time.Time{}, ""
		p.keepSame()
		p.changedTo(fellBack || p.outgoing() || p.restored)
		p.recognize()
		if len(p.idle)+p.returning() > 0 {
			p.target = max(p.target, p.inUse(p.changedAt), 1)
		}
		if p.ready() > 0 {
			p.reach(p.revision)
		}
	}
	if wasRemoved {
		// What was taken away comes back as what is new, whichever generation it had then.
		p.target = 0
		p.reach(p.revision)
	}
	p.fill()
	p.armPrune()
}

// same says whether a worker, which was started with the configuration old, is one of the current configuration all the same: all
// that is new of that is that its image's digest is known, and it is the worker's.
func (p *functionPool) same(old *gateway.Function, digest string) bool {
	return old.BaseGeneration != "" && old.BaseGeneration == p.fn.BaseGeneration && digest != "" && digest == p.fn.ImageDigest
}

// keepSame makes workers those of the configuration that has just become the current one, if they are: a change may have been taken
// back. Callers hold mu.
func (p *functionPool) keepSame() {
	for _, w := range p.workers {
		if p.isCurrent(w) || !w.outdated && p.same(w.fn, w.info.ImageDigest) {
			w.generation, w.revision = p.fn.Generation, p.revision
		}
	}
}

// serves is true when w is, or will be, lent to requests.
func (p *functionPool) serves(w *worker) bool {
	return w.phase != PhaseStopping && w.doomed == "" && (w.revision >= p.reached || p.turning)
}

// inUse counts the workers that serve and have had a request lately.
func (p *functionPool) inUse(now time.Time) int {
	n := 0
	for _, w := range p.workers {
		if p.serves(w) && (w.phase == PhaseBusy || w.phase == PhaseIdle && now.Sub(w.since) < lately) {
			n++
		}
	}
	return n
}

// ready counts the warm workers of the current configuration.
func (p *functionPool) ready() int {
	n := 0
	for _, w := range p.workers {
		if w.revision == p.revision && p.serves(w) && !p.onStandby(w) {
			n++
		}
	}
	return n
}

// onStandby is true when the function's process of w is left to the first request.
func (p *functionPool) onStandby(w *worker) bool {
	return w.info.Standby && !w.invoked && w.phase != PhaseBusy
}

// renewed is how many workers of the current configuration a change is to bring: the first one alone shows that it can serve.
func (p *functionPool) renewed() int {
	if p.reached < p.revision {
		return min(p.target, 1)
	}
	return p.target
}

// outdated counts the workers of an older configuration that serve.
func (p *functionPool) outdated() int {
	n := 0
	for _, w := range p.workers {
		if w.revision < p.revision && p.serves(w) {
			n++
		}
	}
	return n
}

// outgoing is true while there are such workers, or starts of such.
func (p *functionPool) outgoing() bool {
	return p.reached < p.revision && (p.outdated() > 0 || p.outdatedStarts())
}

func (p *functionPool) outdatedStarts() bool {
	return slices.ContainsFunc(p.starts, func(s *start) bool { return !p.current(s) && s.revision >= p.reached })
}

// endChange ends a change with nothing left to change, and the replacement of old workers that is over, or takes too long.
// Callers hold mu.
func (p *functionPool) endChange(now time.Time) {
	if p.reached < p.revision && !p.changing() {
		p.reached, p.reachedAt = p.revision, now
	}
	p.target = max(0, min(p.target, p.fn.Scaling.MaxCapacity))
	limit := p.reachedAt.Add(rollLimit)
	if p.reached == p.revision && (p.ready() >= p.target || !now.Before(limit)) {
		p.target = 0
	}
	switch {
	case p.turning && (p.target == 0 || !now.Before(limit)):
		p.turning = false
		p.retire()
	case p.target > 0 && now.Before(limit):
		p.arm(limit)
	}
}

// mustProve is true when the worker of s, which runs that image, is to show that its function can serve before others go for it.
func (p *functionPool) mustProve(s *start, digest string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.manager.opts.Inits == nil || s.standby {
		return false
	}
	revision := s.revision
	if s.fn.Generation == p.fn.Generation && !s.sameName {
		revision = p.revision // whatever it was when it began
	}
	return revision > p.reached && p.changing() || revision == p.revision && p.brings(s.begun, digest)
}

// succeed has w, which is ready, take the place of one that is older. Callers hold mu.
func (p *functionPool) succeed(w *worker) {
	if w.doomed != "" || w.info.Standby && p.target > 0 {
		return
	}
	if w.revision < p.reached {
		w.doomed = reasonChanged
		return
	}
	p.reach(w.revision)
	if w.revision < p.revision {
		// One of an older configuration will do for as long as nothing newer is ready.
		p.target = max(p.target, 1)
	}
}

// reach makes revision the one that serves from now on, of which a worker is ready. Callers hold mu.
func (p *functionPool) reach(revision int) {
	now := time.Now()
	if revision > p.reached {
		p.reached, p.reachedAt, p.turning = revision, now, p.target > 0
	}
	p.prove()
	p.endChange(now)
	p.retire()
}

// retire destroys workers without work that are older than the revision that serves, and more than are needed beside the new ones.
// A start of such goes on: who cancels one does not know when its container is gone. Callers hold mu.
func (p *functionPool) retire() {
	p.standby = slices.DeleteFunc(p.standby, func(w *worker) bool {
		if w.revision >= p.reached {
			return false
		}
		p.destroy(w, idleGrace, reasonChanged)
		return true
	})
	excess := p.excess()
	p.idle = slices.DeleteFunc(p.idle, func(w *worker) bool {
		if w.revision >= p.reached || excess == 0 {
			return false
		}
		excess--
		p.destroy(w, idleGrace, reasonChanged)
		return true
	})
}

// excess is how many warm workers there are beyond those that were in use before a change. Callers hold mu.
func (p *functionPool) excess() int {
	if !p.turning {
		return len(p.workers)
	}
	n := 0
	for _, w := range p.workers {
		if w.phase != PhaseStopping && w.doomed == "" && !p.onStandby(w) {
			n++
		}
	}
	return max(0, n-p.target)
}

// needsRoom is true when a worker of the current configuration is to come, none is on its way, and max_capacity leaves no slot for
// one. Callers hold mu.
func (p *functionPool) needsRoom(now time.Time) bool {
	if p.target == 0 && p.reached == p.revision {
		return false
	}
	if p.unsettled() || !p.fn.Startable() {
		return false
	}
	if p.stopping > p.stuck || p.live() < p.fn.Scaling.MaxCapacity || p.fn.Scaling.MaxCapacity <= 0 || now.Before(p.retryAt) {
		return false
	}
	if p.usableStarts() > 0 || p.ready() >= max(1, p.renewed()) {
		return false
	}
	if p.canFallBack() && now.Before(p.trialAt) {
		p.arm(p.trialAt)
		return false
	}
	if limit := p.changedAt.Add(changeLimit); p.outdatedStarts() && now.Before(limit) {
		p.arm(limit)
		return false
	}
	return true
}

// gives is true when w, which comes back from a request, is to make room. Callers hold mu.
func (p *functionPool) gives(w *worker) bool {
	now := time.Now()
	return p.needsRoom(now) && !now.Before(w.earned())
}

// makeRoom gives up a worker without work for one of the current configuration, if that is the only way. Callers hold mu.
func (p *functionPool) makeRoom(now time.Time) {
	if !p.needsRoom(now) {
		return
	}
	for _, unused := range []*[]*worker{&p.standby, &p.idle} {
		for i, w := range *unused {
			switch {
			case w.revision == p.revision:
			case now.Before(w.earned()):
				p.arm(w.earned())
			default:
				*unused = slices.Delete(*unused, i, i+1)
				p.destroy(w, idleGrace, reasonChanged)
				return
			}
		}
	}
}

// earned is when w has served for as long as its start took. With a change a second, and starts that take longer, workers would
// be given up as soon as they are there otherwise.
func (w *worker) earned() time.Time { return w.ready.Add(min(w.ready.Sub(w.begun), mostService)) }
