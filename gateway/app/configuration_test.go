package app_test

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/edge-serverless-box/esb/gateway"
	"github.com/edge-serverless-box/esb/gateway/app"
	"github.com/edge-serverless-box/esb/gateway/config"
	"github.com/edge-serverless-box/esb/gateway/httpapi"
)

// version is one of two configurations that differ in all that a configuration says.
type version struct {
	functions, routing, resources string
	// want is what bench.look sees.
	want map[string]string
}

// bench is a gateway whose functions answer with what they are told of the configuration.
type bench struct {
	*running
	idp *httptest.Server

	mu    sync.Mutex
	calls []string // of the functions that destinations name, by image
	asked []string // of the issuer
}

// versions are the two configurations, for an issuer at that address.
func versions(idp string) (a, b version) {
	const functions = `
functions:
  f: {image: "f:%[1]s", schedule: rate(%[2]d minutes), s3: [{bucket: bucket-%[1]s, access: read}]}
  only-%[1]s: {image: "only:%[1]s"}
  e: {image: "e:1", async: {on_success: h%[1]s}}
  ha: {image: "h:a"}
  hb: {image: "h:b"}
  allow: {image: "allow:1"}
  deny: {image: "deny:1"}
`
	const routing = `
stage: stage-%[1]s
api_keys: {key: the-key-of-version-%[1]s}
issuers: {corp: {issuer: "%[2]s/%[1]s", jwks_url: "%[2]s/%[1]s/keys", audiences: [app]}}
cors: {allow_origins: ["https://%[1]s.example"]}
gateway_responses: {missing_authentication_token: {status: %[3]d}}
routes:
  - {path: /f, method: GET, function: f, auth: none}
  - {path: /%[1]s, method: GET, function: f, auth: none}
  - {path: /key, method: GET, function: f, auth: api_key}
  - {path: /corp, method: GET, function: f, auth: {jwt: corp}}
  - {path: /guarded, method: GET, function: f, auth: {function: %[4]s, cache: 60}}
  - {path: /limited, method: GET, function: f, auth: none, throttle: {rate: 0.02, burst: %[5]d}}
`
	a = version{
		functions: fmt.Sprintf(functions, "a", 5), resources: "buckets: {files-a: {}}\n",
		routing: fmt.Sprintf(routing, "a", idp, 410, "allow", 1000000),
		want: map[string]string{
			"function": "f:a", "stage": "stage-a", "routes": "200 410", "API keys": "200 403", "issuers": "503 401, asked /a/keys", "CORS": "https://a.example",
			"authorizers": "200", "throttles": "200", "Lambda's API": "200 404", "destinations": "h:a", "schedules": "rate(5 minutes)",
			"resources": "files-a", "access to stores": "bucket-a", "substitutes": "",
		},
	}
	b = version{
		functions: fmt.Sprintf(functions, "b", 7) + "  node: {code: ./none, runtime: nodejs20.x, handler: a.b}\n", resources: "buckets: {files-b: {}}\n",
		routing: fmt.Sprintf(routing, "b", idp, 411, "deny", 1),
		want: map[string]string{
			"function": "f:b", "stage": "stage-b", "routes": "411 200", "API keys": "403 200", "issuers": "401 503, asked /b/keys", "CORS": "https://b.example",
			"authorizers": "403", "throttles": "429", "Lambda's API": "404 200", "destinations": "h:b", "schedules": "rate(7 minutes)",
			"resources": "files-b", "access to stores": "bucket-b", "substitutes": "nodejs20.x by nodejs24.x (node)",
		},
	}
	return a, b
}

// mustBench runs a gateway with the first or the second of its versions.
func mustBench(t *testing.T, choose func(a, b version) version) (r *bench, a, b version) {
	t.Helper()
	r = &bench{}
	r.idp = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		r.mu.Lock()
		r.asked = append(r.asked, req.URL.Path)
		r.mu.Unlock()
		http.Error(w, "no keys", http.StatusInternalServerError)
	}))
	t.Cleanup(r.idp.Close)
	a, b = versions(r.idp.URL)
	_, addr := mustAgent(t, http.HandlerFunc(r.work))
	first := choose(a, b)
	env := environment(t, addr, first.functions, first.routing)
	env["RESOURCES_CONFIG_PATH"] = filepath.Join(env["ESB_HOME"], "resources.yml")
	require.NoError(t, os.WriteFile(env["RESOURCES_CONFIG_PATH"], []byte(first.resources), 0o600))
	r.running = mustRun(t, env)
	return r, a, b
}

