package config

import (
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// awsRuntime matches AWS's names of runtimes, those of today, of yesterday and by their pattern of tomorrow (Lambda developer
// guide, "Lambda runtimes").
var awsRuntime = regexp.MustCompile(`^(?:python[23]\.[0-9]{1,2}|nodejs[0-9]{1,2}\.(?:x|[0-9]{1,2})|java[0-9]{1,2}(?:\.al2)?|ruby[0-9]\.[0-9]|` +
	`dotnet[0-9]{1,2}|dotnetcore[0-9]\.[0-9]|go1\.x|provided\.al2|provided\.al2023)$`)

// DefaultRuntimes are those that the box's own base images are for, as functions/samples makes them on Debian 12.
func DefaultRuntimes() []string {
	return []string{"nodejs24.x", "provided.al2", "provided.al2023", "python3.11"}
}

// runtimes says what runs each of AWS's runtimes.
type runtimes struct {
	// have are the runtimes that the box has base images for, sorted.
	have []string
	// given is what functions.yml says under runtimes: the name of one of have, or an image, by AWS's name.
	given map[string]string
}

// nodeVersion is the major version in "nodejs24.x", 0 when it is none.
func nodeVersion(name string) int {
	rest, ok := strings.CutPrefix(name, "nodejs")
	if !ok {
		return 0
	}
	n, _ := strconv.Atoi(strings.TrimSuffix(rest, ".x"))
	return n
}

// base returns what runs a runtime: empty for its own base image, another runtime's name, or an image. ok is false when
// nothing does.
func (r *runtimes) base(name string) (base string, ok bool) {
	if given, ok := r.given[name]; ok {
		return given, true
	}
	if slices.Contains(r.have, name) {
		return "", true
	}
	// Code for an older Node.js runs on a newer one nearly always: Node.js keeps what it has for years. From 18 on AWS's runtimes have
	// the same SDK. Python's versions remove more, and bind compiled packages: that is for whoever knows the code to say.
	if version := nodeVersion(name); version >= 18 {
		best := ""
		for _, have := range r.have {
			if nodeVersion(have) > version && (best == "" || nodeVersion(have) < nodeVersion(best)) {
				best = have
			}
		}
		return best, best != ""
	}
	return "", false
}

// similar returns the box's runtime of the same language, empty when there is none.
func (r *runtimes) similar(name string) string {
	letters := strings.TrimRight(name, ".0123456789x")
	for _, have := range slices.Backward(r.have) {
		if strings.HasPrefix(have, letters) && letters != "" && strings.TrimRight(have, ".0123456789x") == letters {
			return have
		}
	}
	return ""
}

// runtimes reads the top-level key: AWS's name to the name of a runtime that the box has, or to an image.
func (v value) runtimes(r *runtimes) {
	o, ok := v.object()
	if !ok {
		return
	}
	for _, name := range o.names {
		v, ok := o.get(name)
		if !ok {
			continue
		}
		if !awsRuntime.MatchString(name) {
			v.problemf("is not the name of a runtime of AWS, such as python3.12 or java21")
			continue
		}
		text, ok := v.text("a runtime that this box has, or an image")
		switch {
		case !ok:
		case awsRuntime.MatchString(text):
			if text == name || !slices.Contains(r.have, text) {
				v.problemf("must be another runtime, one that this box has (%s), or an image that runs %s, got %s", strings.Join(r.have, ", "), name, text)
				continue
			}
			r.given[name] = text
		default:
			r.given[name] = v.image()
		}
	}
	o.close()
}

// runtime reads a function's runtime and what runs it.
func (v value) runtime() (name, base string) {
	r := v.doc.runtimes
	name, ok := v.text("the name of a runtime")
	if !ok {
		return "", ""
	}
	base, ok = r.base(name)
	switch {
	case ok:
	case !awsRuntime.MatchString(name):
		v.problemf("must be the name of a runtime of AWS that this box has (%s) or that runtimes: in functions.yml names, got %q", r.known(), name)
	case name == "go1.x":
		v.problemf("go1.x is not on this box, nor any more on AWS: build the program as bootstrap (GOOS=linux go build -tags lambda.norpc -o bootstrap) and say provided.al2023")
	case r.similar(name) != "":
		v.problemf("%s is not on this box, which has %s: where the code runs on %s too, say so at the top of functions.yml (runtimes: {%s: %s}), "+
			"or name an image with that runtime (runtimes: {%s: my/image:tag})", name, r.known(), r.similar(name), name, r.similar(name), name)
	default:
		v.problemf("%s is not on this box, which has %s: name an image with that runtime at the top of functions.yml (runtimes: {%s: my/image:tag}), "+
			"make the function an image, or bring the runtime as bootstrap with provided.al2023", name, r.known(), name)
	}
	return name, base
}

// known are the runtimes that functions may name, for messages.
func (r *runtimes) known() string {
	return strings.Join(slices.Compact(slices.Sorted(slices.Values(slices.Concat(r.have, slices.Collect(maps.Keys(r.given)))))), ", ")
}

// Substitutes says which of AWS's runtimes are run by something else than the box's base image for them, and for which functions,
// sorted: "nodejs20.x by nodejs24.x (orders, users)".
func (c *Config) Substitutes() []string {
	functions := map[string][]string{}
	for name, f := range c.Functions {
		if f.Code != nil && f.Code.Base != "" {
			key := f.Code.Runtime + " by " + f.Code.Base
			functions[key] = append(functions[key], name)
		}
	}
	var list []string
	for _, key := range slices.Sorted(maps.Keys(functions)) {
		list = append(list, key+" ("+strings.Join(slices.Sorted(slices.Values(functions[key])), ", ")+")")
	}
	return list
}
