package httpapi_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/edge-serverless-box/esb/gateway"
	"github.com/edge-serverless-box/esb/gateway/event"
	"github.com/edge-serverless-box/esb/gateway/httpapi"
	"github.com/edge-serverless-box/esb/gateway/response"
	"github.com/edge-serverless-box/esb/gateway/throttle"
)

type authorizeFunc func(ctx context.Context, r *event.Request) (*gateway.Caller, error)

func (f authorizeFunc) Authorize(ctx context.Context, r *event.Request) (*gateway.Caller, error) {
	return f(ctx, r)
}

// guard uses routes and access, after what was used before.
func (b *box) guard(access gateway.Access, routes ...gateway.Route) {
	b.t.Helper()
	rules, err := b.options.Auth.Compile(access)
	require.NoError(b.t, err)
	b.limits = throttle.Compile(access, routes, b.limits)
	b.Use(&httpapi.Routing{
		Matcher: mustRoutes(b.t, routes...), API: &gateway.API{}, Replies: response.Default(),
		CORS: access.CORS, Throttle: access.Throttle, Limits: b.limits, Auth: rules, Authorizers: b.authorizers,
	})
}

func TestServer_Throttle(t *testing.T) {
	b := mustOpen(t, returning(`{"statusCode":200}`))
	slow := &gateway.Throttle{ID: "slow", Rate: 1.0 / 60, Burst: 2}
	routes := []gateway.Route{
		{Path: "/slow", Auth: gateway.AuthAPIKey, Throttle: slow},
		{Path: "/free", Auth: gateway.AuthNone},
	}
	b.guard(gateway.Access{}, routes...)
	key := http.Header{"X-Api-Key": {"key"}}
	assert.Equal(t, 200, b.do("GET", "/slow", key, nil).status)
	assert.Equal(t, 403, b.do("GET", "/slow", nil, nil).status, "who is turned away counts too: a throttle stands before authentication")
	got := b.do("GET", "/slow", key, nil)
	assert.Equal(t, 429, got.status)
	assert.Equal(t, `{"message":"Too Many Requests"}`, got.body)
	assert.Equal(t, "TooManyRequestsException", got.header.Get("x-amzn-ErrorType"))
	assert.Regexp(t, `^[1-6]?[0-9]$`, got.header.Get("Retry-After"))
	for range 5 {
		assert.Equal(t, 200, b.do("GET", "/free", nil, nil).status)
	}
	b.guard(gateway.Access{}, routes...)
	assert.Equal(t, 429, b.do("GET", "/slow", key, nil).status, "a reload does not fill the bucket")

	b.guard(gateway.Access{Throttle: &gateway.Throttle{ID: "api", Rate: 1.0 / 60, Burst: 1}}, gateway.Route{Path: "/a", Auth: gateway.AuthNone}, gateway.Route{Path: "/b", Auth: gateway.AuthNone})
	assert.Equal(t, 200, b.do("GET", "/a", nil, nil).status)
	assert.Equal(t, 429, b.do("GET", "/b", nil, nil).status, "all routes together")
	assert.Equal(t, 200, b.do("GET", "/health", nil, nil).status, "but not the gateway's own endpoints")
}

