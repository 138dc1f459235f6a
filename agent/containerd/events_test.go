package containerd

import (
	"context"
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/edge-serverless-box/esb/agent"
)

func TestWatchers_ReachEachWatcher_UntilItLeavesOrFallsBehind(t *testing.T) {
	var e watchers
	e.tell(agent.Event{Exit: &agent.Exit{ID: "nobody listens"}})
	leaving, leave := context.WithCancel(t.Context())
	first, second := e.watch(leaving), e.watch(t.Context())
	a := agent.Event{Exit: &agent.Exit{ID: "a", FunctionName: "f", Code: 137}}
	e.tell(a)
	assert.Equal(t, a, <-first)
	leave()
	_, open := <-first
	assert.False(t, open)
	for range 2 * eventsHeld {
		e.tell(agent.Event{Shortage: agent.Shortage{Bytes: 1}})
	}
	n := 0
	for range second {
		n++
	}
	assert.Equal(t, eventsHeld, n, "what is held is there, and then it must look for itself")
	e.tell(agent.Event{})
}
