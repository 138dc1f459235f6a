package measure

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"text/tabwriter"

	"github.com/edge-serverless-box/esb/tests/bench/machine"
)

// Target is what a row is to reach: its ratio, or its value where it has no baseline.
type Target struct {
	// Limit is the most that it may be, or the least where AtLeast.
	Limit   float64 `json:"limit"`
	AtLeast bool    `json:"at_least,omitempty"`
}

// String says it as the table does.
func (t Target) String() string {
	if t.AtLeast {
		return "≥ " + number(t.Limit)
	}
	return "≤ " + number(t.Limit)
}

// Row compares a figure with its baseline, which took turns with it.
type Row struct {
	// What it says, in the table.
	What string `json:"what"`
	// Missing says why it was not measured; all below is empty then.
	Missing string   `json:"missing,omitempty"`
	Figure  Summary  `json:"figure"`
	Base    *Summary `json:"base,omitempty"`
	// Ratio of the rounds' values: the median, the least and the greatest; 0 without a baseline.
	Ratio    float64 `json:"ratio,omitempty"`
	Least    float64 `json:"ratio_least,omitempty"`
	Greatest float64 `json:"ratio_greatest,omitempty"`
	Target   *Target `json:"target,omitempty"`
	Reached  *bool   `json:"reached,omitempty"`
	// Noisy says why the machine makes the row doubtful.
	Noisy string `json:"noisy,omitempty"`
}

// Report is one run.
type Report struct {
	Machine machine.Machine `json:"machine"`
	// Quick says that it was the short form.
	Quick  bool                     `json:"quick"`
	Began  string                   `json:"began"`
	Rounds int                      `json:"rounds"`
	Noise  map[string]machine.Noise `json:"noise"`
	Rows   []Row                    `json:"rows"`
	Notes  []string                 `json:"notes,omitempty"`
}

// Add completes a row by figure and base, which may be nil, and appends it. A figure without a sample makes it one that is missing.
func (r *Report) Add(row Row, figure, base *Figure) error {
	s, err := figure.Summary()
	if err != nil {
		return err
	}
	row.Figure = s
	value, known := figure.Value(), s.N > 0
	if base != nil {
		b, err := base.Summary()
		if err != nil {
			return err
		}
		row.Base = &b
		if row.Ratio, row.Least, row.Greatest, known = Ratio(figure, base); known {
			value = row.Ratio
		}
	}
	if !known && row.Missing == "" {
		row.Missing = "no answer was as it should be"
	}
	if row.Target != nil && known {
		reached := value <= row.Target.Limit
		if row.Target.AtLeast {
			reached = value >= row.Target.Limit
		}
		row.Reached = &reached
	}
	r.Rows = append(r.Rows, row)
	return nil
}

// Failures are the rows that have requests which were not answered as they should, in words.
func (r *Report) Failures() []string {
	var all []string
	for _, row := range r.Rows {
		for _, s := range []*Summary{&row.Figure, row.Base} {
			if s != nil && len(s.Failed) > 0 {
				all = append(all, fmt.Sprintf("%s, %s: %v", row.What, s.Name, s.Failed))
			}
		}
	}
	return all
}

// header of the table.
var header = []string{"what", "min", "median", "p99", "against", "its median", "ratio (rounds)", "target", "reached"}

