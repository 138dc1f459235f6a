package conformance

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	agentv1 "github.com/edge-serverless-box/esb/api/esb/agent/v1"
	"github.com/edge-serverless-box/esb/tests/stack"
)

// kindEnvironment is section 6: what a function sees of its surroundings. `with: {check: name}` names one of environmentChecks.
const kindEnvironment = "environment"

// environmentLimit bounds a wait for what must happen.
const environmentLimit = 60 * time.Second

// handlers are the zip functions of section 6 that are no program of ours.
var handlers = map[string]string{
	"probe-sandbox/app.py": sandboxHandler,
	"probe-python/app.py": `import getpass, json, os, pwd
def handler(event, context):
    return {"statusCode": 200, "body": json.dumps({"Env": dict(os.environ), "Notes": [
        "user " + getpass.getuser() + " " + os.path.expanduser("~"), "folder " + os.getcwd()]})}
`,
	"probe-links/index.mjs":                              linksHandler,
	"probe-links-layer/nodejs/node_modules/dep/index.js": dependency,
	"probe-node/index.js": `const os = require('os'), shared = require('shared/x');
exports.handler = async () => ({ statusCode: 200, body: JSON.stringify({ Env: process.env, Notes: [
  'user ' + os.userInfo().username + ' ' + os.homedir(), 'folder ' + process.cwd(), shared, 'hook ' + globalThis.hooked ] }) });
`,
	"probe-node/shared/x.js":            "module.exports = 'shared';\n",
	"telemetry-layer/telemetry/hook.js": "globalThis.hooked = 'by the layer';\n",
	"telemetry-layer/telemetry/hooked.js": `const [module_, name] = process.env.ORIGINAL_HANDLER.split('.'), own = require('/var/task/' + module_)[name];
exports.handler = async (event, context) => {
  const answer = await own(event, context), body = JSON.parse(answer.body);
  return { ...answer, body: JSON.stringify({ ...body, Notes: [...body.Notes, 'handler of the layer'] }) };
};
`,
	"telemetry-layer/telemetry/hooked.py": `import importlib, json, os
module, name = os.environ["ORIGINAL_HANDLER"].split(".")
own = getattr(importlib.import_module(module), name)
def handler(event, context):
    answer = own(event, context)
    body = json.loads(answer["body"])
    body["Notes"].append("handler of the layer")
    return {**answer, "body": json.dumps(body)}
`,
	"telemetry-layer/telemetry/sitecustomize.py": "import os\nos.environ['HOOKED'] = 'by the layer'\n",
	"bad.zip":                  "no zip file",
	"no-interpreter/bootstrap": "#!/bin/no-shell\r\necho\r\n",
}

// programs are the places where the probe's program is something else.
var programs = []string{"probe/bootstrap", "probe-layer/extensions/watcher", "telemetry-layer/wrapper", "adapter-layer/start-handler",
	"adapter-layer/extensions/lambda-adapter", "web/webapp"}

// addProbe puts the code of section 6's functions beside functions.yml.
func addProbe(config string) error {
	root, err := stack.RepositoryRoot()
	if err != nil {
		return err
	}
	built, err := stack.BuildProgram(root, config, "./tests/conformance/probe", "-ldflags", "-s -w")
	if err != nil {
		return err
	}
	// A name of its own: the folder "probe" is the function's.
	program := filepath.Join(config, "program")
	if err := os.Rename(built, program); err != nil {
		return err
	}
	data, err := os.ReadFile(program)
	if err != nil {
		return err
	}
	for _, name := range programs {
		file := filepath.Join(config, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o755), os.WriteFile(file, data, 0o755)); err != nil {
			return err
		}
	}
	for name, target := range links {
		if err := os.MkdirAll(filepath.Join(config, filepath.Dir(name)), 0o755); err != nil {
			return err
		}
		if err := os.Symlink(target, filepath.Join(config, name)); err != nil {
			return err
		}
	}
	for _, name := range slices.Sorted(maps.Keys(handlers)) {
		if err := os.MkdirAll(filepath.Join(config, filepath.Dir(name)), 0o755); err != nil {
			return err
		}
		mode := os.FileMode(0o644)
		if filepath.Base(name) == "bootstrap" {
			mode = 0o755
		}
		if err := os.WriteFile(filepath.Join(config, name), []byte(handlers[name]), mode); err != nil {
			return err
		}
	}
	return nil
}

