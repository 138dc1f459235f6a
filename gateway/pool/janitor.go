package pool

import (
	"slices"
	"sync"
	"time"
)

// janitor compares the pools with the agent's list when there is a configuration and then every HeartbeatInterval.
func (m *Manager) janitor() {
	select {
	case <-m.configured: // nobody is judged before it is known what is to be there
	case <-m.ctx.Done():
		return
	}
	ticker := time.NewTicker(m.opts.HeartbeatInterval)
	defer ticker.Stop()
	for {
		m.reconcile()
		m.purge()
		select {
		case <-ticker.C:
		case <-m.look:
		case <-m.ctx.Done():
			return
		}
	}
}

// reconcile takes workers that vanished or stopped out of the pools, has those replaced that the agent calls outdated, and destroys
// containers that no pool knows.
func (m *Manager) reconcile() {
	// Only what was known before the list was made can be missed in it, and only what is unknown after it was
	// made is an orphan.
	before := make(map[*worker]*functionPool)
	// A worker of before may have been destroyed by the time the sweep comes to it; its line in the list is no orphan.
	known := make(map[string]bool)
	for _, p := range *m.pools.Load() {
		p.mu.Lock()
		for _, w := range p.workers {
			before[w] = p
			known[w.info.ID] = true
		}
		p.mu.Unlock()
	}
	list, err := m.provisioner.List(m.ctx)
	if err == nil {
		m.away.over()
	}
	if err != nil {
		if m.ctx.Err() == nil {
			m.log.Warn("janitor: listing containers failed; trying again at the next heartbeat", "error", err.Error())
		}
		return
	}
	observed := make(map[string]Observed, len(list))
	outdated := make(map[*functionPool]map[string]bool)
	for _, o := range list {
		observed[o.ID] = o
	}
	for w, p := range before {
		switch o, ok := observed[w.info.ID]; {
		case !ok:
			p.doom(w, "container vanished")
		case o.Stopped:
			p.doom(w, "container stopped by itself")
		case o.Outdated:
			if outdated[p] == nil {
				outdated[p] = make(map[string]bool)
			}
			outdated[p][w.info.ID] = true
		}
	}
	for p, ids := range outdated {
		p.outdate(ids)
	}

	var sweep sync.WaitGroup
	defer sweep.Wait()
	for _, o := range list {
		if known[o.ID] || !m.claim(o) {
			continue
		}
		sweep.Go(func() {
			defer m.unclaim(o)
			if err := m.stopOnce(o.Function, o.ID, idleGrace, "orphan", false); err != nil {
				m.log.Warn("destroying an orphan failed; trying again at the next heartbeat",
					"function", o.Function, "container_id", o.ID, "name", o.Name, "error", err.Error())
				return
			}
			orphans.Inc()
			m.log.Info("orphan destroyed", "function", o.Function, "container_id", o.ID, "name", o.Name)
		})
	}
}

// claim is true when o is nobody's and to be destroyed; unclaim ends that.
func (m *Manager) claim(o Observed) bool {
	m.claims.Lock()
	defer m.claims.Unlock()
	p := (*m.pools.Load())[o.Function]
	switch {
	case m.claimed[o.ID], p.mayKnow(o):
		return false
	case o.Owner != "" && o.Owner != m.opts.Owner:
		if o.OwnerSilent < ownerLease {
			return false
		}
	case o.Owner != "" && p == nil:
		// Left by a gateway of this owner that had another configuration.
	case time.Since(o.CreatedAt) < m.opts.OrphanGrace:
		return false
	}
	m.claimed[o.ID] = true
	return true
}

func (m *Manager) unclaim(o Observed) {
	m.claims.Lock()
	defer m.claims.Unlock()
	delete(m.claimed, o.ID)
}

// mayKnow is true when o is one of the pool's, or may be what a running start has made.
func (p *functionPool) mayKnow(o Observed) bool {
	if p == nil {
		return false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return !p.adopted || p.workers[o.ID] != nil || slices.ContainsFunc(p.starts, func(s *start) bool {
		return s.fn != nil && !o.CreatedAt.Before(s.begun)
	})
}

// doom destroys w, whose process has ended, now when nobody uses it, else when it comes back, which is soon. Destroying what has vanished is how the agent
// gets to remove what is left of it.
func (p *functionPool) doom(w *worker, reason string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.lose(w, reason)
}

// lose is doom. Callers hold mu.
func (p *functionPool) lose(w *worker, reason string) {
	switch w.phase {
	case PhaseIdle:
		p.idle = slices.DeleteFunc(p.idle, func(o *worker) bool { return o == w })
	case PhaseStandby:
		p.standby = slices.DeleteFunc(p.standby, func(o *worker) bool { return o == w })
	case PhaseBusy:
		if w.held {
			p.release(w)
			break
		}
		w.doomed = reason
		p.cutLater(w)
		return
	default:
		return
	}
	p.manager.log.Warn("worker lost", "function", p.name, "container_id", w.info.ID, "reason", reason)
	p.destroy(w, 0, reason)
	p.fill()
}

// tick does what is due: idle workers whose time has passed are destroyed, failed starts are tried again.
func (p *functionPool) tick() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.wakeAt = time.Time{}
	if p.closed || p.removed {
		return
	}
	sc, now, n := p.fn.Scaling, time.Now(), 0
	excess := len(p.idle) + p.returning() - p.keeps()
	for n < min(excess, len(p.idle)) && now.Sub(p.idle[n].since) >= sc.IdleTimeout {
		p.destroy(p.idle[n], idleGrace, "idle")
		n++
	}
	p.idle = slices.Delete(p.idle, 0, n)
	p.fill()
	if excess > n {
		p.armPrune()
	}
}

// keeps is how many warm workers stay however long they have had nothing to do: while the new configuration cannot start, one of
// the old one is among them. Callers hold mu.
func (p *functionPool) keeps() int {
	if p.reached < p.revision {
		return max(1, p.fn.Scaling.MinCapacity)
	}
	return p.fn.Scaling.MinCapacity
}

// armPrune has tick called when the worker that was used least recently has been idle for its time, unless
// min_capacity keeps it. Callers hold mu.
func (p *functionPool) armPrune() {
	sc := p.fn.Scaling
	if len(p.idle) > 0 && len(p.idle)+p.busy > p.keeps() {
		p.arm(p.idle[0].since.Add(sc.IdleTimeout))
	}
}

// arm has tick called at that time, or earlier when that was asked for already. Callers hold mu.
func (p *functionPool) arm(at time.Time) {
	if p.closed || !p.wakeAt.IsZero() && !at.Before(p.wakeAt) {
		return
	}
	p.disarm()
	p.wakeAt = at
	p.manager.tasks.Add(1)
	p.timer = time.AfterFunc(time.Until(at), func() {
		defer p.manager.tasks.Done()
		p.tick()
	})
}

// disarm takes back what arm has asked for. Callers hold mu.
func (p *functionPool) disarm() {
	if p.timer != nil && p.timer.Stop() {
		p.manager.tasks.Done()
	}
	p.timer, p.wakeAt = nil, time.Time{}
}
