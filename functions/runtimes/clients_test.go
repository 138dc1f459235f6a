package runtimes

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// limit bounds every wait of these tests; it is generous because interpreters start slowly on a busy machine.
const limit = time.Minute

// report is one POST of a runtime client.
type report struct {
	path      string
	errorType string
	body      string
	stream    *stream // of an answer that streamed
}

// stream is what an answer that streams has besides.
type stream struct {
	contentType          string
	errorType, errorBody string // of the trailers
}

// runtimeAPI is a Runtime API that hands out what next holds and collects what the client reports.
type runtimeAPI struct {
	server  *httptest.Server
	next    chan invocation
	reports chan report
	pieces  chan string   // of answers that stream, as they come
	idle    chan struct{} // receives once for each GET next
	status  int           // of answers to POSTs; 0 means 202

	mu    sync.Mutex // guards conns
	conns map[string]bool
}

type invocation struct {
	body    string
	chunked bool
	header  map[string]string
}

func mustServeRuntimeAPI(t *testing.T) *runtimeAPI {
	t.Helper()
	api := &runtimeAPI{next: make(chan invocation, 8), reports: make(chan report, 8), pieces: make(chan string, 64), idle: make(chan struct{}, 64), conns: map[string]bool{}}
	n := 0
	mux := http.NewServeMux()
	mux.HandleFunc("GET /2018-06-01/runtime/invocation/next", func(w http.ResponseWriter, r *http.Request) {
		api.mu.Lock()
		api.conns[r.RemoteAddr] = true
		api.mu.Unlock()
		api.idle <- struct{}{}
		select {
		case <-r.Context().Done():
		case i := <-api.next:
			n++
			header := w.Header()
			header.Set("Lambda-Runtime-Aws-Request-Id", "request-"+strconv.Itoa(n))
			header.Set("Lambda-Runtime-Deadline-Ms", strconv.FormatInt(time.Now().Add(limit).UnixMilli(), 10))
			header.Set("Lambda-Runtime-Invoked-Function-Arn", "arn:aws:lambda:us-east-1:123456789012:function:f")
			for name, value := range i.header {
				header.Set(name, value)
			}
			if !i.chunked {
				header.Set("Content-Length", strconv.Itoa(len(i.body)))
			}
			for rest := i.body; rest != ""; {
				size := min(len(rest), 40000)
				_, _ = io.WriteString(w, rest[:size])
				rest = rest[size:]
				if i.chunked {
					_ = http.NewResponseController(w).Flush()
				}
			}
		}
	})
	mux.HandleFunc("POST /2018-06-01/runtime/", func(w http.ResponseWriter, r *http.Request) {
		streams := r.Header.Get("Lambda-Runtime-Function-Response-Mode") == "streaming"
		var body []byte
		var err error
		for piece := make([]byte, 64<<10); err == nil; {
			var n int
			n, err = r.Body.Read(piece)
			body = append(body, piece[:n]...)
			if streams && n > 0 {
				select {
				case api.pieces <- string(piece[:n]):
				default: // the test counts what it looks at
				}
			}
		}
		if err != io.EOF {
			return
		}
		var trailing *stream
		if streams {
			document, _ := base64.StdEncoding.DecodeString(r.Trailer.Get("Lambda-Runtime-Function-Error-Body"))
			trailing = &stream{contentType: r.Header.Get("Content-Type"),
				errorType: r.Trailer.Get("Lambda-Runtime-Function-Error-Type"), errorBody: string(document)}
		}
		api.reports <- report{
			stream:    trailing,
			path:      strings.TrimPrefix(r.URL.Path, "/2018-06-01/runtime"),
			errorType: r.Header.Get("Lambda-Runtime-Function-Error-Type"),
			body:      string(body),
		}
		w.WriteHeader(max(api.status, http.StatusAccepted))
		_, _ = io.WriteString(w, `{"status":"OK"}`)
	})
	api.server = httptest.NewServer(mux)
	t.Cleanup(func() {
		api.server.CloseClientConnections()
		api.server.Close()
	})
	return api
}

func (a *runtimeAPI) mustReport(t *testing.T, p *process) report {
	t.Helper()
	select {
	case r := <-a.reports:
		return r
	case <-time.After(limit):
		require.Fail(t, "no report from the runtime client", "output: %s", p.output())
		return report{}
	}
}

