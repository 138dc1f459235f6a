package lambdainit_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/edge-serverless-box/esb/agent/lambdainit"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestInvoke_Event_ReachesTheFunctionWithItsHeaders(t *testing.T) {
	b := mustOpenBox(t)
	require.Equal(t, `{"state":"standby"}`, b.health())

	trace := "Root=1-5759e988-bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8;Sampled=1"
	before := time.Now()
	r := b.invoke("req-1", order{Do: "echo"}, deadlineIn(10*time.Second), "X-Amzn-Trace-Id: "+trace,
		"X-Amz-Client-Context: "+base64.StdEncoding.EncodeToString([]byte(`{"client":{}}`)))
	got := r.reply(t)
	assert.Equal(t, "application/vnd.test+json", r.Header.Get("Content-Type"))
	assert.Equal(t, "req-1", r.Header.Get("X-Amzn-RequestId"))
	assert.Equal(t, trace, r.Header.Get("X-Amzn-Trace-Id"))
	assert.NotEmpty(t, r.Header.Get("X-Esb-Init-Duration-Ms"), "the first request starts the process")
	assert.Empty(t, r.Header.Get("X-Amz-Log-Result"))

	h := got.Headers
	assert.Equal(t, "req-1", h.Get("Lambda-Runtime-Aws-Request-Id"))
	assert.Equal(t, trace, h.Get("Lambda-Runtime-Trace-Id"))
	assert.Equal(t, `{"client":{}}`, h.Get("Lambda-Runtime-Client-Context"))
	assert.Equal(t, "arn:aws:lambda:eu-central-1:123456789012:function:test", h.Get("Lambda-Runtime-Invoked-Function-Arn"))
	qualified := b.invoke("req-q", order{Do: "echo"}, "X-Esb-Qualifier: $LATEST").reply(t)
	assert.Equal(t, "arn:aws:lambda:eu-central-1:123456789012:function:test:$LATEST", qualified.Headers.Get("Lambda-Runtime-Invoked-Function-Arn"))
	deadline, err := strconv.ParseInt(h.Get("Lambda-Runtime-Deadline-Ms"), 10, 64)
	require.NoError(t, err)
	assert.GreaterOrEqual(t, deadline, before.Add(9*time.Second).UnixMilli(), "the init must not be counted")
	score, err := os.ReadFile(fmt.Sprintf("/proc/%d/oom_score_adj", got.PID))
	require.NoError(t, err)
	assert.Equal(t, "1000\n", string(score), "the kernel must choose the function, not lambda-init")
	for _, kv := range got.Env {
		assert.False(t, strings.HasPrefix(kv, "ESB_INIT_"), kv)
	}
	assert.Contains(t, got.Env, "AWS_REGION=eu-central-1")

	again := b.invoke("req-2", order{Do: "echo"})
	assert.Equal(t, got.PID, again.reply(t).PID, "the process is used again")
	assert.Equal(t, 3, again.reply(t).Count)
	assert.Empty(t, again.Header.Get("X-Esb-Init-Duration-Ms"))
	assert.Equal(t, `{"state":"idle"}`, b.health())
}

func TestInvoke_NoRequestID_MakesOne(t *testing.T) {
	b := mustOpenBox(t)
	r := b.send(http.MethodPost, invocations, strings.NewReader(`{}`))
	assert.Regexp(t, `^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`, r.Header.Get("X-Amzn-RequestId"))
	assert.Equal(t, r.Header.Get("X-Amzn-RequestId"), r.reply(t).Headers.Get("Lambda-Runtime-Aws-Request-Id"))
}

func TestWorker_BadRequest_IsRefusedWithoutTheFunction(t *testing.T) {
	b := mustOpenBox(t)
	for _, c := range []struct {
		name, method, path string
		body               int
		header             string
		status             int
	}{
		{"path", http.MethodPost, "/2015-03-31/functions/other/invocations", 2, "", 404},
		{"method", http.MethodGet, invocations, 0, "", 405},
		{"health method", http.MethodPost, "/health", 0, "", 405},
		{"too large", http.MethodPost, invocations, lambdainit.MaxRequestBytes + 1, "", 413},
		{"request id", http.MethodPost, invocations, 2, "X-Amzn-RequestId: a/b", 400},
		{"deadline", http.MethodPost, invocations, 2, "Lambda-Runtime-Deadline-Ms: soon", 400},
		{"qualifier", http.MethodPost, invocations, 2, "X-Esb-Qualifier: a:b", 400},
		{"client context", http.MethodPost, invocations, 2, "X-Amz-Client-Context: ###", 400},
	} {
		t.Run(c.name, func(t *testing.T) {
			headers := []string{"X-Test: 1"}
			if c.header != "" {
				headers = append(headers, c.header)
			}
			r := b.send(c.method, c.path, bytes.NewReader(make([]byte, c.body)), headers...)
			require.NoError(t, r.Err)
			assert.Equal(t, c.status, r.Status)
			assert.Contains(t, r.Body, `"errorType":`)
		})
	}
	assert.Equal(t, `{"state":"standby"}`, b.health())
}

