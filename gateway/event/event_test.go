package event_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"flag"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/edge-serverless-box/esb/gateway"
	"github.com/edge-serverless-box/esb/gateway/event"
)

var update = flag.Bool("update", false, "write the golden events anew")

// goldenCase is testdata/<case>/case.json: what the gateway knows besides the request itself.
type goldenCase struct {
	Route          gateway.Route
	PathParameters map[string]string
	Caller         *gateway.Caller
}

// mustRequest reads testdata/<case>/request.http, raw HTTP, and case.json.
func mustRequest(t testing.TB, dir string) *event.Request {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join(dir, "request.http"))
	require.NoError(t, err)
	head, body, _ := bytes.Cut(raw, []byte("\n\n"))
	head = bytes.ReplaceAll(head, []byte("\n"), []byte("\r\n"))
	r, err := http.ReadRequest(bufio.NewReader(io.MultiReader(bytes.NewReader(head), strings.NewReader("\r\n\r\n"))))
	require.NoError(t, err)
	raw, err = os.ReadFile(filepath.Join(dir, "case.json"))
	require.NoError(t, err)
	var c goldenCase
	require.NoError(t, json.Unmarshal(raw, &c))
	path, query, _ := strings.Cut(r.RequestURI, "?")
	return &event.Request{
		HTTP:              r,
		Path:              path,
		Query:             query,
		Body:              bytes.TrimSuffix(body, []byte("\n")),
		Route:             &c.Route,
		PathParameters:    c.PathParameters,
		Caller:            c.Caller,
		RequestID:         "b2f6f0a4-8c1e-4c5b-9d0e-3f1a2b3c4d5e",
		ExtendedRequestID: "JJbxmFK6oAMFY5g=",
		TraceID:           "Root=1-5e6722a7-cc56xx46db7ae02d4da47e11;Parent=53995c3f42cd8ad8;Sampled=0",
		SourceIP:          "203.0.113.7",
		Scheme:            "https",
		Port:              "443",
		Time:              time.Date(2020, 3, 4, 19, 15, 17, 123e6, time.UTC),
	}
}

func TestBuilder_Golden(t *testing.T) {
	dirs, err := filepath.Glob("testdata/*")
	require.NoError(t, err)
	require.NotEmpty(t, dirs)
	for _, dir := range dirs {
		t.Run(filepath.Base(dir), func(t *testing.T) {
			got := event.NewBuilder("123456789012").Append(nil, mustRequest(t, dir))
			golden := filepath.Join(dir, "event.json")
			if *update {
				var indented bytes.Buffer
				var sorted any
				require.NoError(t, json.Unmarshal(got, &sorted))
				e := json.NewEncoder(&indented)
				e.SetEscapeHTML(false)
				e.SetIndent("", "  ")
				require.NoError(t, e.Encode(sorted))
				require.NoError(t, os.WriteFile(golden, indented.Bytes(), 0o644))
			}
			want, err := os.ReadFile(golden)
			require.NoError(t, err)
			assert.JSONEq(t, string(want), string(got))
		})
	}
}

// TestBuilder_V1HasEveryMember lists the members of a REST event, so that a golden file cannot lose one.
func TestBuilder_V1HasEveryMember(t *testing.T) {
	var e map[string]json.RawMessage
	require.NoError(t, json.Unmarshal(event.NewBuilder("123456789012").Append(nil, mustRequest(t, "testdata/v1-bare")), &e))
	assert.ElementsMatch(t, []string{"resource", "path", "httpMethod", "headers", "multiValueHeaders",
		"queryStringParameters", "multiValueQueryStringParameters", "pathParameters", "stageVariables",
		"requestContext", "body", "isBase64Encoded"}, keys(e))
	var context map[string]json.RawMessage
	require.NoError(t, json.Unmarshal(e["requestContext"], &context))
	assert.ElementsMatch(t, []string{"accountId", "apiId", "deploymentId", "domainName", "domainPrefix",
		"extendedRequestId", "httpMethod", "identity", "path", "protocol", "requestId", "requestTime",
		"requestTimeEpoch", "resourceId", "resourcePath", "stage"}, keys(context))
	var identity map[string]json.RawMessage
	require.NoError(t, json.Unmarshal(context["identity"], &identity))
	assert.ElementsMatch(t, []string{"accessKey", "accountId", "caller", "cognitoAuthenticationProvider",
		"cognitoAuthenticationType", "cognitoIdentityId", "cognitoIdentityPoolId", "principalOrgId", "sourceIp",
		"user", "userAgent", "userArn"}, keys(identity))
	for _, name := range []string{"queryStringParameters", "multiValueQueryStringParameters", "pathParameters", "stageVariables", "body"} {
		assert.Equal(t, "null", string(e[name]), name)
	}
}

