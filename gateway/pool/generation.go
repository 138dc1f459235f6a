package pool

import (
	"context"
	"slices"
	"time"

	"github.com/edge-serverless-box/esb/gateway"
)

// A function whose configuration, code or image has changed is served by the workers that it has until the first worker of the
// new generation is ready: those of a new one that cannot start serve on. Each change is a revision of the pool's; the pool has
// reached the newest one of which a worker was ready, and what is older than that is not lent any more. All of it is within
// max_capacity: when nothing else gives the new worker a slot, one of the old ones is given up for it. With a max_capacity of 1
// that is the only one, and requests wait in the queue meanwhile.

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
	// mostService bounds earned.
	mostService = 10 * time.Second
)

const reasonChanged = "configuration changed"

// apply makes fn the configuration.
func (p *functionPool) apply(fn *gateway.Function) {
	p.mu.Lock()
	defer p.mu.Unlock()
	changed, wasRemoved := p.fn.Generation != fn.Generation, p.removed
	p.fn, p.removed = fn, false
	if changed {
		p.revision++
		p.changedAt = time.Now()
		p.failures, p.retryAt, p.failure = 0, time.Time{}, ""
		p.keepSame()
		present := false
		for _, w := range p.workers {
			present = present || w.revision == p.revision && w.phase != PhaseStandby && p.serves(w)
		}
		switch {
		case present:
			p.reach(p.revision)
			p.renew = false
		case len(p.idle)+p.returning() > 0:
			p.renew = true
		}
	}
	if wasRemoved {
		// What was taken away comes back as what is new, whichever generation it had then.
		p.reach(p.revision)
		p.renew = false
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
		if w.generation == p.fn.Generation || p.same(w.fn, w.info.ImageDigest) {
			w.generation, w.revision = p.fn.Generation, p.revision
		}
	}
}

// serves is true when w is, or will be, lent to requests.
func (p *functionPool) serves(w *worker) bool {
	return w.phase != PhaseStopping && w.doomed == "" && w.revision >= p.reached
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

// endChange ends a change with nothing left to change. Callers hold mu.
func (p *functionPool) endChange() {
	if p.reached < p.revision && !p.outgoing() {
		p.reached = p.revision
	}
}

// mustProve is true when the worker of s is to show that its function can serve before others go for it.
func (p *functionPool) mustProve(s *start) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.manager.opts.Inits != nil && s.revision > p.reached && p.outgoing()
}

// succeed has w, which is ready, take the place of all that is older. Callers hold mu.
func (p *functionPool) succeed(w *worker) {
	if w.doomed != "" || w.info.Standby && p.renew {
		return
	}
	p.reach(w.revision)
	// One of an older configuration will do for as long as nothing newer is ready.
	p.renew = w.revision < p.revision && p.serves(w)
}

// reach destroys workers without work that are older than revision, which is the one that serves from now on. Callers hold mu.
func (p *functionPool) reach(revision int) {
	if revision <= p.reached {
		return
	}
	p.reached = revision
	outdated := func(w *worker) bool {
		if w.revision >= revision {
			return false
		}
		p.destroy(w, idleGrace, reasonChanged)
		return true
	}
	p.idle = slices.DeleteFunc(p.idle, outdated)
	p.standby = slices.DeleteFunc(p.standby, outdated)
}

// needsRoom is true when a worker of the current configuration is to come, none is on its way, and max_capacity leaves no slot for
// one. Callers hold mu.
func (p *functionPool) needsRoom(now time.Time) bool {
	if p.reached == p.revision {
		return false
	}
	if p.stopping > 0 || p.live() < p.fn.Scaling.MaxCapacity || p.fn.Scaling.MaxCapacity <= 0 || now.Before(p.retryAt) || p.usableStarts() > 0 {
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
