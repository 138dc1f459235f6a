package vulncheck

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
)

// Fault is a known fault in a version of a module; Go's own library is the module stdlib.
type Fault struct {
	ID, Module, Version string
}

// Reach is how near a program comes to a fault.
type Reach int

const (
	// Required means that the module is among those of the program, but the package with the fault is not in it.
	Required Reach = iota + 1
	// Imported means that the package is in the program, but no call leads to what is faulty in it.
	Imported
	// Called means that a call leads to it.
	Called
)

// Finding is a fault that a program has.
type Finding struct {
	Fault
	// Fixed is the version without it, "" where there is none.
	Fixed string
	Reach Reach
	// Summary of the database.
	Summary string
	// Via is a function that is faulty and called.
	Via string
}

// parse reads what `govulncheck -format json` prints: a stream of messages, and for each fault one at every depth
// (module, package, function) to which it was followed.
func parse(r io.Reader) ([]Finding, error) {
	found := map[Fault]Finding{}
	summaries := map[string]string{}
	complete := false
	for stream := json.NewDecoder(r); ; {
		var message struct {
			Config *struct {
				Protocol string `json:"protocol_version"`
				Level    string `json:"scan_level"`
			} `json:"config"`
			OSV *struct {
				ID      string `json:"id"`
				Summary string `json:"summary"`
			} `json:"osv"`
			Finding *struct {
				OSV   string `json:"osv"`
				Fixed string `json:"fixed_version"`
				Trace []struct {
					Module   string `json:"module"`
					Version  string `json:"version"`
					Package  string `json:"package"`
					Receiver string `json:"receiver"`
					Function string `json:"function"`
				} `json:"trace"`
			} `json:"finding"`
		}
		err := stream.Decode(&message)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("govulncheck's answer: %w", err)
		}
		if c := message.Config; c != nil {
			if c.Protocol != "v1.0.0" || c.Level != "symbol" {
				return nil, fmt.Errorf("govulncheck's answer is %s at the level %q, not v1.0.0 at the level of symbols", c.Protocol, c.Level)
			}
			complete = true
		}
		if o := message.OSV; o != nil {
			summaries[o.ID] = o.Summary
		}
		f := message.Finding
		if f == nil {
			continue
		}
		if len(f.Trace) == 0 || f.Trace[0].Module == "" {
			return nil, fmt.Errorf("govulncheck's finding of %s names no module", f.OSV)
		}
		at := f.Trace[0]
		one := Finding{Fault: Fault{f.OSV, at.Module, at.Version}, Fixed: f.Fixed, Reach: Required}
		switch {
		case at.Function != "":
			one.Reach, one.Via = Called, at.Package+"."+at.Function
			if at.Receiver != "" {
				one.Via = at.Package + "." + at.Receiver + "." + at.Function
			}
		case at.Package != "":
			one.Reach = Imported
		}
		if one.Reach > found[one.Fault].Reach {
			found[one.Fault] = one
		}
	}
	if !complete {
		return nil, errors.New("govulncheck's answer does not begin with its configuration")
	}
	all := slices.SortedFunc(maps.Values(found), func(a, b Finding) int {
		return cmp.Or(cmp.Compare(a.ID, b.ID), cmp.Compare(a.Module, b.Module), cmp.Compare(a.Version, b.Version))
	})
	for i := range all {
		all[i].Summary = summaries[all[i].ID]
	}
	return all, nil
}
