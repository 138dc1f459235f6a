package lifecycle

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	agentv1 "github.com/edge-serverless-box/esb/api/esb/agent/v1"
	"github.com/edge-serverless-box/esb/tests/stack"
)

const adoptedYML = `functions:
  plain:   {image: "esb/lambda-echo:latest", timeout: 10, scaling: {min_capacity: 3, max_capacity: 3}}
  frozen:  {image: "esb/lambda-echo:latest", timeout: 10, freeze: true, scaling: {min_capacity: 2, max_capacity: 2}}
  chaos:   {image: "esb/lambda-chaos:latest", timeout: 20, scaling: {max_capacity: 1}}
  changed: {image: "esb/lambda-echo:latest", timeout: 10, scaling: {min_capacity: 1, max_capacity: 2}}
`

const goneYML = `  gone:    {image: "esb/lambda-echo:latest", timeout: 10, scaling: {min_capacity: 1, max_capacity: 1}}
`

// capacities are those of adoptedYML.
var capacities = map[string]int{"plain": 3, "frozen": 2, "chaos": 1, "changed": 2, "gone": 1}

// TestAdoption kills the gateway while it has workers of all kinds: the next one serves with them.
func TestAdoption(t *testing.T) {
	dir := t.TempDir()
	d := &disturbed{functions: filepath.Join(dir, "functions.yml")}
	require.NoError(t, os.WriteFile(d.functions, []byte(adoptedYML+goneYML), 0o644))
	routing := filepath.Join(dir, "routing.yml")
	routes := "routes:\n"
	for _, name := range []string{"plain", "frozen", "chaos", "changed"} {
		routes += fmt.Sprintf("  - {path: /%s, method: POST, function: %s}\n", name, name)
	}
	require.NoError(t, os.WriteFile(routing, []byte(routes), 0o644))
	d.Stack = mustPrepare(t, stack.Options{FunctionsConfig: d.functions, RoutingConfig: routing, Env: []string{"HEARTBEAT_INTERVAL=1"}})
	t.Cleanup(func() { assert.NoError(t, d.Down()) })
	require.NoError(t, d.Up(t.Context()))
	var err error
	d.token, err = d.Token(t.Context())
	require.NoError(t, err)
	require.Equal(t, http.StatusOK, d.Post(t, "/chaos", d.token, `{"action":"ok"}`).Status)
	before := d.waitWarm(t, map[string]int{"plain": 3, "frozen": 2, "chaos": 1, "changed": 1, "gone": 1})
	counted := d.countContainers(t)

	instances := d.instances(t, "/plain", 3)
	load := d.load(t, "/plain")
	sleeping := make(chan struct{})
	go func() {
		defer close(sleeping)
		// Its gateway dies meanwhile.
		_, _ = d.Do(t.Context(), http.MethodPost, d.HTTPURL+"/chaos", d.token, []byte(`{"action":"sleep","ms":8000}`))
	}()
	stack.Eventually(t, func() bool { return d.pool(t, "chaos").Busy == 1 }, "the request must have reached its worker")
	gateway := d.processes(t, "gateway")
	require.Len(t, gateway, 1)
	require.NoError(t, syscall.Kill(gateway[0].PID, syscall.SIGKILL))
	stack.Eventually(t, func() bool { return len(d.processes(t, "gateway")) == 0 }, "the gateway must be dead")
	<-sleeping
	load(false)
	require.NoError(t, os.WriteFile(d.functions, []byte(strings.Replace(adoptedYML, "changed: {image: \"esb/lambda-echo:latest\", timeout: 10",
		"changed: {image: \"esb/lambda-echo:latest\", timeout: 11", 1)), 0o644))
	require.NoError(t, d.Up(t.Context()))
	back := time.Now()
	require.Equal(t, http.StatusOK, d.Post(t, "/plain", d.token, `{"message":"x"}`).Status)
	t.Logf("first warm answer %s after `up` has ended", time.Since(back))

	load = d.load(t, "/changed")
	assert.Equal(t, http.StatusOK, d.Post(t, "/chaos", d.token, `{"action":"ok"}`).Status, "a busy worker serves when it has ended")
	stack.Eventually(t, func() bool {
		now := d.ids(t)
		return len(now["gone"]) == 0 && len(now["changed"]) == 1 && now["changed"][0] != before["changed"][0]
	}, "what is not configured any more must go, and what has changed be replaced")
	assert.Positive(t, load(true), "the old worker serves until the new one is there")
	d.instancesAre(t, "/plain", instances)
	require.Equal(t, http.StatusOK, d.Post(t, "/frozen", d.token, `{"message":"x"}`).Status)
	now := d.ids(t)
	for _, name := range []string{"plain", "frozen", "chaos"} {
		assert.Equal(t, before[name], now[name], "the workers of %s must have been kept", name)
	}

	// A restart because of a setting: no client notices, and a request that takes a while is answered.
	gateway = d.processes(t, "gateway")
	require.Len(t, gateway, 1)
	plain, cold := d.load(t, "/plain"), d.load(t, "/frozen")
	slow := d.send(t, "/chaos", `{"action":"sleep","ms":8000}`)
	stack.Eventually(t, func() bool { return d.pool(t, "chaos").Busy == 1 }, "the request must have reached its worker")
	d.Set("CIRCUIT_BREAKER_FAILURES=6")
	began := time.Now()
	require.NoError(t, d.Up(t.Context()))
	t.Logf("`up` took %s", time.Since(began))
	answer := <-slow
	assert.Equal(t, http.StatusOK, answer.Status, "%s", answer.Body)
	assert.Positive(t, plain(true))
	assert.Positive(t, cold(true))
	next := d.processes(t, "gateway")
	require.Len(t, next, 1)
	assert.NotEqual(t, gateway[0].PID, next[0].PID, "it is another process")
	d.instancesAre(t, "/plain", instances)
	now = d.ids(t)
	for _, name := range []string{"plain", "frozen", "chaos"} {
		assert.Equal(t, before[name], now[name], "the workers of %s must have been kept", name)
	}

	// Other settings of the agent reach the workers that are warm already, by others that take their places.
	plain = d.load(t, "/plain")
	d.Set("FUNCTION_PIDS_LIMIT=777")
	require.NoError(t, d.Up(t.Context()))
	stack.Eventually(t, func() bool {
		found := d.ids(t)["plain"]
		return len(found) == 3 && !slices.ContainsFunc(found, func(id string) bool { return slices.Contains(before["plain"], id) })
	}, "the workers must have been replaced")
	assert.Positive(t, plain(true))
	for _, c := range d.Containers(t, "plain") {
		assert.False(t, c.GetOutdated())
	}

	// One that cannot start leaves the other one serving.
	plain = d.load(t, "/plain")
	d.Set("JWT_SECRET_KEY=short")
	require.Error(t, d.Up(t.Context()))
	assert.Positive(t, plain(true))
	still := d.processes(t, "gateway")
	require.Len(t, still, 1)
	assert.Equal(t, next[0].PID, still[0].PID)
	counted()
}

