package pool

import (
	"context"
	"slices"
	"time"

	"github.com/edge-serverless-box/esb/gateway"
)

// destroy ends w, which its caller has taken out of idle or standby, in a goroutine of its own. Its slot stays taken
// until the container is gone. Callers hold mu.
func (p *functionPool) destroy(w *worker, grace time.Duration, reason string) {
	// Who has to go at once has a request, or its next one, that waits for the slot.
	p.end(w, grace, reason, grace == 0 || p.waiters.Len() > 0)
}

// end is destroy, before other ends if it is urgent. Callers hold mu.
func (p *functionPool) end(w *worker, grace time.Duration, reason string, urgent bool) {
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
		p.manager.stop(w.info, grace, reason, urgent, func() { p.undying(w) })
		p.mu.Lock()
		defer p.mu.Unlock()
		p.stopping--
		if w.undying {
			p.stuck--
		}
		delete(p.workers, w.info.ID)
		if w.gone != nil {
			p.yield(firstBackoff)
			close(w.gone)
		}
		p.fill()
	})
}

// undying marks w, which cannot be destroyed.
func (p *functionPool) undying(w *worker) {
	p.mu.Lock()
	defer p.mu.Unlock()
	w.undying = true
	p.stuck++
}

// stop destroys a container, and tries again, when that fails, until it is gone: as long as it may live, no other one has its
// slot. stuck is called when that takes longer than stopLimit. While the gateway closes there is one attempt.
func (m *Manager) stop(w gateway.Worker, grace time.Duration, reason string, urgent bool, stuck func()) {
	began := time.Now()
	for pause := firstBackoff; ; pause = min(2*pause, stopPause) {
		err := m.stopOnce(w.Function, w.ID, grace, reason, urgent)
		if err == nil {
			m.log.Info("container destroyed", "function", w.Function, "container_id", w.ID, "name", w.Name, "reason", reason)
			return
		}
		m.log.Warn("destroying a container failed", "function", w.Function, "container_id", w.ID, "reason", reason, "error", err.Error())
		if stuck != nil && time.Since(began) >= stopLimit {
			m.log.Error("container cannot be destroyed: its slot of max_capacity stays taken, and it is tried again", "function", w.Function,
				"container_id", w.ID, "name", w.Name, "reason", reason)
			stuck()
			stuck = nil
		}
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
			continue
		case <-m.closing:
			timer.Stop()
		}
		m.log.Error("container left to the janitor", "function", w.Function, "container_id", w.ID, "name", w.Name, "reason", reason)
		m.stranded.Add(1)
		return
	}
}

// stopOnce is one attempt, in its turn.
func (m *Manager) stopOnce(function, id string, grace time.Duration, reason string, urgent bool) error {
	turn := m.stops.Join(function, urgent)
	defer turn.Done()
	select {
	case <-turn.Granted():
	case <-m.stopCtx.Done():
		return m.stopCtx.Err()
	}
	ctx, cancel := context.WithTimeout(m.stopCtx, grace+stopTimeout)
	defer cancel()
	return m.provisioner.Stop(ctx, id, grace, reason)
}

// remove drains the pool of a function that is configured no more; it is true when nothing is left. Requests that were accepted
// before have the workers that come back, and starts that are on their way.
func (p *functionPool) remove() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.removed {
		p.removed, p.target = true, 0
		p.destroyUnused("function removed")
		p.disarm() // it may be forgotten before that is due
		p.strand()
	}
	return p.live() == 0
}

// strand answers the requests that wait for a removed function when no worker is to come that could serve them. Callers hold mu.
func (p *functionPool) strand() {
	coming := slices.ContainsFunc(p.starts, func(s *start) bool { return s.fn != nil })
	if p.removed && !coming && p.returning() == 0 {
		p.answerAll(errRemoved(p.name))
	}
}

func (p *functionPool) empty() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.removed && p.live() == 0
}

// close ends lending for good and destroys the workers without work, unless they are to be adopted.
func (p *functionPool) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	p.answerAll(errClosing(p.name))
	if !p.manager.adopts() {
		p.destroyUnused("gateway stops")
	}
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
