package app_test

import (
	"context"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/edge-serverless-box/esb/gateway/app"
	"github.com/edge-serverless-box/esb/guard/freeport"
)

// runs is a gateway as the program runs it.
type runs struct {
	ended chan error
	log   *lockedLog
}

// lockedLog is a log that is read while it is written.
type lockedLog struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *lockedLog) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *lockedLog) has(text string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Contains(l.text.String(), text)
}

func start(ctx context.Context, t *testing.T, env map[string]string) *runs {
	t.Helper()
	r := &runs{ended: make(chan error, 1), log: &lockedLog{}}
	go func() { r.ended <- app.Run(ctx, getenv(env), r.log) }()
	require.Eventually(t, func() bool { return r.log.has(`"msg":"gateway started"`) || len(r.ended) > 0 }, patience, time.Millisecond)
	require.True(t, r.log.has(`"msg":"gateway started"`), "it has ended")
	return r
}

// A gateway that starts while another one runs takes its place: its sockets, its queue and its workers. No client notices.
func TestRun_AnotherGatewayStarts_NoRequestFails(t *testing.T) {
	agent, addr := mustAgent(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/health" {
			_, _ = io.WriteString(w, `{"state":"idle"}`)
			return
		}
		okWorker(w, r)
	}))
	env := environment(t, addr, "functions:\n  f: {image: \"f:1\", scaling: {max_capacity: 1}}\n", oneRoute)
	ports, err := freeport.Find(2)
	require.NoError(t, err)
	env["GATEWAY_HTTP_ADDR"], env["GATEWAY_ADMIN_ADDR"] = fmt.Sprintf("127.0.0.1:%d", ports[0]), fmt.Sprintf("127.0.0.1:%d", ports[1])
	url := "http://" + env["GATEWAY_HTTP_ADDR"]
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	running := start(ctx, t, env)

	var answered atomic.Int64
	load, quiet := context.WithCancel(t.Context())
	var clients sync.WaitGroup
	for range 4 {
		clients.Go(func() {
			client := &http.Client{Transport: &http.Transport{}} // each with a connection of its own that it keeps
			defer client.CloseIdleConnections()
			for load.Err() == nil {
				r, err := http.NewRequest(http.MethodPost, url+"/f", strings.NewReader("x"))
				if !assert.NoError(t, err) {
					return
				}
				// A process that stands still while connections are let go may lose what is sent on an idle one: net/http then sends it
				// once more on another. On a new connection nothing may be lost.
				r.Header.Set("Idempotency-Key", "x")
				res, err := client.Do(r)
				if !assert.NoError(t, err) {
					return
				}
				_, err = io.Copy(io.Discard, res.Body)
				if !assert.NoError(t, err) || !assert.NoError(t, res.Body.Close()) || !assert.Equal(t, 200, res.StatusCode) {
					return
				}
				answered.Add(1)
			}
		})
	}
	more := func() {
		t.Helper()
		seen := answered.Load()
		require.Eventually(t, func() bool { return answered.Load() > seen+20 || t.Failed() }, patience, time.Millisecond)
	}
	more()
	for i := range 3 {
		changed := maps.Clone(env)
		changed["MAX_CONCURRENT_STARTS"] = fmt.Sprint(i + 1)
		changed["GATEWAY_REPLACES"] = "true"
		next := start(ctx, t, changed)
		require.NoError(t, <-running.ended, "the one before has ended when the next one serves")
		more()
		running = next
	}

	// One that cannot start leaves the other one serving.
	certificate := filepath.Join(t.TempDir(), "server")
	require.NoError(t, os.WriteFile(certificate, []byte("noise"), 0o600))
	for _, wrong := range []map[string]string{
		{"FUNCTIONS_CONFIG_PATH": "/nothing"},
		{"GATEWAY_HTTP_ADDR": addr}, // the agent's
		{"GATEWAY_HTTPS_ADDR": "127.0.0.1:0", "TLS_CERT_FILE": certificate, "TLS_KEY_FILE": certificate},
	} {
		broken := maps.Clone(env)
		broken["GATEWAY_REPLACES"] = "true"
		maps.Copy(broken, wrong)
		require.Error(t, app.Run(ctx, getenv(broken), io.Discard), wrong)
		more()
	}
	// And so does one that nobody has started to take its place, as a second container on one volume: with addresses of its own.
	second := maps.Clone(env)
	second["GATEWAY_HTTP_ADDR"], second["GATEWAY_ADMIN_ADDR"] = "127.0.0.1:0", "off"
	require.Error(t, app.Run(ctx, getenv(second), io.Discard))
	more()
	assert.Empty(t, running.ended)

	quiet()
	clients.Wait()
	assert.Len(t, agent.started(), 1, "one worker has served all of them")
	stop()
	require.NoError(t, <-running.ended)
}

// Folders that are shared with a virtual machine may hold no sockets.
func TestRun_StateHoldsNoSocket_ServesAllTheSame(t *testing.T) {
	_, addr := mustAgent(t, http.HandlerFunc(okWorker))
	env := environment(t, addr, "functions:\n  f: {image: \"f:1\"}\n", oneRoute)
	require.NoError(t, os.MkdirAll(filepath.Join(env["ESB_HOME"], "handover", "in the way"), 0o700))
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	running := start(ctx, t, env)
	assert.True(t, running.log.has("clients are refused between the two"))
	stop()
	require.NoError(t, <-running.ended)
}
