// Package vulncheck says which known faults the programs of the box hold, and which of these a program can come to.
//
// What a program holds is read from the binary itself: its Go release and the modules in it. Binaries are stripped, so
// that govulncheck cannot tell what of a module is in them and assumes all of it. Where that finds something, the
// program's sources say whether a call leads to it; what they say counts only for the modules that the binary has too.
package vulncheck

import (
	"bytes"
	"context"
	"debug/buildinfo"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/edge-serverless-box/esb/functions/gotool"
	"github.com/edge-serverless-box/esb/native/build"
)

// module has govulncheck and the database as its requirements.
const module = "tools/vulncheck"

// database is the module with the entries that vuln.go.dev serves.
const database = "golang.org/x/vulndb"

// Program is something of the box that is written in Go.
type Program struct {
	// Name for people, and in the allow file.
	Name string
	// Path of its binary; empty for what ends up in images, of which there are the sources alone.
	Path string
	// Target says how it is built. It has one package, or a pattern.
	Target build.Target
}

// Programs returns all programs of the repository root in Go that have their binaries in dir, and names those in other
// languages. A binary of which nobody knows the sources is an error, so that none is forgotten.
func Programs(root, dir string) (programs []Program, others []string, err error) {
	if root, err = filepath.Abs(root); err != nil {
		return nil, nil, fmt.Errorf("the repository's folder: %w", err)
	}
	if dir, err = filepath.Abs(dir); err != nil {
		return nil, nil, fmt.Errorf("the folder of the binaries: %w", err)
	}
	known := map[string]bool{}
	add := func(path string, t build.Target) {
		name := filepath.Base(path)
		known[name] = true
		programs = append(programs, Program{Name: name, Path: path, Target: t})
	}
	for _, group := range build.BoxGroups {
		for _, t := range build.Targets(group) {
			if t.NPM != nil {
				others = append(others, t.Outputs...)
				for _, name := range t.Outputs {
					known[name] = true
				}
				continue
			}
			for i, name := range t.Outputs {
				one := t
				one.Packages = t.Packages[i : i+1]
				add(filepath.Join(dir, name), one)
			}
		}
	}
	add(filepath.Join(dir, "esb"), build.Target{Module: "native", Packages: []string{"./cmd/esb"}, Workspace: true})
	// In the image of DinD; docker/plugins builds it.
	add(filepath.Join(root, ".esb", "tools", "cli-plugins", "docker-compose"),
		build.Target{Module: "tools/compose", Packages: []string{"github.com/docker/compose/v5/cmd"}})
	programs = append(programs, Program{
		Name: "samples", Target: build.Target{Module: "functions", Packages: []string{"./..."}, Tags: []string{"lambda.norpc"}},
	})
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, nil, fmt.Errorf("list the binaries: %w", err)
	}
	for _, e := range entries {
		if !e.Type().IsRegular() || known[e.Name()] {
			continue
		}
		if _, err := buildinfo.ReadFile(filepath.Join(dir, e.Name())); err == nil {
			return nil, nil, fmt.Errorf("%s in %s is a Go program that native/vulncheck does not know: add it there, or remove the file", e.Name(), dir)
		}
	}
	return programs, others, nil
}

// Checker runs govulncheck.
type Checker struct {
	root, govulncheck, entries string
	// Toolchain is the Go release that everything is built with, Database the version of the vulnerability database.
	Toolchain, Database string
}

