package app_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	agentv1 "github.com/edge-serverless-box/esb/api/esb/agent/v1"
	"github.com/edge-serverless-box/esb/gateway/app"
	"github.com/edge-serverless-box/esb/gateway/settings"
	"github.com/edge-serverless-box/esb/guard/memlimit"
	"github.com/edge-serverless-box/esb/guard/secretfile"
	"github.com/edge-serverless-box/esb/sigv4"
)

// patience is for what must happen, however slow the machine.
const patience = 60 * time.Second

// imageHeader tells the handler of all containers which image it is.
const imageHeader = "X-Test-Image"

// fakeAgent is an agent whose containers are HTTP servers of the test.
type fakeAgent struct {
	agentv1.UnimplementedAgentServiceServer
	worker http.Handler

	mu      sync.Mutex
	workers map[string]*httptest.Server
	infos   map[string]*agentv1.ContainerInfo
	images  []string
}

func (a *fakeAgent) EnsureContainer(_ context.Context, r *agentv1.EnsureContainerRequest) (*agentv1.WorkerInfo, error) {
	if r.GetImage() == "missing:1" {
		return nil, status.Error(codes.FailedPrecondition, "image missing:1 cannot be had from 10.88.0.1")
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	id := fmt.Sprintf("c%d", len(a.images))
	a.images = append(a.images, r.GetImage())
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		req.Header.Set(imageHeader, r.GetImage())
		a.worker.ServeHTTP(w, req)
	}))
	a.workers[id] = s
	addr := s.Listener.Addr().(*net.TCPAddr)
	a.infos[id] = &agentv1.ContainerInfo{ContainerId: id, FunctionName: r.GetFunctionName(), Status: agentv1.ContainerStatus_RUNNING, CreatedAt: timestamppb.Now(),
		IpAddress: addr.IP.String(), Port: uint32(addr.Port), Generation: r.GetGeneration(), Owner: r.GetOwner()}
	return &agentv1.WorkerInfo{Id: id, Name: "lambda-f-" + id, IpAddress: addr.IP.String(), Port: uint32(addr.Port)}, nil
}

func (a *fakeAgent) DestroyContainer(_ context.Context, r *agentv1.DestroyContainerRequest) (*agentv1.DestroyContainerResponse, error) {
	a.mu.Lock()
	s := a.workers[r.GetContainerId()]
	delete(a.workers, r.GetContainerId())
	a.mu.Unlock()
	if s != nil {
		s.CloseClientConnections()
		s.Close()
	}
	return &agentv1.DestroyContainerResponse{}, nil
}

func (a *fakeAgent) ListContainers(context.Context, *agentv1.ListContainersRequest) (*agentv1.ListContainersResponse, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	list := &agentv1.ListContainersResponse{}
	for id := range a.workers {
		list.Containers = append(list.Containers, a.infos[id])
	}
	return list, nil
}

// started are the images of the containers that were made, in order.
func (a *fakeAgent) started() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Clone(a.images)
}

func (a *fakeAgent) alive() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.workers)
}

// mustAgent serves a fakeAgent and returns it with its address.
func mustAgent(t *testing.T, worker http.Handler) (*fakeAgent, string) {
	t.Helper()
	a := &fakeAgent{worker: worker, workers: map[string]*httptest.Server{}, infos: map[string]*agentv1.ContainerInfo{}}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	s := grpc.NewServer()
	agentv1.RegisterAgentServiceServer(s, a)
	h := health.NewServer()
	h.SetServingStatus("", healthv1.HealthCheckResponse_SERVING)
	healthv1.RegisterHealthServer(s, h)
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = s.Serve(l)
	}()
	t.Cleanup(func() {
		s.Stop()
		<-done
	})
	return a, l.Addr().String()
}

// Secrets of the tests' gateways.
const (
	apiKey   = "api-key-of-the-test"
	password = "password-of-the-test"
)

var accessKey = sigv4.Credentials{AccessKeyID: "AKIDTEST", SecretAccessKey: "secret-key-of-the-test"}

