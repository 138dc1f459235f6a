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
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/edge-serverless-box/esb/tests/hoststate"
	"github.com/edge-serverless-box/esb/tests/stack"
)

const functionsYML = `functions:
  echo:  {image: "esb/lambda-echo:latest", timeout: 10, scaling: {max_capacity: 1}} # who answers tells whether the worker was kept
  chaos: {image: "esb/lambda-chaos:latest", timeout: CHAOS_TIMEOUT}
  other: {image: "esb/lambda-chaos:latest", timeout: 10}
  after: {image: "esb/lambda-chaos:latest", timeout: 10}
`

const routingYML = `routes:
  - {path: /echo, method: POST, function: echo}
  - {path: /chaos, method: POST, function: chaos}
  - {path: /other, method: POST, function: other}
  - {path: /after, method: POST, function: after}
`

// disturbed is a box that is disturbed while it works.
type disturbed struct {
	*stack.Stack
	token     string
	functions string
}

// TestDisturbances uses one box; each part leaves it working for the next.
func TestDisturbances(t *testing.T) {
	dir := t.TempDir()
	d := &disturbed{functions: filepath.Join(dir, "functions.yml")}
	d.mustConfigure(t, "10")
	routing := filepath.Join(dir, "routing.yml")
	require.NoError(t, os.WriteFile(routing, []byte(routingYML), 0o644))
	d.Stack = mustPrepare(t, stack.Options{FunctionsConfig: d.functions, RoutingConfig: routing})
	t.Cleanup(func() { assert.NoError(t, d.Down()) })
	require.NoError(t, d.Up(t.Context()))
	var err error
	d.token, err = d.Token(t.Context())
	require.NoError(t, err)

	for _, part := range []struct {
		name string
		run  func(t *testing.T, d *disturbed)
	}{
		{"status shows the containers with address and state", checkStatus},
		{"gateway and agent are the last to end when memory has run out", checkProtected},
		{"changed timeout is taken over and the old worker drained", checkReload},
		{"configuration with a mistake changes nothing", checkBadReload},
		{"agent is killed: warm requests go on and cold starts come back", checkAgentKilled},
		{"containerd is killed: it comes back and containers serve on", checkContainerdKilled},
		{"gateway is stopped: the request in flight is answered first", checkGatewayStopped},
	} {
		if !t.Run(part.name, func(t *testing.T) { part.run(t, d) }) {
			t.FailNow() // the box may be in any state
		}
	}
}

func checkStatus(t *testing.T, d *disturbed) {
	d.mustEcho(t)
	containers := d.Containers(t, "echo")
	require.NotEmpty(t, containers)
	text, err := d.Esb(t.Context(), "status")
	require.NoError(t, err, text)
	for _, c := range containers {
		assert.Contains(t, text, c.GetContainerName())
		assert.Contains(t, text, c.GetIpAddress())
	}
	assert.Contains(t, text, "RUNNING")
}

func checkProtected(t *testing.T, d *disturbed) {
	score := func(pid int) string {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/oom_score_adj", pid))
		require.NoError(t, err)
		return strings.TrimSpace(string(b))
	}
	for _, program := range []string{"gateway", "agent", "stores"} {
		found := d.processes(t, program)
		require.NotEmpty(t, found, program)
		got, want := score(found[0].PID), score(os.Getpid())
		if program != "stores" {
			want = "-500"
			// A root without CAP_SYS_RESOURCE cannot protect anything.
			if err := os.WriteFile(fmt.Sprintf("/proc/%d/oom_score_adj", found[0].PID), []byte(want), 0); err != nil {
				continue
			}
		}
		assert.Equal(t, want, got, program)
	}
}

func checkReload(t *testing.T, d *disturbed) {
	require.Equal(t, http.StatusOK, d.Post(t, "/chaos", d.token, `{"action":"ok"}`).Status)
	old := d.Containers(t, "chaos")
	require.Len(t, old, 1)
	slow := d.send(t, "/chaos", `{"action":"sleep","ms":6000}`)
	d.waitBusy(t)
	d.mustConfigure(t, "2")
	stack.Eventually(t, func() bool {
		return d.Post(t, "/chaos", d.token, `{"action":"sleep","ms":3000}`).Status == http.StatusBadGateway
	}, "a request must run past the new timeout of 2 s")
	answer := <-slow
	assert.Equal(t, http.StatusOK, answer.Status, "the request that ran under the old timeout of 10 s must end well: %s", answer.Body)
	stack.Eventually(t, func() bool {
		for _, c := range d.Containers(t, "chaos") {
			if c.GetContainerId() == old[0].GetContainerId() {
				return false
			}
		}
		return true
	}, "the worker of the old configuration must go")
}