// NewChecker returns a Checker for programs of the repository root, with the database that the repository pins.
func NewChecker(ctx context.Context, root string) (*Checker, error) {
	root, err := filepath.Abs(root)
	if err != nil {
		return nil, fmt.Errorf("the repository's folder: %w", err)
	}
	c := &Checker{root: root, govulncheck: filepath.Join(root, ".esb", "tools", "govulncheck")}
	if c.Toolchain, err = gotool.Toolchain(root); err != nil {
		return nil, err
	}
	if c.Toolchain == "" {
		return nil, fmt.Errorf("%s has no line \"toolchain\": it says which release of Go everything is built with", filepath.Join(root, "go.work"))
	}
	out, err := c.run(ctx, build.Target{Module: module}, "go", "mod", "download", "-json", database)
	if err != nil {
		return nil, fmt.Errorf("get the vulnerability database: %w", err)
	}
	var answer struct{ Version, Dir string }
	if err := json.Unmarshal(out, &answer); err != nil {
		return nil, fmt.Errorf("get the vulnerability database: %w", err)
	}
	c.Database, c.entries = answer.Version, filepath.Join(answer.Dir, "data", "osv")
	// govulncheck finds nothing in an empty folder, and says that all is well.
	if found, err := filepath.Glob(filepath.Join(c.entries, "GO-*.json")); err != nil || len(found) == 0 {
		return nil, errors.Join(err, fmt.Errorf("%s %s has no entries in data/osv: see whether its layout has changed", database, c.Database))
	}
	return c, nil
}

// Check finds the faults of a program.
func (c *Checker) Check(ctx context.Context, p Program) (Result, error) {
	r := Result{Program: p.Name}
	var held []Finding
	if p.Path != "" {
		info, err := buildinfo.ReadFile(p.Path)
		if err != nil {
			return r, fmt.Errorf("check %s: %w", p.Name, err)
		}
		r.Release = info.GoVersion
		if held, err = c.scan(ctx, build.Target{Module: module}, "-mode", "binary", p.Path); err != nil {
			return r, fmt.Errorf("check %s: %w", p.Name, err)
		}
		if len(held) == 0 {
			return r, nil
		}
	}
	args := []string{}
	if len(p.Target.Tags) > 0 {
		args = append(args, "-tags", strings.Join(p.Target.Tags, ","))
	}
	reached, err := c.scan(ctx, p.Target, append(args, p.Target.Packages...)...)
	if err != nil {
		return r, fmt.Errorf("check the sources of %s: %w", p.Name, err)
	}
	if p.Path == "" {
		r.Findings = reached
	} else if r.Findings, err = join(held, reached); err != nil {
		return r, fmt.Errorf("check %s: %w", p.Name, err)
	}
	if len(r.Findings) == 0 {
		return r, nil
	}
	list, err := c.run(ctx, p.Target, "go", append(append([]string{"list", "-deps"}, args...), p.Target.Packages...)...)
	if err != nil {
		return r, fmt.Errorf("list the packages of %s: %w", p.Name, err)
	}
	r.Packages = strings.Fields(string(list))
	return r, nil
}

// join takes from the sources how near the binary's faults are.
func join(held, reached []Finding) ([]Finding, error) {
	near := map[Fault]Finding{}
	for _, f := range reached {
		near[f.Fault] = f
	}
	var all []Finding
	for _, f := range held {
		found, ok := near[f.Fault]
		if !ok {
			return nil, fmt.Errorf("the binary has %s %s, its sources have not: build it anew", f.Module, f.Version)
		}
		all = append(all, found)
	}
	return all, nil
}

func (c *Checker) scan(ctx context.Context, t build.Target, args ...string) ([]Finding, error) {
	out, err := c.run(ctx, t, c.govulncheck, append([]string{"-format", "json", "-db", "file://" + c.entries}, args...)...)
	if err != nil {
		return nil, err
	}
	return parse(bytes.NewReader(out))
}

// run runs a command as if it were to build the target.
func (c *Checker) run(ctx context.Context, t build.Target, name string, args ...string) ([]byte, error) {
	env, err := build.Env(c.root, t)
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = filepath.Join(c.root, t.Module)
	cmd.Env = env
	out, err := cmd.Output()
	if err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			err = fmt.Errorf("%w: %s", err, bytes.TrimSpace(exit.Stderr))
		}
		return nil, fmt.Errorf("%s %s: %w", filepath.Base(name), strings.Join(args, " "), err)
	}
	return out, nil
}
