package lambdaapi_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws/protocol/eventstream"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/edge-serverless-box/esb/api/reason"
	"github.com/edge-serverless-box/esb/gateway"
	"github.com/edge-serverless-box/esb/gateway/lambdaapi"
	"github.com/edge-serverless-box/esb/sigv4"
	"github.com/edge-serverless-box/esb/sigv4/functionkeys"
)

const (
	accessKey = "AKIDTEST"
	secretKey = "a-secret-of-the-test"
	account   = "123456789012"
	arn       = "arn:aws:lambda:us-east-1:" + account + ":function:"
)

// fake is invoker, streamer and queue at once: it answers with result, or err, and keeps what it got.
type fake struct {
	result gateway.Result
	err    error
	// pieces are what streams have before result.
	pieces []string
	// wait holds an invocation until its client has left.
	wait bool

	function string
	inv      gateway.Invocation
	queued   bool
}

func (f *fake) Invoke(ctx context.Context, fn *gateway.Function, inv gateway.Invocation) (gateway.Result, error) {
	f.function, f.inv = fn.Name, inv
	f.inv.Payload = bytes.Clone(inv.Payload)
	if f.wait {
		<-ctx.Done()
		return gateway.Result{}, errors.New("broken off")
	}
	return f.result, f.err
}

func (f *fake) InvokeStream(ctx context.Context, fn *gateway.Function, inv gateway.Invocation, w gateway.StreamWriter) (gateway.Result, error) {
	f.function, f.inv = fn.Name, inv
	if len(f.pieces) > 0 {
		if err := w.Begin("text/plain"); err != nil {
			return gateway.Result{}, err
		}
	}
	for _, p := range f.pieces {
		if _, err := w.Write([]byte(p)); err != nil {
			return gateway.Result{}, err
		}
	}
	return f.result, f.err
}

func (f *fake) Enqueue(_ context.Context, fn *gateway.Function, inv gateway.Invocation) error {
	f.function, f.inv, f.queued = fn.Name, inv, true
	return f.err
}

func mustKeys(t testing.TB) *functionkeys.Keys {
	t.Helper()
	keys, err := functionkeys.New(bytes.Repeat([]byte("m"), 32))
	require.NoError(t, err)
	return keys
}

func newAPI(t testing.TB, f *fake) *lambdaapi.API {
	t.Helper()
	a := lambdaapi.New(lambdaapi.Options{
		Invoker: f, Streamer: f, Queue: f, AccessKeys: map[string]string{accessKey: secretKey}, FunctionKeys: mustKeys(t),
		Region: "us-east-1", Account: account,
	})
	a.SetFunctions(map[string]*gateway.Function{
		"echo":   {Name: "echo"},
		"other":  {Name: "other"},
		"caller": {Name: "caller", Invoke: []string{"echo"}},
	})
	return a
}

// request is one to the API, signed by the configured key unless sign says otherwise.
type request struct {
	method, path, body string
	header             map[string]string
	sign               func(r *http.Request)
	// lineage is what the trace header has besides its three parts.
	lineage string
}

func by(c sigv4.Credentials, at time.Time) func(*http.Request) {
	return func(r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		r.Body = io.NopCloser(bytes.NewReader(body))
		sigv4.Sign(r, c, "us-east-1", "lambda", sigv4.HashPayload(body), at)
	}
}

func do(t *testing.T, a *lambdaapi.API, q request) (*httptest.ResponseRecorder, lambdaapi.Outcome) {
	t.Helper()
	if q.method == "" {
		q.method = http.MethodPost
	}
	r := httptest.NewRequestWithContext(t.Context(), q.method, q.path, strings.NewReader(q.body))
	for name, value := range q.header {
		r.Header.Set(name, value)
	}
	if q.sign == nil {
		q.sign = by(sigv4.Credentials{AccessKeyID: accessKey, SecretAccessKey: secretKey}, time.Now())
	}
	q.sign(r)
	w := httptest.NewRecorder()
	path, _, _ := strings.Cut(r.RequestURI, "?")
	require.True(t, lambdaapi.Owns(path), path)
	out := a.Serve(lambdaapi.Call{W: w, R: r, Path: path, RequestID: "id-1", TraceID: "Root=1;Parent=2;Sampled=0" + q.lineage})
	assert.Equal(t, w.Code, out.Status)
	assert.Equal(t, w.Body.Len(), out.BytesOut)
	return w, out
}

