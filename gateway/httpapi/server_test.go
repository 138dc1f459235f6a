package httpapi_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/edge-serverless-box/esb/gateway"
	"github.com/edge-serverless-box/esb/gateway/auth"
	"github.com/edge-serverless-box/esb/gateway/event"
	"github.com/edge-serverless-box/esb/gateway/httpapi"
	"github.com/edge-serverless-box/esb/gateway/response"
	"github.com/edge-serverless-box/esb/gateway/route"
	"github.com/edge-serverless-box/esb/gateway/throttle"
)

const (
	loginPath = "/user/auth/ver1.0"
	rightBody = `{"AuthParameters":{"USERNAME":"user","PASSWORD":"pass"}}`
	// patience is for what must happen, however slow the machine.
	patience = 60 * time.Second
)

type invokeFunc func(ctx context.Context, fn *gateway.Function, inv gateway.Invocation) (gateway.Result, error)

func (f invokeFunc) Invoke(ctx context.Context, fn *gateway.Function, inv gateway.Invocation) (gateway.Result, error) {
	return f(ctx, fn, inv)
}

// InvokeStream passes the whole result on at once.
func (f invokeFunc) InvokeStream(ctx context.Context, fn *gateway.Function, inv gateway.Invocation, w gateway.StreamWriter) (gateway.Result, error) {
	result, err := f(ctx, fn, inv)
	if err != nil || result.FunctionError != "" {
		return result, err
	}
	if err := w.Begin("application/json"); err != nil {
		return gateway.Result{}, err
	}
	_, err = w.Write(result.Payload)
	return gateway.Result{}, err
}

// returning makes every function return payload.
func returning(payload string) invokeFunc {
	return func(context.Context, *gateway.Function, gateway.Invocation) (gateway.Result, error) {
		return gateway.Result{Payload: []byte(payload)}, nil
	}
}

func failing(err error) invokeFunc {
	return func(context.Context, *gateway.Function, gateway.Invocation) (gateway.Result, error) {
		return gateway.Result{}, err
	}
}

// box is a Server on free ports and a client for it.
type box struct {
	*httpapi.Server
	t       testing.TB
	options httpapi.Options
	log     *syncBuffer
	// limits are of what was used last, authorizers of what guard uses next.
	limits      *throttle.Set
	authorizers httpapi.Authorizers
}

// route uses routes that nothing guards but what they say themselves.
func (b *box) route(m *route.Matcher, api *gateway.API, replies *response.Set) {
	b.Use(&httpapi.Routing{Matcher: m, API: api, Replies: replies, Auth: &auth.Rules{Authenticator: b.options.Auth}})
}

// syncBuffer is a log that may be read while it is written.
type syncBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

func mustOptions(t testing.TB, invoker httpapi.Invoker) (httpapi.Options, *syncBuffer) {
	t.Helper()
	a, err := auth.New(auth.Options{APIKey: "key", User: "user", Password: "pass", Secret: bytes.Repeat([]byte("s"), 32), Expires: time.Hour, Region: "us-east-1"})
	require.NoError(t, err)
	log := &syncBuffer{}
	logger := slog.New(slog.NewJSONHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	return httpapi.Options{
		HTTPAddrs: []string{"127.0.0.1:0"},
		LoginPath: loginPath,
		Auth:      a,
		Events:    event.NewBuilder("123456789012"),
		Invoker:   invoker,
		Registry:  prometheus.NewRegistry(),
		Logger:    logger,
		AccessLog: log, AccessLevel: slog.LevelDebug,
	}, log
}

func mustOpen(t testing.TB, invoker httpapi.Invoker, change ...func(*httpapi.Options)) *box {
	t.Helper()
	options, log := mustOptions(t, invoker)
	for _, c := range change {
		c(&options)
	}
	s, err := httpapi.Open(context.Background(), options)
	require.NoError(t, err)
	b := &box{Server: s, t: t, options: options, log: log}
	b.route(mustRoutes(t,
		gateway.Route{Path: "/open", Auth: gateway.AuthNone},
		gateway.Route{Path: "/open/{proxy+}", Auth: gateway.AuthNone},
		gateway.Route{Path: "/fast", Auth: gateway.AuthNone, Timeout: 50 * time.Millisecond},
		gateway.Route{Path: "/jwt", Auth: gateway.AuthJWT, Methods: []string{"POST"}},
		gateway.Route{Path: "/key", Auth: gateway.AuthAPIKey},
		gateway.Route{Path: "/stream", Auth: gateway.AuthNone, Stream: true},
		gateway.Route{Path: "/stream/fast", Auth: gateway.AuthNone, Stream: true, Timeout: time.Second},
		gateway.Route{Path: "/v2", Auth: gateway.AuthNone, Payload: gateway.PayloadV2},
	), &gateway.API{}, response.Default())
	s.Serve()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		assert.NoError(t, s.Shutdown(ctx))
	})
	return b
}