func TestServer_CORS(t *testing.T) {
	b := mustOpen(t, returning(`{"statusCode":201,"headers":{"access-control-allow-origin":"https://evil","Access-Control-Allow-Credentials":"true","Vary":"Accept"},"body":"x"}`))
	rules := &gateway.CORS{AllowOrigins: []string{"https://shop.example"}, AllowMethods: []string{"GET", "PUT"}, AllowHeaders: []string{"X-A"}, ExposeHeaders: []string{"X-B"}, MaxAge: time.Minute}
	all := &gateway.CORS{AllowOrigins: []string{"*"}, AllowMethods: []string{"POST"}, AllowHeaders: []string{"X-Api-Key"}, MaxAge: -1}
	b.guard(gateway.Access{CORS: all},
		gateway.Route{Path: "/open", Methods: []string{"GET"}, Auth: gateway.AuthNone, CORS: rules},
		gateway.Route{Path: "/closed", Auth: gateway.AuthJWT, CORS: rules},
		gateway.Route{Path: "/own", Auth: gateway.AuthNone},
		gateway.Route{Path: "/explicit", Methods: []string{"PUT"}, Auth: gateway.AuthNone, CORS: rules},
		gateway.Route{Path: "/explicit", Methods: []string{"OPTIONS"}, Auth: gateway.AuthNone},
		gateway.Route{Path: "/throttled", Auth: gateway.AuthNone, CORS: rules, Throttle: &gateway.Throttle{ID: "t", Rate: 0.001, Burst: 1}},
	)
	const origin, none = "https://shop.example", "<none>"
	for _, c := range []struct {
		name, method, path, origin, preflight string
		status                                int
		allow, methods, vary                  string
	}{
		{"preflight", "OPTIONS", "/open", origin, "GET", 204, origin, "GET,PUT", "Origin"},
		{"preflight of a route that asks for a token", "OPTIONS", "/closed", origin, "PUT", 204, origin, "GET,PUT", "Origin"},
		{"preflight from elsewhere", "OPTIONS", "/open", "https://evil", "GET", 204, none, none, "Origin"},
		{"preflight of a path without a route", "OPTIONS", "/nowhere", origin, "POST", 204, "*", "POST", none},
		{"preflight of a method without a route", "OPTIONS", "/open", origin, "DELETE", 204, "*", "POST", none},
		{"preflight of the login", "OPTIONS", loginPath, origin, "POST", 204, "*", "POST", none},
		{"a route without rules gets the preflight", "OPTIONS", "/own", origin, "PUT", 201, "https://evil", none, "Accept"},
		{"so does one that lists OPTIONS", "OPTIONS", "/explicit", origin, "PUT", 201, "https://evil", none, "Accept"},
		{"OPTIONS without an origin is no preflight", "OPTIONS", "/closed", "", "", 401, none, none, "Origin"},
		{"function's answer", "GET", "/open", origin, "", 201, origin, none, "Accept, Origin"},
		{"function's answer to elsewhere", "GET", "/open", "https://evil", "", 201, none, none, "Accept, Origin"},
		{"function's answer without origin", "GET", "/open", "", "", 201, none, none, "Accept, Origin"},
		{"no token", "GET", "/closed", origin, "", 401, origin, none, "Origin"},
		{"no route", "GET", "/nowhere", origin, "", 404, "*", none, none},
		{"login refused", "POST", loginPath, origin, "", 400, "*", none, none},
		{"first", "GET", "/throttled", origin, "", 201, origin, none, "Accept, Origin"},
		{"throttled", "GET", "/throttled", origin, "", 429, origin, none, "Origin"},
		{"a preflight is not throttled", "OPTIONS", "/throttled", origin, "GET", 204, origin, "GET,PUT", "Origin"},
	} {
		t.Run(c.name, func(t *testing.T) {
			header := http.Header{}
			if c.origin != "" {
				header.Set("Origin", c.origin)
			}
			if c.preflight != "" {
				header.Set("Access-Control-Request-Method", c.preflight)
			}
			got := b.do(c.method, c.path, header, nil)
			assert.Equal(t, c.status, got.status)
			value := func(name string) string {
				if v := got.header.Values(name); len(v) > 0 {
					return strings.Join(v, ", ")
				}
				return none
			}
			assert.Equal(t, c.allow, value("Access-Control-Allow-Origin"))
			assert.Equal(t, c.methods, value("Access-Control-Allow-Methods"))
			assert.Equal(t, c.vary, value("Vary"))
			if c.status == 204 {
				assert.Empty(t, got.body)
				if c.allow == origin {
					assert.Equal(t, "X-A", value("Access-Control-Allow-Headers"))
					assert.Equal(t, "60", value("Access-Control-Max-Age"))
				}
			}
			assertIDs(t, got)
		})
	}
	got := b.do("GET", "/open", http.Header{"Origin": {origin}}, nil)
	assert.Empty(t, got.header.Get("Access-Control-Allow-Credentials"), "what the function says about CORS does not count")
	assert.Equal(t, "X-B", got.header.Get("Access-Control-Expose-Headers"))
}

