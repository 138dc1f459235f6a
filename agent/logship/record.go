package logship

import (
	"encoding/json"
	"regexp"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/edge-serverless-box/esb/agent/loglevel"
)

const (
	// recordLimit bounds one record. VictoriaLogs drops longer ones than 256 KiB, and answers 200 all the same
	// (-insert.maxLineSizeBytes).
	recordLimit = 250_000
	// messageLimit bounds the message in it, as JSON.
	messageLimit = 200_000
)

// Jobs, the values of the stream field "job".
const (
	jobLambda  = "lambda"
	jobGateway = "gateway"
	jobAgent   = "agent"
)

// origin is what is known about all lines of a file.
type origin struct {
	job       string
	container string // container or service
	function  string // of containers
	// supervised: nobody but lambda-init writes the file. All other lines of containers are a function's own words.
	supervised bool
}

// rieLine are the lines that the Runtime Interface Emulator puts around an invocation.
var rieLine = regexp.MustCompile(`^(START|END|REPORT) RequestId: ([A-Za-z0-9._=-]{1,128})`)

// appendRecords appends the records that a line becomes: one, or several when it is over-long. when is the time of lines
// that do not say theirs. request is the invocation that raw lines belong to ("" none); the one for the next is returned.
func appendRecords(b []byte, line []byte, o origin, when time.Time, request string) (records []byte, n int, next string) {
	// What was freed of a file whose offset is lost reads as zeros.
	text := strings.Trim(strings.TrimSuffix(string(line), "\r"), "\x00")
	fields := parse(text, o)
	next = request
	if fields == nil {
		fields = map[string]json.RawMessage{"time": quote(when.UTC().Format(time.RFC3339Nano))}
		if o.job == jobLambda {
			var scope string
			scope, next = rieScope(text, request)
			set(fields, "request_id", scope)
			set(fields, "type", "function")
			set(fields, "level", loglevel.Field(loglevel.Of(text)))
		} else {
			// A service's own lines are JSON: this is a panic, or what a library wrote to standard error.
			set(fields, "level", "ERROR")
		}
		setDefault(fields, "level", "INFO")
	} else {
		text = message(fields)
		delete(fields, "message")
	}
	set(fields, "job", o.job)
	set(fields, "container_name", o.container)
	if o.job == jobLambda {
		// Whatever the line says: who wrote it is known better here.
		set(fields, "container_id", o.container)
		set(fields, "function", o.function)
	}
	head, err := json.Marshal(fields)
	if err != nil || len(head) > recordLimit-messageLimit {
		// Members that are as long as a message: they cannot stay members.
		head, _ = json.Marshal(map[string]json.RawMessage{
			"time": fields["time"], "level": quote("INFO"), "job": fields["job"], "container_name": fields["container_name"],
			"function": quote(o.function),
		})
		text = string(line)
	}
	if text == "" {
		// VictoriaLogs takes an empty message for a missing one and puts a complaint in its place.
		text = " "
	}
	pieces := cut(text, messageLimit)
	for i, piece := range pieces {
		b = append(b, head[:len(head)-1]...)
		if len(pieces) > 1 {
			b = append(append(b, `,"part":`...), strconv.Itoa(i+1)...)
		}
		b = append(append(b, `,"message":`...), quote(piece)...)
		b = append(b, "}\n"...)
	}
	return b, len(pieces), next
}

// parse returns the members of a line that is lambda-init's or a service's own, nil for all others. Function output is
// never taken apart: it is in the message of lambda-init's lines, whatever it looks like.
func parse(text string, o origin) map[string]json.RawMessage {
	if !strings.HasPrefix(text, "{") {
		return nil
	}
	var fields map[string]json.RawMessage
	if json.Unmarshal([]byte(text), &fields) != nil {
		return nil
	}
	// A record whose time does not parse is dropped by VictoriaLogs, which answers 200.
	if _, err := time.Parse(time.RFC3339Nano, str(fields["time"])); err != nil {
		return nil
	}
	if o.job == jobLambda {
		kind, name := str(fields["type"]), str(fields["container_name"])
		if !o.supervised || (kind != "function" && kind != "extension" && !strings.HasPrefix(kind, "platform.")) || (name != "" && name != o.container) {
			return nil // a JSON line of a function behind RIE
		}
		return fields
	}
	if _, ok := fields["message"]; !ok {
		fields["message"] = fields["msg"] // as slog calls it
	}
	delete(fields, "msg")
	// The gateway logs the whole header; lambda-init its root alone, by which both are found then.
	for part := range strings.SplitSeq(str(fields["trace_id"]), ";") {
		if root, ok := strings.CutPrefix(strings.TrimSpace(part), "Root="); ok {
			set(fields, "trace_id", root)
		}
	}
	return fields
}

// message returns the message as text.
func message(fields map[string]json.RawMessage) string {
	raw := fields["message"]
	var s string
	if len(raw) == 0 || json.Unmarshal(raw, &s) == nil {
		return s
	}
	return string(raw)
}

// rieScope returns the invocation of a raw line and that of the next one.
func rieScope(text, request string) (scope, next string) {
	m := rieLine.FindStringSubmatch(text)
	switch {
	case m == nil:
		return request, request
	case m[1] == "REPORT":
		return m[2], ""
	}
	return m[2], m[2]
}

// cut cuts text into pieces that are at most limit bytes as JSON strings.
func cut(text string, limit int) []string {
	var pieces []string
	start, cost := 0, 0
	for i := 0; i < len(text); {
		r, size := utf8.DecodeRuneInString(text[i:])
		c := size
		if r < ' ' || r == '"' || r == '\\' || r == '<' || r == '>' || r == '&' || r == utf8.RuneError || r == '\u2028' || r == '\u2029' {
			c = len(`\u0000`)
		}
		if cost+c > limit {
			pieces = append(pieces, text[start:i])
			start, cost = i, 0
		}
		cost += c
		i += size
	}
	return append(pieces, text[start:])
}

func quote(s string) json.RawMessage {
	b, _ := json.Marshal(s) // a string always can
	return b
}

func str(raw json.RawMessage) string {
	var s string
	_ = json.Unmarshal(raw, &s) // anything else is ""
	return s
}

func set(fields map[string]json.RawMessage, name, value string) {
	if value != "" {
		fields[name] = quote(value)
	}
}

func setDefault(fields map[string]json.RawMessage, name, value string) {
	if fields[name] == nil {
		set(fields, name, value)
	}
}
