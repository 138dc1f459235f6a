package runtimes

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestNode_StreamifyResponse: what a handler of awslambda.streamifyResponse writes, and what arrives of it.
func TestNode_StreamifyResponse(t *testing.T) {
	const metadata = `{"statusCode":201,"headers":{"X-A":"b"}}`
	prelude := metadata + strings.Repeat("\x00", 8)
	wrap := func(body string) string {
		return "exports.handler = awslambda.streamifyResponse(async (event, responseStream, context) => {" + body + "});"
	}
	cases := []struct {
		name, code string
		esm        bool
		want       report // but the body of an error, which is in message
		errorType  string // of the trailers
		message    string
	}{
		{name: "pieces", code: wrap(`responseStream.setContentType('text/plain'); responseStream.write('a'); responseStream.write(Buffer.from('b')); responseStream.end('ü');`),
			want: report{body: "abü", stream: &stream{contentType: "text/plain"}}},
		{name: "event and context", code: wrap(`responseStream.end(event.n + context.awsRequestId + context.functionName);`),
			want: report{body: "1request-1f", stream: &stream{contentType: "application/octet-stream"}}},
		{name: "objects are JSON", code: wrap(`responseStream.write({ a: 1 }); responseStream.end([2]);`),
			want: report{body: `{"a":1}[2]`, stream: &stream{contentType: "application/octet-stream"}}},
		{name: "HTTP prelude", code: wrap(`const s = awslambda.HttpResponseStream.from(responseStream, ` + metadata + `); s.write('x'); s.end();`),
			want: report{body: prelude + "x", stream: &stream{contentType: "application/vnd.awslambda.http-integration-response"}}},
		{name: "HTTP prelude alone", code: wrap(`awslambda.HttpResponseStream.from(responseStream, ` + metadata + `).end();`),
			want: report{body: prelude, stream: &stream{contentType: "application/vnd.awslambda.http-integration-response"}}},
		{name: "nothing", code: wrap(`responseStream.end();`), want: report{stream: &stream{contentType: "application/octet-stream"}}},
		{name: "empty pieces", code: wrap(`responseStream.write(''); responseStream.write('a'); responseStream.write(''); responseStream.end();`),
			want: report{body: "a", stream: &stream{contentType: "application/octet-stream"}}},
		{name: "pipeline", code: `const { pipeline } = require('stream/promises'); const { Readable } = require('stream');` +
			wrap(`await pipeline(Readable.from(['a', 'b', 'c']), responseStream);`),
			want: report{body: "abc", stream: &stream{contentType: "application/octet-stream"}}},
		{name: "ends before the handler", code: wrap(`responseStream.end('a'); await new Promise((r) => setTimeout(r, 20));`),
			want: report{body: "a", stream: &stream{contentType: "application/octet-stream"}}},
		{name: "ends after the handler", code: wrap(`setTimeout(() => responseStream.end('a'), 20);`),
			want: report{body: "a", stream: &stream{contentType: "application/octet-stream"}}},
		{name: "ES module", esm: true, code: `export const handler = awslambda.streamifyResponse(async (event, responseStream) => { responseStream.end('esm'); }, { highWaterMark: 1 });`,
			want: report{body: "esm", stream: &stream{contentType: "application/octet-stream"}}},

		{name: "throws in the middle", code: wrap(`responseStream.write('a'); throw new RangeError('mid');`),
			want: report{body: "a", stream: &stream{contentType: "application/octet-stream"}}, errorType: "RangeError", message: `"errorMessage":"mid"`},
		{name: "throws a long story", code: wrap(`responseStream.write('a'); throw new RangeError('m'.repeat(9000));`),
			want: report{body: "a", stream: &stream{contentType: "application/octet-stream"}}, errorType: "RangeError", message: `"errorMessage":"mmm`},
		{name: "never ends", code: wrap(`responseStream.write('a');`),
			want: report{body: "a", stream: &stream{contentType: "application/octet-stream"}}, errorType: "Runtime.NodeJsExit", message: "never ended its response stream"},
		{name: "source of a pipeline fails", code: `const { pipeline } = require('stream/promises');` +
			wrap(`async function* source() { yield 'a'; throw new Error('source'); } await pipeline(source, responseStream);`),
			want: report{body: "a", stream: &stream{contentType: "application/octet-stream"}}, errorType: "Error", message: `"errorMessage":"source"`},
		{name: "throws at once", code: wrap(`throw new TypeError('early');`),
			want: report{path: "/invocation/request-1/error", errorType: "TypeError"}, message: `"errorMessage":"early"`},
		{name: "content type too late", code: wrap(`responseStream.write('a'); await new Promise((r) => setImmediate(r)); responseStream.setContentType('b');`),
			want: report{body: "a", stream: &stream{contentType: "application/octet-stream"}}, errorType: "Runtime.InvalidStreamingOperation", message: "too late"},
		{name: "content type of two lines", code: wrap(`responseStream.setContentType('a\r\nb: c');`),
			want: report{path: "/invocation/request-1/error", errorType: "Runtime.InvalidStreamingOperation"}, message: "printable"},
		{name: "not async", code: `exports.handler = awslambda.streamifyResponse((event, s) => { });`,
			want: report{path: "/invocation/request-1/error", errorType: "Runtime.MalformedStreamingHandler"}, message: "non-async"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			l := mustLanguage(t, "node")
			if c.esm {
				l.file = "index.mjs"
			}
			api := mustServeRuntimeAPI(t)
			api.next <- invocation{body: `{"n":"1"}`}
			p := mustStart(t, api, l, l.handler, map[string]string{l.file: c.code})

			got := api.mustReport(t, p)
			if c.want.path == "" {
				c.want.path = "/invocation/request-1/response"
				assert.Contains(t, got.stream.errorBody, c.message)
				assert.Equal(t, c.errorType, got.stream.errorType)
				got.stream.errorType, got.stream.errorBody = "", ""
			} else {
				assert.Contains(t, got.body, c.message)
				got.body = ""
			}
			assert.Equal(t, c.want, got, p.output())
			<-api.idle
			select { // the process goes on, whatever the handler did
			case <-api.idle:
			case <-time.After(limit):
				require.Fail(t, "no second GET next", "output: %s", p.output())
			}
			assert.Len(t, api.conns, 1, "one connection for everything")
		})
	}
}

// TestNode_Stream_PiecesArriveAsTheyAreWritten: the handler goes on when its first piece has arrived.
func TestNode_Stream_PiecesArriveAsTheyAreWritten(t *testing.T) {
	l := mustLanguage(t, "node")
	api := mustServeRuntimeAPI(t)
	marker := filepath.Join(t.TempDir(), "go")
	api.next <- invocation{body: strconv.Quote(marker)}
	p := mustStart(t, api, l, l.handler, map[string]string{l.file: `const fs = require('fs');
exports.handler = awslambda.streamifyResponse(async (file, out) => {
  out.write('first;');
  while (!fs.existsSync(file)) await new Promise((r) => setTimeout(r, 5));
  out.end('second;');
});`})
	select {
	case piece := <-api.pieces:
		assert.Equal(t, "first;", piece)
	case <-time.After(limit):
		require.Fail(t, "no piece", "output: %s", p.output())
	}
	require.NoError(t, os.WriteFile(marker, nil, 0o600))
	assert.Equal(t, "first;second;", api.mustReport(t, p).body)
}
