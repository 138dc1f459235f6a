package pool

import (
	"errors"
	"time"

	"github.com/edge-serverless-box/esb/gateway"
)

// While a function changes, max_capacity may leave no slot for the new worker but the last old one's, and old ones may die. When the
// new configuration then cannot start, nothing would serve. So the pool remembers the configuration that its last worker that was
// ready had, goes back to that, with the image and the code that it had then, and says so. The next trial of the new one costs the
// one that serves, where there is no slot for both: those trials are rarer than other repeated starts. Meanwhile the configuration before
// scales as its function does: requests that wait have workers of it, and min_capacity is of it.

const (
	// The next trial of a configuration that could not start, at the cost of a worker that serves, is firstTrial after the last, doubled
	// each time up to lastTrial.
	firstTrial, lastTrial = 5 * time.Second, 5 * time.Minute
)

// Proof is a configuration of which a worker was ready.
type Proof struct {
	Function gateway.Function
	// Digest is its image's; empty when that is not known.
	Digest string
}

// Proofs keeps a Proof of each function from one Manager to the next; package proven is the one of production. Pools call it with their
// state locked: it must not wait.
type Proofs interface {
	// Proof returns the one of a function, false when there is none.
	Proof(function string) (Proof, bool)
	// Keep replaces the one of a function.
	Keep(function string, p Proof)
	// Forget drops those of the functions that gone says.
	Forget(gone func(function string) bool)
}

type proof struct {
	Proof
	revision int
}

// errOtherImage says that the image that the configuration before was proven with is not to be had any more.
var errOtherImage = errors.New("its image is another one by now")

// prove notes what configuration serves now. Callers hold mu.
func (p *functionPool) prove() {
	for _, w := range p.workers {
		if w.revision != p.reached || w.phase == PhaseStopping || w.doomed != "" || p.onStandby(w) {
			continue
		}
		if w.fn.Image == "" && w.fn.Code == nil {
			continue // adopted: no more is known of it
		}
		fn := *w.fn
		if fn.Code == nil && w.info.ImageDigest != "" {
			fn.Image = gateway.PinImage(fn.Image, w.info.ImageDigest)
		}
		if fn.PullPolicy == gateway.PullAlways {
			fn.PullPolicy = "if_not_present" // what is wanted is not what the tag has now
		}
		p.proven, p.restored = &proof{Proof{fn, w.info.ImageDigest}, w.revision}, false
		if store := p.manager.opts.Proofs; store != nil {
			store.Keep(p.name, p.proven.Proof)
		}
		return
	}
}

// disprove forgets what configuration is known to work. Callers hold mu.
func (p *functionPool) disprove() {
	p.proven, p.restored = nil, false
	if store := p.manager.opts.Proofs; store != nil {
		store.Forget(func(function string) bool { return function == p.name })
	}
}

// restore has a new pool know what the function worked with last, before this Manager. What it is to work with now may be something else,
// or the same: then nothing has changed.
func (p *functionPool) restore() {
	store := p.manager.opts.Proofs
	if store == nil {
		return
	}
	kept, ok := store.Proof(p.name)
	if !ok {
		return
	}
	p.proven, p.restored = &proof{kept, p.reached}, true
	p.revision++
	p.changedAt = time.Now()
	p.recognize()
}

// recognize ends the change from a restored configuration to one that turns out to be the same. As long as the digest of its image is not
// known that is open. Callers hold mu.
func (p *functionPool) recognize() {
	if !p.restored {
		return
	}
	was, fn := p.proven, p.fn
	known := fn.BaseGeneration == "" || fn.ImageDigest != "" || was.Digest == ""
	if known && was.Function.Generation == fn.Generation || p.same(&was.Function, was.Digest) {
		p.reached, was.revision = p.revision, p.revision
	}
}

// canFallBack is true while a change is on and the configuration before is known to work.
func (p *functionPool) canFallBack() bool {
	return p.reached < p.revision && p.proven != nil && p.proven.revision == p.reached
}

// changing is true while there is something older than the current configuration that serves, or could.
func (p *functionPool) changing() bool { return p.outgoing() || p.canFallBack() }

// failing is true while the current configuration cannot start, as far as is known, and the one before is known to work. An agent that is
// away says nothing about it.
func (p *functionPool) failing() bool { return p.failures > 0 && !p.awaiting && p.canFallBack() }

