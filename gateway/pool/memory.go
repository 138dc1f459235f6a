package pool

import (
	"cmp"
	"errors"
	"slices"
	"time"

	"github.com/edge-serverless-box/esb/api/reason"
	"github.com/edge-serverless-box/esb/gateway"
)

// evictionLimit is how long the end of a worker is waited for whose memory another function needs: its grace, and a moment more.
const evictionLimit = idleGrace + 2*time.Second

// candidate is an idle worker that may be given up for another function's.
type candidate struct {
	pool   *functionPool
	worker *worker
	// kept says that its function is to have it, by min_capacity for example.
	kept bool
	// idle is how often it could have been started in the time that nobody has needed it.
	idle float64
}

// startContainer starts a container of fn. While the box has no memory for it, idle workers of any function are given up: first those that no
// min_capacity keeps, and of them the ones that nobody has needed for longest, measured by how long another start of them would take.
func (p *functionPool) startContainer(s *start, fn *gateway.Function) (gateway.Worker, error) {
	m := p.manager
	for n := 1; ; n *= 2 {
		info, err := m.provisioner.Start(m.ctx, fn, s.standby, s.requestID)
		if err == nil || !noMemory(err) || !m.makeMemory(p, s, n) {
			return info, err
		}
	}
}

func noMemory(err error) bool {
	var known *gateway.Error
	return errors.As(err, &known) && known.Reason == reason.NoMemory
}

// makeMemory gives up to n idle workers up for s, and does not wait for ever for their end: one that does not end must not keep s from
// those of others. False says that there was none, or that nobody waits for s any more.
func (m *Manager) makeMemory(p *functionPool, s *start, n int) bool {
	p.mu.Lock()
	wanted := !s.background || s.isPromoted
	over := p.closed || p.removed || wanted && p.waiters.Len() == 0
	p.mu.Unlock()
	if over {
		return false
	}
	return m.giveUp(n, wanted, "its memory is needed for function "+p.name, idleGrace) > 0
}

// giveUp gives up to n idle workers up, those that no min_capacity keeps, or others too, and returns how many when they are gone, or
// after evictionLimit. Their functions start none without a request for as long as yields.
func (m *Manager) giveUp(n int, others bool, reason string, yields time.Duration) int {
	var gone []<-chan struct{}
	for _, c := range m.candidates() {
		if len(gone) == n || c.kept && !others {
			break
		}
		if ended := c.pool.giveUp(c.worker, reason, yields); ended != nil {
			gone = append(gone, ended)
		}
	}
	limit := time.NewTimer(evictionLimit)
	defer limit.Stop()
	for _, ended := range gone {
		select {
		case <-ended:
		case <-limit.C:
			return len(gone)
		case <-m.ctx.Done():
			return 0
		}
	}
	return len(gone)
}

// candidates are all idle workers, those first that are worth least.
func (m *Manager) candidates() []candidate {
	var all []candidate
	now := time.Now()
	for _, p := range *m.pools.Load() {
		p.mu.Lock()
		excess := len(p.idle) + p.returning() - p.keeps()
		for i, w := range p.idle {
			cost := max(w.ready.Sub(w.begun), time.Millisecond)
			all = append(all, candidate{pool: p, worker: w, kept: i >= excess, idle: float64(now.Sub(w.since)) / float64(cost)})
		}
		p.mu.Unlock()
	}
	slices.SortFunc(all, func(a, b candidate) int {
		if a.kept != b.kept {
			if a.kept {
				return 1
			}
			return -1
		}
		return cmp.Compare(b.idle, a.idle)
	})
	return all
}

// giveUp destroys w if it is still idle. What it returns is closed when its container is gone; nil when it was not idle.
func (p *functionPool) giveUp(w *worker, reason string, yields time.Duration) <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	i := slices.Index(p.idle, w)
	if i < 0 {
		return nil
	}
	p.idle = slices.Delete(p.idle, i, i+1)
	w.gone = make(chan struct{})
	evicted.WithLabelValues(p.name).Inc()
	// Its end is waited for, like that of one whose slot is.
	p.end(w, idleGrace, reason, true)
	p.yield(yields)
	p.fill()
	return w.gone
}

// yield keeps starts that no request waits for from taking, for a while, the memory that a worker was given up for. Callers hold mu.
func (p *functionPool) yield(while time.Duration) {
	if until := time.Now().Add(while); until.After(p.yieldsUntil) {
		p.yieldsUntil = until
	}
}