func TestWorker_RequestForAnotherContainer_IsRefusedUnread(t *testing.T) {
	b := mustOpenBox(t)
	for _, path := range []string{invocations, "/health", "/"} {
		for _, name := range []string{"lambda-test-2", "lambda-test", "lambda-test-1, lambda-test-1", ""} {
			// No end of it ever comes.
			body, hold := io.Pipe()
			r := b.send(http.MethodPost, path, body, "X-Esb-Container-Id: "+name)
			_ = hold.Close()
			require.NoError(t, r.Err)
			assert.Equal(t, http.StatusMisdirectedRequest, r.Status, "%s for %q", path, name)
			assert.NotContains(t, r.Body, "lambda-test-1")
		}
	}
	assert.Equal(t, `{"state":"standby"}`, b.health())
}

func TestInvoke_LargestRequest_Passes(t *testing.T) {
	b := mustOpenBox(t)
	body := bytes.Repeat([]byte(" "), lambdainit.MaxRequestBytes)
	copy(body, `{"do":"echo"}`)
	for _, chunked := range []bool{false, true} {
		r := b.send(http.MethodPost, invocations, reader(body, chunked))
		assert.Equal(t, strconv.Itoa(lambdainit.MaxRequestBytes), r.reply(t).Headers.Get("Content-Length"))
	}
	r := b.send(http.MethodPost, invocations, reader(append(body, ' '), true))
	assert.Equal(t, http.StatusRequestEntityTooLarge, r.Status)
}

// reader hides the length of body from net/http when chunked is true.
func reader(body []byte, chunked bool) interface{ Read([]byte) (int, error) } {
	if chunked {
		return struct{ *bytes.Buffer }{bytes.NewBuffer(bytes.Clone(body))}
	}
	return bytes.NewReader(body)
}

func TestInvoke_SecondAtOnce_Gets409(t *testing.T) {
	b := mustOpenBox(t)
	first := b.invokeAsync("first", order{Do: "hang"}, deadlineIn(2*soon))
	b.waitLine("function", "hanging")
	assert.Equal(t, `{"state":"busy"}`, b.health())
	second := b.invoke("second", order{Do: "echo"})
	assert.Equal(t, http.StatusConflict, second.Status)
	assert.Contains(t, (<-first).Body, "Sandbox.Timedout", "the first one is not disturbed")
	assert.Equal(t, 1, b.invoke("third", order{Do: "echo"}).reply(t).Count)
}

// TestNext_ClientThatGaveUp_GetsNoEvent: the event goes to the call that still waits.
func TestNext_ClientThatGaveUp_GetsNoEvent(t *testing.T) {
	b := mustOpenBox(t, withStart("impatient"), withEnv("ESB_INIT_STANDBY=0"))
	b.wait("three calls that were given up", func(lines []line, _ []string) bool {
		return len(slices.DeleteFunc(slices.Clone(lines), func(l line) bool { return l.Message != "gave up: true" })) == 3
	})
	for n := range 3 {
		assert.Equal(t, n+1, b.invoke("req-1", order{Do: "echo"}).reply(t).Count)
	}
}

func TestInvoke_HandlerError_IsUnhandled(t *testing.T) {
	b := mustOpenBox(t)
	r := b.invoke("req-1", order{Do: "error"})
	assert.Equal(t, http.StatusOK, r.Status)
	assert.Equal(t, "Unhandled", r.Header.Get("X-Amz-Function-Error"))
	assert.JSONEq(t, `{"errorMessage":"boom","errorType":"Error"}`, r.Body)
	assert.Empty(t, r.Header.Get("X-Esb-Sandbox-Reset"))
	assert.Equal(t, 2, b.invoke("req-2", order{Do: "echo"}).reply(t).Count, "the process lives on")
}

func TestInvoke_PastDeadline_KillsAndStartsAfresh(t *testing.T) {
	b := mustOpenBox(t, withEnv("AWS_LAMBDA_FUNCTION_TIMEOUT=1"))
	r := b.invoke("req-1", order{Do: "hang"}) // without a deadline: it has the function's timeout
	assert.Equal(t, http.StatusOK, r.Status)
	assert.Equal(t, "Unhandled", r.Header.Get("X-Amz-Function-Error"))
	assert.Equal(t, "timeout", r.Header.Get("X-Esb-Sandbox-Reset"))
	assert.JSONEq(t, `{"errorType":"Sandbox.Timedout","errorMessage":"RequestId: req-1 Error: Task timed out after 1.00 seconds"}`, r.Body)

	lines := b.waitReport("req-1")
	assert.Equal(t, []string{"START", "hanging", "RequestId:", "END", "REPORT"}, firstWords(lines, "req-1"))
	report := lines[len(lines)-1]
	assert.Contains(t, report.Message, "\tDuration: 1000.00 ms\tBilled Duration: 1000 ms\t", "as AWS has it: no more than the timeout")
	assert.Contains(t, report.Message, "\tStatus: timeout")
	assert.Empty(t, r.Header.Get("X-Esb-Sandbox-Spoilt"))

	after := b.invoke("req-2", order{Do: "echo"})
	assert.Equal(t, 1, after.reply(t).Count, "a fresh process")
	assert.NotEmpty(t, after.Header.Get("X-Esb-Init-Duration-Ms"))
}