// process is a runtime client with a function.
type process struct {
	root string // task root
	cmd  *exec.Cmd
	done chan struct{}
	mu   sync.Mutex // guards out
	out  bytes.Buffer
}

// Write implements io.Writer for the process's output.
func (p *process) Write(data []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.out.Write(data)
}

func (p *process) output() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.out.String()
}

// language is one of the two clients.
type language struct {
	command []string
	file    string
	handler string
	// ahead: the client is started before it is told of its function.
	ahead bool
}

func mustLanguage(t *testing.T, name string) language {
	t.Helper()
	l := map[string]language{
		"python": {command: []string{"python3", "-S", "python/bootstrap.py"}, file: "handler.py", handler: "handler.handler"},
		"node":   {command: []string{"node", "nodejs/bootstrap.js"}, file: "index.js", handler: "index.handler"},
	}[name]
	if _, err := exec.LookPath(l.command[0]); err != nil {
		t.Skipf("%s is not installed on this machine", l.command[0])
	}
	script := &l.command[len(l.command)-1]
	var err error
	*script, err = filepath.Abs(*script) // as in the images
	require.NoError(t, err)
	return l
}

// mustStart starts the client with the files in its task root, and with env besides; frames, when not nil, is the file for frames.
func mustStart(t *testing.T, api *runtimeAPI, l language, handler string, files map[string]string) *process {
	t.Helper()
	return mustStartWith(t, api, l, handler, files, nil)
}

func mustStartWith(t *testing.T, api *runtimeAPI, l language, handler string, files map[string]string, frames *os.File, env ...string) *process {
	t.Helper()
	root := t.TempDir()
	for name, content := range files {
		path := filepath.Join(root, name)
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
		require.NoError(t, os.WriteFile(path, []byte(content), 0o600))
	}
	p := &process{done: make(chan struct{}), root: root}
	ctx, cancel := context.WithCancel(context.Background())
	p.cmd = exec.CommandContext(ctx, l.command[0], append(l.command[1:len(l.command):len(l.command)], handler)...)
	p.cmd.Env = []string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + root, "PYTHONDONTWRITEBYTECODE=1", "LC_ALL=C.UTF-8",
		"AWS_LAMBDA_RUNTIME_API=" + api.server.Listener.Addr().String(), "LAMBDA_TASK_ROOT=" + root,
		"AWS_LAMBDA_FUNCTION_NAME=f", "AWS_LAMBDA_FUNCTION_MEMORY_SIZE=256", "AWS_LAMBDA_FUNCTION_VERSION=$LATEST",
		"AWS_LAMBDA_LOG_GROUP_NAME=/aws/lambda/f", "AWS_LAMBDA_LOG_STREAM_NAME=s",
	}
	p.cmd.Env = append(p.cmd.Env, env...)
	p.cmd.Stdout, p.cmd.Stderr = p, p
	if frames != nil {
		p.cmd.ExtraFiles = []*os.File{frames}
		p.cmd.Env = append(p.cmd.Env, "_LAMBDA_TELEMETRY_LOG_FD=3")
	}
	tell := p.startAhead(t, l)
	require.NoError(t, p.cmd.Start())
	tell()
	go func() {
		_ = p.cmd.Wait()
		close(p.done)
	}()
	t.Cleanup(func() {
		cancel()
		<-p.done
	})
	return p
}

// startAhead has the client start without what it is told when it waits, by the function that is returned, as lambda-init does that.
func (p *process) startAhead(t *testing.T, l language) (tell func()) {
	t.Helper()
	if !l.ahead {
		return func() {}
	}
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	require.NoError(t, err)
	ours, theirs := os.NewFile(uintptr(fds[0]), "ours"), os.NewFile(uintptr(fds[1]), "theirs")
	told, err := json.Marshal(map[string]any{"args": p.cmd.Args, "env": p.cmd.Env, "cwd": p.root})
	require.NoError(t, err)
	p.cmd.Args = l.command
	p.cmd.ExtraFiles = append(p.cmd.ExtraFiles, theirs)
	p.cmd.Env = []string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + p.root, "PYTHONDONTWRITEBYTECODE=1", "LC_ALL=C.UTF-8", "BEFORE=1",
		"_ESB_WAIT_FD=" + strconv.Itoa(2+len(p.cmd.ExtraFiles)), "_ESB_ROOM=" + strings.Repeat(" ", 8<<10),
	}
	return func() {
		require.NoError(t, theirs.Close())
		_, err := ours.Read(make([]byte, 1))
		require.NoError(t, err, "it waits; output: %s", p.output())
		_, err = ours.Write(told)
		require.NoError(t, err)
		require.NoError(t, ours.Close())
	}
}

