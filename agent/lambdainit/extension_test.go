package lambdainit_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// extensionCall is a call of the Extensions API; id may be empty.
func extensionCall(method, path, id, body string, headers ...string) (*http.Response, string) {
	req, err := http.NewRequest(method, "http://"+os.Getenv("AWS_LAMBDA_RUNTIME_API")+"/2020-01-01/extension/"+path, strings.NewReader(body))
	if err != nil {
		panic(err)
	}
	if id != "" {
		req.Header.Set("Lambda-Extension-Identifier", id)
	}
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		req.Header.Set(name, value)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		panic(err)
	}
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		panic(err)
	}
	return resp, strings.TrimSpace(string(text))
}

// runExtension is the process of an external extension: it prints each event that it gets.
func runExtension(name, mode, arg string) int {
	events := `{"events":["INVOKE","SHUTDOWN"]}`
	switch mode {
	case "hang":
		select {}
	case "crash-init":
		return 3
	case "shutdown-only":
		events = `{"events":["SHUTDOWN"]}`
	case "telemetry":
		events = `{"events":["SHUTDOWN"]}`
	case "nothing":
		events = `{"events":[]}`
	case "misuse":
		_, body := extensionCall("POST", "register", "", "{}")
		fmt.Println("no name:", body)
		_, body = extensionCall("POST", "register", "", `{"events":["BOOM"]}`, "Lambda-Extension-Name: "+name)
		fmt.Println("no event:", body)
		_, body = extensionCall("POST", "register", "", `{"events":["SHUTDOWN"]}`, "Lambda-Extension-Name: internal")
		fmt.Println("internal:", body)
		_, body = extensionCall("GET", "event/next", "", "")
		fmt.Println("no id:", body)
		_, body = extensionCall("GET", "event/next", "x", "")
		fmt.Println("bad id:", body)
		_, body = extensionCall("GET", "event/next", "00000000-0000-4000-8000-000000000000", "")
		fmt.Println("other id:", body)
	}
	resp, body := extensionCall("POST", "register", "", events, "Lambda-Extension-Name: "+name, "Lambda-Extension-Accept-Feature: accountId")
	fmt.Println("registered:", resp.StatusCode, body)
	id := resp.Header.Get("Lambda-Extension-Identifier")
	switch mode {
	case "telemetry":
		subscribe(id)
	case "env":
		fmt.Println("environment:", strings.Join(os.Environ(), " "))
	case "misuse":
		_, body = extensionCall("POST", "register", "", events, "Lambda-Extension-Name: "+name)
		fmt.Println("again:", body)
		_, body = extensionCall("POST", "exit/error", id, "{}")
		fmt.Println("no type:", body)
	case "init-error":
		resp, body = extensionCall("POST", "init/error", id, "{}", "Lambda-Extension-Function-Error-Type: Extension.NoConfig")
		fmt.Println("init/error:", resp.StatusCode, body)
		return 1
	}
	for {
		resp, body := extensionCall("GET", "event/next", id, "")
		fmt.Println("event:", resp.StatusCode, body)
		if resp.Header.Get("Lambda-Extension-Event-Identifier") == "" {
			fmt.Println("no event identifier")
		}
		var event struct{ EventType string }
		_ = json.Unmarshal([]byte(body), &event)
		switch {
		case event.EventType == "SHUTDOWN" && mode == "stubborn":
			select {}
		case event.EventType == "SHUTDOWN":
			return 0
		case mode == "crash":
			return 4
		case mode == "exit-error":
			extensionCall("POST", "exit/error", id, "{}", "Lambda-Extension-Function-Error-Type: Extension.Broken")
			return 1
		case mode == "slow":
			for {
				if _, err := os.Stat(arg); err == nil {
					break
				}
				time.Sleep(time.Millisecond)
			}
		}
	}
}

