package runtimes

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// patchedPython does what sentry_sdk 1 and 2 do (sentry_sdk/integrations/aws_lambda.py): it wraps the handler as it comes by, and
// sends what it has collected before an invocation or an initialisation is over.
const patchedPython = `import sys
told = []
client = sys.modules["__main__"]
def before(name):
    f = getattr(client.LambdaRuntimeClient, name)
    def inner(*args, **kwargs):
        print("flushed before", name)
        return f(*args, **kwargs)
    setattr(client.LambdaRuntimeClient, name, inner)
for name in ("post_init_error", "post_invocation_result", "post_invocation_error"):
    before(name)
old = client.handle_event_request
def handle_event_request(lambda_runtime_client, request_handler, *args, **kwargs):
    def wrapped(event, context):
        try:
            return request_handler(event, context)
        except Exception as e:
            print("caught", e)
            raise
    return old(lambda_runtime_client, wrapped, *args, **kwargs)
client.handle_event_request = handle_event_request
`

// TestPython_ClientIsWrapped_AsInstrumentationDoes: errors reach who wraps AWS's client, which finds nothing to wrap where names
// are others, and says nothing.
func TestPython_ClientIsWrapped_AsInstrumentationDoes(t *testing.T) {
	l := mustLanguage(t, "python")
	api := mustServeRuntimeAPI(t)
	p := mustStart(t, api, l, l.handler, map[string]string{l.file: patchedPython + `def handler(event, context):
    if event["fail"]:
        raise ValueError("of the handler")
    return event
`})
	api.next <- invocation{body: `{"fail":true}`}
	got := api.mustReport(t, p)
	assertError(t, got, "/invocation/request-1/error", "ValueError", "of the handler")
	assert.Contains(t, got.body, "in wrapped", "frames of who wraps are the function's, as on AWS")
	assert.NotContains(t, got.body, "bootstrap.py")
	p.mustPrint(t, "caught of the handler\n")
	p.mustPrint(t, "flushed before post_invocation_error\n")
	api.next <- invocation{body: `{"fail":false}`}
	assert.Equal(t, report{path: "/invocation/request-2/response", body: `{"fail": false}`}, api.mustReport(t, p))
	p.mustPrint(t, "flushed before post_invocation_result\n")

	p = mustStart(t, api, l, l.handler, map[string]string{l.file: patchedPython + `raise ValueError("of the module")`})
	assertError(t, api.mustReport(t, p), "/init/error", "ValueError", "of the module")
	assert.Equal(t, 1, p.mustExit(t))
	p.mustPrint(t, "flushed before post_init_error\n")
}

// mustPrint waits for text in the process's output, which comes by another way than its reports.
func (p *process) mustPrint(t *testing.T, text string) {
	t.Helper()
	require.Eventually(t, func() bool { return strings.Contains(p.output(), text) }, limit, time.Millisecond, "%q is not printed", text)
}

// TestClients_HandlerIsReplaced_ByWhatIsLoadedBefore: what NODE_OPTIONS or a sitecustomize loads puts its own handler into _HANDLER, also
// by an absolute path (@sentry/aws-serverless 10, redirectLambdaHandler).
func TestClients_HandlerIsReplaced_ByWhatIsLoadedBefore(t *testing.T) {
	for name, c := range map[string]struct{ load, code, loaded, loadedCode, other, otherCode string }{
		"python": {
			load: "PYTHONPATH=%s", code: "def handler(event, context): return 'own'\n",
			loaded: "sitecustomize.py", loadedCode: "import os\nos.environ['_HANDLER'] = 'other.wrapped'\n",
			other: "other.py", otherCode: "import handler\ndef wrapped(event, context): return handler.handler(event, context) + ' wrapped'\n",
		},
		"node": {
			load: "NODE_OPTIONS=--require=%s/loaded.js", code: "exports.handler = async () => 'own';",
			loaded: "loaded.js", loadedCode: "process.env._HANDLER = __dirname + '/other.wrapped';",
			other: "other.js", otherCode: "exports.wrapped = async () => await require(process.env.LAMBDA_TASK_ROOT + '/index').handler() + ' wrapped';",
		},
	} {
		t.Run(name, func(t *testing.T) {
			l := mustLanguage(t, name)
			api := mustServeRuntimeAPI(t)
			layer := t.TempDir()
			require.NoError(t, os.WriteFile(filepath.Join(layer, c.loaded), []byte(c.loadedCode), 0o600))
			require.NoError(t, os.WriteFile(filepath.Join(layer, c.other), []byte(c.otherCode), 0o600))
			api.next <- invocation{body: `{}`}
			p := mustStartWith(t, api, l, l.handler, map[string]string{l.file: c.code}, nil, fmt.Sprintf(c.load, layer), "_HANDLER="+l.handler)
			assert.Equal(t, report{path: "/invocation/request-1/response", body: `"own wrapped"`}, api.mustReport(t, p), p.output())
		})
	}
}