func TestInvoke_DeadlineAlreadyPassed_LeavesTheFunctionAlone(t *testing.T) {
	b := mustOpenBox(t)
	first := b.invoke("req-1", order{Do: "echo"}).reply(t)
	r := b.invoke("req-2", order{Do: "echo"}, deadlineIn(-time.Second))
	assert.Contains(t, r.Body, "Sandbox.Timedout")
	assert.Empty(t, r.Header.Get("X-Esb-Sandbox-Reset"))
	assert.Equal(t, first.PID, b.invoke("req-3", order{Do: "echo"}).reply(t).PID)
}

func firstWords(lines []line, id string) []string {
	var words []string
	for _, l := range lines {
		if l.RequestID == id {
			word, _, _ := strings.Cut(l.Message, " ")
			words = append(words, word)
		}
	}
	return words
}

func TestInvoke_ProcessEnds_IsReportedAndReplaced(t *testing.T) {
	for _, c := range []struct {
		name    string
		order   order
		message string
	}{
		{"exit status", order{Do: "exit", N: 42}, "Runtime exited with error: exit status 42"},
		{"exit 0", order{Do: "exit"}, "Runtime exited without providing a reason"},
		{"SIGKILL", order{Do: "kill", N: int(syscall.SIGKILL)}, "Runtime exited with error: signal: killed"},
		{"SIGTERM", order{Do: "kill", N: int(syscall.SIGTERM)}, "Runtime exited with error: signal: terminated"},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := mustOpenBox(t)
			r := b.invoke("req-1", c.order)
			assert.Equal(t, http.StatusOK, r.Status)
			assert.Equal(t, "exit", r.Header.Get("X-Esb-Sandbox-Reset"))
			assert.Equal(t, "Unhandled", r.Header.Get("X-Amz-Function-Error"))
			assert.Contains(t, r.Body, `{"errorType":"Runtime.ExitError","errorMessage":"RequestId: req-1 Error: `+c.message)
			fault := b.waitLine("platform.fault", c.message)
			assert.Equal(t, "req-1", fault.RequestID)
			if c.order.Do == "exit" {
				assert.Equal(t, []string{"START", "last", "RequestId:", "END", "REPORT"}, firstWords(b.waitReport("req-1"), "req-1"))
			}
			assert.Equal(t, 1, b.invoke("req-2", order{Do: "echo"}).reply(t).Count)
		})
	}
}

func TestInvoke_OOMKill_SaysSo(t *testing.T) {
	b := mustOpenBox(t)
	b.invoke("req-0", order{Do: "echo"}).reply(t)
	b.waitReport("req-0")
	b.setCgroup(127<<20, 1)
	r := b.invoke("req-1", order{Do: "kill", N: int(syscall.SIGKILL)})
	assert.Equal(t, "oom", r.Header.Get("X-Esb-Sandbox-Reset"))
	assert.Contains(t, r.Body, `"Runtime.ExitError"`)
	assert.Contains(t, r.Body, `signal: killed`)
	fault := b.waitLine("platform.fault", "OOM")
	assert.Contains(t, fault.Message, "limit of 128 MB (peak 127 MB)")
	assert.Equal(t, "req-1", fault.RequestID)

	// The counter stays where it is: a later crash is not an out-of-memory kill.
	assert.Equal(t, "exit", b.invoke("req-2", order{Do: "exit", N: 1}).Header.Get("X-Esb-Sandbox-Reset"))
}

func TestInvoke_ProcessEndsWhileIdle_IsReplaced(t *testing.T) {
	b := mustOpenBox(t)
	r := b.invoke("req-1", order{Do: "quit-after"})
	assert.Equal(t, `"bye"`, r.Body)
	b.waitLine("platform.fault", "ended between invocations: Runtime exited with error: exit status 3")
	require.Equal(t, `{"state":"standby"}`, b.health())
	assert.Equal(t, 1, b.invoke("req-2", order{Do: "echo"}).reply(t).Count)

	// Also when the next request comes before the exit was noticed.
	for i := range 10 {
		assert.Equal(t, `"bye"`, b.invoke(fmt.Sprint("quit-", i), order{Do: "quit-after"}).Body)
	}
}

