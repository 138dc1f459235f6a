package httpapi_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/edge-serverless-box/esb/gateway"
	"github.com/edge-serverless-box/esb/gateway/httpapi"
	"github.com/edge-serverless-box/esb/gateway/lambdaapi"
	"github.com/edge-serverless-box/esb/gateway/response"
	"github.com/edge-serverless-box/esb/sigv4"
)

// TestServer_Slashes: slashes before the stage vanish, those behind it do not keep a request from its route and stand in
// requestContext.path alone (recorded: rest-event-slash-before-stage, -after-stage and -hardcoded of public test suites;
// localstack/localstack issue 11253).
func TestServer_Slashes(t *testing.T) {
	var got struct {
		Resource, Path string
		RawPath        string
		PathParameters map[string]string
		RequestContext struct{ Path string }
	}
	b := mustOpen(t, invokeFunc(func(_ context.Context, _ *gateway.Function, inv gateway.Invocation) (gateway.Result, error) {
		assert.NoError(t, json.Unmarshal(inv.Payload, &got))
		return gateway.Result{Payload: []byte(`{"statusCode":200}`)}, nil
	}))
	routes := []gateway.Route{
		{Path: "/hardcoded", Auth: gateway.AuthNone},
		{Path: "/{proxy+}", Auth: gateway.AuthNone},
		{Path: "/v2/{proxy+}", Auth: gateway.AuthNone, Payload: gateway.PayloadV2},
	}
	for _, c := range []struct {
		stageInURL                         bool
		sent                               string
		resource, path, proxy, contextPath string
	}{
		{true, "/dev/x", "/{proxy+}", "/x", "x", "/dev/x"},
		{true, "//dev/x", "/{proxy+}", "/x", "x", "/dev/x"},
		{true, "/dev//x", "/{proxy+}", "/x", "x", "/dev//x"},
		{true, "//dev///x", "/{proxy+}", "/x", "x", "/dev///x"},
		{true, "/dev//hardcoded", "/hardcoded", "/hardcoded", "", "/dev//hardcoded"},
		{true, "/dev//x//y/", "/{proxy+}", "/x//y/", "x//y", "/dev//x//y/"},
		{false, "/x", "/{proxy+}", "/x", "x", "/dev/x"},
		{false, "//x", "/{proxy+}", "/x", "x", "/dev//x"},
		{false, "//hardcoded", "/hardcoded", "/hardcoded", "", "/dev//hardcoded"},
		{false, "//health", "/{proxy+}", "/health", "health", "/dev//health"},
	} {
		api := &gateway.API{Stage: "dev", StageInURL: c.stageInURL}
		b.route(mustRoutes(t, routes...), api, response.Default())
		got.PathParameters = nil
		raw := b.raw("GET " + c.sent + " HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
		require.True(t, strings.HasPrefix(raw, "HTTP/1.1 200 "), "%s: %s", c.sent, raw)
		assert.Equal(t, c.resource, got.Resource, c.sent)
		assert.Equal(t, c.path, got.Path, c.sent)
		assert.Equal(t, c.proxy, got.PathParameters["proxy"], c.sent)
		assert.Equal(t, c.contextPath, got.RequestContext.Path, c.sent)
	}
	b.raw("GET //v2/x HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
	assert.Equal(t, "/dev//v2/x", got.RawPath)
}

// TestServer_PathThatCannotBeDecoded: HTTP APIs refuse it, as they refuse what AWS's second decoding cannot read (400 for "%25":
// hotsock/voker, examples/aws-ingress-probe/paths.py). REST APIs decode nothing.
func TestServer_PathThatCannotBeDecoded(t *testing.T) {
	called := false
	b := mustOpen(t, invokeFunc(func(context.Context, *gateway.Function, gateway.Invocation) (gateway.Result, error) {
		called = true
		return gateway.Result{Payload: []byte(`{"statusCode":200}`)}, nil
	}))
	b.route(mustRoutes(t,
		gateway.Route{Path: "/rest/{id}", Auth: gateway.AuthNone},
		gateway.Route{Path: "/v2/{id}", Auth: gateway.AuthJWT, Payload: gateway.PayloadV2},
		gateway.Route{Path: "/http1/{id}", Auth: gateway.AuthNone, API: gateway.APITypeHTTP},
	), &gateway.API{}, response.Default())
	for _, path := range []string{"/v2/caf%E9", "/http1/caf%E9"} {
		got := b.do("GET", path, nil, nil)
		assert.Equal(t, 400, got.status)
		assert.Equal(t, `{"message":"Bad Request"}`, got.body)
		assert.NotEmpty(t, got.header.Get("apigw-requestid"))
	}
	assert.False(t, called)
	assert.Equal(t, 200, b.do("GET", "/rest/caf%E9", nil, nil).status)
}

// TestServer_HeaderNames_OverHTTP2: the protocol has lower case only, and REST events show it.
func TestServer_HeaderNames_OverHTTP2(t *testing.T) {
	var mu sync.Mutex
	var headers map[string]string
	b := mustOpen(t, invokeFunc(func(_ context.Context, _ *gateway.Function, inv gateway.Invocation) (gateway.Result, error) {
		var e struct{ Headers map[string]string }
		assert.NoError(t, json.Unmarshal(inv.Payload, &e))
		mu.Lock()
		defer mu.Unlock()
		headers = e.Headers
		return gateway.Result{Payload: []byte(`{"statusCode":200}`)}, nil
	}), withTLS(t))
	r, err := http.NewRequest(http.MethodGet, b.url("https", "/open"), nil)
	require.NoError(t, err)
	r.Header.Set("X-Custom-Id", "1")
	r.Header.Set("Origin", "https://shop.example")
	transport := &http.Transport{ForceAttemptHTTP2: true, TLSClientConfig: &tls.Config{InsecureSkipVerify: true}} //nolint:gosec // a test
	defer transport.CloseIdleConnections()
	assert.Equal(t, 200, b.send(&http.Client{Transport: transport}, r).status)
	mu.Lock()
	defer mu.Unlock()
	assert.Equal(t, "1", headers["x-custom-id"], headers)
	assert.Equal(t, "https://shop.example", headers["origin"])
	assert.NotContains(t, headers, "X-Custom-Id")
	assert.Contains(t, headers, "User-Agent")
	assert.Contains(t, headers, "X-Forwarded-For")
}

// TestServer_BufferOfAFailedInvocation_IsNotUsedAgain: an invocation that has failed may still read its event.
func TestServer_BufferOfAFailedInvocation_IsNotUsedAgain(t *testing.T) {
	var mu sync.Mutex
	var kept, copied [][]byte
	b := mustOpen(t, invokeFunc(func(_ context.Context, _ *gateway.Function, inv gateway.Invocation) (gateway.Result, error) {
		mu.Lock()
		defer mu.Unlock()
		kept, copied = append(kept, inv.Payload), append(copied, bytes.Clone(inv.Payload))
		return gateway.Result{}, gateway.Errorf(gateway.CodeTransport, "it broke off, and somebody still reads the event")
	}))
	for i := range 20 {
		assert.Equal(t, 502, b.do("POST", "/open", nil, strings.NewReader(strings.Repeat(string(rune('a'+i)), 100))).status)
	}
	mu.Lock()
	defer mu.Unlock()
	for i := range kept {
		assert.Equal(t, string(copied[i]), string(kept[i]), "the event of request %d was written over", i)
	}
}

// TestServer_RequestsOfAWSClients_GetToNoRoute: what is signed for a service of AWS, or below a path of Lambda's API, is no call of a
// function, whatever the routes take.
func TestServer_RequestsOfAWSClients_GetToNoRoute(t *testing.T) {
	called := 0
	key := sigv4.Credentials{AccessKeyID: "AKID", SecretAccessKey: "secret"}
	b := mustOpen(t, invokeFunc(func(context.Context, *gateway.Function, gateway.Invocation) (gateway.Result, error) {
		called++
		return gateway.Result{Payload: []byte(`{"statusCode":200}`)}, nil
	}), func(o *httpapi.Options) {
		o.Lambda = lambdaapi.New(lambdaapi.Options{AccessKeys: map[string]string{key.AccessKeyID: key.SecretAccessKey}})
	})
	b.route(mustRoutes(t, gateway.Route{Path: gateway.DefaultRoute, Auth: gateway.AuthNone}, gateway.Route{Path: "/{proxy+}", Auth: gateway.AuthNone}),
		&gateway.API{}, response.Default())
	for _, c := range []struct {
		service, method, path, contentType string
		status                             int
		says                               string
	}{
		{"lambda", "GET", "/2015-03-31/functions/", "", 404, "The box has of Lambda's API"},
		{"lambda", "GET", "//2015-03-31/functions/", "", 404, "The box has of Lambda's API"},
		{"lambda", "GET", "/2018-10-31/layers", "", 404, "The box has of Lambda's API"},
		{"lambda", "PUT", "/2021-10-31/functions/f/url", "", 404, "The box has of Lambda's API"},
		{"", "GET", "/2025-12-01/durable-executions/x", "", 404, "The box has of Lambda's API"},
		{"sts", "POST", "/", "application/x-www-form-urlencoded", 400, "<Code>InvalidAction</Code>"},
		{"s3", "GET", "/bucket/key", "", 501, "<Code>NotImplemented</Code>"},
		{"scheduler", "GET", "/schedules", "", 404, "does not have the service scheduler"},
	} {
		r, err := http.NewRequest(c.method, b.url("http", c.path), nil)
		require.NoError(t, err)
		if c.contentType != "" {
			r.Header.Set("Content-Type", c.contentType)
		}
		if c.service != "" {
			sigv4.Sign(r, key, "us-east-1", c.service, sigv4.HashPayload(nil), time.Now())
		}
		got := b.send(http.DefaultClient, r)
		assert.Equal(t, c.status, got.status, c.path)
		assert.Contains(t, got.body, c.says, c.path)
		assert.NotEmpty(t, got.header.Get("x-amzn-RequestId"), c.path)
		assert.Empty(t, got.header.Get("x-amz-apigw-id"), c.path)
	}
	assert.Zero(t, called)
	for _, service := range []string{"execute-api", "my-own-service"} {
		r, err := http.NewRequest(http.MethodGet, b.url("http", "/x"), nil)
		require.NoError(t, err)
		sigv4.Sign(r, key, "us-east-1", service, sigv4.HashPayload(nil), time.Now())
		assert.Equal(t, 200, b.send(http.DefaultClient, r).status, service)
	}
	assert.Equal(t, 2, called, "what a route may be meant for comes to it")
}
