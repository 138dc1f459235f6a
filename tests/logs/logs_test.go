// Package logs checks on a whole box that no log line of a function is lost while VictoriaLogs is away and the agent
// dies, and counts those that are delivered twice.
package logs

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/edge-serverless-box/esb/tests/hoststate"
	"github.com/edge-serverless-box/esb/tests/stack"
)

// 20 functions x 10 requests x 500 lines are the 100 000 lines of the test.
const (
	functions = 20
	requests  = 10
	lines     = 500
)

const (
	// outage is how long VictoriaLogs is down.
	outage = 30 * time.Second
	// findLimit is how long the backlog may take to be found by queries after that.
	findLimit = 3 * time.Minute
	// batchBytes is the box's LOG_SHIP_BATCH_BYTES, and leastRecord the size that every record has at least: a batch
	// that is delivered twice has no more than their quotient of lines.
	batchBytes  = 256 << 10
	leastRecord = 200
)

func TestLines_OutageOfTheStoreAndDeathOfTheAgent_LoseNone(t *testing.T) {
	if os.Getuid() != 0 {
		t.Fatal("the test starts containers: run it as root")
	}
	home := t.TempDir()
	box, err := stack.Prepare(home, stack.Options{
		FunctionsConfig: mustWriteFunctions(t),
		RoutingConfig:   mustWriteRoutes(t),
		OwnLogs:         true,
		Env: []string{"S3_ADDR=off", "S3_UI_ADDR=off", "DYNAMODB_ADDR=off", "REGISTRY_ADDR=off",
			fmt.Sprintf("LOG_SHIP_BATCH_BYTES=%d", batchBytes)},
	})
	require.NoError(t, err)
	store := &victoriaLogs{program: filepath.Join(box.BinDir, "victoria-logs"), data: filepath.Join(home, "victorialogs"), url: box.LogsURL}
	t.Cleanup(func() { assert.NoError(t, box.Down()) })
	require.NoError(t, box.Up(t.Context()))
	store.mustStart(t)
	t.Cleanup(store.stop)
	token, err := box.Token(t.Context())
	require.NoError(t, err)

	// A third of the lines before the outage, a third in it, a third while the agent is dead and after.
	ids := make([][]string, functions)
	write := func(from, to int) {
		var wg sync.WaitGroup
		for f := range functions {
			wg.Go(func() {
				for range to - from {
					answer, err := box.Do(t.Context(), http.MethodPost, fmt.Sprintf("%s/writer/%d", box.HTTPURL, f), token,
						fmt.Appendf(nil, `{"action":"log","lines":%d}`, lines))
					if assert.NoError(t, err) && assert.Equal(t, http.StatusOK, answer.Status, "%s", answer.Body) {
						ids[f] = append(ids[f], answer.Header.Get("x-amzn-RequestId"))
					}
				}
			})
		}
		wg.Wait()
	}
	write(0, 3)
	store.stop()
	down := time.Now()
	write(3, 6)
	time.Sleep(time.Until(down.Add(outage))) // the outage itself is what is tested
	store.mustStart(t)
	// The backlog is on its way now: the moment at which a kill can do harm.
	stack.Eventually(t, func() bool {
		found, err := store.count(t.Context(), box, "job:=lambda type:=function")
		return err == nil && found > 3*functions*lines
	}, "the backlog must be shipped")
	mustKillAgent(t, box)
	write(6, requests)
	require.NoError(t, box.Up(t.Context()))

	deadline := time.Now().Add(findLimit)
	distinct, duplicates, missing := mustCount(t, box, ids)
	for len(missing) > 0 && time.Now().Before(deadline) {
		time.Sleep(time.Second)
		distinct, duplicates, missing = mustCount(t, box, ids)
	}
	t.Logf("%d lines found, %d of them also a second time", distinct, duplicates)
	require.Empty(t, missing, "requests with missing lines")
	assert.Equal(t, functions*requests*lines, distinct)
	assert.LessOrEqual(t, duplicates, batchBytes/leastRecord, "one batch may be delivered twice, no more")
}

