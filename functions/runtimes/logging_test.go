package runtimes

import (
	"encoding/binary"
	"encoding/json"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// event is what a client has written as a frame.
type event struct {
	// kind is the last byte of the frame's type: the format (2 JSON, 3 text), and the level shifted by two.
	kind byte
	text string
}

// mustLog runs one invocation that has code for a handler, and returns the frames that the client has written by its end, and
// its report.
func mustLog(t *testing.T, name, code string, env ...string) ([]event, report) {
	t.Helper()
	l := mustLanguage(t, name)
	file, err := os.CreateTemp(t.TempDir(), "")
	require.NoError(t, err)
	defer func() { _ = file.Close() }()
	api := mustServeRuntimeAPI(t)
	api.next <- invocation{body: `{}`}
	p := mustStartWith(t, api, l, l.handler, map[string]string{l.file: code}, file, env...)
	got := api.mustReport(t, p)
	data, err := os.ReadFile(file.Name())
	require.NoError(t, err)
	var events []event
	for len(data) > 0 {
		require.Equal(t, "\xa5\x5a\x00", string(data[:3]))
		size := binary.BigEndian.Uint32(data[4:])
		at := time.UnixMicro(int64(binary.BigEndian.Uint64(data[8:])))
		assert.WithinDuration(t, time.Now(), at, limit)
		events = append(events, event{data[3], strings.ReplaceAll(string(data[16:16+size]), p.root, "/var/task")})
		data = data[16+size:]
	}
	return events, got
}

// times replaces the times in a text by T.
func times(text string) string {
	return regexp.MustCompile(`\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{3})?Z?`).ReplaceAllString(text, "T")
}

// Sources: aws-lambda-python-runtime-interface-client, lambda_runtime_marshaller.py (simplejson with Decimals raw, escaped before
// Python 3.12).
func TestPython_Results_AreWrittenAsAWSWritesThem(t *testing.T) {
	cases := []struct{ name, expression, env, want string }{
		{"decimal digits", `Decimal("0.1234567890123456789012345")`, "", `0.1234567890123456789012345`},
		{"decimals", `[Decimal("12345678901234567890.5"), Decimal("100.10"), Decimal("1.0"), Decimal("1E+30")]`, "", `[12345678901234567890.5, 100.10, 1.0, 1E+30]`},
		{"decimals that are no numbers", `[Decimal("NaN"), Decimal("-Infinity")]`, "", `[NaN, -Infinity]`},
		{"floats that are no numbers", `[float("nan"), float("inf")]`, "", `[NaN, Infinity]`},
		{"half a surrogate pair", `"hi \ud83d"`, "", `"hi \ud83d"`},
		{"half a surrogate pair, 3.12", `"hi ü\ud83d"`, "AWS_EXECUTION_ENV=AWS_Lambda_python3.12", `"hi ü\ud83d"`},
		{"beyond ASCII, 3.11", `"ü"`, "AWS_EXECUTION_ENV=AWS_Lambda_python3.11", `"\u00fc"`},
		{"beyond ASCII, 3.13", `"ü😀"`, "AWS_EXECUTION_ENV=AWS_Lambda_python3.13", `"ü😀"`},
		{"bytes", `b'{"a":1}'`, "", `{"a":1}`},
		{"bytes inside", `{"a": b"x"}`, "", `{"a": "x"}`},
		{"a text like a decimal", `["decimal:00:1", Decimal("2")]`, "", `["decimal:00:1", 2]`},
		{"named tuple", `[Point(1, Decimal("2.50"))]`, "", `[{"x": 1, "y": 2.50}]`},
		{"tuple", `(1, (2, None))`, "", `[1, [2, null]]`},
	}
	code := "from decimal import Decimal\nfrom collections import namedtuple\nPoint = namedtuple('Point', 'x y')\ndef handler(event, context): return "
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			_, got := mustLog(t, "python", code+c.expression, c.env)
			assert.Equal(t, report{path: "/invocation/request-1/response", body: c.want}, got)
		})
	}
	for expression, message := range map[string]string{
		"object()":         "Object of type object is not JSON serializable",
		"{(1, 2): 3}":      "keys must be str, int, float, bool or None, not tuple",
		"circle":           "Circular reference detected",
		"{'a': b'\\xff'}":  "'utf-8' codec can't decode byte 0xff in position 0: invalid start byte",
		"{'a': {1}, 2: 3}": "Object of type set is not JSON serializable",
	} {
		_, got := mustLog(t, "python", "circle = []\ncircle.append(circle)\n"+code+expression)
		assertError(t, got, "/invocation/request-1/error", "Runtime.MarshalError", "Unable to marshal response: "+message)
	}
}