func keys(m map[string]json.RawMessage) []string {
	var names []string
	for name := range m {
		names = append(names, name)
	}
	return names
}

func TestBuilder_Query(t *testing.T) {
	tests := []struct {
		name, query   string
		single, multi string
		v2            string
	}{
		{"none", "", `null`, `null`, ""},
		{"only separators", "&&", `null`, `null`, ""},
		{"decoded", "a=1%2B1&b=x+y", `{"a":"1+1","b":"x y"}`, `{"a":["1+1"],"b":["x y"]}`, `{"a":"1+1","b":"x y"}`},
		{"last value, all in order", "k=1&x=0&k=2&k=3", `{"k":"3","x":"0"}`, `{"k":["1","2","3"],"x":["0"]}`, `{"k":"1,2,3","x":"0"}`},
		{"no value", "a&b=", `{"a":"","b":""}`, `{"a":[""],"b":[""]}`, `{"a":"","b":""}`},
		{"broken escapes stay", "a=%zz&b=%4&c=%", `{"a":"%zz","b":"%4","c":"%"}`, `{"a":["%zz"],"b":["%4"],"c":["%"]}`, `{"a":"%zz","b":"%4","c":"%"}`},
		{"equal sign in a value", "a=b=c", `{"a":"b=c"}`, `{"a":["b=c"]}`, `{"a":"b=c"}`},
		{"semicolon is no separator", "a=1;b=2", `{"a":"1;b=2"}`, `{"a":["1;b=2"]}`, `{"a":"1;b=2"}`},
		{"names are decoded before they are grouped", "a%62=1&ab=2", `{"ab":"2"}`, `{"ab":["1","2"]}`, `{"ab":"1,2"}`},
		{"not UTF-8", "a=%ff", `{"a":"\ufffd"}`, `{"a":["\ufffd"]}`, "{\"a\":\"\ufffd\"}"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := mustRequest(t, "testdata/v1-bare")
			r.Query = tt.query
			e := decoded(t, r)
			assert.JSONEq(t, tt.single, string(e["queryStringParameters"]))
			assert.JSONEq(t, tt.multi, string(e["multiValueQueryStringParameters"]))
			r.Route.Payload = gateway.PayloadV2
			assert.Equal(t, tt.v2, string(decoded(t, r)["queryStringParameters"]))
		})
	}
}

// TestBuilder_ManyParameters crosses the size at which grouping changes its method.
func TestBuilder_ManyParameters(t *testing.T) {
	r := mustRequest(t, "testdata/v1-bare")
	var query []string
	want := map[string][]string{}
	for i := range 100 {
		name, value := string(rune('a'+i%20)), string(rune('A'+i%26))
		query = append(query, name+"="+value)
		want[name] = append(want[name], value)
	}
	r.Query = strings.Join(query, "&")
	var got map[string][]string
	require.NoError(t, json.Unmarshal(decoded(t, r)["multiValueQueryStringParameters"], &got))
	assert.Equal(t, want, got)
}

