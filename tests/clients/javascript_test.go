package clients

import (
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/edge-serverless-box/esb/tests/packages"
	"github.com/edge-serverless-box/esb/tests/stack"
)

// TestJavaScript_V3 runs testdata/javascript with Node.js's own test runner; what fails there stands in its output.
func TestJavaScript_V3(t *testing.T) {
	folder := t.TempDir()
	root, err := stack.RepositoryRoot()
	require.NoError(t, err)
	require.NoError(t, packages.NewCache(root).NPM(t.Context(), filepath.Join("testdata", "javascript"), folder, false))
	node, err := filepath.Glob(filepath.Join(folder, "node_modules", "node-linux-*", "bin", "node"))
	require.NoError(t, err)
	require.Len(t, node, 1, "the Node.js of this architecture")
	cmd := exec.CommandContext(t.Context(), node[0], "--test", "--test-reporter=spec", "client.test.js")
	cmd.Dir, cmd.Env = folder, environment()
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
	require.Regexp(t, `(?m)^ℹ pass 6$`, string(out))
}
