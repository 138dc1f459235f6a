package config

import (
	"errors"
	"fmt"
	"io"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"gopkg.in/yaml.v3"

	"github.com/edge-serverless-box/esb/guard/editdistance"
)

// document is one YAML file while it is read, and what is wrong with it so far.
type document struct {
	path      string
	lookupEnv func(string) (string, bool)
	problems  []Problem
	mentions  []mention
	// sends are the functions that send records to other functions.
	sends []send
	// stores is true when a function, or defaults, says what it may do at the stores.
	stores bool
	// images and code are where functions name them.
	images, code []Place
	// runtimes are those that functions may name; nil in files without functions.
	runtimes *runtimes
}

// mention is a function's name where another function names it.
type mention struct {
	value value
	name  string
}

func (d *document) problemf(line int, key, format string, args ...any) {
	d.problems = append(d.problems, Problem{File: d.path, Line: line, Key: key, Message: fmt.Sprintf(format, args...)})
}

// sorted returns the problems in the order of the file.
func (d *document) sorted() []Problem {
	slices.SortStableFunc(d.problems, func(a, b Problem) int { return a.Line - b.Line })
	return d.problems
}

var (
	yamlLine = regexp.MustCompile(`^yaml: (?:line (\d+): )?`)
	// yaml.v3 counts lines from 1 in its scanner's errors and from 0 in its parser's, which are these.
	yamlParserError = regexp.MustCompile(`^did not find expected (?:node content|'-' indicator|key|',' or '[]}]'|<document start>)`)
)

// open parses data and returns its top mapping, or reports why there is none.
func (d *document) open(data, hint string) (*object, bool) {
	dec := yaml.NewDecoder(strings.NewReader(data))
	var n yaml.Node
	if err := dec.Decode(&n); err != nil {
		if errors.Is(err, io.EOF) {
			d.problemf(0, "", "is empty: it needs %s", hint)
			return nil, false
		}
		d.syntax(err, data)
		return nil, false
	}
	var second yaml.Node
	switch err := dec.Decode(&second); {
	case err == nil:
		d.problemf(second.Line, "", "has a second document: remove the --- before it")
		return nil, false
	case !errors.Is(err, io.EOF):
		d.syntax(err, data)
		return nil, false
	}
	top := value{doc: d, line: n.Content[0].Line, node: n.Content[0]}
	if top.null() {
		d.problemf(0, "", "is empty: it needs %s", hint)
		return nil, false
	}
	return top.object()
}

func (d *document) syntax(err error, data string) {
	text, line := err.Error(), 0
	if m := yamlLine.FindStringSubmatch(text); m != nil {
		text = text[len(m[0]):]
		if line, _ = strconv.Atoi(m[1]); line == 0 || yamlParserError.MatchString(text) {
			line++
		}
	}
	at, why := 0, ""
	switch {
	case strings.HasPrefix(text, "did not find expected key"), strings.HasPrefix(text, "did not find expected '-' indicator"):
		at, why = misindented(data)
	case strings.HasPrefix(text, "found a tab character"), strings.HasPrefix(text, "found character that cannot start any token"):
		at, why = tabbed(data, line)
	case strings.HasPrefix(text, "mapping values are not allowed"):
		at, why = deeper(data, line)
	}
	if at > 0 {
		line, text = at, why+" ("+text+")"
	}
	d.problemf(line, "", "is not valid YAML: %s", text)
}

// value is one value with the path and line that messages name.
type value struct {
	doc  *document
	key  string
	line int
	node *yaml.Node
}

func (v value) problemf(format string, args ...any) { v.doc.problemf(v.line, v.key, format, args...) }

// place is where v stands, for what is to be looked at later.
func (v value) place(of string) Place {
	return Place{File: v.doc.path, Line: v.line, Key: v.key, Value: of}
}

func (v value) null() bool { return v.node.Kind == yaml.ScalarNode && v.node.ShortTag() == "!!null" }

// object is a mapping of which every key must be asked for before close.
type object struct {
	value
	fields map[string]value
	names  []string // in the order of the file
	known  []string
}