func TestReset_Descendants_DoNotSurvive(t *testing.T) {
	b := mustOpenBox(t, withEnv("AWS_LAMBDA_FUNCTION_TIMEOUT=1"))
	first := b.invoke("req-1", order{Do: "family"}).reply(t)
	require.Len(t, first.Notes, 1)
	var pids []int
	for _, f := range strings.Fields(first.Notes[0]) {
		pid, err := strconv.Atoi(f)
		require.NoError(t, err)
		require.NoError(t, syscall.Kill(pid, 0), "process %d should live on after the answer", pid)
		pids = append(pids, pid)
	}
	require.Len(t, pids, 3)
	b.invoke("req-2", order{Do: "hang"}, deadlineIn(soon))
	waitGone(t, append(pids, first.PID)...)
}

func TestReset_Often_LeaksNothing(t *testing.T) {
	b := mustOpenBox(t)
	descriptors := func() int {
		entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", b.cmd.Process.Pid))
		require.NoError(t, err)
		return len(entries)
	}
	crash := func() { b.invoke("crash", order{Do: "exit", N: 1}) }
	crash()
	before := descriptors()
	for range 20 {
		crash()
	}
	require.Eventually(t, func() bool { return descriptors() <= before && zombies(t, b.cmd.Process.Pid) == 0 },
		patience, 5*time.Millisecond)
}

func TestProcesses_Orphans_AreReaped(t *testing.T) {
	b := mustOpenBox(t)
	b.invoke("req-1", order{Do: "orphans", N: 20}).reply(t)
	require.Eventually(t, func() bool { return zombies(t, b.cmd.Process.Pid) == 0 }, patience, 5*time.Millisecond)
}

// zombies counts the children of parent that nobody has waited for.
func zombies(t *testing.T, parent int) int {
	t.Helper()
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	require.NoError(t, err)
	n := 0
	for _, path := range stats {
		text, err := os.ReadFile(path)
		if err != nil {
			continue
		}
		fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
		if fields[0] == "Z" && fields[1] == strconv.Itoa(parent) {
			n++
		}
	}
	return n
}

func TestProcess1_PIDNamespace_ResetAndStop(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root for a pid namespace")
	}
	b := mustOpenBox(t, withPIDSpace())
	b.invoke("req-1", order{Do: "family"}).reply(t)
	r := b.invoke("req-2", order{Do: "hang"}, deadlineIn(soon))
	assert.Contains(t, r.Body, "Sandbox.Timedout")
	assert.Equal(t, 1, b.invoke("req-3", order{Do: "echo"}).reply(t).Count)
	require.NoError(t, b.cmd.Process.Signal(syscall.SIGTERM))
	<-b.ended
	assert.Equal(t, 0, b.cmd.ProcessState.ExitCode())
}

func TestInit_Failure_GoesToTheWaitingRequest(t *testing.T) {
	text := filepath.Join(t.TempDir(), "text")
	require.NoError(t, os.WriteFile(text, []byte("not a program"), 0o600))
	for _, c := range []struct {
		name  string
		start boxOption
		body  string
	}{
		{"init/error", withStart("init-error"), `{"errorMessage":"no module","errorType":"Runtime.ImportModuleError"}`},
		{"exit", withStart("init-exit"), `{"errorType":"Runtime.ExitError","errorMessage":"RequestId: req-1 Error: Runtime exited with error: exit status 7"}`},
		{"no such program", withCommand("/no/such/program"), `{"errorType":"Runtime.InvalidEntrypoint","errorMessage":"RequestId: req-1 Error: fork/exec /no/such/program: no such file or directory"}`},
		{"not executable", withCommand(text), `{"errorType":"Runtime.InvalidEntrypoint","errorMessage":"RequestId: req-1 Error: fork/exec ` + text + `: permission denied: its mode lacks the executable bit: chmod 755 before it is packed"}`},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := mustOpenBox(t, c.start)
			for _, id := range []string{"req-1", "req-2"} { // each request tries afresh
				r := b.invoke(id, order{Do: "echo"})
				assert.Equal(t, http.StatusOK, r.Status)
				assert.Equal(t, "Unhandled", r.Header.Get("X-Amz-Function-Error"))
				assert.Equal(t, "init", r.Header.Get("X-Esb-Sandbox-Reset"))
				assert.NotEmpty(t, r.Header.Get("X-Esb-Init-Duration-Ms"))
				assert.JSONEq(t, strings.ReplaceAll(c.body, "req-1", id), r.Body)
			}
			b.wait("INIT_END=error", func(_ []line, news []string) bool {
				return strings.Join(news, " ") == "READY=1 INIT_START=1 INIT_END=error INIT_START=1 INIT_END=error"
			})
			b.waitReport("req-2")
		})
	}
}