// What SDKs pass on of the trace header counts how often a chain of invocations has come to a function.
func TestInvoke_RecursiveLoop_IsRefusedAfter16(t *testing.T) {
	for name, path := range map[string]string{"invoke": "/2015-03-31/functions/echo/invocations", "stream": "/2021-11-15/functions/echo/response-streaming-invocations"} {
		t.Run(name, func(t *testing.T) {
			f := &fake{}
			a := newAPI(t, f)
			a.SetFunctions(map[string]*gateway.Function{"echo": {Name: "echo"}, "other": {Name: "other", AllowLoops: true}})
			q := request{path: path}
			for n := range 16 {
				w, _ := do(t, a, q)
				require.Equal(t, http.StatusOK, w.Code, "run %d: %s", n+1, w.Body)
				q.lineage = strings.TrimPrefix(f.inv.TraceID, "Root=1;Parent=2;Sampled=0")
				require.NotEmpty(t, q.lineage)
			}
			f.function = ""
			w, out := do(t, a, q)
			assert.Equal(t, http.StatusBadRequest, w.Code)
			assert.Equal(t, "RecursiveInvocationException", w.Header().Get("X-Amzn-Errortype"))
			assert.JSONEq(t, `{"Type":"User","Message":"Lambda has detected your function being invoked in a recursive loop with other Amazon Web Services resources and stopped your function's invocation."}`, w.Body.String())
			assert.Error(t, out.Err)
			assert.Empty(t, f.function, "it is not run")
			// An event is taken: the queue sees to it.
			q.header = map[string]string{"X-Amz-Invocation-Type": "Event"}
			if name == "invoke" {
				w, _ = do(t, a, q)
				assert.Equal(t, http.StatusAccepted, w.Code)
				assert.Contains(t, f.inv.TraceID, q.lineage)
			}
			q.header = nil
			q.path = strings.Replace(path, "echo", "other", 1)
			q.lineage = ""
			for range 40 {
				w, _ := do(t, a, q)
				require.Equal(t, http.StatusOK, w.Code)
				q.lineage = strings.TrimPrefix(f.inv.TraceID, "Root=1;Parent=2;Sampled=0")
			}
		})
	}
}

func TestOwns_PathsOfTheAPIAlone(t *testing.T) {
	for path, want := range map[string]bool{
		"/2015-03-31/functions/f/invocations":                    true,
		"/2014-11-13/functions/f/invoke-async/":                  true,
		"/2021-11-15/functions/f/response-streaming-invocations": true,
		// Operations that are not here.
		"/2015-03-31/functions/":                            true,
		"/2015-03-31/event-source-mappings/":                true,
		"/2016-08-19/account-settings/":                     true,
		"/2017-03-31/tags/arn":                              true,
		"/2017-10-31/functions/f/concurrency":               true,
		"/2018-10-31/layers?find=LayerVersion":              true,
		"/2019-09-25/functions/f/event-invoke-config":       true,
		"/2019-09-30/functions/f/provisioned-concurrency":   true,
		"/2020-04-22/code-signing-configs/":                 true,
		"/2020-06-30/functions/f/code-signing-config":       true,
		"/2021-07-20/functions/f/runtime-management-config": true,
		"/2021-10-31/functions/f/url":                       true,
		"/2024-08-31/functions/f/recursion-config":          true,
		"/2025-11-30/capacity-providers":                    true,
		"/2025-12-01/durable-executions/arn/checkpoint":     true,
		"/2026-07-09/resource-policy/arn":                   true,
		"/2015-03-31/function/f/invocations":                true,
		"/2015-03-31/":                                      true,
		"/2015-03-31":                                       false,
		"/2015-04-01/functions/f/invocations":               false,
		"/2015-03-311/functions":                            false,
		"/news/2015-03-31/x":                                false,
		"/api/echo/which/has/a/very/long/path":              false,
		"/":                                                 false,
		"":                                                  false,
	} {
		assert.Equal(t, want, lambdaapi.Owns(path), path)
	}
}

func TestInvoke_RequestResponse_AnswersWithTheResult(t *testing.T) {
	f := &fake{result: gateway.Result{Payload: []byte(`{"a":1}`), InitDuration: time.Second}}
	context := base64.StdEncoding.EncodeToString([]byte(`{"custom":{"a":"b"}}`))
	w, out := do(t, newAPI(t, f), request{path: "/2015-03-31/functions/echo/invocations", body: `[1]`, header: map[string]string{"X-Amz-Client-Context": context, "Content-Type": "application/octet-stream"}})
	assert.Equal(t, 200, w.Code)
	assert.Equal(t, `{"a":1}`, w.Body.String())
	assert.Equal(t, http.Header{
		"Content-Type": {"application/json"}, "Content-Length": {"7"}, "X-Amz-Executed-Version": {"$LATEST"},
	}, w.Header())
	assert.Equal(t, gateway.Invocation{RequestID: "id-1", TraceID: "Root=1;Parent=2;Sampled=0;Lineage=1:d49dd484:0", ClientContext: context, Payload: []byte("[1]")}, f.inv)
	assert.Equal(t, lambdaapi.Outcome{Operation: "lambda:Invoke", Function: "echo", Status: 200, BytesIn: 3, BytesOut: 7, InitDuration: time.Second}, out)
}

func TestInvoke_NoPayload_IsAnEmptyObject(t *testing.T) {
	f := &fake{}
	w, _ := do(t, newAPI(t, f), request{path: "/2015-03-31/functions/echo/invocations"})
	assert.Equal(t, 200, w.Code)
	assert.Equal(t, "{}", string(f.inv.Payload))
}

