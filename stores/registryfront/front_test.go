package registryfront_test

import (
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/edge-serverless-box/esb/stores/basicauth"
	"github.com/edge-serverless-box/esb/stores/registryfront"
)

func TestFront_AsksForThePassword(t *testing.T) {
	registry := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		_, _ = io.WriteString(w, strings.Join([]string{r.Method, r.Host, r.URL.RequestURI(), r.Header.Get("Authorization"), string(body)}, " "))
	}))
	t.Cleanup(registry.Close)
	front := httptest.NewServer(registryfront.Handler(registryfront.Options{
		Credentials: basicauth.Credentials{User: "esb", Password: "right"}, Logger: slog.New(slog.DiscardHandler),
		Dial: func(ctx context.Context) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "tcp", registry.Listener.Addr().String())
		},
	}))
	t.Cleanup(front.Close)
	host := strings.TrimPrefix(front.URL, "http://")
	for _, c := range []struct {
		name, method, path, password, header, value string
		status                                      int
		want                                        string
	}{
		{"health", "GET", "/health?x", "", "", "", 200, "GET " + host + "/v2/"},
		{"Docker's health check", "GET", "/", "", "", "", 200, ""},
		{"who asks whether a password is needed", "GET", "/v2/", "", "", "", 401, "ESB_REGISTRY_PASSWORD"},
		{"a pull", "GET", "/v2/a/b/manifests/1", "right", "", "", 200, "GET " + host + " /v2/a/b/manifests/1  "},
		{"a pull of a stranger", "GET", "/v2/a/b/manifests/1", "", "", "", 401, ""},
		{"a guess", "GET", "/v2/a/b/manifests/1", "wrong", "", "", 401, ""},
		{"a push", "POST", "/v2/a/b/blobs/uploads/", "right", "", "", 200, "layer"},
		{"a push of a stranger", "POST", "/v2/a/b/blobs/uploads/", "", "", "", 401, ""},
		{"a delete of a stranger", "DELETE", "/v2/a/b/manifests/1", "", "", "", 401, ""},
		{"a health that changes", "DELETE", "/health", "", "", "", 404, ""},
		{"anything else", "GET", "/debug/health", "right", "", "", 404, ""},
		{"rebinding", "GET", "/v2/", "right", "Host", "evil.example", 403, ""},
		{"a page of others", "POST", "/v2/a/b/blobs/uploads/", "right", "Origin", "https://evil.example", 403, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			body := ""
			if c.method == http.MethodPost {
				body = "layer"
			}
			r, err := http.NewRequestWithContext(t.Context(), c.method, front.URL+c.path, strings.NewReader(body))
			require.NoError(t, err)
			if c.password != "" {
				r.SetBasicAuth("esb", c.password)
			}
			if c.header == "Host" {
				r.Host = c.value
			} else if c.header != "" {
				r.Header.Set(c.header, c.value)
			}
			res, err := http.DefaultClient.Do(r)
			require.NoError(t, err)
			defer func() { _ = res.Body.Close() }()
			text, err := io.ReadAll(res.Body)
			require.NoError(t, err)
			assert.Equal(t, c.status, res.StatusCode)
			assert.Contains(t, strings.ReplaceAll(string(text), " /v2/ ", "/v2/"), strings.ReplaceAll(c.want, " /v2/ ", "/v2/"))
			if c.status == http.StatusUnauthorized {
				assert.Contains(t, res.Header.Get("Www-Authenticate"), "Basic")
			}
		})
	}
}
