package containerd

import (
	"context"
	"sync"

	"github.com/edge-serverless-box/esb/agent"
	"github.com/edge-serverless-box/esb/agent/cpuload"
)

// eventsHeld is how many events a watcher may be behind.
const eventsHeld = 256

// watchers are told of events. The zero value works.
type watchers struct {
	// mu guards of, and the closing of its channels.
	mu sync.Mutex
	of map[chan agent.Event]struct{}
}

// watch returns a channel that is closed when ctx ends or its reader is too far behind.
func (e *watchers) watch(ctx context.Context) <-chan agent.Event {
	c := make(chan agent.Event, eventsHeld)
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.of == nil {
		e.of = map[chan agent.Event]struct{}{}
	}
	e.of[c] = struct{}{}
	context.AfterFunc(ctx, func() {
		e.mu.Lock()
		defer e.mu.Unlock()
		e.drop(c)
	})
	return c
}

// tell never waits: who is behind is dropped, and looks for itself.
func (e *watchers) tell(x agent.Event) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for c := range e.of {
		select {
		case c <- x:
		default:
			e.drop(c)
		}
	}
}

func (e *watchers) drop(c chan agent.Event) {
	if _, ok := e.of[c]; ok {
		delete(e.of, c)
		close(c)
	}
}

// WatchCPU implements agent.CPUMeter.
func (r *Runtime) WatchCPU(ctx context.Context) <-chan agent.CPULoad {
	ctx, cancel := context.WithCancel(ctx)
	forget := context.AfterFunc(r.life, cancel)
	context.AfterFunc(ctx, func() { forget() })
	return cpuload.Meter{Used: r.groups.CPUUsed, Logger: r.log}.Watch(ctx)
}

// Watch implements agent.Runtime.
func (r *Runtime) Watch(ctx context.Context) <-chan agent.Event {
	ctx, cancel := context.WithCancel(ctx)
	forget := context.AfterFunc(r.life, cancel)
	context.AfterFunc(ctx, func() { forget() })
	return r.watchers.watch(ctx)
}
