package conformance

import (
	"fmt"
	"slices"
	"strings"
	"text/tabwriter"
)

// outcome of one case.
type outcome struct {
	c        *Case
	failures []string
}

// report makes the table, and lists what is not as it should be: bad is empty when all is well.
func report(rows *Rows, outcomes []outcome) (text string, bad []string) {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 4, 2, ' ', 0)
	_, _ = fmt.Fprintln(w, "section\trows\tcases\tpassed\tcases [?]\tpassed [?]\trows left out\trows missing")
	var missing, leftOut []string
	for _, s := range rows.Sections {
		var count [4]int // cases, passed, unsure cases, unsure passed
		shown := map[string]bool{}
		for _, o := range outcomes {
			if o.c.Section != s.ID {
				continue
			}
			for _, id := range o.c.Rows {
				shown[id] = true
			}
			at := 0
			if o.c.unsure(rows) {
				at = 2
			}
			count[at]++
			if len(o.failures) == 0 {
				count[at+1]++
			}
		}
		out, gone := 0, 0
		for _, r := range s.Rows {
			switch {
			case shown[r.ID] && r.LeftOut != "":
				bad = append(bad, fmt.Sprintf("%s %s: has cases, and is left out in rows.yml: remove the reason", s.ID, r.ID))
			case shown[r.ID]:
			case r.LeftOut != "":
				out++
				leftOut = append(leftOut, fmt.Sprintf("  %s %s: %s\n      %s", s.ID, r.ID, r.Words, r.LeftOut))
			default:
				gone++
				missing = append(missing, fmt.Sprintf("  %s %s (%s): %s", s.ID, r.ID, r.Owner, r.Words))
			}
		}
		_, _ = fmt.Fprintf(w, "%s %s\t%d\t%d\t%d\t%d\t%d\t%d\t%d\n", s.ID, s.Title, len(s.Rows), count[0], count[1], count[2], count[3], out, gone)
	}
	_ = w.Flush()
	if len(missing) > 0 {
		b.WriteString("\nrows without a case:\n" + strings.Join(missing, "\n") + "\n")
		bad = append(bad, fmt.Sprintf("%d rows have no case and no reason", len(missing)))
	}
	if len(leftOut) > 0 {
		b.WriteString("\nrows left out:\n" + strings.Join(leftOut, "\n") + "\n")
	}
	var failed []string
	for _, o := range outcomes {
		if len(o.failures) == 0 {
			continue
		}
		words := rows.find(o.c.Section, o.c.Rows[0]).Words
		failed = append(failed, fmt.Sprintf("  %s/%s: %s\n      %s", o.c.Section, o.c.Name, words, strings.Join(o.failures, "\n      ")))
	}
	if len(failed) > 0 {
		b.WriteString("\nfailed cases:\n" + strings.Join(failed, "\n") + "\n")
		bad = append(bad, fmt.Sprintf("%d cases failed", len(failed)))
	}
	return b.String(), bad
}

// unsure says whether a case shows only rows without a primary source.
func (c *Case) unsure(rows *Rows) bool {
	return c.Unsure || !slices.ContainsFunc(c.Rows, func(id string) bool { return !rows.find(c.Section, id).Unsure })
}
