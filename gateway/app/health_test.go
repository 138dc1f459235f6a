package app

import (
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/edge-serverless-box/esb/guard/hung"
	"github.com/edge-serverless-box/esb/guard/secretfile"
)

func TestHealth_ReportsWhatReadinessSays(t *testing.T) {
	status, token := http.StatusOK, ""
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		assert.Equal(t, "/readyz", r.URL.Path)
		assert.Equal(t, token, r.Header.Get("Authorization"))
		w.WriteHeader(status)
		_, _ = w.Write([]byte(`{"agent":"down"}`))
	}))
	addr := strings.TrimPrefix(server.URL, "http://")
	env := map[string]string{
		"GATEWAY_ADMIN_ADDR": addr, "GATEWAY_HTTPS_ADDR": "127.0.0.1:0", "GATEWAY_HTTP_ADDR": "off", "ESB_HOME": t.TempDir(),
	}
	getenv := func(k string) string { return env[k] }
	assert.NoError(t, Health(t.Context(), getenv))
	made, err := secretfile.Open(filepath.Join(env["ESB_HOME"], "admin-token"))
	require.NoError(t, err)
	token = "Bearer " + made
	assert.NoError(t, Health(t.Context(), getenv))
	var out strings.Builder
	assert.NoError(t, Admin(t.Context(), getenv, http.MethodGet, "/readyz", &out))
	assert.Equal(t, `{"agent":"down"}`, out.String())
	status = http.StatusServiceUnavailable
	assert.ErrorContains(t, Admin(t.Context(), getenv, http.MethodGet, "/readyz", &out), "GET /readyz: 503")
	assert.ErrorContains(t, Health(t.Context(), getenv), `{"agent":"down"}`)
	assert.NotErrorIs(t, Health(t.Context(), getenv), hung.ErrSilent)
	server.Close()
	assert.ErrorContains(t, Health(t.Context(), getenv), addr)
	assert.ErrorIs(t, Health(t.Context(), getenv), hung.ErrSilent)
	env["GATEWAY_ADMIN_ADDR"] = "off"
	assert.ErrorContains(t, Health(t.Context(), getenv), "GATEWAY_ADMIN_ADDR")
}

func TestDialable_ListenerWithoutHost_IsLoopback(t *testing.T) {
	for in, want := range map[string]string{
		":9443": "127.0.0.1:9443", "0.0.0.0:1": "127.0.0.1:1", "[::]:1": "127.0.0.1:1", "10.0.0.1:1": "10.0.0.1:1", "localhost:1": "localhost:1",
	} {
		assert.Equal(t, want, dialable(in), in)
	}
}
