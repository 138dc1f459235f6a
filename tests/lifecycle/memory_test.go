package lifecycle

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/edge-serverless-box/esb/tests/stack"
)

// TestMemoryBudget_AnIdleWorkerMakesRoom: a function whose start finds no memory gets that of another one's idle worker, and one that
// grows beyond the budget long after its start, too. Files that a function reads cost nobody a worker.
func TestMemoryBudget_AnIdleWorkerMakesRoom(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) {
		path := filepath.Join(dir, name)
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
		require.NoError(t, os.WriteFile(path, []byte(text), 0o644))
	}
	write("app/app.py", `import os, time
kept = []
def handler(event, context):
    q = event['queryStringParameters']
    kept.append(b'x' * (int(q['mb']) << 20))
    for _ in range(int(q.get('read', 0))):
        with open(__file__.replace('app.py', 'file'), 'rb') as f:
            os.posix_fadvise(f.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            while f.read(1 << 20):
                pass
    time.sleep(float(q.get('sleep', 0)))
    return {'statusCode': 200}
`)
	// What is in the cache is charged to who has read it first.
	write("app/file", strings.Repeat("0123456789abcdef", 180<<16))
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

	// Python itself holds some 15 MB.
	answer = box.Post(t, "/large?mb=0&read=1&sleep=5", token, "{}")
	require.Equal(t, http.StatusOK, answer.Status, "%s", answer.Body)
	require.Len(t, box.Containers(t, "small"), 1, "the cache of 180 MB counts for nobody")
	grown := make(chan int, 1)
	go func() {
		answer, err := box.Do(t.Context(), http.MethodPost, box.HTTPURL+"/large?mb=190&sleep=15", token, []byte("{}"))
		if !assert.NoError(t, err) {
			grown <- 0
			return
		}
		grown <- answer.Status
	}()
	require.Eventually(t, func() bool { return len(box.Containers(t, "small")) == 0 }, 14*time.Second, 100*time.Millisecond, "another one has grown beyond the budget")
	assert.Len(t, box.Containers(t, "large"), 1, "one at work stays, also the one that has grown")
	assert.Equal(t, http.StatusOK, <-grown)
	require.Eventually(t, func() bool { return len(box.Containers(t, "large")) == 0 }, 30*time.Second, 100*time.Millisecond, "it goes when it has no work")
}
