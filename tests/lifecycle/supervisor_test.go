package lifecycle

import (
	"context"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/edge-serverless-box/esb/tests/stack"
)

func mustStatus(t *testing.T, box *stack.Stack) stack.Status {
	t.Helper()
	var s stack.Status
	stack.Eventually(t, func() bool {
		var err error
		s, err = box.Status(t.Context())
		return err == nil
	}, "the status must be had")
	return s
}

// mustSignal signals a process of the box. No process has the number 0: it would be the test's own group.
func mustSignal(t *testing.T, pid int, sig syscall.Signal) {
	t.Helper()
	require.Positive(t, pid)
	require.NoError(t, syscall.Kill(pid, sig))
}

// mustHeal waits until the box is healthy with another process of a service, which is said to have been started again.
func mustHeal(t *testing.T, box *stack.Stack, service string, before int) {
	t.Helper()
	stack.Eventually(t, func() bool {
		s, err := box.Status(t.Context())
		if err != nil || s.State != "healthy" {
			return false
		}
		for _, one := range s.Services {
			if one.Name == service && one.PID > 0 && one.PID != before && one.Restarts > 0 {
				return true
			}
		}
		return false
	}, "%s must be started again", service)
}

// keepConnecting connects to the gateway until the returned function is called, which says how often. Nobody may be refused.
func keepConnecting(t *testing.T, box *stack.Stack) (stop func() int64) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	var made atomic.Int64
	var clients sync.WaitGroup
	for _, at := range []string{box.HTTPURL, box.AdminURL} {
		to, err := url.Parse(at)
		require.NoError(t, err)
		clients.Go(func() {
			for ctx.Err() == nil {
				c, err := net.Dial("tcp", to.Host)
				if !assert.NoError(t, err, "%s: who connects has to wait", at) {
					return
				}
				_ = c.Close()
				made.Add(1)
				time.Sleep(2 * time.Millisecond)
			}
		})
	}
	t.Cleanup(func() { cancel(); clients.Wait() })
	return func() int64 {
		cancel()
		clients.Wait()
		return made.Load()
	}
}

// TestSupervisor_OnABox uses one box for what its supervisor does.
func TestSupervisor_OnABox(t *testing.T) {
	box := mustPrepare(t, stack.Options{Supervised: true,
		Env: []string{"S3_ADDR=off", "S3_UI_ADDR=off", "DYNAMODB_ADDR=off", "REGISTRY_ADDR=off"}})
	t.Cleanup(func() { assert.NoError(t, box.Down()) })
	require.NoError(t, box.Up(t.Context()))

	for _, service := range []string{"gateway", "agent", "stores"} {
		pid := mustStatus(t, box).PIDs()[service]
		stop := keepConnecting(t, box)
		mustSignal(t, pid, syscall.SIGKILL)
		mustHeal(t, box, service, pid)
		t.Logf("%s was killed: %d connections, none refused", service, stop())
	}
	for _, service := range []string{"gateway", "agent", "stores"} {
		pid := mustStatus(t, box).PIDs()[service]
		stop := keepConnecting(t, box)
		mustSignal(t, pid, syscall.SIGSTOP)
		mustHeal(t, box, service, pid)
		t.Logf("%s stood still: %d connections, none refused", service, stop())
	}
	token, err := box.Token(t.Context())
	require.NoError(t, err)
	stack.Eventually(t, func() bool {
		answer, err := box.Do(t.Context(), http.MethodPost, box.HTTPURL+"/api/echo", token, []byte(`{"message":"x"}`), "Content-Type", "application/json")
		return err == nil && answer.Status == http.StatusOK
	}, "functions must run")

	healthy := mustStatus(t, box)
	mustSignal(t, healthy.Supervisor, syscall.SIGKILL)
	stack.Eventually(t, func() bool {
		s, err := box.Status(t.Context())
		return err == nil && s.Supervisor == 0
	}, "the supervisor must be dead")
	require.NoError(t, box.Up(t.Context()))
	now := mustStatus(t, box)
	assert.Equal(t, healthy.PIDs(), now.PIDs(), "the services go on")
	assert.Positive(t, now.Supervisor)
	gateway := now.PIDs()["gateway"]
	mustSignal(t, gateway, syscall.SIGKILL)
	mustHeal(t, box, "gateway", gateway)

	// An end that is asked for goes before a start that is under way.
	mustSignal(t, mustStatus(t, box).PIDs()["gateway"], syscall.SIGKILL)
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
		if err != nil {
			return false
		}
		s, err := box.Status(t.Context())
		return err == nil && s.State == "healthy"
	}, "the box must be up")
	now := mustStatus(t, box)
	said, err := box.Esb(t.Context(), "up")
	require.Error(t, err)
	assert.Contains(t, said, "esb run")
	mustSignal(t, now.PIDs()["gateway"], syscall.SIGKILL)
	mustHeal(t, box, "gateway", now.PIDs()["gateway"])

	mustSignal(t, now.Supervisor, syscall.SIGTERM)
	end := <-ended
	require.NoError(t, end.err, end.said)
	assert.Equal(t, "down", mustStatus(t, box).State, end.said)
	require.NoError(t, box.Down())
	assert.Empty(t, mustFindProcesses(t, box))
}
