// Package lifecycle starts and ends whole boxes and looks at what they leave behind on the host.
package lifecycle

import (
	"context"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	agentv1 "github.com/edge-serverless-box/esb/api/esb/agent/v1"
	"github.com/edge-serverless-box/esb/tests/hoststate"
	"github.com/edge-serverless-box/esb/tests/stack"
)

func mustPrepare(t *testing.T, opts stack.Options) *stack.Stack {
	t.Helper()
	if os.Getuid() != 0 {
		t.Fatal("the lifecycle tests start containers: run them as root")
	}
	box, err := stack.Prepare(t.TempDir(), opts)
	require.NoError(t, err)
	return box
}

func mustRead(t *testing.T, box *stack.Stack) hoststate.State {
	t.Helper()
	root, err := stack.RepositoryRoot()
	require.NoError(t, err)
	state, err := hoststate.Read(box.Home, filepath.Join(root, ".esb", "bin"), box.Bridge)
	require.NoError(t, err)
	return state
}

// requireSame compares kind by kind, so that a failure names what was left.
func requireSame(t *testing.T, before, after hoststate.State) {
	t.Helper()
	for kind := range before {
		assert.Equal(t, before[kind], after[kind], "%s must be as before", kind)
	}
}

func invokeSome(t *testing.T, box *stack.Stack) {
	t.Helper()
	token, err := box.Token(t.Context())
	require.NoError(t, err)
	for path, body := range map[string]string{
		"/api/echo": `{"message":"x"}`, "/api/hello-python": `{"name":"x"}`, "/api/chaos": `{"action":"ok"}`,
	} {
		answer := box.Post(t, path, token, body)
		require.Equal(t, http.StatusOK, answer.Status, "%s: %s", path, answer.Body)
	}
}

// TestUpAndDown uses one box: what it is after one part is what the next begins with.
func TestUpAndDown(t *testing.T) {
	box := mustPrepare(t, stack.Options{})
	before := mustRead(t, box)
	t.Cleanup(func() { _ = box.Down() })
	require.NoError(t, box.Up(t.Context()))
	invokeSome(t, box)
	for _, part := range []struct {
		name string
		run  func(*testing.T)
	}{
		{"up works after the services were killed", func(t *testing.T) {
			killServices(t, box, "agent", "gateway")
			require.NoError(t, box.Up(t.Context()))
			invokeSome(t, box)
		}},
		{"down leaves the host as it was", func(t *testing.T) {
			running := mustRead(t, box)
			assert.NotEqual(t, before["leases"], running["leases"], "the comparison must see a running box")
			assert.NotEqual(t, before["nftables"], running["nftables"])
			assert.NotEmpty(t, running["disks"])
			id := box.Containers(t, "lambda-echo")[0].GetContainerId()
			_, err := box.Agent.PauseContainer(t.Context(), &agentv1.PauseContainerRequest{ContainerId: id})
			require.NoError(t, err, "a frozen container must not hinder the end")
			require.NoError(t, box.Down())
			requireSame(t, before, mustRead(t, box))
		}},
		{"down leaves the host as it was after the services were killed", func(t *testing.T) {
			require.NoError(t, box.Up(t.Context()))
			invokeSome(t, box)
			killServices(t, box, "agent", "gateway", "containerd")
			require.NoError(t, box.Down())
			requireSame(t, before, mustRead(t, box))
		}},
	} {
		if !t.Run(part.name, part.run) {
			t.FailNow() // the box may be in any state
		}
	}
}

// killServices ends the processes of a box that run one of programs, as a power cut does.
func killServices(t *testing.T, box *stack.Stack, programs ...string) {
	t.Helper()
	killed := map[string]bool{}
	for _, p := range mustFindProcesses(t, box) {
		if program := filepath.Base(p.Program); slices.Contains(programs, program) {
			if err := syscall.Kill(p.PID, syscall.SIGKILL); err != nil {
				require.ErrorIs(t, err, syscall.ESRCH, "it may have ended with its parent")
			}
			killed[program] = true
		}
	}
	require.Len(t, killed, len(programs), "killed: %v", killed)
}

func TestUp_BadConfiguration_SaysWhatAndLeavesNothing(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		require.NoError(t, os.WriteFile(path, []byte(text), 0o644))
		return path
	}
	root, err := stack.RepositoryRoot()
	require.NoError(t, err)
	cases := map[string]struct {
		options stack.Options
		says    []string
	}{
		"unknown key in functions.yml": {
			stack.Options{FunctionsConfig: write("functions.yml", "functions:\n  echo:\n    image: esb/lambda-echo:latest\n    timeoutt: 3\n"), RoutingConfig: write("routes.yml", "routes: []\n")},
			[]string{"functions.yml:4", "timeoutt"},
		},
		"route to an unknown function": {
			stack.Options{RoutingConfig: write("routing.yml", "routes:\n  - {path: /x, method: GET, function: nobody}\n")},
			[]string{"routing.yml:2", "nobody"},
		},
		"wrong setting": {stack.Options{Env: []string{"JWT_SECRET_KEY=short"}}, []string{"JWT_SECRET_KEY", "32"}},
		"subnet in use": {stack.Options{Env: []string{"ESB_SUBNET=127.0.0.0/24"}}, []string{"ESB_SUBNET"}},
		"port in use":   {stack.Options{Env: []string{"GATEWAY_HTTP_ADDR=" + occupiedAddress(t)}}, []string{"GATEWAY_HTTP_ADDR", "in use"}},
		"missing file":  {stack.Options{FunctionsConfig: filepath.Join(root, "no-such-file.yml")}, []string{"no-such-file.yml"}},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			box := mustPrepare(t, c.options)
			before := mustRead(t, box)
			err := box.Up(context.WithoutCancel(t.Context()))
			t.Cleanup(func() { _ = box.Down() })
			require.Error(t, err)
			for _, text := range c.says {
				assert.Contains(t, err.Error(), text)
			}
			requireSame(t, before, mustRead(t, box))
		})
	}
}

// occupiedAddress is an address on which the test itself listens until it ends.
func occupiedAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { _ = l.Close() })
	return l.Addr().String()
}
