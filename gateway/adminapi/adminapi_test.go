package adminapi_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/edge-serverless-box/esb/gateway"
	"github.com/edge-serverless-box/esb/gateway/adminapi"
	"github.com/edge-serverless-box/esb/gateway/containermetrics"
	"github.com/edge-serverless-box/esb/gateway/pool"
	"github.com/edge-serverless-box/esb/gateway/schedule"
)

// patience is for what must happen, however slow the machine.
const patience = 60 * time.Second

// box is a Server on a free port and its operator.
type box struct {
	*adminapi.Server
	t *testing.T
}

type answer struct {
	status int
	header http.Header
	body   string
}

func options() adminapi.Options {
	return adminapi.Options{
		Addr:  "127.0.0.1:0",
		Token: adminToken,
		Pools: func() []pool.State { return []pool.State{{Function: "f"}} },
		Configuration: func() adminapi.ConfigurationState {
			return adminapi.ConfigurationState{Status: adminapi.ConfigurationOK}
		},
		Reload:   func() error { return nil },
		Registry: prometheus.NewRegistry(),
		Logger:   slog.New(slog.DiscardHandler),
	}
}

func mustOpen(t *testing.T, change ...func(*adminapi.Options)) *box {
	t.Helper()
	o := options()
	for _, c := range change {
		c(&o)
	}
	s, err := adminapi.Open(context.Background(), o)
	require.NoError(t, err)
	s.Serve()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		assert.NoError(t, s.Shutdown(ctx))
	})
	return &box{Server: s, t: t}
}

func (b *box) url(path string) string { return "http://" + b.Addrs()[0].String() + path }

// ask asks as the operator does.
func (b *box) ask(method, path string) answer {
	b.t.Helper()
	r, err := http.NewRequest(method, b.url(path), nil)
	require.NoError(b.t, err)
	r.Header.Set("Authorization", "Bearer "+adminToken)
	return b.send(r)
}

func (b *box) send(r *http.Request) answer {
	b.t.Helper()
	resp, err := http.DefaultClient.Do(r)
	require.NoError(b.t, err)
	defer func() { assert.NoError(b.t, resp.Body.Close()) }()
	text, err := io.ReadAll(resp.Body)
	require.NoError(b.t, err)
	return answer{resp.StatusCode, resp.Header, string(text)}
}

func TestServer_Endpoints(t *testing.T) {
	var down, refused error
	b := mustOpen(t, func(o *adminapi.Options) {
		o.Dependencies = []adminapi.Dependency{
			{Name: "agent", Check: func(context.Context) error { return down }},
			{Name: "gateway", Check: func(context.Context) error { return nil }},
		}
		o.Reload = func() error { return refused }
		o.Schedules = func() []schedule.State {
			return []schedule.State{{Name: "s", Function: "f", Expression: "rate(1 day)"}}
		}
	})
	get := b.ask
	assert.Equal(t, 200, get("GET", "/healthz").status)
	assert.Equal(t, 404, get("GET", "/nothing").status)
	assert.Equal(t, 405, get("GET", "/reload").status)

	ready := get("GET", "/readyz")
	assert.Equal(t, 200, ready.status)
	assert.JSONEq(t, `{"status":"ok","dependencies":{"agent":{"status":"ok"},"gateway":{"status":"ok"}}}`, ready.body)
	down = errors.New("connection refused")
	ready = get("GET", "/readyz")
	assert.Equal(t, 503, ready.status)
	assert.JSONEq(t, `{"status":"unavailable","dependencies":{"agent":{"status":"down","error":"connection refused"},"gateway":{"status":"ok"}}}`, ready.body)

	var pools struct{ Pools []pool.State }
	require.NoError(t, json.Unmarshal([]byte(get("GET", "/pools").body), &pools))
	assert.Equal(t, []pool.State{{Function: "f"}}, pools.Pools)
	assert.JSONEq(t, `{"schedules":[{"name":"s","function":"f","expression":"rate(1 day)","enabled":false,"next":null,"last":null}]}`, get("GET", "/schedules").body)

	assert.Equal(t, 200, get("POST", "/reload").status)
	refused = errors.New("functions.yml:1: bad\nrouting.yml:2: bad")
	reload := get("POST", "/reload")
	assert.Equal(t, 422, reload.status)
	assert.JSONEq(t, `{"status":"refused","problems":["functions.yml:1: bad","routing.yml:2: bad"]}`, reload.body)
	assert.JSONEq(t, `{"status":"ok"}`, get("GET", "/configuration").body)
}

