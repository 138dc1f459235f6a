// Package conformance holds the behaviour of AWS (rows.yml) as cases that run against one
// whole box: real requests, real functions in real containers. README.md says how to add one.
package conformance

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Kinds of cases that need no code of their own.
const kindHTTP = "http"

// DefaultProfile is the routing file of cases that name none.
const DefaultProfile = "default"

// Case is one folder cases/<section>/<name>.
type Case struct {
	// Section is the section of rows.yml, Name the folder.
	Section, Name string `yaml:"-"`
	// Dir is the folder's path.
	Dir string `yaml:"-"`
	// Rows are ids of rows.yml, of this section, that the case shows.
	Rows []string `yaml:"rows"`
	// Unsure marks what has no primary source beside rows that rows.yml marks already.
	Unsure bool `yaml:"unsure"`
	// Kind chooses the runner; "http" when empty.
	Kind string `yaml:"kind"`
	// Profile is the routing file testdata/<profile>.yml; "default" when empty.
	Profile string `yaml:"profile"`
	// Steps are done one after the other; a case that has none is one step, given by the keys of Step right here.
	Steps []Step `yaml:"steps"`
	Step  `yaml:",inline"`
	// With is for the runner of Kind.
	With map[string]string `yaml:"with"`
}

// Step is one request and what is expected of it. Its files begin with "<name>." when it has a name.
type Step struct {
	Name string `yaml:"name"`
	// Scheme is https, or h2 for HTTP/2; empty for plain HTTP/1.1.
	Scheme string `yaml:"scheme"`
	// Path is posted to when there is no request.http; "/respond" when empty.
	Path string `yaml:"path"`
	// Fill makes a body of that many letters, BodyBase64 one of bytes; else the body is in request.http or the result file.
	Fill       int    `yaml:"fill"`
	BodyBase64 string `yaml:"body_base64"`
}

// Files of a step.
const (
	fileCase     = "case.yml"
	fileRequest  = "request.http"
	fileEvent    = "event.json"
	fileResponse = "response.json"
)

// resultFiles are what the function of /respond returns, byte for byte but for a newline at the end.
var resultFiles = []string{"result.json", "result.txt"}

// loadCases reads all cases below dir, in order. Its error has every mistake.
func loadCases(dir string, rows *Rows, kinds map[string]Runner) ([]*Case, error) {
	files, err := filepath.Glob(filepath.Join(dir, "*", "*", fileCase))
	if err != nil {
		return nil, err
	}
	slices.Sort(files)
	var cases []*Case
	var problems []error
	for _, file := range files {
		c, err := loadCase(file)
		if err == nil {
			err = c.check(rows, kinds)
		}
		if err != nil {
			problems = append(problems, fmt.Errorf("%s: %w", file, err))
			continue
		}
		cases = append(cases, c)
	}
	// A folder without case.yml would never run.
	folders, err := filepath.Glob(filepath.Join(dir, "*", "*"))
	if err != nil {
		return nil, err
	}
	for _, folder := range folders {
		if _, err := os.Stat(filepath.Join(folder, fileCase)); errors.Is(err, fs.ErrNotExist) {
			problems = append(problems, fmt.Errorf("%s: has no %s", folder, fileCase))
		}
	}
	return cases, errors.Join(problems...)
}

func loadCase(file string) (*Case, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	dir := filepath.Dir(file)
	c := &Case{Section: filepath.Base(filepath.Dir(dir)), Name: filepath.Base(dir), Dir: dir}
	decoder := yaml.NewDecoder(bytes.NewReader(data))
	decoder.KnownFields(true)
	if err := decoder.Decode(c); err != nil {
		return nil, err
	}
	if c.Kind == "" {
		c.Kind = kindHTTP
	}
	if c.Profile == "" {
		c.Profile = DefaultProfile
	}
	if len(c.Steps) == 0 {
		c.Steps = []Step{c.Step}
	}
	return c, nil
}

