// Package flight lets those who want the same share the work.
package flight

import (
	"context"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"

	"github.com/edge-serverless-box/esb/agent"
)

// ErrStopping is the answer to who comes after the end of a Group's life.
var ErrStopping = agent.Errorf(agent.CodeUnavailable, "the agent is stopping")

// Group is work that is shared by key. It is safe for concurrent use.
type Group[T any] struct {
	life    context.Context
	limit   time.Duration
	running *sync.WaitGroup
	flights singleflight.Group
}

// New returns a Group whose work ends with life, or takes so long at most. running counts it, for who waits for its end.
func New[T any](life context.Context, limit time.Duration, running *sync.WaitGroup) *Group[T] {
	return &Group[T]{life: life, limit: limit, running: running}
}

// Do runs work for all callers that ask for key at the same time. The work lives on when a caller leaves, since others may wait for it
// and it is wanted by the next.
func (g *Group[T]) Do(ctx context.Context, key string, work func(context.Context) (T, error)) (T, error) {
	var none T
	if g.life.Err() != nil {
		return none, ErrStopping
	}
	done := g.flights.DoChan(key, func() (any, error) {
		g.running.Add(1)
		defer g.running.Done()
		ctx, cancel := context.WithTimeout(g.life, g.limit)
		defer cancel()
		return work(ctx)
	})
	select {
	case r := <-done:
		val, _ := r.Val.(T) // nil is of no type
		return val, r.Err
	case <-ctx.Done():
		return none, ctx.Err()
	}
}
