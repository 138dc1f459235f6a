package config_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// manyFunctions has function f<n> at line 5+6n: its name, image, timeout, environment, a variable and a text of two lines.
func manyFunctions() []string {
	text := "# what is served\ndefaults:\n  timeout: 3\nfunctions:\n"
	for i := range 30 {
		text += fmt.Sprintf("  f%d:\n    image: a\n    timeout: 5\n    environment:\n      A: |\n        b: [\n", i)
	}
	return strings.Split(strings.TrimSuffix(text, "\n"), "\n")
}

// The parser names the line where the block around the mistake begins, or the one after it.
func TestLoad_WrongIndentation_NamesItsLine_Once(t *testing.T) {
	const name, image, timeout, environment, variable = 65, 66, 67, 68, 69 // of f10
	for _, c := range []struct {
		what string
		line int
		text string
		want string
	}{
		{"a key too far left", timeout, "   timeout: 5", "functions.yml:67: is not valid YAML: its indentation, 3, is that of no block above: they have 2 (line 65) and 4 (line 66) (did not find expected key)"},
		{"a key too far right", timeout, "     timeout: 5", "functions.yml:67: is not valid YAML: its indentation, 5, is deeper than that of line 66, which has a value already (mapping values are not allowed in this context)"},
		{"a name too far left", name, " f10:", "functions.yml:65: is not valid YAML: its indentation, 1, is that of no block above: they have 0 (line 4) and 2 (line 59) (did not find expected key)"},
		{"a name too far right", name, "   f10:", "functions.yml:65: is not valid YAML: its indentation, 3, is that of no block above: they have 2 (line 59) and 4 (line 62) (did not find expected key)"},
		{"a variable too far left", variable, "   A: b", "functions.yml:69: is not valid YAML: its indentation, 3, is that of no block above: they have 2 (line 65) and 4 (line 68) (did not find expected key)"},
		{"no colon", image, "    image a", "functions.yml:66: is not valid YAML: it has no colon with a space behind it (mapping values are not allowed in this context)"},
		{"no space behind the colon", image, "    image:a", "functions.yml:66: is not valid YAML: it has no colon with a space behind it (mapping values are not allowed in this context)"},
		{"a colon in a value", image, "    image: a: b", "functions.yml:66: is not valid YAML: a value with a colon and a space in it must be in quotes (mapping values are not allowed in this context)"},
		{"a tab", environment, "\tenvironment:", "functions.yml:68: is not valid YAML: it is indented with a tab: YAML wants spaces (found a tab character that violates indentation)"},
	} {
		t.Run(c.what, func(t *testing.T) {
			lines := manyFunctions()
			lines[c.line-1] = c.text
			// With routes, that have nothing wrong.
			routing := "routes:\n"
			for i := range 30 {
				routing += fmt.Sprintf("  - {path: /f%d, method: GET, function: f%d}\n", i, i)
			}
			assert.Equal(t, []string{c.want}, problemsOf(t, strings.Join(lines, "\n")+"\n", routing))
		})
	}
	_, err := load(t, strings.Join(manyFunctions(), "\n")+"\n", noRoutes)
	require.NoError(t, err)
}

func TestLoad_WrongIndentation_OfLists(t *testing.T) {
	const routes = `api_keys: {a: "aaaaaaaaaaaaaaaaaaaaaa", # [
  b: bbbbbbbbbbbbbbbbbbbbbbb}
routes:
  - path: /a
    method: GET
    function: f
  - path: /b
   method: GET
    function: f
`
	assert.Equal(t, []string{"routing.yml:8: is not valid YAML: its indentation, 3, is that of no block above: they have 2 (line 7) and 4 (line 7) (did not find expected '-' indicator)"},
		problemsOf(t, "functions: {f: {image: a}}\n", routes))
}

// A section that is missing, or none, is one problem too.
func TestLoad_NoFunctionsKnown_RoutesAreNoFurtherProblems(t *testing.T) {
	const routes = "routes:\n  - {path: /a, method: GET, function: f}\n  - {path: /b, method: GET, function: {container: g, image: a, invoke: [f]}}\n"
	for _, functions := range []string{"functions: 5\n", "function: {f: {image: a}}\n", "", "functions: {f: {image: a}\n"} {
		for _, p := range problemsOf(t, functions, routes) {
			assert.True(t, strings.HasPrefix(p, "functions.yml"), p)
		}
	}
}
