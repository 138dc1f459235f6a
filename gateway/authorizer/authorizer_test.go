package authorizer_test

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"net/url"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/edge-serverless-box/esb/gateway"
	"github.com/edge-serverless-box/esb/gateway/authorizer"
	"github.com/edge-serverless-box/esb/gateway/event"
)

const patience = 60 * time.Second

type invokeFunc func(ctx context.Context, fn *gateway.Function, inv gateway.Invocation) (gateway.Result, error)

func (f invokeFunc) Invoke(ctx context.Context, fn *gateway.Function, inv gateway.Invocation) (gateway.Result, error) {
	return f(ctx, fn, inv)
}

const (
	allowAll = `{"principalId":"me","context":{"tenant":"t1","level":3},"policyDocument":{"Statement":[{"Effect":"Allow","Action":"execute-api:Invoke","Resource":"*"}]}}`
	onlyGet  = `{"principalId":"me","policyDocument":{"Statement":[{"Effect":"Allow","Action":"execute-api:Invoke","Resource":"*/GET/*"}]}}`
	denyAll  = `{"principalId":"me","policyDocument":{"Statement":[{"Effect":"Deny","Action":"execute-api:Invoke","Resource":"*"}]}}`
)

// bench is the authorizers of one route, and what they were given.
type bench struct {
	*authorizer.Set
	route *gateway.Route
	now   atomic.Pointer[time.Time]

	mu     sync.Mutex
	events []string
	calls  []gateway.Invocation
}

func mustOpen(t *testing.T, spec gateway.Authorizer, payload gateway.PayloadVersion, invoke invokeFunc) *bench {
	t.Helper()
	spec.Function = &gateway.Function{Name: "guard"}
	if spec.Name == "" {
		spec.Name = "test"
	}
	if spec.Type == "" {
		spec.Type = gateway.AuthorizerRequest
	}
	if spec.Payload == "" {
		spec.Payload = gateway.PayloadV1
	}
	b := &bench{route: &gateway.Route{Path: "/users/{id}", Auth: gateway.AuthFunction, Authorizer: &spec, Payload: payload}}
	b.tick(time.Unix(1000, 0))
	authorizers := authorizer.New(authorizer.Options{
		Invoker: invokeFunc(func(ctx context.Context, fn *gateway.Function, inv gateway.Invocation) (gateway.Result, error) {
			b.mu.Lock()
			b.events, b.calls = append(b.events, string(inv.Payload)), append(b.calls, inv)
			b.mu.Unlock()
			return invoke(ctx, fn, inv)
		}),
		Events: event.NewBuilder("123456789012"), Region: "eu-west-1", Logger: slog.Default(),
		Now: func() time.Time { return *b.now.Load() },
	})
	t.Cleanup(authorizers.Close)
	var err error
	b.Set, err = authorizers.Compile([]gateway.Route{*b.route}, nil)
	require.NoError(t, err)
	return b
}

// reload compiles the route again, after the Set that there is.
func (b *bench) reload(t *testing.T) {
	t.Helper()
	var err error
	b.Set, err = b.Compile([]gateway.Route{*b.route}, b.Set)
	require.NoError(t, err)
}

func (b *bench) tick(now time.Time) { b.now.Store(&now) }

func (b *bench) called() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.calls)
}

func (b *bench) request(method string, header http.Header) *event.Request {
	return &event.Request{
		HTTP: &http.Request{Method: method, Proto: "HTTP/1.1", Host: "box.example", Header: header, URL: &url.URL{}},
		Path: "/users/7/", Query: "a=1&b=&a=2", Body: []byte("secret"), Route: b.route, PathParameters: map[string]string{"id": "7"},
		RequestID: "request", TraceID: "Root=1-2-3;Parent=4;Sampled=0", SourceIP: "192.0.2.1", Scheme: "https", Port: "443", Time: time.Unix(0, 0),
	}
}

func answering(payload string) invokeFunc {
	return func(context.Context, *gateway.Function, gateway.Invocation) (gateway.Result, error) {
		return gateway.Result{Payload: []byte(payload)}, nil
	}
}

var (
	byAuthorization = []gateway.IdentitySource{{Kind: gateway.IdentityHeader, Name: "Authorization"}}
	token           = http.Header{"Authorization": {"let-me-in"}}
)

