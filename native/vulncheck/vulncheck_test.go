package vulncheck

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/edge-serverless-box/esb/native/build"
)

const config = `{"config":{"protocol_version":"v1.0.0","scanner_name":"govulncheck","scan_level":"symbol","scan_mode":"source"}}`

func TestParse_TheDeepestFindingOfAFaultCounts(t *testing.T) {
	all, err := parse(strings.NewReader(config + `
{"progress":{"message":"Checking"}}
{"osv":{"id":"GO-1","summary":"HTTP/2 server crash"}}
{"finding":{"osv":"GO-1","fixed_version":"v1.26.9","trace":[{"module":"stdlib","version":"v1.26.8"}]}}
{"finding":{"osv":"GO-1","fixed_version":"v1.26.9","trace":[{"module":"stdlib","version":"v1.26.8","package":"net/http","receiver":"*Server","function":"Serve"},{"module":"m","package":"m","function":"main"}]}}
{"finding":{"osv":"GO-1","fixed_version":"v1.26.9","trace":[{"module":"stdlib","version":"v1.26.8","package":"net/http"}]}}
{"finding":{"osv":"GO-1","fixed_version":"v0.60.0","trace":[{"module":"golang.org/x/net","version":"v0.59.0","package":"golang.org/x/net/http2"}]}}
{"finding":{"osv":"GO-2","trace":[{"module":"example.test/m","version":"v1.0.0"}]}}
`))
	require.NoError(t, err)
	assert.Equal(t, []Finding{
		{Fault: Fault{"GO-1", "golang.org/x/net", "v0.59.0"}, Fixed: "v0.60.0", Reach: Imported, Summary: "HTTP/2 server crash"},
		{Fault: Fault{"GO-1", "stdlib", "v1.26.8"}, Fixed: "v1.26.9", Reach: Called, Summary: "HTTP/2 server crash", Via: "net/http.*Server.Serve"},
		{Fault: Fault{"GO-2", "example.test/m", "v1.0.0"}, Reach: Required},
	}, all)
}

func TestParse_AnswerThatIsNotUnderstood_IsNoCleanBillOfHealth(t *testing.T) {
	for name, text := range map[string]string{
		"nothing":           "",
		"no configuration":  `{"progress":{"message":"Checking"}}`,
		"broken off":        config + `{"finding":{"osv":"GO-1"`,
		"another protocol":  `{"config":{"protocol_version":"v2.0.0","scan_level":"symbol"}}`,
		"a shallower level": `{"config":{"protocol_version":"v1.0.0","scan_level":"module"}}`,
		"finding of what":   config + `{"finding":{"osv":"GO-1","trace":[]}}`,
	} {
		t.Run(name, func(t *testing.T) {
			_, err := parse(strings.NewReader(text))
			assert.Error(t, err)
		})
	}
}

func TestJoin_TheSourcesCountOnlyForWhatTheBinaryHas(t *testing.T) {
	fault := Fault{"GO-1", "example.test/m", "v1.0.0"}
	held := []Finding{{Fault: fault, Reach: Called}}
	all, err := join(held, []Finding{{Fault: fault, Reach: Required}, {Fault: Fault{"GO-2", "example.test/n", "v1.0.0"}, Reach: Called}})
	require.NoError(t, err)
	assert.Equal(t, []Finding{{Fault: fault, Reach: Required}}, all)
	_, err = join(held, []Finding{{Fault: Fault{"GO-1", "example.test/m", "v0.9.0"}, Reach: Required}})
	assert.ErrorContains(t, err, "build it anew")
}