func mustRoutes(t testing.TB, routes ...gateway.Route) *route.Matcher {
	t.Helper()
	fn := &gateway.Function{Name: "f"}
	for i := range routes {
		routes[i].Function = fn
		if routes[i].Payload == "" {
			routes[i].Payload = gateway.PayloadV1
		}
		if routes[i].Timeout == 0 {
			routes[i].Timeout = 29 * time.Second
		}
	}
	m, err := route.New(routes)
	require.NoError(t, err)
	return m
}

// metrics are those of the server, as text.
func (b *box) metrics() string {
	b.t.Helper()
	w := httptest.NewRecorder()
	promhttp.HandlerFor(b.options.Registry.(prometheus.Gatherer), promhttp.HandlerOpts{}).ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	return w.Body.String()
}

func (b *box) url(scheme, path string) string {
	return scheme + "://" + b.Addrs(scheme)[0].String() + path
}

// answer is what a test looks at.
type answer struct {
	status int
	header http.Header
	body   string
}

func (b *box) do(method, path string, header http.Header, body io.Reader) answer {
	b.t.Helper()
	r, err := http.NewRequest(method, b.url("http", path), body)
	require.NoError(b.t, err)
	if header != nil {
		r.Header = header
	}
	return b.send(http.DefaultClient, r)
}

func (b *box) send(client *http.Client, r *http.Request) answer {
	b.t.Helper()
	resp, err := client.Do(r)
	require.NoError(b.t, err)
	defer func() { assert.NoError(b.t, resp.Body.Close()) }()
	text, err := io.ReadAll(resp.Body)
	require.NoError(b.t, err)
	return answer{resp.StatusCode, resp.Header, string(text)}
}

func (b *box) token() string {
	b.t.Helper()
	got := b.do("POST", loginPath, http.Header{"X-Api-Key": {"key"}}, strings.NewReader(rightBody))
	require.Equal(b.t, 200, got.status, got.body)
	var login struct{ AuthenticationResult struct{ IdToken string } }
	require.NoError(b.t, json.Unmarshal([]byte(got.body), &login))
	return login.AuthenticationResult.IdToken
}

