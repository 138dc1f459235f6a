package config

import (
	"net/http"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"time"

	"gopkg.in/yaml.v3"

	"github.com/edge-serverless-box/esb/gateway"
	"github.com/edge-serverless-box/esb/gateway/response"
	"github.com/edge-serverless-box/esb/gateway/route"
)

// Limits of an integration's timeout, seconds (API Gateway quotas: 50 ms to 29 s).
const minRouteTimeout, maxRouteTimeout = 0.05, 29

// maxStreamTimeout is that of a route that streams (API Gateway: response streaming, up to 15 minutes).
const maxStreamTimeout = 900

// anyMethod in a route means every method.
const anyMethod = "ANY"

// methods are those that API Gateway knows.
var methods = []string{
	http.MethodDelete, http.MethodGet, http.MethodHead, http.MethodOptions,
	http.MethodPatch, http.MethodPost, http.MethodPut,
}

var mediaType = regexp.MustCompile(`^(?:\*/\*|[A-Za-z0-9!#$&^_.+-]+/(?:\*|[A-Za-z0-9!#$&^_.+-]+))$`)

// routing is routing.yml while it is read.
type routing struct {
	doc      *document
	set      *functionSet
	reserved map[string]string
	// taken has the line of each template and method.
	taken map[string]int
	// pending are the functions that routes name, looked up when all inline ones are known.
	pending []reference
	// streams are the routes that stream.
	streams []reference
	// inline has the line of each function that a route defines.
	inline map[string]int
	access access
	// api and replies are about the API as a whole, binaryMediaTypes is what routes have that give none.
	api              gateway.API
	replies          *response.Set
	binaryMediaTypes []string
}

type reference struct {
	value value
	name  string
	route int
}

// parseRouting reads the routes, what guards them and what is set for all of them into c, and adds the functions that they
// define to set.
func parseRouting(f file, opts Options, set *functionSet, c *Config) []Problem {
	r := &routing{
		doc:      &document{path: f.path, lookupEnv: opts.LookupEnv, runtimes: set.docs[0].runtimes},
		set:      set,
		reserved: opts.ReservedPaths,
		taken:    make(map[string]int),
		inline:   make(map[string]int),
	}
	set.docs = append(set.docs, r.doc)
	top, ok := r.doc.open(f.data, "the key routes")
	if !ok {
		return r.doc.sorted()
	}
	r.readAPI(top)
	r.readAccess(top)
	var routes []gateway.Route
	if v, ok := top.need("routes", "a list of routes; write routes: [] for none"); ok {
		if items, ok := v.list(); ok {
			for _, item := range items {
				if o, ok := item.object(); ok {
					routes = append(routes, r.route(o, len(routes)))
				}
			}
		}
	}
	top.close()
	for _, ref := range r.pending {
		routes[ref.route].Function = r.lookup(ref)
	}
	for _, ref := range r.streams {
		if f := routes[ref.route].Function; f != nil && f.Interface == gateway.RIE {
			ref.value.problemf("the function %s cannot stream: its runtime_interface is rie, which collects every answer", f.Name)
		}
	}
	for _, ref := range r.access.functions {
		ref.authorizer.Function = r.lookup(reference{value: ref.value, name: ref.name})
	}
	c.Routes, c.Access, c.API, c.Replies = routes, r.access.Access, r.api, r.replies
	return r.doc.sorted()
}

