package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/edge-serverless-box/esb/tests/hoststate"
	"github.com/edge-serverless-box/esb/tests/issuer"
	"github.com/edge-serverless-box/esb/tests/stack"
)

// event is what a route's function saw of its caller.
type event struct {
	RequestContext struct {
		Authorizer map[string]any
		Identity   map[string]any
	}
}

func ask(t *testing.T, method, path, token string, header ...string) (stack.Answer, event) {
	t.Helper()
	answer, err := box.Do(t.Context(), method, box.HTTPURL+path, token, nil, header...)
	require.NoError(t, err)
	var e event
	if answer.Status == http.StatusOK {
		require.NoError(t, json.Unmarshal(answer.Body, &e), "%s", answer.Body)
	}
	return answer, e
}

func TestAuthorizer_Policy(t *testing.T) {
	first, seen := ask(t, http.MethodGet, "/guarded/policy", "allow")
	require.Equal(t, http.StatusOK, first.Status, "%s", first.Body)
	told := seen.RequestContext.Authorizer
	assert.Equal(t, "user-of-allow", told["principalId"])
	assert.Equal(t, []any{"acme", "3", "true", "REQUEST"}, []any{told["tenant"], told["level"], told["beta"], told["type"]}, "context as strings")
	assert.IsType(t, 0.0, told["integrationLatency"])

	_, again := ask(t, http.MethodGet, "/guarded/policy", "allow")
	assert.Equal(t, told["asked"], again.RequestContext.Authorizer["asked"], "the answer was cached")
	assert.Zero(t, again.RequestContext.Authorizer["integrationLatency"])

	for _, c := range []struct {
		method, token string
		status        int
		body, kind    string
	}{
		{"GET", "allow-get", 200, "", ""},
		{"POST", "allow-get", 403, `{"Message":"User is not authorized to access this resource"}`, "AccessDeniedException"},
		{"GET", "deny", 403, `{"Message":"User is not authorized to access this resource with an explicit deny"}`, "AccessDeniedException"},
		{"GET", "", 401, `{"message":"Unauthorized"}`, "UnauthorizedException"},
		{"GET", "unauthorized", 401, `{"message":"Unauthorized"}`, "UnauthorizedException"},
		{"GET", "broken", 500, `{"message":null}`, "AuthorizerConfigurationException"},
		{"GET", "stranger", 500, `{"message":null}`, "AuthorizerFailureException"},
	} {
		t.Run(c.method+" "+c.token, func(t *testing.T) {
			answer, _ := ask(t, c.method, "/guarded/policy", c.token)
			assert.Equal(t, c.status, answer.Status, "%s", answer.Body)
			if c.status != 200 {
				assert.Equal(t, c.body, string(answer.Body))
				assert.Equal(t, c.kind, answer.Header.Get("x-amzn-ErrorType"))
			}
		})
	}
}

func TestAuthorizer_OtherForms(t *testing.T) {
	_, seen := ask(t, http.MethodGet, "/guarded/simple", "allow")
	lambda, ok := seen.RequestContext.Authorizer["lambda"].(map[string]any)
	require.True(t, ok, "%v", seen)
	assert.Equal(t, []any{"acme", 3.0, true}, []any{lambda["tenant"], lambda["level"], lambda["beta"]}, "context with its types")
	answer, _ := ask(t, http.MethodGet, "/guarded/simple", "deny")
	assert.Equal(t, http.StatusForbidden, answer.Status)
	assert.Equal(t, `{"message":"Forbidden"}`, string(answer.Body))

	_, seen = ask(t, http.MethodGet, "/guarded/token", "", "X-Token", "allow")
	assert.Equal(t, "TOKEN", seen.RequestContext.Authorizer["type"])
	first := seen.RequestContext.Authorizer["asked"]
	_, seen = ask(t, http.MethodGet, "/guarded/token", "", "X-Token", "allow")
	assert.NotEqual(t, first, seen.RequestContext.Authorizer["asked"], "cache: 0")

	_, seen = ask(t, http.MethodGet, "/keyed/named", "", "x-api-key", "partner-key-0123456789")
	assert.Equal(t, "partner", seen.RequestContext.Identity["apiKeyId"])
	assert.Equal(t, "partner-key-0123456789", seen.RequestContext.Identity["apiKey"])
	answer, _ = ask(t, http.MethodGet, "/keyed/named", "", "x-api-key", stack.APIKey)
	assert.Equal(t, http.StatusForbidden, answer.Status)
}

