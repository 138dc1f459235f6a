package httpapi

import (
	"sync"
	"time"
)

// refusalLines is how many refusals of one function have a line of the access log in a second. Each line is written, read by the agent
// and kept by the log store: at a function that is asked for far more than it can do, that would cost more than the refusals themselves.
const refusalLines = 20

// refusals bounds the lines about requests that were refused because too many wait. Metrics count all of them.
type refusals struct {
	mu        sync.Mutex
	functions map[string]*refused
}

// refused is what there was of one function in the second that began at since.
type refused struct {
	since           time.Time
	lines, unlogged int
}

// take says whether a refusal has a line, and how many since the last that had one had none.
func (r *refusals) take(function string, now time.Time) (line bool, unlogged int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	f := r.functions[function]
	if f == nil {
		if r.functions == nil {
			r.functions = make(map[string]*refused)
		}
		f = &refused{since: now}
		r.functions[function] = f
	}
	if now.Sub(f.since) >= time.Second {
		f.since, f.lines = now, 0
	}
	if f.lines == refusalLines {
		f.unlogged++
		return false, 0
	}
	f.lines++
	unlogged, f.unlogged = f.unlogged, 0
	return true, unlogged
}