// environment is that of a gateway on free ports, with its files in a folder of the test.
func environment(t *testing.T, agent, functions, routing string) map[string]string {
	t.Helper()
	dir := t.TempDir()
	env := map[string]string{
		"GATEWAY_HTTPS_ADDR":    "127.0.0.1:0",
		"GATEWAY_HTTP_ADDR":     "127.0.0.1:0",
		"GATEWAY_ADMIN_ADDR":    "127.0.0.1:0",
		"AGENT_GRPC_ADDR":       agent,
		"S3_ENDPOINT":           "off",
		"DYNAMODB_ENDPOINT":     "off",
		"ESB_HOME":              dir,
		"X_API_KEY":             apiKey,
		"AUTH_PASS":             password,
		"LAMBDA_ACCESS_KEYS":    accessKey.AccessKeyID + ":" + accessKey.SecretAccessKey,
		"FUNCTIONS_CONFIG_PATH": filepath.Join(dir, "functions.yml"),
		"ROUTING_CONFIG_PATH":   filepath.Join(dir, "routing.yml"),
	}
	require.NoError(t, os.WriteFile(env["FUNCTIONS_CONFIG_PATH"], []byte(functions), 0o600))
	require.NoError(t, os.WriteFile(env["ROUTING_CONFIG_PATH"], []byte(routing), 0o600))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "agent-token"), []byte("token of the agent"), 0o600))
	return env
}

func getenv(env map[string]string) func(string) string {
	return func(name string) string { return env[name] }
}

func request(t *testing.T, method, url string, header http.Header, body string) (int, http.Header, string) {
	t.Helper()
	r, err := http.NewRequest(method, url, strings.NewReader(body))
	require.NoError(t, err)
	r.Header = header
	resp, err := http.DefaultClient.Do(r)
	require.NoError(t, err)
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	return resp.StatusCode, resp.Header, string(text)
}

// invoke calls Lambda's API with the development key.
func invoke(t *testing.T, url, function, body string) (int, http.Header, string) {
	t.Helper()
	return invokeAs(t, url, function, body, "RequestResponse")
}

// invokeAs is invoke with an invocation type.
func invokeAs(t *testing.T, url, function, body, kind string) (int, http.Header, string) {
	t.Helper()
	r, err := http.NewRequest(http.MethodPost, url+"/2015-03-31/functions/"+function+"/invocations", strings.NewReader(body))
	require.NoError(t, err)
	r.Header.Set("X-Amz-Invocation-Type", kind)
	sigv4.Sign(r, accessKey,
		"us-east-1", "lambda", sigv4.HashPayload([]byte(body)), time.Now())
	return request(t, r.Method, r.URL.String(), r.Header, body)
}

