package pool

import (
	"time"
)

const (
	// watchPause is the time between two attempts to hear of exits.
	watchPause = time.Second
	// lastWords is how long an answer may still be on its way from a worker that has ended.
	lastWords = time.Second
	// endedByItself and endedOutOfMemory are why a worker is given up.
	endedByItself    = "container ended by itself"
	endedOutOfMemory = "container ended by itself, out of memory"
)

// watch hears of workers that end, as long as the Manager lives.
func (m *Manager) watch() {
	heard := true
	for {
		err := m.opts.Watcher.Watch(m.ctx, func() {
			if !heard {
				m.log.Info("exits of containers are heard again")
			}
			heard = true
			m.away.over()
			m.tellShort(Shortage{anew: true})
			// What ended while nobody listened is in the list.
			select {
			case m.look <- struct{}{}:
			default:
			}
		}, m.exited, m.tellShort)
		if m.ctx.Err() != nil {
			return
		}
		if heard {
			heard = false
			m.log.Warn("exits of containers are not heard; trying again, and looking at each heartbeat", "error", err.Error())
		}
		timer := time.NewTimer(watchPause)
		select {
		case <-timer.C:
		case <-m.ctx.Done():
			timer.Stop()
			return
		}
	}
}

// exited gives up a worker that has ended.
func (m *Manager) exited(function, id string, oom bool) {
	reason := endedByItself
	if oom {
		reason = endedOutOfMemory
	}
	p := (*m.pools.Load())[function]
	if p == nil {
		return
	}
	p.mu.Lock()
	w := p.workers[id]
	if w == nil && len(p.starts) > 0 {
		// The agent's answer to its start may be on its way.
		p.early[id] = reason
	}
	p.mu.Unlock()
	if w != nil {
		p.doom(w, reason)
	}
}

// cutLater ends the invocation of the busy worker w, which has ended: its connection may never say so, when its network is gone.
// Callers hold mu.
func (p *functionPool) cutLater(w *worker) {
	if p.closed {
		return // evict does it
	}
	p.manager.tasks.Add(1)
	time.AfterFunc(lastWords, func() {
		defer p.manager.tasks.Done()
		p.mu.Lock()
		attachment := w.attachment
		if w.phase != PhaseBusy || w.doomed == "" {
			attachment = nil
		}
		p.mu.Unlock()
		if attachment != nil {
			_ = attachment.Close() // whoever has it finds out
		}
	})
}
