package conformance

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"
)

// more is the key that allows members beside those that are expected.
const more = "..."

// patterns are the placeholders, "{{name}}", that stand for what differs from run to run. "{{name:label}}" must be the same
// wherever the label is used in one case.
var patterns = map[string]string{
	"any":          `(?s:.*)`,
	"text":         `(?s:.+)`,
	"uuid":         `[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}`,
	"number":       `-?[0-9]+(?:\.[0-9]+)?`,
	"epoch_ms":     `[12][0-9]{12}`,
	"epoch_s":      `[12][0-9]{9}`,
	"request_time": `[0-3][0-9]/[A-Z][a-z]{2}/[0-9]{4}:[0-9]{2}:[0-9]{2}:[0-9]{2} \+0000`,
	"iso_time":     `[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]+)?Z`,
	"trace_root":   `1-[0-9a-f]{8}-[0-9a-f]{24}`,
	"hex8":         `[0-9a-f]{8}`,
	"hex16":        `[0-9a-f]{16}`,
	"hex32":        `[0-9a-f]{32}`,
	"id":           `[A-Za-z0-9_=-]+`,
	"base64":       `[A-Za-z0-9+/]+=*`,
	"http_date":    `[A-Z][a-z]{2}, [0-9]{2} [A-Z][a-z]{2} [0-9]{4} [0-9:]{8} GMT`,
}

// absent is expected of a member that must not be there.
const absent = "{{absent}}"

var placeholder = regexp.MustCompile(`\{\{([a-zA-Z0-9_]+)(?::([a-zA-Z0-9_]+))?\}\}`)

// Matcher compares what came with what is expected. One serves one case: it remembers labelled values and knows the
// case's variables.
type Matcher struct {
	// Vars are names with known values, "{{token}}".
	Vars map[string]string
	seen map[string]string
}

// Expand replaces the variables in text; other placeholders, and labelled ones that have a value already, are resolved too.
func (m *Matcher) Expand(text string) string {
	return placeholder.ReplaceAllStringFunc(text, func(p string) string {
		parts := placeholder.FindStringSubmatch(p)
		if v, ok := m.seen[parts[2]]; ok && parts[2] != "" {
			return v
		}
		if v, ok := m.Vars[parts[1]]; ok {
			return v
		}
		return p
	})
}

// Text compares a text with placeholders; it returns what differs, "" for nothing.
func (m *Matcher) Text(want, got string) string {
	if !strings.Contains(want, "{{") {
		if want != got {
			return fmt.Sprintf("got %q, want %q", short(got), short(want))
		}
		return ""
	}
	var expression strings.Builder
	expression.WriteString(`\A`)
	var labels []string
	rest := want
	for {
		at := placeholder.FindStringSubmatchIndex(rest)
		if at == nil {
			break
		}
		expression.WriteString(regexp.QuoteMeta(rest[:at[0]]))
		name, label := rest[at[2]:at[3]], ""
		if at[4] >= 0 {
			label = rest[at[4]:at[5]]
		}
		rest = rest[at[1]:]
		switch {
		case m.seen[label] != "" && label != "":
			expression.WriteString(regexp.QuoteMeta(m.seen[label]))
			continue
		case slices.Contains(labels, label) && label != "":
			return fmt.Sprintf("the label %q is used twice in %q before it has a value", label, want)
		}
		if v, ok := m.Vars[name]; ok {
			expression.WriteString(regexp.QuoteMeta(v))
			continue
		}
		p, ok := patterns[name]
		if !ok {
			return fmt.Sprintf("there is no placeholder {{%s}} (match.go has them)", name)
		}
		if label == "" {
			expression.WriteString("(?:" + p + ")")
			continue
		}
		labels = append(labels, label)
		expression.WriteString("(" + p + ")")
	}
	expression.WriteString(regexp.QuoteMeta(rest) + `\z`)
	found := regexp.MustCompile(expression.String()).FindStringSubmatch(got)
	if found == nil {
		return fmt.Sprintf("got %q, want %q", short(got), short(want))
	}
	if m.seen == nil {
		m.seen = map[string]string{}
	}
	for i, label := range labels {
		m.seen[label] = found[i+1]
	}
	return ""
}