func TestInit_Eager_IsDoneBeforeTheFirstRequest(t *testing.T) {
	b := mustOpenBox(t, withEnv("ESB_INIT_STANDBY=0"))
	b.wait("INIT_END=ok", func(_ []line, news []string) bool {
		return strings.Join(news, " ") == "READY=1 INIT_START=1 INIT_END=ok"
	})
	require.Equal(t, `{"state":"idle"}`, b.health())
	r := b.invoke("req-1", order{Do: "echo"})
	r.reply(t)
	assert.Empty(t, r.Header.Get("X-Esb-Init-Duration-Ms"), "it did not wait for the init")
	lines := b.waitReport("req-1")
	assert.Positive(t, lines[len(lines)-1].InitMS, "the first REPORT has the init's length")
	b.invoke("req-2", order{Do: "echo"}).reply(t)
	lines = b.waitReport("req-2")
	assert.Zero(t, lines[len(lines)-1].InitMS)
}

func TestInit_EagerFailure_IsTriedAgainByTheFirstRequest(t *testing.T) {
	b := mustOpenBox(t, withEnv("ESB_INIT_STANDBY=0"), withStart("init-exit"))
	b.waitLine("platform.fault", "INIT_REPORT Init Duration:")
	require.Equal(t, `{"state":"standby"}`, b.health())
	r := b.invoke("req-1", order{Do: "echo"})
	assert.Contains(t, r.Body, "RequestId: req-1 Error: Runtime exited with error: exit status 7")
	b.waitLine("platform.fault", "Phase: init\tStatus: error\tError Type: Runtime.ExitError")
	b.waitLine("platform.fault", "Phase: invoke\tStatus: error\tError Type: Runtime.ExitError")
	inits := 0
	b.wait("two inits", func(_ []line, news []string) bool {
		inits = strings.Count(strings.Join(news, " "), "INIT_START=1")
		return inits >= 2
	})
	assert.Equal(t, 2, inits)
}

func TestInit_OverItsLimit_IsRepeatedUnderTheFunctionsTimeout(t *testing.T) {
	marker := filepath.Join(t.TempDir(), "tried")
	b := mustOpenBox(t, withStart("hang-once", marker), withEnv("ESB_INIT_LIMIT_MS=300"))
	r := b.invoke("req-1", order{Do: "echo"}, deadlineIn(20*time.Second))
	assert.Equal(t, 1, r.reply(t).Count)
	b.waitLine("platform.fault", "Phase: init\tStatus: timeout")
}

// TestInit_EagerOverItsLimit_IsToldFromAFailure: the gateway gives up a new version for one, and not for the other.
func TestInit_EagerOverItsLimit_IsToldFromAFailure(t *testing.T) {
	b := mustOpenBox(t, withStart("init-hang"), withEnv("ESB_INIT_LIMIT_MS=200", "ESB_INIT_STANDBY=0"))
	require.Eventually(t, func() bool { return b.health() == `{"state":"standby","init":"timeout"}` }, patience, 5*time.Millisecond)
}

func TestInit_NeverEnds_TimesOut(t *testing.T) {
	b := mustOpenBox(t, withStart("init-hang"), withEnv("ESB_INIT_LIMIT_MS=200"))
	r := b.invoke("req-1", order{Do: "echo"}, deadlineIn(soon))
	assert.Contains(t, r.Body, "Sandbox.Timedout")
	assert.Equal(t, "timeout", r.Header.Get("X-Esb-Sandbox-Reset"))
	b.waitLine("platform.fault", "Phase: invoke\tStatus: timeout")
}

func TestRuntimeAPI_Misuse_IsRefusedAsAWSDoes(t *testing.T) {
	b := mustOpenBox(t, withStart("early-answer"))
	notes := b.invoke("req-1", order{Do: "misuse"}).reply(t).Notes
	require.Len(t, notes, 5)
	assert.Contains(t, notes[0], `400 {"errorMessage":"Invalid request ID","errorType":"InvalidRequestID"}`)
	assert.Regexp(t, `^403 .*State transition from Running to Ready failed for runtime.*"errorType":"InvalidStateTransition"`, notes[1])
	assert.Regexp(t, `^403 .*"InvalidStateTransition"`, notes[2])
	assert.Regexp(t, `^405 `, notes[3])
	assert.Regexp(t, `^404 `, notes[4])
	assert.Contains(t, b.waitLine("function", "early answer").Message, "400")

	r := b.invoke("req-2", order{Do: "twice"})
	assert.Equal(t, `"first"`, r.Body)
	assert.Contains(t, b.waitLine("function", "twice:").Message, `403 {"errorMessage":"State transition from`)
}

func TestRuntimeAPI_ResponseSize(t *testing.T) {
	b := mustOpenBox(t)
	r := b.invoke("req-1", order{Do: "big", N: lambdainit.MaxResponseBytes})
	assert.Len(t, r.Body, lambdainit.MaxResponseBytes)
	assert.Contains(t, b.waitLine("function", "posted:").Message, `202 {"status":"OK"}`)

	r = b.invoke("req-2", order{Do: "big", N: lambdainit.MaxResponseBytes + 1})
	assert.Equal(t, "Unhandled", r.Header.Get("X-Amz-Function-Error"))
	assert.JSONEq(t, `{"errorType":"Function.ResponseSizeTooLarge","errorMessage":"Response payload size exceeded maximum allowed payload size (6291556 bytes)."}`, r.Body)
	b.waitLine("function", `413 {"errorMessage":"Exceeded maximum allowed payload size (6291556 bytes).","errorType":"RequestEntityTooLarge"}`)
	assert.Equal(t, 3, b.invoke("req-3", order{Do: "echo"}).reply(t).Count, "the process lives on")
}

