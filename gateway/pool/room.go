package pool

import (
	"sync"

	"github.com/edge-serverless-box/esb/gateway"
)

// DefaultMaxWaiting is Options.MaxWaiting when that is not set.
const DefaultMaxWaiting = 1000

// room is where requests wait for workers, those of all functions together: each costs memory, and one whose turn cannot come
// soon is better refused at once. One function alone may fill it. When it is full, a request of a function that has fewer in it
// takes the place of the one that came last of the function that has most, so that whoever comes has a share, and all who want more
// than theirs have the same.
type room struct {
	limit int

	// mu guards what is below. It is taken with a pool's mu held, and never the other way round.
	mu      sync.Mutex
	waiting int
	// places is how many each pool may keep waiting, and debts how many of its requests are still to give a place up
	// that was taken from it: places + debts is the length of its queue. Neither has zeros.
	places map[*functionPool]int
	debts  map[*functionPool]int
}

func newRoom(limit int) *room {
	return &room{limit: limit, places: make(map[*functionPool]int), debts: make(map[*functionPool]int)}
}

// enter takes a place for a request of p. When it is another pool's, that one has to pushOut.
func (r *room) enter(p *functionPool) (from *functionPool, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.waiting < r.limit {
		r.waiting++
		r.places[p]++
		return nil, true
	}
	if from = r.richer(p); from == nil {
		return nil, false
	}
	r.take(from)
	r.debts[from]++
	r.places[p]++
	return from, true
}

// open says whether enter would succeed now.
func (r *room) open(p *functionPool) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.waiting < r.limit || r.richer(p) != nil
}

// richer is the pool with the most places, if it has more than p would have with one of them; else nil. Callers hold mu.
func (r *room) richer(p *functionPool) *functionPool {
	var richest *functionPool
	most := r.places[p] + 1
	for o, n := range r.places {
		if n > most {
			richest, most = o, n
		}
	}
	return richest
}

// leave gives back the place of a request of p that waits no more, or pays with it what p owes.
func (r *room) leave(p *functionPool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if n := r.debts[p]; n > 0 {
		if r.debts[p]--; n == 1 {
			delete(r.debts, p)
		}
		return
	}
	r.waiting--
	r.take(p)
}

func (r *room) take(p *functionPool) {
	if r.places[p]--; r.places[p] == 0 {
		delete(r.places, p)
	}
}

func (r *room) owes(p *functionPool) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.debts[p] > 0
}

// Admit refuses a request of fn that could not even wait for a worker if it asked for one now, with CodeThrottled as Acquire does.
// It takes nothing: it is for callers that have work to do before they acquire, and would do it in vain.
func (m *Manager) Admit(fn *gateway.Function) error {
	p := (*m.pools.Load())[fn.Name]
	if p == nil {
		return nil // Acquire says why
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed || p.removed || len(p.idle) > 0 || len(p.standby) > 0 {
		return nil
	}
	if err := p.queueFull(); err != nil {
		return err
	}
	if !m.room.open(p) {
		return p.errRoomFull()
	}
	return nil
}

// queueFull is why no further request may wait as far as the function's own settings go, nil when it may. Callers hold mu.
func (p *functionPool) queueFull() error {
	sc := p.fn.Scaling
	if sc.MaxCapacity <= 0 {
		return gateway.Errorf(gateway.CodeThrottled, "function %s has max_capacity 0: every request is refused", p.name)
	}
	// A request that a start or a free slot answers for, or will when something has ended there, is not in the queue that the setting
	// bounds.
	slots := sc.MaxCapacity
	for _, w := range p.workers {
		if w.phase != PhaseStopping && !w.doubted || w.undying {
			slots--
		}
	}
	if p.waiters.Len()-max(0, slots) >= sc.Queue {
		return gateway.Errorf(gateway.CodeThrottled, "function %s: all %d workers are busy and %d requests wait already", p.name, sc.MaxCapacity, sc.Queue)
	}
	return nil
}

func (p *functionPool) errRoomFull() error {
	return gateway.Errorf(gateway.CodeThrottled, "function %s: %d requests wait already, and its share of them is used up", p.name, p.manager.room.limit)
}

// queue makes q wait, unless there is no place for it. It unlocks mu, which its caller holds.
func (p *functionPool) queue(q *waiter) error {
	from, ok := p.manager.room.enter(p)
	if !ok {
		p.mu.Unlock()
		return p.errRoomFull()
	}
	q.element = p.waiters.PushBack(q)
	p.fill()
	p.mu.Unlock()
	if from != nil {
		from.pushOut()
	}
	return nil
}

// unqueue takes q out of the queue. Callers hold mu.
func (p *functionPool) unqueue(q *waiter) {
	p.waiters.Remove(q.element)
	q.element = nil
	p.manager.room.leave(p)
}

// pushOut refuses the request that came last, whose place another function has, unless one has left meanwhile.
func (p *functionPool) pushOut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if last := p.waiters.Back(); last != nil && p.manager.room.owes(p) {
		pushedOut.WithLabelValues(p.name).Inc()
		p.answer(last.Value.(*waiter), nil, p.errRoomFull())
	}
}