// probeImages makes the images of section 6: the probe with nothing else, no file of users either; and a web server with the
// stand-in for Lambda Web Adapter, in the way that its quick start has.
func probeImages(config string) ([]string, error) {
	root, err := stack.RepositoryRoot()
	if err != nil {
		return nil, err
	}
	at := func(name string) string { return filepath.Join(config, name) }
	bare, err := stack.BuildImage(root, config, "esb/probe-scratch:latest", "-file", "/app/bootstrap="+at("probe/bootstrap"), "-entrypoint", "/app/bootstrap")
	if err != nil {
		return nil, err
	}
	web, err := stack.BuildImage(root, config, "esb/web:latest", "-file", "/app/webapp="+at("web/webapp"),
		"-file", "/opt/extensions/lambda-adapter="+at("adapter-layer/extensions/lambda-adapter"), "-entrypoint", "/app/webapp")
	if err != nil {
		return nil, err
	}
	return []string{bare, web}, nil
}

// probed is what the probe reports (probe/main.go).
type probed struct {
	PID, Count      int
	Env             map[string]string
	Headers         http.Header
	NoFile, NProc   uint64
	MemLock, Core   uint64
	CoreFilter      string
	TmpMB           uint64
	Marker          bool
	Processes       int
	Events, Notes   []string
	Ticks           int
	GapMS           int64
	CPUMS, WallMS   int64
	requestID       string
	status          int
	body            string
	Values          map[string]string // of the functions of testdata/runtimes, as they say
	HeapMB          float64
	traceID         string
	sentAt, heardAt time.Time
}

// examination is one case of section 6 while it runs.
type examination struct {
	ctx      context.Context
	box      *Box
	findings []string
	err      error
}

