package build

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/edge-serverless-box/esb/functions/gotool"
	"github.com/edge-serverless-box/esb/native"
	"github.com/edge-serverless-box/esb/native/apt"
	"github.com/edge-serverless-box/esb/native/console"
)

const program = "package main\n\nfunc main() { println(\"%\") }\n"

var hello = Target{Name: "hello", Module: "mod", Packages: []string{"."}, Outputs: []string{"hello"}, Sources: []string{"mod"}}

func mustWrite(t *testing.T, root, name, text string) {
	t.Helper()
	file := filepath.Join(root, name)
	require.NoError(t, os.MkdirAll(filepath.Dir(file), 0o755))
	require.NoError(t, os.WriteFile(file, []byte(text), 0o644))
}

// mustOpen makes a repository with one program.
func mustOpen(t *testing.T) (root, dir string, out *bytes.Buffer, b *Builder) {
	t.Helper()
	root, dir, out = t.TempDir(), filepath.Join(t.TempDir(), "bin"), &bytes.Buffer{}
	mustWrite(t, root, "mod/go.mod", "module example.test/hello\n\ngo 1.26\n")
	mustWrite(t, root, "mod/main.go", strings.Replace(program, "%", "one", 1))
	return root, dir, out, New(root, dir, console.New(out), &apt.Installer{})
}

func mustRun(t *testing.T, binary string) string {
	t.Helper()
	out, err := exec.Command(binary).CombinedOutput()
	require.NoError(t, err)
	return string(out)
}

func TestBuild_OnlyWhatHasChanged(t *testing.T) {
	root, dir, out, b := mustOpen(t)
	binary := filepath.Join(dir, "hello")
	built := func() bool {
		t.Helper()
		out.Reset()
		require.NoError(t, b.Build(t.Context(), []Target{hello}))
		return strings.Contains(out.String(), "building hello")
	}
	assert.True(t, built())
	assert.Equal(t, "one\n", mustRun(t, binary))
	assert.False(t, built(), "nothing has changed")
	mustWrite(t, root, "mod/main_test.go", "package main\n")
	mustWrite(t, root, "mod/testdata/x", "x")
	assert.False(t, built(), "tests are no part of a binary")
	mustWrite(t, root, "mod/main.go", strings.Replace(program, "%", "two", 1))
	assert.True(t, built())
	assert.Equal(t, "two\n", mustRun(t, binary))
	require.NoError(t, os.Remove(binary))
	assert.True(t, built(), "a binary is missing")
}

func TestBuild_SourceDoesNotCompile_KeepsTheOldBinaryAndShowsWhy(t *testing.T) {
	root, dir, _, b := mustOpen(t)
	require.NoError(t, b.Build(t.Context(), []Target{hello}))
	mustWrite(t, root, "mod/main.go", "package main\n\nfunc main() { undefinedThing() }\n")
	for range 2 {
		err := b.Build(t.Context(), []Target{hello})
		require.Len(t, native.Problems(err), 1)
		assert.ErrorContains(t, err, "undefinedThing")
		log := filepath.Join(dir, ".logs", "hello.log")
		assert.ErrorContains(t, err, log)
		text, err := os.ReadFile(log)
		require.NoError(t, err)
		assert.Contains(t, string(text), "undefinedThing")
	}
	assert.Equal(t, "one\n", mustRun(t, filepath.Join(dir, "hello")))
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	for _, e := range entries {
		assert.NotContains(t, e.Name(), ".build-", "the folder of a failed build is removed")
	}
}

func TestTargets_EveryOutputHasAPackageOfItsName(t *testing.T) {
	for _, group := range slices.Concat(BoxGroups, ToolGroups, []string{GroupGateway, GroupCommand}) {
		targets := Targets(group)
		require.NotEmpty(t, targets, group)
		for _, target := range targets {
			assert.Equal(t, slices.Contains(BoxGroups, group) || group == GroupGateway, target.Seconds > 0, "how long %s takes", target.Name)
			if target.NPM != nil {
				assert.Empty(t, target.Packages, target.Name)
				assert.NotEmpty(t, target.NPM.Integrity, target.Name)
				continue
			}
			require.Len(t, target.Outputs, len(target.Packages), target.Name)
			for i, pkg := range target.Packages {
				assert.Equal(t, target.Outputs[i], filepath.Base(pkg), target.Name)
			}
			for _, source := range target.Sources {
				_, err := os.Stat(filepath.Join("..", "..", source))
				assert.NoError(t, err, target.Name)
			}
		}
	}
	assert.Nil(t, Targets("nothing"))
}

func TestDockerfile_CompilesWithTheReleaseOfGoWork(t *testing.T) {
	root := filepath.Join("..", "..")
	toolchain, err := gotool.Toolchain(root)
	require.NoError(t, err)
	require.NotEmpty(t, toolchain)
	text, err := os.ReadFile(filepath.Join(root, "docker", "Dockerfile"))
	require.NoError(t, err)
	assert.Contains(t, string(text), "ARG GO_IMAGE=golang:"+strings.TrimPrefix(toolchain, "go")+"-")
}

func TestTargets_StoreThatAnArchitectureLacks_IsNotBuilt(t *testing.T) {
	names := func(arch string) (names []string) {
		for _, target := range targetsFor(GroupStores, arch) {
			names = append(names, target.Name)
		}
		return names
	}
	assert.Contains(t, names("amd64"), "dynoxide")
	assert.NotContains(t, names("arm64"), "dynoxide")
	assert.Subset(t, names("amd64"), names("arm64"))
}
