package event_test

import (
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/url"
	"reflect"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/edge-serverless-box/esb/gateway"
	"github.com/edge-serverless-box/esb/gateway/event"
)

// fuzzed is a request out of texts that a fuzzer makes. method, path, names and values are anything: the builder must not count
// on what net/http or the matcher would have refused.
type fuzzed struct {
	path, query, name, value, contentType, host, variable string
	body                                                  []byte
	httpAPI                                               bool
}

func (f fuzzed) request(payload gateway.PayloadVersion) *event.Request {
	route := &gateway.Route{Path: "/{id}", Payload: payload, BinaryMediaTypes: []string{"image/*"}}
	if f.httpAPI {
		route.API = gateway.APITypeHTTP
	}
	r := &event.Request{
		HTTP:  &http.Request{Method: http.MethodPost, Proto: "HTTP/1.1", Host: f.host, Header: http.Header{}},
		Route: route, Path: f.path, Query: f.query, Body: f.body,
		PathParameters: map[string]string{"id": f.value},
		RequestID:      "id", TraceID: f.value, SourceIP: "::1", Scheme: "https", Port: "443", Time: time.Unix(1, 0),
	}
	if f.variable != "" {
		r.API = &gateway.API{Stage: "dev", StageVariables: []gateway.StageVariable{{Name: "v", Value: f.variable}}}
	}
	r.HTTP.Header.Set("Content-Type", f.contentType)
	if f.name != "" {
		r.HTTP.Header[f.name] = append(r.HTTP.Header[f.name], f.value, f.query)
	}
	return r
}

// utf8Text is what a JSON text can hold of s: each byte that is no UTF-8 is U+FFFD.
func utf8Text(s string) string { return string([]rune(s)) }

// naiveQuery decodes a query in the plainest way.
func naiveQuery(raw string) map[string][]string {
	all := map[string][]string{}
	decode := func(s string) string {
		var out []byte
		for i := 0; i < len(s); i++ {
			var hex [1]byte
			switch {
			case s[i] == '+':
				out = append(out, ' ')
			case s[i] == '%' && i+2 < len(s) && decodeHex(hex[:], s[i+1:i+3]):
				out = append(out, hex[0])
				i += 2
			default:
				out = append(out, s[i])
			}
		}
		return string(out)
	}
	for _, piece := range strings.Split(raw, "&") {
		if piece == "" {
			continue
		}
		name, value, _ := strings.Cut(piece, "=")
		name = decode(name)
		all[name] = append(all[name], decode(value))
	}
	return all
}

func decodeHex(dst []byte, s string) bool {
	const digits = "0123456789abcdef"
	high, low := strings.IndexByte(digits, s[0]|0x20), strings.IndexByte(digits, s[1]|0x20)
	for _, c := range []byte(s) {
		if c < '0' || c > '9' && c < 'A' {
			return false
		}
	}
	if high < 0 || low < 0 {
		return false
	}
	dst[0] = byte(high<<4 | low)
	return true
}

func addSeeds(f *testing.F) {
	f.Add("/a/b", "x=1&x=%ff&+y=%2B", "X-A", "v", "text/plain", "api.example.com:8443", "", []byte("body"), false)
	f.Add("/a%2Fb//", "%%%&&==&a=b=c", "Cookie", "a=b; c", "image/png", "[::1]:80", "value", []byte("\xff\x00\""), true)
	f.Add("", "a", "Connection", "\x00\x1f\u2028", "APPLICATION/JSON; x", "", "x", []byte(nil), false)
	f.Add("/\xff", strings.Repeat("n=1&m=2&", 20), "X-Amzn-Trace-Id", "\xe2\x82", "application/vnd.a+json", ":", "", []byte("{}"), true)
}

// FuzzBuilderV1 checks that every request makes valid JSON that says what the request said.
func FuzzBuilderV1(f *testing.F) {
	addSeeds(f)
	f.Fuzz(func(t *testing.T, path, query, name, value, contentType, host, variable string, body []byte, httpAPI bool) {
		in := fuzzed{path, query, name, value, contentType, host, variable, body, httpAPI}
		r := in.request(gateway.PayloadV1)
		text := event.NewBuilder("123456789012").Append(nil, r)
		var e struct {
			Version                         *string
			Path, HTTPMethod                string
			Headers                         map[string]string
			MultiValueHeaders               map[string][]string
			QueryStringParameters           map[string]string
			MultiValueQueryStringParameters map[string][]string
			PathParameters, StageVariables  map[string]string
			Body                            *string
			IsBase64Encoded                 bool
			RequestContext                  struct{ Path, Stage string }
		}
		if err := json.Unmarshal(text, &e); err != nil {
			t.Fatalf("not JSON: %v: %s", err, text)
		}
		wantPath, wantValue := path, value
		if httpAPI {
			wantPath, wantValue = unescaped(path), unescaped(value)
		}
		if httpAPI != (e.Version != nil) || e.Path != utf8Text(wantPath) || !strings.HasSuffix(e.RequestContext.Path, utf8Text(wantPath)) {
			t.Fatalf("version %v, path %q, context %+v", e.Version, e.Path, e.RequestContext)
		}
		if (variable != "") != (e.StageVariables["v"] == utf8Text(variable) && e.RequestContext.Stage == "dev") {
			t.Fatalf("stage variables %v, stage %q", e.StageVariables, e.RequestContext.Stage)
		}
		if e.PathParameters["id"] != utf8Text(wantValue) {
			t.Fatalf("path parameters %v", e.PathParameters)
		}
		checkBody(t, r, e.Body, e.IsBase64Encoded)
		checkQuery(t, query, e.QueryStringParameters, e.MultiValueQueryStringParameters)
		for n, values := range e.MultiValueHeaders {
			if len(values) == 0 || e.Headers[n] != values[len(values)-1] {
				t.Fatalf("header %q: %q and %q", n, e.Headers[n], values)
			}
		}
		if sent, there := e.MultiValueHeaders[name]; there && utf8.ValidString(name) && !written(name) && name != "Content-Length" {
			want := []string{utf8Text(value), utf8Text(query)}
			if name == "Content-Type" {
				want = append([]string{utf8Text(contentType)}, want...)
			}
			if !reflect.DeepEqual(sent, want) {
				t.Fatalf("header %q: %q, want %q", name, sent, want)
			}
		}
	})
}