func checkBadReload(t *testing.T, d *disturbed) {
	before := d.mustEcho(t)
	d.mustConfigure(t, "0")
	answer, err := d.Do(t.Context(), http.MethodPost, d.AdminURL+"/reload", "", nil)
	require.NoError(t, err)
	if answer.Status != http.StatusNotFound { // the file watch refuses it all the same
		assert.NotEqual(t, http.StatusOK, answer.Status, "%s", answer.Body)
	}
	assert.Equal(t, before, d.mustEcho(t), "the worker must stay")
	d.mustConfigure(t, "10")
	stack.Eventually(t, func() bool {
		return d.Post(t, "/chaos", d.token, `{"action":"sleep","ms":3000}`).Status == http.StatusOK
	}, "the corrected file must be taken over")
}

func checkAgentKilled(t *testing.T, d *disturbed) {
	worker := d.mustEcho(t)
	stop := d.keepAsking(t)
	for _, agent := range d.processes(t, "agent") {
		require.NoError(t, syscall.Kill(agent.PID, syscall.SIGKILL))
	}
	stack.Eventually(t, func() bool { return len(d.processes(t, "agent")) == 0 }, "the agent must be dead")
	for range 20 {
		require.Equal(t, worker, d.mustEcho(t), "the warm worker must serve without the agent")
	}
	require.NoError(t, d.Up(t.Context()))
	assert.Positive(t, stop())
	assert.Equal(t, worker, d.mustEcho(t), "the agent must adopt the worker")
	stack.Eventually(t, func() bool {
		return d.Post(t, "/other", d.token, `{"action":"ok"}`).Status == http.StatusOK
	}, "a cold start must work again")
}

func checkContainerdKilled(t *testing.T, d *disturbed) {
	worker := d.mustEcho(t)
	killed := d.processes(t, "containerd")
	require.Len(t, killed, 1)
	stop := d.keepAsking(t)
	require.NoError(t, syscall.Kill(killed[0].PID, syscall.SIGKILL))
	stack.Eventually(t, func() bool {
		now := d.processes(t, "containerd")
		return len(now) == 1 && now[0].PID != killed[0].PID
	}, "containerd must be started again")
	stack.Eventually(t, func() bool {
		health, err := d.Health.Check(t.Context(), &healthpb.HealthCheckRequest{})
		return err == nil && health.GetStatus() == healthpb.HealthCheckResponse_SERVING
	}, "the agent must be well again")
	stack.Eventually(t, func() bool {
		return d.Post(t, "/after", d.token, `{"action":"ok"}`).Status == http.StatusOK
	}, "a cold start must work again")
	assert.Positive(t, stop())
	assert.Equal(t, worker, d.mustEcho(t))
}

func checkGatewayStopped(t *testing.T, d *disturbed) {
	require.Equal(t, http.StatusOK, d.Post(t, "/other", d.token, `{"action":"ok"}`).Status)
	slow := d.send(t, "/other", `{"action":"sleep","ms":5000}`)
	d.waitBusy(t)
	gateway := d.processes(t, "gateway")
	require.Len(t, gateway, 1)
	require.NoError(t, syscall.Kill(gateway[0].PID, syscall.SIGTERM))
	stack.Eventually(t, func() bool {
		_, err := d.Do(t.Context(), http.MethodGet, d.HTTPURL+"/health", "", nil, "Connection", "close")
		return err != nil
	}, "no new requests must be taken")
	answer := <-slow
	assert.Equal(t, http.StatusOK, answer.Status, "%s", answer.Body)
	stack.Eventually(t, func() bool { return len(d.processes(t, "gateway")) == 0 }, "the gateway must end")
	require.NoError(t, d.Up(t.Context()))
	d.mustEcho(t)
}

// mustConfigure writes functions.yml as an editor does: a new file in the place of the old.
func (d *disturbed) mustConfigure(t *testing.T, chaosTimeout string) {
	t.Helper()
	fresh := d.functions + ".new"
	require.NoError(t, os.WriteFile(fresh, []byte(strings.Replace(functionsYML, "CHAOS_TIMEOUT", chaosTimeout, 1)), 0o644))
	require.NoError(t, os.Rename(fresh, d.functions))
}

// mustEcho returns the instance that served.
func (d *disturbed) mustEcho(t *testing.T) string {
	t.Helper()
	answer := d.Post(t, "/echo", d.token, `{"message":"x"}`)
	require.Equal(t, http.StatusOK, answer.Status, "%s", answer.Body)
	var body struct{ Instance string }
	require.NoError(t, json.Unmarshal(answer.Body, &body))
	require.NotEmpty(t, body.Instance)
	return body.Instance
}

// send posts in the background; the channel gives the answer.
func (d *disturbed) send(t *testing.T, path, body string) <-chan stack.Answer {
	t.Helper()
	answered := make(chan stack.Answer, 1)
	go func() {
		answer, err := d.Do(t.Context(), http.MethodPost, d.HTTPURL+path, d.token, []byte(body), "Content-Type", "application/json")
		assert.NoError(t, err, "a request in flight must be answered")
		answered <- answer
	}()
	return answered
}