// TestServer_Answers is the table of docs/system-specification.md 9, with the error types of section 3 of tests/conformance/rows.yml.
func TestServer_Answers(t *testing.T) {
	const internal = `{"message": "Internal server error"}`
	ok := returning(`{"statusCode":200}`)
	code := func(c gateway.Code) invokeFunc { return failing(gateway.Errorf(c, "10.88.0.5:8080 /secret/path")) }
	tests := []struct {
		name        string
		method      string
		path        string
		header      http.Header
		body        io.Reader
		invoke      invokeFunc
		status      int
		kind, text  string
		contentType string
		retryAfter  string
	}{
		{name: "no token", method: "POST", path: "/jwt", invoke: ok, status: 401, kind: "UnauthorizedException", text: `{"message":"Unauthorized"}`},
		{name: "bad token", method: "POST", path: "/jwt", header: http.Header{"Authorization": {"Bearer a.b.c"}}, invoke: ok, status: 401, kind: "UnauthorizedException", text: `{"message":"Unauthorized"}`},
		{name: "no API key", path: "/key", invoke: ok, status: 403, kind: "ForbiddenException", text: `{"message":"Forbidden"}`},
		{name: "no route", path: "/nowhere", invoke: ok, status: 404, kind: "NotFoundException", text: `{"message":"Not Found"}`},
		{name: "wrong method", path: "/jwt", invoke: ok, status: 404, kind: "NotFoundException", text: `{"message":"Not Found"}`},
		{name: "wrong method of the login", path: loginPath, invoke: ok, status: 404, kind: "NotFoundException", text: `{"message":"Not Found"}`},
		{name: "a method that ANY does not mean", method: "PURGE", path: "/open", invoke: ok, status: 404, kind: "NotFoundException", text: `{"message":"Not Found"}`},
		{name: "function failed", invoke: func(context.Context, *gateway.Function, gateway.Invocation) (gateway.Result, error) {
			return gateway.Result{Payload: []byte(`{"statusCode":200}`), FunctionError: "Unhandled"}, nil
		}, status: 502, kind: "InternalServerErrorException", text: internal},
		{name: "function ran past its own timeout", invoke: func(context.Context, *gateway.Function, gateway.Invocation) (gateway.Result, error) {
			return gateway.Result{TimedOut: true}, nil
		}, status: 502, kind: "InternalServerErrorException", text: internal},
		{name: "wrong shape", invoke: returning(`"text"`), status: 502, kind: "InternalServerErrorException", text: internal},
		{name: "wrong shape v2", path: "/v2", invoke: returning(`nope`), status: 500, text: `{"message":"Internal Server Error"}`},
		{name: "route's timeout v2", path: "/v2", invoke: code(gateway.CodeIntegrationTimeout), status: 503, text: `{"message":"Service Unavailable"}`},
		{name: "worker broke off", invoke: code(gateway.CodeTransport), status: 502, kind: "InternalServerErrorException", text: internal},
		{name: "route's timeout", invoke: code(gateway.CodeIntegrationTimeout), status: 504, kind: "InternalServerErrorException", text: `{"message": "Endpoint request timed out"}`},
		{name: "route's timeout, told by nobody", path: "/fast", invoke: func(ctx context.Context, _ *gateway.Function, _ gateway.Invocation) (gateway.Result, error) {
			<-ctx.Done()
			return gateway.Result{}, ctx.Err()
		}, status: 504, kind: "InternalServerErrorException", text: `{"message": "Endpoint request timed out"}`},
		{name: "queue full", invoke: code(gateway.CodeThrottled), status: 429, kind: "TooManyRequestsException", text: `{"message":"Too Many Requests"}`},
		{name: "no worker", invoke: code(gateway.CodeUnavailable), status: 503, kind: "ServiceUnavailableException", text: `{"message":"Service Unavailable"}`, retryAfter: "1"},
		{name: "circuit open", invoke: failing(fmt.Errorf("invoke: %w", &gateway.Error{Code: gateway.CodeUnavailable, RetryAfter: 2100 * time.Millisecond})),
			status: 503, kind: "ServiceUnavailableException", text: `{"message":"Service Unavailable"}`, retryAfter: "3"},
		{name: "body too large", method: "POST", body: zeros(10485761), invoke: ok, status: 413, kind: "RequestTooLargeException", text: `HTTP content length exceeded 10485760 bytes.`, contentType: "text/plain"},
		{name: "chunked body too large", method: "POST", body: io.MultiReader(zeros(10485761)), invoke: ok, status: 413, kind: "RequestTooLargeException", text: `HTTP content length exceeded 10485760 bytes.`, contentType: "text/plain"},
		{name: "event too large", method: "POST", body: zeros(2 << 20), invoke: ok, status: 413, kind: "BadRequestException", text: `{"message": "Request Too Long"}`},
		{name: "body alone larger than an event", method: "POST", body: zeros(7 << 20), invoke: ok, status: 413, kind: "BadRequestException", text: `{"message": "Request Too Long"}`},
		{name: "headers too large", header: http.Header{"A": {strings.Repeat("x", 10240)}}, invoke: ok, status: 431, kind: "BadRequestException", text: `{"message":"Request Header Fields Too Large"}`},
		{name: "stranger's error", invoke: failing(errors.New("10.88.0.5")), status: 500, kind: "InternalServerErrorException", text: internal},
		{name: "panic", invoke: func(context.Context, *gateway.Function, gateway.Invocation) (gateway.Result, error) {
			panic("10.88.0.5")
		}, status: 500, kind: "InternalServerErrorException", text: internal},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b := mustOpen(t, tt.invoke)
			if tt.path == "" {
				tt.path = "/open"
			}
			got := b.do(tt.method, tt.path, tt.header, tt.body)
			assert.Equal(t, tt.status, got.status)
			assert.Equal(t, tt.text, got.body)
			assert.Equal(t, tt.kind, got.header.Get("x-amzn-ErrorType"))
			if tt.contentType == "" {
				tt.contentType = "application/json"
			}
			assert.Equal(t, tt.contentType, got.header.Get("Content-Type"))
			assert.Equal(t, tt.retryAfter, got.header.Get("Retry-After"))
			assertIDs(t, got)
		})
	}
}

// zeros is a body that is three times as large in JSON, which writes a zero as \u0000.
func zeros(n int) io.Reader { return bytes.NewReader(make([]byte, n)) }

