package lifecycle

import (
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/edge-serverless-box/esb/tests/stack"
)

// status is what `esb status -json` says.
type status struct {
	State      string
	Supervisor int
	Services   []struct {
		Name, State   string
		PID, Restarts int
	}
}

func mustStatus(t *testing.T, box *stack.Stack) status {
	t.Helper()
	out, _ := box.Esb(t.Context(), "status", "-json") // its exit code is the state
	var s status
	require.NoError(t, json.Unmarshal([]byte(out), &s), out)
	return s
}

func (s status) pids() map[string]int {
	pids := map[string]int{}
	for _, service := range s.Services {
		pids[service.Name] = service.PID
	}
	return pids
}

// mustHeal waits until the box is healthy with another process of a service, which is said to have been started again.
func mustHeal(t *testing.T, box *stack.Stack, service string, before int) {
	t.Helper()
	stack.Eventually(t, func() bool {
		s := mustStatus(t, box)
		if s.State != "healthy" {
			return false
		}
		for _, one := range s.Services {
			if one.Name == service && one.PID != before && one.Restarts > 0 {
				return true
			}
		}
		return false
	}, "%s must be started again", service)
}

// TestSupervisor_OnABox uses one box for what its supervisor does.
func TestSupervisor_OnABox(t *testing.T) {
	box := mustPrepare(t, stack.Options{Supervised: true,
		Env: []string{"S3_ADDR=off", "S3_UI_ADDR=off", "DYNAMODB_ADDR=off", "REGISTRY_ADDR=off"}})
	t.Cleanup(func() { assert.NoError(t, box.Down()) })
	require.NoError(t, box.Up(t.Context()))

	for _, service := range []string{"gateway", "agent", "stores"} {
		pid := mustStatus(t, box).pids()[service]
		require.NoError(t, syscall.Kill(pid, syscall.SIGKILL))
		mustHeal(t, box, service, pid)
	}
	for _, service := range []string{"gateway", "agent", "stores"} {
		pid := mustStatus(t, box).pids()[service]
		require.NoError(t, syscall.Kill(pid, syscall.SIGSTOP))
		mustHeal(t, box, service, pid)
	}
	token, err := box.Token(t.Context())
	require.NoError(t, err)
	stack.Eventually(t, func() bool { return box.Post(t, "/api/echo", token, `{"message":"x"}`).Status == http.StatusOK }, "functions must run")

	healthy := mustStatus(t, box)
	require.Positive(t, healthy.Supervisor)
	require.NoError(t, syscall.Kill(healthy.Supervisor, syscall.SIGKILL))
	stack.Eventually(t, func() bool { return mustStatus(t, box).Supervisor == 0 }, "the supervisor must be dead")
	require.NoError(t, box.Up(t.Context()))
	now := mustStatus(t, box)
	assert.Equal(t, healthy.pids(), now.pids(), "the services go on")
	assert.Positive(t, now.Supervisor)
	gateway := now.pids()["gateway"]
	require.NoError(t, syscall.Kill(gateway, syscall.SIGKILL))
	mustHeal(t, box, "gateway", gateway)

	// An end that is asked for goes before a start that is under way.
	require.NoError(t, syscall.Kill(mustStatus(t, box).pids()["gateway"], syscall.SIGKILL))
	require.NoError(t, box.Down())
	assert.Empty(t, mustFindProcesses(t, box))
	assert.Equal(t, "down", mustStatus(t, box).State)
	assert.Zero(t, mustStatus(t, box).Supervisor)
}

// TestRun_InTheForeground: `esb run` serves until SIGTERM, and stops what it has started.
func TestRun_InTheForeground(t *testing.T) {
	box := mustPrepare(t, stack.Options{Supervised: true,
		Env: []string{"S3_ADDR=off", "S3_UI_ADDR=off", "DYNAMODB_ADDR=off", "REGISTRY_ADDR=off", "VICTORIALOGS_ADDR=off"}})
	t.Cleanup(func() { assert.NoError(t, box.Down()) })
	type outcome struct {
		said string
		err  error
	}
	ended := make(chan outcome, 1)
	go func() {
		said, err := box.Esb(t.Context(), "run")
		ended <- outcome{said, err}
	}()
	stack.Eventually(t, func() bool {
		_, err := os.Stat(filepath.Join(box.Home, "run", "supervisor.json"))
		return err == nil && mustStatus(t, box).State == "healthy"
	}, "the box must be up")
	now := mustStatus(t, box)
	said, err := box.Esb(t.Context(), "up")
	require.Error(t, err)
	assert.Contains(t, said, "esb run")
	require.NoError(t, syscall.Kill(now.pids()["gateway"], syscall.SIGKILL))
	mustHeal(t, box, "gateway", now.pids()["gateway"])

	require.NoError(t, syscall.Kill(now.Supervisor, syscall.SIGTERM))
	end := <-ended
	require.NoError(t, end.err, end.said)
	assert.Equal(t, "down", mustStatus(t, box).State, end.said)
	require.NoError(t, box.Down())
	assert.Empty(t, mustFindProcesses(t, box))
}