// subscribe has the telemetry printed, one event a line.
func subscribe(id string) {
	put := func(path, body string) {
		req, err := http.NewRequest(http.MethodPut, "http://"+os.Getenv("AWS_LAMBDA_RUNTIME_API")+path, strings.NewReader(body))
		if err != nil {
			panic(err)
		}
		req.Header.Set("Lambda-Extension-Identifier", id)
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			panic(err)
		}
		defer func() { _ = resp.Body.Close() }()
		text, _ := io.ReadAll(resp.Body)
		fmt.Println("subscribe:", resp.StatusCode, string(text))
	}
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	go func() {
		_ = http.Serve(lis, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			var events []json.RawMessage
			if err := json.NewDecoder(r.Body).Decode(&events); err != nil {
				fmt.Println("bad telemetry:", err)
			}
			for _, e := range events {
				fmt.Println("telemetry:", string(e))
			}
		}))
	}()
	_, port, _ := net.SplitHostPort(lis.Addr().String())
	destination := `"destination":{"protocol":"HTTP","URI":"http://sandbox.localdomain:` + port + `/x"}`
	put("/2022-07-01/telemetry", `{"types":["everything"],`+destination+`}`)
	put("/2022-07-01/telemetry", `{"types":["platform"],"buffering":{"timeoutMs":1},`+destination+`}`)
	put("/2022-07-01/telemetry", `{"types":["platform"],"destination":{"protocol":"HTTP","URI":"http://example.com:1"}}`)
	put("/2022-07-01/telemetry", `{"schemaVersion":"2022-12-13","types":["platform","function"],"buffering":{"timeoutMs":25},`+destination+`}`)
}

// withExtensions makes a folder of extensions: name, and mode with an argument.
func withExtensions(t *testing.T, nameAndMode ...string) boxOption {
	t.Helper()
	dir := t.TempDir()
	for i := 0; i < len(nameAndMode); i += 2 {
		mode, arg, _ := strings.Cut(nameAndMode[i+1], " ")
		script := fmt.Sprintf("#!/bin/sh\nexec %s @extension %s %s '%s'\n", os.Args[0], nameAndMode[i], mode, arg)
		require.NoError(t, os.WriteFile(filepath.Join(dir, nameAndMode[i]), []byte(script), 0o700))
	}
	return withEnv("ESB_INIT_EXTENSIONS="+dir, "_HANDLER=app.handler", "LAMBDA_TASK_ROOT=/var/task")
}

// waitExtension waits for a line of the named extension.
func (b *box) waitExtension(name, part string) line {
	b.t.Helper()
	l := b.waitLine("extension", part)
	assert.Equal(b.t, name, l.Extension)
	return l
}

func (l line) event(t *testing.T) map[string]any {
	t.Helper()
	_, text, ok := strings.Cut(l.Message, "event: 200 ")
	require.True(t, ok, l.Message)
	var v map[string]any
	d := json.NewDecoder(bytes.NewReader([]byte(text)))
	d.UseNumber()
	require.NoError(t, d.Decode(&v))
	return v
}

func TestExtension_SeesInvokeAndShutdown(t *testing.T) {
	b := mustOpenBox(t, withExtensions(t, "probe", "env"))
	trace := "Root=1-5759e988-bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8;Sampled=1"
	r := b.invoke("req-1", order{Do: "echo"}, "X-Amzn-Trace-Id: "+trace, deadlineIn(9*time.Second))
	got := r.reply(t)
	registered := b.waitExtension("probe", "registered:")
	assert.Equal(t, `registered: 200 {"functionName":"test","functionVersion":"$LATEST","handler":"app.handler","accountId":"123456789012"}`, registered.Message)
	env := b.waitExtension("probe", "environment:").Message
	assert.NotContains(t, env, "LAMBDA_TASK_ROOT")
	assert.NotContains(t, env, "_HANDLER")
	assert.NotContains(t, env, "ESB_INIT_")
	assert.Contains(t, env, "AWS_LAMBDA_FUNCTION_NAME=test")

	event := b.waitExtension("probe", `"INVOKE"`)
	assert.Equal(t, "req-1", event.RequestID)
	assert.Equal(t, map[string]any{
		"eventType": "INVOKE", "requestId": "req-1", "invokedFunctionArn": "arn:aws:lambda:eu-central-1:123456789012:function:test",
		"deadlineMs": json.Number(got.Headers.Get("Lambda-Runtime-Deadline-Ms")),
		"tracing":    map[string]any{"type": "X-Amzn-Trace-Id", "value": trace},
	}, event.event(t))
	lines := b.waitReport("req-1")
	assert.Equal(t, "EXTENSION\tName: probe\tState: Ready\tEvents: [INVOKE,SHUTDOWN]", b.waitLine("platform.extension", "").Message)
	assert.Positive(t, lines[len(lines)-1].InitMS)
	assert.Equal(t, 2, b.invoke("req-2", order{Do: "echo"}).reply(t).Count)

	began := time.Now()
	require.NoError(t, b.cmd.Process.Signal(syscall.SIGTERM))
	<-b.ended
	ended := time.Now()
	assert.Equal(t, 0, b.cmd.ProcessState.ExitCode())
	down := b.waitExtension("probe", `"SHUTDOWN"`).event(t)
	assert.Equal(t, "spindown", down["shutdownReason"])
	deadline, err := down["deadlineMs"].(json.Number).Int64()
	require.NoError(t, err)
	assert.GreaterOrEqual(t, deadline, began.Add(2*time.Second).UnixMilli())
	assert.LessOrEqual(t, deadline, ended.Add(2*time.Second).UnixMilli())
}