func (p *process) mustExit(t *testing.T) int {
	t.Helper()
	select {
	case <-p.done:
	case <-time.After(limit):
		require.Fail(t, "the process did not end", "output: %s", p.output())
	}
	return p.cmd.ProcessState.ExitCode()
}

func TestClients_Invocation_ReportsResultOrError(t *testing.T) {
	type failure struct {
		typ, message string
	}
	cases := []struct {
		name, language, code string
		header               map[string]string
		event                string
		result               string
		failure              failure
		logged               string
	}{
		{name: "result", language: "python", event: `{"n": 1}`, result: `{"got": {"n": 1}}`,
			code: "def handler(event, context): return {'got': event}"},
		{name: "unicode", language: "python", event: `{"n": "häß \ud83d\ude00"}`, result: `"h\u00e4\u00df \ud83d\ude00"`,
			code: "def handler(event, context): return event['n']"},
		{name: "nothing", language: "python", event: `{}`, result: `null`, code: "def handler(event, context): pass"},
		{name: "context", language: "python", event: `{}`,
			header: map[string]string{"Lambda-Runtime-Client-Context": `{"custom":{"k":"ü"},"client":{"app_title":"t"}}`,
				"Lambda-Runtime-Trace-Id": "Root=1-a;Parent=b;Sampled=1", "Lambda-Runtime-Cognito-Identity": `{"cognitoIdentityId":"i"}`},
			result: `["request-1", "f", "$LATEST", "arn:aws:lambda:us-east-1:123456789012:function:f", "256", "/aws/lambda/f", "s",` +
				` "\u00fc", "t", "i", "Root=1-a;Parent=b;Sampled=1", true]`,
			code: `import os
def handler(event, c):
    return [c.aws_request_id, c.function_name, c.function_version, c.invoked_function_arn, c.memory_limit_in_mb, c.log_group_name,
            c.log_stream_name, c.client_context.custom['k'], c.client_context.client.app_title, c.identity.cognito_identity_id,
            os.environ['_X_AMZN_TRACE_ID'], 0 < c.get_remaining_time_in_millis() <= 60000]`},
		{name: "exception", language: "python", event: `{}`, failure: failure{"ValueError", "bad\nvalue"}, logged: "[ERROR] ValueError: bad\rvalue\rTraceback (most recent call last):\r\u00a0\u00a0File \"",
			code: "def handler(event, context): raise ValueError('bad\\nvalue')"},
		{name: "not JSON", language: "python", event: `{}`,
			failure: failure{"Runtime.MarshalError", "Unable to marshal response: Object of type set is not JSON serializable"},
			code:    "def handler(event, context): return {1}"},
		{name: "bad event", language: "python", event: `{`, failure: failure{typ: "Runtime.UnmarshalError"},
			code: "def handler(event, context): pass"},
		{name: "logging", language: "python", event: `{}`, result: `null`, logged: "Z\trequest-1\thello log",
			code: "import logging\nlogging.getLogger().setLevel('INFO')\ndef handler(event, context): logging.info('hello log')"},
		{name: "exit builtin", language: "python", event: `{}`, result: `true`,
			code: "def handler(event, context): return callable(exit)"},

		{name: "async result", language: "node", event: `{"n": 1}`, result: `{"got":{"n":1}}`,
			code: "exports.handler = async (event) => ({ got: event });"},
		{name: "unicode", language: "node", event: `{"n": "häß \ud83d\ude00"}`, result: `"häß 😀"`,
			code: "exports.handler = async (event) => event.n;"},
		{name: "nothing", language: "node", event: `{}`, result: `null`, code: "exports.handler = async () => {};"},
		{name: "callback", language: "node", event: `{}`, result: `[1]`,
			code: "exports.handler = (event, context, callback) => { setTimeout(() => callback(null, [1]), 5); };"},
		{name: "callback does not wait", language: "node", event: `{}`, result: `2`,
			code: "setInterval(() => {}, 1000); exports.handler = (event, context, callback) => { context.callbackWaitsForEmptyEventLoop = false; callback(null, 2); };"},
		{name: "callback error", language: "node", event: `{}`, failure: failure{"RangeError", "far"},
			code: "exports.handler = (event, context, callback) => callback(new RangeError('far'));"},
		{name: "returned value", language: "node", event: `{}`, result: `3`, code: "exports.handler = () => 3;"},
		{name: "ES module", language: "node", event: `{}`, result: `"esm"`,
			code: "export const handler = async () => 'esm';"},
		{name: "context", language: "node", event: `{}`,
			header: map[string]string{"Lambda-Runtime-Client-Context": `{"custom":{"k":"ü"}}`,
				"Lambda-Runtime-Trace-Id": "Root=1-a;Parent=b;Sampled=1", "Lambda-Runtime-Cognito-Identity": `{"cognitoIdentityId":"i"}`},
			result: `["request-1","f","$LATEST","arn:aws:lambda:us-east-1:123456789012:function:f","256","/aws/lambda/f","s",` +
				`"ü","i","Root=1-a;Parent=b;Sampled=1",true]`,
			code: `exports.handler = async (event, c) => [c.awsRequestId, c.functionName, c.functionVersion, c.invokedFunctionArn,
  c.memoryLimitInMB, c.logGroupName, c.logStreamName, c.clientContext.custom.k, c.identity.cognitoIdentityId,
  process.env._X_AMZN_TRACE_ID, c.getRemainingTimeInMillis() > 0 && c.getRemainingTimeInMillis() <= 60000];`},
		{name: "rejection", language: "node", event: `{}`, failure: failure{"TypeError", "bad"}, logged: "Z\trequest-1\tERROR\tInvoke Error \t{\"errorType\":\"TypeError\",\"errorMessage\":\"bad\",\"stack\":[\"TypeError: bad\",",
			code: "exports.handler = async () => { throw new TypeError('bad'); };"},
		{name: "thrown", language: "node", event: `{}`, failure: failure{"Error", "sync"},
			code: "exports.handler = () => { throw new Error('sync'); };"},
		{name: "thrown text", language: "node", event: `{}`, failure: failure{"string", "text"},
			code: "exports.handler = async () => { throw 'text'; };"},
		{name: "circular", language: "node", event: `{}`, failure: failure{"Error", "Unable to stringify response body"},
			code: "exports.handler = async () => { const o = {}; o.o = o; return o; };"},
		{name: "never settles", language: "node", event: `{}`, failure: failure{typ: "Runtime.NodeJsExit"},
			code: "exports.handler = () => new Promise(() => {});"},
		{name: "bad event", language: "node", event: `{`, failure: failure{typ: "Runtime.UnmarshalError"},
			code: "exports.handler = async () => {};"},
	}
	for i := range 2 * len(cases) {
		c, way := cases[i/2], []string{"", ", started ahead"}[i%2]
		t.Run(c.language+"/"+c.name+way, func(t *testing.T) {
			l := mustLanguage(t, c.language)
			l.ahead = way != ""
			if c.name == "ES module" {
				l.file = "index.mjs"
			}
			api := mustServeRuntimeAPI(t)
			api.next <- invocation{body: c.event, header: c.header}
			p := mustStart(t, api, l, l.handler, map[string]string{l.file: c.code})

			got := api.mustReport(t, p)
			if c.failure.typ == "" {
				assert.Equal(t, report{path: "/invocation/request-1/response", body: c.result}, got, p.output())
			} else {
				assertError(t, got, "/invocation/request-1/error", c.failure.typ, c.failure.message)
			}
			<-api.idle
			select { // the process goes on, whatever the handler did
			case <-api.idle:
			case <-time.After(limit):
				require.Fail(t, "no second GET next", "output: %s", p.output())
			}
			assert.Contains(t, p.output(), c.logged)
			assert.Len(t, api.conns, 1, "one connection for everything")
		})
	}
}

