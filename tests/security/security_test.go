// Package security tries what an attacker would, on a real box: a hostile client, a hostile function, a local user
// without rights, and an operator who makes a mistake. Each try is one that got through once, or stands beside one; the
// table at the end says what was tried and what was denied. docs/security.md says what the box promises.
package security

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/edge-serverless-box/esb/tests/stack"
)

// box is the stack that the tests of this package share; TestMain owns it. Tests that need another one make their own.
var box *stack.Stack

// tried is what has been tried in this run.
var tried claims

func TestMain(m *testing.M) {
	if deed := os.Getenv(asUser); deed != "" {
		os.Exit(doDeed(deed))
	}
	os.Exit(runTests(m))
}

func runTests(m *testing.M) int {
	remove, err := shareProgram()
	if remove != nil {
		defer remove()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return stack.RunTests("security", prepare, func(context.Context) (int, error) {
		code := m.Run()
		root, err := stack.RepositoryRoot()
		if err != nil {
			return 1, err
		}
		text := tried.table()
		fmt.Println(text)
		return code, os.WriteFile(filepath.Join(root, ".esb", "security.txt"), []byte(text), 0o644)
	})
}

// prepare makes the box of the tests.
func prepare(root, home string) (_ *stack.Stack, err error) {
	// A local user must be kept out by the box, not by the test's folder.
	if err := os.Chmod(home, 0o755); err != nil {
		return nil, err
	}
	config := filepath.Join(home, "config")
	if err := os.CopyFS(config, os.DirFS(filepath.Join(root, "tests", "security", "testdata"))); err != nil {
		return nil, err
	}
	box, err = stack.Prepare(home, stack.Options{
		FunctionsConfig: filepath.Join(config, "functions.yml"),
		RoutingConfig:   filepath.Join(config, "routing.yml"),
		ResourcesConfig: filepath.Join(config, "resources.yml"),
		Env:             []string{fmt.Sprintf("GATEWAY_BUFFER_MB=%d", budgetBytes>>20), "FUNCTION_EGRESS_DENY=198.18.44.0/24"},
	})
	return box, err
}

// inside runs Python in the hostile function: testdata/shell/app.py says what is at hand there. It returns what the code
// has left in `result`, as JSON reads it.
func inside(t *testing.T, code string) any {
	t.Helper()
	answer := box.Post(t, "/shell", "", code)
	require.Equal(t, http.StatusOK, answer.Status, "%s", answer.Body)
	var got struct {
		Result any
		Error  string
	}
	require.NoError(t, json.Unmarshal(answer.Body, &got), "%s", answer.Body)
	require.Empty(t, got.Error)
	return got.Result
}

func TestHostileFunction_ReachesNoOther(t *testing.T) {
	attempt(t, function, "read another function's process, memory or environment", func(t *testing.T) {
		box.Post(t, "/victim", "", "{}")
		require.Equal(t, float64(0), inside(t, `
result = 0
for pid in os.listdir("/proc"):
    if pid.isdigit():
        try:
            result += b"hunter2" in open("/proc/%s/environ" % pid, "rb").read()
        except OSError:
            pass
`))
	})
	attempt(t, function, "invoke a function that `invoke:` does not name", func(t *testing.T) {
		status := inside(t, `
status, headers, body = signed("lambda", "POST", os.environ["AWS_ENDPOINT_URL_LAMBDA"] + "/2015-03-31/functions/victim/invocations", "{}")
result = status
`)
		require.Equal(t, float64(http.StatusForbidden), status)
	})
}

func TestLocalUser_ReadsNoFile(t *testing.T) {
	for _, file := range []string{"jwt.key", "function-keys"} {
		attempt(t, localUser, "read "+file, func(t *testing.T) {
			requireClosed(t, filepath.Join(box.Home, "gateway", file))
		})
	}
}
