package lifecycle

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/edge-serverless-box/esb/tests/stack"
)

const standstillYML = `functions:
  echo:  {image: "esb/lambda-echo:latest", timeout: 10, scaling: {min_capacity: 1, max_capacity: 1}}
  chaos: {image: "esb/lambda-chaos:latest", timeout: 300, scaling: {min_capacity: 1, max_capacity: 1}}
`

// TestStandstill_WorkersAreFoundAndReplaced: one that is stopped from outside ends its invocation long before the function's timeout,
// and one that has nothing to do is replaced before a request meets it.
func TestStandstill_WorkersAreFoundAndReplaced(t *testing.T) {
	dir := t.TempDir()
	d := &disturbed{functions: filepath.Join(dir, "functions.yml")}
	require.NoError(t, os.WriteFile(d.functions, []byte(standstillYML), 0o644))
	routing := filepath.Join(dir, "routing.yml")
	require.NoError(t, os.WriteFile(routing, []byte("routes:\n  - {path: /echo, method: POST, function: echo}\n  - {path: /chaos, method: POST, function: chaos, timeout: 29}\n"), 0o644))
	d.Stack = mustPrepare(t, stack.Options{FunctionsConfig: d.functions, RoutingConfig: routing})
	t.Cleanup(func() { assert.NoError(t, d.Down()) })
	require.NoError(t, d.Up(t.Context()))
	var err error
	d.token, err = d.Token(t.Context())
	require.NoError(t, err)

	d.mustEcho(t)
	require.Equal(t, http.StatusOK, d.Post(t, "/chaos", d.token, `{"action":"ok"}`).Status)
	before := d.ids(t)
	require.Len(t, before["echo"], 1)
	require.Len(t, before["chaos"], 1)
	began := time.Now()
	mustSignal(t, mustLambdaInit(t, before["echo"][0]), syscall.SIGSTOP)

	slow := d.send(t, "/chaos", `{"action":"sleep","ms":240000}`)
	stack.Eventually(t, func() bool { return d.pool(t, "chaos").Busy == 1 }, "the request must have reached its worker")
	mustSignal(t, mustLambdaInit(t, before["chaos"][0]), syscall.SIGSTOP)
	answer := <-slow
	t.Logf("answered after %s: %d %s", time.Since(began), answer.Status, answer.Body)
	assert.Equal(t, http.StatusBadGateway, answer.Status)
	assert.Less(t, time.Since(began), time.Minute, "the function's timeout is 5 minutes")

	for _, function := range []string{"chaos", "echo"} {
		require.Eventually(t, func() bool {
			now := d.ids(t)[function]
			return len(now) == 1 && now[0] != before[function][0]
		}, 3*time.Minute, 100*time.Millisecond, "%s must have another worker", function)
		t.Logf("%s has another worker after %s", function, time.Since(began))
	}
	d.mustEcho(t)
	assert.Equal(t, http.StatusOK, d.Post(t, "/chaos", d.token, `{"action":"ok"}`).Status)
}

// mustLambdaInit finds process 1 of a container on this machine.
func mustLambdaInit(t *testing.T, container string) int {
	t.Helper()
	dirs, err := filepath.Glob("/proc/[0-9]*")
	require.NoError(t, err)
	// The cgroup of one that was parked has another name, with the same end.
	container = container[strings.LastIndexByte(container, '-'):]
	for _, dir := range dirs {
		// A process may end while it is looked at.
		command, _ := os.ReadFile(filepath.Join(dir, "cmdline"))
		groups, _ := os.ReadFile(filepath.Join(dir, "cgroup"))
		program, _, _ := strings.Cut(string(command), "\x00")
		if program != "/run/esb/lambda-init" || !strings.Contains(string(groups), container) {
			continue
		}
		status, _ := os.ReadFile(filepath.Join(dir, "status"))
		_, rest, _ := strings.Cut(string(status), "NSpid:")
		line, _, _ := strings.Cut(rest, "\n")
		if ids := strings.Fields(line); len(ids) > 1 && ids[len(ids)-1] == "1" {
			pid, err := strconv.Atoi(filepath.Base(dir))
			require.NoError(t, err)
			return pid
		}
	}
	require.Fail(t, fmt.Sprintf("container %s has no process 1", container))
	return 0
}
