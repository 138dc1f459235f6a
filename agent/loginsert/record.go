package loginsert

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"net/http"
	"strconv"
	"strings"
	"time"
)

const (
	// maxLine bounds one line. VictoriaLogs drops longer ones than 256 KiB, and answers 200 all the same
	// (-insert.maxLineSizeBytes).
	maxLine = 240_000
	// oldest and newest are how far the time of a line may lie from now; any other is replaced by now, so that lines come
	// neither into days that are gone nor into those to come.
	oldest, newest = 24 * time.Hour, time.Minute
	// Kind is the field "type" of lines that functions post.
	Kind = "posted"
)

// names are the fields of time and message, as the query of the request names them (VictoriaLogs: _time_field, _msg_field).
type names struct{ time, message string }

func readNames(r *http.Request) (names, error) {
	n := names{time: "_time", message: "_msg"}
	query := r.URL.Query()
	for parameter, name := range map[string]*string{"_time_field": &n.time, "_msg_field": &n.message} {
		if value := query.Get(parameter); value != "" {
			if len(value) > 128 || strings.Contains(value, ",") {
				return n, fmt.Errorf("%s: must be the name of one field", parameter)
			}
			*name = value
		}
	}
	return n, nil
}

// reserved are fields that the box sets, or that VictoriaLogs would take for its own.
var reserved = []string{"", "_msg", "_time", "_stream", "_stream_id", "job", "container_name", "container_id", "function", "type", "time", "message", "part"}

// rewrite makes records of the lines of a body: what they say of time and message, and of themselves, is kept; whose they
// are is the box's to say.
func rewrite(body []byte, n names, container, function string, now time.Time) (records []byte, lines int, err error) {
	for number := 1; len(body) > 0; number++ {
		var line []byte
		line, body, _ = bytes.Cut(body, []byte("\n"))
		if line = bytes.TrimSpace(line); len(line) == 0 {
			continue
		}
		lines++
		if len(line) > maxLine {
			return nil, lines, fmt.Errorf("line %d has more than %d bytes", number, maxLine)
		}
		var fields map[string]json.RawMessage
		if err := json.Unmarshal(line, &fields); err != nil || fields == nil {
			return nil, lines, fmt.Errorf("line %d is no JSON object", number)
		}
		at, message := timeOf(fields[n.time], now), text(fields[n.message])
		delete(fields, n.time)
		delete(fields, n.message)
		for _, name := range reserved {
			delete(fields, name)
		}
		if message == "" {
			message = " " // VictoriaLogs takes an empty message for a missing one
		}
		if fields["level"] == nil {
			fields["level"] = quote("INFO")
		}
		for name, value := range map[string]string{
			"time": at.UTC().Format(time.RFC3339Nano), "message": message, "type": Kind,
			"job": "lambda", "container_name": container, "container_id": container, "function": function,
		} {
			fields[name] = quote(value)
		}
		record, err := json.Marshal(fields)
		if err != nil {
			return nil, lines, fmt.Errorf("line %d cannot be read", number)
		}
		records = append(append(records, record...), '\n')
	}
	return records, lines, nil
}

// timeOf reads a time as VictoriaLogs does: RFC 3339, or a number of seconds, milliseconds, microseconds or nanoseconds
// since 1970. Anything else, and what is far from now, is now.
func timeOf(raw json.RawMessage, now time.Time) time.Time {
	value := text(raw)
	at, err := time.Parse(time.RFC3339Nano, value)
	if err != nil {
		number, err := strconv.ParseFloat(value, 64)
		if err != nil || math.IsNaN(number) || math.Abs(number) > math.MaxInt64/2 {
			return now
		}
		for number > 1e11 {
			number /= 1000
		}
		at = time.Unix(0, int64(number*1e9))
	}
	if now.Sub(at) > oldest || at.Sub(now) > newest {
		return now
	}
	return at
}

// text is a string, or any other value as it was written.
func text(raw json.RawMessage) string {
	var s string
	if len(raw) == 0 || json.Unmarshal(raw, &s) == nil {
		return s
	}
	return string(raw)
}

func quote(s string) json.RawMessage {
	b, _ := json.Marshal(s) // a string always can
	return b
}