// TestApp_FromLoginToContainerAndBack runs the whole gateway against an agent that is not real.
func TestApp_FromLoginToContainerAndBack(t *testing.T) {
	agent, addr := mustAgent(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var e struct {
			Body           string
			RequestContext struct{ Authorizer map[string]any }
		}
		if err := json.NewDecoder(r.Body).Decode(&e); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		answer, _ := json.Marshal(map[string]any{"statusCode": 200, "body": fmt.Sprint(e.Body, " ", e.RequestContext.Authorizer["cognito:username"], " ", r.Header.Get("X-Amzn-RequestId"))})
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write(answer)
	}))
	env := environment(t, addr,
		"functions:\n  f: {image: \"f:1\"}\n  broken: {image: \"missing:1\"}\n",
		"routes:\n  - {path: /f, method: POST, function: f}\n  - {path: /broken, method: GET, function: broken, auth: none}\n")
	s, err := settings.Load(getenv(env))
	require.NoError(t, err)
	var log bytes.Buffer
	a, err := app.Open(context.Background(), s, memlimit.Limit{Bytes: 1 << 30}, &log)
	require.NoError(t, err)
	closed := false
	defer func() {
		if !closed {
			_ = a.Close(context.Background())
		}
	}()
	url := "http://" + a.Addrs("http")[0].String()
	admin := "http://" + a.Addrs("admin")[0].String()
	assert.Len(t, a.Addrs("https"), 1)

	code, _, body := request(t, "POST", url+"/user/auth/ver1.0", http.Header{"X-Api-Key": {apiKey}},
		`{"AuthParameters":{"USERNAME":"onpremise-user","PASSWORD":"`+password+`"}}`)
	require.Equal(t, 200, code, body)
	var login struct{ AuthenticationResult struct{ IdToken string } }
	require.NoError(t, json.Unmarshal([]byte(body), &login))
	token := http.Header{"Authorization": {login.AuthenticationResult.IdToken}}

	code, header, body := request(t, "POST", url+"/f", token, "hello")
	assert.Equal(t, 200, code)
	assert.Equal(t, "hello onpremise-user "+header.Get("x-amzn-RequestId"), body)

	code, header, body = request(t, "GET", url+"/broken", nil, "")
	assert.Equal(t, 503, code, "a start that failed for good is answered at once")
	assert.JSONEq(t, `{"message":"Service Unavailable"}`, body)
	assert.NotEmpty(t, header.Get("Retry-After"))

	code, _, body = request(t, "POST", url+"/2015-03-31/functions/f/invocations", nil, `{"body":"invoked"}`)
	assert.Equal(t, 403, code)
	assert.JSONEq(t, `{"message":"Missing Authentication Token"}`, body)
	code, header, body = invoke(t, url, "f", `{"body":"invoked"}`)
	require.Equal(t, 200, code, body)
	assert.JSONEq(t, `{"statusCode":200,"body":"invoked <nil> `+header.Get("x-amzn-RequestId")+`"}`, body)
	assert.Contains(t, header.Get("X-Amzn-Trace-Id"), "Root=1-")
	assert.Empty(t, header.Get("x-amz-apigw-id"))
	code, header, _ = invoke(t, url, "broken", "{}")
	assert.Equal(t, 409, code)
	assert.Equal(t, "ResourceConflictException", header.Get("X-Amzn-Errortype"))

	adminToken, err := secretfile.Read(filepath.Join(env["ESB_HOME"], "admin-token"))
	require.NoError(t, err)
	operator := http.Header{"Authorization": {"Bearer " + adminToken}}
	code, _, body = request(t, "GET", admin+"/readyz", operator, "")
	assert.Equal(t, 200, code, body)
	assert.Contains(t, body, `"agent":`)
	_, _, body = request(t, "GET", admin+"/pools", operator, "")
	assert.Contains(t, body, `"name":"lambda-f-c0"`)
	code, _, _ = request(t, "GET", admin+"/pools", nil, "")
	assert.Equal(t, 401, code)
	_, _, body = request(t, "GET", admin+"/metrics", operator, "")
	for _, metric := range []string{"esb_requests_total", `route="lambda:Invoke"`, "esb_cold_starts_total", "esb_pool_workers", "esb_circuit_breaker_state", "go_goroutines"} {
		assert.Contains(t, body, metric)
	}

	// A refused configuration changes nothing; a right one is taken up as a whole.
	require.NoError(t, os.WriteFile(env["ROUTING_CONFIG_PATH"], []byte("routes:\n  - {path: /g}\n"), 0o600))
	code, _, _ = request(t, "POST", admin+"/reload", operator, "")
	assert.Equal(t, 422, code)
	code, _, _ = request(t, "POST", url+"/f", token, "still")
	assert.Equal(t, 200, code)
	require.NoError(t, os.WriteFile(env["ROUTING_CONFIG_PATH"], []byte("routes:\n  - {path: /g, method: POST, function: f}\n"), 0o600))
	require.NoError(t, os.WriteFile(env["FUNCTIONS_CONFIG_PATH"], []byte("functions:\n  f: {image: \"f:2\"}\n"), 0o600))
	code, _, body = request(t, "POST", admin+"/reload", operator, "")
	assert.Equal(t, 200, code, body)
	code, _, _ = request(t, "POST", url+"/f", token, "gone")
	assert.Equal(t, 404, code)
	code, _, _ = request(t, "POST", url+"/g", token, "new")
	assert.Equal(t, 200, code)
	// The old worker may have served that one: the new one is made in any case.
	require.Eventually(t, func() bool { return slices.Equal([]string{"f:1", "f:2"}, agent.started()) }, patience, time.Millisecond)

	closed = true
	assert.NoError(t, a.Close(context.Background()))
	assert.Equal(t, 1, agent.alive(), "the next gateway adopts it")
	assert.Contains(t, log.String(), `"msg":"gateway stopped"`)
	for line := range strings.Lines(log.String()) {
		assert.True(t, json.Valid([]byte(line)), line)
	}
}

