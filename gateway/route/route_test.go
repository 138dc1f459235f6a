package route_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/edge-serverless-box/esb/gateway"
	"github.com/edge-serverless-box/esb/gateway/route"
)

// routes makes routes out of "GET,PUT /path" or "ANY /path".
func routes(specs ...string) []gateway.Route {
	var rs []gateway.Route
	for _, spec := range specs {
		methods, path, _ := strings.Cut(spec, " ")
		r := gateway.Route{Path: path}
		if methods != "ANY" {
			r.Methods = strings.Split(methods, ",")
		}
		rs = append(rs, r)
	}
	return rs
}

func mustNew(t testing.TB, specs ...string) *route.Matcher {
	t.Helper()
	m, err := route.New(routes(specs...))
	require.NoError(t, err)
	return m
}

func TestMatch_Priorities(t *testing.T) {
	// The worst order on purpose: the file's order must not count.
	specs := []string{
		"ANY /{all+}",
		"ANY /users/{rest+}",
		"ANY /users/{id}",
		"GET /users/{user}",
		"GET /users/{id}/posts/{post}",
		"ANY /users/me",
		"GET /users/me/{what+}",
		"POST /users/{id}/photo",
		"GET,PUT /users/me/settings",
		"ANY /",
		"POST /only/post",
		"GET /a/{x}/c/d",
		"GET /a/b/{y}/e",
	}
	type params = map[string]string
	for _, c := range []struct {
		name, method, path string
		want               string // template; empty for no match
		params             params
	}{
		{"root", "GET", "/", "/", nil},
		{"static beats parameter", "GET", "/users/me", "/users/me", nil},
		{"parameter beats greedy", "POST", "/users/7", "/users/{id}", params{"id": "7"}},
		{"method beats ANY on one template, with its own name", "GET", "/users/7", "/users/{user}", params{"user": "7"}},
		{"static with parameter after", "GET", "/users/me/settings", "/users/me/settings", nil},
		{"second method of a list", "PUT", "/users/me/settings", "/users/me/settings", nil},
		{"greedy below static", "GET", "/users/me/a/b", "/users/me/{what+}", params{"what": "a/b"}},
		{"back out of static to parameter", "POST", "/users/me/photo", "/users/{id}/photo", params{"id": "me"}},
		{"back out of parameter to greedy", "GET", "/users/7/unknown", "/users/{rest+}", params{"rest": "7/unknown"}},
		{"two parameters", "GET", "/users/7/posts/9", "/users/{id}/posts/{post}", params{"id": "7", "post": "9"}},
		{"static first segment decides between parameters", "GET", "/a/b/c/e", "/a/b/{y}/e", params{"y": "c"}},
		{"and backs out when its tail differs", "GET", "/a/b/c/d", "/a/{x}/c/d", params{"x": "b"}},
		{"method of a better template is missing", "PATCH", "/users/me/settings", "/users/{rest+}", params{"rest": "me/settings"}},
		{"catch all", "DELETE", "/only/post", "/{all+}", params{"all": "only/post"}},
		{"one trailing slash is ignored", "GET", "/users/me/", "/users/me", nil},
		{"several too", "GET", "/users/7//", "/users/{user}", params{"user": "7"}},
		{"greedy loses its trailing slash", "GET", "/x/y/", "/{all+}", params{"all": "x/y"}},
		{"greedy keeps inner empty segments", "GET", "/x//y", "/{all+}", params{"all": "x//y"}},
		{"greedy takes a leading empty segment", "GET", "//x", "/{all+}", params{"all": "/x"}},
		{"parameter takes no empty segment", "POST", "/users//photo", "/users/{rest+}", params{"rest": "/photo"}},
		{"encoded slash is no slash, values stay encoded", "GET", "/users/a%2Fb", "/users/{user}", params{"user": "a%2Fb"}},
		{"encoded text is not the static text", "GET", "/users/%6De", "/users/{user}", params{"user": "%6De"}},
		{"case counts", "GET", "/users/ME", "/users/{user}", params{"user": "ME"}},
		{"method case counts", "get", "/only/post", "/{all+}", params{"all": "only/post"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, ok := mustNew(t, specs...).Match(c.method, c.path)
			require.True(t, ok)
			assert.Equal(t, c.want, got.Route.Path)
			assert.Equal(t, c.params, got.PathParameters)
		})
	}
}