// JSON compares two JSON texts. Objects must have the same members, unless the expected one has the key "...".
func (m *Matcher) JSON(want, got []byte) []string {
	w, err := decode(want)
	if err != nil {
		return []string{"the expected text is not JSON: " + err.Error()}
	}
	g, err := decode(got)
	if err != nil {
		return []string{fmt.Sprintf("not JSON: %v: %q", err, short(string(got)))}
	}
	return m.value("", w, g)
}

func decode(text []byte) (any, error) {
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		return nil, err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("something follows the JSON")
	}
	return v, nil
}

func (m *Matcher) value(at string, want, got any) []string {
	differs := func(format string, args ...any) []string {
		where := at
		if where == "" {
			where = "."
		}
		return []string{where + ": " + fmt.Sprintf(format, args...)}
	}
	switch w := want.(type) {
	case map[string]any:
		g, ok := got.(map[string]any)
		if !ok {
			return differs("got %s, want an object", show(got))
		}
		return m.object(at, w, g)
	case []any:
		g, ok := got.([]any)
		if !ok || len(g) != len(w) {
			return differs("got %s, want %s", show(got), show(want))
		}
		var all []string
		for i := range w {
			all = append(all, m.value(fmt.Sprintf("%s[%d]", at, i), w[i], g[i])...)
		}
		return all
	case string:
		g, ok := got.(string)
		if n, number := got.(json.Number); number {
			// "{{epoch_ms}}" is a number; a plain expected text is not.
			if name := placeholder.FindStringSubmatch(w); len(name) > 0 && name[0] == w && slices.Contains([]string{"number", "epoch_ms", "epoch_s", "any"}, name[1]) {
				g, ok = n.String(), true
			}
		} else if ok && (strings.HasPrefix(w, "{{number") || strings.HasPrefix(w, "{{epoch_")) && placeholder.FindString(w) == w {
			return differs("got the text %q, want a number", g)
		}
		if w == "{{any}}" {
			return nil
		}
		if !ok {
			return differs("got %s, want %s", show(got), show(want))
		}
		if d := m.Text(w, g); d != "" {
			return differs("%s", d)
		}
		return nil
	default: // number, boolean, null
		if want != got {
			return differs("got %s, want %s", show(got), show(want))
		}
		return nil
	}
}

func (m *Matcher) object(at string, want, got map[string]any) []string {
	var all []string
	_, open := want[more]
	for _, key := range sorted(want) {
		if key == more {
			continue
		}
		g, there := got[key]
		switch {
		case want[key] == absent && there:
			all = append(all, fmt.Sprintf("%s.%s: got %s, want it absent", at, key, show(g)))
		case want[key] == absent:
		case !there:
			all = append(all, fmt.Sprintf("%s.%s: is absent, want %s", at, key, show(want[key])))
		default:
			all = append(all, m.value(at+"."+key, want[key], g)...)
		}
	}
	for _, key := range sorted(got) {
		if _, expected := want[key]; !expected && !open {
			all = append(all, fmt.Sprintf("%s.%s: is there, %s, and not expected", at, key, show(got[key])))
		}
	}
	return all
}

// sorted lists the keys of an object, so that labels get their values in one order.
func sorted[T any](object map[string]T) []string {
	keys := make([]string, 0, len(object))
	for key := range object {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	return keys
}

func show(v any) string {
	text, err := json.Marshal(v)
	if err != nil {
		return fmt.Sprint(v)
	}
	return short(string(text))
}

func short(text string) string {
	const most = 400
	if len(text) > most {
		return text[:most] + "..."
	}
	return text
}