// environmentChecks are the cases of section 6, by name.
var environmentChecks = map[string]func(*examination){
	"variables": func(x *examination) {
		got := x.ask("/probe", "report", 0)
		day := time.Now().UTC().Format("2006/01/02")
		for name, want := range map[string]string{
			"AWS_REGION": `[a-z]{2}-[a-z]+-\d`, "AWS_DEFAULT_REGION": regexp.QuoteMeta(got.Env["AWS_REGION"]),
			"AWS_LAMBDA_FUNCTION_NAME": "probe", "AWS_LAMBDA_FUNCTION_VERSION": `\$LATEST`, "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "1769",
			"AWS_LAMBDA_INITIALIZATION_TYPE": "on-demand", "AWS_LAMBDA_LOG_GROUP_NAME": "/aws/lambda/probe",
			"AWS_LAMBDA_LOG_STREAM_NAME": `(` + day + `|\d{4}/\d\d/\d\d)/\[\$LATEST\][0-9a-f]{32}`, "AWS_LAMBDA_RUNTIME_API": `[0-9.]+:\d+`,
			"AWS_XRAY_CONTEXT_MISSING": "LOG_ERROR", "AWS_XRAY_DAEMON_ADDRESS": `[0-9.]+:2000`, "_AWS_XRAY_DAEMON_ADDRESS": `[0-9.]+`,
			"_AWS_XRAY_DAEMON_PORT": "2000", "LAMBDA_TASK_ROOT": "/var/task", "LAMBDA_RUNTIME_DIR": "/var/runtime", "LANG": `en_US\.UTF-8`,
			"TZ": ":UTC", "PATH": "/usr/local/bin:/usr/bin/:/bin:/opt/bin", "_HANDLER": "probe.handler",
			"LD_LIBRARY_PATH": "/lib64:/usr/lib64:/var/runtime:/var/runtime/lib:/var/task:/var/task/lib:/opt/lib",
		} {
			x.check(regexp.MustCompile("^(?:"+want+")$").MatchString(got.Env[name]), "%s is %q, want %s", name, got.Env[name], want)
		}
		_, home := got.Env["HOME"]
		x.check(!home, "HOME is %q: AWS has none", got.Env["HOME"])
		for path, want := range map[string]map[string]string{
			"/probe-python": {"PYTHONPATH": "/var/runtime"},
			"/probe-node":   {"NODE_PATH": "/opt/nodejs/node24/node_modules:/opt/nodejs/node_modules:/var/runtime/node_modules:/var/runtime:/var/task"},
		} {
			want["PATH"] = "/var/lang/bin:/usr/local/bin:/usr/bin/:/bin:/opt/bin"
			want["LD_LIBRARY_PATH"] = "/var/lang/lib:/lib64:/usr/lib64:/var/runtime:/var/runtime/lib:/var/task:/var/task/lib:/opt/lib"
			want["PWD"], want["SHLVL"] = "/var/task", "0"
			got := x.ask(path, "report", 0)
			for name, value := range want {
				x.check(got.Env[name] == value, "%s: %s is %q, want %s", path, name, got.Env[name], value)
			}
			_, home := got.Env["HOME"]
			x.check(!home, "%s: HOME is %q: AWS has none", path, got.Env["HOME"])
			x.check(slices.Contains(got.Notes, "folder /var/task"), "%s: the working folder is not /var/task: %q", path, got.Notes)
		}
	},
	"own-modules": func(x *examination) {
		got := x.ask("/probe-node", "report", 0)
		x.check(slices.Contains(got.Notes, "shared"), "require('shared/x') does not find /var/task/shared/x.js: %d %q", got.status, got.Notes)
	},
	"user": func(x *examination) {
		for _, path := range []string{"/probe", "/probe-image"} {
			got := x.ask(path, "who", 0)
			x.check(len(got.Notes) == 3, "%s: answer %d %.200s", path, got.status, got.body)
			for _, want := range []string{"uid 993 gid 990 groups []", "sbx_user1051:x:993:990::/home/sbx_user1051:/sbin/nologin"} {
				x.check(strings.Contains(strings.Join(got.Notes, "\n"), want), "%s: %q is not in %q", path, want, got.Notes)
			}
		}
		for _, path := range []string{"/probe-python", "/probe-node"} {
			got := x.ask(path, "report", 0)
			x.check(slices.Contains(got.Notes, "user sbx_user1051 /home/sbx_user1051"), "%s: its user is in %q", path, got.Notes)
		}
	},
	"ports": func(x *examination) {
		for _, path := range []string{"/probe-reset", "/probe-image"} {
			for range 2 { // a reset gives nothing away
				got := x.ask(path, "listen", 0)
				x.check(len(got.Notes) == 72, "%s: answer %d, %d notes", path, got.status, len(got.Notes))
				for _, note := range got.Notes {
					x.check(strings.HasSuffix(note, "true") != strings.HasPrefix(note, "listen 27182:"), "%s: %s", path, note)
				}
				x.ask(path, "exit", 0)
			}
		}
	},
	"exec-wrapper": func(x *examination) {
		python := x.ask("/wrapped-python", "report", 0)
		x.check(strings.HasSuffix(python.Env["WRAPPED"], " /var/runtime/bootstrap.pyc"), "the wrapper was not started, or not with the runtime's command: %q", python.Env["WRAPPED"])
		x.check(slices.Contains(python.Notes, "handler of the layer"), "Python: _HANDLER of the wrapper has no effect: %d %q", python.status, python.Notes)
		x.check(python.Env["HOOKED"] == "by the layer", "Python has not loaded the sitecustomize of PYTHONPATH: %d %.300s", python.status, python.body)
		node := x.ask("/wrapped-node", "report", 0)
		x.check(strings.HasSuffix(node.Env["WRAPPED"], " /var/runtime/bootstrap.js"), "the wrapper was not started, or not with the runtime's command: %q", node.Env["WRAPPED"])
		x.check(slices.Contains(node.Notes, "handler of the layer"), "Node.js: _HANDLER of the wrapper has no effect: %d %q", node.status, node.Notes)
		x.check(slices.Contains(node.Notes, "hook by the layer"), "Node.js has not loaded what NODE_OPTIONS names: %d %q", node.status, node.Notes)
		provided := x.ask("/wrapped-provided", "report", 0)
		x.check(provided.status == http.StatusOK, "provided runtimes see to the wrapper themselves; answer %d", provided.status)
	},
	"exec-wrapper-missing": func(x *examination) {
		x.check(x.ask("/wrapped-not", "report", 0).status == http.StatusBadGateway, "a wrapper that is missing is no 502")
		x.logged("wrapped-not", "/opt/no-wrapper: does not exist")
		x.logged("wrapped-not", "Runtime exited with error: exit status 127")
	},
	"web-adapter": func(x *examination) {
		for path, port := range map[string]string{"/web-code": "8080", "/web-port": "8000", "/web-image": "8080"} {
			for range 2 {
				answer, err := x.box.Do(x.ctx, http.MethodPut, x.box.HTTPURL+path, "", []byte("some text"), "Content-Type", "text/plain")
				x.fail(err)
				want := fmt.Sprintf("web app on %s: PUT %s some text", port, path)
				x.check(answer.Status == http.StatusOK && string(answer.Body) == want, "%s: answer %d %.300q, want %q", path, answer.Status, answer.Body, want)
			}
		}
	},
	"failed-start": func(x *examination) {
		for function, want := range map[string]string{"no-image": "esb/there-is-no-such-image:latest cannot be had", "bad-zip": "is not a zip file that can be read"} {
			status := x.ask("/"+function, "report", 0).status
			x.check(status == http.StatusServiceUnavailable, "/%s answers %d", function, status)
			x.logged(function, want)
		}
	},
	"entrypoint": func(x *examination) {
		x.check(x.ask("/no-interpreter", "report", 0).status == http.StatusBadGateway, "a program that cannot start is no 502")
		x.logged("no-interpreter", "fork/exec /var/task/bootstrap: no such file or directory: its first line ends with CR LF")
		x.logged("no-interpreter", "Error Type: Runtime.InvalidEntrypoint")
	},
	"credentials": func(x *examination) {
		got := x.ask("/probe", "report", 0)
		for _, name := range []string{"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"} {
			x.check(got.Env[name] != "", "%s is not there", name)
		}
	},
	"execution-environment": func(x *examination) {
		for path, want := range map[string]string{"/probe": "", "/probe-python": "AWS_Lambda_python3.11", "/probe-node": "AWS_Lambda_nodejs24.x"} {
			got := x.ask(path, "report", 0)
			value, is := got.Env["AWS_EXECUTION_ENV"]
			x.check(value == want && is == (want != ""), "%s: AWS_EXECUTION_ENV is %q (%t), want %q", path, value, is, want)
		}
	},
	"trace-variable": func(x *examination) {
		for _, path := range []string{"/probe-python", "/probe-node"} {
			first, second := x.ask(path, "report", 0), x.ask(path, "report", 0)
			for _, r := range []probed{first, second} {
				x.check(wholeTrace.MatchString(r.Env["_X_AMZN_TRACE_ID"]), "%s: _X_AMZN_TRACE_ID is %q", path, r.Env["_X_AMZN_TRACE_ID"])
			}
			x.check(first.Env["_X_AMZN_TRACE_ID"] != second.Env["_X_AMZN_TRACE_ID"], "%s: the trace id stays the same", path)
		}
	},
	"trace-rules": func(x *examination) {
		root, parent := "1-5759e988-bd862e3fe1be46a994272793", "53995c3f42cd8ad8"
		for sent, want := range map[string]string{
			"":                                   `Root=1-[0-9a-f]{8}-[0-9a-f]{24};Parent=[0-9a-f]{16};Sampled=0`,
			"Self=1-2;Parent=" + parent:          `Root=1-[0-9a-f]{8}-[0-9a-f]{24};Parent=[0-9a-f]{16};Sampled=0(;Self=1-2)?`,
			"Root=" + root:                       `Root=` + root + `;Parent=[0-9a-f]{16};Sampled=0`,
			"Root=" + root + ";Parent=" + parent: `Root=` + root + `;Parent=` + parent + `;Sampled=1`,
			"Root=" + root + ";Parent=" + parent + ";Sampled=0;Lineage=a:1": `Root=` + root + `;Parent=` + parent + `;Sampled=0;Lineage=a:1`,
			"Root=" + root + ";Sampled=1":                                   `Root=` + root + `;Parent=[0-9a-f]{16};Sampled=1`,
		} {
			got := x.ask("/probe", "report", 0, "X-Amzn-Trace-Id", sent).Headers.Get("Lambda-Runtime-Trace-Id")
			x.check(regexp.MustCompile("^"+want+"$").MatchString(got), "sent %q: the function gets %q, want %s", sent, got, want)
		}
	},
	"next-headers": func(x *examination) {
		got := x.ask("/probe", "report", 0)
		h := got.Headers
		x.check(h.Get("Lambda-Runtime-Aws-Request-Id") == got.requestID, "request id %q, the client's is %q", h.Get("Lambda-Runtime-Aws-Request-Id"), got.requestID)
		x.check(regexp.MustCompile(`^arn:aws:lambda:`+got.Env["AWS_REGION"]+`:\d{12}:function:probe$`).MatchString(h.Get("Lambda-Runtime-Invoked-Function-Arn")),
			"ARN %q", h.Get("Lambda-Runtime-Invoked-Function-Arn"))
		ms, err := strconv.ParseInt(h.Get("Lambda-Runtime-Deadline-Ms"), 10, 64)
		due := time.UnixMilli(ms)
		// The function's timeout is 10 s, from a moment between question and answer on.
		x.check(err == nil && !due.Before(got.sentAt.Add(10*time.Second-2*time.Millisecond)) && !due.After(got.heardAt.Add(10*time.Second+time.Millisecond)),
			"deadline %s, asked at %s", due, got.sentAt)
		x.check(wholeTrace.MatchString(h.Get("Lambda-Runtime-Trace-Id")), "trace id %q", h.Get("Lambda-Runtime-Trace-Id"))
		for _, name := range []string{"Lambda-Runtime-Client-Context", "Lambda-Runtime-Cognito-Identity", "Lambda-Runtime-Aws-Tenant-Id"} {
			x.check(h.Get(name) == "", "%s is %q, though the caller has none", name, h.Get(name))
		}
	},
	"limits": func(x *examination) {
		got := x.ask("/probe", "report", 0)
		x.check(got.NoFile == 1024, "RLIMIT_NOFILE is %d", got.NoFile)
		x.check(got.NProc == 1024, "RLIMIT_NPROC is %d", got.NProc)
		x.check(got.MemLock == 65536, "RLIMIT_MEMLOCK is %d", got.MemLock)
		x.check(got.Core == 10737418240, "RLIMIT_CORE is %d", got.Core)
		x.check(got.CoreFilter == "00000000", "a crash writes memory of the function to the machine: coredump_filter is %q", got.CoreFilter)
		x.check(got.TmpMB == 600, "/tmp has %d MB, want the 600 of ephemeral_storage", got.TmpMB)
		x.check(x.ask("/probe-half", "report", 0).TmpMB == 512, "/tmp has not AWS's 512 MB where functions.yml says nothing")
	},
	"memory-and-cpu": func(x *examination) {
		got := x.ask("/probe-half", "burn", 600)
		x.check(got.WallMS >= 600 && got.CPUMS*100 <= got.WallMS*75, "with 885 MB, half a CPU, it got %d ms in %d ms", got.CPUMS, got.WallMS)
		list := x.containers("probe-half")
		if len(list) != 1 {
			x.check(false, "%d containers", len(list))
			return
		}
		m, err := x.box.Agent.GetContainerMetrics(x.ctx, &agentv1.GetContainerMetricsRequest{ContainerId: list[0].GetContainerId()})
		x.fail(err)
		x.check(m.GetMemoryLimitBytes() == 885<<20, "its memory limit is %d bytes", m.GetMemoryLimitBytes())
	},
	"configuration-limits": func(x *examination) {
		base := "functions:\n  f: {code: ./probe, runtime: provided.al2023, "
		for keys, want := range map[string]string{
			"memory_size: 127":         "128 to 10240",
			"memory_size: 10241":       "128 to 10240",
			"ephemeral_storage: 511":   "512 to 10240",
			"ephemeral_storage: 10241": "512 to 10240",
			"timeout: 0":               "1 to 900",
			"timeout: 901":             "1 to 900",
			"environment: {A: " + strings.Repeat("x", 4096) + "}": "4096 bytes",
			"layers: [./a, ./b, ./c, ./d, ./e, ./f]":              "5",
		} {
			x.refused(base+keys+"}\n", want)
		}
	},
	"default-timeout": func(x *examination) {
		x.check(x.ask("/probe-plain", "sleep", 3500).status == http.StatusBadGateway, "3.5 s are not over the default timeout of 3 s")
		x.logged("probe-plain", "Task timed out after 3.00 seconds")
	},
	"reset": func(x *examination) {
		x.ask("/probe-reset", "mark", 0)
		before := x.ask("/probe-reset", "report", 0)
		x.check(x.ask("/probe-reset", "exit", 0).status == http.StatusBadGateway, "a process that exits is no 502")
		after := x.ask("/probe-reset", "report", 0)
		x.check(after.Marker, "/tmp is lost")
		x.check(before.Count > 1 && after.Count == 1, "globals are kept: invocation %d, then %d", before.Count, after.Count)
		x.check(after.Env["AWS_LAMBDA_LOG_STREAM_NAME"] == before.Env["AWS_LAMBDA_LOG_STREAM_NAME"], "it is another sandbox")
		x.logged("probe-reset", "Runtime exited with error: exit status 3")
	},
	// What a timeout leaves: /tmp and the sandbox. Its memory is free again: the second time needs more than half of it.
	"reset-timeout": func(x *examination) {
		before := x.ask("/probe-timeout", "report", 0)
		x.check(before.status == http.StatusOK && before.Processes == 2, "answer %d, %d processes, want lambda-init and the function's", before.status, before.Processes)
		for range 2 {
			x.check(x.do("/probe-timeout", `{"do":"hang","mb":300}`).status == http.StatusBadGateway, "a timeout is no 502")
		}
		after := x.ask("/probe-timeout", "report", 0)
		x.check(after.status == http.StatusOK, "after a timeout it answers %d %.300s", after.status, after.body)
		x.check(after.Marker, "/tmp is lost")
		x.check(after.Count == 1, "globals are kept: invocation %d", after.Count)
		x.check(after.Processes == 2, "%d processes, want lambda-init and the function's: one of the life before is still there", after.Processes)
		x.check(after.Env["AWS_LAMBDA_LOG_STREAM_NAME"] == before.Env["AWS_LAMBDA_LOG_STREAM_NAME"], "it is another sandbox")
		lines := x.logged("probe-timeout", "REPORT RequestId: "+after.requestID)
		ended := regexp.MustCompile(`^REPORT RequestId: \S+\tDuration: \d+\.\d\d ms\tBilled Duration: \d+ ms\tMemory Size: 512 MB\tMax Memory Used: \d+ MB\t(Init Duration: \d+\.\d\d ms\t)?Status: timeout$`)
		reports, faults := 0, 0
		for _, l := range lines {
			if ended.MatchString(l.Message) {
				reports++
			}
			if strings.Contains(l.Message, "Error: Task timed out after 3.00 seconds") {
				faults++
			}
			x.check(!strings.Contains(l.Message, "OOM"), "its memory is not free again: %s", l.Message)
		}
		x.check(reports == 2 && faults == 2, "%d REPORT lines say timeout, and %d lines how long it took, want 2 each", reports, faults)
	},
	"runtime-answers": func(x *examination) {
		got := x.ask("/probe", "misuse", 0)
		for _, want := range []string{
			`other id: 400 {"errorMessage":"Invalid request ID","errorType":"InvalidRequestID"}`,
			`next while running: 403 {"errorMessage":"State transition from Running to Ready failed for runtime. Error: State transition is not allowed","errorType":"InvalidStateTransition"}`,
			`init error while running: 403`,
			`restore next: 404`, `restore error: 404`, // as on AWS without SnapStart
		} {
			x.check(slices.ContainsFunc(got.Notes, func(n string) bool { return strings.HasPrefix(n, want) }), "%q is not among %q", want, got.Notes)
		}
		x.noted("/probe", `response: 202 {"status":"OK"}`)
	},
	"response-too-large": func(x *examination) {
		x.check(x.ask("/probe", "big", 0).status == http.StatusBadGateway, "an answer over 6 MB is no 502")
		x.noted("/probe", `big: 413 {"errorMessage":"Exceeded maximum allowed payload size (6291556 bytes).","errorType":"RequestEntityTooLarge"}`)
	},
	"error": func(x *examination) {
		x.check(x.ask("/probe", "error", 0).status == http.StatusBadGateway, "a failed function is no 502")
		x.noted("/probe", `error: 202 {"status":"OK"}`)
		x.logged("probe", "Status: error\tError Type: Probe.Told")
	},
	"init-error": func(x *examination) {
		x.check(x.ask("/probe-init-error", "report", 0).status == http.StatusBadGateway, "a failed init is no 502")
		x.logged("probe-init-error", "Status: error\tError Type: Probe.NoInit")
	},
	"streaming": func(x *examination) {
		got := x.ask("/probe", "stream", 0)
		x.check(got.status == http.StatusOK && got.body == "streamed", "answer %d %q", got.status, got.body)
		x.noted("/probe", `stream: 202 {"status":"OK"}`)
		x.check(x.ask("/probe", "stream-error", 0).status == http.StatusBadGateway, "an error in the trailers is no 502")
	},
	"init-limit": func(x *examination) {
		began := time.Now()
		got := x.ask("/probe-slow", "report", 0)
		x.check(got.status == http.StatusOK && got.Count == 1, "answer %d, invocation %d", got.status, got.Count)
		x.check(time.Since(began) >= 10*time.Second, "the first init had %s, not 10 s", time.Since(began))
		x.logged("probe-slow", "Phase: init\tStatus: timeout")
	},
	"log-lines": func(x *examination) {
		got := x.ask("/probe", "report", 0)
		lines := x.logged("probe", "REPORT RequestId: "+got.requestID)
		for _, want := range []string{
			`^START RequestId: ` + got.requestID + ` Version: \$LATEST$`,
			`^END RequestId: ` + got.requestID + `$`,
			`^REPORT RequestId: ` + got.requestID + `\tDuration: \d+\.\d\d ms\tBilled Duration: \d+ ms\tMemory Size: 1769 MB\tMax Memory Used: \d+ MB\t(Init Duration: \d+\.\d\d ms\t)?$`,
		} {
			re := regexp.MustCompile(want)
			x.check(slices.ContainsFunc(lines, func(l stack.LogLine) bool { return re.MatchString(l.Message) }), "no line is %s", want)
		}
	},
	"extension": func(x *examination) {
		x.ask("/probe-extended", "report", 0)
		got := x.ask("/probe-extended", "report", 0)
		for _, want := range []string{
			`register 200 {"functionName":"probe-extended","functionVersion":"$LATEST","handler":"probe.handler","accountId":"`,
			`event 200 {"eventType":"INVOKE","deadlineMs":` + got.Headers.Get("Lambda-Runtime-Deadline-Ms") + `,"requestId":"` + got.requestID + `"`,
		} {
			x.eventually("an event of the extension: "+want, func() bool {
				return slices.ContainsFunc(x.lines("probe-extended"), func(l stack.LogLine) bool {
					return l.Type == "extension" && strings.HasPrefix(l.Message, want)
				})
			})
		}
		x.logged("probe-extended", "EXTENSION\tName: watcher\tState: Ready\tEvents: [INVOKE,SHUTDOWN]")
		// Idle for its idle_timeout, it is spun down.
		x.logged("probe-extended", `"shutdownReason":"spindown"`)
	},
	"extension-timeout": func(x *examination) {
		x.check(x.ask("/probe-extended", "sleep", 5000).status == http.StatusBadGateway, "a timeout is no 502")
		x.logged("probe-extended", `"shutdownReason":"timeout"`)
		x.logged("probe-extended", "Task timed out after 2.00 seconds")
	},
	"telemetry": func(x *examination) {
		got := x.ask("/probe-extended", "report", 0)
		x.check(slices.ContainsFunc(got.Events, func(e string) bool { return strings.HasPrefix(e, "telemetry 20") }), "the subscription was refused: %q", got.Events)
	},
	"frozen": func(x *examination) {
		first := x.ask("/probe-frozen", "tick", 0)
		x.eventually("the container is frozen", func() bool {
			list := x.containers("probe-frozen")
			return len(list) == 1 && list[0].GetStatus() == agentv1.ContainerStatus_PAUSED
		})
		time.Sleep(time.Second) // for which it must not tick
		got := x.ask("/probe-frozen", "tick", 0)
		x.check(got.PID == first.PID && got.Count == first.Count+1, "it is another process")
		x.check(got.GapMS >= 900, "the longest time without a tick of its background thread is %d ms", got.GapMS)
	},
	"links":  checkLinks,
	"tmp":    checkTmp,
	"memory": checkMemoryView,
	"not-frozen": func(x *examination) {
		first := x.ask("/probe-reset", "tick", 0)
		x.eventually("ticks between two invocations", func() bool {
			return x.ask("/probe-reset", "tick", 0).Ticks > first.Ticks+100
		})
		list := x.containers("probe-reset")
		x.check(len(list) == 1 && list[0].GetStatus() == agentv1.ContainerStatus_RUNNING, "it is frozen, though nobody said so")
	},
}