func (c *Case) check(rows *Rows, kinds map[string]Runner) error {
	if _, ok := kinds[c.Kind]; !ok {
		return fmt.Errorf("there is no kind %q: a runner is registered in kinds.go", c.Kind)
	}
	if len(c.Rows) == 0 {
		return errors.New("rows: name the rows of rows.yml that the case shows")
	}
	for _, id := range c.Rows {
		if rows.find(c.Section, id) == nil {
			return fmt.Errorf("rows: section %s of rows.yml has no row %q", c.Section, id)
		}
	}
	if c.Kind != kindHTTP {
		return nil // its runner knows its files
	}
	known := []string{fileCase}
	for _, s := range c.Steps {
		known = append(known, c.file(s, fileRequest), c.file(s, fileEvent), c.file(s, fileResponse))
		for _, f := range resultFiles {
			known = append(known, c.file(s, f))
		}
		if !c.has(s, fileEvent) && !c.has(s, fileResponse) {
			return fmt.Errorf("step %q expects nothing: it needs %s or %s", s.Name, c.file(s, fileEvent), c.file(s, fileResponse))
		}
	}
	entries, err := os.ReadDir(c.Dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if !slices.Contains(known, e.Name()) {
			return fmt.Errorf("%s: no step reads it", e.Name())
		}
	}
	return nil
}

// file is the name of a step's file.
func (c *Case) file(s Step, name string) string {
	if s.Name == "" {
		return name
	}
	return s.Name + "." + name
}

func (c *Case) has(s Step, name string) bool {
	_, err := os.Stat(filepath.Join(c.Dir, c.file(s, name)))
	return err == nil
}

// Read returns a step's file, or nil when there is none.
func (c *Case) Read(s Step, name string) ([]byte, error) {
	data, err := os.ReadFile(filepath.Join(c.Dir, c.file(s, name)))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return data, err
}

// body is what a step sends beside the body of request.http.
func (c *Case) body(s Step) ([]byte, error) {
	switch {
	case s.Fill > 0:
		return bytes.Repeat([]byte("x"), s.Fill), nil
	case s.BodyBase64 != "":
		return base64.StdEncoding.DecodeString(s.BodyBase64)
	}
	for _, name := range resultFiles {
		data, err := c.Read(s, name)
		if err != nil || data != nil {
			return bytes.TrimSuffix(data, []byte("\n")), err
		}
	}
	return nil, nil
}

// Rows is rows.yml: every row of sections 1 to 6.
type Rows struct {
	Sections []Section `yaml:"sections"`
}

// Section is one section of rows.yml.
type Section struct {
	ID    string `yaml:"id"`
	Title string `yaml:"title"`
	Rows  []Row  `yaml:"rows"`
}

// Row is one row, or one fact of a row that says several.
type Row struct {
	// ID is unique in its section; cases name it.
	ID string `yaml:"id"`
	// Words say what AWS does.
	Words string `yaml:"words"`
	// Unsure: the row is marked [?].
	Unsure bool `yaml:"unsure"`
	// Owner is who adds its cases: B (conformance), C (routes-auth), D (invoke-api), E (async), G (environment).
	Owner string `yaml:"owner"`
	// LeftOut is why the row has no case.
	LeftOut string `yaml:"left_out"`
}

func loadRows(file string) (*Rows, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	rows := &Rows{}
	decoder := yaml.NewDecoder(bytes.NewReader(data))
	decoder.KnownFields(true)
	if err := decoder.Decode(rows); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	for _, s := range rows.Sections {
		seen := map[string]bool{}
		for _, r := range s.Rows {
			if r.ID == "" || strings.TrimSpace(r.Words) == "" || seen[r.ID] {
				return nil, fmt.Errorf("%s: section %s: row %q has no id, no words, or the id of another row", file, s.ID, r.ID)
			}
			seen[r.ID] = true
		}
	}
	return rows, nil
}

func (r *Rows) find(section, id string) *Row {
	for i := range r.Sections {
		if r.Sections[i].ID != section {
			continue
		}
		for j := range r.Sections[i].Rows {
			if r.Sections[i].Rows[j].ID == id {
				return &r.Sections[i].Rows[j]
			}
		}
	}
	return nil
}
