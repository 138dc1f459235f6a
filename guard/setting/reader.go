package setting

import (
	"fmt"
	"os"
	"slices"
	"strings"
)

// Off is the value of an address or a URL that does without it.
const Off = "off"

// fileSuffix ends the name of the variable that names the file of a secret.
const fileSuffix = "_FILE"

// Reader takes the settings of one service from the environment, or the table's defaults where a variable is empty, and collects what
// is wrong, so that one start tells all of it. Reading what the table does not declare for the service is a mistake of the
// program, and a panic. Where the table says that a default is derived, the program gives it.
type Reader struct {
	service  Service
	declared map[string]Setting
	getenv   func(string) string
	// files are the secrets that were read from files, by their variables.
	files    map[string]string
	problems []string
}

// NewReader returns the reader of a service; getenv is usually os.Getenv.
func NewReader(service Service, getenv func(string) string) *Reader {
	return &Reader{service: service, declared: variables(service), getenv: getenv, files: make(map[string]string)}
}

// Error lists everything that is wrong with the settings.
type Error struct {
	// Problems are one sentence each: the variable, its value unless it is secret, and what would be right.
	Problems []string
}

// Error implements error, one problem a line.
func (e *Error) Error() string { return strings.Join(e.Problems, "\n") }

// Err is an *Error when something is wrong.
func (r *Reader) Err() error {
	if len(r.problems) == 0 {
		return nil
	}
	return &Error{Problems: r.problems}
}

// Problemf notes a problem, which begins with the name of the variable and a colon.
func (r *Reader) Problemf(format string, args ...any) {
	r.problems = append(r.problems, fmt.Sprintf(format, args...))
}

// Fail notes that a variable has a wrong value, and what it must be. Not for secrets.
func (r *Reader) Fail(name, value, must string) { r.Problemf("%s: %s, got %q", name, must, value) }

// Failed says whether one of the variables has a problem already.
func (r *Reader) Failed(names ...string) bool {
	return slices.ContainsFunc(r.problems, func(p string) bool {
		return slices.ContainsFunc(names, func(name string) bool { return strings.HasPrefix(p, name+":") })
	})
}

// Set says whether a variable, or the file of a secret, says something.
func (r *Reader) Set(name string) bool { return r.given(name) != "" }

// Text reads a text, without the blanks around it.
func (r *Reader) Text(name string, derived ...string) string {
	if v := strings.TrimSpace(r.given(name)); v != "" {
		return v
	}
	return r.fallback(name, derived)
}

// Secret reads a secret, with all of its blanks.
func (r *Reader) Secret(name string, derived ...string) Secret {
	if v := r.given(name); v != "" {
		return Secret(v)
	}
	return Secret(r.fallback(name, derived))
}

func (r *Reader) declaration(name string) Setting {
	s, ok := r.declared[name]
	if !ok {
		panic(fmt.Sprintf("setting: %s reads %s, which its table does not declare", r.service, name))
	}
	return s
}

// given is what the environment says; blanks say nothing.
func (r *Reader) given(name string) string {
	s := r.declaration(name)
	if v := r.getenv(name); strings.TrimSpace(v) != "" {
		return v
	}
	if s.File {
		return r.file(name)
	}
	return ""
}

// file reads the file of a secret, once.
func (r *Reader) file(name string) string {
	path := strings.TrimSpace(r.getenv(name + fileSuffix))
	if _, done := r.files[name]; done || path == "" {
		return r.files[name]
	}
	r.files[name] = ""
	data, err := os.ReadFile(path)
	if err != nil {
		r.Problemf("%s%s: %v", name, fileSuffix, err)
		return ""
	}
	// Editors end a file with a line break.
	if r.files[name] = strings.TrimRight(string(data), "\r\n"); r.files[name] == "" {
		r.Problemf("%s%s: there is nothing in %s", name, fileSuffix, path)
	}
	return r.files[name]
}

// fallback is the default of a variable.
func (r *Reader) fallback(name string, derived []string) string {
	s := r.declaration(name)
	if len(derived) == 0 {
		return s.value(name)
	}
	if s.Derived == "" {
		panic(fmt.Sprintf("setting: %s derives a default of %s, whose table has one", r.service, name))
	}
	return derived[0]
}
