package lambdainit_test

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
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
}

func runParked(socket string) int {
	var a parkedAnswer
	call, err := lambdainit.Park(socket)
	if a.Call = call; err != nil {
		a.Err = err.Error()
	}
	a.Env = os.Environ()
	a.Cwd, _ = os.Getwd()
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