func (row Row) cells() []string {
	if row.Missing != "" {
		return []string{row.What, "", "", "", "not measured: " + row.Missing, "", "", target(row.Target), ""}
	}
	s := row.Figure
	cells := []string{row.What, number(s.Min), number(s.Median) + unit(s.Unit), "", "", "", "", target(row.Target), ""}
	if s.P99 > 0 {
		cells[3] = number(s.P99)
	}
	if row.Base != nil {
		cells[4], cells[5] = row.Base.Name, number(row.Base.Median)+unit(row.Base.Unit)
		cells[6] = fmt.Sprintf("%s (%s–%s)", number(row.Ratio), number(row.Least), number(row.Greatest))
	}
	if row.Reached != nil {
		cells[8] = map[bool]string{true: "yes", false: "no"}[*row.Reached]
	}
	var doubts []string
	if row.Noisy != "" {
		doubts = append(doubts, "noisy: "+row.Noisy)
	}
	failed := 0
	for _, n := range s.Failed {
		failed += n
	}
	if failed > 0 {
		doubts = append(doubts, fmt.Sprintf("%d failed", failed))
	}
	if s.Late > 0 {
		doubts = append(doubts, fmt.Sprintf("%d sent late", s.Late))
	}
	if len(doubts) > 0 {
		cells[8] = strings.TrimSpace(cells[8] + " (" + strings.Join(doubts, ", ") + ")")
	}
	return cells
}

func target(t *Target) string {
	if t == nil {
		return ""
	}
	return t.String()
}

func unit(u string) string {
	if u == "" {
		return ""
	}
	return " " + u
}

// number has three digits that count.
func number(v float64) string {
	switch a := max(v, -v); {
	case a >= 99.95:
		return fmt.Sprintf("%.0f", v)
	case a >= 9.995:
		return fmt.Sprintf("%.1f", v)
	default:
		return strings.TrimSuffix(strings.TrimRight(fmt.Sprintf("%.2f", v), "0"), ".")
	}
}

// Text writes the whole table for a terminal.
func (r *Report) Text(w io.Writer) error {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintln(table, strings.Join(header, "\t"))
	for _, row := range r.Rows {
		_, _ = fmt.Fprintln(table, strings.Join(row.cells(), "\t"))
	}
	if err := table.Flush(); err != nil {
		return err
	}
	_, err := fmt.Fprintf(w, "\n%s\n", r.about())
	for _, note := range r.Notes {
		_, _ = fmt.Fprintln(w, note)
	}
	return err
}

func (r *Report) about() string {
	form := "whole"
	if r.Quick {
		form = "quick"
	}
	return fmt.Sprintf("%s, %s form, %d rounds, on %s", r.Began, form, r.Rounds, r.Machine.Line())
}

// Markdown is the table of the rows that have a target, for a README.
func (r *Report) Markdown() string {
	var b strings.Builder
	columns := []int{0, 1, 2, 3, 4, 5, 6, 7, 8}
	line := func(cells []string) {
		for _, c := range columns {
			b.WriteString("| " + strings.ReplaceAll(cells[c], "|", "\\|") + " ")
		}
		b.WriteString("|\n")
	}
	line(header)
	b.WriteString(strings.Repeat("|---", len(columns)) + "|\n")
	for _, row := range r.Rows {
		if row.Target != nil {
			line(row.cells())
		}
	}
	b.WriteString("\n" + r.about() + ".\n")
	return b.String()
}

// Write keeps it as JSON, whole or not at all.
func (r *Report) Write(file string) error {
	text, err := json.MarshalIndent(r, "", " ")
	if err != nil {
		return err
	}
	return replace(file, append(text, '\n'))
}

// The lines of a README between which the table stands.
const (
	begin = "<!-- bench: go tool task bench -- -readme -->"
	end   = "<!-- /bench -->"
)

// Put replaces what stands between the two marks of a README by the table.
func (r *Report) Put(readme string) error {
	text, err := os.ReadFile(readme)
	if err != nil {
		return err
	}
	before, rest, ok := strings.Cut(string(text), begin+"\n")
	_, after, closed := strings.Cut(rest, end)
	if !ok || !closed {
		return fmt.Errorf("%s has no lines %q and %q for the table to stand between", readme, begin, end)
	}
	return replace(readme, []byte(before+begin+"\n\n"+r.Markdown()+"\n"+end+after))
}

func replace(file string, text []byte) error {
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return err
	}
	fresh := file + ".new"
	if err := os.WriteFile(fresh, text, 0o644); err != nil {
		return err
	}
	return os.Rename(fresh, file)
}