func assertIDs(t *testing.T, got answer) {
	t.Helper()
	assert.Len(t, got.header.Values("x-amzn-RequestId"), 1)
	assert.Len(t, got.header.Get("x-amzn-RequestId"), 36)
	assert.Regexp(t, `^Root=1-[0-9a-f]{8}-[0-9a-f]{24};Parent=[0-9a-f]{16};Sampled=[01]$`, got.header.Get("X-Amzn-Trace-Id"))
}

func TestServer_Login(t *testing.T) {
	b := mustOpen(t, returning(`{}`))
	wrongPassword := strings.Replace(rightBody, "pass", "wrong", 1)
	tests := []struct {
		name       string
		key        []string
		body       string
		status     int
		authorized []string
		text       string
	}{
		{"no key", nil, rightBody, 401, nil, `{"message":"Unauthorized"}`},
		{"wrong key", []string{"Key"}, rightBody, 401, nil, `{"message":"Unauthorized"}`},
		{"wrong key and password", []string{"Key"}, wrongPassword, 401, nil, `{"message":"Unauthorized"}`},
		{"wrong password", []string{"key"}, wrongPassword, 401, []string{"true"}, `{"message":"Unauthorized"}`},
		{"malformed, right key", []string{"key"}, `{"AuthParameters":`, 400, nil, `{"message": "Invalid request body"}`},
		{"malformed, wrong key", []string{"Key"}, `{"AuthParameters":`, 400, nil, `{"message": "Invalid request body"}`},
		{"empty", []string{"key"}, ``, 400, nil, `{"message": "Invalid request body"}`},
		{"no password", []string{"key"}, `{"AuthParameters":{"USERNAME":"user"}}`, 400, nil, `{"message": "Invalid request body"}`},
		{"endless", []string{"key"}, `{"AuthParameters":"` + strings.Repeat("x", 70000) + `"}`, 400, nil, `{"message": "Invalid request body"}`},
		{"right", []string{"key"}, rightBody, 200, []string{"true"}, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := b.do("POST", loginPath, http.Header{"X-API-key": tt.key}, strings.NewReader(tt.body))
			assert.Equal(t, tt.status, got.status)
			assert.Equal(t, tt.authorized, got.header["Padma_user_authorized"])
			assertIDs(t, got)
			if tt.status != 200 {
				assert.Equal(t, tt.text, got.body)
				return
			}
			assert.Regexp(t, `^\{"AuthenticationResult":\{"IdToken":"[^"]+"\}\}\s*$`, got.body)
		})
	}
}

func TestServer_Login_HeaderNameIsSpeltAsDocumented(t *testing.T) {
	b := mustOpen(t, returning(`{}`))
	raw := b.raw("POST " + loginPath + " HTTP/1.1\r\nHost: a\r\nX-aPi-KEY: key\r\nContent-Length: " + strconv.Itoa(len(rightBody)) + "\r\nConnection: close\r\n\r\n" + rightBody)
	assert.Contains(t, raw, "\r\nPADMA_USER_AUTHORIZED: true\r\n")
}

// raw sends bytes and returns all that comes back.
func (b *box) raw(request string) string {
	b.t.Helper()
	conn, err := net.Dial("tcp", b.Addrs("http")[0].String())
	require.NoError(b.t, err)
	defer func() { _ = conn.Close() }()
	require.NoError(b.t, conn.SetDeadline(time.Now().Add(patience)))
	_, err = io.WriteString(conn, request)
	require.NoError(b.t, err)
	text, err := io.ReadAll(conn)
	require.NoError(b.t, err)
	return string(text)
}