func (r *routing) route(o *object, index int) gateway.Route {
	rt := gateway.Route{
		Auth:    gateway.AuthJWT,
		Payload: gateway.PayloadV1,
		Timeout: maxRouteTimeout * time.Second,
	}
	path, pathOK := o.need("path", "such as /api/users/{id}")
	var template route.Template
	if pathOK {
		rt.Path, template, pathOK = r.template(path)
	}
	if rt.Path == gateway.DefaultRoute {
		r.defaultRoute(o, path, pathOK)
	} else {
		method, methodOK := o.need("method", "ANY, one method, or a list of methods")
		if methodOK {
			rt.Methods, methodOK = method.methods()
		}
		if pathOK && methodOK {
			r.claim(path, template, rt.Methods)
		}
	}
	if v, ok := o.need("function", "the name of a function, or its definition"); ok {
		rt.Function = r.function(v, index)
	}
	if v, ok := o.get("payload"); ok {
		if s, ok := v.oneOf(string(gateway.PayloadV1), string(gateway.PayloadV2)); ok {
			rt.Payload = gateway.PayloadVersion(s)
		}
	}
	r.apiType(o, &rt)
	if v, ok := o.get("auth"); ok {
		r.auth(v, &rt) // behind payload, which is an authorizer's default
	}
	r.routeCORS(o, &rt)
	if v, ok := o.get("throttle"); ok {
		rt.Throttle = v.throttle(throttleID(&rt))
	}
	most := float64(maxRouteTimeout)
	if v, ok := o.get("stream"); ok {
		if rt.Stream, _ = v.boolean(); rt.Stream {
			r.streams = append(r.streams, reference{value: v, route: index})
			most = maxStreamTimeout
		}
	}
	if v, ok := o.get("timeout"); ok {
		if n, ok := v.number(minRouteTimeout, most, "seconds"); ok {
			rt.Timeout = time.Duration(n * float64(time.Second))
		}
	}
	rt.BinaryMediaTypes = r.binaryMediaTypes
	if v, ok := o.get("binary_media_types"); ok {
		rt.BinaryMediaTypes = v.mediaTypes()
	}
	o.close()
	return rt
}

func (r *routing) template(v value) (string, route.Template, bool) {
	path, ok := v.text("a path such as /api/users/{id}")
	if !ok {
		return "", route.Template{}, false
	}
	if path == gateway.DefaultRoute {
		return path, route.Template{}, true
	}
	t, err := route.ParseTemplate(path)
	if err != nil {
		v.problemf("%v", err)
		return path, t, false
	}
	for own, owner := range r.reserved {
		if path == own || strings.HasSuffix(own, "/") && strings.HasPrefix(path, own) {
			v.problemf("%s is served by the gateway itself: %s", path, owner)
			return path, t, false
		}
	}
	return path, t, true
}

// defaultRoute reads the method of the route for what no other one takes: it has none, or ANY.
func (r *routing) defaultRoute(o *object, path value, ok bool) {
	if v, given := o.get("method"); given {
		if methods, ok := v.methods(); ok && methods != nil {
			v.problemf("must be ANY, or be left out: %s takes every method", gateway.DefaultRoute)
		}
	}
	if !ok {
		return
	}
	if line, twice := r.taken[gateway.DefaultRoute]; twice {
		path.problemf("the route %s is given twice, first on line %d", gateway.DefaultRoute, line)
	}
	r.taken[gateway.DefaultRoute] = path.line
}

// apiType reads api, and operation_name, which REST APIs have.
func (r *routing) apiType(o *object, rt *gateway.Route) {
	if v, ok := o.get("api"); ok {
		s, _ := v.oneOf(string(gateway.APITypeREST), string(gateway.APITypeHTTP))
		rt.API = gateway.APIType(s)
		if rt.API == gateway.APITypeREST && rt.Payload == gateway.PayloadV2 {
			v.problemf("REST APIs have no payload 2.0: leave one of the two out")
		}
	}
	if v, ok := o.get("operation_name"); ok {
		rt.OperationName, _ = v.text("a name such as GetUser")
		if rt.HTTPAPI() {
			v.problemf("is for REST APIs: events of HTTP APIs have no operationName")
		}
	}
}

// claim finds equal routes, by template and method.
func (r *routing) claim(path value, t route.Template, methods []string) {
	if len(methods) == 0 {
		methods = []string{anyMethod}
	}
	for _, method := range methods {
		key := method + " " + t.Key()
		if line, twice := r.taken[key]; twice {
			path.problemf("the route %s is given twice, first on line %d (names of parameters do not tell routes apart)", key, line)
			return
		}
		r.taken[key] = path.line
	}
}