// mustCount looks for every line of every request.
func mustCount(t *testing.T, box *stack.Stack, ids [][]string) (distinct, duplicates int, missing map[string]int) {
	t.Helper()
	missing = map[string]int{}
	for f, own := range ids {
		found, err := box.Query(t.Context(), fmt.Sprintf(`function:="writer-%d" type:=function`, f))
		require.NoError(t, err)
		seen := map[string]map[string]bool{}
		for _, line := range found {
			if seen[line.RequestID] == nil {
				seen[line.RequestID] = map[string]bool{}
			}
			if seen[line.RequestID][line.Message] {
				duplicates++
			}
			seen[line.RequestID][line.Message] = true
		}
		for _, id := range own {
			for n := 1; n <= lines; n++ {
				if seen[id][fmt.Sprintf("chaos line %d of %d", n, lines)] {
					distinct++
				} else {
					missing[id]++
				}
			}
		}
	}
	return distinct, duplicates, missing
}

func mustKillAgent(t *testing.T, box *stack.Stack) {
	t.Helper()
	processes, err := hoststate.Processes(box.Home, box.BinDir, box.Bridge)
	require.NoError(t, err)
	killed := 0
	for _, p := range processes {
		if filepath.Base(p.Program) == "agent" {
			require.NoError(t, syscall.Kill(p.PID, syscall.SIGKILL))
			killed++
		}
	}
	require.Equal(t, 1, killed)
}

func mustWriteFunctions(t *testing.T) string {
	t.Helper()
	var text strings.Builder
	text.WriteString("functions:\n")
	for f := range functions {
		fmt.Fprintf(&text, "  writer-%d: {image: \"esb/lambda-chaos:latest\", timeout: 30, scaling: {max_capacity: 1}}\n", f)
	}
	return mustWrite(t, "functions.yml", text.String())
}

func mustWriteRoutes(t *testing.T) string {
	t.Helper()
	var text strings.Builder
	text.WriteString("routes:\n")
	for f := range functions {
		fmt.Fprintf(&text, "  - {path: /writer/%d, method: POST, function: writer-%d}\n", f, f)
	}
	return mustWrite(t, "routing.yml", text.String())
}

func mustWrite(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	require.NoError(t, os.WriteFile(path, []byte(text), 0o644))
	return path
}

// victoriaLogs is a VictoriaLogs that the test starts and stops.
type victoriaLogs struct {
	program, data, url string
	cmd                *exec.Cmd
}

func (v *victoriaLogs) mustStart(t *testing.T) {
	t.Helper()
	require.NoError(t, os.MkdirAll(v.data, 0o755))
	log, err := os.OpenFile(v.data+".log", os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	require.NoError(t, err)
	defer func() { _ = log.Close() }()
	v.cmd = exec.Command(v.program, "-storageDataPath="+v.data, "-httpListenAddr="+strings.TrimPrefix(v.url, "http://"))
	v.cmd.Stdout, v.cmd.Stderr = log, log
	require.NoError(t, v.cmd.Start())
	stack.Eventually(t, func() bool {
		res, err := http.Get(v.url + "/health") //nolint:noctx // bound by Eventually
		if err != nil {
			return false
		}
		_ = res.Body.Close()
		return res.StatusCode == http.StatusOK
	}, "VictoriaLogs must serve")
}

// stop stops it in order and waits for its end. It may be called when it does not run.
func (v *victoriaLogs) stop() {
	if v.cmd == nil {
		return
	}
	_ = v.cmd.Process.Signal(syscall.SIGTERM)
	_ = v.cmd.Wait() // its exit code says nothing here
	v.cmd = nil
}

// count counts the lines that a query finds.
func (v *victoriaLogs) count(ctx context.Context, box *stack.Stack, query string) (int, error) {
	answer, err := box.Do(ctx, http.MethodGet, v.url+"/select/logsql/query?query="+url.QueryEscape(query+" | stats count() n"), "", nil)
	if err != nil {
		return 0, err
	}
	var found struct {
		N int `json:"n,string"`
	}
	if answer.Status != http.StatusOK {
		return 0, fmt.Errorf("VictoriaLogs answered %d: %s", answer.Status, answer.Body)
	}
	err = json.Unmarshal(answer.Body, &found)
	return found.N, err
}
