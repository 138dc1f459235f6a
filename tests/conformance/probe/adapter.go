package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"
)

// appPort is where Lambda Web Adapter expects the application unless PORT says otherwise, and where the application below listens.
func appPort() string {
	if port := os.Getenv("PORT"); port != "" {
		return port
	}
	return "8080"
}

// adapt is a stand-in for Lambda Web Adapter (awslabs.github.io/aws-lambda-web-adapter, "Quick start"): an extension that waits
// until the application answers, and then polls the Runtime API in its place.
func adapt(name string) {
	_, header, _ := call(http.MethodPost, "/2020-01-01/extension/register", []byte(`{"events":[]}`), "Lambda-Extension-Name", name)
	go call(http.MethodGet, "/2020-01-01/extension/event/next", nil, "Lambda-Extension-Identifier", header.Get("Lambda-Extension-Identifier"))
	app := "http://127.0.0.1:" + appPort()
	for ; ; time.Sleep(10 * time.Millisecond) {
		if res, err := http.Get(app + "/"); err == nil {
			_ = res.Body.Close()
			break
		}
	}
	for {
		_, header, body := call(http.MethodGet, "/2018-06-01/runtime/invocation/next", nil)
		answer := forward(app, body)
		call(http.MethodPost, "/2018-06-01/runtime/invocation/"+header.Get("Lambda-Runtime-Aws-Request-Id")+"/response", answer)
	}
}

// forward makes the request of an event of a REST API, and the answer to it.
func forward(app, event string) []byte {
	var in struct {
		HTTPMethod, Path, Body string
		Headers                map[string]string
	}
	if err := json.Unmarshal([]byte(event), &in); err != nil || in.HTTPMethod == "" {
		in.HTTPMethod, in.Path, in.Body = http.MethodPost, "/events", event
	}
	r, err := http.NewRequest(in.HTTPMethod, app+in.Path, strings.NewReader(in.Body))
	if err != nil {
		panic(err)
	}
	for name, value := range in.Headers {
		r.Header.Set(name, value)
	}
	res, err := http.DefaultClient.Do(r)
	if err != nil {
		panic(err)
	}
	defer func() { _ = res.Body.Close() }()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		panic(err)
	}
	answer, err := json.Marshal(result{res.StatusCode, string(body)})
	if err != nil {
		panic(err)
	}
	return answer
}

// serveWeb is a plain web server that knows nothing of Lambda.
func serveWeb() {
	port := appPort()
	panic(http.ListenAndServe(":"+port, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		_, _ = fmt.Fprintf(w, "web app on %s: %s %s %s", port, r.Method, r.URL.Path, body)
	})))
}

// startHandler is the wrapper that Lambda Web Adapter's layer has at /opt/bootstrap: the application is the handler.
func startHandler() {
	program := os.Getenv("LAMBDA_TASK_ROOT") + "/" + os.Getenv("_HANDLER")
	panic(syscall.Exec(program, []string{program}, os.Environ()))
}

// wrap is a wrapper as layers of telemetry have one: it has the runtime load what is in the layer (OpenTelemetry), takes the place
// of the handler (Datadog, New Relic), and puts an option of the interpreter before the last argument, which is the runtime's client
// (developer guide, "Modifying the runtime environment").
func wrap(command []string) {
	handler, option := "/opt/telemetry/hooked.handler", "--no-warnings"
	if strings.Contains(command[0], "python") {
		handler, option = "hooked.handler", "-B"
	}
	for name, value := range map[string]string{
		"WRAPPED": strings.Join(command, " "), "NODE_OPTIONS": "--require /opt/telemetry/hook.js", "PYTHONPATH": "/opt/telemetry:" + os.Getenv("PYTHONPATH"),
		"ORIGINAL_HANDLER": os.Getenv("_HANDLER"), "_HANDLER": handler,
	} {
		if err := os.Setenv(name, value); err != nil {
			panic(err)
		}
	}
	command = slices.Insert(command, len(command)-1, option)
	panic(syscall.Exec(command[0], command, os.Environ()))
}