// ids are the containers by function, those that are being removed included.
func (d *disturbed) ids(t *testing.T) map[string][]string {
	t.Helper()
	found := map[string][]string{}
	for _, c := range d.Containers(t, "") {
		found[c.GetFunctionName()] = append(found[c.GetFunctionName()], c.GetContainerId())
	}
	for _, list := range found {
		slices.Sort(list)
	}
	return found
}

// waitWarm waits until there are so many containers of each function, those of frozen ones frozen, and returns their ids.
func (d *disturbed) waitWarm(t *testing.T, want map[string]int) map[string][]string {
	t.Helper()
	stack.Eventually(t, func() bool {
		found := map[string]int{}
		for _, c := range d.Containers(t, "") {
			if c.GetFunctionName() == "frozen" && c.GetStatus() != agentv1.ContainerStatus_PAUSED {
				return false
			}
			found[c.GetFunctionName()]++
		}
		return fmt.Sprint(found) == fmt.Sprint(want)
	}, "the box must have its workers")
	return d.ids(t)
}

// countContainers looks at how many containers functions have until the returned function is called: never more than their capacity.
func (d *disturbed) countContainers(t *testing.T) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		ticker := time.NewTicker(50 * time.Millisecond)
		defer ticker.Stop()
		for {
			list, err := d.Agent.ListContainers(ctx, &agentv1.ListContainersRequest{})
			if err == nil {
				found := map[string]int{}
				for _, c := range list.GetContainers() {
					found[c.GetFunctionName()]++
				}
				for name, n := range found {
					assert.LessOrEqual(t, n, capacities[name], "containers of %s", name)
				}
			}
			select {
			case <-ticker.C:
			case <-ctx.Done():
				return
			}
		}
	})
	stop = func() { cancel(); wg.Wait() }
	t.Cleanup(stop)
	return stop
}