func TestRuntimeAPI_Streaming_IsBuffered(t *testing.T) {
	b := mustOpenBox(t)
	r := b.invoke("req-1", order{Do: "stream"})
	assert.Equal(t, "part 0;part 1;part 2;", r.Body)
	assert.Equal(t, "text/plain", r.Header.Get("Content-Type"))
	r = b.invoke("req-2", order{Do: "stream", N: 1})
	assert.Equal(t, "Unhandled", r.Header.Get("X-Amz-Function-Error"))
	assert.JSONEq(t, `{"errorType":"Runtime.StreamError"}`, r.Body)
}

func TestLog_Lines_StandBetweenStartAndEndOfTheirRequest(t *testing.T) {
	b := mustOpenBox(t, withStart("slow-init"))
	b.invoke("req-1", order{Do: "log", Text: "one\ntwo \"quoted\"\r\n\xff\nno newline"}, "X-Amzn-Trace-Id: Root=1-2-3;Sampled=1").reply(t)
	lines := b.waitReport("req-1")
	var messages []string
	for _, l := range lines {
		messages = append(messages, l.Message)
		assert.Equal(t, "test", l.Function)
		assert.Equal(t, "lambda-test-1", l.Container)
		assert.Equal(t, "req-1", l.RequestID)
		assert.Equal(t, "1-2-3", l.TraceID)
		assert.WithinDuration(t, time.Now(), l.Time, time.Minute)
	}
	require.Len(t, messages, 8)
	assert.Equal(t, []string{"slow init done", "START RequestId: req-1 Version: $LATEST", "one", `two "quoted"`, "\ufffd", "no newline",
		"END RequestId: req-1"}, messages[:7])
	assert.Regexp(t, `^REPORT RequestId: req-1\tDuration: [0-9.]+ ms\tBilled Duration: \d+ ms\tMemory Size: 128 MB\tMax Memory Used: 50 MB\tInit Duration: [0-9.]+ ms\t$`, messages[7])
	report := lines[7]
	assert.Equal(t, 50, report.UsedMB)
	assert.Equal(t, 128, report.MemoryMB)
	assert.GreaterOrEqual(t, report.InitMS, 50.0)
	assert.Less(t, report.DurationMS, report.InitMS+1000)
	assert.GreaterOrEqual(t, float64(report.BilledMS), report.DurationMS)
	assert.Equal(t, "stdout", lines[2].Stream)

	b.invoke("req-2", order{Do: "stderr", Text: "to stderr\n"}).reply(t)
	l := b.waitLine("function", "to stderr")
	assert.Equal(t, "stderr", l.Stream)
	assert.Equal(t, "req-2", l.RequestID)
}

func TestLog_Flood_LosesNothingAndKeepsOrder(t *testing.T) {
	b := mustOpenBox(t)
	const n = 20000 // 2 MB, many times what a pipe holds
	for _, id := range []string{"req-1", "req-2"} {
		b.invoke(id, order{Do: "flood", N: n}).reply(t)
	}
	next := map[string]int{}
	for _, l := range b.waitReport("req-2") {
		if l.Type == "function" {
			require.True(t, strings.HasPrefix(l.Message, fmt.Sprintf("line %d ", next[l.RequestID])), l.Message)
			next[l.RequestID]++
		}
	}
	assert.Equal(t, map[string]int{"req-1": n, "req-2": n}, next)
}

func TestLog_OverlongLine_IsCut(t *testing.T) {
	b := mustOpenBox(t)
	b.invoke("req-1", order{Do: "log", Text: strings.Repeat("ä", 300<<10) + "\nshort\n"}).reply(t)
	var sizes []int
	var whole strings.Builder
	for _, l := range b.waitReport("req-1") {
		if l.Type == "function" && l.Message != "short" {
			sizes = append(sizes, len(l.Message))
			whole.WriteString(l.Message)
		}
	}
	assert.Len(t, sizes, 3)
	for _, s := range sizes {
		assert.LessOrEqual(t, s, 256<<10)
	}
	assert.Equal(t, strings.Repeat("ä", 300<<10), whole.String(), "no character is cut in two")
}

