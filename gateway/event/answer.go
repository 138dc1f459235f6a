package event

import (
	"encoding/base64"
	"encoding/json"
	"net/http"
	"strconv"
	"strings"

	"github.com/edge-serverless-box/esb/gateway"
)

// maxHeaderBytes bounds the names and values of an answer's headers (AWS: 10240 bytes).
const maxHeaderBytes = 10240

// Answer is the HTTP answer that a function's result stands for.
type Answer struct {
	// Status is 200 to 599.
	Status int
	// Header in the order and spelling to send. Names are not canonical and differ also without regard to case.
	Header []Field
	Body   []byte
}

// Field is one header of an Answer.
type Field struct {
	Name   string
	Values []string
}

// Map turns what a function of route returned into an answer. accept is the request's Accept header. It
// overwrites payload, and the answer's body may be a part of it. Its error has CodeFunction when the result has a
// wrong shape, and CodeInternal when a base64 body cannot be decoded (AWS: 500).
func Map(route *gateway.Route, payload []byte, accept string) (Answer, error) {
	switch {
	case route.Payload == gateway.PayloadV2:
		return mapV2(payload)
	case route.HTTPAPI():
		return mapHTTPV1(payload)
	}
	return mapV1(payload, accept, route.BinaryMediaTypes)
}

// result is a function's result as it came.
type result struct {
	status  int
	single  []Field
	multi   []Field
	cookies []string
	body    []byte
	encoded bool
}

func wrongShape(format string, args ...any) error {
	return gateway.Errorf(gateway.CodeFunction, "function result: "+format, args...)
}

// mapV1 follows section 2 of tests/conformance/rows.yml, row by row.
func mapV1(payload []byte, accept string, binaryTypes []string) (Answer, error) {
	var r result
	if err := r.read(payload, restMembers); err != nil {
		return Answer{}, err
	}
	if r.encoded && binary(binaryTypes, mediaType(accept)) {
		if err := r.decode(); err != nil {
			return Answer{}, err
		}
	}
	return r.answer("application/json")
}

// mapV2 follows section 4 of tests/conformance/rows.yml: anything that is not an object with a statusCode is the body of a 200. A
// text is the body itself, without its quotes (API Gateway developer guide, Lambda function response for format 2.0; recorded for
// function URLs, which share the format); all else goes out as JSON without spaces.
func mapV2(payload []byte) (Answer, error) {
	if !json.Valid(payload) {
		return Answer{}, wrongShape("not JSON")
	}
	if !hasStatus(payload) {
		s := &scanner{data: payload}
		s.space()
		body, text := s.text()
		if !text {
			body = compact(payload)
		}
		return Answer{
			Status: http.StatusOK,
			Header: []Field{{Name: "Content-Type", Values: []string{"application/json"}}},
			Body:   body,
		}, nil
	}
	var r result
	if err := r.read(payload, v2Members); err != nil {
		return Answer{}, err
	}
	if r.encoded {
		if err := r.decode(); err != nil {
			return Answer{}, err
		}
	}
	if len(r.cookies) > 0 {
		r.single = append(r.single, Field{Name: "Set-Cookie", Values: r.cookies})
	}
	return r.answer(httpContentType)
}

// httpContentType is what HTTP APIs send when the function names no type.
const httpContentType = "text/plain; charset=utf-8"

// mapHTTPV1 maps a result of format 1.0 in an HTTP API: the shape of the REST API, but with a statusCode that must be there,
// and with isBase64Encoded alone deciding on the body (section 4 of tests/conformance/rows.yml).
func mapHTTPV1(payload []byte) (Answer, error) {
	if !json.Valid(payload) {
		return Answer{}, wrongShape("not JSON")
	}
	var r result
	if err := r.read(payload, httpV1Members); err != nil {
		return Answer{}, err
	}
	if r.status == 0 {
		return Answer{}, wrongShape("statusCode is missing")
	}
	if r.encoded {
		if err := r.decode(); err != nil {
			return Answer{}, err
		}
	}
	return r.answer(httpContentType)
}

// members are the ones that a format knows.
type members int

const (
	// restMembers refuse unknown ones.
	restMembers members = iota
	// v2Members and httpV1Members pass over unknown ones, and need valid JSON.
	v2Members
	httpV1Members
)

// compact takes the spaces out of valid JSON, in place.
func compact(data []byte) []byte {
	n, text := 0, false
	for i := 0; i < len(data); i++ {
		c := data[i]
		switch {
		case text && c == '\\':
			data[n] = c
			n, i = n+1, i+1
			c = data[i]
		case c == '"':
			text = !text
		case !text && (c == ' ' || c == '\t' || c == '\n' || c == '\r'):
			continue
		}
		data[n] = c
		n++
	}
	return data[:n]
}