func TestCORSAndThrottle(t *testing.T) {
	const page = "https://shop.example.com"
	preflight, err := box.Do(t.Context(), http.MethodOptions, box.HTTPURL+"/guarded/cors", "", nil,
		"Origin", page, "Access-Control-Request-Method", "GET", "Access-Control-Request-Headers", "authorization")
	require.NoError(t, err)
	assert.Equal(t, http.StatusNoContent, preflight.Status)
	assert.Equal(t, page, preflight.Header.Get("Access-Control-Allow-Origin"))
	assert.Equal(t, "GET", preflight.Header.Get("Access-Control-Allow-Methods"))
	assert.Contains(t, preflight.Header.Get("Access-Control-Allow-Headers"), "Authorization")
	refused, _ := ask(t, http.MethodGet, "/guarded/cors", "", "Origin", page)
	assert.Equal(t, http.StatusUnauthorized, refused.Status)
	assert.Equal(t, page, refused.Header.Get("Access-Control-Allow-Origin"), "a page must be able to read the error")
	good, _ := ask(t, http.MethodGet, "/guarded/cors", token, "Origin", page)
	assert.Equal(t, http.StatusOK, good.Status)
	assert.Equal(t, "Origin", good.Header.Get("Vary"))

	statuses := map[int]int{}
	var last stack.Answer
	for range 5 {
		last, _ = ask(t, http.MethodGet, "/guarded/throttled", "")
		statuses[last.Status]++
	}
	assert.Equal(t, map[int]int{200: 3, 429: 2}, statuses, "a burst of 3, and less than one a minute")
	assert.Equal(t, `{"message":"Too Many Requests"}`, string(last.Body))
	assert.NotEmpty(t, last.Header.Get("Retry-After"))
}

// TestIssuer_OutlivesItsNetwork is one story: keys are fetched, change, and stay good when issuer and gateway go.
func TestIssuer_OutlivesItsNetwork(t *testing.T) {
	way, err := stack.ChosenWay()
	require.NoError(t, err)
	if way != stack.Native {
		t.Skip("the issuer is a server of this test on 127.0.0.1, and the gateway is killed as a process")
	}
	idp, err := issuer.Open()
	require.NoError(t, err)
	stopped := false
	stop := func() {
		if !stopped {
			idp.Stop()
			stopped = true
		}
	}
	defer stop()
	before, err := os.ReadFile(routingFile)
	require.NoError(t, err)
	reload := func(text string) {
		require.NoError(t, os.WriteFile(routingFile, []byte(text), 0o644))
		answer, err := box.Do(t.Context(), http.MethodPost, box.AdminURL+"/reload", "", nil)
		require.NoError(t, err)
		require.Equal(t, http.StatusOK, answer.Status, "%s", answer.Body)
	}
	defer func() { reload(string(before)) }()
	reload(fmt.Sprintf("issuers:\n  corp: {issuer: %q, audiences: [app]}\n", idp.URL) + string(before) +
		"  - {path: /issued, method: GET, function: lambda-event, payload: \"2.0\", auth: {jwt: [box, corp]}}\n" +
		"  - {path: /issued/write, method: GET, function: lambda-event, payload: \"2.0\", auth: {jwt: corp, scopes: [write]}}\n")
	sign := func(id string, claims map[string]any) string {
		token, err := idp.Token(id, claims)
		require.NoError(t, err)
		return token
	}
	status := func(path, token string) int {
		answer, _ := ask(t, http.MethodGet, path, token)
		return answer.Status
	}
	rsaToken, ecToken := sign("rsa-1", nil), sign("ec-1", nil)
	answer, seen := ask(t, http.MethodGet, "/issued", rsaToken)
	require.Equal(t, http.StatusOK, answer.Status, "%s", answer.Body)
	claims, ok := seen.RequestContext.Authorizer["jwt"].(map[string]any)["claims"].(map[string]any)
	require.True(t, ok, "%v", seen)
	assert.Equal(t, []any{"someone", "app", idp.URL}, []any{claims["sub"], claims["aud"], claims["iss"]})
	assert.Equal(t, 200, status("/issued", ecToken))
	assert.Equal(t, 200, status("/issued", token), "the box's own token")
	assert.Equal(t, 403, status("/issued/write", rsaToken), "without the scope")
	assert.Equal(t, 200, status("/issued/write", sign("rsa-1", map[string]any{"scope": "read write"})))
	refused, _ := ask(t, http.MethodGet, "/issued", sign("rsa-1", map[string]any{"aud": "other"}))
	assert.Equal(t, 401, refused.Status)
	assert.Equal(t, `Bearer scope="" error="invalid_token" error_description="the token does not have a valid audience"`, refused.Header.Get("Www-Authenticate"))

	require.NoError(t, idp.Publish("ec-1", "rsa-2"))
	rotated := sign("rsa-2", nil)
	stack.Eventually(t, func() bool { return status("/issued", rotated) == 200 }, "a new key must be noticed by the first token that it signed")
	assert.Equal(t, 401, status("/issued", rsaToken), "and the old one is no good any more")

	stop()
	assert.Equal(t, 200, status("/issued", sign("rsa-2", map[string]any{"sub": "offline"})), "without the issuer")
	processes, err := hoststate.Processes(box.Home, box.BinDir, box.Bridge)
	require.NoError(t, err)
	killed := 0
	for _, p := range processes {
		if p.Program == filepath.Join(box.BinDir, "gateway") {
			require.NoError(t, syscall.Kill(p.PID, syscall.SIGKILL))
			killed++
		}
	}
	require.Equal(t, 1, killed)
	require.NoError(t, box.Up(t.Context()))
	assert.Equal(t, 200, status("/issued", sign("ec-1", map[string]any{"sub": "restarted"})), "after a restart without the issuer")
	assert.Equal(t, 401, status("/issued", rsaToken))
	kept, err := filepath.Glob(filepath.Join(box.Home, "gateway", "jwks", "corp-*.json"))
	require.NoError(t, err)
	assert.Len(t, kept, 1, strings.Join(kept, " "))
}
