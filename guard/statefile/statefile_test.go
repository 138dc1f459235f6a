package statefile_test

import (
	"encoding/json"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/edge-serverless-box/esb/guard/statefile"
)

type content struct {
	Name  string         `json:"name"`
	Times map[string]int `json:"times,omitempty"`
}

func form() statefile.Form { return statefile.Form{Version: 2, Lost: "Lost is the name."} }

func TestWrite_SaysItsVersionFirst_AndReadReturnsTheContent(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state.json")
	want := content{Name: "a", Times: map[string]int{"x": 1}}
	require.NoError(t, form().Write(path, want, 0o640))
	data, err := os.ReadFile(path)
	require.NoError(t, err)
	assert.Equal(t, "{\n  \"version\": 2,\n  \"name\": \"a\",\n  \"times\": {\n    \"x\": 1\n  }\n}\n", string(data))
	info, err := os.Stat(path)
	require.NoError(t, err)
	assert.Equal(t, fs.FileMode(0o640), info.Mode().Perm())
	var got content
	require.NoError(t, form().Read(path, &got))
	assert.Equal(t, want, got)
	version, err := form().VersionIn(path, data)
	require.NoError(t, err)
	assert.Equal(t, 2, version)

	require.NoError(t, form().Write(path, struct{}{}, 0o600))
	require.NoError(t, form().Read(path, &got), "no members at all")
	assert.ErrorContains(t, form().Write(path, []string{"a"}, 0o600), "no JSON object")
}

func TestRead_NoFile_IsNotExist(t *testing.T) {
	assert.ErrorIs(t, form().Read(filepath.Join(t.TempDir(), "none"), new(content)), fs.ErrNotExist)
}

func TestRead_OfNoUse_NamesFileVersionsAndCure(t *testing.T) {
	for name, c := range map[string]struct {
		text  string
		newer bool
		want  []string
	}{
		"newer":              {`{"version": 3, "name": {"other": "form"}}`, true, []string{"version 3", "version 2 at most", "Use the newer esb again", "Lost is the name."}},
		"newer, as a text":   {`{"version": "3"}`, true, []string{"version 3"}},
		"empty":              {"", false, []string{"damaged", "no JSON object", "Move the file away. Lost is the name."}},
		"cut":                {`{"version": 2, "name": "a`, false, []string{"damaged"}},
		"null":               {"null", false, []string{"no JSON object"}},
		"a list":             {"[]", false, []string{"no JSON object"}},
		"another type":       {`{"version": 2, "name": 5}`, false, []string{"damaged", "name"}},
		"version of noise":   {`{"version": {}, "name": "a"}`, false, []string{"its version is {}"}},
		"version below one":  {`{"version": 0}`, false, []string{"its version is 0"}},
		"zeros of a new one": {"\x00\x00\x00\x00", false, []string{"damaged"}},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "state.json")
			require.NoError(t, os.WriteFile(path, []byte(c.text), 0o600))
			err := form().Read(path, new(content))
			var useless *statefile.Error
			require.ErrorAs(t, err, &useless)
			assert.Equal(t, c.newer, useless.Newer())
			for _, want := range append(c.want, path) {
				assert.ErrorContains(t, err, want)
			}
		})
	}
}

// A box in the field starts after an upgrade: its files say no version.
func TestRead_FileOfBeforeVersions_IsVersionOne(t *testing.T) {
	var stack map[string]string
	require.NoError(t, statefile.Stack().Read("testdata/stack.json", &stack))
	assert.Equal(t, "esbte8b3b1", stack["ESB_BRIDGE"])
	var pid struct {
		PID int `json:"pid"`
	}
	require.NoError(t, statefile.Process().Read("testdata/agent.pid", &pid))
	assert.Equal(t, 10525, pid.PID)
	for _, f := range []struct {
		form statefile.Form
		file string
	}{
		{statefile.Stack(), "stack.json"},
		{statefile.Process(), "agent.pid"},
		{statefile.Supervisor(), "supervisor.json"},
		{statefile.FunctionAccess(), "function-access.json"},
		{statefile.Schedules(), "schedules.json"},
		{statefile.Shipped(), "shipped.json"},
	} {
		data, err := os.ReadFile(filepath.Join("testdata", f.file))
		require.NoError(t, err, f.file)
		version, err := f.form.VersionIn(f.file, data)
		require.NoError(t, err, f.file)
		assert.Equal(t, 1, version, f.file)
	}
}

// The programs of before an upgrade can be put back: they read what this one writes.
func TestWrite_ProgramOfBeforeVersions_ReadsIt(t *testing.T) {
	data, err := statefile.Stack().Encode(map[string]string{"ESB_BRIDGE": "esb7"})
	require.NoError(t, err)
	var before map[string]string // as it was read
	require.NoError(t, json.Unmarshal(data, &before))
	assert.Equal(t, "esb7", before["ESB_BRIDGE"])

	var now map[string]string
	require.NoError(t, statefile.Stack().Decode(data, &now))
	assert.Equal(t, map[string]string{"ESB_BRIDGE": "esb7"}, now, "the version is no setting")
}