func TestAuthorize_Events(t *testing.T) {
	two := []gateway.IdentitySource{{Kind: gateway.IdentityHeader, Name: "Authorization"}, {Kind: gateway.IdentityQuery, Name: "a"}}
	const arnV1 = "arn:aws:execute-api:eu-west-1:123456789012:esbedgebox/prod/GET/users/7"
	const arnV2 = "arn:aws:execute-api:eu-west-1:123456789012:esbedgebox/$default/GET/users/7"
	for _, c := range []struct {
		name    string
		spec    gateway.Authorizer
		payload gateway.PayloadVersion
		want    map[string]any
		absent  []string
	}{
		{"token", gateway.Authorizer{Type: gateway.AuthorizerToken, Identity: byAuthorization}, gateway.PayloadV1,
			map[string]any{"type": "TOKEN", "authorizationToken": "let-me-in", "methodArn": arnV1}, []string{"headers", "requestContext", "body"}},
		{"request 1.0 of a REST API", gateway.Authorizer{Identity: two}, gateway.PayloadV1, map[string]any{
			"type": "REQUEST", "methodArn": arnV1, "resource": "/users/{id}", "path": "/users/7/", "httpMethod": "GET",
			"pathParameters": map[string]any{"id": "7"}, "stageVariables": map[string]any{},
			"queryStringParameters":           map[string]any{"a": "2", "b": ""},
			"multiValueQueryStringParameters": map[string]any{"a": []any{"1", "2"}, "b": []any{""}},
		}, []string{"version", "identitySource", "authorizationToken", "body", "isBase64Encoded"}},
		{"request 1.0 of an HTTP API", gateway.Authorizer{Identity: two}, gateway.PayloadV2, map[string]any{
			"version": "1.0", "type": "REQUEST", "methodArn": arnV2, "identitySource": "let-me-in,1,2", "authorizationToken": "let-me-in,1,2",
		}, []string{"routeArn", "body"}},
		{"request 2.0", gateway.Authorizer{Identity: two, Payload: gateway.PayloadV2}, gateway.PayloadV2, map[string]any{
			"version": "2.0", "type": "REQUEST", "routeArn": arnV2, "identitySource": []any{"let-me-in", "1,2"}, "routeKey": "ANY /users/{id}",
			"rawPath": "/users/7/", "rawQueryString": "a=1&b=&a=2", "queryStringParameters": map[string]any{"a": "1,2", "b": ""},
			"pathParameters": map[string]any{"id": "7"},
		}, []string{"methodArn", "body", "isBase64Encoded"}},
		{"request 2.0 without identity", gateway.Authorizer{Payload: gateway.PayloadV2}, gateway.PayloadV2, map[string]any{"identitySource": nil}, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := mustOpen(t, c.spec, c.payload, answering(allowAll))
			_, err := b.Authorize(context.Background(), b.request("GET", token))
			require.NoError(t, err)
			var got map[string]any
			require.NoError(t, json.Unmarshal([]byte(b.events[0]), &got), b.events[0])
			for name, want := range c.want {
				assert.Equal(t, want, got[name], name)
			}
			for _, name := range c.absent {
				assert.NotContains(t, got, name)
			}
			assert.NoError(t, uuid.Validate(b.calls[0].RequestID), "a request id of its own")
			assert.Equal(t, "Root=1-2-3;Parent=4;Sampled=0", b.calls[0].TraceID, "the same trace")
		})
	}
}

