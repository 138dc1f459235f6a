package pool

import (
	"time"
)

// The tag of an image may point elsewhere before the configuration says so: what is started then has another image than the workers of the
// same revision. That is a change as any other: the first of them begins a revision, the others are outdated, and serve until they are
// replaced.

// brings is true when an image, looked up at begun, is a newer one than that of workers of the current revision, and none of those has
// one that is newer still. Callers hold mu.
func (p *functionPool) brings(begun time.Time, digest string) bool {
	found := false
	for _, w := range p.workers {
		if w.revision != p.revision || w.doomed != "" || w.phase == PhaseStopping || w.info.ImageDigest == digest {
			continue
		}
		if !w.begun.Before(begun) {
			return false
		}
		found = true
	}
	return found
}

// supersede looks whether w, which has just been started and is in workers, has another image than they have: of two starts the one
// that began later knows better. Callers hold mu.
func (p *functionPool) supersede(w *worker) {
	if w.revision != p.revision || w.doomed != "" {
		return
	}
	if p.brings(w.begun, w.info.ImageDigest) {
		now := time.Now()
		inUse, served := p.inUse(now), p.changing() || len(p.idle)+p.returning() > 0
		before := p.revision
		p.revision++
		p.changedAt = now
		for _, o := range p.workers {
			// A tag may also point to where it did before.
			if !o.outdated && (o.revision == before || o.generation == w.generation) && o.info.ImageDigest == w.info.ImageDigest {
				o.revision = p.revision
			}
		}
		if len(p.idle)+p.returning() > 0 {
			p.target = max(p.target, inUse, 1)
		}
		p.changedTo(served)
		if w.info.Standby && p.target > 0 {
			// Its slot is for one that shows that the function can serve. Lent, this one would end the change for nobody.
			w.doomed = reasonChanged
		}
		p.manager.log.Info("the image has changed; workers of the one before are replaced", "function", p.name, "digest", w.info.ImageDigest)
		return
	}
	for _, o := range p.workers {
		if o != w && o.revision == w.revision && o.doomed == "" && o.phase != PhaseStopping && o.info.ImageDigest != w.info.ImageDigest {
			w.doomed = "image changed"
			return
		}
	}
}