func TestInvoke_FunctionFails_Is200WithTheErrorAndTheLog(t *testing.T) {
	f := &fake{result: gateway.Result{Payload: []byte(`{"errorMessage":"x"}`), FunctionError: "Unhandled", LogTail: "bG9n"}}
	w, out := do(t, newAPI(t, f), request{path: "/2015-03-31/functions/echo/invocations", header: map[string]string{"X-Amz-Log-Type": "Tail"}})
	assert.Equal(t, 200, w.Code)
	assert.Equal(t, "Unhandled", w.Header().Get("X-Amz-Function-Error"))
	assert.Equal(t, "bG9n", w.Header().Get("X-Amz-Log-Result"))
	assert.JSONEq(t, `{"errorMessage":"x"}`, w.Body.String())
	assert.True(t, f.inv.LogTail)
	assert.Equal(t, gateway.CodeFunction, gateway.ErrorCode(out.Err))
}

func TestInvoke_Names_AsAWSHasThem(t *testing.T) {
	for _, c := range []struct {
		name, query string
		status      int
		kind        string
	}{
		{"echo", "", 200, ""},
		{"echo", "?Qualifier=$LATEST", 200, ""},
		{"echo", "?Qualifier=%24LATEST", 200, ""},
		{"echo:$LATEST", "", 200, ""},
		{"echo%3A%24LATEST", "?Qualifier=$LATEST", 200, ""},
		{"function:echo", "", 200, ""},
		{account + ":function:echo", "", 200, ""},
		{account + "%3Afunction%3Aecho%3A$LATEST", "", 200, ""},
		{arn + "echo", "", 200, ""},
		{strings.ReplaceAll(arn+"echo:$LATEST", ":", "%3A"), "", 200, ""},
		{"us-east-1:" + account + ":function:echo", "", 200, ""},
		{"echo", "?Qualifier=1", 404, "ResourceNotFoundException"},
		{"echo:prod", "", 404, "ResourceNotFoundException"},
		{"nobody", "", 404, "ResourceNotFoundException"},
		{"echo.x", "", 404, "ResourceNotFoundException"},
		{strings.Replace(arn, "us-east-1", "eu-west-1", 1) + "echo", "", 404, "ResourceNotFoundException"},
		{strings.Replace(arn, account, "999999999999", 1) + "echo", "", 403, "AccessDeniedException"},
		{"999999999999:function:echo", "", 403, "AccessDeniedException"},
		{"echo:prod", "?Qualifier=$LATEST", 400, "InvalidParameterValueException"},
		{"echo", "?Qualifier=a%20b", 400, "ValidationException"},
		{"echo%20x", "", 400, "ValidationException"},
		{"arn:aws:s3:us-east-1:" + account + ":function:echo", "", 400, "ValidationException"},
		{strings.Repeat("x", 300), "", 400, "ValidationException"},
	} {
		f := &fake{}
		w, _ := do(t, newAPI(t, f), request{path: "/2015-03-31/functions/" + c.name + "/invocations" + c.query})
		assert.Equal(t, c.status, w.Code, "%s%s: %s", c.name, c.query, w.Body)
		assert.Equal(t, c.kind, w.Header().Get("X-Amzn-Errortype"), "%s%s", c.name, c.query)
		if c.status == 200 {
			assert.Equal(t, "echo", f.function)
			qualifier := ""
			if strings.Contains(c.name+c.query, "LATEST") {
				qualifier = "$LATEST"
			}
			assert.Equal(t, qualifier, f.inv.Qualifier, "%s%s", c.name, c.query)
		} else {
			assert.Empty(t, f.function)
		}
	}
}

