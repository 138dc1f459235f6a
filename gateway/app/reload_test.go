package app_test

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/edge-serverless-box/esb/gateway/app"
	"github.com/edge-serverless-box/esb/gateway/settings"
	"github.com/edge-serverless-box/esb/guard/memlimit"
	"github.com/edge-serverless-box/esb/guard/secretfile"
)

// running is a gateway of the test with its operator.
type running struct {
	app        *app.App
	env        map[string]string
	url, admin string
	operator   http.Header
}

func mustRun(t *testing.T, env map[string]string) *running {
	t.Helper()
	s, err := settings.Load(getenv(env))
	require.NoError(t, err)
	a, err := app.Open(context.Background(), s, memlimit.Limit{Bytes: 1 << 30}, &bytes.Buffer{})
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, a.Close(context.Background())) })
	token, err := secretfile.Read(filepath.Join(env["ESB_HOME"], "admin-token"))
	require.NoError(t, err)
	return &running{app: a, env: env, url: "http://" + a.Addrs("http")[0].String(), admin: "http://" + a.Addrs("admin")[0].String(),
		operator: http.Header{"Authorization": {"Bearer " + token}}}
}

func (r *running) ask(t *testing.T, method, path string) (int, string) {
	t.Helper()
	code, _, body := request(t, method, r.admin+path, r.operator, "")
	return code, body
}

func (r *running) write(t *testing.T, name, content string) {
	t.Helper()
	// Whole at once: a machine that is busy may read a file that is still empty.
	require.NoError(t, os.WriteFile(r.env[name]+".new", []byte(content), 0o600))
	require.NoError(t, os.Rename(r.env[name]+".new", r.env[name]))
}

const oneRoute = "routes:\n  - {path: /f, method: POST, function: f, auth: none}\n"

func okWorker(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write([]byte(`{"statusCode":200,"body":"ok"}`))
}

// A refused configuration stands where an operator looks, until the files are right again.
func TestApp_RefusedConfiguration_IsSeen(t *testing.T) {
	_, addr := mustAgent(t, http.HandlerFunc(okWorker))
	r := mustRun(t, environment(t, addr, "functions:\n  f: {image: \"f:1\"}\n", oneRoute))
	code, body := r.ask(t, "GET", "/configuration")
	assert.Equal(t, 200, code)
	assert.JSONEq(t, `{"status":"ok"}`, body)
	_, metrics := r.ask(t, "GET", "/metrics")
	assert.Contains(t, metrics, `esb_config_refused{file="functions.yml"} 0`)

	r.write(t, "FUNCTIONS_CONFIG_PATH", "functions:\n  f: {image: \"f:1\"}\n  bad: {image: x, memory: 256}\n")
	require.Eventually(t, func() bool { // the files are watched
		_, body = r.ask(t, "GET", "/configuration")
		return body != `{"status":"ok"}`+"\n"
	}, patience, 10*time.Millisecond)
	var state struct {
		Status    string
		RefusedAt time.Time `json:"refused_at"`
		Problems  []string
	}
	require.NoError(t, json.Unmarshal([]byte(body), &state))
	assert.Equal(t, "refused", state.Status)
	assert.WithinDuration(t, time.Now(), state.RefusedAt, patience)
	require.Len(t, state.Problems, 1)
	assert.Contains(t, state.Problems[0], "functions.yml:3: functions.bad.memory: is not a known key; did you mean memory_size?")
	code, body = r.ask(t, "GET", "/readyz")
	assert.Equal(t, 200, code, "the box serves")
	assert.Contains(t, body, `"configuration":{"status":"ok","notes":["the files of `)
	assert.Contains(t, body, "did you mean memory_size?")
	_, metrics = r.ask(t, "GET", "/metrics")
	assert.Contains(t, metrics, `esb_config_refused{file="functions.yml"} 1`)
	assert.Contains(t, metrics, `esb_config_refused{file="routing.yml"} 0`)
	assert.Contains(t, metrics, `esb_config_refused{file="other"} 0`)
	code, _, _ = request(t, "POST", r.url+"/f", nil, "{}")
	assert.Equal(t, 200, code)

	r.write(t, "FUNCTIONS_CONFIG_PATH", "functions:\n  f: {image: \"f:1\"}\n")
	require.Eventually(t, func() bool {
		_, body = r.ask(t, "GET", "/configuration")
		return body == `{"status":"ok"}`+"\n"
	}, patience, 10*time.Millisecond)
	_, metrics = r.ask(t, "GET", "/metrics")
	assert.Contains(t, metrics, `esb_config_refused{file="functions.yml"} 0`)
}