func TestServer_CORS_OfAStream(t *testing.T) {
	b := mustOpen(t, returning(`hello`))
	b.guard(gateway.Access{}, gateway.Route{Path: "/s", Auth: gateway.AuthNone, Stream: true, CORS: &gateway.CORS{AllowOrigins: []string{"*"}}})
	got := b.do("GET", "/s", http.Header{"Origin": {"https://a.b"}}, nil)
	assert.Equal(t, 200, got.status)
	assert.Equal(t, "hello", got.body)
	assert.Equal(t, "*", got.header.Get("Access-Control-Allow-Origin"))
}

func TestServer_Authorizer(t *testing.T) {
	var seen string
	echo := invokeFunc(func(_ context.Context, _ *gateway.Function, inv gateway.Invocation) (gateway.Result, error) {
		seen = string(inv.Payload)
		return gateway.Result{Payload: []byte(`{"statusCode":200}`)}, nil
	})
	var answer error
	b := mustOpen(t, echo)
	b.authorizers = authorizeFunc(func(_ context.Context, r *event.Request) (*gateway.Caller, error) {
		if answer != nil {
			return nil, answer
		}
		return &gateway.Caller{
			Kind: gateway.AuthFunction, Principal: "me", APIKey: "the-key-of-the-partner", AuthorizerLatency: 7 * time.Millisecond,
			Context: []gateway.ContextValue{{Name: "level", Text: "3", JSON: "3"}, {Name: "principalId", Text: "other", JSON: `"other"`}},
		}, nil
	})
	spec := &gateway.Authorizer{Name: "a"}
	b.guard(gateway.Access{APIKeys: []gateway.APIKey{{Name: "partner", Value: "the-key-of-the-partner"}}},
		gateway.Route{Path: "/rest", Auth: gateway.AuthFunction, Authorizer: spec},
		gateway.Route{Path: "/http", Auth: gateway.AuthFunction, Authorizer: spec, Payload: gateway.PayloadV2},
	)
	require.Equal(t, 200, b.do("GET", "/rest", nil, nil).status)
	var v1 struct {
		RequestContext struct {
			Authorizer map[string]any
			Identity   map[string]any
		}
	}
	require.NoError(t, json.Unmarshal([]byte(seen), &v1), seen)
	assert.Equal(t, map[string]any{"principalId": "me", "integrationLatency": 7.0, "level": "3"}, v1.RequestContext.Authorizer)
	assert.Equal(t, "the-key-of-the-partner", v1.RequestContext.Identity["apiKey"])
	assert.Equal(t, "partner", v1.RequestContext.Identity["apiKeyId"])
	require.Equal(t, 200, b.do("GET", "/http", nil, nil).status)
	var v2 struct {
		RequestContext struct{ Authorizer map[string]any }
	}
	require.NoError(t, json.Unmarshal([]byte(seen), &v2), seen)
	assert.Equal(t, map[string]any{"lambda": map[string]any{"level": 3.0, "principalId": "other"}}, v2.RequestContext.Authorizer)

	for _, c := range []struct {
		code       gateway.Code
		status     int
		kind, body string
	}{
		{gateway.CodeUnauthorized, 401, "UnauthorizedException", `{"message":"Unauthorized"}`},
		{gateway.CodeExplicitDeny, 403, "AccessDeniedException", `{"Message":"User is not authorized to access this resource with an explicit deny"}`},
		{gateway.CodeAccessDenied, 403, "AccessDeniedException", `{"Message":"User is not authorized to access this resource"}`},
		{gateway.CodeAuthorizerFailure, 500, "AuthorizerFailureException", `{"message":null}`},
		{gateway.CodeAuthorizerConfiguration, 500, "AuthorizerConfigurationException", `{"message":null}`},
	} {
		answer = gateway.Errorf(c.code, "secret")
		got := b.do("GET", "/rest", nil, nil)
		assert.Equal(t, c.status, got.status)
		assert.Equal(t, c.kind, got.header.Get("x-amzn-ErrorType"))
		assert.Equal(t, c.body, got.body)
	}
}

