package cors_test

import (
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/edge-serverless-box/esb/gateway"
	"github.com/edge-serverless-box/esb/gateway/cors"
)

func TestPreflight(t *testing.T) {
	for _, c := range []struct {
		name, method string
		header       http.Header
		want         string
		ok           bool
	}{
		{"a preflight", "OPTIONS", http.Header{"Origin": {"https://a.b"}, "Access-Control-Request-Method": {"PUT"}}, "PUT", true},
		{"no origin", "OPTIONS", http.Header{"Access-Control-Request-Method": {"PUT"}}, "", false},
		{"no method", "OPTIONS", http.Header{"Origin": {"https://a.b"}}, "", false},
		{"another method", "GET", http.Header{"Origin": {"https://a.b"}, "Access-Control-Request-Method": {"PUT"}}, "", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, ok := cors.Preflight(&http.Request{Method: c.method, Header: c.header})
			assert.Equal(t, c.want, got)
			assert.Equal(t, c.ok, ok)
		})
	}
}

func TestAddPreflight(t *testing.T) {
	for _, c := range []struct {
		name   string
		cors   gateway.CORS
		origin string
		want   http.Header
	}{
		{"anybody", gateway.CORS{AllowOrigins: []string{"*"}, AllowMethods: []string{"GET", "PUT"}, AllowHeaders: []string{"X-A", "X-B"}, MaxAge: time.Minute}, "https://a.b",
			http.Header{"Access-Control-Allow-Origin": {"*"}, "Access-Control-Allow-Methods": {"GET,PUT"}, "Access-Control-Allow-Headers": {"X-A,X-B"}, "Access-Control-Max-Age": {"60"}}},
		{"one origin, credentials", gateway.CORS{AllowOrigins: []string{"https://a.b"}, AllowMethods: []string{"GET"}, AllowCredentials: true, MaxAge: -1}, "https://a.b",
			http.Header{"Access-Control-Allow-Origin": {"https://a.b"}, "Access-Control-Allow-Methods": {"GET"}, "Access-Control-Allow-Credentials": {"true"}, "Vary": {"Origin"}}},
		{"all headers", gateway.CORS{AllowOrigins: []string{"*"}, AllowMethods: []string{"*"}, AllowHeaders: []string{"*"}, MaxAge: -1}, "null",
			http.Header{"Access-Control-Allow-Origin": {"*"}, "Access-Control-Allow-Methods": {"*"}, "Access-Control-Allow-Headers": {"*,Authorization"}}},
		{"another origin", gateway.CORS{AllowOrigins: []string{"https://a.b"}, AllowMethods: []string{"GET"}}, "https://c.d", http.Header{"Vary": {"Origin"}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := http.Header{}
			cors.AddPreflight(h, &c.cors, c.origin)
			assert.Equal(t, c.want, h)
		})
	}
}

func TestWriter_Origins(t *testing.T) {
	for _, c := range []struct {
		pattern, origin string
		want            bool
	}{
		{"https://a.b", "https://a.b", true},
		{"https://A.b", "https://a.b", true},
		{"https://a.b", "https://a.b:8443", false},
		{"https://a.b:8443", "https://a.b:8443", true},
		{"https://a.b", "http://a.b", false},
		{"https://*", "https://any.where:81", true},
		{"https://*", "http://any.where", false},
		{"https://*.a.b", "https://c.a.b", true},
		{"https://*.a.b", "https://d.c.a.b", true},
		{"https://*.a.b", "https://a.b", false},
		{"https://*.a.b", "https://.a.b", false},
		{"https://*.a.b", "https://evil.com/.a.b", false},
		{"https://*.a.b", "https://evila.b", false},
		{"https://*.a.b", "https://evil.com#.a.b", false},
		{"https://*.a.b", "https://evil.com?.a.b", false},
		{"https://*.a.b", "https://evil@c.a.b", false},
		{"https://*.a.b", "https://evil.com\\.a.b", false},
		{"https://*", "https://[::1]:81", true},
		{"https://*", "https://evil@any.where", false},
		{"https://*", "https://any.where/path", false},
		{"https://*.a.b", "https://c.a.b.evil.com", false},
		{"https://a.b", "null", false},
	} {
		t.Run(c.pattern+" "+c.origin, func(t *testing.T) {
			rec := httptest.NewRecorder()
			cors.NewWriter(rec, &gateway.CORS{AllowOrigins: []string{c.pattern}}, c.origin).WriteHeader(200)
			want := ""
			if c.want {
				want = c.origin
			}
			assert.Equal(t, want, rec.Header().Get("Access-Control-Allow-Origin"))
		})
	}
}

func TestWriter_ReplacesWhatTheFunctionSays(t *testing.T) {
	rec := httptest.NewRecorder()
	w := cors.NewWriter(rec, &gateway.CORS{AllowOrigins: []string{"https://a.b"}, ExposeHeaders: []string{"X-A", "X-B"}}, "https://a.b")
	h := w.Header()
	h["access-control-allow-origin"] = []string{"*"}
	h["Access-Control-Allow-Methods"] = []string{"GET"}
	h["vary"] = []string{"Accept-Encoding"}
	h["X-A"] = []string{"kept"}
	_, err := w.Write([]byte("body"))
	assert.NoError(t, err)
	assert.Equal(t, http.Header{
		"Access-Control-Allow-Origin": {"https://a.b"}, "Access-Control-Expose-Headers": {"X-A,X-B"},
		"Vary": {"Accept-Encoding", "Origin"}, "X-A": {"kept"},
	}, rec.Header())
	assert.Equal(t, "body", rec.Body.String())
	assert.Equal(t, 200, rec.Code)
}

func TestWriter_WithoutOrigin_OnlyVaries(t *testing.T) {
	for _, vary := range [][]string{nil, {"Origin"}, {"accept, origin"}, {"*"}} {
		rec := httptest.NewRecorder()
		w := cors.NewWriter(rec, &gateway.CORS{AllowOrigins: []string{"https://a.b"}}, "")
		w.Header()["Vary"] = vary
		assert.NoError(t, http.NewResponseController(w).Flush())
		if vary == nil {
			vary = []string{"Origin"}
		}
		assert.Equal(t, http.Header{"Vary": vary}, rec.Header())
	}
}
