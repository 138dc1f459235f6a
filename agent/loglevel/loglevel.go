// Package loglevel reads how grave a function's log line says it is. lambda-init uses it for what it writes, logship for the lines
// of images that bring RIE.
package loglevel

import (
	"encoding/json"
	"strings"
)

// The levels of log lines on this box.
const (
	Debug = "DEBUG"
	Info  = "INFO"
	Warn  = "WARN"
	Error = "ERROR"
)

// Levels that functions use beyond those, as AWS names them (Lambda developer guide, "Log-level filtering").
const (
	Trace = "TRACE"
	Fatal = "FATAL"
)

// names are what logging libraries call levels, and AWS's name for them.
var names = map[string]string{
	"TRACE": Trace, "DEBUG": Debug, "INFO": Info, "NOTICE": Info, "WARN": Warn, "WARNING": Warn,
	"ERROR": Error, "ERR": Error, "FATAL": Fatal, "CRITICAL": Fatal, "PANIC": Fatal,
	// pino and bunyan.
	"10": Trace, "20": Debug, "30": Info, "40": Warn, "50": Error, "60": Fatal,
}

// Of returns the level that a function's line gives itself, in AWS's words, "" for none: the member level of a JSON object, the
// "[ERROR]" of AWS's Python runtime, or the third column of its Node.js one.
func Of(text string) string {
	if strings.HasPrefix(text, "{") {
		var own struct {
			Level json.RawMessage `json:"level"`
		}
		if json.Unmarshal([]byte(text), &own) != nil {
			return ""
		}
		return names[strings.ToUpper(strings.Trim(string(own.Level), `"`))]
	}
	if strings.HasPrefix(text, "[") {
		if name, _, ok := strings.Cut(text[1:], "]"); ok {
			return names[name]
		}
		return ""
	}
	// Four columns, without taking the whole of a long line apart.
	_, rest, _ := strings.Cut(text, "\t")
	_, rest, _ = strings.Cut(rest, "\t")
	if name, _, ok := strings.Cut(rest, "\t"); ok {
		return names[name]
	}
	return ""
}

// Field is what stands in the field level of a line of AWS's level: one of the four.
func Field(level string) string {
	switch level {
	case "":
		return Info
	case Trace:
		return Debug
	case Fatal:
		return Error
	}
	return level
}

// Rank orders AWS's levels, 1 for TRACE to 6 for FATAL (as in the type of a telemetry frame); 0 for anything else.
func Rank(level string) int {
	switch level {
	case Trace:
		return 1
	case Debug:
		return 2
	case Info:
		return 3
	case Warn:
		return 4
	case Error:
		return 5
	case Fatal:
		return 6
	}
	return 0
}

// OfRank is the level of a rank, "" for none.
func OfRank(rank int) string {
	all := [...]string{"", Trace, Debug, Info, Warn, Error, Fatal}
	if rank < 0 || rank >= len(all) {
		return ""
	}
	return all[rank]
}
