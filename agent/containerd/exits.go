package containerd

import (
	"context"
	"sync"

	"github.com/edge-serverless-box/esb/agent"
	"github.com/edge-serverless-box/esb/agent/cpuload"
)

// exitsHeld is how many exits a watcher may be behind.
const exitsHeld = 256

// exits tells watchers of containers that have ended by themselves. The zero value works.
type exits struct {
	// mu guards watchers, and the closing of their channels.
	mu       sync.Mutex
	watchers map[chan agent.Exit]struct{}
}

// watch returns a channel that is closed when ctx ends or its reader is too far behind.
func (e *exits) watch(ctx context.Context) <-chan agent.Exit {
	c := make(chan agent.Exit, exitsHeld)
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.watchers == nil {
		e.watchers = map[chan agent.Exit]struct{}{}
	}
	e.watchers[c] = struct{}{}
	context.AfterFunc(ctx, func() {
		e.mu.Lock()
		defer e.mu.Unlock()
		e.drop(c)
	})
	return c
}

// tell never waits: who is behind is dropped, and looks for itself.
func (e *exits) tell(x agent.Exit) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for c := range e.watchers {
		select {
		case c <- x:
		default:
			e.drop(c)
		}
	}
}

func (e *exits) drop(c chan agent.Exit) {
	if _, ok := e.watchers[c]; ok {
		delete(e.watchers, c)
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
func (r *Runtime) Watch(ctx context.Context) <-chan agent.Exit {
	ctx, cancel := context.WithCancel(ctx)
	forget := context.AfterFunc(r.life, cancel)
	context.AfterFunc(ctx, func() { forget() })
	return r.exits.watch(ctx)
}
