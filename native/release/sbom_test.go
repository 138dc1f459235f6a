package release

import (
	"encoding/json"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func mustMaterials(t *testing.T, r Release) bom {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(r.Dir, SBOM))
	require.NoError(t, err)
	var b bom
	require.NoError(t, json.Unmarshal(data, &b))
	return b
}

func TestMake_SaysWhatProgramsAreMadeOf(t *testing.T) {
	r := mustMake(t, "", "x")
	b := mustMaterials(t, r)
	assert.Equal(t, []string{"CycloneDX", "1.6"}, []string{b.Format, b.SpecVersion})
	find := func(ref string) component {
		t.Helper()
		i := slices.IndexFunc(b.Components, func(c component) bool { return c.Ref == ref })
		require.GreaterOrEqual(t, i, 0, ref)
		return b.Components[i]
	}
	sums, err := Checksums(r.Dir)
	require.NoError(t, err)
	assert.Equal(t, []fileHash{{"SHA-256", sums["gateway"]}}, find("file:gateway").Hashes)
	assert.Equal(t, []fileHash{{"SHA-256", sums["images/one.tar"]}}, find("file:images/one.tar").Hashes)
	version := strings.TrimPrefix(runtime.Version(), "go")
	assert.Equal(t, component{Type: "library", Ref: "pkg:golang/std@" + version, Name: "std", Version: version, PURL: "pkg:golang/std@" + version}, find("pkg:golang/std@"+version))

	i := slices.IndexFunc(b.Dependencies, func(d dependency) bool { return d.Ref == "file:gateway" })
	require.GreaterOrEqual(t, i, 0)
	about, ok := debug.ReadBuildInfo() // the program in the release is this test
	require.True(t, ok)
	for _, m := range about.Deps {
		assert.Contains(t, b.Dependencies[i].On, module(m).Ref)
		find(module(m).Ref)
	}
	refs := map[string]bool{b.Metadata.Component.Ref: true}
	for _, c := range b.Components {
		assert.False(t, refs[c.Ref], "%s is there twice", c.Ref)
		refs[c.Ref] = true
	}
	for _, d := range b.Dependencies {
		for _, ref := range append(d.On, d.Ref) {
			assert.True(t, refs[ref], ref)
		}
	}
	assert.Contains(t, sums, SBOM, "it is among what is checked")
}

func TestModule(t *testing.T) {
	for name, tt := range map[string]struct {
		module debug.Module
		want   component
	}{
		"plain":     {debug.Module{Path: "github.com/Azure/x", Version: "v1.2.3"}, component{Type: "library", Ref: "pkg:golang/github.com/azure/x@v1.2.3", Name: "github.com/Azure/x", Version: "v1.2.3", PURL: "pkg:golang/github.com/azure/x@v1.2.3"}},
		"plus":      {debug.Module{Path: "a.b/c", Version: "v2.0.0+incompatible"}, component{Type: "library", Ref: "pkg:golang/a.b/c@v2.0.0%2Bincompatible", Name: "a.b/c", Version: "v2.0.0+incompatible", PURL: "pkg:golang/a.b/c@v2.0.0%2Bincompatible"}},
		"own":       {debug.Module{Path: "a.b/c", Version: "(devel)"}, component{Type: "library", Ref: "pkg:golang/a.b/c", Name: "a.b/c", PURL: "pkg:golang/a.b/c"}},
		"a folder":  {debug.Module{Path: "a.b/c", Version: "v0.0.0", Replace: &debug.Module{Path: "../c"}}, component{Type: "library", Ref: "pkg:golang/a.b/c", Name: "a.b/c", PURL: "pkg:golang/a.b/c"}},
		"another's": {debug.Module{Path: "a.b/c", Version: "v1.0.0", Replace: &debug.Module{Path: "d.e/f", Version: "v1.0.1"}}, component{Type: "library", Ref: "pkg:golang/d.e/f@v1.0.1", Name: "d.e/f", Version: "v1.0.1", PURL: "pkg:golang/d.e/f@v1.0.1"}},
	} {
		t.Run(name, func(t *testing.T) { assert.Equal(t, tt.want, module(&tt.module)) })
	}
}

func TestStandIn(t *testing.T) {
	for name, tt := range map[string]struct {
		module debug.Module
		want   bool
	}{
		"plain":          {debug.Module{Path: "a.b/c", Version: "v1.2.3"}, false},
		"a folder":       {debug.Module{Path: "a.b/c", Version: "v1.2.3", Replace: &debug.Module{Path: "./c", Version: "(devel)"}}, true},
		"a folder above": {debug.Module{Path: "a.b/c", Version: "v1.2.3", Replace: &debug.Module{Path: "../c"}}, true},
		"another's":      {debug.Module{Path: "a.b/c", Version: "v1.2.3", Replace: &debug.Module{Path: "d.e/f", Version: "v1.0.1"}}, false},
		"ours":           {debug.Module{Path: ourModules + "api", Version: "v0.0.0", Replace: &debug.Module{Path: "../api"}}, false},
	} {
		t.Run(name, func(t *testing.T) { assert.Equal(t, tt.want, standIn(&tt.module)) })
	}
}
