package stack

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/edge-serverless-box/esb/native"
	"github.com/edge-serverless-box/esb/native/process"
	"github.com/edge-serverless-box/esb/native/sdnotify"
)

// mustKeep watches the played services as `esb run` does, until the test ends them.
func mustKeep(t *testing.T, b *box) (k *keeper, end func()) {
	t.Helper()
	require.NoError(t, b.start(t.Context()), b.out)
	k, err := b.keep(b.services(), true, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	k.settle(t.Context())
	require.NoError(t, k.write())
	ctx, cancel := context.WithCancel(t.Context())
	watched := make(chan struct{})
	go func() { defer close(watched); k.watch(ctx, sdnotify.Notifier{}, nil) }()
	end = func() { cancel(); <-watched }
	t.Cleanup(end)
	t.Cleanup(func() {
		for _, w := range k.watchers {
			w.Release()
		}
	})
	return k, end
}

// waitLimit bounds every wait for real processes.
const waitLimit = 60 * time.Second

// restarted waits until the i-th service serves with another process than pid.
func (b *box) restarted(t *testing.T, i, pid int) {
	t.Helper()
	require.Eventually(t, func() bool {
		now := b.pids(t)[i]
		return now != 0 && now != pid && b.ready(t.Context(), b.services()[i]) == nil
	}, waitLimit, 10*time.Millisecond)
}

func TestKeep_ServiceIsKilledOrStopped_IsStartedAgainAndSaidSo(t *testing.T) {
	b := mustOpen(t)
	mustKeep(t, b)
	first := b.pids(t)
	require.NoError(t, syscall.Kill(first[1], syscall.SIGKILL))
	b.restarted(t, 1, first[1])
	second := b.pids(t)
	assert.Equal(t, first[0], second[0], "the agent is as it was")
	require.NoError(t, syscall.Kill(second[1], syscall.SIGSTOP))
	b.restarted(t, 1, second[1])
	require.NoError(t, syscall.Kill(first[0], syscall.SIGSTOP))
	b.restarted(t, 0, first[0])
	require.Eventually(t, func() bool {
		status, err := b.Status(t.Context())
		return err == nil && status.Services[0].Restarts >= 1 && status.Services[1].Restarts >= 2 && status.Services[1].DownSince.IsZero()
	}, waitLimit, 10*time.Millisecond)
	status, err := b.Status(t.Context())
	require.NoError(t, err)
	assert.Equal(t, os.Getpid(), status.Supervisor)
}

func TestKeep_ServiceCannotBeStarted_StatusSaysSinceWhenAndWhy(t *testing.T) {
	b := mustOpen(t)
	k, _ := mustKeep(t, b)
	pid := b.pids(t)[1]
	k.starting.Lock()
	b.play("fail")
	k.starting.Unlock()
	require.NoError(t, syscall.Kill(pid, syscall.SIGKILL))
	require.Eventually(t, func() bool {
		status, err := b.Status(t.Context())
		if err != nil {
			return false
		}
		gateway := status.Services[1]
		return gateway.Restarts > 1 && !gateway.DownSince.IsZero() && gateway.State != native.Healthy
	}, waitLimit, 10*time.Millisecond)
}

func TestRelease_ServicesGoOnAndNobodyStartsThem(t *testing.T) {
	b := mustOpen(t)
	k, end := mustKeep(t, b)
	pids := b.pids(t)
	end()
	for _, w := range k.watchers {
		w.Release()
	}
	require.NoError(t, k.forget())
	assert.Equal(t, pids, b.pids(t))
	_, alive := b.supervisor()
	assert.False(t, alive)
	require.NoError(t, b.start(t.Context()))
	assert.Equal(t, pids, b.pids(t), "the next `up` takes them as they are")
}

func TestStop_EndsTheServicesAndForgetsThem(t *testing.T) {
	b := mustOpen(t)
	k, end := mustKeep(t, b)
	end()
	require.NoError(t, k.stop(nil))
	assert.Equal(t, [2]int{}, b.pids(t))
	for _, service := range b.services() {
		assert.NoFileExists(t, b.pidFile(service))
	}
	assert.NoFileExists(t, b.supervisorFile())
}

func TestStop_Hastened_DoesNotWaitForTheGrace(t *testing.T) {
	b := mustOpen(t)
	k, end := mustKeep(t, b)
	end()
	require.NoError(t, syscall.Kill(b.pids(t)[1], syscall.SIGSTOP)) // it does not hear SIGTERM
	hasten := make(chan struct{})
	close(hasten)
	began := time.Now()
	require.NoError(t, k.stop(hasten))
	assert.Less(t, time.Since(began), b.grace(native.Gateway))
	assert.Equal(t, [2]int{}, b.pids(t))
}

func TestUp_BoxIsRunInTheForeground_IsLeftToThat(t *testing.T) {
	b := mustOpen(t)
	k, end := mustKeep(t, b)
	end() // who watches writes, too
	k.background = false
	require.NoError(t, k.write())
	var problem *native.Problem
	require.True(t, errors.As(b.bring(t.Context()), &problem))
	assert.Contains(t, problem.What, "esb run")
}

func TestSupervisor_FileOfAnotherProcess_IsNone(t *testing.T) {
	b := mustOpen(t)
	k, end := mustKeep(t, b)
	end()
	k.self.StartTicks++
	require.NoError(t, k.write())
	_, alive := b.supervisor()
	assert.False(t, alive)
	require.NoError(t, os.WriteFile(b.supervisorFile(), []byte("{"), 0o600))
	_, alive = b.supervisor()
	assert.False(t, alive, "a power cut has left it")
}

func TestHTTPAnswers_OneThatIsFull_IsAliveAndOneThatIsSilentIsNot(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	var closing sync.WaitGroup
	closing.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_ = c.Close()
		}
	})
	for range 50 { // whichever of the two is faster
		require.NoError(t, httpAnswers(t.Context(), "http://"+l.Addr().String()))
	}
	require.NoError(t, l.Close())
	closing.Wait()
	require.Error(t, httpAnswers(t.Context(), "http://"+l.Addr().String()), "nobody listens")

	silent, err := net.Listen("tcp", "127.0.0.1:0") // the kernel accepts
	require.NoError(t, err)
	defer func() { _ = silent.Close() }()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	require.Error(t, httpAnswers(ctx, "http://"+silent.Addr().String()))
}

