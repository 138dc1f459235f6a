package logview

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
)

// levels of log lines, from the least grave on.
var levels = []string{"DEBUG", "INFO", "WARN", "ERROR"}

// ParseLevel returns the level that text names, whatever its case.
func ParseLevel(text string) (string, error) {
	if level := strings.ToUpper(text); slices.Contains(levels, level) {
		return level, nil
	}
	return "", fmt.Errorf("-level: must be one of %s, got %q", strings.Join(levels, ", "), text)
}

// entry is a log line as it is shown.
type entry struct {
	at          time.Time // zero when the line does not say
	order       time.Time // by which it is sorted
	level, name string
	function    string // that a line of a service is about
	text        string
	raw         []byte // the line itself
}

// shown says whether an entry is grave enough. What says no level is a panic, or what a library wrote to standard error.
func (e entry) shown(least string) bool {
	rank := slices.Index(levels, e.level)
	if rank < 0 {
		rank = len(levels)
	}
	return rank >= slices.Index(levels, least)
}

// own are members that are shown in a place of their own, or that say what the place of the line says already.
var own = []string{"time", "_time", "level", "message", "msg", "_msg", "type", "function", "container_name", "container_id", "job",
	"stream", "_stream", "_stream_id", "trace_id", "pid", "extension", "part"}

// readEntry takes a line of a file, or a row of the store, apart. name is whose it is where it does not say so.
func readEntry(line []byte, name string) entry {
	e := entry{name: name, raw: line}
	var members map[string]json.RawMessage
	if json.Unmarshal(line, &members) != nil {
		e.text = string(line)
		return e
	}
	first := func(names ...string) string {
		for _, n := range names {
			var text string
			if raw := members[n]; json.Unmarshal(raw, &text) == nil && text != "" {
				return text
			}
		}
		return ""
	}
	at, err := time.Parse(time.RFC3339Nano, first("time", "_time"))
	if err != nil {
		e.text = string(line)
		return e
	}
	e.at, e.order = at.UTC(), at
	e.function = first("function")
	e.level, e.text = first("level"), first("message", "msg", "_msg")
	service := first("type") == ""
	if owner := first("container_name"); service && owner != "" {
		e.name = owner
	}
	if f := first("function"); f != "" && !service {
		e.name = f
	}
	if service {
		// What services have to say is in their members.
		var rest []string
		for n, raw := range members {
			if !slices.Contains(own, n) || n == "function" || n == "container_id" {
				value := string(raw)
				var text string
				if json.Unmarshal(raw, &text) == nil && text != "" && !strings.ContainsAny(text, " \t\r\n\"=") {
					value = text
				}
				rest = append(rest, n+"="+value)
			}
		}
		slices.Sort(rest)
		e.text = strings.Join(append([]string{e.text}, rest...), " ")
	}
	return e
}

// write shows an entry: as it is, or to be read.
func (e entry) write(w io.Writer, asJSON bool) {
	switch {
	case asJSON:
		_, _ = fmt.Fprintf(w, "%s\n", e.raw)
	case e.at.IsZero():
		_, _ = fmt.Fprintf(w, "%s | %s\n", e.name, e.text)
	default:
		_, _ = fmt.Fprintf(w, "%s %-5s %s  %s\n", e.at.Format("2006-01-02 15:04:05.000"), e.level, e.name, lines.Replace(strings.TrimRight(e.text, "\r\n")))
	}
}

// lines indents the further lines of a text. Clients without frames join them by \r, at which a terminal goes back.
var lines = strings.NewReplacer("\r\n", "\n    ", "\n", "\n    ", "\r", "\n    ")

func trim(line []byte) []byte {
	// What the agent has freed of a file reads as zeros.
	return bytes.Trim(bytes.TrimSuffix(line, []byte{'\n'}), "\x00")
}