func TestExtension_Internal_RegistersFromTheFunctionsProcess(t *testing.T) {
	b := mustOpenBox(t, withStart("internal"))
	b.invoke("req-1", order{Do: "echo"}).reply(t)
	b.waitLine("function", `internal: 200 {"functionName":"test"`)
	b.waitLine("function", `internal shutdown: 403 {"errorMessage":"SHUTDOWN: ShutdownEventNotSupportedForInternalExtension","errorType":"Extension.InvalidEventType"}`)
	b.waitLine("function", `internal event: {"eventType":"INVOKE","deadlineMs":`)
	assert.Equal(t, "EXTENSION\tName: inside\tState: Ready\tEvents: [INVOKE]", b.waitLine("platform.extension", "").Message)
	b.invoke("req-2", order{Do: "register"}).reply(t)
	b.waitLine("function", `late: 403 {"errorMessage":"Extension registration closed already","errorType":"Extension.RegistrationClosed"}`)
	require.NoError(t, b.cmd.Process.Signal(syscall.SIGTERM))
	b.waitLine("function", "got SIGTERM")
	<-b.ended
}

func TestExtension_WorksOn_TheInvocationEndsWithIt(t *testing.T) {
	done := filepath.Join(t.TempDir(), "done")
	b := mustOpenBox(t, withExtensions(t, "slow", "slow "+done))
	first := b.invoke("req-1", order{Do: "echo"}) // the answer does not wait
	first.reply(t)
	assert.Equal(t, "working", first.Header.Get("X-Esb-Extensions"))
	b.client.CloseIdleConnections() // on its connection the next request waits for the extension
	require.Equal(t, `{"state":"busy"}`, b.health())
	second := b.invokeAsync("req-2", order{Do: "echo"}, deadlineIn(10*time.Second))
	b.wait("nothing", func(lines []line, _ []string) bool {
		for _, l := range lines {
			assert.NotEqual(t, "platform.report", l.Type)
		}
		return true
	})
	require.NoError(t, os.WriteFile(done, nil, 0o600))
	answer := <-second
	assert.Equal(t, 2, answer.reply(t).Count, "the next one begins when the extension has done")
	b.waitReport("req-1")
	b.waitReport("req-2")
}

func TestExtension_WorksTooLong_ResetsTheSandbox(t *testing.T) {
	b := mustOpenBox(t, withExtensions(t, "slow", "slow /no/such/file"), withEnv("AWS_LAMBDA_FUNCTION_TIMEOUT=1"))
	pid := b.invoke("req-1", order{Do: "echo"}).reply(t).PID
	assert.Contains(t, b.waitLine("platform.fault", "Task timed out").Message, "Task timed out after 1.00 seconds")
	lines := b.waitReport("req-1")
	report := lines[len(lines)-1]
	assert.Contains(t, report.Message, "Status: timeout")
	assert.InDelta(t, 1000, report.DurationMS, 0, "the extension's work counts")
	waitGone(t, pid)
}