// The wanted text is that of a recording of AWS: one event, lines joined with \n, no-break spaces for indentation alone.
func TestPython_Error_IsOneEventWithReadableLines(t *testing.T) {
	events, got := mustLog(t, "python", "def inner(x):\n    raise ValueError('bad\\n  value')\n\n\ndef handler(event, context):\n    return  inner( 1 )\n")
	assert.Equal(t, []event{{0x17, "[ERROR] ValueError: bad\n  value\nTraceback (most recent call last):\n" +
		"\u00a0\u00a0File \"/var/task/handler.py\", line 6, in handler\n\u00a0\u00a0\u00a0\u00a0return  inner( 1 )\n" +
		"\u00a0\u00a0File \"/var/task/handler.py\", line 2, in inner\n\u00a0\u00a0\u00a0\u00a0raise ValueError('bad\\n  value')"}}, events)
	var body struct {
		RequestID  string
		StackTrace []string
	}
	require.NoError(t, json.Unmarshal([]byte(got.body), &body))
	assert.Equal(t, "request-1", body.RequestID)
	require.Len(t, body.StackTrace, 2)
	assert.Regexp(t, `^  File ".*/handler.py", line 6, in handler\n    return  inner\( 1 \)\n$`, body.StackTrace[0])

	for _, expression := range []string{`Exception("\ud800")`, `type("E", (Exception,), {"__str__": lambda self: 1 / 0})()`} {
		events, got := mustLog(t, "python", "def handler(event, context): raise "+expression)
		assert.Equal(t, "/invocation/request-1/error", got.path, "the process lives")
		assert.Len(t, events, 1)
	}
}

func TestPython_Logging_IsOneEventEach(t *testing.T) {
	code := `import logging
logging.warning('at %s', 'init')
def handler(event, context):
    logging.getLogger('a').error('two\nlines')
    logging.info('not this')
    try:
        1 / 0
    except ZeroDivisionError:
        logging.exception('oh')
`
	events, _ := mustLog(t, "python", code)
	require.Len(t, events, 3)
	assert.Equal(t, event{0x13, "[WARNING]\tT\t\tat init\n"}, event{events[0].kind, times(events[0].text)})
	assert.Equal(t, event{0x17, "[ERROR]\tT\trequest-1\ttwo\nlines\n"}, event{events[1].kind, times(events[1].text)})
	assert.Regexp(t, `^\[ERROR\]\tT\trequest-1\toh\nTraceback \(most recent call last\):\n  File "/var/task/handler.py", line 7, in handler\n    1 / 0\n(.*\^.*\n)?ZeroDivisionError: division by zero$`,
		times(events[2].text))
}