// What a client that was started ahead is told is as if it had been so from the start.
func TestClients_StartedAhead(t *testing.T) {
	for name, code := range map[string]string{
		"python": `import os, sys
AT_IMPORT = [os.getcwd(), sys.argv[1:], os.environ.get("BEFORE"), os.environ.get("MINE")]
def handler(event, context):
    return AT_IMPORT + [sorted(v for v in open("/proc/self/environ").read().split("\0") if v.startswith(("BEFORE", "MINE", "_ESB"))),
            sorted(k for k in os.environ if k.startswith("_ESB")), os.popen("echo $MINE$BEFORE").read()]`,
		"node": `const atImport = [process.cwd(), process.argv.slice(2), process.env.BEFORE ?? null, process.env.MINE];
exports.handler = async () => [...atImport,
  require('fs').readFileSync('/proc/self/environ', 'utf8').split('\0').filter((v) => /^(BEFORE|MINE|_ESB)/.test(v)).sort(),
  Object.keys(process.env).filter((k) => k.startsWith('_ESB')), require('child_process').execSync('echo $MINE$BEFORE').toString()];`,
	} {
		t.Run(name, func(t *testing.T) {
			l := mustLanguage(t, name)
			l.ahead = true
			api := mustServeRuntimeAPI(t)
			p := mustStartWith(t, api, l, l.handler, map[string]string{l.file: code}, nil, "MINE=a=b")
			api.next <- invocation{body: `{}`}
			got := api.mustReport(t, p)
			want, err := json.Marshal([]any{p.root, []string{l.handler}, nil, "a=b", []string{"MINE=a=b"}, []string{}, "a=b\n"})
			require.NoError(t, err)
			assert.JSONEq(t, string(want), got.body, p.output())
		})
		t.Run(name+" is nobody's", func(t *testing.T) {
			l := mustLanguage(t, name)
			cmd := exec.Command(l.command[0], l.command[1:]...)
			fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
			require.NoError(t, err)
			ours, theirs := os.NewFile(uintptr(fds[0]), "ours"), os.NewFile(uintptr(fds[1]), "theirs")
			cmd.ExtraFiles, cmd.Env = []*os.File{theirs}, append(os.Environ(), "_ESB_WAIT_FD=3")
			require.NoError(t, cmd.Start())
			require.NoError(t, theirs.Close())
			_, err = ours.Read(make([]byte, 1))
			require.NoError(t, err)
			require.NoError(t, ours.Close())
			require.NoError(t, cmd.Wait(), "it ends well")
		})
	}
}

