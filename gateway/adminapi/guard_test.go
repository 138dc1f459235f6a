package adminapi_test

import (
	"context"
	"errors"
	"net/http"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/edge-serverless-box/esb/gateway/adminapi"
)

// adminToken is that of the tests' servers.
const adminToken = "admin-token-of-the-tests"

func TestAdmin_LetsInTheOperatorAlone(t *testing.T) {
	reloads := 0
	var down error
	b := mustOpen(t, func(o *adminapi.Options) {
		o.Reload = func() error { reloads++; return nil }
		o.Dependencies = []adminapi.Dependency{{Name: "agent", Check: func(context.Context) error { return down }}}
	})
	for _, c := range []struct {
		name, method, path string
		header             map[string]string
		host               string
		status             int
	}{
		{"the token", "POST", "/reload", map[string]string{"Authorization": "Bearer " + adminToken}, "", 200},
		{"the token in another spelling", "POST", "/reload", map[string]string{"Authorization": "bearer " + adminToken}, "localhost:1", 200},
		{"no token", "POST", "/reload", nil, "", 401},
		{"half a token", "POST", "/reload", map[string]string{"Authorization": "Bearer " + adminToken[:10]}, "", 401},
		{"an empty token", "POST", "/reload", map[string]string{"Authorization": "Bearer "}, "", 401},
		{"the token without a scheme", "POST", "/reload", map[string]string{"Authorization": adminToken}, "", 401},
		{"a path that is not there", "GET", "/nothing", nil, "", 401},
		{"metrics", "GET", "/metrics", nil, "", 401},
		{"rebinding, even with the token", "POST", "/reload", map[string]string{"Authorization": "Bearer " + adminToken}, "evil.example", 403},
		{"another page", "POST", "/reload", map[string]string{"Authorization": "Bearer " + adminToken, "Origin": "https://evil.example"}, "", 403},
		{"a health check of another page", "GET", "/healthz", map[string]string{"Sec-Fetch-Site": "cross-site"}, "", 403},
		{"a health check", "GET", "/healthz", nil, "", 200},
	} {
		t.Run(c.name, func(t *testing.T) {
			before := reloads
			r, err := http.NewRequest(c.method, b.url(c.path), nil)
			require.NoError(t, err)
			if c.host != "" {
				r.Host = c.host
			}
			for name, value := range c.header {
				r.Header.Set(name, value)
			}
			got := b.send(r)
			assert.Equal(t, c.status, got.status, got.body)
			assert.Equal(t, c.path == "/reload" && c.status == 200, reloads > before)
		})
	}
	ready := func() answer {
		r, err := http.NewRequest(http.MethodGet, b.url("/readyz"), nil)
		require.NoError(t, err)
		return b.send(r)
	}
	assert.JSONEq(t, `{"status":"ok"}`, ready().body)
	down = errors.New("agent at 127.0.0.1:50051: refused")
	got := ready()
	assert.Equal(t, 503, got.status)
	assert.JSONEq(t, `{"status":"unavailable"}`, got.body, "strangers are told no more")
}

func TestAdmin_WithoutAToken_LetsNobodyIn(t *testing.T) {
	b := mustOpen(t, func(o *adminapi.Options) { o.Token = "" })
	assert.Equal(t, 401, b.ask("GET", "/pools").status)
	r, err := http.NewRequest(http.MethodGet, b.url("/pools"), nil)
	require.NoError(t, err)
	r.Header.Set("Authorization", "Bearer ")
	assert.Equal(t, 401, b.send(r).status)
}