func TestAuthorize_Outcomes(t *testing.T) {
	function := func(payload string) invokeFunc {
		return func(context.Context, *gateway.Function, gateway.Invocation) (gateway.Result, error) {
			return gateway.Result{FunctionError: "Unhandled", Payload: []byte(payload)}, nil
		}
	}
	failing := func(code gateway.Code) invokeFunc {
		return func(context.Context, *gateway.Function, gateway.Invocation) (gateway.Result, error) {
			return gateway.Result{}, gateway.Errorf(code, "test")
		}
	}
	simple := gateway.Authorizer{Payload: gateway.PayloadV2, Simple: true}
	for _, c := range []struct {
		name    string
		spec    gateway.Authorizer
		payload gateway.PayloadVersion
		invoke  invokeFunc
		want    gateway.Code
	}{
		{"allowed", gateway.Authorizer{}, gateway.PayloadV1, answering(allowAll), ""},
		{"denied", gateway.Authorizer{}, gateway.PayloadV1, answering(denyAll), gateway.CodeExplicitDeny},
		{"not allowed", gateway.Authorizer{}, gateway.PayloadV1, answering(`{"principalId":"me","policyDocument":{"Statement":{"Effect":"Allow","Action":"a:b","Resource":"*"}}}`), gateway.CodeAccessDenied},
		{"denied, HTTP API", gateway.Authorizer{}, gateway.PayloadV2, answering(denyAll), gateway.CodeForbidden},
		{"simple", simple, gateway.PayloadV2, answering(`{"isAuthorized":true}`), ""},
		{"simple, denied", simple, gateway.PayloadV2, answering(`{"isAuthorized":false}`), gateway.CodeForbidden},
		{"Unauthorized", gateway.Authorizer{}, gateway.PayloadV1, function(`{"errorMessage":"Unauthorized","errorType":"Error"}`), gateway.CodeUnauthorized},
		{"nearly Unauthorized", gateway.Authorizer{}, gateway.PayloadV1, function(`{"errorMessage":"Unauthorized!"}`), gateway.CodeAuthorizerFailure},
		{"failed", gateway.Authorizer{}, gateway.PayloadV1, function(`{"errorMessage":"boom"}`), gateway.CodeAuthorizerFailure},
		{"timed out", gateway.Authorizer{}, gateway.PayloadV1, func(context.Context, *gateway.Function, gateway.Invocation) (gateway.Result, error) {
			return gateway.Result{TimedOut: true, FunctionError: "Unhandled", Payload: []byte(`{"errorMessage":"Unauthorized"}`)}, nil
		}, gateway.CodeAuthorizerFailure},
		{"bad answer", gateway.Authorizer{}, gateway.PayloadV1, answering(`{"isAuthorized":true}`), gateway.CodeAuthorizerConfiguration},
		{"no answer", gateway.Authorizer{}, gateway.PayloadV1, answering(`null`), gateway.CodeAuthorizerConfiguration},
		{"broken worker", gateway.Authorizer{}, gateway.PayloadV1, failing(gateway.CodeTransport), gateway.CodeAuthorizerFailure},
		{"event too large", gateway.Authorizer{}, gateway.PayloadV1, failing(gateway.CodeTooLarge), gateway.CodeAuthorizerFailure},
		{"no worker", gateway.Authorizer{}, gateway.PayloadV1, failing(gateway.CodeUnavailable), gateway.CodeUnavailable},
		{"queue full", gateway.Authorizer{}, gateway.PayloadV1, failing(gateway.CodeThrottled), gateway.CodeThrottled},
	} {
		for _, ttl := range []time.Duration{0, time.Minute} {
			t.Run(c.name+" "+ttl.String(), func(t *testing.T) {
				c.spec.Cache, c.spec.Identity = ttl, byAuthorization
				b := mustOpen(t, c.spec, c.payload, c.invoke)
				caller, err := b.Authorize(context.Background(), b.request("GET", token))
				assert.Equal(t, c.want, gateway.ErrorCode(err))
				assert.Equal(t, c.want == "", caller != nil)
			})
		}
	}
}

func TestAuthorize_WithoutIdentity_IsNotAsked(t *testing.T) {
	spec := gateway.Authorizer{Identity: []gateway.IdentitySource{{Kind: gateway.IdentityHeader, Name: "Authorization"}, {Kind: gateway.IdentityQuery, Name: "key"}}}
	b := mustOpen(t, spec, gateway.PayloadV1, answering(allowAll))
	for _, header := range []http.Header{{}, {"Authorization": {""}}, token} {
		_, err := b.Authorize(context.Background(), b.request("GET", header))
		assert.Equal(t, gateway.CodeUnauthorized, gateway.ErrorCode(err))
	}
	assert.Zero(t, b.called())

	b = mustOpen(t, gateway.Authorizer{Type: gateway.AuthorizerToken, Identity: byAuthorization, Validation: "^Bearer "}, gateway.PayloadV1, answering(allowAll))
	_, err := b.Authorize(context.Background(), b.request("GET", token))
	assert.Equal(t, gateway.CodeUnauthorized, gateway.ErrorCode(err), "not of the form")
	assert.Zero(t, b.called())
	_, err = b.Authorize(context.Background(), b.request("GET", http.Header{"Authorization": {"Bearer x"}}))
	require.NoError(t, err)
}