// work is what all functions do.
func (r *bench) work(w http.ResponseWriter, req *http.Request) {
	var e struct{ RequestContext struct{ Stage string } }
	_ = json.NewDecoder(req.Body).Decode(&e)
	image := req.Header.Get(imageHeader)
	w.Header().Set("Content-Type", "application/json")
	switch name, _, _ := strings.Cut(image, ":"); name {
	case "h":
		r.mu.Lock()
		r.calls = append(r.calls, image)
		r.mu.Unlock()
		_, _ = w.Write([]byte(`{}`))
	case "allow", "deny":
		_, _ = fmt.Fprintf(w, `{"principalId":"me","policyDocument":{"Statement":[{"Effect":%q,"Action":"execute-api:Invoke","Resource":"*"}]}}`,
			map[string]string{"allow": "Allow", "deny": "Deny"}[name])
	default:
		_, _ = fmt.Fprintf(w, `{"statusCode":200,"body":"%s %s"}`, image, e.RequestContext.Stage)
	}
}

// look sees what the gateway does of all that a configuration says.
func (r *bench) look(t *testing.T) map[string]string {
	t.Helper()
	get := func(path string, header http.Header) (int, http.Header, string) {
		return request(t, "GET", r.url+path, header, "")
	}
	status := func(path string, header http.Header) int { code, _, _ := get(path, header); return code }
	seen := map[string]string{}
	_, _, body := get("/f", nil)
	seen["function"], seen["stage"], _ = strings.Cut(body, " ")
	seen["routes"] = fmt.Sprint(status("/a", nil), status("/b", nil))
	seen["API keys"] = fmt.Sprint(status("/key", http.Header{"X-Api-Key": {"the-key-of-version-a"}}), " ", status("/key", http.Header{"X-Api-Key": {"the-key-of-version-b"}}))
	seen["issuers"] = fmt.Sprint(status("/corp", r.tokenOf("a")), status("/corp", r.tokenOf("b")))
	r.mu.Lock()
	seen["issuers"] += ", asked " + r.asked[len(r.asked)-1]
	r.mu.Unlock()
	for _, origin := range []string{"https://a.example", "https://b.example"} {
		_, header, _ := get("/nowhere", http.Header{"Origin": {origin}})
		seen["CORS"] += header.Get("Access-Control-Allow-Origin")
	}
	seen["authorizers"] = fmt.Sprint(status("/guarded", http.Header{"Authorization": {"me"}}))
	_ = status("/limited", nil)
	seen["throttles"] = fmt.Sprint(status("/limited", nil))
	onlyA, _, _ := invoke(t, r.url, "only-a", "{}")
	onlyB, _, _ := invoke(t, r.url, "only-b", "{}")
	seen["Lambda's API"] = fmt.Sprint(onlyA, onlyB)
	seen["destinations"] = r.destination(t)
	seen["schedules"] = r.among(t, "/schedules", "rate(5 minutes)", "rate(7 minutes)")
	seen["resources"] = r.among(t, "/readyz", "files-a", "files-b")
	seen["substitutes"] = r.among(t, "/configuration", "nodejs20.x by nodejs24.x (node)")
	access, err := os.ReadFile(filepath.Join(r.env["ESB_HOME"], "function-access.json"))
	require.NoError(t, err)
	seen["access to stores"] = which(string(access), "bucket-a", "bucket-b")
	return seen
}

// destination is the function that hears of an event that has run.
func (r *bench) destination(t *testing.T) string {
	t.Helper()
	r.mu.Lock()
	before := len(r.calls)
	r.mu.Unlock()
	code, _, body := invokeAs(t, r.url, "e", "{}", "Event")
	require.Equal(t, 202, code, body)
	var called string
	require.Eventually(t, func() bool {
		r.mu.Lock()
		defer r.mu.Unlock()
		if len(r.calls) > before {
			called = r.calls[len(r.calls)-1]
		}
		return called != ""
	}, patience, 5*time.Millisecond, "the event has run")
	return called
}