func TestDecide(t *testing.T) {
	const toolchain = "go1.26.11"
	found := func(reach Reach) []Result {
		return []Result{
			{Program: "clean", Release: toolchain},
			{Program: "gateway", Release: toolchain, Packages: []string{"main", "example.test/m"}, Findings: []Finding{
				{Fault: Fault{"GO-1", "example.test/m", "v1.0.0"}, Fixed: "v1.0.1", Reach: reach, Summary: "crash", Via: "example.test/m.F"},
			}},
		}
	}
	entry := func(change func(*Allowed)) []Allowed {
		a := Allowed{ID: "GO-1", Module: "example.test/m", Programs: []string{"gateway"}, Without: []string{"example.test/m/proxy"}, Reason: "not used"}
		change(&a)
		return []Allowed{a}
	}
	asIs := func(*Allowed) {}
	for name, c := range map[string]struct {
		results  []Result
		allowed  []Allowed
		failures []string
		passes   int
	}{
		"called, not allowed":          {found(Called), nil, []string{"gateway has GO-1 (crash), in example.test/m v1.0.0, and calls example.test/m.F: raise it to v1.0.1"}, 0},
		"called, allowed":              {found(Called), entry(asIs), nil, 1},
		"not called":                   {found(Imported), nil, nil, 1},
		"package not in the program":   {found(Required), nil, nil, 1},
		"allowed, but not called":      {found(Imported), entry(asIs), []string{"GO-1 in example.test/m is let pass in gateway, but is not reached there"}, 1},
		"allowed, but not there":       {found(Called)[:1], entry(asIs), []string{"take the entry away"}, 0},
		"allowed in another program":   {found(Called), entry(func(a *Allowed) { a.Programs = []string{"clean"} }), []string{"gateway has GO-1", "let pass in clean, but"}, 0},
		"allowed in one program more":  {found(Called), entry(func(a *Allowed) { a.Programs = []string{"gateway", "clean"} }), []string{"let pass in clean, but"}, 1},
		"allowed in another module":    {found(Called), entry(func(a *Allowed) { a.Module = "example.test/n" }), []string{"gateway has GO-1", "example.test/n is let pass"}, 0},
		"reason does not hold":         {found(Called), entry(func(a *Allowed) { a.Without = []string{"example.test/m"} }), []string{"let pass only without example.test/m"}, 0},
		"built with another release":   {[]Result{{Program: "runc", Release: "go1.26.8"}}, nil, []string{"runc was built with go1.26.8: build it anew with go1.26.11"}, 0},
		"sources have no release":      {[]Result{{Program: "samples"}}, nil, nil, 0},
		"nothing found, nothing to do": {found(Called)[:1], nil, nil, 0},
	} {
		t.Run(name, func(t *testing.T) {
			v := Decide(toolchain, c.results, c.allowed)
			require.Len(t, v.Failures, len(c.failures), v.Failures)
			for i, want := range c.failures {
				assert.Contains(t, v.Failures[i], want)
			}
			assert.Len(t, v.Passes, c.passes)
		})
	}
}

func TestPrint_SaysWhyItLetsPass(t *testing.T) {
	results := []Result{{Program: "gateway", Release: "go1.26.11", Findings: []Finding{
		{Fault: Fault{"GO-1", "example.test/m", "v1.0.0"}, Reach: Called, Summary: "crash"},
	}}}
	v := Decide("go1.26.11", results, []Allowed{{ID: "GO-1", Module: "example.test/m", Programs: []string{"gateway"}, Reason: "not used\n"}})
	var out strings.Builder
	require.NoError(t, v.Print(&out, results))
	assert.Contains(t, out.String(), "gateway  go1.26.11  1 ")
	assert.Contains(t, out.String(), "let pass: gateway: GO-1 in example.test/m v1.0.0 (crash; no version without it)\n    not used\n")
}

func TestLoadAllowed(t *testing.T) {
	file := filepath.Join(t.TempDir(), "allow.yml")
	for text, want := range map[string]string{
		"":   "",
		"[]": "",
		"- {id: GO-1, module: m, programs: [gateway], reason: because}":             "",
		"- {id: GO-1, module: m, programs: [gateway]}":                              "entry 1 (GO-1)",
		"- {id: GO-1, module: m, reason: because}":                                  "programs",
		"- {id: GO-1, module: m, programs: [gateway], reason: because, until: now}": "until",
	} {
		require.NoError(t, os.WriteFile(file, []byte(text), 0o644))
		_, err := LoadAllowed(file)
		if want == "" {
			assert.NoError(t, err, text)
			continue
		}
		require.Error(t, err, text)
		assert.ErrorContains(t, err, want)
		assert.ErrorContains(t, err, file)
	}
}

func TestLoadAllowed_TheRepositorys(t *testing.T) {
	_, err := LoadAllowed(filepath.Join("..", "..", ".ci", "vuln-allow.yml"))
	assert.NoError(t, err)
}

func TestPrograms_EachTargetOfTheBoxOnce(t *testing.T) {
	programs, others, err := Programs(t.TempDir(), t.TempDir())
	require.NoError(t, err)
	names := map[string]int{}
	for _, p := range programs {
		names[p.Name]++
		assert.Len(t, p.Target.Packages, 1, p.Name)
	}
	for _, name := range others {
		names[name]++
	}
	for _, group := range build.BoxGroups {
		for _, target := range build.Targets(group) {
			for _, name := range target.Outputs {
				assert.Equal(t, 1, names[name], name)
			}
		}
	}
}

func TestPrograms_BinaryThatNobodyKnows_IsNotPassedOver(t *testing.T) {
	dir := t.TempDir()
	self, err := os.Executable()
	require.NoError(t, err)
	require.NoError(t, os.Symlink(self, filepath.Join(dir, "link")))
	text, err := os.ReadFile(self)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "stranger"), text, 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(dir, ".lock"), nil, 0o644))
	_, _, err = Programs(t.TempDir(), dir)
	assert.ErrorContains(t, err, "stranger")
}
