package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	agentv1 "github.com/edge-serverless-box/esb/api/esb/agent/v1"
	"github.com/edge-serverless-box/esb/tests/stack"
)

// observation is what the functions of testdata/stem see.
type observation struct {
	Same   map[string]any `json:"same"`
	Random []any          `json:"random"`
	Time   float64        `json:"time"`
	Boot   string         `json:"boot"`
}

// mustObserve has a function answer that is scaled to zero.
func mustObserve(t *testing.T, function string) (o observation) {
	t.Helper()
	a := box.Post(t, "/e2e/"+function, token, "{}")
	require.Equal(t, http.StatusOK, a.Status, "%s", a.Body)
	require.NoError(t, json.Unmarshal(a.Body, &o), "%s", a.Body)
	return o
}

// mustEnd ends a function's containers.
func mustEnd(t *testing.T, function string) {
	t.Helper()
	for _, c := range box.Containers(t, function) {
		_, err := box.Agent.DestroyContainer(t.Context(), &agentv1.DestroyContainerRequest{ContainerId: c.GetContainerId()})
		require.NoError(t, err)
	}
	stack.Eventually(t, func() bool { return len(box.Containers(t, function)) == 0 }, "the containers of "+function+" have gone")
}

// startedAhead says whether the agent has started a function's container with a runtime that was there already.
func startedAhead(t *testing.T, host string) bool {
	t.Helper()
	log, err := os.ReadFile(filepath.Join(box.Home, "logs", "agent.log"))
	require.NoError(t, err)
	for line := range strings.Lines(string(log)) {
		if strings.Contains(line, `"container started"`) && strings.Contains(line, host[strings.LastIndexByte(host, '-')+1:]) {
			return strings.Contains(line, `"stem":true`)
		}
	}
	return false
}

// mustObserveAhead asks until the answer is one of a runtime that had been started ahead: the first has none.
func mustObserveAhead(t *testing.T, function string) (o observation) {
	t.Helper()
	stack.Eventually(t, func() bool {
		o = mustObserve(t, function)
		ahead := startedAhead(t, o.Boot)
		mustEnd(t, function)
		return ahead
	}, "a runtime is started ahead of "+function)
	return o
}

// What is seen in a function whose runtime was started ahead of it is what is seen in one whose was not: that has a variable which says
// nothing, but might.
func TestStem_IsAsARuntimeThatWasStartedForItsFunction(t *testing.T) {
	if box.Way != stack.Native {
		t.Skip("the agent's log of a box in Docker is not this machine's to look at")
	}
	for runtime, prefix := range map[string]string{"python": "PYTHON", "node": "NODE_"} {
		t.Run(runtime, func(t *testing.T) {
			plain, ahead := "plain-"+runtime, "ahead-"+runtime
			want := mustObserve(t, plain)
			require.False(t, startedAhead(t, want.Boot))
			first := mustObserveAhead(t, ahead)
			second := mustObserveAhead(t, ahead)
			for _, got := range []observation{first, second} {
				for key := range want.Same {
					assert.Equal(t, observed(t, want.Same[key], plain, want.Boot, prefix), observed(t, got.Same[key], ahead, got.Boot, prefix), key)
				}
				assert.InDelta(t, float64(time.Now().Unix()), got.Time, 120)
			}
			for i := range first.Random {
				assert.NotEqual(t, first.Random[i], second.Random[i], "what is random in one is not so in another")
			}
		})
	}
}

// observed is a part of an observation without what each function and container has of its own.
func observed(t *testing.T, part any, function, host, prefix string) any {
	t.Helper()
	text, err := json.Marshal(part)
	require.NoError(t, err)
	suffix := host[strings.LastIndexByte(host, '-')+1:]
	s := strings.NewReplacer(function, "<function>", host, "<host>", suffix, "<suffix>").Replace(string(text))
	require.NoError(t, json.Unmarshal([]byte(s), &part))
	return without(part, prefix+"ESB_PLAIN", "AWS_LAMBDA_LOG_STREAM_NAME", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "_X_AMZN_TRACE_ID")
}

// without removes variables, in lists and maps.
func without(part any, names ...string) any {
	named := func(text string) bool {
		for _, n := range names {
			if name, _, _ := strings.Cut(text, "="); name == n {
				return true
			}
		}
		return false
	}
	switch part := part.(type) {
	case map[string]any:
		for _, n := range names {
			delete(part, n)
		}
	case []any:
		var out []any
		for _, v := range part {
			if text := fmt.Sprint(v); !named(text) {
				out = append(out, v)
			}
		}
		return out
	}
	return part
}

// Functions with what an interpreter reads at its start have theirs started for them.
func TestStem_WhatChangesTheStartOfARuntime_HasItStarted(t *testing.T) {
	if box.Way != stack.Native {
		t.Skip("the agent's log of a box in Docker is not this machine's to look at")
	}
	mustObserveAhead(t, "ahead-python")
	got := mustObserve(t, "zone-python")
	assert.False(t, startedAhead(t, got.Boot))
	assert.Equal(t, []any{[]any{"JST", "JST"}, "JST"}, got.Same["zone"])
}
