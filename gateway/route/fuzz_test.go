package route_test

import (
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/edge-serverless-box/esb/gateway"
	"github.com/edge-serverless-box/esb/gateway/route"
)

// FuzzMatcher compares the matcher with one that looks at every route and compares them segment by segment. The routes are lines
// "GET,PUT /users/{id}" or "ANY /x".
func FuzzMatcher(f *testing.F) {
	f.Add("GET /\nANY /{p+}\nGET /a/{x}/c\nGET /a/b/{y}\nPOST /a/b/c", "GET", "/a/b/c")
	f.Add("GET /a\nANY /a/{p+}\nGET /a/{x}\nGET /a/b\nANY $default", "PUT", "/a/b/c//d/")
	f.Add("ANY /{a}/{b}\nANY /{a}/x\nGET /y/{b}\nANY /y/{p+}", "GET", "/y/x/")
	f.Add("GET,PUT /a%2Fb\nANY /{x}", "PUT", "//a%2Fb")
	f.Add("ANY /a/{x}/{p+}\nGET /{y}/b/c\nANY /{p+}", "GET", "/a/b/c/")
	f.Fuzz(func(t *testing.T, spec, method, path string) {
		var all []gateway.Route
		for line := range strings.SplitSeq(spec, "\n") {
			methods, template, _ := strings.Cut(line, " ")
			r := gateway.Route{Path: template}
			if methods != "ANY" {
				r.Methods = strings.Split(methods, ",")
			}
			all = append(all, r)
		}
		m, err := route.New(all)
		if err != nil {
			return
		}
		got, ok := m.Match(method, path)
		want, parameters := naiveMatch(all, method, path)
		if ok != (want != nil) || got.Route != want {
			t.Fatalf("%s %q of %q: got %v, want %v", method, path, spec, got.Route, want)
		}
		if len(got.PathParameters) != len(parameters) || !maps.Equal(got.PathParameters, parameters) {
			t.Fatalf("%s %q of %q: got %v, want %v", method, path, spec, got.PathParameters, parameters)
		}
	})
}

// naiveMatch tries every route. The ranks of its segments decide, the first ones first: 0 for a text, 1 for a parameter, 2 for a
// greedy one; and between equals, the one that names the method.
func naiveMatch(all []gateway.Route, method, path string) (*gateway.Route, map[string]string) {
	var best, rest *gateway.Route
	var bestRank []int
	var bestParameters map[string]string
	if !strings.HasPrefix(path, "/") {
		return nil, nil
	}
	for i := range all {
		r := &all[i]
		if r.Path == gateway.DefaultRoute {
			rest = r
			continue
		}
		if len(r.Methods) > 0 && !slices.Contains(r.Methods, method) {
			continue
		}
		rank, parameters, ok := naiveTemplate(r.Path, strings.TrimRight(path, "/"))
		if !ok {
			continue
		}
		// An ANY route ranks behind one of the same template that names the method.
		if len(r.Methods) == 0 {
			rank = append(rank, 1)
		} else {
			rank = append(rank, 0)
		}
		if best == nil || slices.Compare(rank, bestRank) < 0 {
			best, bestRank, bestParameters = r, rank, parameters
		}
	}
	if best == nil {
		return rest, nil
	}
	return best, bestParameters
}

func naiveTemplate(template, path string) (rank []int, parameters map[string]string, ok bool) {
	parameters = map[string]string{}
	if template == "/" {
		return nil, parameters, path == ""
	}
	if path == "" {
		return nil, nil, false
	}
	parts, segments := strings.Split(template[1:], "/"), strings.Split(path[1:], "/")
	for i, part := range parts {
		if i >= len(segments) {
			return nil, nil, false
		}
		switch {
		case strings.HasSuffix(part, "+}"):
			parameters[part[1:len(part)-2]] = strings.Join(segments[i:], "/")
			return append(rank, 2), parameters, true
		case strings.HasPrefix(part, "{"):
			if segments[i] == "" {
				return nil, nil, false
			}
			parameters[part[1:len(part)-1]] = segments[i]
			rank = append(rank, 1)
		case part != segments[i]:
			return nil, nil, false
		default:
			rank = append(rank, 0)
		}
	}
	return rank, parameters, len(parts) == len(segments)
}
