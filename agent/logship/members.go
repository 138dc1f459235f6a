package logship

import (
	"bytes"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/go-json-experiment/json/jsontext"
)

// member is one of a JSON object, both parts as they are written: a name has its quotes.
type member struct{ name, value jsontext.Value }

// reader takes a line apart that is a JSON object. Values are parts of the line, which is neither copied nor read twice.
type reader struct {
	source  bytes.Buffer
	decoder *jsontext.Decoder
	members []member
	// made has the parts of members that are not of the line.
	made []byte
}

// linesRead are readers that are used again.
var linesRead = sync.Pool{New: func() any { return &reader{decoder: jsontext.NewDecoder(strings.NewReader(""))} }}

// release gives the reader back.
func (l *reader) release() {
	clear(l.members) // which are of a line
	l.members, l.made = l.members[:0], l.made[:0]
	l.source = bytes.Buffer{}
	linesRead.Put(l)
}

// read returns true for a line that is lambda-init's or a service's own, false for all others. Function output is
// never taken apart: it is in the message of lambda-init's lines, whatever it looks like.
func (l *reader) read(line []byte, o origin) bool {
	if len(line) == 0 || line[0] != '{' || !l.parse(line) {
		return false
	}
	// A record whose time does not parse is dropped by VictoriaLogs, which answers 200.
	if _, err := time.Parse(time.RFC3339Nano, str(l.get("time"))); err != nil {
		return false
	}
	if o.job == jobLambda {
		kind, name := str(l.get("type")), str(l.get("container_name"))
		// Else it is a JSON line of a function behind RIE.
		return o.supervised && (kind == "function" || kind == "extension" || strings.HasPrefix(kind, "platform.")) && (name == "" || name == o.container)
	}
	if msg := l.take("msg"); msg != nil && l.get("message") == nil {
		l.members = append(l.members, member{l.quote("message"), msg}) // as slog calls it
	}
	// The gateway logs the whole header; lambda-init its root alone, by which both are found then.
	for part := range strings.SplitSeq(str(l.get("trace_id")), ";") {
		if root, ok := strings.CutPrefix(strings.TrimSpace(part), "Root="); ok {
			l.set("trace_id", root)
		}
	}
	return true
}

// parse reads the members of an object, and returns false for what is none. Of members with one name the last counts.
func (l *reader) parse(line []byte) bool {
	l.members = l.members[:0]
	l.source = *bytes.NewBuffer(line)
	l.decoder.Reset(&l.source, jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true))
	if _, err := l.decoder.ReadToken(); err != nil {
		return false
	}
	// Where the value lies that was read last: the decoder's own slice is valid for one step alone.
	last := func() (jsontext.Value, bool) {
		v, err := l.decoder.ReadValue()
		end := int(l.decoder.InputOffset())
		return line[end-len(v) : end : end], err == nil
	}
	for l.decoder.PeekKind() != '}' {
		name, ok := last()
		if !ok || bytes.IndexByte(name, '\\') >= 0 {
			return false // nobody here writes such names, and one could be another's in disguise
		}
		value, ok := last()
		if !ok {
			return false
		}
		l.put(member{name, value})
	}
	if _, err := l.decoder.ReadToken(); err != nil {
		return false
	}
	return len(bytes.TrimSpace(line[l.decoder.InputOffset():])) == 0
}

// put adds a member, in place of one with the same name.
func (l *reader) put(m member) {
	if i := l.index(string(m.name[1 : len(m.name)-1])); i >= 0 {
		l.members[i] = m
		return
	}
	l.members = append(l.members, m)
}

func (l *reader) index(name string) int {
	return slices.IndexFunc(l.members, func(m member) bool { return string(m.name[1:len(m.name)-1]) == name })
}

// get is nil when there is none.
func (l *reader) get(name string) jsontext.Value {
	if i := l.index(name); i >= 0 {
		return l.members[i].value
	}
	return nil
}

// take is get, and the member is one no longer.
func (l *reader) take(name string) jsontext.Value {
	i := l.index(name)
	if i < 0 {
		return nil
	}
	value := l.members[i].value
	l.members = slices.Delete(l.members, i, i+1)
	return value
}

// set makes value that of a member; "" changes nothing.
func (l *reader) set(name, value string) {
	if value != "" {
		l.put(member{l.quote(name), l.quote(value)})
	}
}

// quote returns s as JSON, which is valid until release.
func (l *reader) quote(s string) jsontext.Value {
	start := len(l.made)
	l.made, _ = jsontext.AppendQuote(l.made, s) // what is no UTF-8 is replaced
	return l.made[start:len(l.made):len(l.made)]
}

// size is how many bytes the members take in a record, or a few less.
func (l *reader) size() (n int) {
	for _, m := range l.members {
		n += len(m.name) + len(m.value) + len(":,")
	}
	return n
}

// appendHead appends an object with the members, without its end.
func (l *reader) appendHead(b []byte) []byte {
	for i, m := range l.members {
		b = append(b, "{,"[min(i, 1)])
		b = append(append(b, m.name...), ':')
		b = append(b, m.value...)
	}
	return b
}