// TestExtension_IsBeingReset_TheNextRequestWaits: the function has answered, and its sandbox is reset behind the answer, for as
// long as the extension takes leave. Whoever comes meanwhile is served by the next life, and loses none of its time.
func TestExtension_IsBeingReset_TheNextRequestWaits(t *testing.T) {
	b := mustOpenBox(t, withExtensions(t, "slow", "slow /no/such/file"), withEnv("AWS_LAMBDA_FUNCTION_TIMEOUT=3"))
	pid := b.invoke("req-1", order{Do: "echo"}, deadlineIn(3*time.Second)).reply(t).PID
	b.client.CloseIdleConnections()
	second := b.invoke("req-2", order{Do: "echo"}, deadlineIn(3*time.Second))
	got := second.reply(t)
	assert.NotEqual(t, pid, got.PID)
	assert.Equal(t, 1, got.Count)
	assert.NotEmpty(t, second.Header.Get("X-Esb-Init-Duration-Ms"))
	b.waitReport("req-1")
}

func TestExtension_FunctionTimesOut_ShutdownSaysSo(t *testing.T) {
	b := mustOpenBox(t, withExtensions(t, "probe", "run"), withEnv("AWS_LAMBDA_FUNCTION_TIMEOUT=1"))
	r := b.invoke("req-1", order{Do: "hang"}, deadlineIn(soon))
	assert.Contains(t, r.Body, "Sandbox.Timedout")
	assert.Equal(t, "timeout", b.waitExtension("probe", `"SHUTDOWN"`).event(t)["shutdownReason"])
	b.invoke("req-2", order{Do: "echo"}, deadlineIn(10*time.Second)).reply(t)
	starts := 0
	b.wait("the extension's second life", func(lines []line, _ []string) bool {
		starts = 0
		for _, l := range lines {
			if strings.HasPrefix(l.Message, "registered: 200") {
				starts++
			}
		}
		return starts == 2
	})
}

func TestExtension_FunctionCrashes_ShutdownSaysFailure(t *testing.T) {
	b := mustOpenBox(t, withExtensions(t, "probe", "shutdown-only"))
	assert.Contains(t, b.invoke("req-1", order{Do: "exit", N: 1}).Body, "Runtime.ExitError")
	assert.Equal(t, "failure", b.waitExtension("probe", `"SHUTDOWN"`).event(t)["shutdownReason"])
}

func TestExtension_Fails_TheInvocationSaysHow(t *testing.T) {
	for _, c := range []struct{ mode, errorType, message, fault string }{
		{"crash-init", "Extension.Crash", "exit status 3", "EXTENSION\tName: bad\tState: Started\tEvents: []"},
		{"init-error", "Extension.InitError", "exit status 1", "EXTENSION\tName: bad\tState: InitError\tEvents: [INVOKE,SHUTDOWN]\tError Type: Extension.NoConfig"},
		{"crash", "Extension.Crash", "exit status 4", "EXTENSION\tName: bad\tState: Ready"},
		{"exit-error", "Extension.ExitError", "exit status 1", "EXTENSION\tName: bad\tState: Ready"},
	} {
		t.Run(c.mode, func(t *testing.T) {
			b := mustOpenBox(t, withExtensions(t, "bad", c.mode))
			r := b.invoke("req-1", order{Do: "hang"})
			assert.JSONEq(t, `{"errorType":"`+c.errorType+`","errorMessage":"RequestId: req-1 Error: `+c.message+`"}`, r.Body)
			assert.Equal(t, "Unhandled", r.Header.Get("X-Amz-Function-Error"))
			b.waitLine("platform.extension", c.fault)
			assert.Contains(t, b.waitReport("req-1")[len(b.waitReport("req-1"))-1].Message, "Error Type: "+c.errorType)
		})
	}
}

func TestExtension_CannotBeStarted_IsALaunchError(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "text"), []byte("no program"), 0o600))
	b := mustOpenBox(t, withEnv("ESB_INIT_EXTENSIONS="+dir))
	r := b.invoke("req-1", order{Do: "echo"})
	assert.Contains(t, r.Body, `"errorType":"Extension.LaunchError"`)
	assert.Contains(t, r.Body, "permission denied")
	b.waitLine("platform.extension", "State: LaunchError\tEvents: []\tError Type: PermissionDenied")
}

func TestExtension_TooMany_AreRefused(t *testing.T) {
	var all []string
	for n := range 11 {
		all = append(all, fmt.Sprintf("e%02d", n), "nothing")
	}
	b := mustOpenBox(t, withExtensions(t, all...))
	assert.Contains(t, b.invoke("req-1", order{Do: "echo"}).Body, "Extension.LaunchError")
	b.waitLine("platform.extension", "Name: e10\tState: LaunchError\tEvents: []\tError Type: TooManyExtensions")
}