func TestMatch_NoRoute(t *testing.T) {
	m := mustNew(t, "POST /api/echo", "ANY /files/{path+}", "GET /users/{id}")
	for _, c := range []struct{ name, method, path string }{
		{"another method only", "GET", "/api/echo"},
		{"HEAD is not GET", "HEAD", "/users/7"},
		{"prefix", "POST", "/api"},
		{"longer", "POST", "/api/echo/more"},
		{"greedy needs a character", "GET", "/files"},
		{"and not only slashes", "GET", "/files//"},
		{"parameter needs a character", "GET", "/users/"},
		{"root", "GET", "/"},
		{"empty", "GET", ""},
		{"asterisk", "OPTIONS", "*"},
		{"no leading slash", "POST", "api/echo"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, ok := m.Match(c.method, c.path)
			assert.False(t, ok)
		})
	}
}

func TestMatch_GivesTheCallersRoute(t *testing.T) {
	rs := routes("GET /a", "GET /b")
	m, err := route.New(rs)
	require.NoError(t, err)
	got, ok := m.Match("GET", "/b")
	require.True(t, ok)
	assert.Same(t, &rs[1], got.Route)
}

func TestMatch_MoreParametersThanUsual(t *testing.T) {
	m := mustNew(t, "GET /{a}/{b}/{c}/{d}/{e}/{f}/{g}/{h}/{i}/{j+}")
	got, ok := m.Match("GET", "/1/2/3/4/5/6/7/8/9/10/11")
	require.True(t, ok)
	assert.Equal(t, map[string]string{"a": "1", "b": "2", "c": "3", "d": "4", "e": "5", "f": "6", "g": "7", "h": "8",
		"i": "9", "j": "10/11"}, got.PathParameters)
}

func TestNew_EqualRoutes_AreRefused(t *testing.T) {
	for _, c := range []struct {
		specs []string
		want  string
	}{
		{[]string{"GET /a", "POST,GET /a"}, "route /a: is equal to the route /a for the method GET"},
		{[]string{"ANY /a/{x}", "ANY /a/{y}"}, "route /a/{y}: is equal to the route /a/{x} for any method"},
		{[]string{"GET /a/{x+}", "GET /a/{y+}"}, "route /a/{y+}: is equal to the route /a/{x+} for the method GET"},
	} {
		_, err := route.New(routes(c.specs...))
		require.EqualError(t, err, c.want)
	}
	_, err := route.New(routes("GET /a", "POST /a", "ANY /a", "ANY /a/{x}", "ANY /a/{x+}"))
	require.NoError(t, err)
}

func TestParseTemplate_Errors(t *testing.T) {
	for path, want := range map[string]string{
		"":            `must begin with a slash, got ""`,
		"api":         `must begin with a slash, got "api"`,
		"/api/":       `must not end with a slash (a request's trailing slash is ignored), got "/api/"`,
		"/a//b":       `segment 2 of "/a//b": is empty (two slashes)`,
		"/{p+}/x":     `segment 1 of "/{p+}/x": a greedy parameter must be the last segment`,
		"/{id}/{id}":  `segment 2 of "/{id}/{id}": the parameter name "id" is used twice`,
		"/{id}/{id+}": `segment 2 of "/{id}/{id+}": the parameter name "id" is used twice`,
		"/{id":        `segment 1 of "/{id": "{id" must end with }: a parameter is a whole segment, {name} or {name+}`,
		"/{}":         `segment 1 of "/{}": "{}": a parameter name has letters, digits, dots, dashes and underscores only`,
		"/{a b}":      `segment 1 of "/{a b}": "{a b}": a parameter name has letters, digits, dots, dashes and underscores only`,
		"/x{id}":      `segment 1 of "/x{id}": "x{id}" has a character that a path cannot have; a parameter is a whole segment, {name} or {name+}`,
		"/a?b":        `segment 1 of "/a?b": "a?b" has a character that a path cannot have; a parameter is a whole segment, {name} or {name+}`,
		"/a%2":        `segment 1 of "/a%2": "a%2" has a character that a path cannot have; a parameter is a whole segment, {name} or {name+}`,
	} {
		_, err := route.ParseTemplate(path)
		require.EqualError(t, err, want, path)
	}
}

