package pool

import "time"

// The agent may have started again with other settings than its containers were made with: another region, other addresses of stores,
// other limits. That is a change of every function: what was made with the old ones serves until it is replaced.

// outdate begins such a change when workers of the current revision are among those that the agent calls outdated.
func (p *functionPool) outdate(ids map[string]bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed || p.removed {
		return
	}
	found := 0
	for id, w := range p.workers {
		if !ids[id] || w.outdated {
			continue
		}
		w.outdated = true
		if w.revision == p.revision && w.doomed == "" && w.phase != PhaseStopping {
			found++
		}
	}
	if found == 0 {
		return
	}
	now := time.Now()
	inUse, served := p.inUse(now), p.changing() || len(p.idle)+p.returning() > 0
	before := p.revision
	p.revision++
	p.changedAt = now
	p.failures, p.retryAt, p.failure = 0, time.Time{}, ""
	for _, w := range p.workers {
		if w.revision == before && !w.outdated {
			w.revision = p.revision
		}
	}
	p.changedTo(served)
	if len(p.idle)+p.returning() > 0 {
		p.target = max(p.target, inUse, 1)
	}
	if p.ready() > 0 {
		p.reach(p.revision)
	}
	p.manager.log.Info("the agent's settings have changed; workers made with those of before are replaced", "function", p.name, "outdated", found)
	p.fill()
	p.armPrune()
}
