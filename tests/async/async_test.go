// Package async checks on a whole box that no accepted event of an asynchronous invocation is lost while the gateway is
// killed, and counts those that ran twice.
package async

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/edge-serverless-box/esb/tests/hoststate"
	"github.com/edge-serverless-box/esb/tests/stack"
)

const (
	events     = 10_000
	publishers = 32
	kills      = 5
	// drainLimit bounds how long the events may take to run, on a badly loaded machine.
	drainLimit = 6 * time.Minute
)

// payload is an event with which lambda-chaos prints a line: the proof of a run, which survives the gateway.
const payload = `{"body":"{\"action\":\"log\",\"lines\":1}"}`

func TestEvents_KillsOfTheGateway_LoseNone(t *testing.T) {
	if os.Getuid() != 0 {
		t.Fatal("the test starts containers: run it as root")
	}
	box, err := stack.Prepare(t.TempDir(), stack.Options{
		FunctionsConfig: mustWrite(t, "functions.yml", `
functions:
  runner: {image: "esb/lambda-chaos:latest", timeout: 30, memory_size: 1769, scaling: {max_capacity: 5}}
`),
		RoutingConfig: mustWrite(t, "routing.yml", "routes: []\n"),
		Env:           []string{"S3_ADDR=off", "S3_UI_ADDR=off", "DYNAMODB_ADDR=off", "REGISTRY_ADDR=off"},
	})
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, box.Down()) })
	require.NoError(t, box.Up(t.Context()))

	// Events are sent until enough are accepted. An answer that did not come accepts nothing, and the event is another one
	// the next time, so that it does not hide one that was lost.
	var mu sync.Mutex
	accepted := make(map[string]bool, events)
	var refused, begun atomic.Int64
	count := func() int {
		mu.Lock()
		defer mu.Unlock()
		return len(accepted)
	}
	var sending sync.WaitGroup
	began := time.Now()
	for range publishers {
		sending.Go(func() {
			for begun.Add(1) <= events {
				for {
					id, err := send(t.Context(), box)
					if err == nil {
						mu.Lock()
						accepted[id] = true
						mu.Unlock()
						break
					}
					refused.Add(1)
					if t.Context().Err() != nil {
						return
					}
					time.Sleep(50 * time.Millisecond) // the gateway is away
				}
			}
		})
	}
	var waiting []int
	for k := range kills {
		at := (k + 1) * events / (kills + 1)
		stack.Eventually(t, func() bool { return count() >= at }, "%d events must be accepted", at)
		s, err := state(t.Context(), box)
		require.NoError(t, err)
		waiting = append(waiting, s.Backlog+s.InFlight)
		mustKill(t, box)
		require.NoError(t, box.Up(t.Context()))
	}
	sending.Wait()
	took := time.Since(began)
	require.Len(t, accepted, events)

	deadline := time.Now().Add(drainLimit)
	for {
		s, err := state(t.Context(), box)
		if err == nil && s.Backlog+s.InFlight+s.Outcomes == 0 {
			assert.Zero(t, s.DeadLetters, "no event failed")
			break
		}
		require.True(t, time.Now().Before(deadline), "the queue must become empty: %+v %v", s, err)
		time.Sleep(time.Second)
	}
	drained := time.Since(began)

	// The last lines take a moment to be found.
	runs, lost := mustRuns(t, box, accepted)
	for limit := time.Now().Add(90 * time.Second); len(lost) > 0 && time.Now().Before(limit); {
		time.Sleep(time.Second)
		runs, lost = mustRuns(t, box, accepted)
	}
	twice := 0
	for id := range accepted {
		twice += max(0, runs[id]-1)
	}
	t.Logf("accepted %d in %.1f s (%d requests failed), ran %d, lost %d, twice %d; all had run after %.1f s; %d kills, with %v events waiting",
		len(accepted), took.Seconds(), refused.Load(), len(accepted)-len(lost), len(lost), twice, drained.Seconds(), kills, waiting)
	for i, id := range lost {
		if i < 10 {
			t.Errorf("lost: %s", id)
		}
	}
	require.Empty(t, lost, "accepted events that never ran")
}

// send is one asynchronous invocation; it returns the request id of an accepted event.
func send(ctx context.Context, box *stack.Stack) (string, error) {
	r, err := box.EventRequest(ctx, "runner", []byte(payload))
	if err != nil {
		return "", err
	}
	res, err := box.HTTP.Do(r)
	if err != nil {
		return "", err
	}
	defer func() { _ = res.Body.Close() }()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		return "", err
	}
	if res.StatusCode != http.StatusAccepted {
		return "", fmt.Errorf("status %d: %s", res.StatusCode, body)
	}
	return res.Header.Get("x-amzn-RequestId"), nil
}

// functionState is what GET /async says of one function.
type functionState struct {
	Function    string `json:"function"`
	Backlog     int    `json:"backlog"`
	InFlight    int    `json:"in_flight"`
	Outcomes    int    `json:"outcomes"`
	DeadLetters int    `json:"dead_letters"`
}

func state(ctx context.Context, box *stack.Stack) (functionState, error) {
	answer, err := box.Do(ctx, http.MethodGet, box.AdminURL+"/async", "", nil)
	if err != nil {
		return functionState{}, err
	}
	var all struct {
		Functions []functionState `json:"functions"`
	}
	if err := json.Unmarshal(answer.Body, &all); err != nil {
		return functionState{}, fmt.Errorf("status %d: %s: %w", answer.Status, answer.Body, err)
	}
	for _, s := range all.Functions {
		if s.Function == "runner" {
			return s, nil
		}
	}
	return functionState{}, fmt.Errorf("no function runner: %s", answer.Body)
}

// mustRuns counts the runs of every event and finds those that have none.
func mustRuns(t *testing.T, box *stack.Stack, accepted map[string]bool) (runs map[string]int, lost []string) {
	t.Helper()
	lines, err := box.Query(t.Context(), `function:="runner" type:=function "chaos line"`)
	require.NoError(t, err)
	runs = make(map[string]int, len(accepted))
	seen := make(map[string]bool, len(lines))
	for _, line := range lines {
		// A line that was delivered twice is one.
		key := line.RequestID + line.Container + line.Time.String()
		if !seen[key] {
			seen[key] = true
			runs[line.RequestID]++
		}
	}
	for id := range accepted {
		if runs[id] == 0 {
			lost = append(lost, id)
		}
	}
	return runs, lost
}

// mustKill ends the gateway by SIGKILL.
func mustKill(t *testing.T, box *stack.Stack) {
	t.Helper()
	processes, err := hoststate.Processes(box.Home, box.BinDir, box.Bridge)
	require.NoError(t, err)
	killed := 0
	for _, p := range processes {
		if filepath.Base(p.Program) == "gateway" {
			require.NoError(t, syscall.Kill(p.PID, syscall.SIGKILL))
			killed++
		}
	}
	require.Equal(t, 1, killed)
	// Its threads end one after the other, and the last one frees the addresses.
	for _, url := range []string{box.HTTPURL, box.HTTPSURL, box.AdminURL} {
		_, addr, _ := strings.Cut(url, "://")
		stack.Eventually(t, func() bool {
			l, err := net.Listen("tcp", addr)
			if err != nil {
				return false
			}
			return assert.NoError(t, l.Close())
		}, "%s must become free", addr)
	}
}

func mustWrite(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	require.NoError(t, os.WriteFile(path, []byte(text), 0o644))
	return path
}
