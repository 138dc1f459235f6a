package build

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/edge-serverless-box/esb/functions/runtimes/npm"
	"github.com/edge-serverless-box/esb/native"
	"github.com/edge-serverless-box/esb/native/apt"
	"github.com/edge-serverless-box/esb/native/console"
)

// playGo puts a go into the path that writes down how it is called, and makes what it is to build.
const playGo = `#!/bin/sh
echo "$(basename "$PWD") $*" >>"$GO_CALLS"
[ "$1" != env ] || { echo go1; exit; }
[ "$1" = build ] || exit 0
while [ "$1" != -o ]; do shift; done
out=$2
shift 2
for package; do echo "built $package" >"$out$(basename "$package")"; done
`

func mustPlay(t *testing.T) (root, dir string, out *bytes.Buffer, calls func() string) {
	t.Helper()
	root, dir, out = t.TempDir(), filepath.Join(t.TempDir(), "bin"), &bytes.Buffer{}
	path, log := t.TempDir(), filepath.Join(t.TempDir(), "calls")
	require.NoError(t, os.WriteFile(filepath.Join(path, "go"), []byte(playGo), 0o755))
	t.Setenv("PATH", path+string(filepath.ListSeparator)+os.Getenv("PATH"))
	t.Setenv("GO_CALLS", log)
	for _, module := range []string{"one", "two", "alone", "other"} {
		require.NoError(t, os.Mkdir(filepath.Join(root, module), 0o755))
	}
	return root, dir, out, func() string {
		text, err := os.ReadFile(log)
		require.NoError(t, err)
		return string(text)
	}
}

func target(module string, workspace bool) Target {
	return Target{Name: module, Module: module, Packages: []string{"./cmd/" + module}, Outputs: []string{module}, Sources: []string{module}, Workspace: workspace, Seconds: 60}
}

func TestPlan_LaterParts_AreFetchedBeforeTheyAreBuilt(t *testing.T) {
	root, dir, out, calls := mustPlay(t)
	targets := []Target{target("one", true), target("two", true), target("alone", false), target("other", false)}
	p, err := New(root, dir, console.New(out), &apt.Installer{}).Open(t.Context(), targets)
	require.NoError(t, err)
	assert.True(t, p.Missing(targets))
	require.NoError(t, p.Build(t.Context(), targets[:2]))
	assert.False(t, p.Missing(targets[:2]))
	assert.True(t, p.Missing(targets))
	require.NoError(t, p.Build(t.Context(), targets))
	require.NoError(t, p.Close())
	assert.FileExists(t, filepath.Join(dir, "other"))

	said := calls()
	root = filepath.Base(root)
	assert.Contains(t, said, root+" build -trimpath -buildvcs=false -ldflags -s -w -o ", "those of the workspace by one run, in its folder")
	assert.Contains(t, said, "/ ./one/cmd/one ./two/cmd/two\n")
	assert.NotContains(t, said, root+" list", "what is built first fetches what it needs itself")
	for _, module := range []string{"alone", "other"} {
		fetched, built := strings.Index(said, module+" list -deps -f  ./cmd/"+module), strings.Index(said, module+" build")
		require.GreaterOrEqual(t, fetched, 0, said)
		assert.Less(t, fetched, built, said)
		assert.Equal(t, 1, strings.Count(said, module+" build"), said)
	}
	assert.Contains(t, out.String(), "==> building 4 programs from pinned sources, for the first time: about ")
	assert.Contains(t, out.String(), "==> building one, two\n")

	out.Reset()
	require.NoError(t, New(root, dir, console.New(out), &apt.Installer{}).Build(t.Context(), nil))
	assert.Empty(t, out.String())
}

func TestPlan_NotFetched_FailsWhereItIsNeeded(t *testing.T) {
	root, dir, out, _ := mustPlay(t)
	t.Setenv("npm_config_registry", "http://127.0.0.1:1/")
	t.Setenv("npm_config_fetch_retries", "0")
	first, fromNPM := target("one", true), Target{Name: "program", Module: "alone", Outputs: []string{"program"}, NPM: &npm.Package{Name: "nothing", Version: "1.0.0"}}
	p, err := New(root, dir, console.New(out), &apt.Installer{}).Open(t.Context(), []Target{first, fromNPM})
	require.NoError(t, err)
	require.NoError(t, p.Build(t.Context(), []Target{first}))
	err = p.Build(t.Context(), []Target{fromNPM})
	require.Len(t, native.Problems(err), 1)
	assert.ErrorContains(t, err, "fetching nothing 1.0.0 from npm failed")
	require.NoError(t, p.Close())
	left, err := filepath.Glob(filepath.Join(dir, scratch+"*"))
	require.NoError(t, err)
	assert.Empty(t, left)
}

func TestProgress_SaysWhatIsLeft(t *testing.T) {
	p := progress{todo: 400, pace: 0.5}
	assert.Equal(t, "about 3 minutes", words(p.left(0, 0)))
	assert.Equal(t, "about 3 minutes", words(p.left(100, 40*time.Second)))
	assert.Equal(t, 300*time.Second, p.left(100, 100*time.Second), "half as fast as was to be expected")
	p.did(100, 100*time.Second)
	assert.Equal(t, 300*time.Second, p.left(0, 0))
	p.did(200, 20*time.Second)
	assert.Equal(t, 40*time.Second, p.left(0, 0))
	assert.Equal(t, "a few seconds", words(p.left(100, 30*time.Second)))
	assert.Equal(t, "about 80 seconds", words(80*time.Second))
}