func TestServer_Authorizer_TakesOfTheRoutesTime(t *testing.T) {
	b := mustOpen(t, invokeFunc(func(ctx context.Context, _ *gateway.Function, _ gateway.Invocation) (gateway.Result, error) {
		deadline, ok := ctx.Deadline()
		assert.True(t, ok)
		assert.Less(t, time.Until(deadline), 29*time.Second-20*time.Millisecond)
		return gateway.Result{Payload: []byte(`{"statusCode":200}`)}, nil
	}))
	b.authorizers = authorizeFunc(func(ctx context.Context, r *event.Request) (*gateway.Caller, error) {
		if r.Route.Path == "/hangs" {
			<-ctx.Done()
			return nil, ctx.Err()
		}
		time.Sleep(20 * time.Millisecond)
		return &gateway.Caller{Kind: gateway.AuthFunction}, nil
	})
	spec := &gateway.Authorizer{Name: "a"}
	b.guard(gateway.Access{}, gateway.Route{Path: "/a", Auth: gateway.AuthFunction, Authorizer: spec},
		gateway.Route{Path: "/hangs", Auth: gateway.AuthFunction, Authorizer: spec, Timeout: 50 * time.Millisecond})
	assert.Equal(t, 200, b.do("GET", "/a", nil, nil).status)
	assert.Equal(t, 504, b.do("GET", "/hangs", nil, nil).status)
}

func TestServer_Challenge_IsOfHTTPAPIs(t *testing.T) {
	b := mustOpen(t, returning(`{"statusCode":200}`))
	b.guard(gateway.Access{}, gateway.Route{Path: "/rest", Auth: gateway.AuthJWT}, gateway.Route{Path: "/http", Auth: gateway.AuthJWT, Payload: gateway.PayloadV2})
	bad := http.Header{"Authorization": {"Bearer a.b.c"}}
	got := b.do("GET", "/http", bad, nil)
	assert.Equal(t, 401, got.status)
	assert.Regexp(t, `^Bearer scope="" error="invalid_token" error_description="[a-z ]+"$`, got.header.Get("Www-Authenticate"))
	assert.Equal(t, `{"message":"Unauthorized"}`, got.body)
	assert.Equal(t, "Bearer", b.do("GET", "/http", nil, nil).header.Get("Www-Authenticate"))
	assert.Empty(t, b.do("GET", "/rest", bad, nil).header.Get("Www-Authenticate"))
}