func TestBuilder_BinaryBody(t *testing.T) {
	tests := []struct {
		name, contentType string
		types             []string
		body              string
		want              string
		encoded           bool
	}{
		{"no list", "image/png", nil, "\x89PNG", "\ufffdPNG", false},
		{"listed", "image/png", []string{"image/png"}, "\x89PNG", "iVBORw==", true},
		{"parameters and case do not count", "IMAGE/PNG; q=1", []string{"image/png"}, "\x89PNG", "iVBORw==", true},
		{"wildcard subtype", "image/gif", []string{"image/*"}, "GIF", "R0lG", true},
		{"wildcard of another type", "images/gif", []string{"image/*"}, "GIF", "GIF", false},
		{"any", "text/plain", []string{"*/*"}, "GIF", "R0lG", true},
		{"any, without a type", "", []string{"*/*"}, "GIF", "R0lG", true},
		{"not listed", "text/plain", []string{"image/png"}, "GIF", "GIF", false},
		{"control characters", "text/plain", nil, "a\x00\"\\\n\r\t\x1f\u2028é", "a\x00\"\\\n\r\t\x1f\u2028é", false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := mustRequest(t, "testdata/v1-bare")
			r.Body, r.Route.BinaryMediaTypes = []byte(tt.body), tt.types
			if tt.contentType != "" {
				r.HTTP.Header.Set("Content-Type", tt.contentType)
			}
			e := decoded(t, r)
			var body string
			require.NoError(t, json.Unmarshal(e["body"], &body))
			assert.Equal(t, tt.want, body)
			assert.Equal(t, tt.encoded, string(e["isBase64Encoded"]) == "true")
		})
	}
}

func TestBuilder_BodyV2(t *testing.T) {
	tests := []struct {
		contentType, encoding, body string
		encoded                     bool
	}{
		{"application/json; charset=utf-8", "", "{}", false},
		{"text/csv", "", "a,b", false},
		{"application/json", "", "\xff", true},
		{"TEXT/HTML;charset=latin1", "", "x", false},
		{"application/xml", "", "<a/>", false},
		{"application/javascript", "", "1", false},
		{"application/vnd.api+json", "", "{}", true},
		{"application/ld+json", "", "{}", true},
		{"application/soap+xml", "", "<a/>", true},
		{"image/svg+xml", "", "<svg/>", true},
		{"application/x-ndjson", "", "{}", true},
		{"application/yaml", "", "a: 1", true},
		{"multipart/form-data; boundary=x", "", "--x--", true},
		{"textual/plain", "", "x", true},
		{"", "", "plain", true},
		{"application/x-www-form-urlencoded", "", "a=b", true},
		{"image/png", "", "x", true},
		{"text/plain", "gzip", "x", true},
	}
	for _, tt := range tests {
		t.Run(tt.contentType+tt.encoding, func(t *testing.T) {
			r := mustRequest(t, "testdata/v2-bare")
			r.Body = []byte(tt.body)
			r.HTTP.Header.Set("Content-Type", tt.contentType)
			r.HTTP.Header.Set("Content-Encoding", tt.encoding)
			assert.Equal(t, tt.encoded, string(decoded(t, r)["isBase64Encoded"]) == "true")
		})
	}
}