// What runs a runtime in place of the box's own stands where an operator looks.
func TestApp_RuntimeThatAnotherRuns_IsSeen(t *testing.T) {
	_, addr := mustAgent(t, http.HandlerFunc(okWorker))
	r := mustRun(t, environment(t, addr, "functions:\n  f: {code: ./none, runtime: nodejs20.x, handler: a.b}\n", oneRoute))
	_, body := r.ask(t, "GET", "/configuration")
	assert.JSONEq(t, `{"status":"ok","substitutes":["nodejs20.x by nodejs24.x (f)"]}`, body)
	r.write(t, "FUNCTIONS_CONFIG_PATH", "functions:\n  f: {image: \"f:1\"}\n")
	require.Eventually(t, func() bool {
		_, body = r.ask(t, "GET", "/configuration")
		return body == `{"status":"ok"}`+"\n"
	}, patience, 10*time.Millisecond)
}

// A step that fails late takes back the earlier ones.
func TestApp_ReloadThatFailsInTheMiddle_ChangesNothing(t *testing.T) {
	_, addr := mustAgent(t, http.HandlerFunc(okWorker))
	const routing = "api_keys: {a: %KEY%}\nroutes:\n  - {path: /f, method: POST, function: f, auth: api_key}\n"
	const before, after = "key-of-the-old-rules-1234", "key-of-the-new-rules-1234"
	with := func(key string) string {
		return string(bytes.ReplaceAll([]byte(routing), []byte("%KEY%"), []byte(key)))
	}
	r := mustRun(t, environment(t, addr, "functions:\n  f: {image: \"f:1\"}\n", with(before)))
	call := func(key string) int {
		code, _, _ := request(t, "POST", r.url+"/f", http.Header{"X-Api-Key": {key}}, "{}")
		return code
	}
	require.Equal(t, 200, call(before))
	// What functions may do at the stores cannot be written.
	access := filepath.Join(r.env["ESB_HOME"], "function-access.json")
	require.NoError(t, os.Remove(access))
	require.NoError(t, os.MkdirAll(filepath.Join(access, "in-the-way"), 0o700))
	r.write(t, "FUNCTIONS_CONFIG_PATH", "functions:\n  f: {image: \"f:1\", schedule: rate(5 minutes)}\n")
	r.write(t, "ROUTING_CONFIG_PATH", with(after))
	code, body := r.ask(t, "POST", "/reload")
	assert.Equal(t, 422, code)
	assert.Contains(t, body, "FUNCTION_ACCESS_FILE")
	assert.Equal(t, 200, call(before), "the old rules hold")
	assert.Equal(t, 403, call(after))
	_, body = r.ask(t, "GET", "/schedules")
	assert.NotContains(t, body, "rate(5 minutes)")
	_, metrics := r.ask(t, "GET", "/metrics")
	assert.Contains(t, metrics, `esb_config_refused{file="other"} 1`)

	require.NoError(t, os.RemoveAll(access))
	code, body = r.ask(t, "POST", "/reload")
	assert.Equal(t, 200, code, body)
	assert.Equal(t, 200, call(after), "and the new ones when it can be")
	_, body = r.ask(t, "GET", "/schedules")
	assert.Contains(t, body, "rate(5 minutes)")
}