func TestInvoke_Refusals_HaveAWSsShape(t *testing.T) {
	const path = "/2015-03-31/functions/echo/invocations"
	header := func(kv ...string) map[string]string { return map[string]string{kv[0]: kv[1]} }
	context := func(text string) map[string]string {
		return header("X-Amz-Client-Context", base64.StdEncoding.EncodeToString([]byte(text)))
	}
	for name, c := range map[string]struct {
		request
		status int
		kind   string
		body   string
	}{
		"not found": {request{path: "/2015-03-31/functions/nobody/invocations"}, 404, "ResourceNotFoundException",
			`{"Type":"User","Message":"Function not found: ` + arn + `nobody:$LATEST"}`},
		"not found, qualified": {request{path: path + "?Qualifier=7"}, 404, "ResourceNotFoundException",
			`{"Type":"User","Message":"Function not found: ` + arn + `echo:7"}`},
		"another region": {request{path: "/2015-03-31/functions/arn:aws:lambda:eu-west-1:" + account + ":function:echo/invocations"}, 404, "ResourceNotFoundException",
			`{"Type":"User","Message":"Functions from 'eu-west-1' are not reachable in this region ('us-east-1')"}`},
		"two qualifiers": {request{path: "/2015-03-31/functions/echo:1/invocations?Qualifier=2"}, 400, "InvalidParameterValueException",
			`{"Type":"User","message":"The derived qualifier from the function name does not match the specified qualifier."}`},
		"type": {request{path: path, header: header("X-Amz-Invocation-Type", "Async")}, 400, "ValidationException",
			`{"message":"1 validation error detected: Value 'Async' at 'invocationType' failed to satisfy constraint: Member must satisfy enum value set: [Event, RequestResponse, DryRun]"}`},
		"log type": {request{path: path, header: header("X-Amz-Log-Type", "All")}, 400, "ValidationException",
			`{"message":"1 validation error detected: Value 'All' at 'logType' failed to satisfy constraint: Member must satisfy enum value set: [None, Tail]"}`},
		"all that is wrong in one answer": {request{path: "/2015-03-31/functions/no+body/invocations?Qualifier=" + strings.Repeat("q", 129) + "%21", header: map[string]string{"X-Amz-Invocation-Type": "Async", "X-Amz-Log-Type": "All"}}, 400, "ValidationException",
			`{"message":"5 validation errors detected: Value 'no+body' at 'functionName' failed to satisfy constraint: Member must satisfy regular expression pattern: ` + jsonText(namePattern) +
				`; Value '` + strings.Repeat("q", 129) + `!' at 'qualifier' failed to satisfy constraint: Member must have length less than or equal to 128` +
				`; Value '` + strings.Repeat("q", 129) + `!' at 'qualifier' failed to satisfy constraint: Member must satisfy regular expression pattern: ` + jsonText(qualifierPattern) +
				`; Value 'Async' at 'invocationType' failed to satisfy constraint: Member must satisfy enum value set: [Event, RequestResponse, DryRun]` +
				`; Value 'All' at 'logType' failed to satisfy constraint: Member must satisfy enum value set: [None, Tail]"}`},
		"qualifier too long": {request{path: path + "?Qualifier=" + strings.Repeat("q", 129)}, 400, "ValidationException",
			`{"message":"1 validation error detected: Value '` + strings.Repeat("q", 129) + `' at 'qualifier' failed to satisfy constraint: Member must have length less than or equal to 128"}`},
		"qualifier as long as it may be": {request{path: path + "?Qualifier=" + strings.Repeat("q", 128)}, 404, "ResourceNotFoundException", ""},
		"qualifier empty": {request{path: path + "?Qualifier="}, 400, "ValidationException",
			`{"message":"2 validation errors detected: Value '' at 'qualifier' failed to satisfy constraint: Member must have length greater than or equal to 1; Value '' at 'qualifier' failed to satisfy constraint: Member must satisfy regular expression pattern: ` + jsonText(qualifierPattern) + `"}`},
		"name too long": {request{path: "/2015-03-31/functions/" + strings.Repeat("n", 257) + "/invocations"}, 400, "ValidationException",
			`{"message":"1 validation error detected: Value '` + strings.Repeat("n", 257) + `' at 'functionName' failed to satisfy constraint: Member must have length less than or equal to 256"}`},
		"name as long as it may be":    {request{path: "/2015-03-31/functions/" + strings.Repeat("n", 256) + "/invocations"}, 404, "ResourceNotFoundException", ""},
		"validated before it is found": {request{path: "/2015-03-31/functions/nobody/invocations", header: header("X-Amz-Log-Type", "All")}, 400, "ValidationException", ""},
		"tenant that cannot be": {request{path: path, header: header("X-Amz-Tenant-Id", "a,b")}, 400, "ValidationException",
			`{"message":"1 validation error detected: Value 'a,b' at 'tenantId' failed to satisfy constraint: Member must satisfy regular expression pattern: ` + jsonText(tenantPattern) + `"}`},
		"durable that cannot be": {request{path: path, header: header("X-Amz-Durable-Execution-Name", strings.Repeat("d", 65))}, 400, "ValidationException",
			`{"message":"1 validation error detected: Value '` + strings.Repeat("d", 65) + `' at 'durableExecutionName' failed to satisfy constraint: Member must have length less than or equal to 64"}`},
		"tenant": {request{path: path, header: header("X-Amz-Tenant-Id", "a")}, 400, "InvalidParameterValueException",
			`{"Type":"User","message":"The invoked function is not enabled with tenancy configuration. Invoke the function without the tenant ID."}`},
		"durable": {request{path: path, header: header("X-Amz-Durable-Execution-Name", "a")}, 400, "InvalidParameterValueException",
			`{"Type":"User","message":"The invoked function is not a durable function. Invoke the function without the durable execution name."}`},
		"client context, no base64": {request{path: path, header: header("X-Amz-Client-Context", "{}")}, 400, "InvalidRequestContentException",
			`{"Type":"User","message":"Client context must be a valid Base64-encoded JSON object."}`},
		"client context, no JSON": {request{path: path, header: context("x")}, 400, "InvalidRequestContentException",
			`{"Type":"User","message":"Client context must be a valid Base64-encoded JSON object."}`},
		"client context, null": {request{path: path, header: context("null")}, 400, "InvalidRequestContentException",
			`{"Type":"User","message":"Client context must be a valid Base64-encoded JSON object."}`},
		"client context, too long": {request{path: path, header: context(`{"a":"` + strings.Repeat("x", 2700) + `"}`)}, 400, "InvalidRequestContentException",
			`{"Type":"User","message":"Client context must be no more than 3583 bytes."}`},
		"no JSON": {request{path: path, body: "{x"}, 400, "InvalidRequestContentException",
			`{"Type":"User","message":"Could not parse request body into json: Could not parse payload into json: Unexpected character ('x' (code 120)): was expecting double-quote to start field name\n at [Source: REDACTED (` + "`StreamReadFeature.INCLUDE_SOURCE_IN_LOCATION`" + ` disabled); line: 1, column: 2]"}`},
		"no UTF-8": {request{path: path, body: "\"\xff\""}, 400, "InvalidRequestContentException",
			`{"Type":"User","message":"Could not parse request body into json: Could not parse payload into json: Invalid UTF-8 start byte 0xff\n at [Source: REDACTED (` + "`StreamReadFeature.INCLUDE_SOURCE_IN_LOCATION`" + ` disabled); line: 1, column: 2]"}`},
		"media type": {request{path: path, body: "{}", header: header("Content-Type", "text/xml")}, 415, "UnsupportedMediaTypeException",
			`{"Type":"User","message":"The content type of the Invoke request body is not JSON: \"text/xml\""}`},
		"too large": {request{path: path, body: `"` + strings.Repeat("x", 6291455) + `"`}, 413, "RequestTooLargeException",
			`{"Type":"User","message":"Request must be smaller than 6291456 bytes for the InvokeFunction operation"}`},
		"too large for Event": {request{path: path, body: `"` + strings.Repeat("x", 1048575) + `"`, header: header("X-Amz-Invocation-Type", "Event")}, 413, "RequestTooLargeException",
			`{"Type":"User","message":"1048577 byte payload is too large for the Event invocation type (limit 1048576 bytes)"}`},
		"unknown operation": {request{path: "/2015-03-31/functions/echo/policy"}, 404, "UnknownOperationException", ""},
		"list functions":    {request{method: http.MethodGet, path: "/2015-03-31/functions/"}, 404, "UnknownOperationException", ""},
		"layers":            {request{method: http.MethodGet, path: "/2018-10-31/layers"}, 404, "UnknownOperationException", ""},
		"no operation":      {request{path: "/2015-03-31/"}, 404, "UnknownOperationException", ""},
		"another version":   {request{path: "/2019-09-30/functions/echo/invocations"}, 404, "UnknownOperationException", ""},
		"another method":    {request{method: http.MethodGet, path: path}, 404, "UnknownOperationException", ""},
		"no Event with a stream": {request{path: "/2021-11-15/functions/echo/response-streaming-invocations", header: header("X-Amz-Invocation-Type", "Event")}, 400, "ValidationException",
			`{"message":"1 validation error detected: Value 'Event' at 'invocationType' failed to satisfy constraint: Member must satisfy enum value set: [RequestResponse, DryRun]"}`},
	} {
		t.Run(name, func(t *testing.T) {
			f := &fake{}
			w, out := do(t, newAPI(t, f), c.request)
			assert.Equal(t, c.status, w.Code)
			assert.Equal(t, c.kind, w.Header().Get("X-Amzn-Errortype"))
			assert.Equal(t, "application/json", w.Header().Get("Content-Type"))
			if c.body != "" {
				assert.Equal(t, c.body, strings.TrimSpace(w.Body.String()))
			}
			assert.Error(t, out.Err)
			assert.Empty(t, f.function, "nothing may be invoked")
		})
	}
}

