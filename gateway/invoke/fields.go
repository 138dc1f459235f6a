package invoke

import (
	"bufio"
	"bytes"
	"fmt"
)

// fields are those fields of a head, or of trailers, that say something to the gateway: the first value of each. Others are read, and
// nothing is kept of them. A map of all of them would be a third of what an invocation allocates.
type fields struct {
	contentType, connection, coding, length                           string
	functionError, reset, spoilt, initDuration, logResult, extensions string
	responseMode, trailerErrorType, trailerErrorBody                  string
	// errorType is RIE's own.
	errorType string
	// codings and lengths count the fields Transfer-Encoding and Content-Length.
	codings, lengths int
}

// known are the names of the fields.
var known = [...]string{
	"Content-Length",
	"Content-Type",
	"Connection",
	"Transfer-Encoding",
	headerFunctionError,
	headerReset,
	headerSpoilt,
	headerInitDuration,
	headerLogResult,
	headerExtensions,
	headerResponseMode,
	trailerErrorType,
	trailerErrorBody,
	"Error-Type",
}

// at is where the value of a known field goes. No map, and no functions: f stays on its reader's stack.
func (f *fields) at(name string) *string {
	switch name {
	case "Content-Length":
		f.lengths++
		return &f.length
	case "Content-Type":
		return &f.contentType
	case "Connection":
		return &f.connection
	case "Transfer-Encoding":
		f.codings++
		return &f.coding
	case headerFunctionError:
		return &f.functionError
	case headerReset:
		return &f.reset
	case headerSpoilt:
		return &f.spoilt
	case headerInitDuration:
		return &f.initDuration
	case headerLogResult:
		return &f.logResult
	case headerExtensions:
		return &f.extensions
	case headerResponseMode:
		return &f.responseMode
	case trailerErrorType:
		return &f.trailerErrorType
	case trailerErrorBody:
		return &f.trailerErrorBody
	}
	return &f.errorType
}

// read reads fields until the empty line behind them.
func (f *fields) read(r *bufio.Reader) error {
	*f = fields{}
	for size := 0; ; {
		line, err := readLine(r)
		if err != nil {
			return err
		}
		if len(line) == 0 {
			return nil
		}
		if size += len(line); size > maxHeader {
			return fmt.Errorf("header over %d bytes", maxHeader)
		}
		colon := bytes.IndexByte(line, ':')
		if colon <= 0 || !isName(line[:colon]) {
			return fmt.Errorf("header line %.40q has no name", line)
		}
		value := bytes.Trim(line[colon+1:], " \t")
		for _, c := range value {
			if c < ' ' && c != '\t' || c == 0x7f {
				return fmt.Errorf("header %.40q holds a control character", line[:colon])
			}
		}
		f.take(line[:colon], value)
	}
}

func (f *fields) take(name, value []byte) {
	for _, k := range known {
		if len(k) == len(name) && bytes.EqualFold(name, []byte(k)) {
			if to := f.at(k); *to == "" {
				*to = string(value)
			}
			return
		}
	}
}

func isName(name []byte) bool {
	for _, c := range name {
		if c <= ' ' || c >= 0x7f {
			return false
		}
	}
	return true
}
