package app

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/edge-serverless-box/esb/guard/hung"
)

func TestOperate_AsksTheAdminListener(t *testing.T) {
	ready, asked := `{"status":"ok","dependencies":{"agent":{"status":"ok"},"s3":{"status":"ok","notes":["a note\nof two lines"]}}}`, ""
	status := http.StatusOK
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked = r.Method + " " + r.URL.Path
		switch r.URL.Path {
		case "/readyz":
			w.WriteHeader(status)
			_, _ = w.Write([]byte(ready))
		case "/pools":
			_, _ = w.Write([]byte(`{"pools":[{"function":"lambda-echo","idle":2,"busy":1,"error":"no image"}]}`))
		case "/reload":
			_, _ = w.Write([]byte(`{"status":"ok"}`))
		}
	}))
	defer server.Close()
	env := map[string]string{
		"GATEWAY_ADMIN_ADDR": strings.TrimPrefix(server.URL, "http://"), "GATEWAY_HTTPS_ADDR": "127.0.0.1:0", "GATEWAY_HTTP_ADDR": "off", "ESB_HOME": t.TempDir(),
	}
	operate := func(args ...string) (int, string, error) {
		var out strings.Builder
		code, err := Operate(t.Context(), func(name string) string { return env[name] }, "esb", args, &out)
		return code, out.String(), err
	}

	code, out, err := operate("status")
	require.NoError(t, err)
	assert.Equal(t, exitOK, code)
	for _, want := range []string{"agent", "a note of two lines", "lambda-echo", "no image"} {
		assert.Contains(t, out, want)
	}
	code, out, err = operate("functions")
	require.NoError(t, err)
	assert.Equal(t, exitOK, code)
	assert.NotContains(t, out, "agent")

	status, ready = http.StatusServiceUnavailable, `{"status":"unavailable","dependencies":{"agent":{"status":"down","error":"it is away"}}}`
	code, out, err = operate("status")
	require.NoError(t, err)
	assert.Equal(t, exitUnhealthy, code)
	assert.Contains(t, out, "it is away")

	code, out, err = operate("reload")
	require.NoError(t, err)
	assert.Equal(t, exitOK, code)
	assert.Equal(t, "POST /reload", asked)
	assert.JSONEq(t, `{"status":"ok"}`, out)

	code, _, err = operate("nonsense")
	require.ErrorContains(t, err, `there is no command "nonsense"`)
	assert.Equal(t, exitUsage, code)
	code, out, err = operate()
	require.NoError(t, err)
	assert.Equal(t, exitUsage, code)
	assert.Contains(t, out, "esb reload")

	server.Close()
	code, _, err = operate("status")
	require.ErrorIs(t, err, hung.ErrSilent)
	assert.Equal(t, exitDown, code)
}