func assertError(t *testing.T, got report, path, typ, message string) {
	t.Helper()
	var body struct {
		ErrorType, ErrorMessage string
		StackTrace, Trace       []string
	}
	require.NoError(t, json.Unmarshal([]byte(got.body), &body), got.body)
	assert.Equal(t, path, got.path)
	assert.Equal(t, typ, got.errorType)
	assert.Equal(t, typ, body.ErrorType)
	if message != "" {
		assert.Equal(t, message, body.ErrorMessage)
	}
	for _, line := range append(body.StackTrace, body.Trace...) {
		assert.NotContains(t, line, "bootstrap.py", "the client's own frames do not belong to the function's trace")
	}
}

func TestClients_BrokenFunction_ReportsInitError(t *testing.T) {
	cases := []struct{ name, language, handler, code, typ, message string }{
		{"import error", "python", "", "import nothere", "Runtime.ImportModuleError", "Unable to import module 'handler': No module named 'nothere'"},
		{"no module", "python", "other.handler", "", "Runtime.ImportModuleError", "Unable to import module 'other': No module named 'other'"},
		{"no function", "python", "", "x = 1", "Runtime.HandlerNotFound", "Handler 'handler' missing on module 'handler'"},
		{"syntax", "python", "", "def (", "Runtime.UserCodeSyntaxError", "Syntax error in module 'handler': invalid syntax (handler.py, line 1)"},
		{"malformed", "python", "handler", "", "Runtime.MalformedHandlerName", "Bad handler 'handler': not enough values to unpack (expected 2, got 1)"},
		{"raises", "python", "", "raise KeyError('k')", "KeyError", "'k'"},
		{"no module", "node", "other.handler", "", "Runtime.ImportModuleError", ""},
		{"import error", "node", "", "require('nothere')", "Runtime.ImportModuleError", ""},
		{"outside", "node", "../index.handler", "", "Runtime.MalformedHandlerName",
			"'../index.handler' is not a valid handler name. Use absolute paths when specifying root directories in handler names."},
		{"no function below", "node", "index.a.b", "exports.a = {}", "Runtime.HandlerNotFound", "index.a.b is undefined or not exported"},
		{"no function", "node", "", "exports.x = 1", "Runtime.HandlerNotFound", "index.handler is undefined or not exported"},
		{"syntax", "node", "", "function (", "Runtime.UserCodeSyntaxError", ""},
		{"malformed", "node", "index", "", "Runtime.MalformedHandlerName", "Bad handler"},
		{"throws", "node", "", "throw new RangeError('r')", "RangeError", "r"},
	}
	for _, c := range cases {
		t.Run(c.language+"/"+c.name, func(t *testing.T) {
			l := mustLanguage(t, c.language)
			if c.handler == "" {
				c.handler = l.handler
			}
			api := mustServeRuntimeAPI(t)
			p := mustStart(t, api, l, c.handler, map[string]string{l.file: c.code})

			assertError(t, api.mustReport(t, p), "/init/error", c.typ, c.message)
			assert.Equal(t, 1, p.mustExit(t))
			assert.Contains(t, p.output(), c.typ, "the log says why")
		})
	}
}

