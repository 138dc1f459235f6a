package app_test

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/edge-serverless-box/esb/gateway/app"
)

func TestCheck_ReadsTheFiles_AndStartsNothing(t *testing.T) {
	env := environment(t, "127.0.0.1:1", "functions:\n  f: {image: \"f:1\"}\n", oneRoute)
	var out bytes.Buffer
	require.NoError(t, app.Check(getenv(env), &out))
	assert.Contains(t, out.String(), "functions 1, routes 1")
	entries, err := os.ReadDir(env["ESB_HOME"])
	require.NoError(t, err)
	assert.Len(t, entries, 3, "two files and the agent's token, as before")

	require.NoError(t, os.WriteFile(env["FUNCTIONS_CONFIG_PATH"], []byte("functions:\n  f: {image: \"f:1\", memory: 5, timeout: 0}\n"), 0o600))
	err = app.Check(getenv(env), io.Discard)
	assert.ErrorContains(t, err, "did you mean memory_size?")
	assert.ErrorContains(t, err, "must be 1 to 900 seconds")
	require.NoError(t, os.Remove(env["FUNCTIONS_CONFIG_PATH"]))
	assert.ErrorContains(t, app.Check(getenv(env), io.Discard), filepath.Base(env["FUNCTIONS_CONFIG_PATH"]))
	env["GATEWAY_HTTPS_ADDR"], env["TLS_CERT_FILE"], env["TLS_KEY_FILE"] = "127.0.0.1:1", "/nothing.crt", "/nothing.key"
	assert.ErrorContains(t, app.Check(getenv(env), io.Discard), "/nothing.crt")
	env["JWT_EXPIRES_DELTA"] = "soon"
	assert.ErrorContains(t, app.Check(getenv(env), io.Discard), "JWT_EXPIRES_DELTA")
}