// Functions that share code answer at once, and code that is missing holds up nobody else.
func TestApp_SharedAndMissingCode(t *testing.T) {
	_, addr := mustAgent(t, http.HandlerFunc(okWorker))
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "app.py"), []byte("x"), 0o600))
	functions := "functions:\n"
	for _, name := range []string{"a", "b", "c"} {
		functions += "  " + name + ": {code: " + dir + ", runtime: python3.11, handler: app.handler}\n"
	}
	functions += "  gone: {code: " + filepath.Join(dir, "nothing") + ", runtime: python3.11, handler: app.handler}\n"
	env := environment(t, addr, functions, "routes: []\n")
	r := mustRun(t, env)
	var body string
	require.Eventually(t, func() bool {
		var code int
		code, body = r.ask(t, "GET", "/readyz")
		return code == 200
	}, patience, 10*time.Millisecond)
	assert.Contains(t, body, "gone: its code at "+filepath.Join(dir, "nothing")+" cannot be looked at")
	for _, name := range []string{"a", "b", "c"} {
		code, _, answer := invoke(t, r.url, name, "{}")
		assert.Equal(t, 200, code, "%s: %s", name, answer)
	}
	for range 10 { // as many as would open a circuit
		code, header, _ := invoke(t, r.url, "gone", "{}")
		assert.NotEqual(t, 200, code)
		assert.NotEmpty(t, header.Get("X-Amzn-Errortype"))
	}
	_, body = r.ask(t, "GET", "/pools")
	assert.Contains(t, body, `"error":"its code at `+filepath.Join(dir, "nothing"))
	// It comes, and is there at once, no circuit being open.
	require.NoError(t, os.MkdirAll(filepath.Join(dir, "nothing"), 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "nothing", "app.py"), []byte("x"), 0o600))
	require.Eventually(t, func() bool {
		_, body = r.ask(t, "GET", "/pools")
		return !bytes.Contains([]byte(body), []byte("nothing"))
	}, patience, 10*time.Millisecond)
	code, _, answer := invoke(t, r.url, "gone", "{}")
	assert.Equal(t, 200, code, answer)
}

// A gateway that starts while the files have mistakes, as after a power cut, serves what was taken last, and says so.
func TestApp_StartsWithARefusedConfiguration_ServesTheOneBefore(t *testing.T) {
	_, addr := mustAgent(t, http.HandlerFunc(okWorker))
	env := environment(t, addr, "functions:\n  f: {image: \"f:1\"}\n", oneRoute)
	s, err := settings.Load(getenv(env))
	require.NoError(t, err)
	first, err := app.Open(t.Context(), s, memlimit.Limit{Bytes: 1 << 30}, &bytes.Buffer{})
	require.NoError(t, err)
	require.NoError(t, first.Close(t.Context()))
	for name, bad := range map[string][2]string{
		"a key that is not known": {"FUNCTIONS_CONFIG_PATH", "functions:\n  f: {image: \"f:1\", memory: 256}\n"},
		"what cannot be compiled": {"FUNCTIONS_CONFIG_PATH", "functions:\n  f: {image: \"f:1\", schedule: rate(0 minutes)}\n"},
	} {
		t.Run(name, func(t *testing.T) {
			require.NoError(t, os.WriteFile(env[bad[0]], []byte(bad[1]), 0o600))
			r := mustRun(t, env)
			code, _, body := request(t, "POST", r.url+"/f", nil, "{}")
			assert.Equal(t, 200, code, body)
			_, body = r.ask(t, "GET", "/configuration")
			assert.Contains(t, body, `"status":"refused"`)
			assert.Contains(t, body, "functions.yml")
			code, body = r.ask(t, "GET", "/readyz")
			assert.Equal(t, 200, code)
			assert.Contains(t, body, "were refused, and the configuration of before holds")
			_, body = r.ask(t, "GET", "/metrics")
			assert.Contains(t, body, `esb_config_refused{file="functions.yml"} 1`)
			r.write(t, bad[0], "functions:\n  f: {image: \"f:2\"}\n")
			code, body = r.ask(t, "POST", "/reload")
			assert.Equal(t, 200, code, body)
			_, body = r.ask(t, "GET", "/configuration")
			assert.JSONEq(t, `{"status":"ok"}`, body)
		})
	}
}
