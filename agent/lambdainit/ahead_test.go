package lambdainit_test

import (
	"encoding/json"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/edge-serverless-box/esb/agent/lambdainit"
)

const (
	// parkVariable names the socket of a test's lambda-init that waits for its call.
	parkVariable = "TEST_PARK"
	// aheadVariable is what a test's function adds to its environment that was started ahead: its first number.
	aheadVariable = "TEST_AHEAD"
)

// withAhead has lambda-init start a runtime ahead, and be told afterwards what else the test says.
func withAhead(env ...string) boxOption {
	return func(s *boxSettings) {
		s.ahead = &lambdainit.Call{Start: true, Args: []string{os.Args[0], "@function"}, Cwd: "/", Env: append([]string{"BEFORE=1"}, env...)}
	}
}

// park does what the agent does with a container that is parked, when the box is to be one: the function that it returns is called when
// lambda-init has been started.
func (b *box) park(set boxSettings) func() {
	if set.ahead == nil {
		return func() {}
	}
	socket := filepath.Join(b.t.TempDir(), "p")
	listener, err := net.Listen("unix", socket)
	require.NoError(b.t, err)
	told := lambdainit.Call{Args: set.command, Env: append(b.cmd.Env, "TOLD=a=b"), Cwd: b.t.TempDir()}
	b.cmd.Env = append(os.Environ(), parkVariable+"="+socket)
	return func() {
		conn, err := listener.Accept()
		require.NoError(b.t, err)
		require.NoError(b.t, listener.Close())
		mustSay(b.t, conn, *set.ahead)
		_, err = conn.Read(make([]byte, 1))
		require.NoError(b.t, err, "the runtime waits")
		mustSay(b.t, conn, told)
		require.NoError(b.t, conn.Close())
	}
}

func mustSay(t testing.TB, conn net.Conn, call lambdainit.Call) {
	t.Helper()
	text, err := json.Marshal(call)
	require.NoError(t, err)
	_, err = conn.Write(text)
	require.NoError(t, err)
}

// waitAhead is what runtime clients do that are started ahead.
func waitAhead() {
	fd, err := strconv.Atoi(os.Getenv("_ESB_WAIT_FD"))
	if err != nil {
		return
	}
	control := os.NewFile(uintptr(fd), "control")
	_, _ = os.Stderr.WriteString("from before\n")
	before := os.Environ()
	if _, err := control.Write([]byte{'\n'}); err != nil {
		panic(err)
	}
	text, err := io.ReadAll(control)
	if err != nil {
		panic(err)
	}
	_ = control.Close()
	if len(text) == 0 {
		os.Exit(0)
	}
	var told lambdainit.Call
	if err := json.Unmarshal(text, &told); err != nil {
		panic(err)
	}
	os.Clearenv()
	for _, kv := range append(told.Env, aheadVariable+"="+strconv.Itoa(os.Getpid())) {
		name, value, _ := strings.Cut(kv, "=")
		_ = os.Setenv(name, value)
	}
	if slices.Contains(before, "BEFORE=1") {
		_ = os.Setenv("TEST_BEFORE", strconv.Itoa(len(before)))
	}
	os.Args = told.Args
	if err := os.Chdir(told.Cwd); err != nil {
		panic(err)
	}
}

func variable(env []string, name string) string {
	for _, kv := range env {
		if value, ok := strings.CutPrefix(kv, name+"="); ok {
			return value
		}
	}
	return ""
}