// object reads v as a mapping, or reports why it is none.
func (v value) object() (*object, bool) {
	if v.node.Kind != yaml.MappingNode {
		v.wrongType("a mapping of keys to values")
		return nil, false
	}
	o := &object{value: v, fields: make(map[string]value, len(v.node.Content)/2)}
	for i := 0; i+1 < len(v.node.Content); i += 2 {
		k, n := v.node.Content[i], v.node.Content[i+1]
		if k.Kind != yaml.ScalarNode {
			v.doc.problemf(k.Line, v.key, "has a key that is not a plain word")
			continue
		}
		if k.ShortTag() == "!!merge" {
			v.doc.problemf(k.Line, v.key, "uses a merge key (<<), which is not supported: write the keys out, or put them under defaults")
			continue
		}
		field := value{doc: v.doc, key: join(v.key, k.Value), line: n.Line, node: n}
		if n.Kind == yaml.AliasNode {
			field.node = n.Alias
		}
		if first, twice := o.fields[k.Value]; twice {
			v.doc.problemf(k.Line, field.key, "is given twice, first on line %d", first.line)
			continue
		}
		if field.null() {
			v.doc.problemf(k.Line, field.key, "is empty: give it a value or remove it")
			// The key counts as known and its value as absent: one problem is enough.
			o.known = append(o.known, k.Value)
		}
		o.fields[k.Value] = field
		o.names = append(o.names, k.Value)
	}
	return o, true
}

func join(path, key string) string {
	if path == "" {
		return key
	}
	return path + "." + key
}

// get returns the value of name when there is one; name counts as a known key from now on.
func (o *object) get(name string) (value, bool) {
	o.known = append(o.known, name)
	v, ok := o.fields[name]
	if !ok || v.null() {
		return value{}, false
	}
	return v, true
}

// has says whether the file has the key at all, with a value or empty.
func (o *object) has(name string) bool {
	_, ok := o.fields[name]
	return ok
}

// need is get for a key that must be there.
func (o *object) need(name, hint string) (value, bool) {
	v, ok := o.get(name)
	if !ok && !o.has(name) {
		o.doc.problemf(o.line, join(o.key, name), "is missing: %s", hint)
	}
	return v, ok
}

// close reports every key that nobody asked for.
func (o *object) close() {
	for _, name := range o.names {
		if slices.Contains(o.known, name) {
			continue
		}
		v := o.fields[name]
		if guess := nearest(name, o.known); guess != "" {
			v.problemf("is not a known key; did you mean %s?", guess)
		} else {
			v.problemf("is not a known key; known are %s", strings.Join(unique(o.known), ", "))
		}
	}
}

func unique(names []string) []string {
	sorted := slices.Clone(names)
	slices.Sort(sorted)
	return slices.Compact(sorted)
}

// list reads v as a list, or reports why it is none.
func (v value) list() ([]value, bool) {
	if v.node.Kind != yaml.SequenceNode {
		v.wrongType("a list")
		return nil, false
	}
	items := make([]value, len(v.node.Content))
	for i, n := range v.node.Content {
		items[i] = value{doc: v.doc, key: fmt.Sprintf("%s[%d]", v.key, i), line: n.Line, node: n}
		if n.Kind == yaml.AliasNode {
			items[i].node = n.Alias
		}
	}
	return items, true
}

// scalar returns v's text with variables replaced, and its YAML type ("!!str", "!!int", ...).
func (v value) scalar(want string) (text, tag string, ok bool) {
	if v.node.Kind != yaml.ScalarNode {
		v.wrongType(want)
		return "", "", false
	}
	text, tag = v.node.Value, v.node.ShortTag()
	if tag != "!!str" || !strings.Contains(text, "${") {
		return text, tag, true
	}
	text, err := expand(text, v.doc.lookupEnv)
	if err != nil {
		v.problemf("%v", err)
		return "", "", false
	}
	const quoted = yaml.SingleQuotedStyle | yaml.DoubleQuotedStyle | yaml.LiteralStyle | yaml.FoldedStyle
	if v.node.Style&(quoted|yaml.TaggedStyle) == 0 {
		plain := yaml.Node{Kind: yaml.ScalarNode, Value: text}
		tag = plain.ShortTag()
	}
	return text, tag, true
}

// text reads a string.
func (v value) text(want string) (string, bool) {
	text, tag, ok := v.scalar(want)
	if !ok {
		return "", false
	}
	// A variable may well hold digits only, as in image: ${IMAGE}; a number in the file itself is a mistake.
	if tag != "!!str" && v.node.ShortTag() != "!!str" {
		v.wrongType(want)
		return "", false
	}
	return text, true
}

// oneOf reads a string out of a few.
func (v value) oneOf(allowed ...string) (string, bool) {
	want := "one of " + strings.Join(allowed, ", ")
	text, _, ok := v.scalar(want)
	if !ok {
		return "", false
	}
	if !slices.Contains(allowed, text) {
		v.problemf("must be %s, got %q", want, text)
		return "", false
	}
	return text, true
}

// integer reads a whole number from least to most; unit is for messages, "" for none.
func (v value) integer(least, most int, unit string) (int, bool) {
	text, tag, ok := v.scalar("a whole number" + of(unit))
	if !ok {
		return 0, false
	}
	var n int
	typed := yaml.Node{Kind: yaml.ScalarNode, Tag: tag, Value: text}
	if tag != "!!int" || typed.Decode(&n) != nil {
		v.problemf("must be a whole number%s, got %q", of(unit), text)
		return 0, false
	}
	if n < least || n > most {
		v.problemf("must be %d to %d%s, got %d", least, most, space(unit), n)
		return 0, false
	}
	return n, true
}

