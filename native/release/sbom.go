package release

import (
	"debug/buildinfo"
	"encoding/json"
	"fmt"
	"maps"
	"net/url"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
)

// SBOM is the file of a release that says what its programs are made of: a bill of materials of CycloneDX 1.6, in JSON. It has the programs
// and image archives with their SHA-256, and the Go modules and the Go release that are in each program, as that says itself. What is in a
// program that is not Go, in C libraries and in images is not in it.
const SBOM = "sbom.cdx.json"

// ourModules begin with it.
const ourModules = "github.com/edge-serverless-box/esb/"

// The parts of CycloneDX 1.6 that are written (https://cyclonedx.org/docs/1.6/json/).
type (
	bom struct {
		Format       string       `json:"bomFormat"`
		SpecVersion  string       `json:"specVersion"`
		Version      int          `json:"version"`
		Metadata     metadata     `json:"metadata"`
		Components   []component  `json:"components"`
		Dependencies []dependency `json:"dependencies"`
	}
	metadata struct {
		Component component `json:"component"`
	}
	component struct {
		Type    string     `json:"type"`
		Ref     string     `json:"bom-ref"`
		Name    string     `json:"name"`
		Version string     `json:"version,omitempty"`
		PURL    string     `json:"purl,omitempty"`
		Hashes  []fileHash `json:"hashes,omitempty"`
	}
	fileHash struct {
		Algorithm string `json:"alg"`
		Content   string `json:"content"`
	}
	dependency struct {
		Ref string   `json:"ref"`
		On  []string `json:"dependsOn,omitempty"`
	}
)

// materials makes the bill of the files in dir, whose digests are sums. It says nothing of when and where it was made: the same files
// have the same one.
func materials(dir string, programs []string, sums map[string]string) ([]byte, error) {
	root := component{Type: "application", Ref: "esb", Name: "esb"}
	all, uses := map[string]component{}, map[string][]string{}
	add := func(by string, c component) {
		all[c.Ref] = c
		uses[by] = append(uses[by], c.Ref)
	}
	file := func(kind, name string) string {
		c := component{Type: kind, Ref: "file:" + name, Name: name, Hashes: []fileHash{{"SHA-256", sums[name]}}}
		add(root.Ref, c)
		return c.Ref
	}
	for _, name := range programs {
		program := file("application", name)
		about, err := buildinfo.ReadFile(filepath.Join(dir, name))
		if err != nil {
			continue // it is not Go, and says nothing of itself
		}
		version := strings.TrimPrefix(strings.Fields(about.GoVersion + " ")[0], "go")
		add(program, component{Type: "library", Ref: "pkg:golang/std@" + version, Name: "std", Version: version, PURL: "pkg:golang/std@" + version})
		for _, m := range append([]*debug.Module{&about.Main}, about.Deps...) {
			if m.Path != "" && !standIn(m) {
				add(program, module(m))
			}
		}
	}
	for name := range sums {
		if strings.HasPrefix(name, Images+"/") {
			file("container", name)
		}
	}
	b := bom{Format: "CycloneDX", SpecVersion: "1.6", Version: 1, Metadata: metadata{root}}
	for _, ref := range slices.Sorted(maps.Keys(all)) {
		b.Components = append(b.Components, all[ref])
	}
	for _, ref := range slices.Sorted(maps.Keys(uses)) {
		b.Dependencies = append(b.Dependencies, dependency{ref, slices.Compact(slices.Sorted(slices.Values(uses[ref])))})
	}
	data, err := json.MarshalIndent(b, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("write the bill of materials: %w", err)
	}
	return append(data, '\n'), nil
}

// standIn is true for a module of somebody else's in whose place a folder of this repository was compiled: nothing of it is in the program.
func standIn(m *debug.Module) bool {
	return m.Replace != nil && !strings.HasPrefix(m.Path, ourModules) && (strings.HasPrefix(m.Replace.Path, "./") || strings.HasPrefix(m.Replace.Path, "../"))
}

// module is a Go module by its package URL, whose letters are small (https://github.com/package-url/purl-spec, golang). One of this
// repository has no version of its own.
func module(m *debug.Module) component {
	if m.Replace != nil && m.Replace.Version != "" {
		m = m.Replace
	}
	c := component{Type: "library", Name: m.Path, PURL: "pkg:golang/" + strings.ToLower(m.Path)}
	if m.Version != "" && m.Version != "(devel)" && m.Replace == nil {
		c.Version = m.Version
		c.PURL += "@" + url.QueryEscape(m.Version)
	}
	c.Ref = c.PURL
	return c
}