// wholeTrace is a trace id with all three parts, which SDKs accept.
var wholeTrace = regexp.MustCompile(`^Root=1-[0-9a-f]{8}-[0-9a-f]{24};Parent=[0-9a-f]{16};Sampled=[01]$`)

func runEnvironment(ctx context.Context, b *Box, c *Case) ([]string, error) {
	check := environmentChecks[c.With["check"]]
	if check == nil {
		check = baseChecks[c.With["check"]]
	}
	if check == nil {
		check = logChecks[c.With["check"]]
	}
	if check == nil {
		return nil, fmt.Errorf("with.check: there is no check %q, there are %s", c.With["check"], slices.Sorted(maps.Keys(environmentChecks)))
	}
	x := &examination{ctx: ctx, box: b}
	check(x)
	return x.findings, x.err
}

func (x *examination) check(ok bool, format string, args ...any) {
	if !ok {
		x.findings = append(x.findings, fmt.Sprintf(format, args...))
	}
}

// fail keeps the first error.
func (x *examination) fail(err error) {
	if x.err == nil {
		x.err = err
	}
}

// ask has the probe behind path do something; what it reports is empty unless it answers 200.
func (x *examination) ask(path, do string, ms int, header ...string) probed {
	return x.do(path, fmt.Sprintf(`{"do":%q,"ms":%d}`, do, ms), header...)
}

