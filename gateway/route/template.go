package route

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
)

type kind int

const (
	static kind = iota
	param
	greedy
)

// segment is one part of a template between slashes; name is its text, or its parameter's name.
type segment struct {
	kind kind
	name string
}

// Template is a parsed path of a route, such as "/users/{id}" or "/files/{path+}".
type Template struct {
	segments []segment
}

var (
	// AWS: "path part only allow a-zA-Z0-9._-:"; the rest of RFC 3986's pchar does no harm here.
	staticPattern = regexp.MustCompile(`^(?:[A-Za-z0-9._~!$&'()*+,;=:@-]|%[0-9A-Fa-f]{2})+$`)
	namePattern   = regexp.MustCompile(`^[A-Za-z0-9._-]+$`)
)

// ParseTemplate parses a route's path. Its error says what is wrong with which segment.
func ParseTemplate(path string) (Template, error) {
	if !strings.HasPrefix(path, "/") {
		return Template{}, fmt.Errorf("must begin with a slash, got %q", path)
	}
	if path == "/" {
		return Template{}, nil
	}
	if strings.HasSuffix(path, "/") {
		return Template{}, fmt.Errorf("must not end with a slash (a request's trailing slash is ignored), got %q", path)
	}
	var t Template
	var names []string
	parts := strings.Split(path[1:], "/")
	for i, part := range parts {
		s, err := parseSegment(part)
		if err != nil {
			return Template{}, fmt.Errorf("segment %d of %q: %w", i+1, path, err)
		}
		if s.kind == greedy && i < len(parts)-1 {
			return Template{}, fmt.Errorf("segment %d of %q: a greedy parameter must be the last segment", i+1, path)
		}
		if s.kind != static {
			if slices.Contains(names, s.name) {
				return Template{}, fmt.Errorf("segment %d of %q: the parameter name %q is used twice", i+1, path, s.name)
			}
			names = append(names, s.name)
		}
		t.segments = append(t.segments, s)
	}
	return t, nil
}

func parseSegment(part string) (segment, error) {
	if part == "" {
		return segment{}, errors.New("is empty (two slashes)")
	}
	inner, opened := strings.CutPrefix(part, "{")
	if !opened {
		if !staticPattern.MatchString(part) {
			return segment{}, fmt.Errorf("%q has a character that a path cannot have; a parameter is a whole segment, {name} or {name+}", part)
		}
		return segment{kind: static, name: part}, nil
	}
	name, closed := strings.CutSuffix(inner, "}")
	if !closed {
		return segment{}, fmt.Errorf("%q must end with }: a parameter is a whole segment, {name} or {name+}", part)
	}
	s := segment{kind: param, name: name}
	if base, isGreedy := strings.CutSuffix(name, "+"); isGreedy {
		s = segment{kind: greedy, name: base}
	}
	if !namePattern.MatchString(s.name) {
		return segment{}, fmt.Errorf("%q: a parameter name has letters, digits, dots, dashes and underscores only", part)
	}
	return s, nil
}

// Key is the same for two templates that match the same paths: parameter names do not count.
func (t Template) Key() string {
	if len(t.segments) == 0 {
		return "/"
	}
	var b strings.Builder
	for _, s := range t.segments {
		b.WriteByte('/')
		switch s.kind {
		case static:
			b.WriteString(s.name)
		case param:
			b.WriteString("{}")
		case greedy:
			b.WriteString("{+}")
		}
	}
	return b.String()
}