// The patterns of the API reference.
const (
	namePattern      = `(arn:(aws[a-zA-Z-]*)?:lambda:)?((eusc-)?[a-z]{2}((-gov)|(-iso([a-z]?)))?-[a-z]+-\d{1}:)?(\d{12}:)?(function:)?([a-zA-Z0-9-_\.]+)(:(\$LATEST(\.PUBLISHED)?|[a-zA-Z0-9-_]+))?`
	qualifierPattern = `\$(LATEST(\.PUBLISHED)?)|[a-zA-Z0-9-_$]+`
	tenantPattern    = `[a-zA-Z0-9\._:\/=+\-@ ]+`
)

// jsonText is a text as it stands between quotes.
func jsonText(s string) string { return strings.ReplaceAll(s, `\`, `\\`) }

func TestInvoke_LargestPayloads_AreAccepted(t *testing.T) {
	const path = "/2015-03-31/functions/echo/invocations"
	f := &fake{}
	w, _ := do(t, newAPI(t, f), request{path: path, body: `"` + strings.Repeat("x", 6291454) + `"`})
	assert.Equal(t, 200, w.Code)
	assert.Len(t, f.inv.Payload, 6291456)
	w, _ = do(t, newAPI(t, f), request{path: path, body: `"` + strings.Repeat("x", 1048574) + `"`, header: map[string]string{"X-Amz-Invocation-Type": "Event"}})
	assert.Equal(t, 202, w.Code)
}

func TestInvoke_Signatures_DecideWhoIsAsking(t *testing.T) {
	const path = "/2015-03-31/functions/echo/invocations"
	key := sigv4.Credentials{AccessKeyID: accessKey, SecretAccessKey: secretKey}
	caller := mustKeys(t).Of("caller")
	for name, c := range map[string]struct {
		path   string
		sign   func(*http.Request)
		status int
		kind   string
		body   string
	}{
		"not signed":                 {path, func(*http.Request) {}, 403, "MissingAuthenticationTokenException", `{"message":"Missing Authentication Token"}`},
		"basic":                      {path, func(r *http.Request) { r.SetBasicAuth("a", "b") }, 403, "IncompleteSignatureException", ""},
		"unknown key":                {path, by(sigv4.Credentials{AccessKeyID: "AKIDX", SecretAccessKey: secretKey}, time.Now()), 403, "UnrecognizedClientException", `{"message":"The security token included in the request is invalid."}`},
		"wrong secret":               {path, by(sigv4.Credentials{AccessKeyID: accessKey, SecretAccessKey: "x"}, time.Now()), 403, "InvalidSignatureException", ""},
		"4 minutes":                  {path, by(key, time.Now().Add(-4*time.Minute)), 200, "", ""},
		"6 minutes":                  {path, by(key, time.Now().Add(-6*time.Minute)), 403, "InvalidSignatureException", ""},
		"of a function that may":     {path, by(caller, time.Now()), 200, "", ""},
		"of a function, wrong":       {path, by(sigv4.Credentials{AccessKeyID: caller.AccessKeyID, SecretAccessKey: secretKey}, time.Now()), 403, "InvalidSignatureException", ""},
		"of a function that is gone": {path, by(mustKeys(t).Of("gone"), time.Now()), 403, "UnrecognizedClientException", ""},
		"of a function that may not": {"/2015-03-31/functions/other/invocations", by(caller, time.Now()), 403, "AccessDeniedException",
			`{"Message":"User: arn:aws:sts::123456789012:assumed-role/caller/caller is not authorized to perform: lambda:InvokeFunction on resource: ` + arn + `other because no identity-based policy allows the lambda:InvokeFunction action"}`},
		"of a function, to nobody":     {"/2015-03-31/functions/nobody/invocations", by(caller, time.Now()), 403, "AccessDeniedException", ""},
		"of a function, to itself":     {"/2015-03-31/functions/caller/invocations", by(caller, time.Now()), 403, "AccessDeniedException", ""},
		"of a function without a list": {path, by(mustKeys(t).Of("other"), time.Now()), 403, "AccessDeniedException", ""},
		"of a function, invoke-async":  {"/2014-11-13/functions/other/invoke-async/", by(caller, time.Now()), 403, "AccessDeniedException", ""},
		"of a function, with a stream": {"/2021-11-15/functions/other/response-streaming-invocations", by(caller, time.Now()), 403, "AccessDeniedException", ""},
		"of a function, async and may": {"/2014-11-13/functions/echo/invoke-async", by(caller, time.Now()), 202, "", ""},
		"changed after it was signed": {path, func(r *http.Request) {
			by(key, time.Now())(r)
			r.Header.Set("X-Amz-Invocation-Type", "DryRun")
		}, 403, "IncompleteSignatureException", ""},
	} {
		t.Run(name, func(t *testing.T) {
			f := &fake{}
			w, _ := do(t, newAPI(t, f), request{path: c.path, body: "{}", sign: c.sign})
			assert.Equal(t, c.status, w.Code, w.Body.String())
			assert.Equal(t, c.kind, w.Header().Get("X-Amzn-Errortype"))
			if c.body != "" {
				assert.Equal(t, c.body, w.Body.String())
			}
			assert.Equal(t, c.status >= 300, f.function == "")
		})
	}
}

func TestInvoke_Errors_BecomeExceptions(t *testing.T) {
	permanent := gateway.Errorf(gateway.CodeUnavailable, "image x cannot be had from 10.88.0.1")
	permanent.Permanent = true
	because := func(reason reason.Reason) *gateway.Error {
		e := gateway.Errorf(gateway.CodeUnavailable, "something at 10.88.0.1")
		e.Reason, e.Permanent = reason, reason.Permanent()
		return e
	}
	busy := gateway.Errorf(gateway.CodeUnavailable, "no worker in time")
	busy.Busy = true
	later := gateway.Errorf(gateway.CodeThrottled, "queue full")
	later.RetryAfter = 1500 * time.Millisecond
	const service = `{"Type":"Service","Message":"An error occurred and the request cannot be processed."}`
	const throttled = `{"Reason":"ReservedFunctionConcurrentInvocationLimitExceeded","Type":"User","message":"Rate Exceeded."}`
	for name, c := range map[string]struct {
		err    error
		status int
		kind   string
		retry  string
		body   string
	}{
		"throttled":     {gateway.Errorf(gateway.CodeThrottled, "max_capacity 0"), 429, "TooManyRequestsException", "1", throttled},
		"all busy":      {busy, 429, "TooManyRequestsException", "1", throttled},
		"come later":    {later, 429, "TooManyRequestsException", "2", throttled},
		"unavailable":   {gateway.Errorf(gateway.CodeUnavailable, "agent at 127.0.0.1 is down"), 500, "ServiceException", "", service},
		"permanent":     {permanent, 409, "ResourceConflictException", "", `{"Type":"User","Message":"The operation cannot be performed at this time. The function is currently in the following state: Failed"}`},
		"image missing": {because(reason.ImageMissing), 409, "CodeArtifactUserFailedException", "", `{"Type":"User","message":"ERROR: Lambda cannot initialize the provided container image. Verify the image. The function's image cannot be had: it is missing, or access to it is refused."}`},
		"image invalid": {because(reason.ImageInvalid), 409, "CodeArtifactUserFailedException", "", `{"Type":"User","message":"ERROR: Lambda cannot initialize the provided container image. Verify the image. The function's image is not valid, or its entrypoint cannot run."}`},
		"runtime":       {because(reason.RuntimeInvalid), 502, "InvalidRuntimeException", "", `{"Type":"User","Message":"The runtime or runtime version specified is not supported. The function's runtime is not available."}`},
		"code missing":  {because(reason.CodeMissing), 409, "ResourceConflictException", "", `{"Type":"User","Message":"The operation cannot be performed at this time. The function is currently in the following state: Failed. The function's code, or one of its layers, is missing, or access to it is refused."}`},
		"code invalid":  {because(reason.CodeInvalid), 502, "InvalidZipFileException", "", `{"Type":"User","Message":"Lambda could not unzip the deployment package. The function's code, or one of its layers, could not be unzipped, is too large, or holds what is not allowed."}`},
		"configuration": {because(reason.Configuration), 409, "ResourceConflictException", "", `{"Type":"User","Message":"The operation cannot be performed at this time. The function is currently in the following state: Failed. The function's configuration is not valid."}`},
		"store away":    {because(reason.StoreAway), 500, "ServiceException", "", `{"Type":"Service","Message":"An error occurred and the request cannot be processed. The store of the function's code cannot be reached."}`},
		"no memory":     {because(reason.NoMemory), 500, "ServiceException", "", `{"Type":"Service","Message":"An error occurred and the request cannot be processed. There is no memory left for another execution environment."}`},
		"transport":     {gateway.Errorf(gateway.CodeTransport, "worker at 10.88.0.7 broke off"), 500, "ServiceException", "", service},
		"stranger":      {errors.New("secret internals"), 500, "ServiceException", "", service},
		"too large":     {gateway.Errorf(gateway.CodeTooLarge, "x"), 413, "RequestTooLargeException", "", `{"Type":"User","message":"The request payload exceeded the Invoke request body JSON input quota."}`},
		"invalid":       {gateway.Errorf(gateway.CodeInvalid, "x"), 400, "InvalidRequestContentException", "", `{"Type":"User","message":"The request could not be handed to the function."}`},
	} {
		t.Run(name, func(t *testing.T) {
			for _, path := range []string{"/2015-03-31/functions/echo/invocations", "/2014-11-13/functions/echo/invoke-async/", "/2021-11-15/functions/echo/response-streaming-invocations"} {
				w, out := do(t, newAPI(t, &fake{err: c.err}), request{path: path})
				assert.Equal(t, c.status, w.Code)
				assert.Equal(t, c.kind, w.Header().Get("X-Amzn-Errortype"))
				assert.Equal(t, c.retry, w.Header().Get("Retry-After"))
				assert.Equal(t, c.body, w.Body.String())
				assert.ErrorIs(t, out.Err, c.err)
			}
		})
	}
}

func TestInvoke_Event_IsQueuedAndAnsweredEmpty(t *testing.T) {
	for _, q := range []request{
		{path: "/2015-03-31/functions/echo/invocations", header: map[string]string{"X-Amz-Invocation-Type": "Event", "X-Amz-Log-Type": "Tail", "X-Amz-Client-Context": "e30="}},
		{path: "/2014-11-13/functions/echo/invoke-async/"},
	} {
		f := &fake{}
		q.body = `{"a":1}`
		w, out := do(t, newAPI(t, f), q)
		assert.Equal(t, 202, w.Code)
		assert.Empty(t, w.Body.String())
		assert.Equal(t, http.Header{"Content-Length": {"0"}}, w.Header())
		assert.True(t, f.queued)
		assert.Equal(t, gateway.Invocation{RequestID: "id-1", TraceID: "Root=1;Parent=2;Sampled=0", Payload: []byte(`{"a":1}`)}, f.inv,
			"functions get no client context and nobody the log of an asynchronous invocation")
		assert.NoError(t, out.Err)
	}
}

func TestInvoke_DryRun_InvokesNothing(t *testing.T) {
	for _, path := range []string{"/2015-03-31/functions/echo/invocations", "/2021-11-15/functions/echo/response-streaming-invocations"} {
		f := &fake{}
		w, _ := do(t, newAPI(t, f), request{path: path, body: "{}", header: map[string]string{"X-Amz-Invocation-Type": "DryRun"}})
		assert.Equal(t, 204, w.Code)
		assert.Empty(t, w.Header())
		assert.Empty(t, f.function)
	}
}

func TestInvoke_ClientLeaves_EndsTheInvocation(t *testing.T) {
	f := &fake{wait: true}
	api := newAPI(t, f)
	ctx, leave := context.WithCancel(t.Context())
	r := httptest.NewRequestWithContext(ctx, http.MethodPost, "/2015-03-31/functions/echo/invocations", nil)
	sigv4.Sign(r, sigv4.Credentials{AccessKeyID: accessKey, SecretAccessKey: secretKey}, "us-east-1", "lambda", sigv4.HashPayload(nil), time.Now())
	leave()
	out := api.Serve(lambdaapi.Call{W: httptest.NewRecorder(), R: r, Path: r.URL.Path})
	assert.Equal(t, 499, out.Status)
	assert.Equal(t, gateway.CodeCanceled, gateway.ErrorCode(out.Err))
}

// events decodes an event stream into lines "event: payload".
func events(t *testing.T, body io.Reader) []string {
	t.Helper()
	var all []string
	decoder := eventstream.NewDecoder()
	for {
		m, err := decoder.Decode(body, nil)
		if errors.Is(err, io.EOF) {
			return all
		}
		require.NoError(t, err)
		assert.Equal(t, "event", m.Headers.Get(":message-type").String())
		all = append(all, m.Headers.Get(":event-type").String()+" "+m.Headers.Get(":content-type").String()+" "+string(m.Payload))
	}
}

func TestInvokeWithResponseStream(t *testing.T) {
	for name, c := range map[string]struct {
		fake
		want []string
	}{
		"pieces": {fake{pieces: []string{"one", "two"}}, []string{"PayloadChunk application/octet-stream one", "PayloadChunk application/octet-stream two", "InvokeComplete application/json {}"}},
		"a large piece": {fake{pieces: []string{strings.Repeat("x", 64<<10+1)}},
			[]string{"PayloadChunk application/octet-stream " + strings.Repeat("x", 64<<10), "PayloadChunk application/octet-stream x", "InvokeComplete application/json {}"}},
		"failed at once": {fake{result: gateway.Result{FunctionError: "Unhandled", Payload: []byte(`{"errorMessage":"x"}`), LogTail: "bG9n"}},
			[]string{`InvokeComplete application/json {"ErrorCode":"Unhandled","ErrorDetails":"{\"errorMessage\":\"x\"}","LogResult":"bG9n"}`}},
		"failed in the middle": {fake{pieces: []string{"one"}, result: gateway.Result{FunctionError: "Unhandled", Payload: []byte(`{}`), LogTail: ""}},
			[]string{"PayloadChunk application/octet-stream one", `InvokeComplete application/json {"ErrorCode":"Unhandled","ErrorDetails":"{}","LogResult":""}`}},
		"broken in the middle": {fake{pieces: []string{"one"}, err: gateway.Errorf(gateway.CodeTransport, "10.88.0.7")},
			[]string{"PayloadChunk application/octet-stream one", `InvokeComplete application/json {"ErrorCode":"ServiceException","ErrorDetails":"An error occurred and the request cannot be processed."}`}},
	} {
		t.Run(name, func(t *testing.T) {
			header := map[string]string{}
			if c.result.FunctionError != "" {
				header["X-Amz-Log-Type"] = "Tail"
			}
			w, out := do(t, newAPI(t, &c.fake), request{path: "/2021-11-15/functions/echo/response-streaming-invocations", body: "{}", header: header})
			assert.Equal(t, 200, w.Code)
			assert.Equal(t, http.Header{"Content-Type": {"application/vnd.amazon.eventstream"}, "X-Amz-Executed-Version": {"$LATEST"}}, w.Header())
			assert.Equal(t, c.want, events(t, w.Body))
			assert.Equal(t, "lambda:InvokeWithResponseStream", out.Operation)
		})
	}
}

// TestServe_SlowFunction_OutlivesTheServersLimit: a server that ends every answer after a moment does not end these.
func TestServe_SlowFunction_OutlivesTheServersLimit(t *testing.T) {
	const limit = 4 * time.Second // a TLS handshake has to end within it
	api := lambdaapi.New(lambdaapi.Options{Invoker: slow(limit + limit/2), AccessKeys: map[string]string{accessKey: secretKey}, Region: "us-east-1", Account: account})
	api.SetFunctions(map[string]*gateway.Function{"echo": {Name: "echo"}})
	for name, start := range map[string]func(*httptest.Server){
		"HTTP/1.1": func(s *httptest.Server) { s.Start() },
		"HTTP/2.0": func(s *httptest.Server) { s.EnableHTTP2 = true; s.StartTLS() },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				api.Serve(lambdaapi.Call{W: w, R: r, Path: r.URL.Path})
			}))
			server.Config.WriteTimeout = limit
			start(server)
			defer server.Close()
			r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, server.URL+"/2015-03-31/functions/echo/invocations", nil)
			require.NoError(t, err)
			sigv4.Sign(r, sigv4.Credentials{AccessKeyID: accessKey, SecretAccessKey: secretKey}, "us-east-1", "lambda", sigv4.HashPayload(nil), time.Now())
			answer, err := server.Client().Do(r)
			require.NoError(t, err)
			defer func() { _ = answer.Body.Close() }()
			body, err := io.ReadAll(answer.Body)
			require.NoError(t, err)
			assert.Equal(t, `"done"`, string(body))
			assert.Equal(t, name, answer.Proto)
		})
	}
}

type slow time.Duration

func (s slow) Invoke(context.Context, *gateway.Function, gateway.Invocation) (gateway.Result, error) {
	time.Sleep(time.Duration(s))
	return gateway.Result{Payload: []byte(`"done"`)}, nil
}