// do is ask with an order of any kind.
func (x *examination) do(path, order string, header ...string) probed {
	sent := time.Now()
	answer, err := x.box.Do(x.ctx, http.MethodPost, x.box.HTTPURL+path, "", []byte(order), append(header, "Content-Type", "application/json")...)
	x.fail(err)
	r := probed{}
	if answer.Status == http.StatusOK {
		_ = json.Unmarshal(answer.Body, &r) // what is no report is looked at as body
	}
	r.status, r.body, r.sentAt, r.heardAt = answer.Status, string(answer.Body), sent, time.Now()
	r.requestID, r.traceID = answer.Header.Get("X-Amzn-Requestid"), answer.Header.Get("X-Amzn-Trace-Id")
	return r
}

// noted asks what the Runtime API answered to the probe's last call.
func (x *examination) noted(path, want string) {
	got := x.ask(path, "report", 0)
	x.check(slices.Contains(got.Notes, want), "%q is not among %q", want, got.Notes)
}

func (x *examination) eventually(what string, holds func() bool) {
	for until := time.Now().Add(environmentLimit); ; time.Sleep(100 * time.Millisecond) {
		switch {
		case x.err != nil || holds():
			return
		case time.Now().After(until):
			x.check(false, "waited in vain: %s", what)
			return
		}
	}
}

