package lifecycle

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	agentv1 "github.com/edge-serverless-box/esb/api/esb/agent/v1"
	"github.com/edge-serverless-box/esb/tests/stack"
)

const frozenYML = `functions:
  echo: {image: "esb/lambda-echo:latest", timeout: 10, memory_size: 1769, freeze: true, scaling: {max_capacity: 1}}
  chaos: {image: "esb/lambda-echo:latest", timeout: 10, memory_size: 1769, scaling: {max_capacity: 1}}
`

// TestFreeze_SurvivesItsServices: a frozen container serves on after its agent was killed, and after its gateway was.
func TestFreeze_SurvivesItsServices(t *testing.T) {
	dir := t.TempDir()
	d := &disturbed{functions: filepath.Join(dir, "functions.yml")}
	require.NoError(t, os.WriteFile(d.functions, []byte(frozenYML), 0o644))
	routing := filepath.Join(dir, "routing.yml")
	require.NoError(t, os.WriteFile(routing, []byte("routes:\n  - {path: /echo, method: POST, function: echo}\n  - {path: /chaos, method: POST, function: chaos}\n"), 0o644))
	d.Stack = mustPrepare(t, stack.Options{FunctionsConfig: d.functions, RoutingConfig: routing,
		Env: []string{"HEARTBEAT_INTERVAL=1", "ORPHAN_GRACE_PERIOD_SECONDS=1"}})
	t.Cleanup(func() { assert.NoError(t, d.Down()) })
	require.NoError(t, d.Up(t.Context()))
	var err error
	d.token, err = d.Token(t.Context())
	require.NoError(t, err)

	worker := d.mustEcho(t)
	id := d.waitFrozen(t)
	require.Equal(t, worker, d.mustEcho(t), "it is thawed for the next request")
	d.waitFrozen(t)
	d.compareWarm(t)

	d.waitFrozen(t)
	d.kill(t, "agent")
	require.NoError(t, d.Up(t.Context()))
	assert.Equal(t, id, d.waitFrozen(t), "the new agent must see that it is frozen")
	assert.Equal(t, worker, d.mustEcho(t))

	d.waitFrozen(t)
	d.kill(t, "agent")
	assert.Equal(t, worker, d.mustEcho(t), "the gateway thaws it without the agent")
	require.NoError(t, d.Up(t.Context()))

	d.waitFrozen(t)
	d.kill(t, "gateway")
	d.waitFrozen(t)
	require.NoError(t, d.Up(t.Context()))
	assert.Equal(t, worker, d.mustEcho(t), "the new gateway must adopt it, and have the agent thaw it")
	assert.Equal(t, id, d.waitFrozen(t)) // and so it is when the box goes down
}

// kill ends a service of a box without a supervisor.
func (d *disturbed) kill(t *testing.T, service string) {
	t.Helper()
	list := d.processes(t, service)
	require.Len(t, list, 1)
	require.NoError(t, syscall.Kill(list[0].PID, syscall.SIGKILL))
	stack.Eventually(t, func() bool { return len(d.processes(t, service)) == 0 }, "the "+service+" must be dead")
}

// waitFrozen waits until the echo function has one container, and that is frozen.
func (d *disturbed) waitFrozen(t *testing.T) (id string) {
	t.Helper()
	stack.Eventually(t, func() bool {
		list := d.Containers(t, "echo")
		if len(list) != 1 || list[0].GetStatus() != agentv1.ContainerStatus_PAUSED {
			return false
		}
		id = list[0].GetContainerId()
		return true
	}, "the idle container must be frozen")
	return id
}

// compareWarm prints what a thaw adds to a warm request.
func (d *disturbed) compareWarm(t *testing.T) {
	t.Helper()
	const rounds = 30
	d.Post(t, "/chaos", d.token, `{"message":"x"}`)
	median := func(path string) time.Duration {
		var took []time.Duration
		for range rounds {
			d.waitFrozen(t)
			began := time.Now()
			d.Post(t, path, d.token, `{"message":"x"}`)
			took = append(took, time.Since(began))
		}
		slices.Sort(took)
		return took[rounds/2]
	}
	plain, frozen := median("/chaos"), median("/echo")
	metrics, err := d.Do(t.Context(), "GET", d.AdminURL+"/metrics", "", nil)
	require.NoError(t, err)
	for line := range strings.Lines(string(metrics.Body)) {
		if strings.HasPrefix(line, "esb_worker_thaw_seconds_") {
			t.Log(strings.TrimSpace(line))
		}
	}
	t.Logf("warm request after a pause, median of %d: %s, of a frozen worker %s, so the thaw adds %s", rounds, plain, frozen, frozen-plain)
}
