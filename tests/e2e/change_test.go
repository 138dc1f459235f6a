package e2e

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
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	agentv1 "github.com/edge-serverless-box/esb/api/esb/agent/v1"
	"github.com/edge-serverless-box/esb/tests/stack"
)

// callers are clients that call /e2e/changing until stop.
type callers struct {
	answers, failures atomic.Int64
	ended             chan struct{}
	once              sync.Once
	clients           sync.WaitGroup
}

func callChanging(t *testing.T, clients int) *callers {
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
				answer, err := box.Do(context.Background(), http.MethodPost, box.HTTPURL+"/e2e/changing", "", []byte(`{}`))
				if err != nil || answer.Status != http.StatusOK {
					c.failures.Add(1)
					t.Logf("%v, status %d: %s", err, answer.Status, answer.Body)
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

func changingPool(t *testing.T) pool {
	t.Helper()
	answer, err := box.Do(t.Context(), http.MethodGet, box.AdminURL+"/pools", "", nil)
	require.NoError(t, err)
	var body struct {
		Pools []pool `json:"pools"`
	}
	require.NoError(t, json.Unmarshal(answer.Body, &body))
	i := slices.IndexFunc(body.Pools, func(p pool) bool { return p.Function == "changing" })
	require.GreaterOrEqual(t, i, 0, "the function has a pool")
	return body.Pools[i]
}

// TestChange_FunctionUnderLoad_NoRequestFails: its environment changes again and again, and at last to one that it cannot start with.
func TestChange_FunctionUnderLoad_NoRequestFails(t *testing.T) {
	const clients, maxCapacity = 8, 3
	file := filepath.Join(filepath.Dir(routingFile), "functions.yml")
	before, err := os.ReadFile(file)
	require.NoError(t, err)
	reload := func(text string) {
		require.NoError(t, os.WriteFile(file, []byte(text), 0o644))
		answer, err := box.Do(t.Context(), http.MethodPost, box.AdminURL+"/reload", "", nil)
		require.NoError(t, err)
		require.Equal(t, http.StatusOK, answer.Status, "%s", answer.Body)
	}
	use := func(value string) {
		reload(strings.Replace(string(before), `VALUE: "0"`, fmt.Sprintf("VALUE: %q", value), 1))
	}
	value := func() string { return string(box.Post(t, "/e2e/changing", "", `{}`).Body) }
	stack.Eventually(t, func() bool { return value() == "0" }, "the function must answer")
	defer func() { reload(string(before)) }()

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
	load := callChanging(t, clients)
	load.more(t, 50)
	for i := range 6 {
		use(fmt.Sprint(i + 1))
		load.more(t, int64(5+20*(i%2))) // mostly before a new worker is ready
	}
	// By all workers: they are replaced by turns, and one of before would serve on beside them.
	stack.Eventually(t, func() bool { return value() == "6" && changingPool(t).Outdated == 0 }, "the last value must be served")

	use("broken")
	stack.Eventually(t, func() bool { return changingPool(t).Failures >= 2 }, "the new one must have been tried")
	load.more(t, 20)
	assert.Equal(t, "6", value())
	p := changingPool(t)
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
