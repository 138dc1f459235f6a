package main

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"github.com/aws/aws-lambda-go/events"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// bodyVariable makes this test binary a process that handles one request, for actions that end the process.
const bodyVariable = "CHAOS_TEST_BODY"

func TestMain(m *testing.M) {
	if body := os.Getenv(bodyVariable); body != "" {
		_, err := handle(context.Background(), events.APIGatewayProxyRequest{Body: body})
		if err != nil {
			_, _ = io.WriteString(os.Stderr, err.Error())
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// mustDie runs handle in a process of its own.
func mustDie(t *testing.T, body string) (state *os.ProcessState, output string) {
	t.Helper()
	var out bytes.Buffer
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), bodyVariable+"="+body, "AWS_LAMBDA_FUNCTION_MEMORY_SIZE=8")
	cmd.Stdout, cmd.Stderr = &out, &out
	require.NoError(t, cmd.Start())
	_ = cmd.Wait() // how it ended is in the state
	return cmd.ProcessState, out.String()
}

func TestChaos_Action_Answers(t *testing.T) {
	cases := []struct {
		name, body string
		status     int
		want       string
	}{
		{"ok", `{"action":"ok"}`, 200, `{"action":"ok"}`},
		{"sleep", `{"action":"sleep","ms":1}`, 200, `{"action":"sleep","ms":1}`},
		{"big", `{"action":"big","bytes":5}`, 200, "xxxxx"},
		{"big too big", `{"action":"big","bytes":67108865}`, 400, `{"message":"bytes: must be 0 to 67108864, got 67108865"}`},
		{"big negative", `{"action":"big","bytes":-1}`, 400, `{"message":"bytes: must be 0 to 67108864, got -1"}`},
		{"no lines", `{"action":"log"}`, 200, `{"action":"log","lines":0}`},
		{"init-fail", `{"action":"init-fail"}`, 400,
			`{"message":"init-fail is switched by the function's environment: CHAOS_INIT_FAIL=exit, error, panic or hang"}`},
		{"unknown", `{"action":"dance"}`, 400,
			`{"message":"action: must be ok, sleep, exit, panic, segfault, oom, big, log or init-fail"}`},
		{"not JSON", `{`, 400, `{"message":"the request body is not the expected JSON object: unexpected end of JSON input"}`},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			got, err := handle(context.Background(), events.APIGatewayProxyRequest{Body: c.body})
			require.NoError(t, err)
			assert.Equal(t, c.status, got.StatusCode)
			assert.Equal(t, c.want, got.Body)
		})
	}
}

func TestChaos_Log_PrintsLines(t *testing.T) {
	state, output := mustDie(t, `{"action":"log","lines":3}`)
	assert.Zero(t, state.ExitCode())
	assert.Equal(t, "chaos line 1 of 3\nchaos line 2 of 3\nchaos line 3 of 3\n", output)
}

func TestChaos_Exit_EndsProcessWithCode(t *testing.T) {
	state, _ := mustDie(t, `{"action":"exit","code":42}`)
	assert.Equal(t, 42, state.ExitCode())
}

func TestChaos_Segfault_DiesOfSignal(t *testing.T) {
	state, output := mustDie(t, `{"action":"segfault"}`)
	status, ok := state.Sys().(syscall.WaitStatus)
	require.True(t, ok)
	assert.True(t, status.Signaled(), output)
	assert.Equal(t, syscall.SIGSEGV, status.Signal())
}

func TestChaos_Panic_Panics(t *testing.T) {
	assert.PanicsWithValue(t, "chaos panic", func() {
		_, _ = handle(context.Background(), events.APIGatewayProxyRequest{Body: `{"action":"panic"}`})
	})
}

func TestChaos_OOMWithoutLimit_GivesUpAtBudget(t *testing.T) {
	_, output := mustDie(t, `{"action":"oom"}`)
	assert.Equal(t, "took 24 MB in 3 pieces and was not killed: the container has no memory limit", output)
	assert.Equal(t, 3*128<<20, memoryBudget(""))
}

func TestFailInit_Mode_Fails(t *testing.T) {
	var path, errorType, body string
	api := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		data, err := io.ReadAll(r.Body)
		assert.NoError(t, err)
		path, errorType, body = r.URL.Path, r.Header.Get("Lambda-Runtime-Function-Error-Type"), string(data)
		w.WriteHeader(http.StatusAccepted)
	}))
	defer api.Close()
	address := strings.TrimPrefix(api.URL, "http://")

	assert.NoError(t, failInit("", address))
	assert.ErrorContains(t, failInit("exit", address), "CHAOS_INIT_FAIL=exit")
	assert.ErrorContains(t, failInit("sometimes", address), `must be exit, error, panic or hang, got "sometimes"`)
	assert.Panics(t, func() { _ = failInit("panic", address) })
	assert.Empty(t, path)

	assert.ErrorContains(t, failInit("error", address), "CHAOS_INIT_FAIL=error")
	assert.Equal(t, "/2018-06-01/runtime/init/error", path)
	assert.Equal(t, "Chaos.InitError", errorType)
	assert.Contains(t, body, `"errorType":"Chaos.InitError"`)
}
