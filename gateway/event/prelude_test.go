package event

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/edge-serverless-box/esb/gateway"
)

const eightNULs = "\x00\x00\x00\x00\x00\x00\x00\x00"

// addAll gives stream to a Prelude in pieces of size bytes and returns the body.
func addAll(stream string, size int) (p *Prelude, body string, err error) {
	p = &Prelude{}
	for len(stream) > 0 {
		n := min(size, len(stream))
		rest, err := p.Add([]byte(stream[:n]))
		if err != nil {
			return p, body, err
		}
		body += string(rest)
		stream = stream[n:]
	}
	return p, body, nil
}

func TestPrelude(t *testing.T) {
	field := func(name string, values ...string) Field { return Field{Name: name, Values: values} }
	for name, tc := range map[string]struct {
		stream string
		answer Answer
		body   string
		bad    bool
	}{
		"all members": {stream: `{"statusCode":201,"headers":{"Content-Type":"text/plain","X-A":"1"},"multiValueHeaders":{"x-a":["0","1"]},"cookies":["a=1","b=2"]}` + eightNULs + "body",
			answer: Answer{Status: 201, Header: []Field{field("x-a", "0", "1"), field("Content-Type", "text/plain"), field("Set-Cookie", "a=1", "b=2")}}, body: "body"},
		"empty object":            {stream: "{}" + eightNULs, answer: Answer{Status: 200, Header: []Field{field("Content-Type", "application/json")}}},
		"nulls":                   {stream: `{"statusCode":null,"headers":null,"multiValueHeaders":null,"cookies":null}` + eightNULs, answer: Answer{Status: 200, Header: []Field{field("Content-Type", "application/json")}}},
		"NULs in the body":        {stream: "{}" + eightNULs + eightNULs + "x", answer: Answer{Status: 200, Header: []Field{field("Content-Type", "application/json")}}, body: eightNULs + "x"},
		"remapped and dropped":    {stream: `{"headers":{"Content-Length":"3","Transfer-Encoding":"chunked","content-type":"a/b"}}` + eightNULs, answer: Answer{Status: 200, Header: []Field{field("x-amzn-Remapped-Content-Length", "3"), field("content-type", "a/b")}}},
		"as long as it may be":    {stream: `{` + strings.Repeat(" ", MaxPreludeBytes-10) + `}` + eightNULs + "x", answer: Answer{Status: 200, Header: []Field{field("Content-Type", "application/json")}}, body: "x"},
		"one byte longer":         {stream: `{` + strings.Repeat(" ", MaxPreludeBytes-9) + `}` + eightNULs, bad: true},
		"no delimiter":            {stream: `{"statusCode":200}` + strings.Repeat("x", MaxPreludeBytes), bad: true},
		"seven NULs":              {stream: "{}" + eightNULs[1:] + "x", bad: true},
		"ends in the delimiter":   {stream: "{}" + eightNULs[1:], bad: true},
		"ends in the prelude":     {stream: `{"statusCode":200`, bad: true},
		"nothing":                 {stream: "", bad: true},
		"delimiter alone":         {stream: eightNULs, bad: true},
		"not JSON":                {stream: `{"statusCode":200,}` + eightNULs, bad: true},
		"text after the object":   {stream: `{} {}` + eightNULs, bad: true},
		"a list":                  {stream: `[]` + eightNULs, bad: true},
		"a body":                  {stream: `{"statusCode":201,"body":"x"}` + eightNULs + "y", answer: Answer{Status: 201, Header: []Field{field("Content-Type", "application/json")}}, body: "y"},
		"unknown members":         {stream: `{"status":404,"x":{"statusCode":[500,"]"]},"statusCode":"202","isBase64Encoded":true}` + eightNULs, answer: Answer{Status: 202, Header: []Field{field("Content-Type", "application/json")}}},
		"bad status":              {stream: `{"statusCode":99}` + eightNULs, bad: true},
		"header of two lines":     {stream: `{"headers":{"X-A":"1\r\nX-B: 2"}}` + eightNULs, bad: true},
		"header without name":     {stream: `{"headers":{"":"1"}}` + eightNULs, bad: true},
		"headers that are a list": {stream: `{"headers":[]}` + eightNULs, bad: true},
		"cookie of two lines":     {stream: `{"cookies":["a\n"]}` + eightNULs, bad: true},
	} {
		t.Run(name, func(t *testing.T) {
			for _, size := range []int{1, 7, 1 << 20} {
				p, body, err := addAll(tc.stream, size)
				var answer Answer
				if err == nil {
					answer, err = p.Answer()
				}
				if tc.bad {
					assert.Equal(t, gateway.CodeFunction, gateway.ErrorCode(err), "pieces of %d", size)
					continue
				}
				require.NoError(t, err)
				assert.Equal(t, tc.answer, answer)
				assert.Equal(t, tc.body, body)
			}
		})
	}
}

func TestStreamed(t *testing.T) {
	a, err := Streamed("")
	require.NoError(t, err)
	assert.Equal(t, Answer{Status: 200, Header: []Field{{Name: "Content-Type", Values: []string{"application/octet-stream"}}}}, a)
	_, err = Streamed("text/plain\r\nX: y")
	assert.Equal(t, gateway.CodeFunction, gateway.ErrorCode(err))
}

// FuzzPrelude: whatever a function streams, and in whatever pieces, is refused with CodeFunction or becomes a status and
// headers that can be sent, and the body that follows the delimiter.
func FuzzPrelude(f *testing.F) {
	f.Add([]byte(`{"statusCode":200,"headers":{"a":"b"},"cookies":["c=d"]}`+eightNULs+"body"), 3)
	f.Add([]byte(`{"multiValueHeaders":{"a":["b",1,true,null]}}`+eightNULs), 1)
	f.Add([]byte(`{}`+eightNULs[1:]+"x"), 2)
	f.Add([]byte(eightNULs), 8)
	f.Fuzz(func(t *testing.T, stream []byte, size int) {
		if size < 1 || size > 1<<16 {
			size = 5
		}
		given := bytes.Clone(stream)
		p, body, err := addAll(string(stream), size)
		require.Equal(t, given, stream)
		whole, wholeBody, wholeErr := addAll(string(stream), len(stream)+1)
		require.Equal(t, wholeErr == nil, err == nil, "the pieces must not matter")
		if err != nil {
			require.Equal(t, gateway.CodeFunction, gateway.ErrorCode(err))
			return
		}
		require.Equal(t, wholeBody, body)
		require.Equal(t, whole.Done(), p.Done())
		answer, err := p.Answer()
		if err != nil {
			require.Equal(t, gateway.CodeFunction, gateway.ErrorCode(err))
			return
		}
		json1, rest, found := bytes.Cut(stream, []byte(eightNULs))
		require.True(t, found)
		require.True(t, json.Valid(json1))
		require.Equal(t, string(rest), body)
		require.True(t, answer.Status >= 200 && answer.Status <= 599)
		for _, field := range answer.Header {
			require.True(t, validField(field), "%q", field)
		}
		require.Empty(t, answer.Body)
	})
}
