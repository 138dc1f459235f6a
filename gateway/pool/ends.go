package pool

import (
	"slices"
	"time"
)

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

// remove drains the pool of a function that is configured no more; it is true when nothing is left.
func (p *functionPool) remove() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.removed {
		p.removed, p.renew = true, false
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