func TestLog_Frames_AreOneEventEach_AndAllPiecesHaveTheRequestID(t *testing.T) {
	b := mustOpenBox(t)
	r := b.invoke("req-1", order{Do: "frame", Text: "[ERROR] no\nTraceback:\n  line 6\n"}, "X-Amz-Log-Type: Tail")
	text, err := base64.StdEncoding.DecodeString(r.Header.Get("X-Amz-Log-Result"))
	require.NoError(t, err)
	assert.Regexp(t, `^START RequestId: req-1 .*\nbefore\n\[ERROR\] no\nTraceback:\n  line 6\nbehind\nEND RequestId: req-1\n`, string(text))
	lines := b.waitReport("req-1")
	require.Len(t, lines, 6)
	assert.Equal(t, []string{"before", "[ERROR] no\nTraceback:\n  line 6", "behind"}, []string{lines[1].Message, lines[2].Message, lines[3].Message})
	assert.Equal(t, []string{"INFO", "ERROR", "INFO"}, []string{lines[1].Level, lines[2].Level, lines[3].Level})

	b.invoke("req-2", order{Do: "frame", N: 20 << 20}, deadlineIn(patience)).reply(t)
	b.invoke("req-3", order{Do: "log", Text: "[WARNING] next\n"}).reply(t)
	size := 0
	for _, l := range b.waitReport("req-3")[len(lines):] {
		switch {
		case strings.HasPrefix(l.Message, "x"):
			size += len(l.Message)
			assert.Equal(t, "req-2", l.RequestID)
			assert.Equal(t, "ERROR", l.Level)
		case strings.Contains(l.Message, "next"):
			assert.Equal(t, "req-3", l.RequestID)
			assert.Equal(t, "WARN", l.Level)
		}
	}
	assert.Equal(t, 20<<20, size)
}

// Events as in AWS's guide, "Lambda Telemetry API Event schema reference"; levels as in "System log level event mapping".
func TestLog_JSONFormat_OwnLinesAreEvents_FilteredByLevel(t *testing.T) {
	for system, want := range map[string][]string{
		"DEBUG": {"platform.initRuntimeDone", "platform.initReport", "platform.start", "function", "function", "platform.runtimeDone", "platform.report"},
		"":      {"platform.start", "function", "function", "platform.report"},
		"WARN":  {"function", "function"},
	} {
		t.Run(system, func(t *testing.T) {
			b := mustOpenBox(t, withEnv("AWS_LAMBDA_LOG_FORMAT=JSON", "AWS_LAMBDA_LOG_LEVEL=WARN", "ESB_SYSTEM_LOG_LEVEL="+system))
			r := b.invoke("req-1", order{Do: "log", Text: "plain\n{\"level\":\"INFO\",\"m\":1}\n{\"level\":\"error\",\"m\":2}\n"}, "X-Amz-Log-Type: Tail")
			assert.NotContains(t, r.Body, "ESB_SYSTEM_LOG_LEVEL")
			assert.Contains(t, r.Body, "AWS_LAMBDA_LOG_FORMAT=JSON")
			text, err := base64.StdEncoding.DecodeString(r.Header.Get("X-Amz-Log-Result"))
			require.NoError(t, err)
			lines := b.wait("the lines", func(lines []line, _ []string) bool { return len(lines) >= len(want) })
			require.Len(t, lines, len(want))
			for n, l := range lines {
				if want[n] == "function" {
					assert.NotContains(t, l.Message, "INFO")
					assert.Contains(t, string(text), l.Message+"\n")
					continue
				}
				var event struct {
					Time   time.Time
					Type   string
					Record map[string]any
				}
				require.NoError(t, json.Unmarshal([]byte(l.Message), &event), l.Message)
				assert.Equal(t, want[n], event.Type)
				assert.False(t, event.Time.IsZero())
				switch event.Type {
				case "platform.start":
					assert.Equal(t, map[string]any{"requestId": "req-1", "version": "$LATEST"}, event.Record)
				case "platform.report":
					assert.Equal(t, "success", event.Record["status"])
					assert.Contains(t, event.Record["metrics"], "billedDurationMs")
					assert.Equal(t, 128, l.MemoryMB, "the figures stay members of the line")
				}
			}
		})
	}
	b := mustOpenBox(t, withEnv("AWS_LAMBDA_LOG_FORMAT=JSON", "ESB_SYSTEM_LOG_LEVEL=WARN"))
	b.invoke("req-1", order{Do: "exit", N: 3})
	assert.Regexp(t, `^{"time":"[^"]+","type":"platform.fault","record":"RequestId: req-1 Error: Runtime exited with error: exit status 3"}$`, b.waitLine("platform.fault", "exit status").Message)
	done := b.waitLine("platform.end", "runtimeDone")
	assert.Contains(t, done.Message, `"status":"error","errorType":"Runtime.ExitError"`)
	assert.Equal(t, "WARN", done.Level)
	b.waitLine("platform.report", `"status":"error"`)
}