func TestAhead_IsTheFunctionsFirstProcess(t *testing.T) {
	b := mustOpenBox(t, withAhead())
	got := b.invoke("r1", order{}).reply(t)
	assert.Equal(t, strconv.Itoa(got.PID), variable(got.Env, aheadVariable), "it is the one that was started ahead")
	assert.Equal(t, "3", variable(got.Env, "TEST_BEFORE"), "what the agent says, on what it waits, and the room")
	assert.Equal(t, "a=b", variable(got.Env, "TOLD"))
	assert.Empty(t, variable(got.Env, "BEFORE"))
	assert.NotEmpty(t, variable(got.Env, "AWS_LAMBDA_RUNTIME_API"))
	assert.Equal(t, "3", variable(got.Env, "_LAMBDA_TELEMETRY_LOG_FD"))
	b.waitLine("function", "from before")
	b.wait("news", func(_ []line, news []string) bool {
		return slices.Contains(news, "INIT_START=1") && slices.Contains(news, "INIT_END=ok")
	})

	require.NoError(t, syscall.Kill(got.PID, syscall.SIGKILL))
	waitGone(t, got.PID)
	again := b.invoke("r2", order{}).reply(t)
	assert.NotEqual(t, got.PID, again.PID)
	assert.Empty(t, variable(again.Env, aheadVariable), "the next is started as ever")
	assert.Equal(t, "a=b", variable(again.Env, "TOLD"))
}

func TestAhead_IsOfNoUse_TheFunctionIsStartedAllTheSame(t *testing.T) {
	for name, options := range map[string][]boxOption{
		"another command": {withCommand("/proc/self/exe", "@function", "run")},
		"a wrapper":       {withEnv("ESB_INIT_WRAPPER=1", "AWS_LAMBDA_EXEC_WRAPPER=/usr/bin/env")},
	} {
		t.Run(name, func(t *testing.T) {
			b := mustOpenBox(t, append(options, withAhead())...)
			got := b.invoke("r1", order{}).reply(t)
			assert.Empty(t, variable(got.Env, aheadVariable))
			require.Eventually(t, func() bool { return slices.Equal(children(t, b.cmd.Process.Pid), []int{got.PID}) }, patience, 5*time.Millisecond,
				"the other one has been ended")
		})
	}
}

func TestAhead_EndsBeforeItIsAnybodys_LambdaInitEnds(t *testing.T) {
	conn, end := mustPark(t)
	mustSay(t, conn, lambdainit.Call{Start: true, Args: []string{os.Args[0], "@function"}, Env: []string{}, Cwd: "/"})
	_, err := conn.Read(make([]byte, 1))
	require.NoError(t, err)
	parked := children(t, os.Getpid())
	require.Len(t, parked, 1)
	waiting := children(t, parked[0])
	require.Len(t, waiting, 1)
	require.NoError(t, syscall.Kill(waiting[0], syscall.SIGKILL))
	_, err = conn.Read(make([]byte, 1))
	require.Error(t, err, "the agent hears of it")
	got := end()
	assert.Nil(t, got.Call)
	assert.Empty(t, got.Err)
}

func TestAhead_CannotBeStarted_SaysWhy(t *testing.T) {
	for want, args := range map[string][]string{
		"/no/such/program: no such file or directory": {"/no/such/program"},
		"exit status 3: \"said\"":                     {"/bin/sh", "-c", "printf said; exit 3"},
	} {
		conn, end := mustPark(t)
		mustSay(t, conn, lambdainit.Call{Start: true, Args: args, Env: []string{}, Cwd: "/"})
		said, err := io.ReadAll(conn)
		require.NoError(t, err)
		assert.Contains(t, string(said), want, "to the agent")
		assert.Contains(t, end().Err, want)
		_ = conn.Close()
	}
}

// children returns the processes that a process has started.
func children(t *testing.T, of int) (pids []int) {
	t.Helper()
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	require.NoError(t, err)
	for _, name := range stats {
		text, err := os.ReadFile(name)
		if err != nil {
			continue // it has ended
		}
		_, rest, _ := strings.Cut(string(text), ") ")
		if fields := strings.Fields(rest); len(fields) > 1 && fields[1] == strconv.Itoa(of) {
			pid, err := strconv.Atoi(filepath.Base(filepath.Dir(name)))
			require.NoError(t, err)
			pids = append(pids, pid)
		}
	}
	return pids
}