func TestServer_FunctionGetsTheEvent(t *testing.T) {
	var got gateway.Invocation
	var e struct {
		Path, HTTPMethod, Body string
		Headers                map[string]string
		PathParameters         map[string]string
		RequestContext         struct {
			RequestID  string
			Identity   struct{ SourceIP string }
			Authorizer struct {
				Claims map[string]string
			}
		}
	}
	b := mustOpen(t, invokeFunc(func(_ context.Context, fn *gateway.Function, inv gateway.Invocation) (gateway.Result, error) {
		assert.Equal(t, "f", fn.Name)
		got = inv
		assert.NoError(t, json.Unmarshal(inv.Payload, &e))
		return gateway.Result{Payload: []byte(`{"statusCode":"201","headers":{"content-TYPE":"text/x","X-Amzn-RequestId":"mine"},"multiValueHeaders":{"Set-Cookie":["a","b"]},"body":"done"}`)}, nil
	}))
	trace := "Root=1-5e6722a7-cc56fd46db7ae02d4da47e11;Parent=53995c3f42cd8ad8;Sampled=1"
	answered := b.do("POST", "/jwt", http.Header{"Authorization": {"Bearer " + b.token()}, "X-Amzn-Trace-Id": {trace}, "X-Custom": {"1"}}, strings.NewReader(`hi`))

	assert.Equal(t, 201, answered.status)
	assert.Equal(t, "done", answered.body)
	assert.Equal(t, []string{"text/x"}, answered.header["Content-Type"], "one content type")
	assert.Equal(t, []string{"a", "b"}, answered.header["Set-Cookie"])
	assert.Equal(t, "mine", answered.header.Get("x-amzn-Remapped-x-amzn-RequestId"))
	assert.Equal(t, trace, answered.header.Get("X-Amzn-Trace-Id"))
	assertIDs(t, answered)

	id := answered.header.Get("x-amzn-RequestId")
	assert.Equal(t, id, got.RequestID)
	assert.Equal(t, trace, got.TraceID)
	assert.Equal(t, id, e.RequestContext.RequestID)
	assert.Equal(t, "/jwt", e.Path)
	assert.Equal(t, "POST", e.HTTPMethod)
	assert.Equal(t, "hi", e.Body)
	assert.Equal(t, "1", e.Headers["X-Custom"])
	assert.Equal(t, trace, e.Headers["X-Amzn-Trace-Id"])
	assert.Equal(t, "http", e.Headers["X-Forwarded-Proto"])
	_, port, _ := net.SplitHostPort(b.Addrs("http")[0].String())
	assert.Equal(t, port, e.Headers["X-Forwarded-Port"])
	assert.Equal(t, "127.0.0.1", e.RequestContext.Identity.SourceIP)
	assert.Equal(t, "user", e.RequestContext.Authorizer.Claims["cognito:username"])

	require.Eventually(t, func() bool { return strings.Count(b.log.String(), `"request_id":"`+id+`"`) == 1 }, patience, time.Millisecond)
	for line := range strings.Lines(b.log.String()) {
		if strings.Contains(line, id) {
			for _, part := range []string{`"function":"f"`, `"status":201`, `"trace_id":"` + trace, `"route":"/jwt"`, `"duration_ms":`} {
				assert.Contains(t, line, part)
			}
		}
	}
}

func TestServer_Methods(t *testing.T) {
	b := mustOpen(t, returning(`{"statusCode":200,"body":"text"}`))
	for _, method := range []string{"GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"} {
		got := b.do(method, "/open", nil, nil)
		assert.Equal(t, 200, got.status, method)
		assert.Equal(t, "text", got.body, method)
	}
	got := b.do("HEAD", "/open", nil, nil)
	assert.Equal(t, 200, got.status)
	assert.Equal(t, "4", got.header.Get("Content-Length"))
	assert.Empty(t, got.body)
	assertIDs(t, got)
}

