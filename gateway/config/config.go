// Package config reads functions.yml and routing.yml (docs/system-specification.md 7), and resources.yml, strictly: an unknown key, a
// duplicate, a wrong type or a value out of range is a problem that names file, line and key, and all problems of all
// files are reported at once.
//
// ${NAME} in a value is replaced by the environment variable NAME, which must be set; $${ stands for a plain ${.
// Keys are never replaced. A replaced value that is not quoted may be a number: max_capacity: ${MAX} works.
package config

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/edge-serverless-box/esb/gateway"
	"github.com/edge-serverless-box/esb/gateway/response"
)

// Config is the content of all files, complete and checked. It is immutable: a reload makes a new one.
type Config struct {
	// Functions by name: those of functions.yml and those that routes define in place.
	Functions map[string]*gateway.Function
	// NamesStores is true when a key s3 or tables is in a file at all.
	NamesStores bool
	// Routes in the order of the file.
	Routes []gateway.Route
	// API is what routing.yml says of the API as a whole, Replies its Responses, compiled.
	API     gateway.API
	Replies *response.Set
	// Access is what routing.yml says for all routes together.
	Access gateway.Access
	// Resources are the tables and buckets of resources.yml.
	Resources gateway.Resources
	// Images and Code are where functions name their images, and code and layers outside of images.
	Images, Code []Place
}

// Place is where a file names something that is outside of it.
type Place struct {
	File string
	Line int
	Key  string
	// Value is what it names: an image, or where code is, whose path is whole.
	Value string
}

// Problem is what is wrong with what a place names.
func (p Place) Problem(format string, args ...any) Problem {
	return Problem{File: p.File, Line: p.Line, Key: p.Key, Message: fmt.Sprintf(format, args...)}
}

// Options are what the files depend on.
type Options struct {
	// LookupEnv gives the values for ${NAME}; nil means os.LookupEnv.
	LookupEnv func(string) (string, bool)
	// IdleTimeout of functions that set none; 0 means 5 minutes.
	IdleTimeout time.Duration
	// ReservedPaths are the paths that the gateway serves itself, each with what serves it, for the message to
	// whoever routes one: {"/user/auth/ver1.0": "the login (AUTH_ENDPOINT_PATH)"}. One that ends with a slash stands for
	// all that begin with it.
	ReservedPaths map[string]string
	// Runtimes are AWS's names of the runtimes that the box has base images for; nil means DefaultRuntimes.
	Runtimes []string
	// ResourcesPath is the file with tables and buckets, empty for none. ResourcesOptional says that the file need
	// not be there.
	ResourcesPath     string
	ResourcesOptional bool
	// KeptPath is where a Watcher keeps the files that were taken last, empty for nowhere.
	KeptPath string
}

// Error is what Load returns when a file was read and refused.
type Error struct {
	Problems []Problem
	// Images and Code are those of Config, as far as the files could be read.
	Images, Code []Place
}

// Problem is one thing that is wrong with a file.
type Problem struct {
	File string
	// Line is 0 when the problem is of the whole file.
	Line int
	// Key is the path of the key, such as "functions.echo.timeout"; empty when there is none.
	Key     string
	Message string
}

// String is "file:line: key: message".
func (p Problem) String() string {
	var b strings.Builder
	b.WriteString(p.File)
	if p.Line > 0 {
		fmt.Fprintf(&b, ":%d", p.Line)
	}
	b.WriteString(": ")
	if p.Key != "" {
		b.WriteString(p.Key)
		b.WriteString(": ")
	}
	b.WriteString(p.Message)
	return b.String()
}

// Error implements error, one problem a line.
func (e *Error) Error() string {
	lines := make([]string, len(e.Problems))
	for i, p := range e.Problems {
		lines[i] = p.String()
	}
	return strings.Join(lines, "\n")
}

// Load reads the files. Its error is an *Error with every problem of all when they were refused.
func Load(functionsPath, routingPath string, opts Options) (*Config, error) {
	f, err := read(functionsPath, routingPath, opts)
	if err != nil {
		return nil, err
	}
	return parse(f, opts)
}

// files is the content of all files at one time. The path of resources is empty when there is none.
type files struct {
	functions, routing, resources file
}

type file struct {
	path string
	data string
}

func read(functionsPath, routingPath string, opts Options) (files, error) {
	functions, err := os.ReadFile(functionsPath)
	if err != nil {
		return files{}, fmt.Errorf("read the functions file (FUNCTIONS_CONFIG_PATH): %w", err)
	}
	routing, err := os.ReadFile(routingPath)
	if err != nil {
		return files{}, fmt.Errorf("read the routing file (ROUTING_CONFIG_PATH): %w", err)
	}
	f := files{
		functions: file{path: functionsPath, data: string(functions)},
		routing:   file{path: routingPath, data: string(routing)},
	}
	if opts.ResourcesPath == "" {
		return f, nil
	}
	switch resources, err := os.ReadFile(opts.ResourcesPath); {
	case err == nil:
		f.resources = file{path: opts.ResourcesPath, data: string(resources)}
	case !opts.ResourcesOptional || !errors.Is(err, fs.ErrNotExist):
		return files{}, fmt.Errorf("read the resources file (RESOURCES_CONFIG_PATH): %w", err)
	}
	return f, nil
}

func parse(f files, opts Options) (*Config, error) {
	if opts.LookupEnv == nil {
		opts.LookupEnv = os.LookupEnv
	}
	if opts.IdleTimeout == 0 {
		opts.IdleTimeout = 5 * time.Minute
	}
	var problems []Problem
	base, fp := parseFunctions(f.functions, opts)
	problems = append(problems, fp...)
	c := &Config{Functions: base.functions}
	problems = append(problems, parseRouting(f.routing, opts, base, c)...)
	problems = append(problems, base.checkMentions()...)
	c.NamesStores = slices.ContainsFunc(base.docs, func(d *document) bool { return d.stores })
	for _, d := range base.docs {
		c.Images, c.Code = append(c.Images, d.images...), append(c.Code, d.code...)
	}
	var sp []Problem
	c.Resources, sp = parseResources(f.resources, opts)
	problems = append(problems, sp...)
	if len(problems) > 0 {
		return nil, &Error{Problems: problems, Images: c.Images, Code: c.Code}
	}
	return c, nil
}
