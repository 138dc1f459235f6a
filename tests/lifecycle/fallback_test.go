package lifecycle

import (
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/edge-serverless-box/esb/tests/stack"
)

const fallbackYML = `functions:
  one: {image: "my/one:1", timeout: 10, memory_size: 1769, scaling: {max_capacity: 1}}
`

// TestFallback_OneSlotAndABrokenImage_TheOneBeforeServesOn: its new image cannot start, there is no slot to find that out beside the old
// one, and the old one's name is the new one's. No request fails, and a new image that works is taken over.
func TestFallback_OneSlotAndABrokenImage_TheOneBeforeServesOn(t *testing.T) {
	dir := t.TempDir()
	root, err := stack.RepositoryRoot()
	require.NoError(t, err)
	program, err := stack.BuildProgram(root, dir, "./functions/lambda-echo", "-tags", "lambda.norpc")
	require.NoError(t, err)
	text := filepath.Join(dir, "text")
	require.NoError(t, os.WriteFile(text, []byte("no program\n"), 0o755))
	build := func(args ...string) []byte {
		archive, err := stack.BuildImage(root, dir, "my/one:1", append(args, "-entrypoint", "/var/task/bootstrap")...)
		require.NoError(t, err)
		data, err := os.ReadFile(archive)
		require.NoError(t, err)
		return data
	}
	broken := build("-file", "/var/task/bootstrap="+text)
	next := build("-file", "/var/task/bootstrap="+program, "-file", "/var/task/more="+text)
	good := build("-file", "/var/task/bootstrap="+program)
	d := &disturbed{functions: filepath.Join(dir, "functions.yml")}
	require.NoError(t, os.WriteFile(d.functions, []byte(fallbackYML), 0o644))
	routing := filepath.Join(dir, "routing.yml")
	require.NoError(t, os.WriteFile(routing, []byte("routes:\n  - {path: /echo, method: POST, function: one}\n"), 0o644))
	d.Stack = mustPrepare(t, stack.Options{FunctionsConfig: d.functions, RoutingConfig: routing})
	archive := filepath.Join(d.Home, "images", "one.tar")
	put := func(data []byte) {
		require.NoError(t, os.MkdirAll(filepath.Dir(archive), 0o755))
		require.NoError(t, os.WriteFile(archive+".part", data, 0o644))
		require.NoError(t, os.Rename(archive+".part", archive))
	}
	put(good)
	t.Cleanup(func() { assert.NoError(t, d.Down()) })
	require.NoError(t, d.Up(t.Context()))
	d.token, err = d.Token(t.Context())
	require.NoError(t, err)
	first := d.mustEcho(t)
	digest := d.Containers(t, "one")[0].GetImageDigest()

	stop := d.keepAsking(t)
	put(broken)
	var said fallenBack
	stack.Eventually(t, func() bool {
		said = d.fallenBack(t)
		list := d.Containers(t, "one")
		return said.Outdated == 1 && said.Error != "" && len(list) == 1 && list[0].GetImageDigest() == digest && d.mustEcho(t) != first
	}, "the image of before must serve, in another container")
	assert.Contains(t, said.Error, "the configuration before the present one still serves")
	t.Logf("%s", said.Error)

	t.Logf("%d requests, none failed", stop())
	// A box that is started while the change is bad serves what was known to work, and still says what is wrong.
	require.NoError(t, d.Down())
	require.NoError(t, d.Up(t.Context()))
	d.token, err = d.Token(t.Context())
	require.NoError(t, err)
	d.mustEcho(t)
	stack.Eventually(t, func() bool {
		said = d.fallenBack(t)
		list := d.Containers(t, "one")
		return said.Outdated == 1 && said.Error != "" && len(list) == 1 && list[0].GetImageDigest() == digest
	}, "the image of before must serve after down and up")
	t.Logf("%s", said.Error)
	stop = d.keepAsking(t)

	put(next)
	stack.Eventually(t, func() bool {
		said = d.fallenBack(t)
		list := d.Containers(t, "one")
		return said.Outdated == 0 && said.Error == "" && len(list) == 1 && list[0].GetImageDigest() != digest
	}, "what works must be taken over")
	t.Logf("%d requests, none failed", stop())
}

// fallenBack is what the admin listener says of a pool whose change has failed.
type fallenBack struct {
	Function string
	Outdated int
	Error    string
}

func (d *disturbed) fallenBack(t *testing.T) fallenBack {
	t.Helper()
	answer, err := d.Do(t.Context(), http.MethodGet, d.AdminURL+"/pools", "", nil)
	require.NoError(t, err)
	var list struct{ Pools []fallenBack }
	require.NoError(t, json.Unmarshal(answer.Body, &list), "%s", answer.Body)
	require.Len(t, list.Pools, 1)
	return list.Pools[0]
}