func TestServer_ContainerMetrics(t *testing.T) {
	var failed error
	b := mustOpen(t, func(o *adminapi.Options) {
		o.Containers = func(context.Context) ([]gateway.Container, error) {
			return []gateway.Container{{ID: "c1", Function: "f"}}, failed
		}
	})
	got := b.ask("GET", containermetrics.Path)
	assert.Equal(t, 200, got.status)
	assert.Contains(t, got.body, `"container_id":"c1"`)
	failed = gateway.Errorf(gateway.CodeUnavailable, "agent at 127.0.0.1:50051: listing containers: refused")
	got = b.ask("GET", containermetrics.Path)
	assert.Equal(t, 503, got.status)
	assert.Contains(t, got.body, "agent at 127.0.0.1:50051")
}

func TestReadyz_Notes_DoNotMakeItUnready(t *testing.T) {
	b := mustOpen(t, func(o *adminapi.Options) {
		o.Dependencies = []adminapi.Dependency{{
			Name: "resources", Check: func(context.Context) error { return nil }, Notes: func() []string { return []string{"table t: differs"} },
		}}
	})
	got := b.ask(http.MethodGet, "/readyz")
	assert.Equal(t, 200, got.status)
	assert.JSONEq(t, `{"status":"ok","dependencies":{"resources":{"status":"ok","notes":["table t: differs"]}}}`, got.body)
}

func TestReadyz_DiskIsFull_IsToldFromAnyOtherTrouble(t *testing.T) {
	b := mustOpen(t, func(o *adminapi.Options) {
		o.Dependencies = []adminapi.Dependency{
			{Name: "async", Check: func(context.Context) error { return fmt.Errorf("the disk has 3 MB left: %w", syscall.ENOSPC) }},
			{Name: "s3", Check: func(context.Context) error { return errors.New("no answer") }},
		}
	})
	got := b.ask(http.MethodGet, "/readyz")
	assert.Equal(t, 503, got.status)
	assert.JSONEq(t, `{"status":"unavailable","dependencies":{"async":{"status":"full","error":"the disk has 3 MB left: no space left on device"},"s3":{"status":"down","error":"no answer"}}}`, got.body)
}

func TestServer_ConnectionsHeld_OperatorGetsIn(t *testing.T) {
	b := mustOpen(t)
	for range 200 {
		conn, err := net.Dial("tcp", b.Addrs()[0].String())
		require.NoError(t, err)
		defer func() { _ = conn.Close() }()
	}
	body := b.ask("GET", "/metrics").body
	const evicted = `esb_connections_refused_total{listener="admin",reason="evicted"}`
	assert.Contains(t, body, evicted)
	assert.NotContains(t, body, evicted+" 0\n")
}

func TestOpen_PortInUse_NamesTheSetting(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer func() { _ = taken.Close() }()
	o := options()
	o.Addr = taken.Addr().String()
	_, err = adminapi.Open(context.Background(), o)
	assert.ErrorContains(t, err, "GATEWAY_ADMIN_ADDR: "+o.Addr+" is in use")
}

func TestOpen_NoAddress_ListensNowhere(t *testing.T) {
	o := options()
	o.Addr = ""
	s, err := adminapi.Open(context.Background(), o)
	require.NoError(t, err)
	s.Serve()
	assert.Empty(t, s.Addrs())
	assert.NoError(t, s.Shutdown(t.Context()))
}