func TestLog_StuckReader_DelaysNoInvocationForEver(t *testing.T) {
	b := mustOpenBox(t, withStuckLog(), withEnv("AWS_LAMBDA_FUNCTION_TIMEOUT=1"))
	r := b.invoke("req-1", order{Do: "flood", N: 50000}, deadlineIn(time.Second))
	assert.Contains(t, r.Body, "Sandbox.Timedout", "the function waits in its write call")
	assert.Equal(t, 1, b.invoke("req-2", order{Do: "echo"}, deadlineIn(patience)).reply(t).Count)
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", b.cmd.Process.Pid))
	require.NoError(t, err)
	var kb int
	for l := range strings.Lines(string(status)) {
		if strings.HasPrefix(l, "RssAnon:") {
			_, err := fmt.Sscanf(l, "RssAnon: %d kB", &kb)
			require.NoError(t, err)
		}
	}
	assert.Less(t, kb, 64<<10, "the queue is bounded")
}

func TestLog_EndlessWriter_DoesNotKeepTheInvocationFromEnding(t *testing.T) {
	b := mustOpenBox(t)
	b.invoke("req-1", order{Do: "endless"}).reply(t)
	b.waitReport("req-1")
	assert.Equal(t, 2, b.invoke("req-2", order{Do: "echo"}).reply(t).Count)
}

func TestLog_Tail_IsReturnedWhenAskedFor(t *testing.T) {
	b := mustOpenBox(t)
	tail := func(r result) string {
		text, err := base64.StdEncoding.DecodeString(r.Header.Get("X-Amz-Log-Result"))
		require.NoError(t, err)
		return string(text)
	}
	r := b.invoke("req-1", order{Do: "log", Text: "hello\n"}, "X-Amz-Log-Type: Tail")
	assert.Regexp(t, `(?s)^START RequestId: req-1 Version: \$LATEST\nhello\nEND RequestId: req-1\nREPORT RequestId: req-1\tDuration: .*\n$`, tail(r))
	r = b.invoke("req-2", order{Do: "flood", N: 1000}, "X-Amz-Log-Type: Tail")
	assert.Len(t, tail(r), 4096)
	assert.Contains(t, tail(r), "line 999 ")
	assert.Contains(t, tail(r), "REPORT RequestId: req-2")
}

func TestStop_SIGTERM_EndsTheFunctionAndExits0(t *testing.T) {
	for _, c := range []struct {
		name  string
		start string
	}{
		{"idle", "run"},
		{"function ignores SIGTERM", "ignore-term"},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := mustOpenBox(t, withStart(c.start))
			pid := b.invoke("req-1", order{Do: "echo"}).reply(t).PID
			began := time.Now()
			require.NoError(t, b.cmd.Process.Signal(syscall.SIGTERM))
			<-b.ended
			assert.Less(t, time.Since(began), patience/2, "2 s, and room for a busy machine")
			assert.Equal(t, 0, b.cmd.ProcessState.ExitCode())
			waitGone(t, pid)
		})
	}
}

func TestStop_WithARequestInFlight_AnswersIt(t *testing.T) {
	b := mustOpenBox(t)
	r := b.invokeAsync("req-1", order{Do: "hang"})
	b.waitLine("function", "hanging")
	require.NoError(t, b.cmd.Process.Signal(syscall.SIGINT))
	assert.Contains(t, (<-r).Body, "Runtime exited with error: signal: killed")
	<-b.ended
	assert.Equal(t, 0, b.cmd.ProcessState.ExitCode())
}

func TestConfigFromEnv_BadValues_AreAllNamed(t *testing.T) {
	_, err := lambdainit.ConfigFromEnv([]string{"ESB_INIT_LIMIT_MS=soon", "ESB_INIT_STANDBY=yes", "ESB_INIT_LISTEN=here",
		"ESB_INIT_TYPO=1", "AWS_LAMBDA_FUNCTION_TIMEOUT=901", "AWS_LAMBDA_FUNCTION_MEMORY_SIZE=x"}, nil)
	require.Error(t, err)
	for _, name := range []string{"ESB_INIT_LIMIT_MS", "ESB_INIT_STANDBY", "ESB_INIT_LISTEN", "ESB_INIT_TYPO", "AWS_LAMBDA_FUNCTION_TIMEOUT",
		"AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "no command"} {
		assert.ErrorContains(t, err, name)
	}
}

func TestConfigFromEnv_Defaults(t *testing.T) {
	c, err := lambdainit.ConfigFromEnv([]string{"A=1", "ESB_INIT_NOTIFY=", "AWS_LAMBDA_RUNTIME_API=old", "AWS_REGION=r"}, []string{"/bootstrap"})
	require.NoError(t, err)
	assert.Equal(t, []string{"A=1", "AWS_REGION=r"}, c.Env)
	assert.Equal(t, "0.0.0.0:27182", c.Listen)
	assert.Equal(t, "127.0.0.1:9001", c.RuntimeAPI)
	assert.Equal(t, 10*time.Second, c.InitLimit)
	assert.Equal(t, 3*time.Second, c.Timeout)
	assert.Equal(t, 128, c.MemoryMB)
	assert.False(t, c.Standby)
}

func BenchmarkInvoke_Warm(b *testing.B) {
	box := mustOpenBox(b)
	box.invoke("first", order{Do: "error"})
	for b.Loop() {
		box.invoke("warm", order{Do: "error"})
	}
}