// Source: aws-lambda-python-runtime-interface-client, lambda_runtime_log_utils.py (JsonFormatter).
func TestPython_JSONFormat(t *testing.T) {
	code := `import logging
log = logging.getLogger('mine')
def handler(event, context):
    log.debug('down', extra={'n': [1]})
    try:
        1 / 0
    except ZeroDivisionError:
        log.exception('ü')
    print('plain')
    raise KeyError('k')
`
	events, _ := mustLog(t, "python", code, "AWS_LAMBDA_LOG_FORMAT=JSON", "AWS_LAMBDA_LOG_LEVEL=DEBUG")
	require.Len(t, events, 3)
	assert.Equal(t, event{0x0a, `{"timestamp": "T", "level": "DEBUG", "message": "down", "logger": "mine", "requestId": "request-1", "n": [1]}` + "\n"},
		event{events[0].kind, times(events[0].text)})
	var line map[string]any
	require.NoError(t, json.Unmarshal([]byte(events[1].text), &line))
	assert.Equal(t, byte(0x16), events[1].kind)
	assert.Equal(t, "ü", line["message"])
	assert.Equal(t, "ZeroDivisionError", line["errorType"])
	assert.Equal(t, "division by zero", line["errorMessage"])
	assert.Equal(t, "/var/task/handler.py:handler:8", line["location"])
	assert.Len(t, line["stackTrace"], 1)
	assert.Equal(t, byte(0x16), events[2].kind)
	assert.Regexp(t, `^{"timestamp": "T", "level": "ERROR", "errorMessage": "'k'", "errorType": "KeyError", "requestId": "request-1", "stackTrace": \["  File `, times(events[2].text))

	events, _ = mustLog(t, "python", "import logging\ndef handler(event, context):\n    logging.info('not this')\n    logging.warning('this')\n",
		"AWS_LAMBDA_LOG_FORMAT=JSON", "AWS_LAMBDA_LOG_LEVEL=WARN")
	assert.Len(t, events, 1)
}

// Source: aws-lambda-nodejs-runtime-interface-client, logging (formatTextMessage, TelemetryLogger).
func TestNode_Console_HasTimeRequestAndLevel(t *testing.T) {
	events, got := mustLog(t, "node", `console.log('at init');
exports.handler = async () => {
  console.log('a %s', 'b', { c: 1 });
  console.info('two\nlines');
  console.debug('d');
  console.warn('w');
  console.error(new RangeError('far'));
  console.trace('t');
  console.fatal('f');
  process.stdout.write('raw\n');
};`)
	assert.Equal(t, "null", got.body)
	var texts []event
	for _, e := range events {
		texts = append(texts, event{e.kind, times(e.text)})
	}
	require.Len(t, texts, 8)
	assert.Contains(t, texts[5].text, "T\trequest-1\tERROR\tRangeError: far\n    at ")
	texts[5].text = ""
	assert.Equal(t, []event{{0x0f, "T\tundefined\tINFO\tat init"}, {0x0f, "T\trequest-1\tINFO\ta b { c: 1 }"}, {0x0f, "T\trequest-1\tINFO\ttwo\nlines"},
		{0x0b, "T\trequest-1\tDEBUG\td"}, {0x13, "T\trequest-1\tWARN\tw"}, {0x17, ""}, {0x07, "T\trequest-1\tTRACE\tt"}, {0x1b, "T\trequest-1\tFATAL\tf"}}, texts)
}

func TestNode_Console_WithoutFrames_IsOneLineEach(t *testing.T) {
	l := mustLanguage(t, "node")
	api := mustServeRuntimeAPI(t)
	api.next <- invocation{body: `{}`}
	p := mustStart(t, api, l, l.handler, map[string]string{l.file: "exports.handler = async () => { console.log('two\\nlines'); process.stdout.write('raw\\n'); };"})
	api.mustReport(t, p)
	require.Eventually(t, func() bool { return strings.HasSuffix(p.output(), "raw\n") }, limit, time.Millisecond)
	assert.Equal(t, "T\trequest-1\tINFO\ttwo\rlines\nraw\n", times(p.output()))
}

// A wrapper that closes what it does not know leaves the variable, but not the descriptor: its number is another one's then.
func TestClients_DescriptorForFramesIsGone_EventsAreLines(t *testing.T) {
	for name, code := range map[string]string{
		"python": "import logging\ndef handler(event, context):\n    logging.error('told')\n    raise KeyError('k')",
		"node":   "exports.handler = async () => { console.error('told'); throw new RangeError('r'); };",
	} {
		t.Run(name, func(t *testing.T) {
			l := mustLanguage(t, name)
			api := mustServeRuntimeAPI(t)
			api.next <- invocation{body: `{}`}
			p := mustStartWith(t, api, l, l.handler, map[string]string{l.file: code}, nil, "_LAMBDA_TELEMETRY_LOG_FD=3")
			assert.Equal(t, "/invocation/request-1/error", api.mustReport(t, p).path)
			require.Eventually(t, func() bool { return strings.Count(p.output(), "\n") == 2 }, limit, time.Millisecond)
			assert.Contains(t, p.output(), "told\n")
		})
	}
}