func TestKeep_IsFoundBeforeItTouchesAService(t *testing.T) {
	b := mustOpen(t)
	require.NoError(t, b.folders())
	k, err := b.keep(nil, true, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	state, alive := b.supervisor()
	require.True(t, alive)
	assert.False(t, state.Settled)
	k.settle(t.Context())
	require.NoError(t, k.write())
	state, _ = b.supervisor()
	assert.True(t, state.Settled)
}

func TestSayWhere_SaysNoSecret(t *testing.T) {
	b := mustOpen(t)
	b.secrets = map[string]string{"X_API_KEY": "this-is-the-secret", "AUTH_PASS": "this-is-the-secret"}
	b.sayWhere()
	assert.Contains(t, b.out.String(), b.settings.AdminAddr)
	assert.NotContains(t, b.out.String(), "this-is-the-secret")
}

func TestOwns_IsAskedOfWhatRunsNow(t *testing.T) {
	b := mustOpen(t)
	require.NoError(t, b.start(t.Context()), b.out)
	for _, pid := range b.pids(t) {
		assert.True(t, b.owns(pid))
	}
	require.NoError(t, os.Remove(b.pidFile(native.Gateway)))
	assert.True(t, b.owns(b.pids(t)[1]), "one without a pid file")
	assert.False(t, b.owns(os.Getpid()))
}

// The one that serves is not given up for one that nobody waits for any more.
func TestReplaced_InterruptedWhileTheOldOneServes_KeepsThatOne(t *testing.T) {
	b := mustOpen(t)
	require.NoError(t, b.start(t.Context()), b.out)
	before, alive, err := b.running(native.Gateway)
	require.NoError(t, err)
	require.True(t, alive)
	sleep, err := exec.LookPath("sleep")
	require.NoError(t, err)
	child, err := process.Start(process.Spec{Path: sleep, Args: []string{"300"}, Dir: "/", Log: b.settings.LogFile(native.Gateway), PIDFile: b.pidFile(native.Gateway)})
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.ErrorIs(t, b.replaced(ctx, native.Gateway, before, child), context.Canceled)
	require.Eventually(t, func() bool { return child.Exited() != nil }, waitLimit, time.Millisecond)
	now, err := process.Read(b.pidFile(native.Gateway))
	require.NoError(t, err)
	assert.Equal(t, before, now)
	assert.True(t, now.Alive())
	require.NoError(t, b.ready(t.Context(), native.Gateway))
}
