// Package route finds the route of a request by API Gateway's rules.
//
// At each segment a static text beats a parameter, and a parameter beats a greedy one, whatever the order of the
// routes. A route of the request's method beats an ANY route on the same template. When the better template has
// no such method, the next one is tried, as HTTP APIs do ("the most-specific match" is of route and method: API
// Gateway developer guide, Routes for HTTP APIs). No route for the method is no route at all.
//
// The route gateway.DefaultRoute takes what no other one does.
//
// Paths are matched as they came, undecoded: "%2F" is no slash. Trailing slashes are ignored, so "/users/" is
// "/users", and a greedy parameter has none at its end (section 1 of tests/conformance/rows.yml). A parameter takes one segment that is
// not empty, a greedy one takes at least one character.
package route

import (
	"errors"
	"fmt"
	"strings"

	"github.com/edge-serverless-box/esb/gateway"
)

// Matcher finds routes. It never changes and so is safe for concurrent use.
type Matcher struct {
	root node
	// rest takes what nothing else does: the route gateway.DefaultRoute, nil for none.
	rest *gateway.Route
}

// Match is what Matcher.Match found.
type Match struct {
	Route *gateway.Route
	// PathParameters by name, nil when the template has none. The values are undecoded, as REST APIs pass
	// them (serverless/serverless#5037: "%40" arrives as "%40"); a payload 2.0 event needs them decoded.
	PathParameters map[string]string
}

// node is one place in the tree of all templates: the edges below it and the routes that end here.
type node struct {
	static map[string]*node
	param  *node
	here   *leaf
	greedy *leaf
}

// leaf holds the routes of one template, by method.
type leaf struct {
	byMethod map[string]*entry
	any      *entry
}

// entry is a route with its own parameter names: templates that differ only in names share their nodes.
type entry struct {
	route    *gateway.Route
	template Template
	count    int // of parameters
}

// New builds the matcher of routes, which it keeps pointers to. A bad template, and two routes with the same
// template and method, are errors.
func New(routes []gateway.Route) (*Matcher, error) {
	m := &Matcher{}
	var errs []error
	for i := range routes {
		if err := m.add(&routes[i]); err != nil {
			errs = append(errs, fmt.Errorf("route %s: %w", routes[i].Path, err))
		}
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	return m, nil
}

func (m *Matcher) add(r *gateway.Route) error {
	if r.Path == gateway.DefaultRoute {
		if m.rest != nil {
			return errors.New("is given twice")
		}
		m.rest = r
		return nil
	}
	t, err := ParseTemplate(r.Path)
	if err != nil {
		return err
	}
	e := &entry{route: r, template: t}
	n, at := &m.root, (**leaf)(nil)
	for _, s := range t.segments {
		if s.kind != static {
			e.count++
		}
		switch s.kind {
		case static:
			n = n.child(s.name)
		case param:
			if n.param == nil {
				n.param = &node{}
			}
			n = n.param
		case greedy:
			at = &n.greedy
		}
	}
	if at == nil {
		at = &n.here
	}
	if *at == nil {
		*at = &leaf{byMethod: make(map[string]*entry)}
	}
	return (*at).put(e)
}

func (n *node) child(text string) *node {
	if c, ok := n.static[text]; ok {
		return c
	}
	if n.static == nil {
		n.static = make(map[string]*node)
	}
	c := &node{}
	n.static[text] = c
	return c
}

func (l *leaf) put(e *entry) error {
	if len(e.route.Methods) == 0 {
		if l.any != nil {
			return fmt.Errorf("is equal to the route %s for any method", l.any.route.Path)
		}
		l.any = e
		return nil
	}
	for _, method := range e.route.Methods {
		if other, taken := l.byMethod[method]; taken {
			return fmt.Errorf("is equal to the route %s for the method %s", other.route.Path, method)
		}
		l.byMethod[method] = e
	}
	return nil
}

func (l *leaf) pick(method string) *entry {
	if l == nil {
		return nil
	}
	if e, ok := l.byMethod[method]; ok {
		return e
	}
	return l.any
}

// Match finds the route of method, in upper case, and path, as it was sent but without its query.
func (m *Matcher) Match(method, escapedPath string) (Match, bool) {
	if !strings.HasPrefix(escapedPath, "/") {
		return Match{}, false
	}
	path := strings.TrimRight(escapedPath, "/")
	if path == "" {
		if e := m.root.here.pick(method); e != nil {
			return Match{Route: e.route}, true
		}
	} else if e := m.root.find(method, path[1:]); e != nil {
		return Match{Route: e.route, PathParameters: e.parameters(path[1:])}, true
	}
	return Match{Route: m.rest}, m.rest != nil
}

// find searches rest, which begins with a segment, below n. The tree has no cycle and a node belongs to one
// depth, so that going back costs at most one visit of each node.
func (n *node) find(method, rest string) *entry {
	text, tail, more := strings.Cut(rest, "/")
	if c, ok := n.static[text]; ok {
		if e := c.next(method, tail, more); e != nil {
			return e
		}
	}
	if n.param != nil && text != "" {
		if e := n.param.next(method, tail, more); e != nil {
			return e
		}
	}
	return n.greedy.pick(method)
}

func (n *node) next(method, tail string, more bool) *entry {
	if more {
		return n.find(method, tail)
	}
	return n.here.pick(method)
}

// parameters takes the values out of a path that e matches. A second walk is cheaper than to carry them through
// the search, where they would move to the heap.
func (e *entry) parameters(rest string) map[string]string {
	if e.count == 0 {
		return nil
	}
	values := make(map[string]string, e.count)
	for _, s := range e.template.segments {
		if s.kind == greedy {
			values[s.name] = rest
			break
		}
		text, tail, _ := strings.Cut(rest, "/")
		if s.kind == param {
			values[s.name] = text
		}
		rest = tail
	}
	return values
}