// among is which of texts the admin listener has at path.
func (r *bench) among(t *testing.T, path string, texts ...string) string {
	t.Helper()
	_, body := r.ask(t, "GET", path)
	return which(body, texts...)
}

func which(text string, of ...string) string {
	return strings.Join(slices.DeleteFunc(slices.Clone(of), func(s string) bool { return !strings.Contains(text, s) }), " ")
}

// tokenOf is a token that nobody has signed.
func (r *bench) tokenOf(version string) http.Header {
	part := base64.RawURLEncoding.EncodeToString
	return http.Header{"Authorization": {"Bearer " + part([]byte(`{"alg":"RS256","kid":"k"}`)) + "." + part([]byte(`{"iss":"`+r.idp.URL+"/"+version+`"}`)) + "." + part([]byte("signature"))}}
}

// reload has the gateway read v, and waits until what it takes over serves: the workers that functions had serve until then.
func (r *bench) reload(t *testing.T, v version) (int, string) {
	t.Helper()
	for name, text := range map[string]string{"FUNCTIONS_CONFIG_PATH": v.functions, "ROUTING_CONFIG_PATH": v.routing, "RESOURCES_CONFIG_PATH": v.resources} {
		r.write(t, name, text)
	}
	code, body := r.ask(t, "POST", "/reload")
	require.Eventually(t, func() bool {
		_, pools := r.ask(t, "GET", "/pools")
		return !outdated.MatchString(pools)
	}, patience, 5*time.Millisecond, "the new workers serve")
	return code, body
}

var outdated = regexp.MustCompile(`"outdated": *[1-9]`)

// A start and a reload come to the same, in all that a configuration says.
func TestApp_StartAndReload_ApplyAllOfAConfiguration(t *testing.T) {
	started, _, b := mustBench(t, func(_, b version) version { return b })
	assert.Equal(t, b.want, started.look(t), "a start")
	reloaded, a, b := mustBench(t, func(a, _ version) version { return a })
	assert.Equal(t, a.want, reloaded.look(t), "another start")
	code, body := reloaded.reload(t, b)
	require.Equal(t, 200, code, body)
	assert.Equal(t, b.want, reloaded.look(t), "a reload")

	// What is new in these types must be applied, and seen by look.
	fields := func(value any) (names []string) {
		for _, f := range reflect.VisibleFields(reflect.TypeOf(value)) {
			names = append(names, f.Name)
		}
		return names
	}
	assert.Equal(t, []string{"Functions", "NamesStores", "Routes", "API", "Replies", "Access", "Resources", "Images", "Code"}, fields(config.Config{})) // the last two are for `check` alone
	assert.Equal(t, []string{"APIKeys", "Issuers", "CORS", "Throttle"}, fields(gateway.Access{}))
	assert.Equal(t, []string{"Matcher", "API", "Replies", "CORS", "Throttle", "Limits", "Auth", "Authorizers"}, fields(httpapi.Routing{}))
}

// look sees each part that a reload leaves out.
func TestApp_PartLeftOut_IsSeen(t *testing.T) {
	r, _, _ := mustBench(t, func(a, _ version) version { return a })
	for i, name := range r.app.Parts()[:len(r.app.Parts())-1] { // the last is done when it is compiled
		t.Run(name, func(t *testing.T) {
			r, _, b := mustBench(t, func(a, _ version) version { return a })
			r.app.LeaveOut(i)
			code, body := r.reload(t, b)
			require.Equal(t, 200, code, body)
			assert.NotEqual(t, b.want, r.look(t))
		})
	}
}

// Whatever part of a configuration fails, the old one serves whole; and the new one does as soon as it can.
func TestApp_PartThatFails_LeavesTheOldWhole(t *testing.T) {
	r, a, b := mustBench(t, func(a, _ version) version { return a })
	for i, name := range r.app.Parts() {
		mend := r.app.Break(i)
		code, body := r.reload(t, b)
		assert.Equal(t, 422, code, name)
		assert.Contains(t, body, app.ErrBroken.Error(), name)
		assert.Equal(t, a.want, r.look(t), name)
		mend()
	}
	code, body := r.reload(t, b)
	require.Equal(t, 200, code, body)
	assert.Equal(t, b.want, r.look(t))
}
