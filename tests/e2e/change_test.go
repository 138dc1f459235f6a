package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	agentv1 "github.com/edge-serverless-box/esb/api/esb/agent/v1"
	"github.com/edge-serverless-box/esb/tests/stack"
)

// callers are clients that call a function until stop.
type callers struct {
	answers, failures atomic.Int64
	ended             chan struct{}
	once              sync.Once
	clients           sync.WaitGroup
}

func call(t *testing.T, path string, clients int) *callers {
	c := &callers{ended: make(chan struct{})}
	t.Cleanup(c.stop)
	for range clients {
		c.clients.Go(func() {
			for {
				select {
				case <-c.ended:
					return
				default:
				}
				answer, err := box.Do(context.Background(), http.MethodPost, box.HTTPURL+path, "", []byte(`{}`))
				if err != nil || answer.Status != http.StatusOK {
					c.failures.Add(1)
					t.Logf("%s: %v, status %d: %s", path, err, answer.Status, answer.Body)
				}
				c.answers.Add(1)
			}
		})
	}
	return c
}

// stop waits until the last of them has its answer.
func (c *callers) stop() {
	c.once.Do(func() { close(c.ended) })
	c.clients.Wait()
}

// more waits for n further answers.
func (c *callers) more(t *testing.T, n int64) {
	t.Helper()
	from := c.answers.Load()
	stack.Eventually(t, func() bool { return c.answers.Load() >= from+n }, "the function must answer on")
}

// pool is what /pools says of a function.
type pool struct {
	Function string `json:"function"`
	Outdated int    `json:"outdated"`
	Failures int    `json:"failures"`
	Error    string `json:"error"`
}

// poolOf asks for the pool of a function.
func poolOf(t *testing.T, function string) pool {
	t.Helper()
	answer, err := box.Do(t.Context(), http.MethodGet, box.AdminURL+"/pools", "", nil)
	require.NoError(t, err)
	var body struct {
		Pools []pool `json:"pools"`
	}
	require.NoError(t, json.Unmarshal(answer.Body, &body))
	i := slices.IndexFunc(body.Pools, func(p pool) bool { return p.Function == function })
	require.GreaterOrEqual(t, i, 0, "the function has a pool")
	return body.Pools[i]
}

// functionsFile returns functions.yml as it is, and how to put another one in its place.
func functionsFile(t *testing.T) (before string, reload func(text string)) {
	t.Helper()
	file := filepath.Join(filepath.Dir(routingFile), "functions.yml")
	text, err := os.ReadFile(file)
	require.NoError(t, err)
	return string(text), func(text string) {
		require.NoError(t, os.WriteFile(file, []byte(text), 0o644))
		answer, err := box.Do(t.Context(), http.MethodPost, box.AdminURL+"/reload", "", nil)
		require.NoError(t, err)
		require.Equal(t, http.StatusOK, answer.Status, "%s", answer.Body)
	}
}

// TestChange_EachSecond_NoRequestFails: three functions under as much load as their workers and queues take, each of which changes each
// second, ten times or as often as ESB_TEST_RELOADS says.
func TestChange_EachSecond_NoRequestFails(t *testing.T) {
	reloads := 10
	if n := os.Getenv("ESB_TEST_RELOADS"); n != "" {
		var err error
		reloads, err = strconv.Atoi(n)
		require.NoError(t, err)
	}
	before, reload := functionsFile(t)
	defer func() { reload(before) }()
	clients := map[string]int{"/e2e/turn-a": 4, "/e2e/turn-b": 6, "/e2e/turn-c": 4}
	loads := map[string]*callers{}
	for path, n := range clients {
		stack.Eventually(t, func() bool { return string(box.Post(t, path, "", `{}`).Body) == "turn 0" }, "the function must answer")
		loads[path] = call(t, path, n)
	}
	last := ""
	pace := time.NewTicker(time.Second)
	defer pace.Stop()
	for i := range reloads {
		<-pace.C
		last = fmt.Sprint("turn ", i+1)
		reload(strings.ReplaceAll(before, `"turn 0"`, strconv.Quote(last)))
	}
	for path, load := range loads {
		load.stop()
		assert.Zero(t, load.failures.Load(), "%s: no request fails, of %d", path, load.answers.Load())
		t.Logf("%s: %d answers over %d changes", path, load.answers.Load(), reloads)
		stack.Eventually(t, func() bool { return string(box.Post(t, path, "", `{}`).Body) == last }, "the last value must be served")
	}
}

// TestChange_FunctionUnderLoad_NoRequestFails: its environment changes again and again, and at last to one that it cannot start with.
func TestChange_FunctionUnderLoad_NoRequestFails(t *testing.T) {
	const clients, maxCapacity = 8, 3
	before, reload := functionsFile(t)
	use := func(value string) {
		reload(strings.Replace(before, `VALUE: "0"`, fmt.Sprintf("VALUE: %q", value), 1))
	}
	value := func() string { return string(box.Post(t, "/e2e/changing", "", `{}`).Body) }
	stack.Eventually(t, func() bool { return value() == "0" }, "the function must answer")
	defer func() { reload(before) }()

	// What the agent lists, as often as it can be asked.
	var most int
	watched, stopWatching := make(chan error, 1), make(chan struct{})
	go func() {
		for {
			select {
			case <-stopWatching:
				watched <- nil
				return
			default:
			}
			list, err := box.Agent.ListContainers(t.Context(), &agentv1.ListContainersRequest{FunctionName: "changing"})
			if err != nil {
				watched <- err
				return
			}
			most = max(most, len(list.GetContainers()))
			time.Sleep(10 * time.Millisecond) // the machine has other things to do
		}
	}()
	load := call(t, "/e2e/changing", clients)
	load.more(t, 50)
	for i := range 6 {
		use(fmt.Sprint(i + 1))
		load.more(t, int64(5+20*(i%2))) // mostly before a new worker is ready
	}
	// By all workers: they are replaced by turns, and one of before would serve on beside them.
	stack.Eventually(t, func() bool { return value() == "6" && poolOf(t, "changing").Outdated == 0 }, "the last value must be served")

	use("broken")
	stack.Eventually(t, func() bool { return poolOf(t, "changing").Failures >= 2 }, "the new one must have been tried")
	load.more(t, 20)
	assert.Equal(t, "6", value())
	p := poolOf(t, "changing")
	assert.Positive(t, p.Outdated)
	assert.Contains(t, p.Error, "the configuration before the present one still serves")
	assert.Contains(t, p.Error, "its init has failed")
	box.RequireLogged(t, "changing", "the init of this one fails")

	use("7")
	stack.Eventually(t, func() bool { return value() == "7" }, "what mends it must be served")
	load.stop()
	close(stopWatching)
	require.NoError(t, <-watched)
	assert.LessOrEqual(t, most, maxCapacity)
	assert.Zero(t, load.failures.Load(), "no request fails, of %d", load.answers.Load())
	t.Logf("%d answers, at most %d containers", load.answers.Load(), most)
}
