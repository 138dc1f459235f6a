package vulncheck

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"text/tabwriter"

	"go.yaml.in/yaml/v3"
)

// Allowed is a fault that a call leads to, and that is let pass all the same.
type Allowed struct {
	// ID of the fault in Go's vulnerability database.
	ID string `yaml:"id"`
	// Module that has it.
	Module string `yaml:"module"`
	// Programs in which it is let pass.
	Programs []string `yaml:"programs"`
	// Without are packages that none of these programs may contain, because the fault is in them: the database does not
	// name a package for every fault, and then takes the whole module for faulty.
	Without []string `yaml:"without"`
	// Reason says why the fault cannot be used at the box, and why it is there at all.
	Reason string `yaml:"reason"`
}

// LoadAllowed reads the file of what is let pass.
func LoadAllowed(path string) ([]Allowed, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read what is let pass: %w", err)
	}
	var all []Allowed
	decoder := yaml.NewDecoder(bytes.NewReader(text))
	decoder.KnownFields(true)
	if err := decoder.Decode(&all); err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	for i, a := range all {
		if a.ID == "" || a.Module == "" || len(a.Programs) == 0 || strings.TrimSpace(a.Reason) == "" {
			return nil, fmt.Errorf("%s: entry %d (%s): id, module, programs and reason are needed", path, i+1, a.ID)
		}
	}
	return all, nil
}

// Result is what a check found in one program.
type Result struct {
	Program string
	// Release is the Go release that the binary was built with, "" where there is none.
	Release  string
	Findings []Finding
	// Packages are the import paths of all that the program consists of, where there are findings.
	Packages []string
}

// Pass is a fault that is let pass.
type Pass struct {
	Program string
	Finding
	Why string
}

// Verdict is what is to be said of all programs together.
type Verdict struct {
	Passes []Pass
	// Failures, each a sentence that says what to do.
	Failures []string
}

// Decide judges results: programs of another Go release than toolchain, faults that a call leads to and that are not
// allowed, and allowed ones that are not there.
func Decide(toolchain string, results []Result, allowed []Allowed) Verdict {
	var v Verdict
	fail := func(format string, args ...any) { v.Failures = append(v.Failures, fmt.Sprintf(format, args...)) }
	used := map[string]bool{}
	for _, r := range results {
		if r.Release != "" && r.Release != toolchain {
			fail("%s was built with %s: build it anew with %s", r.Program, r.Release, toolchain)
		}
		for _, f := range r.Findings {
			switch f.Reach {
			case Required:
				v.Passes = append(v.Passes, Pass{r.Program, f, "the faulty package is not in the program"})
				continue
			case Imported:
				v.Passes = append(v.Passes, Pass{r.Program, f, "no call leads to the faulty functions"})
				continue
			}
			i := slices.IndexFunc(allowed, func(a Allowed) bool {
				return a.ID == f.ID && a.Module == f.Module && slices.Contains(a.Programs, r.Program)
			})
			if i < 0 {
				fail("%s has %s (%s), in %s %s, and calls %s: %s", r.Program, f.ID, f.Summary, f.Module, f.Version, f.Via, remedy(f))
				continue
			}
			used[key(i, r.Program)] = true
			if held := intersection(allowed[i].Without, r.Packages); len(held) > 0 {
				fail("%s has %s (%s), which is let pass only without %s: %s", r.Program, f.ID, f.Summary, strings.Join(held, ", "), remedy(f))
				continue
			}
			v.Passes = append(v.Passes, Pass{r.Program, f, strings.TrimSpace(allowed[i].Reason)})
		}
	}
	for i, a := range allowed {
		for _, program := range a.Programs {
			if !used[key(i, program)] {
				fail("%s in %s is let pass in %s, but is not reached there: take the entry away", a.ID, a.Module, program)
			}
		}
	}
	return v
}

func key(entry int, program string) string { return fmt.Sprintf("%d %s", entry, program) }

func remedy(f Finding) string {
	if f.Fixed != "" {
		return "raise it to " + f.Fixed
	}
	return "there is no version without it: see whether it can be used at the box, and do without the module or write the reason into the allow file"
}

func intersection(a, b []string) []string {
	var both []string
	for _, one := range a {
		if slices.Contains(b, one) {
			both = append(both, one)
		}
	}
	return both
}

// Print writes the table of programs, and what is let pass with its reasons.
func (v Verdict) Print(w io.Writer, results []Result) error {
	table := tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)
	_, _ = fmt.Fprintln(table, "program\tGo\tknown faults in it\ta call leads to\tof these let pass")
	for _, r := range results {
		called, passed := 0, 0
		for _, f := range r.Findings {
			if f.Reach == Called {
				called++
			}
		}
		for _, p := range v.Passes {
			if p.Program == r.Program && p.Reach == Called {
				passed++
			}
		}
		release := r.Release
		if release == "" {
			release = "(sources)"
		}
		_, _ = fmt.Fprintf(table, "%s\t%s\t%d\t%d\t%d\n", r.Program, release, len(r.Findings), called, passed)
	}
	if err := table.Flush(); err != nil {
		return err
	}
	for _, p := range v.Passes {
		fixed := "no version without it"
		if p.Fixed != "" {
			fixed = "fixed in " + p.Fixed
		}
		_, err := fmt.Fprintf(w, "let pass: %s: %s in %s %s (%s; %s)\n    %s\n", p.Program, p.ID, p.Module, p.Version, p.Summary, fixed, strings.ReplaceAll(p.Why, "\n", "\n    "))
		if err != nil {
			return err
		}
	}
	return nil
}
