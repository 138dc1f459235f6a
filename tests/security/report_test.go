package security

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"text/tabwriter"
)

// threat is who attacks.
type threat string

// Threats, as docs/security.md has them.
const (
	client    threat = "client"
	function  threat = "function"
	localUser threat = "local user"
	operator  threat = "operator's mistake"
)

var threats = []threat{client, function, localUser, operator}

// claims are what has been tried in this run.
type claims struct {
	// mu guards all, in the order in which they were tried.
	mu  sync.Mutex
	all []claim
}

type claim struct {
	threat threat
	what   string
	denied bool
}

// attempt runs one try of an attacker as a subtest that fails when the attacker succeeds, and takes note of it for the
// table. what says what is tried, in a line.
func attempt(t *testing.T, by threat, what string, try func(t *testing.T)) {
	t.Helper()
	passed := t.Run(what, try)
	tried.mu.Lock()
	defer tried.mu.Unlock()
	tried.all = append(tried.all, claim{by, what, passed})
}

// table prints tried and denied by threat, and every try.
func (c *claims) table() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 4, 2, ' ', 0)
	_, _ = fmt.Fprintln(w, "threat\ttried\tdenied")
	for _, by := range threats {
		all, denied := 0, 0
		for _, one := range c.all {
			if one.threat == by {
				all++
				if one.denied {
					denied++
				}
			}
		}
		_, _ = fmt.Fprintf(w, "%s\t%d\t%d\n", by, all, denied)
	}
	_ = w.Flush()
	for _, by := range threats {
		_, _ = fmt.Fprintf(&b, "\n%s\n", by)
		for _, one := range c.all {
			if one.threat == by {
				word := "denied  "
				if !one.denied {
					word = "SUCCEEDS"
				}
				_, _ = fmt.Fprintf(&b, "  %s  %s\n", word, one.what)
			}
		}
	}
	return b.String()
}