// TestBuilder_Paths: HTTP APIs decode paths once, REST APIs pass them as they were sent (hotsock/voker,
// vokerhttp/testdata/ingress-paths.json and apigwv1-request.json, captured on AWS in July 2026).
func TestBuilder_Paths(t *testing.T) {
	for sent, decodedPath := range map[string]string{
		"/plain":                             "/plain",
		"/space%20value":                     "/space value",
		"/hash%23value":                      "/hash#value",
		"/slash%2Fvalue":                     "/slash/value",
		"/unicode-%CE%BB-%E4%B8%96%E7%95%8C": "/unicode-λ-世界",
		"/plus+value":                        "/plus+value",
		"/twice%252Fvalue":                   "/twice%2Fvalue", // AWS decodes twice
		"/trailing/%2F/":                     "/trailing///",
		"//two":                              "//two",
		"/no-utf8%FF":                        "/no-utf8%FF", // the gateway refuses it before there is an event
	} {
		text := func(e json.RawMessage) (s string) {
			require.NoError(t, json.Unmarshal(e, &s))
			return s
		}
		r := mustRequest(t, "testdata/v1-bare")
		r.SentPath, r.Path = sent, "/"+strings.TrimLeft(sent, "/")
		r.PathParameters = map[string]string{"proxy": strings.Trim(sent, "/")}
		r.API = &gateway.API{Stage: "dev"}
		var parameters map[string]string
		var context struct {
			Path string
			HTTP struct{ Path string }
		}
		read := func() (e map[string]json.RawMessage) {
			e = decoded(t, r)
			require.NoError(t, json.Unmarshal(e["pathParameters"], &parameters))
			require.NoError(t, json.Unmarshal(e["requestContext"], &context))
			return e
		}

		e := read()
		assert.Equal(t, r.Path, text(e["path"]), "REST")
		assert.Equal(t, "/dev"+sent, context.Path, "REST")
		assert.Equal(t, strings.Trim(sent, "/"), parameters["proxy"], "REST")

		r.Route.API = gateway.APITypeHTTP
		e = read()
		assert.Equal(t, decodedPath, text(e["path"]), "HTTP API, format 1.0")
		assert.Equal(t, "/dev"+decodedPath, context.Path, "HTTP API, format 1.0")
		assert.Equal(t, strings.Trim(decodedPath, "/"), strings.Trim(parameters["proxy"], "/"), "HTTP API, format 1.0")

		r.Route.Payload = gateway.PayloadV2
		e = read()
		assert.Equal(t, "/dev"+decodedPath, text(e["rawPath"]), "HTTP API")
		assert.Equal(t, "/dev"+decodedPath, context.HTTP.Path, "HTTP API")
		assert.Equal(t, strings.Trim(decodedPath, "/"), strings.Trim(parameters["proxy"], "/"), "HTTP API")
	}
}

func TestDecodePath(t *testing.T) {
	for sent, want := range map[string]string{"/a": "/a", "/a%20b": "/a b", "/%2F": "//", "/%00": "/\x00", "": ""} {
		got, ok := event.DecodePath(sent)
		assert.True(t, ok, sent)
		assert.Equal(t, want, got)
	}
	for _, sent := range []string{"/%", "/%4", "/%zz", "/%FF", "/%C3", "/%C3%28"} {
		_, ok := event.DecodePath(sent)
		assert.False(t, ok, sent)
	}
}

// TestBuilder_HeaderNames: HTTP/2 has lower case only, and REST events keep that but for the names that API Gateway writes itself
// (hotsock/voker, vokerhttp/testdata/apigwv1-request.json).
func TestBuilder_HeaderNames(t *testing.T) {
	for version, want := range map[int][]string{
		1: {"Accept", "Authorization", "Cookie", "Host", "Origin", "User-Agent", "X-Amzn-Trace-Id", "X-Custom", "X-Forwarded-For", "X-Forwarded-Port", "X-Forwarded-Proto"},
		2: {"accept", "Authorization", "cookie", "Host", "origin", "User-Agent", "X-Amzn-Trace-Id", "x-custom", "X-Forwarded-For", "X-Forwarded-Port", "X-Forwarded-Proto"},
	} {
		r := mustRequest(t, "testdata/v1-bare")
		r.HTTP.ProtoMajor = version
		r.HTTP.Header = http.Header{"Accept": {"*/*"}, "Authorization": {"x"}, "Cookie": {"a=b"}, "Origin": {"o"}, "User-Agent": {"curl"}, "X-Custom": {"1", "2"}}
		e := decoded(t, r)
		for _, member := range []string{"headers", "multiValueHeaders"} {
			var headers map[string]json.RawMessage
			require.NoError(t, json.Unmarshal(e[member], &headers))
			assert.ElementsMatch(t, want, keys(headers), member)
		}
	}
}