func TestNode_JSONFormat(t *testing.T) {
	events, _ := mustLog(t, "node", `exports.handler = async () => {
  console.debug('not this');
  console.log('a\nb');
  console.log({ n: 1 });
  console.warn('oh %s', 'no', Object.assign(new RangeError('far'), { code: 7 }));
  const circle = {}; circle.circle = circle; console.log(circle);
  throw Object.assign(new TypeError('bad'), { extra: true });
};`, "AWS_LAMBDA_LOG_FORMAT=JSON", "AWS_LAMBDA_LOG_LEVEL=INFO")
	require.Len(t, events, 5)
	assert.Equal(t, event{0x0e, `{"timestamp":"T","level":"INFO","requestId":"request-1","message":"a\nb"}`}, event{events[0].kind, times(events[0].text)})
	assert.Equal(t, `{"timestamp":"T","level":"INFO","requestId":"request-1","message":{"n":1}}`, times(events[1].text))
	assert.Equal(t, byte(0x12), events[2].kind)
	assert.Regexp(t, `^{"timestamp":"T","level":"WARN","requestId":"request-1","message":"oh no RangeError: far.*","errorType":"RangeError","errorMessage":"far","stackTrace":\["RangeError: far",.*\]}$`, times(events[2].text))
	assert.Contains(t, events[3].text, `"message":"<ref *1> { circle: [Circular *1] }"`)
	assert.Regexp(t, `^{"timestamp":"T","level":"ERROR","requestId":"request-1","message":{"errorType":"TypeError","errorMessage":"bad","stackTrace":\["TypeError: bad",.*\],"extra":true}}$`, times(events[4].text))
}

// More than a pipe takes: it has left before the answer is given, so that every piece belongs to the invocation.
func TestClients_BigOutput_IsOutBeforeTheAnswer(t *testing.T) {
	for name, code := range map[string]string{
		"python": "import sys\ndef handler(event, context):\n    print('x' * 5_000_000)",
		"node":   "exports.handler = async () => { process.stdout.write('x'.repeat(5_000_000)); };",
	} {
		t.Run(name, func(t *testing.T) {
			l := mustLanguage(t, name)
			api := mustServeRuntimeAPI(t)
			api.next <- invocation{body: `{}`}
			p := mustStart(t, api, l, l.handler, map[string]string{l.file: code})
			api.mustReport(t, p)
			// What has left the client is in the pipe at least, which takes 64 KiB.
			assert.GreaterOrEqual(t, strings.Count(p.output(), "x"), 5_000_000-2*64<<10)
		})
	}
}

