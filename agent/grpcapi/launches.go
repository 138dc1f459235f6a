package grpcapi

import (
	"context"
	"sync"
	"time"
)

// settleLimit bounds the wait of a list for what is being undone.
const settleLimit = 5 * time.Second

// launches are the calls of EnsureContainer that go on. One whose caller has left undoes what it has made, which takes a moment: a
// gateway that takes the place of one that was killed must not count without it.
type launches struct {
	// mu guards all, whose values are closed when the call has ended.
	mu  sync.Mutex
	all map[context.Context]chan struct{}
}

func newLaunches() *launches {
	return &launches{all: make(map[context.Context]chan struct{})}
}

// begin notes a call, which has a context of its own.
func (l *launches) begin(ctx context.Context) (ended func()) {
	done := make(chan struct{})
	l.mu.Lock()
	defer l.mu.Unlock()
	l.all[ctx] = done
	return func() {
		l.mu.Lock()
		delete(l.all, ctx)
		l.mu.Unlock()
		close(done)
	}
}

// settle waits until the calls have ended whose callers have left.
func (l *launches) settle(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, settleLimit)
	defer cancel()
	var left []chan struct{}
	l.mu.Lock()
	for call, done := range l.all {
		if call.Err() != nil {
			left = append(left, done)
		}
	}
	l.mu.Unlock()
	for _, done := range left {
		select {
		case <-done:
		case <-ctx.Done():
			return
		}
	}
}
