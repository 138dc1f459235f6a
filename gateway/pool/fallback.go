package pool

import (
	"errors"
	"time"

	"github.com/edge-serverless-box/esb/gateway"
)

// While a function changes, max_capacity may leave no slot for the new worker but the last old one's, and old ones may die. When the
// new configuration then cannot start, nothing would serve. So the pool remembers the configuration that its last worker that was
// ready had, goes back to that, with the image and the code that it had then, and says so. The next trial of the new one costs the
// one that serves: trials are rarer than other repeated starts.

const (
	// The next trial of a configuration that could not start is firstTrial after the last, doubled each time up to lastTrial.
	firstTrial, lastTrial = 5 * time.Second, 5 * time.Minute
)

// proof is a configuration of which a worker was ready.
type proof struct {
	fn       *gateway.Function
	revision int
	// digest is its image's; empty when that is not known.
	digest string
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
		p.proven = &proof{fn: &fn, revision: w.revision, digest: w.info.ImageDigest}
		return
	}
}

// canFallBack is true while a change is on and the configuration before is known to work.
func (p *functionPool) canFallBack() bool {
	return p.reached < p.revision && p.proven != nil && p.proven.revision == p.reached
}

// changing is true while there is something older than the current configuration that serves, or could.
func (p *functionPool) changing() bool { return p.outgoing() || p.canFallBack() }

// fallsBack is true when a worker of the configuration before is wanted: the present one cannot start, as far as is known, and none of
// either is there or on its way. Callers hold mu.
func (p *functionPool) fallsBack(now time.Time) bool {
	if !p.canFallBack() || p.failures == 0 || p.outgoing() || p.usableStarts() > 0 || p.closed || p.removed {
		return false
	}
	return now.Before(p.trialAt) && !now.Before(p.fallbackAt)
}

// fallBack starts a worker of the configuration before, if one is wanted and there is a slot. Callers hold mu.
func (p *functionPool) fallBack(now time.Time) {
	waiting := p.waiters.Len()
	switch {
	case !p.fallsBack(now) || p.live() >= p.fn.Scaling.MaxCapacity:
		return
	case waiting == 0 && (p.target == 0 && p.fn.Scaling.MinCapacity == 0 || now.Before(p.yieldsUntil)):
		return
	}
	s := &start{background: waiting == 0, fallback: true, revision: p.reached}
	if waiting > 0 {
		s.requestID = p.waiters.Back().Value.(*waiter).requestID
	}
	p.launch(s)
}

// trialFailed puts the next trial off, when this one has left nothing that serves. Callers hold mu.
func (p *functionPool) trialFailed(now time.Time) {
	if !p.canFallBack() || p.outgoing() {
		return
	}
	p.trialAt = now.Add(min(firstTrial<<min(p.trials, 16), lastTrial))
	p.trials++
	p.manager.log.Error("the changed function cannot start; it goes back to the configuration before", "function", p.name,
		"next_trial_ms", p.trialAt.Sub(now).Milliseconds())
	p.arm(p.trialAt)
}

// changedTo has the trials of a new configuration begin; served is true when something of an older one serves, or could.
func (p *functionPool) changedTo(served bool) {
	p.trials, p.trialAt, p.fallbacks, p.fallbackAt = 0, time.Time{}, 0, time.Time{}
	if !served {
		p.proven = nil
	}
}

// isProven says of a worker that s has started with fn whether it is what it was to be. Callers hold mu.
func (p *functionPool) isProven(s *start, info gateway.Worker) bool {
	return !s.fallback || p.proven == nil || p.proven.digest == "" || info.ImageDigest == p.proven.digest
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
		p.proven = nil
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