// waitBusy waits until a worker is at work.
func (d *disturbed) waitBusy(t *testing.T) {
	t.Helper()
	stack.Eventually(t, func() bool {
		answer, err := d.Do(t.Context(), http.MethodGet, d.AdminURL+"/pools", "", nil)
		return err == nil && strings.Contains(string(answer.Body), `"busy":1`)
	}, "the request must have reached its worker")
}

// keepAsking asks the warm function until the returned function is called, which says how often. Every answer must
// be right.
func (d *disturbed) keepAsking(t *testing.T) (stop func() int64) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	var asked atomic.Int64
	var wg sync.WaitGroup
	wg.Go(func() {
		for ctx.Err() == nil {
			answer, err := d.Do(t.Context(), http.MethodPost, d.HTTPURL+"/echo", d.token, []byte(`{"message":"x"}`))
			if !assert.NoError(t, err) || !assert.Equal(t, http.StatusOK, answer.Status, "%s", answer.Body) {
				return
			}
			asked.Add(1)
		}
	})
	t.Cleanup(func() { cancel(); wg.Wait() })
	return func() int64 {
		cancel()
		wg.Wait()
		return asked.Load()
	}
}

// processes of the box that run a program.
func (d *disturbed) processes(t *testing.T, program string) []hoststate.Process {
	t.Helper()
	var found []hoststate.Process
	for _, p := range mustFindProcesses(t, d.Stack) {
		if p.Program == filepath.Join(d.BinDir, program) {
			found = append(found, p)
		}
	}
	return found
}

// mustFindProcesses finds what runs a program of the box, shims included.
func mustFindProcesses(t *testing.T, box *stack.Stack) []hoststate.Process {
	t.Helper()
	found, err := hoststate.Processes(box.Home, box.BinDir, box.Bridge)
	require.NoError(t, err)
	return found
}

// mustSettle waits until the box runs nothing but its services, and shims with its containers in them, and the same for a while, and
// returns them: the CNI plugins of a container that was just made or removed come and go, and so do those that are made ahead.
func mustSettle(t *testing.T, box *stack.Stack) []hoststate.Process {
	t.Helper()
	var found, before []hoststate.Process
	var since time.Time
	stack.Eventually(t, func() bool {
		if found = mustFindProcesses(t, box); !slices.Equal(found, before) {
			before, since = found, time.Now()
		}
		inShims := 0
		for _, p := range found {
			switch filepath.Base(p.Program) {
			case "containerd-shim-runc-v2":
				children := childrenOf(p.PID)
				if children == 0 {
					return false
				}
				inShims += children
			case "runc", "esb-runc", "bridge", "host-local", "loopback":
				return false
			}
		}
		return time.Since(since) > restFor && inShims > 0 && inShims == len(box.Containers(t, ""))+parkedIn(box)
	}, "the box must come to rest")
	return found
}

// restFor is longer than the pause before the next container is made ahead.
const restFor = time.Second

// childrenOf counts the children of a process.
func childrenOf(pid int) (n int) {
	files, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	for _, file := range files {
		text, _ := os.ReadFile(file) // it may be gone
		n += len(strings.Fields(string(text)))
	}
	return n
}

// parkedIn counts the containers that are nobody's: what lambda-init in them waits for has not been said.
func parkedIn(box *stack.Stack) (n int) {
	files, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, file := range files {
		command, _ := os.ReadFile(file) // it may be gone
		if !strings.Contains(string(command), "lambda-init\x00-park\x00") {
			continue
		}
		if group, _ := os.ReadFile(filepath.Join(filepath.Dir(file), "cgroup")); strings.Contains(string(group), box.Bridge) {
			n++
		}
	}
	return n
}

func TestTwoBoxes_LiveSideBySide(t *testing.T) {
	boxes := []*stack.Stack{mustPrepare(t, stack.Options{}), mustPrepare(t, stack.Options{})}
	for _, box := range boxes {
		t.Cleanup(func() { assert.NoError(t, box.Down()) })
		require.NoError(t, box.Up(t.Context()))
	}
	first, second := boxes[0], boxes[1]
	invokeSome(t, first)
	invokeSome(t, second)
	own, other := first.Containers(t, ""), second.Containers(t, "")
	require.NotEmpty(t, own)
	require.NotEmpty(t, other)
	names := map[string]bool{}
	for _, c := range own {
		names[c.GetContainerId()] = true
	}
	for _, c := range other {
		assert.False(t, names[c.GetContainerId()], "a box must not see the other's containers")
	}
	token, err := first.Token(t.Context())
	require.NoError(t, err)
	assert.Equal(t, http.StatusUnauthorized, second.Post(t, "/api/echo", token, `{"message":"x"}`).Status, "a token is for one box")
	before := mustSettle(t, second)
	require.NoError(t, first.Down())
	assert.Equal(t, before, mustFindProcesses(t, second), "the end of one box must not touch the other's processes")
	invokeSome(t, second)
}
