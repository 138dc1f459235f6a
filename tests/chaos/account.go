package chaos

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"text/tabwriter"
	"time"

	"github.com/edge-serverless-box/esb/tests/traffic"
)

// account is what was done in a run, and what came of it.
type account struct {
	plan  plan
	began time.Time
	// mu guards parts.
	mu    sync.Mutex
	parts []*part
}

// part is one fault, or another thing that is done to the box.
type part struct {
	name  string
	began time.Time
	plan  plan
	// mu guards the rest.
	mu           sync.Mutex
	took         time.Duration
	holds, looks int
	measured     []string
	broken       []string
	// sent and answered are by stream, causes are of what was not answered as it should.
	sent, answered map[string]int
	causes         map[string]int
	lost, leaked   int
}

// open begins a part, which ends with the test.
func (a *account) open(t *testing.T, name string) *part {
	t.Helper()
	p := &part{name: name, began: time.Now(), plan: a.plan, sent: map[string]int{}, answered: map[string]int{}, causes: map[string]int{}}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.parts = append(a.parts, p)
	t.Cleanup(func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.took = time.Since(p.began)
		if t.Failed() && len(p.broken) == 0 {
			p.broken = append(p.broken, "it could not be done to its end: the log of the test says why")
			p.looks++
		}
		t.Logf("%s: %s", name, p.line())
	})
	return p
}

// hold looks at something that must be so on any machine.
func (p *part) hold(t *testing.T, ok bool, format string, args ...any) {
	t.Helper()
	p.look(ok, format, args...)
	if !ok {
		t.Errorf(format, args...)
	}
}

func (p *part) look(ok bool, format string, args ...any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.looks++
	if ok {
		p.holds++
	} else {
		p.broken = append(p.broken, fmt.Sprintf(format, args...))
	}
}

// within looks at a time, or another measure, which a machine that does other things as well may miss.
func (p *part) within(t *testing.T, what string, took, limit time.Duration) {
	t.Helper()
	p.measure("%s %s", what, short(took))
	p.target(t, took <= limit, "%s %s, more than %s", what, short(took), limit)
}

// target looks at what holds where the machine does nothing else.
func (p *part) target(t *testing.T, ok bool, format string, args ...any) {
	t.Helper()
	p.look(ok, format+" (load %s)", append(args, loadAverage())...)
	if !ok && p.plan.strict {
		t.Errorf(format, args...)
	}
}

// measure notes a figure.
func (p *part) measure(format string, args ...any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.measured = append(p.measured, fmt.Sprintf(format, args...))
}

// count takes requests into the account.
func (p *part) count(samples []traffic.Sample) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, s := range samples {
		p.sent[s.Stream]++
		if s.OK() {
			p.answered[s.Stream]++
		} else {
			p.causes[s.Stream+" "+s.Cause()]++
		}
	}
}

// miss counts accepted events that have not run, leak what is left over.
func (p *part) miss(n int) { p.mu.Lock(); p.lost += n; p.mu.Unlock() }
func (p *part) leak(n int) { p.mu.Lock(); p.leaked += n; p.mu.Unlock() }

// line is the part in a line; the caller holds p.mu.
func (p *part) line() string {
	line := fmt.Sprintf("%d of %d hold", p.holds, p.looks)
	if len(p.measured) > 0 {
		line += "; " + strings.Join(p.measured, ", ")
	}
	if len(p.broken) > 0 {
		line += "; NOT: " + strings.Join(p.broken, "; ")
	}
	return line
}

// String is the account: a table, and a line of each part.
func (a *account) String() string {
	a.mu.Lock()
	defer a.mu.Unlock()
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 4, 2, ' ', 0)
	_, _ = fmt.Fprintln(w, "part\ttook\tsent\tanswered\tlost\tleaked\thold\tfailed by cause")
	total := &part{sent: map[string]int{}, answered: map[string]int{}, causes: map[string]int{}, took: time.Since(a.began)}
	for _, p := range a.parts {
		p.mu.Lock()
		row(w, p.name, p)
		total.holds, total.looks = total.holds+p.holds, total.looks+p.looks
		total.lost, total.leaked = total.lost+p.lost, total.leaked+p.leaked
		add(total.sent, p.sent)
		add(total.answered, p.answered)
		add(total.causes, p.causes)
		p.mu.Unlock()
	}
	row(w, "all", total)
	_ = w.Flush()
	b.WriteByte('\n')
	for _, p := range a.parts {
		p.mu.Lock()
		_, _ = fmt.Fprintf(&b, "%s: %s\n", p.name, p.line())
		p.mu.Unlock()
	}
	_, _ = fmt.Fprintf(&b, "\n%s; by stream:", a.plan)
	for _, stream := range slices.Sorted(maps.Keys(total.sent)) {
		_, _ = fmt.Fprintf(&b, " %s %d of %d answered,", stream, total.answered[stream], total.sent[stream])
	}
	_, _ = fmt.Fprintf(&b, " load %s\n%d of %d hold\n", loadAverage(), total.holds, total.looks)
	return b.String()
}

func row(w *tabwriter.Writer, name string, p *part) {
	_, _ = fmt.Fprintf(w, "%s\t%s\t%d\t%d\t%d\t%d\t%d of %d\t%s\n", name, short(p.took), sum(p.sent), sum(p.answered), p.lost, p.leaked,
		p.holds, p.looks, traffic.CausesText(p.causes))
}

func add(to, from map[string]int) {
	for name, n := range from {
		to[name] += n
	}
}

func sum(counts map[string]int) (n int) {
	for _, c := range counts {
		n += c
	}
	return n
}

// short rounds to what a person reads.
func short(d time.Duration) string {
	switch {
	case d >= 10*time.Second:
		return d.Round(100 * time.Millisecond).String()
	case d >= 100*time.Millisecond:
		return d.Round(10 * time.Millisecond).String()
	}
	return d.Round(100 * time.Microsecond).String()
}