func TestRun_MisspeltSetting_IsLogged(t *testing.T) {
	t.Setenv("GATWAY_HTTP_ADDR", ":8000")
	_, addr := mustAgent(t, http.NotFoundHandler())
	env := environment(t, addr, "functions: {}\n", "routes: []\n")
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	said := &firstLine{text: "did you mean GATEWAY_HTTP_ADDR?", seen: make(chan struct{})}
	ended := make(chan error, 1)
	go func() { ended <- app.Run(ctx, getenv(env), said) }()
	select {
	case <-said.seen:
	case err := <-ended:
		t.Fatalf("ended: %v", err)
	case <-time.After(patience):
		t.Fatal("not said")
	}
	cancel()
	if err := <-ended; err != nil {
		assert.ErrorIs(t, err, context.Canceled, "it was not up yet")
	}
}

func TestRun_StopsWithItsContext(t *testing.T) {
	_, addr := mustAgent(t, http.NotFoundHandler())
	env := environment(t, addr, "functions:\n  f: {image: \"f:1\"}\n", "routes:\n  - {path: /f, method: POST, function: f}\n")
	ctx, cancel := context.WithCancel(context.Background())
	started := &firstLine{text: "gateway started", seen: make(chan struct{})}
	ended := make(chan error, 1)
	go func() { ended <- app.Run(ctx, getenv(env), started) }()
	select {
	case <-started.seen:
	case err := <-ended:
		t.Fatalf("ended: %v", err)
	case <-time.After(patience):
		t.Fatal("not started")
	}
	cancel()
	select {
	case err := <-ended:
		assert.NoError(t, err)
	case <-time.After(patience):
		t.Fatal("not stopped")
	}
}

// firstLine waits for a text in a log.
type firstLine struct {
	text string
	once sync.Once
	seen chan struct{}
}

func (w *firstLine) Write(p []byte) (int, error) {
	if bytes.Contains(p, []byte(w.text)) {
		w.once.Do(func() { close(w.seen) })
	}
	return len(p), nil
}

func TestRun_BadInput_SaysWhatToDo(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer func() { _ = taken.Close() }()
	good := "routes:\n  - {path: /f, method: POST, function: f}\n"
	tests := []struct {
		name, functions, routing string
		change                   map[string]string
		want                     string
	}{
		{"a setting", "functions:\n  f: {image: \"f:1\"}\n", good, map[string]string{"JWT_EXPIRES_DELTA": "soon"}, "JWT_EXPIRES_DELTA: "},
		{"a function", "functions:\n  f: {image: \"f:1\", timeout: 0}\n", good, nil, "functions.yml:2: functions.f.timeout: must be 1 to 900 seconds"},
		{"a route", "functions:\n  f: {image: \"f:1\"}\n", "routes:\n  - {path: /f, method: POST, function: g}\n", nil, "routing.yml:2: "},
		{"the login's path", "functions:\n  f: {image: \"f:1\"}\n", "routes:\n  - {path: /health, method: GET, function: f}\n", nil, "routing.yml:2: "},
		{"a port in use", "functions:\n  f: {image: \"f:1\"}\n", good, map[string]string{"GATEWAY_HTTP_ADDR": taken.Addr().String()},
			"GATEWAY_HTTP_ADDR: 127.0.0.1:" + strconv.Itoa(taken.Addr().(*net.TCPAddr).Port) + " is in use"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			env := environment(t, "127.0.0.1:1", tt.functions, tt.routing)
			for name, value := range tt.change {
				env[name] = value
			}
			assert.ErrorContains(t, app.Run(context.Background(), getenv(env), io.Discard), tt.want)
		})
	}
}
