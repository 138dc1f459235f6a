package lifecycle

import (
	"net/http"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/edge-serverless-box/esb/tests/stack"
)

// TestMemoryBudget_AnIdleWorkerMakesRoom: a function whose start finds no memory gets that of another one's idle worker.
func TestMemoryBudget_AnIdleWorkerMakesRoom(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) {
		path := filepath.Join(dir, name)
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
		require.NoError(t, os.WriteFile(path, []byte(text), 0o644))
	}
	write("app/app.py", "kept = []\ndef handler(event, context):\n    kept.append(b'x' * (int(event['queryStringParameters']['mb']) << 20))\n    return {'statusCode': 200}\n")
	const scaling = "timeout: 20, memory_size: 512, scaling: {max_capacity: 1}"
	write("functions.yml", "functions:\n"+
		"  large: {code: ./app, runtime: python3.11, handler: app.handler, "+scaling+"}\n"+
		"  small: {code: ./app, runtime: python3.11, handler: app.handler, "+scaling+"}\n")
	write("routing.yml", "routes:\n  - {path: /large, method: POST, function: large}\n  - {path: /small, method: POST, function: small}\n")
	// One that holds 150 MB leaves less than the 64 MB of a start.
	box := mustPrepare(t, stack.Options{FunctionsConfig: filepath.Join(dir, "functions.yml"), RoutingConfig: filepath.Join(dir, "routing.yml"), Env: []string{"ESB_STORES=off", "FUNCTION_MEMORY_BUDGET=200"}})
	t.Cleanup(func() { assert.NoError(t, box.Down()) })
	require.NoError(t, box.Up(t.Context()))
	token, err := box.Token(t.Context())
	require.NoError(t, err)

	answer := box.Post(t, "/large?mb=150", token, "{}")
	require.Equal(t, http.StatusOK, answer.Status, "%s", answer.Body)
	require.Len(t, box.Containers(t, "large"), 1)
	answer = box.Post(t, "/small?mb=0", token, "{}")
	require.Equal(t, http.StatusOK, answer.Status, "%s", answer.Body)
	assert.Empty(t, box.Containers(t, "large"), "its idle worker must be gone")
	require.Len(t, box.Containers(t, "small"), 1)
	answer = box.Post(t, "/large?mb=0", token, "{}")
	require.Equal(t, http.StatusOK, answer.Status, "%s", answer.Body)
	assert.Len(t, box.Containers(t, "small"), 1, "there is room for both while they hold little")
}
