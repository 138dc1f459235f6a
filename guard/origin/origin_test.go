package origin_test

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/edge-serverless-box/esb/guard/origin"
)

func TestGuard(t *testing.T) {
	handler := origin.Guard(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) }), "box.local")
	for _, c := range []struct {
		name, host string
		header     map[string]string
		allowed    bool
	}{
		{"a program", "127.0.0.1:9443", nil, true},
		{"IPv6", "[::1]:9443", nil, true},
		{"localhost", "LOCALHOST:9443", nil, true},
		{"a name of the operator's", "box.local", nil, true},
		{"rebinding", "evil.example:9443", nil, false},
		{"rebinding by a name that ends alike", "evil-localhost:9443", nil, false},
		{"no host", "", nil, false},
		{"a page of its own", "127.0.0.1:9428", map[string]string{"Sec-Fetch-Site": "same-origin", "Origin": "http://127.0.0.1:9428"}, true},
		{"typed by a person", "127.0.0.1:9428", map[string]string{"Sec-Fetch-Site": "none"}, true},
		{"an image of another page", "127.0.0.1:9428", map[string]string{"Sec-Fetch-Site": "cross-site"}, false},
		{"a page of another port", "127.0.0.1:9428", map[string]string{"Sec-Fetch-Site": "same-site"}, false},
		{"an older browser", "127.0.0.1:9428", map[string]string{"Origin": "https://evil.example"}, false},
		{"a page without an origin", "127.0.0.1:9428", map[string]string{"Origin": "null"}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := httptest.NewRequest(http.MethodPost, "/reload", nil)
			r.Host = c.host
			for name, value := range c.header {
				r.Header.Set(name, value)
			}
			w := httptest.NewRecorder()
			handler.ServeHTTP(w, r)
			if c.allowed {
				assert.Equal(t, http.StatusNoContent, w.Code)
			} else {
				assert.Equal(t, http.StatusForbidden, w.Code)
				assert.Equal(t, "close", w.Header().Get("Connection"))
			}
		})
	}
}