// methods reads ANY, a method, or a list; nil means any.
func (v value) methods() ([]string, bool) {
	items := []value{v}
	if v.node.Kind == yaml.SequenceNode {
		if items, _ = v.list(); len(items) == 0 {
			v.problemf("must not be an empty list: write ANY for every method")
			return nil, false
		}
	}
	var found []string
	for _, item := range items {
		s, ok := item.text("a method such as POST")
		if !ok {
			return nil, false
		}
		s = strings.ToUpper(s)
		switch {
		case s == anyMethod && len(items) > 1:
			item.problemf("must be ANY alone, or a list without it")
			return nil, false
		case s == anyMethod:
			return nil, true
		case !slices.Contains(methods, s):
			item.problemf("must be ANY or of %s, got %q", strings.Join(methods, ", "), s)
			return nil, false
		case slices.Contains(found, s):
			item.problemf("%s is listed twice", s)
			return nil, false
		}
		found = append(found, s)
	}
	return found, true
}

// function reads a name or a definition. A mapping with container alone is a name too; with more keys it
// defines the function here, which then has the name of its container. nil means that it is looked up later, or
// wrong.
func (r *routing) function(v value, index int) *gateway.Function {
	if v.node.Kind != yaml.MappingNode {
		if name, ok := v.text("the name of a function, or {container: ..., image: ...}"); ok {
			r.pending = append(r.pending, reference{value: v, name: name, route: index})
		}
		return nil
	}
	o, ok := v.object()
	if !ok {
		return nil
	}
	container, ok := o.need("container", "the function's name")
	if !ok {
		return nil
	}
	name, ok := container.text("the function's name")
	if !ok {
		return nil
	}
	if len(o.names) == 1 {
		r.pending = append(r.pending, reference{value: container, name: name, route: index})
		return nil
	}
	if !functionName.MatchString(name) {
		container.problemf("%q is not a function name: 1 to 64 letters, digits, dashes and underscores", name)
		return nil
	}
	if _, twice := r.set.declared[name]; twice {
		if _, inline := r.inline[name]; !inline {
			container.problemf("%s is a function of the functions file already: write function: %s", name, name)
			return nil
		}
	}
	before := len(r.doc.problems)
	f := o.function(name, r.set.defaults)
	if line, twice := r.inline[name]; twice {
		same := reflect.DeepEqual(r.set.functions[name], f)
		if len(r.doc.problems) == before && !same {
			container.problemf("%s is defined otherwise on line %d: define it once, and write function: %s elsewhere", name, line, name)
		}
		return r.set.functions[name]
	}
	r.inline[name] = container.line
	r.set.declared[name] = container.line
	r.set.functions[name] = f
	r.set.claimSchedules(o, f)
	return f
}

func (r *routing) lookup(ref reference) *gateway.Function {
	if f, ok := r.set.functions[ref.name]; ok {
		return f
	}
	if _, declared := r.set.declared[ref.name]; declared || r.set.unread {
		return nil // refused, and reported, where it is declared, or with the whole file
	}
	if guess := nearest(ref.name, r.set.known()); guess != "" {
		ref.value.problemf("there is no function %s; did you mean %s?", ref.name, guess)
	} else {
		ref.value.problemf("there is no function %s", ref.name)
	}
	return nil
}

func (v value) mediaTypes() []string {
	items, ok := v.list()
	if !ok {
		return nil
	}
	types := make([]string, 0, len(items))
	for _, item := range items {
		s, ok := item.text("a media type such as image/png")
		if !ok {
			continue
		}
		if !mediaType.MatchString(s) {
			item.problemf("must be a media type such as image/png or */*, got %q", s)
			continue
		}
		types = append(types, strings.ToLower(s))
	}
	return types
}