func TestExtension_NeverRegisters_InitTimesOut(t *testing.T) {
	b := mustOpenBox(t, withExtensions(t, "lazy", "hang"), withEnv("ESB_INIT_LIMIT_MS=300"))
	r := b.invoke("req-1", order{Do: "echo"}, deadlineIn(soon))
	assert.Contains(t, r.Body, "Sandbox.Timedout")
	b.waitLine("platform.fault", "Phase: init\tStatus: timeout")
}

func TestExtension_IgnoresShutdown_IsKilledInTime(t *testing.T) {
	b := mustOpenBox(t, withExtensions(t, "stubborn", "stubborn"))
	b.invoke("req-1", order{Do: "echo"}).reply(t)
	began := time.Now()
	require.NoError(t, b.cmd.Process.Signal(syscall.SIGTERM))
	<-b.ended
	assert.GreaterOrEqual(t, time.Since(began), 1900*time.Millisecond, "it has its 2 s")
	assert.Equal(t, 0, b.cmd.ProcessState.ExitCode())
}

func TestExtensionAPI_Misuse_IsRefusedAsAWSDoes(t *testing.T) {
	b := mustOpenBox(t, withExtensions(t, "probe", "misuse"))
	b.invoke("req-1", order{Do: "echo"}).reply(t)
	for what, errorType := range map[string]string{
		"no name:": "Extension.InvalidExtensionName", "no event:": "Extension.InvalidEventType", "internal:": "Extension.InvalidEventType",
		"no id:": "Extension.MissingExtensionIdentifier", "bad id:": "Extension.InvalidExtensionIdentifier",
		"other id:": "Extension.UnknownExtensionIdentifier", "again:": "Extension.InvalidExtensionState", "no type:": "Extension.MissingHeader",
	} {
		assert.Contains(t, b.waitExtension("probe", what).Message, `"errorType":"`+errorType+`"`, what)
	}
}

func TestTelemetry_SubscriberGetsWhatHappens(t *testing.T) {
	b := mustOpenBox(t, withExtensions(t, "probe", "telemetry"), withStart("slow-init"))
	trace := "Root=1-5759e988-bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8;Sampled=1"
	b.invoke("req-1", order{Do: "log", Text: "hello \"telemetry\"\n"}, "X-Amzn-Trace-Id: "+trace).reply(t)
	b.waitReport("req-1")
	for _, want := range []string{
		`subscribe: 400 {"errorMessage":"types: must be platform, function or extension, got \"everything\"","errorType":"ValidationError"}`,
		`subscribe: 400 {"errorMessage":"buffering.timeoutMs: must be 25 to 30000, got 1"`,
		`subscribe: 400 {"errorMessage":"destination.URI: must be http://sandbox.localdomain:<port>`,
		`subscribe: 200 OK`,
		`"type":"platform.initStart","record":{"initializationType":"on-demand","phase":"init","functionName":"test","functionVersion":"$LATEST"}}`,
		`"type":"platform.telemetrySubscription","record":{"name":"probe","state":"Subscribed","types":["platform","function"]}}`,
		`"type":"function","record":"slow init done"}`,
		`"type":"platform.initReport","record":{"initializationType":"on-demand","phase":"init","status":"success","metrics":{"durationMs":`,
		`"type":"platform.extension","record":{"name":"probe","state":"Ready","events":["SHUTDOWN"]}}`,
		`"type":"platform.start","record":{"requestId":"req-1","version":"$LATEST","tracing":{"type":"X-Amzn-Trace-Id","value":"` + trace + `"}}}`,
		`"type":"function","record":"hello \"telemetry\""}`,
		`"type":"platform.runtimeDone","record":{"requestId":"req-1","status":"success","metrics":{"durationMs":`,
		`"type":"platform.report","record":{"requestId":"req-1","status":"success","metrics":{"durationMs":`,
	} {
		b.waitLine("extension", want)
	}
	require.NoError(t, b.cmd.Process.Signal(syscall.SIGTERM))
	<-b.ended
}
