// Package turns bounds how many things are done at the same time, without letting those for whom they are done wait for each
// other's.
package turns

import (
	"slices"
	"sync"
	"time"
)

// Turns are places that there are so many of. One key, a function for example, never has all of them when there are more than one;
// the key that has fewest goes next; and who holds a place for longer than patience, because it waits for something that is not this
// machine's CPU, goes on without it.
type Turns struct {
	limit    int
	patience time.Duration

	// mu guards what is below, and the turns themselves.
	mu   sync.Mutex
	held int
	// lines are those of keys with turns that have not ended.
	lines map[string]*line
	// seq counts the turns that were granted.
	seq int
}

// line is the turns of one key.
type line struct {
	// held have a place, overdue have lost it to patience, and waiting are still to get one, the urgent ones in front.
	held, overdue int
	waiting       []*Turn
	// served is when, by seq, it had the last turn.
	served int
}

// Turn is one of them. Its holder waits for Granted, and calls Done however that ends.
type Turn struct {
	granted chan struct{}
	turns   *Turns
	key     string
	state   state
	// urgent ones go before all others.
	urgent  bool
	overdue *time.Timer
}

type state int

const (
	waits state = iota
	holds
	lapsed
	ended
)

// New returns limit places, each of which is lost to others after patience; 0 is never.
func New(limit int, patience time.Duration) *Turns {
	return &Turns{limit: max(limit, 1), patience: patience, lines: make(map[string]*line)}
}

// Join waits in the line of key. Urgent turns, of all keys, go before others.
func (t *Turns) Join(key string, urgent bool) *Turn {
	t.mu.Lock()
	defer t.mu.Unlock()
	l := t.lines[key]
	if l == nil {
		l = &line{served: t.seq}
		t.lines[key] = l
	}
	n := &Turn{granted: make(chan struct{}), turns: t, key: key, urgent: urgent}
	at := len(l.waiting)
	if urgent {
		at = l.urgent()
	}
	l.waiting = slices.Insert(l.waiting, at, n)
	t.grant()
	return n
}

// Hurry makes all turns urgent for which key waits.
func (t *Turns) Hurry(key string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if l := t.lines[key]; l != nil {
		for _, n := range l.waiting {
			n.urgent = true
		}
	}
}

// urgent counts the waiting turns that are.
func (l *line) urgent() int {
	i := slices.IndexFunc(l.waiting, func(n *Turn) bool { return !n.urgent })
	if i < 0 {
		return len(l.waiting)
	}
	return i
}

// grant gives free places to whose turn it is. Callers hold mu.
func (t *Turns) grant() {
	for t.held < t.limit {
		l := t.next()
		if l == nil {
			return
		}
		n := l.waiting[0]
		l.waiting = slices.Delete(l.waiting, 0, 1)
		t.seq++
		l.served = t.seq
		l.held++
		t.held++
		n.state = holds
		if t.patience > 0 {
			n.overdue = time.AfterFunc(t.patience, n.lapse)
		}
		close(n.granted)
	}
}

// next is the line that has the next turn, nil for none. Callers hold mu.
func (t *Turns) next() *line {
	var best *line
	for _, l := range t.lines {
		if len(l.waiting) == 0 || l.held >= max(1, t.limit-1) {
			continue
		}
		if best == nil || l.before(best) {
			best = l
		}
	}
	return best
}

func (l *line) before(o *line) bool {
	if a, b := l.waiting[0].urgent, o.waiting[0].urgent; a != b {
		return a
	}
	if a, b := l.held+min(l.overdue, 1), o.held+min(o.overdue, 1); a != b {
		return a < b
	}
	return l.served < o.served
}

// lapse lets others have the place of n.
func (n *Turn) lapse() {
	t := n.turns
	t.mu.Lock()
	defer t.mu.Unlock()
	if n.state != holds {
		return
	}
	n.state = lapsed
	l := t.lines[n.key]
	l.held--
	l.overdue++
	t.held--
	t.grant()
}

// Waiting says whether any turn waits for its place.
func (t *Turns) Waiting() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, l := range t.lines {
		if len(l.waiting) > 0 {
			return true
		}
	}
	return false
}

// Granted is closed when the turn has its place.
func (n *Turn) Granted() <-chan struct{} { return n.granted }

// Done ends a turn, whether it was granted or not. A second call does nothing.
func (n *Turn) Done() {
	t := n.turns
	t.mu.Lock()
	defer t.mu.Unlock()
	l := t.lines[n.key]
	switch n.state {
	case ended:
		return
	case waits:
		l.waiting = slices.DeleteFunc(l.waiting, func(o *Turn) bool { return o == n })
	case lapsed:
		l.overdue--
	case holds:
		if n.overdue != nil {
			n.overdue.Stop()
		}
		l.held--
		t.held--
	}
	n.state = ended
	if l.held+l.overdue+len(l.waiting) == 0 {
		delete(t.lines, n.key)
	}
	t.grant()
}