// hasStatus says whether valid JSON is an object with the member statusCode. It leaves payload as it is.
func hasStatus(payload []byte) bool {
	s := scanner{data: payload}
	if !s.take('{') {
		return false
	}
	for !s.take('}') {
		s.take(',')
		s.space()
		start := s.pos
		s.skipString()
		if string(payload[start:s.pos]) == `"statusCode"` {
			return true
		}
		s.take(':')
		s.skip()
	}
	return false
}

// read parses payload, which must be valid JSON unless unknown members are refused.
func (r *result) read(payload []byte, known members) error {
	s := &scanner{data: payload}
	if k := s.peek(); k != kindObject {
		return wrongShape("want an object, got %v", k)
	}
	if err := eachMember(s, func(key string) error { return r.member(s, key, known) }); err != nil {
		return err
	}
	if !s.atEnd() {
		return wrongShape("not JSON: text follows the object")
	}
	return nil
}

// eachMember reads an object and calls f with each key, to read the value.
func eachMember(s *scanner, f func(key string) error) error {
	if !s.take('{') {
		return wrongShape("want an object, got %v", s.peek())
	}
	if s.take('}') {
		return nil
	}
	for {
		s.space()
		key, ok := s.text()
		if !ok || !s.take(':') {
			return wrongShape("not JSON at byte %d", s.pos)
		}
		if err := f(string(key)); err != nil {
			return err
		}
		if s.take('}') {
			return nil
		}
		if !s.take(',') {
			return wrongShape("not JSON at byte %d", s.pos)
		}
	}
}

func (r *result) member(s *scanner, key string, known members) (err error) {
	switch {
	case key == "statusCode":
		return r.readStatus(s)
	case key == "headers":
		r.single, err = readHeaders(s, key)
	case key == "multiValueHeaders" && known != v2Members:
		r.multi, err = readMultiValueHeaders(s)
	case key == "cookies" && known == v2Members:
		r.cookies, err = readList(s, key)
	case key == "body":
		var k kind
		if known == v2Members && (s.peek() == kindObject || s.peek() == kindArray) {
			// Not a text, but JSON all the same: it goes out as that.
			start := s.pos
			s.skip()
			r.body = compact(s.data[start:s.pos])
			return nil
		}
		r.body, k = s.scalar()
		if k == kindInvalid {
			return wrongShape("body must be a string, got %v", s.peek())
		}
		if k == kindNull {
			r.body = nil
		}
	case key == "isBase64Encoded":
		text, k := s.scalar()
		if k == kindInvalid || k == kindNumber {
			return wrongShape("isBase64Encoded must be true or false, got %v", s.peek())
		}
		// AWS reads the text "true" as true, as it reads a number in quotes as a status [?].
		r.encoded = string(text) == "true"
		if !r.encoded && k == kindString && string(text) != "false" {
			return wrongShape("isBase64Encoded must be true or false")
		}
	case known == restMembers:
		return wrongShape("unknown member %q", short(key))
	default:
		s.skip()
	}
	return err
}

func (r *result) readStatus(s *scanner) error {
	text, k := s.scalar()
	switch k {
	case kindNull:
		r.status = 0
		return nil
	case kindNumber, kindString:
	default:
		return wrongShape("statusCode must be a number, got %v", s.peek())
	}
	status, err := strconv.Atoi(string(text))
	if err != nil {
		f, ferr := strconv.ParseFloat(string(text), 64)
		if ferr != nil || k == kindString || f != float64(int(f)) {
			return wrongShape("statusCode must be a whole number, got %q", short(string(text)))
		}
		status = int(f)
	}
	if status < 200 || status > 599 {
		return wrongShape("statusCode must be 200 to 599, got %d", status)
	}
	r.status = status
	return nil
}

// readHeaders reads an object of scalars; AWS turns booleans and numbers into text. null is no headers.
func readHeaders(s *scanner, member string) ([]Field, error) {
	if isNull(s) {
		return nil, nil
	}
	if k := s.peek(); k != kindObject {
		return nil, wrongShape("%s must be an object, got %v", member, k)
	}
	var fields []Field
	bytes := 0
	err := eachMember(s, func(name string) error {
		value, k := s.scalar()
		if k == kindInvalid {
			return wrongShape("%s: %q must be a string, got %v", member, short(name), s.peek())
		}
		if k == kindNull {
			return nil
		}
		if bytes += len(name) + len(value); bytes > maxHeaderBytes {
			return wrongShape("%s: over %d bytes", member, maxHeaderBytes)
		}
		fields = append(fields, Field{Name: name, Values: []string{string(value)}})
		return nil
	})
	return fields, err
}