// A request that began before a reload is answered by the configuration of before, to its end.
func TestServer_Use_AmidARequest_LeavesItItsConfiguration(t *testing.T) {
	var seen string
	b := mustOpen(t, invokeFunc(func(_ context.Context, _ *gateway.Function, inv gateway.Invocation) (gateway.Result, error) {
		seen = string(inv.Payload)
		return gateway.Result{Payload: []byte(`"wrong shape"`)}, nil
	}))
	rules, err := b.options.Auth.Compile(gateway.Access{APIKeys: []gateway.APIKey{{Name: "old", Value: "the-key-of-the-partner"}}})
	require.NoError(t, err)
	status := func(code int) (*gateway.API, *response.Set) {
		api := &gateway.API{Stage: fmt.Sprint("stage-", code), Responses: gateway.Responses{Custom: map[string]gateway.Response{"DEFAULT_5XX": {Status: code}}}}
		replies, err := response.New(api.Responses)
		require.NoError(t, err)
		return api, replies
	}
	api, replies := status(590)
	b.Use(&httpapi.Routing{
		Matcher: mustRoutes(t, gateway.Route{Path: "/a", Auth: gateway.AuthFunction, Authorizer: &gateway.Authorizer{Name: "a"}}), API: api, Replies: replies, Auth: rules,
		Authorizers: authorizeFunc(func(context.Context, *event.Request) (*gateway.Caller, error) {
			api, replies := status(591)
			b.route(mustRoutes(t, gateway.Route{Path: "/b", Auth: gateway.AuthNone}), api, replies)
			return &gateway.Caller{Kind: gateway.AuthFunction, APIKey: "the-key-of-the-partner"}, nil
		}),
	})
	assert.Equal(t, 590, b.do("GET", "/a", nil, nil).status)
	assert.Contains(t, seen, `"apiKeyId":"old"`)
	assert.Contains(t, seen, `"stage":"stage-590"`)
	assert.Equal(t, 591, b.do("GET", "/b", nil, nil).status)
}

type admitFunc func(fn *gateway.Function) error

func (f admitFunc) Admit(fn *gateway.Function) error { return f(fn) }

func TestServer_WhatCannotBeServed_IsRefusedBeforeAnyWork(t *testing.T) {
	full := true
	b := mustOpen(t, returning(`{"statusCode":200}`), func(o *httpapi.Options) {
		o.Admission = admitFunc(func(fn *gateway.Function) error {
			if full {
				return gateway.Errorf(gateway.CodeThrottled, "function %s: no place", fn.Name)
			}
			return nil
		})
	})
	b.authorizers = authorizeFunc(func(context.Context, *event.Request) (*gateway.Caller, error) {
		assert.False(t, full, "an authorizer is asked in vain")
		return &gateway.Caller{}, nil
	})
	b.guard(gateway.Access{}, gateway.Route{Path: "/open", Auth: gateway.AuthNone}, gateway.Route{Path: "/asked", Auth: gateway.AuthFunction})
	c, err := net.Dial("tcp", b.Addrs("http")[0].String())
	require.NoError(t, err)
	defer c.Close()
	// The answer comes although the body never does.
	_, err = io.WriteString(c, "POST /open HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n")
	require.NoError(t, err)
	require.NoError(t, c.SetReadDeadline(time.Now().Add(patience)))
	got, err := http.ReadResponse(bufio.NewReader(c), nil)
	require.NoError(t, err)
	body, err := io.ReadAll(got.Body)
	require.NoError(t, err)
	assert.Equal(t, 429, got.StatusCode)
	assert.Equal(t, `{"message":"Too Many Requests"}`, string(body))
	assert.Equal(t, 429, b.do("GET", "/asked", nil, nil).status)
	assert.Equal(t, 404, b.do("GET", "/nowhere", nil, nil).status)
	full = false
	assert.Equal(t, 200, b.do("GET", "/open", nil, nil).status)
	assert.Equal(t, 200, b.do("GET", "/asked", nil, nil).status)
}

func BenchmarkServer_RefusedRequest(b *testing.B) {
	box := mustOpen(b, returning(`{"statusCode":200}`), func(o *httpapi.Options) {
		o.Logger, o.AccessLog = slog.New(slog.DiscardHandler), io.Discard
		o.Admission = admitFunc(func(fn *gateway.Function) error {
			return gateway.Errorf(gateway.CodeThrottled, "function %s: no place", fn.Name)
		})
	})
	box.guard(gateway.Access{}, gateway.Route{Path: "/open", Auth: gateway.AuthNone})
	benchmarkRequest(b, box, "POST /open HTTP/1.1\r\nHost: localhost"+benchmarkRest, http.StatusTooManyRequests)
}