func TestServer_StatusWithoutBody(t *testing.T) {
	for _, status := range []string{"204", "304"} {
		b := mustOpen(t, returning(`{"statusCode":`+status+`,"body":"must not appear"}`))
		raw := b.raw("GET /open HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
		assert.True(t, strings.HasPrefix(raw, "HTTP/1.1 "+status), raw)
		assert.True(t, strings.HasSuffix(raw, "\r\n\r\n"), raw)
	}
}

func TestServer_TargetIsTakenAsSent(t *testing.T) {
	var path string
	b := mustOpen(t, invokeFunc(func(_ context.Context, _ *gateway.Function, inv gateway.Invocation) (gateway.Result, error) {
		var e struct{ Path string }
		assert.NoError(t, json.Unmarshal(inv.Payload, &e))
		path = e.Path
		return gateway.Result{Payload: []byte(`{}`)}, nil
	}))
	for target, want := range map[string]string{
		"/open/a%2Fb//c/?x=/y":         "/open/a%2Fb//c/",
		"http://else.where/open/p%20q": "/open/p%20q",
		"/open/../open/x":              "/open/../open/x",
	} {
		raw := b.raw("GET " + target + " HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
		assert.True(t, strings.HasPrefix(raw, "HTTP/1.1 200 "), raw)
		assert.Equal(t, want, path)
	}
	for _, request := range []string{"OPTIONS * HTTP/1.1", "GET http://a HTTP/1.1", "CONNECT a:1 HTTP/1.1"} {
		raw := b.raw(request + "\r\nHost: a\r\nConnection: close\r\n\r\n")
		assert.True(t, strings.HasPrefix(raw, "HTTP/1.1 404 "), raw)
		assert.Contains(t, raw, "x-amzn-RequestId")
	}
}

func TestServer_BrokenBody_IsNotOurFault(t *testing.T) {
	b := mustOpen(t, returning(`{}`))
	raw := b.raw("POST /open HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\nxyz\r\n")
	assert.True(t, strings.HasPrefix(raw, "HTTP/1.1 400 "), raw)
	assert.Contains(t, raw, "x-amzn-RequestId")
}

func TestServer_Health(t *testing.T) {
	b := mustOpen(t, returning(`{}`))
	got := b.do("GET", "/health", nil, nil)
	assert.Equal(t, 200, got.status)
	assert.JSONEq(t, `{"status":"ok"}`, got.body)
	assertIDs(t, got)
}

func TestServer_ClientLeaves_InvocationIsCancelled(t *testing.T) {
	started, ended := make(chan struct{}), make(chan error, 1)
	b := mustOpen(t, invokeFunc(func(ctx context.Context, _ *gateway.Function, _ gateway.Invocation) (gateway.Result, error) {
		close(started)
		<-ctx.Done()
		ended <- context.Cause(ctx)
		return gateway.Result{}, gateway.Errorf(gateway.CodeCanceled, "left")
	}))
	ctx, cancel := context.WithCancel(context.Background())
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, b.url("http", "/open"), strings.NewReader("body"))
	require.NoError(t, err)
	go func() {
		<-started
		cancel()
	}()
	_, err = http.DefaultClient.Do(r)
	require.ErrorIs(t, err, context.Canceled)
	select {
	case err := <-ended:
		assert.ErrorIs(t, err, context.Canceled)
	case <-time.After(patience):
		t.Fatal("the invocation goes on without its client")
	}
	require.Eventually(t, func() bool { return strings.Contains(b.log.String(), `"status":499`) }, patience, time.Millisecond)
}

func TestServer_Use_TakesEffectAtOnce(t *testing.T) {
	b := mustOpen(t, returning(`{}`))
	assert.Equal(t, 404, b.do("GET", "/new", nil, nil).status)
	b.route(mustRoutes(t, gateway.Route{Path: "/new", Auth: gateway.AuthNone}), &gateway.API{}, response.Default())
	assert.Equal(t, 200, b.do("GET", "/new", nil, nil).status)
	assert.Equal(t, 404, b.do("GET", "/open", nil, nil).status)
}

// TestServer_RequestsDoNotShareMemory would fail, at the latest with -race, if a buffer went back too early.
func TestServer_RequestsDoNotShareMemory(t *testing.T) {
	b := mustOpen(t, invokeFunc(func(_ context.Context, _ *gateway.Function, inv gateway.Invocation) (gateway.Result, error) {
		var e struct{ Body string }
		if err := json.Unmarshal(inv.Payload, &e); err != nil {
			return gateway.Result{}, err
		}
		result, err := json.Marshal(map[string]any{"statusCode": 200, "body": e.Body})
		return gateway.Result{Payload: result}, err
	}))
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for j := range 25 {
				want := strings.Repeat(fmt.Sprintf("<%d.%d>", i, j), 1+(i*j)%500)
				resp, err := http.Post(b.url("http", "/open"), "text/plain", strings.NewReader(want))
				if !assert.NoError(t, err) {
					return
				}
				got, err := io.ReadAll(resp.Body)
				assert.NoError(t, errors.Join(err, resp.Body.Close()))
				assert.Equal(t, want, string(got))
			}
		})
	}
	wg.Wait()
}

func TestServer_Shutdown_FinishesRequestsInFlight(t *testing.T) {
	started, finish := make(chan struct{}), make(chan struct{})
	b := mustOpen(t, invokeFunc(func(context.Context, *gateway.Function, gateway.Invocation) (gateway.Result, error) {
		close(started)
		<-finish
		return gateway.Result{Payload: []byte(`{"body":"finished"}`)}, nil
	}))
	answered := make(chan answer, 1)
	go func() { answered <- b.do("GET", "/open", nil, nil) }()
	<-started
	stopped := make(chan error, 1)
	go func() { stopped <- b.Shutdown(context.Background()) }()
	require.Eventually(t, func() bool {
		conn, err := net.Dial("tcp", b.Addrs("http")[0].String())
		if err == nil {
			_ = conn.Close()
		}
		return err != nil
	}, patience, time.Millisecond, "new connections are refused")
	select {
	case err := <-stopped:
		t.Fatalf("stopped with a request in flight: %v", err)
	default:
	}
	close(finish)
	assert.Equal(t, "finished", (<-answered).body)
	assert.NoError(t, <-stopped)
}

