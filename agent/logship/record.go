package logship

import (
	"bytes"
	"cmp"
	"encoding/json"
	"regexp"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"

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
	line = bytes.Trim(bytes.TrimSuffix(line, []byte("\r")), "\x00")
	l := linesRead.Get().(*reader)
	defer l.release()
	next = request
	var text string
	var raw jsontext.Value
	if l.read(line, o) {
		raw = l.take("message")
	} else {
		text = string(line)
		l.members = l.members[:0]
		l.set("time", when.UTC().Format(time.RFC3339Nano))
		level := "INFO"
		if o.job == jobLambda {
			var scope string
			scope, next = rieScope(text, request)
			l.set("request_id", scope)
			l.set("type", "function")
			level = cmp.Or(loglevel.Field(loglevel.Of(text)), level)
		} else {
			// A service's own lines are JSON: this is a panic, or what a library wrote to standard error.
			level = "ERROR"
		}
		l.set("level", level)
	}
	l.set("job", o.job)
	l.set("container_name", o.container)
	if o.job == jobLambda {
		// Whatever the line says: who wrote it is known better here.
		l.set("container_id", o.container)
		l.set("function", o.function)
	}
	if l.size() > recordLimit-messageLimit {
		// Members that are as long as a message: they cannot stay members.
		at := str(l.get("time"))
		l.members = l.members[:0]
		l.set("time", at)
		l.set("level", "INFO")
		l.set("job", o.job)
		l.set("container_name", o.container)
		l.set("function", o.function)
		text, raw = string(line), nil
	}
	if len(raw) > len(`""`) && len(raw) <= messageLimit && raw.Kind() == '"' && utf8.Valid(raw) {
		b = append(append(l.appendHead(b), `,"message":`...), raw...)
		return append(b, "}\n"...), 1, next
	}
	if raw != nil {
		text = message(raw)
	}
	if text == "" {
		// VictoriaLogs takes an empty message for a missing one and puts a complaint in its place.
		text = " "
	}
	pieces := cut(text, messageLimit)
	for i, piece := range pieces {
		b = l.appendHead(b)
		if len(pieces) > 1 {
			b = append(append(b, `,"part":`...), strconv.Itoa(i+1)...)
		}
		b, _ = jsontext.AppendQuote(append(b, `,"message":`...), piece) // what is no UTF-8 is replaced
		b = append(b, "}\n"...)
	}
	return b, len(pieces), next
}

// message returns the message as text.
func message(raw jsontext.Value) string {
	if raw.Kind() == '"' {
		return str(raw)
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

// str is "" for what is no string.
func str(raw jsontext.Value) string {
	if raw.Kind() != '"' {
		return ""
	}
	if inner := raw[1 : len(raw)-1]; bytes.IndexByte(inner, '\\') < 0 && utf8.Valid(inner) {
		return string(inner)
	}
	var s string
	_ = json.Unmarshal(raw, &s)
	return s
}