// fallsBack is true when those who wait can have workers of the configuration before. Callers hold mu.
func (p *functionPool) fallsBack(now time.Time) bool {
	return p.failing() && !p.closed && !p.removed && !now.Before(p.fallbackAt)
}

// trialDue is true when a free slot is for a trial of the current configuration. Callers hold mu.
func (p *functionPool) trialDue(now time.Time) bool {
	return p.usableStarts() == 0 && !now.Before(p.trialAt) && (!now.Before(p.retryAt) || !p.outgoing())
}

// fallBack starts the workers of the configuration before that are wanted and have a slot. Callers hold mu.
func (p *functionPool) fallBack(now time.Time) {
	if !p.fallsBack(now) {
		return
	}
	slots := p.fn.Scaling.MaxCapacity - p.live()
	if p.trialDue(now) {
		slots--
	}
	waiting, coming, hurry := p.waiters.Len(), 0, false
	for _, s := range p.starts {
		if !p.current(s) && s.revision >= p.reached {
			if coming++; coming <= waiting {
				hurry = s.promote() || hurry
			}
		}
	}
	if hurry {
		p.manager.starts.Hurry(p.name)
	}
	for ; coming < waiting && slots > 0; coming, slots = coming+1, slots-1 {
		p.launch(&start{fallback: true, revision: p.reached, requestID: p.waiters.Back().Value.(*waiter).requestID})
	}
	if p.target == 0 && p.fn.Scaling.MinCapacity == 0 || now.Before(p.yieldsUntil) {
		return
	}
	for warm := p.outdated() + coming; warm < p.keeps() && slots > 0; warm, slots = warm+1, slots-1 {
		p.launch(&start{background: true, fallback: true, revision: p.reached})
	}
}

// trialFailed puts the next trial off that costs a worker that serves. Callers hold mu.
func (p *functionPool) trialFailed(now time.Time) {
	if !p.canFallBack() || now.Before(p.trialAt) {
		return
	}
	p.trialAt = now.Add(min(firstTrial<<min(p.trials, 16), lastTrial))
	p.trials++
	p.arm(p.trialAt)
	if !p.outgoing() {
		p.manager.log.Error("the changed function cannot start; it goes back to the configuration before", "function", p.name,
			"next_trial_ms", p.trialAt.Sub(now).Milliseconds())
	}
}

// changedTo has the trials of a new configuration begin; served is true when something of an older one serves, or could.
func (p *functionPool) changedTo(served bool) {
	p.trials, p.trialAt, p.fallbacks, p.fallbackAt = 0, time.Time{}, 0, time.Time{}
	if !served {
		p.disprove()
	}
}

// isProven says of a worker that s has started with fn whether it is what it was to be. Callers hold mu.
func (p *functionPool) isProven(s *start, info gateway.Worker) bool {
	return !s.fallback || p.proven == nil || p.proven.Digest == "" || info.ImageDigest == p.proven.Digest
}

// fallbackFailed is startFailed for the configuration before. Callers hold mu.
func (p *functionPool) fallbackFailed(s *start, cause error) {
	if !p.canFallBack() || s.revision != p.reached {
		p.fill() // a newer one serves by now, and it is that one that is proven
		return
	}
	pause := min(firstBackoff<<min(p.fallbacks, 16), lastBackoff)
	if p.awaiting {
		pause = min(pause, awayPause)
	}
	p.fallbacks++
	p.fallbackAt = time.Now().Add(pause)
	p.arm(p.fallbackAt)
	var known *gateway.Error
	lost := errors.Is(cause, errOtherImage) || errors.As(cause, &known) && known.Permanent
	if lost {
		p.disprove()
	}
	p.manager.log.Error("the configuration before cannot start either", "function", p.name, "error", cause.Error(), "lost", lost)
	if !p.awaiting && p.returning() == 0 && !p.outdatedStarts() && p.usableStarts() == 0 {
		err := gateway.Errorf(gateway.CodeUnavailable, "function %s: going back to the configuration before: %w", p.name, &StartError{err: cause})
		err.RetryAfter = max(pause, time.Second)
		if known != nil {
			err.Reason, err.NotTried = known.Reason, known.NotTried || noMemory(cause)
		}
		p.answerAll(err)
	}
	p.fill()
}