// FuzzMatch checks the tree against the rules written the slow and obvious way.
func FuzzMatch(f *testing.F) {
	specs := []string{
		"ANY /", "ANY /{all+}", "GET /a", "GET /a/b", "POST /a/{x}", "GET /a/{x}/c", "GET /a/b/{r+}", "ANY /{p}/b",
		"GET /{p}/{q}/c", "POST /{p}/{r+}",
	}
	m := mustNew(f, specs...)
	for _, seed := range []string{"/", "/a", "/a/", "/a/b/c", "/x//", "//", "/a//c", "a", "/x/y/c/d", "/%2F/b"} {
		f.Add("GET", seed)
		f.Add("POST", seed)
	}
	f.Add("GET", "/{q}/{p}/c")
	f.Fuzz(func(t *testing.T, method, path string) {
		got, ok := m.Match(method, path)
		want, wantOK := slowMatch(specs, method, path)
		require.Equal(t, wantOK, ok)
		if !ok {
			return
		}
		template := got.Route.Path
		assert.Equal(t, want, template)
		var pairs []string
		for name, value := range got.PathParameters {
			assert.NotEmpty(t, value)
			pairs = append(pairs, "{"+name+"}", value, "{"+name+"+}", value)
		}
		template = strings.NewReplacer(pairs...).Replace(template) // at once: a value may look like a parameter
		assert.Equal(t, "/"+strings.Trim(path[1:], "/"), "/"+strings.Trim(template[1:], "/"))
	})
}

// slowMatch ranks every template that matches: segment by segment static 0, parameter 1, greedy 2, then ANY last.
func slowMatch(specs []string, method, path string) (string, bool) {
	if !strings.HasPrefix(path, "/") {
		return "", false
	}
	rest := strings.TrimRight(path, "/")
	best, bestRank := "", ""
	for _, spec := range specs {
		m, template, _ := strings.Cut(spec, " ")
		if m != "ANY" && m != method {
			continue
		}
		rank, ok := slowRank(template, rest)
		if m == "ANY" {
			rank += "9"
		}
		if ok && (best == "" || rank < bestRank) {
			best, bestRank = template, rank
		}
	}
	return best, best != ""
}

func slowRank(template, path string) (string, bool) {
	if template == "/" || path == "" {
		return "", template == "/" && path == ""
	}
	rank := ""
	segments := strings.Split(path[1:], "/")
	parts := strings.Split(template[1:], "/")
	for i, part := range parts {
		if i >= len(segments) {
			return "", false
		}
		switch {
		case strings.HasSuffix(part, "+}"):
			return rank + "2", true
		case strings.HasPrefix(part, "{"):
			if segments[i] == "" {
				return "", false
			}
			rank += "1"
		case part != segments[i]:
			return "", false
		default:
			rank += "0"
		}
	}
	return rank, len(parts) == len(segments)
}

func BenchmarkMatch(b *testing.B) {
	m := mustNew(b, "ANY /{all+}", "GET /api/users/{id}", "POST /api/echo", "GET /api/users/{id}/posts/{post}", "ANY /api/event/{proxy+}")
	for _, c := range []struct{ name, method, path string }{
		{"static", "POST", "/api/echo"},
		{"parameters", "GET", "/api/users/42/posts/7"},
		{"greedy", "GET", "/api/event/a/b/c"},
	} {
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, ok := m.Match(c.method, c.path); !ok {
					b.Fatal("no match")
				}
			}
		})
	}
}

func TestMatcher_DefaultRoute_TakesTheRest(t *testing.T) {
	m, err := route.New([]gateway.Route{{Path: "/a", Methods: []string{"GET"}}, {Path: gateway.DefaultRoute}, {Path: "/b/{x}"}})
	require.NoError(t, err)
	for _, tt := range []struct{ method, path, want string }{
		{"GET", "/a", "/a"}, {"POST", "/a", gateway.DefaultRoute}, {"GET", "/", gateway.DefaultRoute}, {"GET", "/b", gateway.DefaultRoute},
		{"GET", "/b/1", "/b/{x}"}, {"GET", "//", gateway.DefaultRoute},
	} {
		match, ok := m.Match(tt.method, tt.path)
		require.True(t, ok, tt.path)
		assert.Equal(t, tt.want, match.Route.Path, "%s %s", tt.method, tt.path)
		if tt.want == gateway.DefaultRoute {
			assert.Nil(t, match.PathParameters)
		}
	}
	_, ok := m.Match("OPTIONS", "*")
	assert.False(t, ok)
}