// Sources: aws-lambda-nodejs-runtime-interface-client, version 4: callback-deprecation.ts, errors.ts; version 3: CallbackContext.js.
func TestNode_CallbacksByVersion(t *testing.T) {
	const old, modern = "AWS_EXECUTION_ENV=AWS_Lambda_nodejs22.x", "AWS_EXECUTION_ENV=AWS_Lambda_nodejs24.x"
	cases := []struct{ name, env, code, result, errorType, message string }{
		{"callback", old, "exports.handler = (event, context, callback) => callback(null, 1)", "1", "", ""},
		{"callback error does not wait", old, "setInterval(() => {}, 1000); exports.handler = (event, context, callback) => callback('no')", "", "string", "no"},
		{"succeed", old, "exports.handler = (event, context) => { context.succeed(2) }", "2", "", ""},
		{"fail", old, "exports.handler = (event, context) => { context.fail() }", "", "string", "handled"},
		{"done", old, "exports.handler = (event, context) => { context.done(new RangeError('r')) }", "", "RangeError", "r"},
		{"nothing", old, "exports.handler = (event, context) => {}", "null", "", ""},
		{"big integer", old, "exports.handler = async () => 1n", "", "Error", "Unable to stringify response body"},
		{"error that cannot be read", old, "exports.handler = async () => { const e = new Error('x'); Object.defineProperty(e, 'stack', { get() { throw 1; } }); throw e; }", "", "handled",
			"callback called with Error argument, but there was a problem while retrieving one or more of its message, name, and stack"},
		{"nothing", modern, "exports.handler = (event, context) => { setTimeout(() => {}, 60000) }", "null", "", ""},
		{"value", modern, "exports.handler = (event, context) => 3", "3", "", ""},
		{"members of the context", modern, "exports.handler = async (event, context) => ['succeed', 'fail', 'done', 'callbackWaitsForEmptyEventLoop'].filter((k) => k in context)", "[]", "", ""},
		{"arguments", modern, "exports.handler = async (...all) => all.length", "2", "", ""},
		{"big integer", modern, "exports.handler = async () => 1n", "", "Runtime.JSONStringifyError", "Unable to stringify response body"},
	}
	for _, c := range cases {
		t.Run(c.env[len(c.env)-len("nodejs24.x"):]+"/"+c.name, func(t *testing.T) {
			_, got := mustLog(t, "node", c.code, c.env)
			if c.errorType == "" {
				assert.Equal(t, report{path: "/invocation/request-1/response", body: c.result}, got)
			} else {
				assertError(t, got, "/invocation/request-1/error", c.errorType, c.message)
			}
		})
	}
	events, got := mustLog(t, "node", "exports.handler = (event, context, callback) => callback(null, 1)", modern)
	assertError(t, got, "/init/error", "Runtime.CallbackHandlerDeprecated", "ERROR: AWS Lambda has removed support for callback-based function handlers "+
		"starting with Node.js 24. You need to modify this function to use a supported handler signature to use Node.js 24 or later. "+
		"For more information see https://docs.aws.amazon.com/lambda/latest/dg/nodejs-handler.html.")
	require.Len(t, events, 1)
	assert.Contains(t, events[0].text, "\tundefined\tERROR\tInit Error \t{\"errorType\":\"Runtime.CallbackHandlerDeprecated\"")
	_, got = mustLog(t, "node", "exports.handler = awslambda.streamifyResponse(async (event, stream, context) => { stream.end('s') })", modern)
	assert.Equal(t, "s", got.body, "a handler that streams has three arguments")
}

// Wrappers in layers are handlers by the name of their package; import that finds nothing is no error of the runtime on AWS.
func TestNode_Handlers_PackagesAndESModules(t *testing.T) {
	l := mustLanguage(t, "node")
	cases := []struct{ name, handler, file, code, path, errorType, want string }{
		{"package", "wrapper.handler", "node_modules/wrapper/index.js", "exports.handler = async () => 'wrapped'", "/invocation/request-1/response", "", `"wrapped"`},
		{"nested", "index.a.b", "index.js", "exports.a = { b: async () => 'b' }", "/invocation/request-1/response", "", `"b"`},
		{"ES module's await", "index.handler", "index.mjs", "const a = await Promise.resolve('top'); export const handler = async () => a;", "/invocation/request-1/response", "", `"top"`},
		{"import of nothing", "index.handler", "index.mjs", "import 'nothere'; export const handler = async () => 1;", "/init/error", "Error", ""},
		{"no such module", "other.handler", "index.js", "", "/init/error", "Runtime.ImportModuleError", ""},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			api := mustServeRuntimeAPI(t)
			api.next <- invocation{body: `{}`}
			p := mustStart(t, api, l, c.handler, map[string]string{c.file: c.code})
			got := api.mustReport(t, p)
			assert.Equal(t, c.path, got.path, p.output())
			assert.Equal(t, c.errorType, got.errorType)
			if c.want != "" {
				assert.Equal(t, c.want, got.body)
			}
		})
	}
}