// unescaped is what HTTP APIs make of a path, as far as it can be decoded.
func unescaped(path string) string {
	if text, err := url.PathUnescape(path); err == nil && utf8.ValidString(text) {
		return text
	}
	return path
}

// written says whether the gateway writes a header itself.
func written(name string) bool {
	switch name {
	case "Host", "X-Forwarded-For", "X-Forwarded-Port", "X-Forwarded-Proto", "X-Amzn-Trace-Id":
		return true
	}
	return false
}

func checkBody(t *testing.T, r *event.Request, got *string, encoded bool) {
	t.Helper()
	switch {
	case len(r.Body) == 0:
		if got != nil || encoded {
			t.Fatalf("no body, and got %v", got)
		}
	case got == nil:
		t.Fatal("the body is lost")
	case encoded:
		if *got != base64.StdEncoding.EncodeToString(r.Body) {
			t.Fatalf("body %q", *got)
		}
	case *got != utf8Text(string(r.Body)):
		t.Fatalf("body %q, want %q", *got, r.Body)
	}
}

// checkQuery leaves out what two different names that are no UTF-8 can make of each other.
func checkQuery(t *testing.T, query string, single map[string]string, multi map[string][]string) {
	t.Helper()
	want := naiveQuery(query)
	for name := range want {
		if !utf8.ValidString(name) {
			return
		}
	}
	if len(want) == 0 && (single != nil || multi != nil) || len(multi) != len(want) || len(single) != len(want) {
		t.Fatalf("query %q: %v and %v, want %v", query, single, multi, want)
	}
	for name, values := range want {
		for i := range values {
			values[i] = utf8Text(values[i])
		}
		if !reflect.DeepEqual(multi[name], values) || single[name] != values[len(values)-1] {
			t.Fatalf("query %q: %q is %q and %q, want %q", query, name, single[name], multi[name], values)
		}
	}
}

// FuzzBuilderV2 is FuzzBuilderV1 for the HTTP API's format.
func FuzzBuilderV2(f *testing.F) {
	addSeeds(f)
	f.Fuzz(func(t *testing.T, path, query, name, value, contentType, host, variable string, body []byte, httpAPI bool) {
		in := fuzzed{path, query, name, value, contentType, host, variable, body, httpAPI}
		r := in.request(gateway.PayloadV2)
		text := event.NewBuilder("123456789012").Append(nil, r)
		var e struct {
			Version, RawPath, RawQueryString string
			Cookies                          []string
			Headers                          map[string]string
			QueryStringParameters            map[string]string
			StageVariables                   map[string]string
			Body                             *string
			IsBase64Encoded                  bool
		}
		if err := json.Unmarshal(text, &e); err != nil {
			t.Fatalf("not JSON: %v: %s", err, text)
		}
		wantPath := utf8Text(unescaped(path))
		if variable != "" {
			wantPath = "/dev" + wantPath
		}
		if e.Version != "2.0" || e.RawPath != wantPath || e.RawQueryString != utf8Text(query) || e.StageVariables["v"] != utf8Text(variable) {
			t.Fatalf("%+v", e)
		}
		checkBody(t, r, e.Body, e.IsBase64Encoded)
		want := naiveQuery(query)
		for n := range want {
			if !utf8.ValidString(n) {
				return
			}
		}
		if len(want) != len(e.QueryStringParameters) {
			t.Fatalf("query %q: %v", query, e.QueryStringParameters)
		}
		for n, values := range want {
			if e.QueryStringParameters[n] != utf8Text(strings.Join(values, ",")) && utf8.ValidString(strings.Join(values, "")) {
				t.Fatalf("query %q: %q is %q, want %q", query, n, e.QueryStringParameters[n], values)
			}
		}
		if name == "Cookie" && strings.ContainsFunc(value, func(c rune) bool { return c != ';' && c > ' ' && c < 0x7f }) && len(e.Cookies) == 0 {
			t.Fatalf("cookies of %q are lost", value)
		}
	})
}