// TestBuilder_ContextOfFormat1 is what HTTP APIs have otherwise than REST APIs (API Gateway developer guide, Create AWS Lambda proxy
// integrations for HTTP APIs, "1.0").
func TestBuilder_ContextOfFormat1(t *testing.T) {
	r := mustRequest(t, "testdata/v1-bare")
	r.Route.API = gateway.APITypeHTTP
	context := func() (m map[string]json.RawMessage) {
		require.NoError(t, json.Unmarshal(decoded(t, r)["requestContext"], &m))
		return m
	}
	got := context()
	assert.ElementsMatch(t, []string{"accountId", "apiId", "authorizer", "domainName", "domainPrefix", "extendedRequestId", "httpMethod",
		"identity", "path", "protocol", "requestId", "requestTime", "requestTimeEpoch", "resourceId", "resourcePath", "stage"}, keys(got))
	assert.JSONEq(t, `{"claims":null,"scopes":null}`, string(got["authorizer"]))
	assert.Equal(t, "null", string(got["resourceId"]))
	assert.Equal(t, string(got["requestId"]), string(got["extendedRequestId"]))
	r.Caller = &gateway.Caller{Kind: gateway.AuthJWT, Claims: []gateway.Claim{{Name: "sub", Value: "s"}}}
	assert.JSONEq(t, `{"claims":{"sub":"s"},"scopes":null}`, string(context()["authorizer"]))
}

// TestBuilder_ContentLength: HTTP APIs say it always (captured on AWS: milliHQ/terraform-aws-next-js pull 31), REST APIs never.
func TestBuilder_ContentLength(t *testing.T) {
	for name, c := range map[string]struct {
		length int64
		body   []byte
		want   string
	}{
		"no body":                              {0, nil, `"0"`},
		"announced":                            {3, []byte("abc"), `"3"`},
		"chunked":                              {-1, []byte("abcd"), `"4"`},
		"chunked, empty":                       {-1, []byte{}, `"0"`},
		"chunked, not read by an authorizer":   {-1, nil, ""},
		"announced, not read by an authorizer": {5, nil, `"5"`},
	} {
		r := mustRequest(t, "testdata/v1-bare")
		r.HTTP.ContentLength, r.Body = c.length, c.body
		r.HTTP.Header.Set("Content-Length", "77")
		header := func(member string) string {
			var headers map[string]json.RawMessage
			require.NoError(t, json.Unmarshal(decoded(t, r)[member], &headers))
			for n, v := range headers {
				if strings.EqualFold(n, "content-length") {
					return n + " " + string(v)
				}
			}
			return ""
		}
		assert.Empty(t, header("headers"), name)
		r.Route.API = gateway.APITypeHTTP
		want, all := "", ""
		if c.want != "" {
			want, all = "Content-Length "+c.want, "Content-Length ["+c.want+"]"
		}
		assert.Equal(t, want, header("headers"), name)
		assert.Equal(t, all, header("multiValueHeaders"), name)
		r.Route.Payload = gateway.PayloadV2
		assert.Equal(t, strings.ToLower(want), header("headers"), name)
	}
}

func decoded(t *testing.T, r *event.Request) map[string]json.RawMessage {
	t.Helper()
	var e map[string]json.RawMessage
	require.NoError(t, json.Unmarshal(event.NewBuilder("123456789012").Append(nil, r), &e))
	return e
}

// TestBuilder_BareEventAllocatesNothing keeps reflection and maps off the path of every request.
func TestBuilder_BareEventAllocatesNothing(t *testing.T) {
	r := mustRequest(t, "testdata/v1-bare")
	r.Body = []byte("a \"body\"")
	builder := event.NewBuilder("123456789012")
	buf := make([]byte, 0, 8192)
	assert.Zero(t, testing.AllocsPerRun(100, func() { buf = builder.Append(buf[:0], r) }))
}

func BenchmarkBuilder_V1(b *testing.B) {
	r := mustRequest(b, "testdata/v1-full")
	builder := event.NewBuilder("123456789012")
	var buf []byte
	b.ReportAllocs()
	for b.Loop() {
		buf = builder.Append(buf[:0], r)
	}
	b.SetBytes(int64(len(buf)))
}
