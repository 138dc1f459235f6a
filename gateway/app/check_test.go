package app_test

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/edge-serverless-box/esb/gateway/app"
)

func TestCheck_ReadsTheFiles_AndStartsNothing(t *testing.T) {
	env := environment(t, "127.0.0.1:1", "functions:\n  f: {image: \"f:1\"}\n", oneRoute)
	found, err := app.Check(t.Context(), getenv(env), true)
	require.NoError(t, err)
	assert.Contains(t, found.Summary, "functions 1, routes 1")
	assert.Equal(t, []app.NamedImage{{Place: env["FUNCTIONS_CONFIG_PATH"] + ":2: functions.f.image", Image: "f:1"}}, found.Images)
	entries, err := os.ReadDir(env["ESB_HOME"])
	require.NoError(t, err)
	assert.Len(t, entries, 3, "two files and the agent's token, as before")

	var out bytes.Buffer
	code, err := app.Operate(t.Context(), getenv(env), "esb", []string{"check"}, &out)
	require.NoError(t, err)
	assert.Zero(t, code)
	assert.Equal(t, found.Summary+"\n", out.String())
	out.Reset()
	_, err = app.Operate(t.Context(), getenv(env), "esb", []string{"check", app.CheckAsReload, app.CheckJSON}, &out)
	require.NoError(t, err)
	assert.Contains(t, out.String(), `"image":"f:1"`)

	require.NoError(t, os.Remove(env["FUNCTIONS_CONFIG_PATH"]))
	code, err = app.Operate(t.Context(), getenv(env), "esb", []string{"check"}, &out)
	assert.ErrorContains(t, err, filepath.Base(env["FUNCTIONS_CONFIG_PATH"]))
	assert.Equal(t, 1, code)
	env["JWT_EXPIRES_DELTA"] = "soon"
	_, err = app.Check(t.Context(), getenv(env), true)
	assert.ErrorContains(t, err, "JWT_EXPIRES_DELTA")
}

func TestCheck_BrokenFiles_NamesEachProblemOnItsLine(t *testing.T) {
	const f = "functions:\n  f: {image: \"f:1\"}\n"
	const python = "functions:\n  f: {runtime: python3.11, handler: app.handler, code: "
	for name, c := range map[string]struct {
		functions, routing, resources string
		want                          []string
	}{
		"functions": {
			functions: "functions:\n  f: {image: \"f:1\", memory: 5, timeout: 0}\n  g: {image: \"G:1:2\"}\n", routing: oneRoute,
			want: []string{"functions.yml:2: functions.f.memory: ", "did you mean memory_size?", "functions.yml:2: functions.f.timeout: must be 1 to 900 seconds", "functions.yml:3: functions.g.image: must be"},
		},
		"schedules": {
			functions: "functions:\n  f:\n    image: f:1\n    schedules:\n      - {expression: rate(0 minutes)}\n      - {expression: rate(1 minute), timezone: Nowhere/Here}\n", routing: oneRoute,
			want: []string{"functions.yml:5: functions.f.schedules[0].expression: ", "functions.yml:6: functions.f.schedules[1].expression: "},
		},
		"routes": {
			functions: f, routing: "routes:\n  - {path: \"/a/{x}\", method: GET, function: f, auth: none}\n  - {path: \"/a/{y}\", method: GET, function: f, auth: none}\n  - {path: /b, method: GET, function: nobody}\n",
			want: []string{"routing.yml:3: routes[1].path: the route GET /a/{} is given twice, first on line 2", "routing.yml:4: routes[2].function: "},
		},
		"issuers and authorizers": {
			functions: f, routing: `issuers:
  a: {issuer: "https://a.example.com", audiences: [x], ca_file: none.crt}
  b: {issuer: "https://b.example.com", audiences: [x], ca_file: functions.yml}
authorizers:
  z: {function: nobody, type: token, validation: "("}
routes: []
`,
			want: []string{"routing.yml:2: issuers.a.ca_file: cannot be read", "routing.yml:3: issuers.b.ca_file: ", "has no certificate in PEM", "routing.yml:5: authorizers.z.validation: is not a regular expression", "routing.yml:5: authorizers.z.function: "},
		},
		"resources": {
			functions: f, routing: oneRoute, resources: "buckets:\n  - {name: A}\n",
			want: []string{"resources.yml:2: "},
		},
		"code that is not there": {
			functions: python + "./none}\n", routing: oneRoute,
			want: []string{"functions.yml:2: functions.f.code: the code cannot be used: ", "none: no such file or directory"},
		},
		"code that is no archive": {
			functions: python + "functions.yml}\n", routing: oneRoute,
			want: []string{"functions.yml:2: functions.f.code: the code cannot be used: ", "is no zip file"},
		},
		"a layer that is not there": {
			functions: python + "., layers: [./layer.zip]}\n", routing: oneRoute,
			want: []string{"functions.yml:2: functions.f.layers[0]: the code cannot be used: ", "layer.zip: no such file"},
		},
		"code in a store that is off": {
			functions: python + "s3://bucket/code.zip}\n", routing: oneRoute,
			want: []string{"functions.yml:2: functions.f.code: the code cannot be used: there is no S3 store: S3_ENDPOINT is off"},
		},
		"all of them at once": {
			functions: python + "./none, timeout: 0}\n", routing: "routes: [{path: a, method: GET, function: f}]\n", resources: "tables: 5\n",
			want: []string{"functions.yml:2: functions.f.timeout", "routing.yml:1: routes[0].path", "resources.yml:1: tables", "functions.yml:2: functions.f.code: the code cannot be used"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			env := environment(t, "127.0.0.1:1", c.functions, c.routing)
			if c.resources != "" {
				env["RESOURCES_CONFIG_PATH"] = filepath.Join(env["ESB_HOME"], "resources.yml")
				require.NoError(t, os.WriteFile(env["RESOURCES_CONFIG_PATH"], []byte(c.resources), 0o600))
			}
			before, err := os.ReadDir(env["ESB_HOME"])
			require.NoError(t, err)
			_, err = app.Check(t.Context(), getenv(env), true)
			for _, want := range c.want {
				assert.ErrorContains(t, err, want)
			}
			after, err := os.ReadDir(env["ESB_HOME"])
			require.NoError(t, err)
			assert.Len(t, after, len(before), "it has made nothing")
		})
	}
}

func TestCheck_AsReload_LeavesCodeToTheGateway(t *testing.T) {
	env := environment(t, "127.0.0.1:1", "functions:\n  f: {runtime: python3.11, handler: app.handler, code: ./none}\n", oneRoute)
	_, err := app.Check(t.Context(), getenv(env), false)
	require.NoError(t, err)
}

func TestCheck_Certificate_IsOneProblemOfSeveral(t *testing.T) {
	env := environment(t, "127.0.0.1:1", "functions:\n  f: {image: \"f:1\", timeout: 0}\n", oneRoute)
	env["GATEWAY_HTTPS_ADDR"], env["TLS_CERT_FILE"], env["TLS_KEY_FILE"] = "127.0.0.1:1", "/nothing.crt", "/nothing.key"
	_, err := app.Check(t.Context(), getenv(env), true)
	assert.ErrorContains(t, err, "/nothing.crt")
	assert.ErrorContains(t, err, "functions.f.timeout")
}
