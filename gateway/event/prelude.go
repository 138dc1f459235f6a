package event

import (
	"bytes"
	"encoding/json"
	"net/http"

	"github.com/edge-serverless-box/esb/gateway"
)

// IntegrationResponse is the content type of a streamed result that begins with a prelude.
const IntegrationResponse = "application/vnd.awslambda.http-integration-response"

// MaxPreludeBytes bounds a prelude with its delimiter (AWS: the delimiter stands within the first 16 KB of the stream:
// API Gateway developer guide, "Lambda proxy integration with payload response streaming").
const MaxPreludeBytes = 16 << 10

// preludeDelimiter is how many NUL bytes stand between the prelude and the body.
const preludeDelimiter = 8

// Prelude reads the beginning of a streamed HTTP answer: JSON with status and headers, eight NUL bytes, and then the
// body. The zero value is ready.
type Prelude struct {
	buf  []byte
	done bool
}

// Done is true when the prelude is there as a whole.
func (p *Prelude) Done() bool { return p.done }

// Add takes the next bytes of the stream. rest are those of b that belong to the body; there are none before the
// prelude is done. Its error has CodeFunction.
func (p *Prelude) Add(b []byte) (rest []byte, err error) {
	if p.done {
		return b, nil
	}
	before := len(p.buf)
	p.buf = append(p.buf, b[:min(len(b), MaxPreludeBytes-before)]...)
	nul := bytes.IndexByte(p.buf, 0)
	if nul < 0 {
		if len(p.buf) == MaxPreludeBytes {
			return nil, wrongShape("no delimiter in the first %d bytes of the stream", MaxPreludeBytes)
		}
		return nil, nil
	}
	end := nul + preludeDelimiter
	for _, c := range p.buf[nul:min(end, len(p.buf))] {
		if c != 0 {
			return nil, wrongShape("fewer than %d NUL bytes after the prelude", preludeDelimiter)
		}
	}
	if len(p.buf) < end {
		if len(p.buf) == MaxPreludeBytes {
			return nil, wrongShape("no whole delimiter in the first %d bytes of the stream", MaxPreludeBytes)
		}
		return nil, nil
	}
	p.done = true
	p.buf = p.buf[:nul]
	return b[end-before:], nil
}

// Answer is the beginning of the answer: status and headers, mapped as Map does; its Body is empty. Its error has
// CodeFunction when the prelude is not whole or has a wrong shape: an object in which statusCode (200 when it is left out),
// headers, multiValueHeaders and cookies count (AWS: the same guide).
func (p *Prelude) Answer() (Answer, error) {
	if !p.done {
		return Answer{}, wrongShape("the stream ended before its prelude did")
	}
	// The scanner is lenient where it does not matter for a result; here nobody has seen a byte of it yet.
	if !json.Valid(p.buf) {
		return Answer{}, wrongShape("the prelude is not JSON")
	}
	s := &scanner{data: p.buf}
	if k := s.peek(); k != kindObject {
		return Answer{}, wrongShape("the prelude must be an object, got %v", k)
	}
	var r result
	err := eachMember(s, func(key string) (err error) {
		switch key {
		case "statusCode":
			return r.readStatus(s)
		case "headers":
			r.single, err = readHeaders(s, key)
		case "multiValueHeaders":
			r.multi, err = readMultiValueHeaders(s)
		case "cookies":
			if !isNull(s) {
				r.cookies, err = readList(s, key)
			}
		default:
			s.skip() // AWS passes over what it does not know
		}
		return err
	})
	if err != nil {
		return Answer{}, err
	}
	if len(r.cookies) > 0 {
		r.single = append(r.single, Field{Name: "Set-Cookie", Values: r.cookies})
	}
	return r.answer("application/json")
}

// Streamed is the beginning of the answer of a stream without a prelude: its bytes are the body of a 200 (AWS: function
// URLs with RESPONSE_STREAM).
func Streamed(contentType string) (Answer, error) {
	if contentType == "" {
		contentType = "application/octet-stream"
	}
	f := Field{Name: "Content-Type", Values: []string{contentType}}
	if !validField(f) {
		return Answer{}, gateway.Errorf(gateway.CodeFunction, "function result: its content type cannot be sent")
	}
	return Answer{Status: http.StatusOK, Header: []Field{f}}, nil
}
