package lambdainit_test

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/edge-serverless-box/esb/agent/lambdainit"
)

// parkedAnswer is what a process that was parked says of itself.
type parkedAnswer struct {
	Call *lambdainit.Call
	Err  string
	Env  []string
	Cwd  string
	// Line is what everybody may read of its start.
	Line string
}

func runParked(socket string) int {
	var a parkedAnswer
	call, err := lambdainit.Park(socket)
	if a.Call = call; err != nil {
		a.Err = err.Error()
	}
	a.Env = os.Environ()
	a.Cwd, _ = os.Getwd()
	line, _ := os.ReadFile("/proc/self/cmdline")
	a.Line = string(line)
	if err := json.NewEncoder(os.Stdout).Encode(a); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// mustPark starts a process that waits, and returns its connection and what it says in the end.
func mustPark(t *testing.T) (net.Conn, func() parkedAnswer) {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "s")
	listener, err := net.Listen("unix", socket)
	require.NoError(t, err)
	cmd := exec.Command("/proc/self/exe", "@park", socket)
	cmd.Env = []string{"PATH=/before", "BEFORE=1"}
	cmd.Stderr = t.Output()
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	conn, err := listener.Accept()
	require.NoError(t, err)
	require.NoError(t, listener.Close())
	return conn, func() (a parkedAnswer) {
		require.NoError(t, json.NewDecoder(out).Decode(&a))
		require.NoError(t, cmd.Wait())
		return a
	}
}

func TestPark_IsToldWhatToStart(t *testing.T) {
	conn, end := mustPark(t)
	dir := t.TempDir()
	call := lambdainit.Call{Args: []string{"--", "/fn", "a b", "<&>"}, Env: []string{"PATH=/after", "A=b=c", "=odd", "AFTER=1"}, Cwd: dir}
	text, err := json.Marshal(call)
	require.NoError(t, err)
	for _, part := range [][]byte{text[:7], text[7:]} {
		_, err = conn.Write(part)
		require.NoError(t, err)
	}
	require.NoError(t, conn.Close())
	got := end()
	assert.Empty(t, got.Err)
	assert.Equal(t, &call, got.Call)
	assert.Equal(t, dir, got.Cwd)
	assert.Equal(t, "/proc/self/exe\x00--\x00/fn\x00a b\x00<&>\x00", got.Line, "as of one that was started with them")
	assert.Equal(t, []string{"PATH=/after"}, got.Env, "nothing of before, and what programs are found by")
}

func TestPark_NobodyAsks_Ends(t *testing.T) {
	conn, end := mustPark(t)
	require.NoError(t, conn.Close())
	got := end()
	assert.Nil(t, got.Call)
	assert.Empty(t, got.Err)
}

func TestPark_HalfOfWhatToStart_IsNothing(t *testing.T) {
	for want, text := range map[string]string{
		"what to start":  `{"args":["--","/fn"],"cwd":"/","env":["A=1"`,
		"working folder": `{"args":["--","/fn"],"cwd":"/no/such/folder","env":[]}`,
	} {
		conn, end := mustPark(t)
		_, err := conn.Write([]byte(text))
		require.NoError(t, err)
		require.NoError(t, conn.Close())
		assert.Contains(t, end().Err, want)
	}
}

func TestPark_NoAgent(t *testing.T) {
	_, err := lambdainit.Park(filepath.Join(t.TempDir(), "s"))
	assert.ErrorContains(t, err, "tell the agent that the container waits")
}

func runOverwrite(text string) int {
	text = strings.ReplaceAll(text, "|", "\x00")
	lambdainit.OverwriteArguments([]byte(text))
	line, err := os.ReadFile("/proc/self/cmdline")
	if err != nil {
		return 1
	}
	if _, err := os.Stdout.Write(line); err != nil {
		return 1
	}
	return 0
}

// A kernel without checkpoints shows what lies where the arguments were.
func TestCommandLine_Overwritten_KeepsItsLength(t *testing.T) {
	for text, want := range map[string]string{
		"/fn|a|": "/fn\x00a\x00",
		"/run/esb/lambda-init|--|" + strings.Repeat("x", 99) + "|": "/run/esb/lambda-init\x00--\x00" + strings.Repeat("x", 99) + "\x00",
	} {
		cmd := exec.Command("/proc/self/exe", "@overwrite", text)
		out, err := cmd.Output()
		require.NoError(t, err)
		length := len("/proc/self/exe") + len("@overwrite") + len(text) + 3
		assert.Equal(t, want+strings.Repeat("\x00", length-len(want)), string(out))
	}
}