func (x *examination) lines(function string) []stack.LogLine {
	lines, err := x.box.Query(x.ctx, fmt.Sprintf("function:=%q", function))
	x.fail(err)
	return lines
}

// logged waits for a line of the function with text in it and returns all its lines.
func (x *examination) logged(function, text string) (lines []stack.LogLine) {
	x.eventually(fmt.Sprintf("%s logs %q", function, text), func() bool {
		lines = x.lines(function)
		return slices.ContainsFunc(lines, func(l stack.LogLine) bool { return strings.Contains(l.Message, text) })
	})
	return lines
}

func (x *examination) containers(function string) []*agentv1.ContainerInfo {
	list, err := x.box.Agent.ListContainers(x.ctx, &agentv1.ListContainersRequest{FunctionName: function})
	x.fail(err)
	return list.GetContainers()
}

// refused shows the gateway another functions.yml, which it must not take, and gives it its own back.
func (x *examination) refused(functions, want string) {
	file := filepath.Join(x.box.Home, "config", "functions.yml")
	own, err := os.ReadFile(file)
	x.fail(err)
	if x.err != nil {
		return
	}
	x.fail(os.WriteFile(file, []byte(functions), 0o644))
	answer, err := x.box.Do(x.ctx, http.MethodPost, x.box.AdminURL+"/reload", "", nil)
	x.fail(err)
	x.check(answer.Status == http.StatusUnprocessableEntity && strings.Contains(string(answer.Body), want),
		"%.60q: reload answers %d %.300s, want a problem with %q", functions, answer.Status, answer.Body, want)
	x.fail(os.WriteFile(file, own, 0o644))
	_, err = x.box.Do(x.ctx, http.MethodPost, x.box.AdminURL+"/reload", "", nil)
	x.fail(err)
}