func readMultiValueHeaders(s *scanner) ([]Field, error) {
	if isNull(s) {
		return nil, nil
	}
	if k := s.peek(); k != kindObject {
		return nil, wrongShape("multiValueHeaders must be an object, got %v", k)
	}
	var fields []Field
	bytes := 0
	err := eachMember(s, func(name string) error {
		values, err := readList(s, "multiValueHeaders: "+short(name))
		if err != nil {
			return err
		}
		bytes += len(name)
		for _, v := range values {
			bytes += len(v)
		}
		if bytes > maxHeaderBytes {
			return wrongShape("multiValueHeaders: over %d bytes", maxHeaderBytes)
		}
		if len(values) > 0 {
			fields = append(fields, Field{Name: name, Values: values})
		}
		return nil
	})
	return fields, err
}

// readList reads a list of scalars as texts; nulls are left out.
func readList(s *scanner, member string) ([]string, error) {
	if !s.take('[') {
		return nil, wrongShape("%s must be a list, got %v", member, s.peek())
	}
	var values []string
	if s.take(']') {
		return values, nil
	}
	for {
		value, k := s.scalar()
		if k == kindInvalid {
			return nil, wrongShape("%s must be a list of strings, got %v in it", member, s.peek())
		}
		if k != kindNull {
			values = append(values, string(value))
		}
		if s.take(']') {
			return values, nil
		}
		if !s.take(',') {
			return nil, wrongShape("not JSON at byte %d", s.pos)
		}
	}
}

// isNull reads null when it comes next.
func isNull(s *scanner) bool {
	if s.peek() != kindNull {
		return false
	}
	_, k := s.scalar()
	return k == kindNull
}

func (r *result) decode() error {
	body := make([]byte, base64.StdEncoding.DecodedLen(len(r.body)))
	n, err := base64.StdEncoding.Decode(body, r.body)
	if err != nil {
		return gateway.Errorf(gateway.CodeInternal, "function result: isBase64Encoded is true, but body is not base64: %w", err)
	}
	r.body = body[:n]
	return nil
}

// answer joins the headers: multi values first, then the single one unless it is there already; the spelling of
// multiValueHeaders wins.
func (r *result) answer(contentType string) (Answer, error) {
	a := Answer{Status: r.status, Body: r.body}
	if a.Status == 0 {
		a.Status = http.StatusOK
	}
	typed := false
	for _, fields := range [...][]Field{r.multi, r.single} {
		for _, f := range fields {
			if !validField(f) {
				return Answer{}, wrongShape("header %q cannot be sent: bad character in its name or value", short(f.Name))
			}
			name, ok := outgoing(f.Name)
			if !ok {
				continue
			}
			typed = typed || strings.EqualFold(name, "Content-Type")
			a.Header = merge(a.Header, Field{Name: name, Values: f.Values})
		}
	}
	if !typed {
		a.Header = append(a.Header, Field{Name: "Content-Type", Values: []string{contentType}})
	}
	return a, nil
}

// merge adds f to fields, to the field of that name when there is one.
func merge(fields []Field, f Field) []Field {
	for i := range fields {
		if !strings.EqualFold(fields[i].Name, f.Name) {
			continue
		}
	next:
		for _, v := range f.Values {
			for _, have := range fields[i].Values {
				if have == v {
					continue next
				}
			}
			fields[i].Values = append(fields[i].Values, v)
		}
		return fields
	}
	return append(fields, f)
}

// outgoing returns the name under which API Gateway sends a function's header, and false when it drops it (AWS:
// important notes for REST APIs). The gateway's own x-amzn-RequestId is not the function's to set.
func outgoing(name string) (string, bool) {
	switch strings.ToLower(name) {
	case "transfer-encoding", "te", "trailer", "upgrade", "proxy-authenticate", "x-amzn-trace-id", "x-amz-apigw-id":
		return "", false
	case "connection", "content-length", "date", "server", "authorization", "content-md5", "expect", "host",
		"max-forwards", "user-agent", "www-authenticate", "x-amzn-requestid":
		return "x-amzn-Remapped-" + name, true
	}
	return name, true
}

// validField says whether a header can be put on the wire: a token as name, and no control character in a value.
func validField(f Field) bool {
	if f.Name == "" {
		return false
	}
	for i := 0; i < len(f.Name); i++ {
		if !token[f.Name[i]] {
			return false
		}
	}
	for _, v := range f.Values {
		for i := 0; i < len(v); i++ {
			if c := v[i]; c < 0x20 && c != '\t' || c == 0x7f {
				return false
			}
		}
	}
	return true
}

// token marks the bytes of a header name (RFC 9110, 5.6.2).
var token = func() (t [256]bool) {
	for _, c := range "!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz" {
		t[c] = true
	}
	return t
}()

// short cuts a text of the function for an error message.
func short(s string) string {
	if len(s) > 64 {
		return s[:64] + "..."
	}
	return s
}