// number reads a number, decimals allowed, from least to most.
func (v value) number(least, most float64, unit string) (float64, bool) {
	text, tag, ok := v.scalar("a number" + of(unit))
	if !ok {
		return 0, false
	}
	var n float64
	typed := yaml.Node{Kind: yaml.ScalarNode, Tag: tag, Value: text}
	if tag != "!!int" && tag != "!!float" || typed.Decode(&n) != nil {
		v.problemf("must be a number%s, got %q", of(unit), text)
		return 0, false
	}
	if math.IsNaN(n) || n < least || n > most {
		v.problemf("must be %s to %s%s, got %s", decimal(least), decimal(most), space(unit), text)
		return 0, false
	}
	return n, true
}

func decimal(f float64) string { return strconv.FormatFloat(f, 'f', -1, 64) }

func of(unit string) string {
	if unit == "" {
		return ""
	}
	return " of " + unit
}

func space(unit string) string {
	if unit == "" {
		return ""
	}
	return " " + unit
}

func (v value) wrongType(want string) {
	got := "a value of type " + v.node.ShortTag()
	switch {
	case v.node.Kind == yaml.MappingNode:
		got = "a mapping"
	case v.node.Kind == yaml.SequenceNode:
		got = "a list"
	case v.null():
		got = "nothing"
	case v.node.ShortTag() == "!!str":
		got = strconv.Quote(v.node.Value)
	case strings.HasPrefix(v.node.ShortTag(), "!!"):
		got = v.node.Value
	}
	v.problemf("must be %s, got %s", want, got)
}

var variableName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

// expand replaces ${NAME} in text; $${ becomes a plain ${, every other $ stays.
func expand(text string, lookup func(string) (string, bool)) (string, error) {
	var b strings.Builder
	for {
		i := strings.Index(text, "${")
		if i < 0 {
			b.WriteString(text)
			return b.String(), nil
		}
		if i > 0 && text[i-1] == '$' {
			b.WriteString(text[:i-1])
			b.WriteString("${")
			text = text[i+2:]
			continue
		}
		b.WriteString(text[:i])
		name, rest, closed := strings.Cut(text[i+2:], "}")
		if !closed {
			return "", errors.New("has ${ without }: write $${ for a plain ${")
		}
		if !variableName.MatchString(name) {
			return "", fmt.Errorf("${%s} is not supported: only ${NAME} is; write $${ for a plain ${", name)
		}
		v, set := lookup(name)
		if !set {
			return "", fmt.Errorf("the environment variable %s is not set", name)
		}
		b.WriteString(v)
		text = rest
	}
}

// nearest returns the known key that name most likely means, or "".
func nearest(name string, known []string) string {
	best, distance := "", 3
	var begins []string // memory means memory_size, and env environment
	for _, k := range known {
		if fold(k) == fold(name) {
			return k
		}
		if len(fold(name)) >= 3 && strings.HasPrefix(fold(k), fold(name)) && !slices.Contains(begins, k) {
			begins = append(begins, k)
		}
		if d := editdistance.Of(name, k); d < distance && d*2 < len(k) {
			best, distance = k, d
		}
	}
	if best == "" && len(begins) == 1 {
		return begins[0]
	}
	return best
}

// fold makes memory_size, memory-size and MemorySize equal.
func fold(s string) string {
	return strings.NewReplacer("_", "", "-", "").Replace(strings.ToLower(s))
}

func (v value) boolean() (on, ok bool) {
	text, tag, ok := v.scalar("true or false")
	if !ok {
		return false, false
	}
	if tag != "!!bool" {
		v.problemf("must be true or false, got %q", text)
		return false, false
	}
	return strings.EqualFold(text, "true"), true
}

func (v value) nonEmptyList() ([]value, bool) {
	items, ok := v.list()
	if ok && len(items) == 0 {
		v.problemf("must not be an empty list")
		return nil, false
	}
	return items, ok
}

// someTexts reads a list of one text or more, without doubles.
func (v value) someTexts(what string) []string {
	items, ok := v.nonEmptyList()
	if !ok {
		return nil
	}
	var list []string
	for _, item := range items {
		switch s, ok := item.text(what); {
		case !ok:
		case s == "" || strings.ContainsAny(s, " \t\n"):
			item.problemf("must be %s without spaces, got %q", what, s)
		case slices.Contains(list, s):
			item.problemf("%s is listed twice", s)
		default:
			list = append(list, s)
		}
	}
	return list
}