func TestClients_BigPayloads_ArriveWhole(t *testing.T) {
	code := map[string]string{
		"python": "def handler(event, context): return event",
		"node":   "exports.handler = async (event) => event;",
	}
	for _, name := range []string{"python", "node"} {
		for _, chunked := range []bool{false, true} {
			t.Run(name+"/chunked="+strconv.FormatBool(chunked), func(t *testing.T) {
				l := mustLanguage(t, name)
				api := mustServeRuntimeAPI(t)
				// Where Python writes text as it is.
				p := mustStartWith(t, api, l, l.handler, map[string]string{l.file: code[name]}, nil, "AWS_EXECUTION_ENV=AWS_Lambda_python3.12")
				for _, text := range []string{strings.Repeat("0123456789abcdef", 6<<16), "small", strings.Repeat("é", 100_000)} {
					event := `"` + text + `"`
					api.next <- invocation{body: event, chunked: chunked}
					assert.True(t, event == api.mustReport(t, p).body, "%d bytes", len(event))
				}
			})
		}
	}
}

func TestClients_ConnectionLostWhileHandlerRuns_AnswersOnNewOne(t *testing.T) {
	code := map[string]string{
		"python": "import os, time\ndef handler(event, context):\n    print('started')\n    while not os.path.exists(event): time.sleep(0.01)\n    return 'late'",
		"node": "const fs = require('fs'); exports.handler = async (event) => { console.log('started');" +
			" while (!fs.existsSync(event)) await new Promise((r) => setTimeout(r, 10)); return 'late'; };",
	}
	for name, source := range code {
		t.Run(name, func(t *testing.T) {
			l := mustLanguage(t, name)
			api := mustServeRuntimeAPI(t)
			p := mustStart(t, api, l, l.handler, map[string]string{l.file: source})
			marker := filepath.Join(t.TempDir(), "go")
			event, err := json.Marshal(marker)
			require.NoError(t, err)
			api.next <- invocation{body: string(event)}
			require.Eventually(t, func() bool { return strings.Contains(p.output(), "started") }, limit, time.Millisecond)
			api.server.CloseClientConnections()
			require.NoError(t, os.WriteFile(marker, nil, 0o600))

			assert.Equal(t, report{path: "/invocation/request-1/response", body: `"late"`}, api.mustReport(t, p))
		})
	}
}

