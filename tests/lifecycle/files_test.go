package lifecycle

import (
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/edge-serverless-box/esb/sigv4"
	"github.com/edge-serverless-box/esb/tests/stack"
)

const pythonEcho = "def handler(event, context):\n    return event\n"

// sharedCode are functions of one folder and one layer, and one whose code is missing.
const sharedCode = `functions:
  twin1: {code: ./twin, runtime: python3.11, handler: app.handler, layers: [./layer]}
  twin2: {code: ./twin, runtime: python3.11, handler: app.handler, layers: [./layer]}
  solo: {code: ./solo, runtime: python3.11, handler: app.handler, layers: [./layer]}
  gone: {code: ./gone, runtime: python3.11, handler: app.handler}
`

// TestFiles_OnABox: when `up` has ended every function answers, also those that share code; and files with mistakes are
// seen wherever an operator looks, while the box serves on.
func TestFiles_OnABox(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
		require.NoError(t, os.WriteFile(path, []byte(text), 0o644))
		return path
	}
	for _, name := range []string{"twin/app.py", "solo/app.py", "layer/python/helper.py"} {
		write(name, pythonEcho)
	}
	require.NoError(t, os.Chmod(dir, 0o755)) // the gateway's user reads the code
	for at := dir; at != "/"; at = filepath.Dir(at) {
		if info, err := os.Stat(at); err == nil && info.Mode().Perm()&0o005 != 0o005 {
			require.NoError(t, os.Chmod(at, info.Mode().Perm()|0o005))
		}
	}
	functions := write("functions.yml", sharedCode)
	box := mustPrepare(t, stack.Options{
		FunctionsConfig: functions, RoutingConfig: write("routing.yml", "routes: []\n"),
		Env: []string{"S3_ADDR=off", "S3_UI_ADDR=off", "DYNAMODB_ADDR=off", "REGISTRY_ADDR=off", "VICTORIALOGS_ADDR=off"},
	})
	require.NoError(t, box.Up(t.Context()))
	t.Cleanup(func() { assert.NoError(t, box.Down()) })
	invoke := func(name string) int {
		const body = `{"a":1}`
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, box.HTTPURL+"/2015-03-31/functions/"+name+"/invocations", strings.NewReader(body))
		require.NoError(t, err)
		sigv4.Sign(r, sigv4.Credentials{AccessKeyID: stack.AccessKey, SecretAccessKey: stack.SecretKey}, "us-east-1", "lambda", sigv4.HashPayload([]byte(body)), time.Now())
		resp, err := box.HTTP.Do(r)
		require.NoError(t, err)
		defer func() { _ = resp.Body.Close() }()
		return resp.StatusCode
	}
	for _, name := range []string{"twin1", "twin2", "solo"} {
		assert.Equal(t, http.StatusOK, invoke(name), "the first request to %s, right after up", name)
	}
	assert.Equal(t, http.StatusConflict, invoke("gone"))
	said, err := box.Esb(t.Context(), "status")
	require.NoError(t, err, said)
	assert.Regexp(t, `gone +failing .*its code at .*/gone cannot be looked at`, said)
	assert.Regexp(t, `twin1 +warm `, said)

	said, err = box.Esb(t.Context(), "check")
	require.Error(t, err)
	assert.Contains(t, said, "functions.yml:5: functions.gone.code: the code cannot be used")
	assert.NotContains(t, said, "solo")
	write("functions.yml", strings.Replace(sharedCode, "{code: ./solo", "{memory: 256, code: ./solo", 1))
	const mistake = "functions.yml:4: functions.solo.memory: is not a known key; did you mean memory_size?"
	said, err = box.Esb(t.Context(), "check")
	require.Error(t, err)
	assert.Contains(t, said, mistake)
	said, err = box.Esb(t.Context(), "up")
	require.Error(t, err, "what was asked for is not there")
	assert.Contains(t, said, mistake)
	said, err = box.Esb(t.Context(), "status")
	require.NoError(t, err, said)
	assert.Contains(t, said, "REFUSED")
	assert.Contains(t, said, mistake)
	said, err = box.Esb(t.Context(), "status", "-json")
	require.NoError(t, err, said)
	var status struct {
		State         string
		Configuration struct {
			Refused  bool
			Problems []string
		}
	}
	require.NoError(t, json.Unmarshal([]byte(said), &status), said)
	assert.Equal(t, "healthy", status.State)
	assert.True(t, status.Configuration.Refused)
	assert.Equal(t, http.StatusOK, invoke("solo"), "the box serves")

	// Nobody has corrected it when the power comes back.
	before := mustStatus(t, box)
	mustSignal(t, before.PIDs()["gateway"], syscall.SIGKILL)
	stack.Eventually(t, func() bool { return syscall.Kill(before.PIDs()["gateway"], 0) != nil }, "the gateway must be dead")
	said, err = box.Esb(t.Context(), "up")
	require.Error(t, err, "what was asked for is still not there")
	assert.Contains(t, said, mistake)
	assert.Equal(t, http.StatusOK, invoke("solo"), "the box serves what it has served")
	said, err = box.Esb(t.Context(), "status")
	require.NoError(t, err, said)
	assert.Contains(t, said, "REFUSED")
	assert.Contains(t, said, mistake)

	write("functions.yml", sharedCode)
	write("gone/app.py", pythonEcho)
	said, err = box.Esb(t.Context(), "up")
	require.NoError(t, err, said)
	said, err = box.Esb(t.Context(), "status")
	require.NoError(t, err, said)
	assert.NotContains(t, said, "REFUSED")
	stack.Eventually(t, func() bool { return invoke("gone") == http.StatusOK }, "its code has come")
}
