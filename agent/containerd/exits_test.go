package containerd

import (
	"context"
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/edge-serverless-box/esb/agent"
)

func TestExits_ReachEachWatcher_UntilItLeavesOrFallsBehind(t *testing.T) {
	var e exits
	e.tell(agent.Exit{ID: "nobody listens"})
	leaving, leave := context.WithCancel(t.Context())
	first, second := e.watch(leaving), e.watch(t.Context())
	e.tell(agent.Exit{ID: "a", FunctionName: "f", Code: 137})
	assert.Equal(t, agent.Exit{ID: "a", FunctionName: "f", Code: 137}, <-first)
	leave()
	_, open := <-first
	assert.False(t, open)
	for range 2 * exitsHeld {
		e.tell(agent.Exit{ID: "b"})
	}
	n := 0
	for range second {
		n++
	}
	assert.Equal(t, exitsHeld, n, "what is held is there, and then it must look for itself")
	e.tell(agent.Exit{ID: "c"})
}