func TestClients_ProcessEndsDuringInvocation(t *testing.T) {
	cases := []struct {
		name, language, code string
		exit                 int
		errorType            string
	}{
		{"sys.exit", "python", "import sys\ndef handler(event, context): sys.exit(7)", 7, ""},
		{"process.exit", "node", "exports.handler = async () => process.exit(7);", 7, ""},
		{"uncaught", "node", "exports.handler = () => { setTimeout(() => { throw new RangeError('u'); }); };", 129, "RangeError"},
		{"unhandled", "node", "exports.handler = () => new Promise((r) => { setTimeout(r, 60000); Promise.reject(new Error('u')); });", 128,
			"Runtime.UnhandledPromiseRejection"},
	}
	for _, c := range cases {
		t.Run(c.language+"/"+c.name, func(t *testing.T) {
			l := mustLanguage(t, c.language)
			api := mustServeRuntimeAPI(t)
			api.next <- invocation{body: `{}`}
			p := mustStart(t, api, l, l.handler, map[string]string{l.file: c.code})
			assert.Equal(t, c.exit, p.mustExit(t), p.output())
			if c.errorType != "" {
				assertError(t, api.mustReport(t, p), "/invocation/request-1/error", c.errorType, "")
			}
			assert.Empty(t, api.reports)
		})
	}
}

func TestClients_Terminated_EndCleanly(t *testing.T) {
	code := map[string]string{
		"python": "import atexit\natexit.register(lambda: print('goodbye'))\ndef handler(event, context): pass",
		"node":   "process.on('exit', () => console.log('goodbye')); exports.handler = async () => {};",
	}
	for name, source := range code {
		t.Run(name, func(t *testing.T) {
			l := mustLanguage(t, name)
			api := mustServeRuntimeAPI(t)
			p := mustStart(t, api, l, l.handler, map[string]string{l.file: source})
			<-api.idle
			require.NoError(t, p.cmd.Process.Signal(syscall.SIGTERM))
			assert.Equal(t, 0, p.mustExit(t), p.output())
			assert.Contains(t, p.output(), "goodbye")
		})
	}
}

func TestClients_AnswerRefused_GoOn(t *testing.T) {
	code := map[string]string{
		"python": "def handler(event, context): return 1",
		"node":   "exports.handler = async () => 1;",
	}
	for name, source := range code {
		t.Run(name, func(t *testing.T) {
			l := mustLanguage(t, name)
			api := mustServeRuntimeAPI(t)
			api.status = http.StatusRequestEntityTooLarge
			p := mustStart(t, api, l, l.handler, map[string]string{l.file: source})
			for range 2 {
				api.next <- invocation{body: `{}`}
				assert.Equal(t, "1", api.mustReport(t, p).body)
			}
			<-api.idle
			assert.Contains(t, p.output(), "413")
		})
	}
}

func TestSamples_Hello(t *testing.T) {
	cases := []struct{ name, event, want string }{
		{"name", `{"body":"{\"name\":\"ana\"}"}`, `hello ana`},
		{"no name", `{"body":"{}"}`, `hello world`},
		{"no body", `{"body":null}`, `hello world`},
		{"base64", `{"body":"eyJuYW1lIjoiYiJ9","isBase64Encoded":true}`, `hello b`},
		{"not JSON", `{"body":"{"}`, `the request body must be JSON`},
		{"not an object", `{"body":"[1]"}`, `the request body must be a JSON object`},
	}
	for name, folder := range map[string]string{"python": "lambda-hello-python", "node": "lambda-hello-node"} {
		t.Run(name, func(t *testing.T) {
			l := mustLanguage(t, name)
			source, err := os.ReadFile(filepath.Join("..", folder, l.file))
			require.NoError(t, err)
			api := mustServeRuntimeAPI(t)
			p := mustStart(t, api, l, l.handler, map[string]string{l.file: string(source)})
			for _, c := range cases {
				api.next <- invocation{body: c.event}
				var answer struct {
					StatusCode int
					Headers    map[string]string
					Body       string
				}
				require.NoError(t, json.Unmarshal([]byte(api.mustReport(t, p).body), &answer))
				var body struct{ Message, Runtime string }
				require.NoError(t, json.Unmarshal([]byte(answer.Body), &body), c.name)
				assert.Equal(t, c.want, body.Message, c.name)
				assert.Equal(t, "application/json", answer.Headers["Content-Type"])
				if strings.HasPrefix(c.want, "hello") {
					assert.Equal(t, http.StatusOK, answer.StatusCode)
					assert.Contains(t, body.Runtime, name)
				} else {
					assert.Equal(t, http.StatusBadRequest, answer.StatusCode)
				}
			}
		})
	}
}