func TestAuthorize_Cache(t *testing.T) {
	b := mustOpen(t, gateway.Authorizer{Cache: time.Minute, Identity: byAuthorization}, gateway.PayloadV1, answering(onlyGet))
	ask := func(method, token string) gateway.Code {
		_, err := b.Authorize(context.Background(), b.request(method, http.Header{"Authorization": {token}}))
		return gateway.ErrorCode(err)
	}
	assert.Empty(t, ask("GET", "a"))
	assert.Empty(t, ask("GET", "a"))
	assert.Equal(t, gateway.CodeAccessDenied, ask("POST", "a"), "a cached policy is looked at again for each request")
	assert.Equal(t, 1, b.called())
	assert.Empty(t, ask("GET", "b"))
	assert.Equal(t, 2, b.called(), "another identity")
	b.tick(time.Unix(1059, 0))
	assert.Empty(t, ask("GET", "a"))
	assert.Equal(t, 2, b.called())

	again := *b.route.Authorizer
	b.route.Authorizer = &again
	b.reload(t)
	assert.Empty(t, ask("GET", "a"))
	assert.Equal(t, 2, b.called(), "a reload without a change keeps the answers")

	b.tick(time.Unix(1060, 0))
	assert.Empty(t, ask("GET", "a"))
	assert.Equal(t, 3, b.called(), "its time has passed")

	changed := again
	changed.Function = &gateway.Function{Name: "guard", Generation: "new"}
	b.route.Authorizer = &changed
	b.reload(t)
	assert.Empty(t, ask("GET", "a"))
	assert.Equal(t, 4, b.called(), "another function is asked again")
}

func TestAuthorize_ErrorsAreNotCached(t *testing.T) {
	b := mustOpen(t, gateway.Authorizer{Cache: time.Minute, Identity: byAuthorization}, gateway.PayloadV1, answering(`{}`))
	for want := 1; want <= 2; want++ {
		_, err := b.Authorize(context.Background(), b.request("GET", token))
		assert.Equal(t, gateway.CodeAuthorizerConfiguration, gateway.ErrorCode(err))
		assert.Equal(t, want, b.called())
	}
}

func TestAuthorize_Latency_IsTheCallsOnly(t *testing.T) {
	b := mustOpen(t, gateway.Authorizer{Cache: time.Minute, Identity: byAuthorization}, gateway.PayloadV1,
		func(context.Context, *gateway.Function, gateway.Invocation) (gateway.Result, error) {
			time.Sleep(2 * time.Millisecond)
			return gateway.Result{Payload: []byte(allowAll)}, nil
		})
	first, err := b.Authorize(context.Background(), b.request("GET", token))
	require.NoError(t, err)
	assert.GreaterOrEqual(t, first.AuthorizerLatency, 2*time.Millisecond)
	second, err := b.Authorize(context.Background(), b.request("GET", token))
	require.NoError(t, err)
	assert.Zero(t, second.AuthorizerLatency)
	assert.Equal(t, []gateway.ContextValue{{Name: "level", Text: "3", JSON: "3"}, {Name: "tenant", Text: "t1", JSON: `"t1"`}}, second.Context)
}

func TestAuthorize_ManyAtOnce_ShareOneCall(t *testing.T) {
	release := make(chan struct{})
	b := mustOpen(t, gateway.Authorizer{Cache: time.Minute, Identity: byAuthorization}, gateway.PayloadV1,
		func(ctx context.Context, _ *gateway.Function, _ gateway.Invocation) (gateway.Result, error) {
			select {
			case <-release:
				return gateway.Result{Payload: []byte(allowAll)}, nil
			case <-ctx.Done():
				return gateway.Result{}, gateway.Errorf(gateway.CodeCanceled, "%w", ctx.Err())
			}
		})
	const many = 20
	errs := make(chan error, many)
	// The first one leaves; the others still get the answer.
	leaving, leave := context.WithCancel(context.Background())
	left := make(chan error)
	go func() {
		_, err := b.Authorize(leaving, b.request("GET", token))
		left <- err
	}()
	require.Eventually(t, func() bool { return b.called() == 1 }, patience, time.Millisecond)
	for range many {
		go func() {
			_, err := b.Authorize(context.Background(), b.request("GET", token))
			errs <- err
		}()
	}
	require.Eventually(t, func() bool { return b.Waiting() == many+1 }, patience, time.Millisecond)
	leave()
	assert.Equal(t, gateway.CodeCanceled, gateway.ErrorCode(<-left))
	close(release)
	for range many {
		require.NoError(t, <-errs)
	}
	assert.Equal(t, 1, b.called())
}