// load asks a function 20 times a second until the returned function is called, which says how often it answered, and asserts, if
// asked to, that it always did.
func (d *disturbed) load(t *testing.T, path string) (stop func(whole bool) int) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	answered, failures := 0, []string{}
	var wg sync.WaitGroup
	wg.Go(func() {
		ticker := time.NewTicker(50 * time.Millisecond)
		defer ticker.Stop()
		for ctx.Err() == nil {
			// net/http may send it once more, on another connection, if the one that it has kept is closed as it sends.
			answer, err := d.Do(t.Context(), http.MethodPost, d.HTTPURL+path, d.token, []byte(`{"message":"x"}`), "Content-Type", "application/json",
				"Idempotency-Key", "x")
			switch {
			case err != nil:
				failures = append(failures, err.Error())
			case answer.Status != http.StatusOK:
				failures = append(failures, fmt.Sprintf("%d: %s", answer.Status, answer.Body))
			default:
				answered++
			}
			<-ticker.C
		}
	})
	t.Cleanup(func() { cancel(); wg.Wait() })
	return func(whole bool) int {
		cancel()
		wg.Wait()
		if whole {
			assert.Empty(t, failures)
		}
		return answered
	}
}

// instances are the instances that serve when so many requests come at once.
func (d *disturbed) instances(t *testing.T, path string, n int) []string {
	t.Helper()
	var seen []string
	stack.Eventually(t, func() bool {
		var wg sync.WaitGroup
		got := make([]string, n)
		for i := range n {
			wg.Go(func() {
				answer, err := d.Do(t.Context(), http.MethodPost, d.HTTPURL+path, d.token, []byte(`{"message":"x"}`), "Content-Type", "application/json")
				var body struct{ Instance string }
				if err == nil && answer.Status == http.StatusOK && json.Unmarshal(answer.Body, &body) == nil {
					got[i] = body.Instance
				}
			})
		}
		wg.Wait()
		seen = append(seen, got...)
		slices.Sort(seen)
		seen = slices.DeleteFunc(slices.Compact(seen), func(s string) bool { return s == "" })
		return len(seen) >= n
	}, "%d workers must have answered", n)
	return seen
}

// instancesAre waits until all of want have answered, and nobody else.
func (d *disturbed) instancesAre(t *testing.T, path string, want []string) {
	t.Helper()
	assert.Equal(t, want, d.instances(t, path, len(want)), "the same workers must answer")
}

// poolState is what the admin listener says of a pool.
type poolState struct {
	Function string
	Busy     int
}

func (d *disturbed) pool(t *testing.T, function string) poolState {
	t.Helper()
	answer, err := d.Do(t.Context(), http.MethodGet, d.AdminURL+"/pools", "", nil)
	require.NoError(t, err)
	var list struct{ Pools []poolState }
	if json.Unmarshal(answer.Body, &list) != nil || list.Pools == nil {
		require.NoError(t, json.Unmarshal(answer.Body, &list.Pools), "%s", answer.Body)
	}
	for _, p := range list.Pools {
		if p.Function == function {
			return p
		}
	}
	return poolState{}
}
