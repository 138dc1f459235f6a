package lambdaapi_test

import (
	"net/http"
	"net/http/httptest"
	"os/exec"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/edge-serverless-box/esb/gateway"
	"github.com/edge-serverless-box/esb/gateway/lambdaapi"
)

// TestCurl: curl signs in a way of its own, and the documentation's commands rely on it.
func TestCurl(t *testing.T) {
	curl, err := exec.LookPath("curl")
	if err != nil {
		t.Skip("curl is not installed")
	}
	f := &fake{result: gateway.Result{Payload: []byte(`"done"`), LogTail: "bG9n"}}
	api := newAPI(t, f)
	// turn is held while a request is served: what the fake saw is read after that.
	var turn sync.Mutex
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		turn.Lock()
		defer turn.Unlock()
		path, _, _ := strings.Cut(r.RequestURI, "?")
		api.Serve(lambdaapi.Call{W: w, R: r, Path: path})
	}))
	defer server.Close()
	run := func(path string, args ...string) string {
		t.Helper()
		args = append([]string{"-sSi", "--aws-sigv4", "aws:amz:us-east-1:lambda", "--user", accessKey + ":" + secretKey, server.URL + path}, args...)
		out, err := exec.CommandContext(t.Context(), curl, args...).CombinedOutput()
		require.NoError(t, err, "%s", out)
		return string(out)
	}
	const path = "/2015-03-31/functions/echo/invocations"
	assert.Contains(t, run(path, "-d", `{"a":1}`), `"done"`)
	turn.Lock()
	assert.Equal(t, `{"a":1}`, string(f.inv.Payload))
	turn.Unlock()
	assert.Contains(t, run(path, "-H", "X-Amz-Log-Type: Tail", "-H", "Content-Type: application/json", "-d", `{}`), "X-Amz-Log-Result: bG9n")
	assert.Contains(t, run(path, "-H", "X-Amz-Invocation-Type: Event", "-d", `{}`), " 202 ")
	// curl signs each header that it sends itself, and chunks a body on demand.
	assert.Contains(t, run(path, "-H", "Transfer-Encoding: chunked", "-H", "Content-Type: application/json", "-d", `{"b":2}`), `"done"`)
	assert.Contains(t, run("/2021-11-15/functions/echo/response-streaming-invocations", "--output", "-", "-d", `{}`), "InvokeComplete")
}