func TestAuthorize_AllLeave_EndsTheCall(t *testing.T) {
	ended := make(chan error, 1)
	b := mustOpen(t, gateway.Authorizer{Cache: time.Minute, Identity: byAuthorization}, gateway.PayloadV1,
		func(ctx context.Context, _ *gateway.Function, _ gateway.Invocation) (gateway.Result, error) {
			<-ctx.Done()
			ended <- ctx.Err()
			return gateway.Result{}, ctx.Err()
		})
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Millisecond)
	defer cancel()
	_, err := b.Authorize(ctx, b.request("GET", token))
	assert.Equal(t, gateway.CodeIntegrationTimeout, gateway.ErrorCode(err))
	select {
	case err := <-ended:
		assert.True(t, errors.Is(err, context.Canceled))
	case <-time.After(patience):
		t.Fatal("the call did not end")
	}
}

// TestAuthorize_AskedAfterAllHaveLeft_MakesACallOfItsOwn: the call that was ended for those who left may take its time to end.
func TestAuthorize_AskedAfterAllHaveLeft_MakesACallOfItsOwn(t *testing.T) {
	release := make(chan struct{})
	var calls atomic.Int32
	b := mustOpen(t, gateway.Authorizer{Cache: time.Minute, Identity: byAuthorization}, gateway.PayloadV1,
		func(ctx context.Context, fn *gateway.Function, inv gateway.Invocation) (gateway.Result, error) {
			if calls.Add(1) > 1 {
				return answering(allowAll)(ctx, fn, inv)
			}
			<-ctx.Done()
			<-release
			return gateway.Result{}, ctx.Err()
		})
	defer close(release)
	ctx, cancel := context.WithCancel(context.Background())
	left := make(chan error, 1)
	go func() {
		_, err := b.Authorize(ctx, b.request("GET", token))
		left <- err
	}()
	require.Eventually(t, func() bool { return calls.Load() == 1 }, patience, time.Millisecond)
	cancel()
	assert.Equal(t, gateway.CodeCanceled, gateway.ErrorCode(<-left))
	next, stop := context.WithTimeout(context.Background(), patience)
	defer stop()
	_, err := b.Authorize(next, b.request("GET", token))
	require.NoError(t, err)
	assert.EqualValues(t, 2, calls.Load())
}

func TestAuthorize_Panic_IsAnError(t *testing.T) {
	b := mustOpen(t, gateway.Authorizer{Cache: time.Minute, Identity: byAuthorization}, gateway.PayloadV1,
		func(context.Context, *gateway.Function, gateway.Invocation) (gateway.Result, error) { panic("test") })
	_, err := b.Authorize(context.Background(), b.request("GET", token))
	assert.Equal(t, gateway.CodeInternal, gateway.ErrorCode(err))
}

func BenchmarkAuthorize_Cached(b *testing.B) {
	spec := &gateway.Authorizer{Name: "bench", Function: &gateway.Function{Name: "guard"}, Type: gateway.AuthorizerRequest,
		Payload: gateway.PayloadV1, Cache: time.Minute, Identity: byAuthorization}
	a := authorizer.New(authorizer.Options{Invoker: answering(allowAll), Events: event.NewBuilder("123456789012"), Region: "us-east-1", Logger: slog.Default()})
	defer a.Close()
	bench := &bench{route: &gateway.Route{Path: "/users/{id}", Auth: gateway.AuthFunction, Authorizer: spec}}
	set, err := a.Compile([]gateway.Route{*bench.route}, nil)
	require.NoError(b, err)
	r := bench.request("GET", token)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := set.Authorize(context.Background(), r); err != nil {
			b.Fatal(err)
		}
	}
}