func TestServer_Shutdown_BreaksWhatTakesTooLong(t *testing.T) {
	started := make(chan struct{})
	ended := false
	options, _ := mustOptions(t, invokeFunc(func(ctx context.Context, _ *gateway.Function, _ gateway.Invocation) (gateway.Result, error) {
		close(started)
		<-ctx.Done()
		ended = true
		return gateway.Result{}, ctx.Err()
	}))
	s, err := httpapi.Open(context.Background(), options)
	require.NoError(t, err)
	s.Use(&httpapi.Routing{Matcher: mustRoutes(t, gateway.Route{Path: "/open", Auth: gateway.AuthNone}), API: &gateway.API{}, Replies: response.Default(),
		Auth: &auth.Rules{Authenticator: options.Auth}})
	s.Serve()
	left := make(chan struct{})
	go func() {
		defer close(left)
		resp, err := http.Get("http://" + s.Addrs("http")[0].String() + "/open")
		if err == nil {
			_ = resp.Body.Close()
		}
	}()
	<-started
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	assert.ErrorContains(t, s.Shutdown(ctx), "requests in flight were broken")
	assert.True(t, ended, "Shutdown waits for the handler")
	<-left
}

func TestServer_HTTPS(t *testing.T) {
	certificate := httptest.NewTLSServer(http.NotFoundHandler())
	defer certificate.Close()
	b := mustOpen(t, invokeFunc(func(_ context.Context, _ *gateway.Function, inv gateway.Invocation) (gateway.Result, error) {
		return gateway.Result{Payload: append([]byte(`{"body":"`), append(bytes.ReplaceAll(bytes.ReplaceAll(inv.Payload, []byte(`\`), []byte(`\\`)), []byte(`"`), []byte(`\"`)), `"}`...)...)}, nil
	}), func(o *httpapi.Options) {
		o.HTTPSAddrs = []string{"127.0.0.1:0"}
		o.TLS = &tls.Config{Certificates: certificate.TLS.Certificates, MinVersion: tls.VersionTLS12}
	})
	for _, http2 := range []bool{false, true} {
		client := &http.Client{Transport: &http.Transport{ForceAttemptHTTP2: http2, TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}}
		defer client.CloseIdleConnections()
		r, err := http.NewRequest(http.MethodGet, b.url("https", "/open"), nil)
		require.NoError(t, err)
		got := b.send(client, r)
		assert.Equal(t, 200, got.status)
		assert.Contains(t, got.body, `"X-Forwarded-Proto":"https"`)
		assertIDs(t, got)
	}
}

func TestOpen_PortInUse_NamesTheSetting(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer func() { _ = taken.Close() }()
	options, _ := mustOptions(t, returning(`{}`))
	options.HTTPAddrs = []string{"127.0.0.1:0", taken.Addr().String()}
	_, err = httpapi.Open(context.Background(), options)
	assert.ErrorContains(t, err, "GATEWAY_HTTP_ADDR: "+taken.Addr().String()+" is in use")

	options, _ = mustOptions(t, returning(`{}`))
	options.HTTPAddrs = []string{"127.0.0.1:0", "no-such-host.invalid:1"}
	_, err = httpapi.Open(context.Background(), options)
	assert.ErrorContains(t, err, `GATEWAY_HTTP_ADDR: cannot listen on "no-such-host.invalid:1"`)
}

func TestOpen_AddressThatComesLater(t *testing.T) {
	for _, addr := range []string{"192.0.2.77:0", "[2001:db8::77]:0"} {
		options, _ := mustOptions(t, returning(`{}`))
		options.HTTPAddrs = []string{addr}
		s, err := httpapi.Open(context.Background(), options)
		if strings.Contains(fmt.Sprint(err), "address family not supported") {
			t.Skip("no IPv6 here")
		}
		require.NoError(t, err, "an address that no interface has yet can be bound")
		assert.NoError(t, s.Shutdown(context.Background()))
	}
}

func TestServer_Metrics(t *testing.T) {
	b := mustOpen(t, returning(`{}`))
	b.do("GET", "/open/x", nil, nil)
	b.do("GET", "/nowhere", nil, nil)
	require.Eventually(t, func() bool {
		text := b.metrics()
		return strings.Contains(text, `esb_requests_total{route="/open/{proxy+}",status="200"} 1`) &&
			strings.Contains(text, `esb_requests_total{route="",status="404"} 1`) &&
			strings.Contains(text, `esb_request_duration_seconds_count{route="/open/{proxy+}"} 1`) &&
			strings.Contains(text, `esb_requests_in_flight 0`)
	}, patience, 10*time.Millisecond)
}

// BenchmarkServer_WarmRequest is the front's own share of a request: everything but the invocation.
func BenchmarkServer_WarmRequest(b *testing.B) {
	box := mustOpen(b, returning(`{"statusCode":200,"body":"{\"success\":true}"}`), func(o *httpapi.Options) {
		o.Logger = slog.New(slog.DiscardHandler)
		o.AccessLog = io.Discard
	})
	token := box.token()
	benchmarkRequest(b, box, "POST /jwt HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer "+token+benchmarkRest, http.StatusOK)
}

// benchmarkRest is what the requests of benchmarks have in common.
const benchmarkRest = "\r\nContent-Type: application/json\r\nUser-Agent: bench\r\nContent-Length: 17\r\n\r\n{\"message\":\"hey\"}"

// benchmarkRequest asks one thing again and again on one connection.
func benchmarkRequest(b *testing.B, box *box, text string, status int) {
	conn, err := net.Dial("tcp", box.Addrs("http")[0].String())
	require.NoError(b, err)
	defer func() { _ = conn.Close() }()
	request, in := []byte(text), bufio.NewReader(conn)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := conn.Write(request); err != nil {
			b.Fatal(err)
		}
		resp, err := http.ReadResponse(in, nil)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := io.Copy(io.Discard, resp.Body); err != nil || resp.StatusCode != status {
			b.Fatal(resp.StatusCode, err)
		}
		_ = resp.Body.Close()
	}
}

// TestServer_GatewayResponses_AreOfTheAPI: what routing.yml says changes the answers of the API, not those of the login.
func TestServer_GatewayResponses_AreOfTheAPI(t *testing.T) {
	b := mustOpen(t, returning(`"wrong shape"`))
	body := `{"m":$context.error.messageString,"p":"$context.path","r":"$context.resourcePath"}`
	api := &gateway.API{Stage: "dev", StageInURL: true, Responses: gateway.Responses{
		Set: gateway.ResponsesAWSREST,
		Custom: map[string]gateway.Response{
			"DEFAULT_4XX": {Status: 418, Body: &body, Header: []gateway.ResponseHeader{{Name: "RETRY-AFTER", Value: "7"}}},
			"DEFAULT_5XX": {Body: &body},
		},
	}}
	replies, err := response.New(api.Responses)
	require.NoError(t, err)
	b.route(mustRoutes(t, gateway.Route{Path: "/a", Auth: gateway.AuthNone}, gateway.Route{Path: "/key", Auth: gateway.AuthAPIKey}), api, replies)

	got := b.do("GET", "/dev/nowhere", nil, nil)
	assert.Equal(t, 418, got.status)
	assert.JSONEq(t, `{"m":"Missing Authentication Token","p":"/dev/nowhere","r":""}`, got.body)
	assert.Equal(t, "MissingAuthenticationTokenException", got.header.Get("x-amzn-ErrorType"))
	assert.Equal(t, []string{"7"}, got.header.Values("Retry-After"))
	got = b.do("GET", "/dev/a", nil, nil)
	assert.Equal(t, 502, got.status)
	assert.JSONEq(t, `{"m":"Internal server error","p":"/dev/a","r":"/a"}`, got.body)
	assert.Equal(t, 418, b.do("GET", "/a", nil, nil).status, "the URL has no stage")
	assert.Equal(t, 418, b.do("GET", "/devil/a", nil, nil).status, "another word with the stage at its beginning")
	assert.Equal(t, 418, b.do("GET", "/dev/key", nil, nil).status)

	got = b.do("POST", loginPath, nil, strings.NewReader(`{"AuthParameters":{"USERNAME":"user","PASSWORD":"pass"}}`))
	assert.Equal(t, 401, got.status)
	assert.Equal(t, `{"message":"Unauthorized"}`, got.body)
	assert.Empty(t, got.header.Get("Retry-After"))
}
