package supervise

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/edge-serverless-box/esb/guard/logfile"
)

// played is a process whose life the test plays.
type played struct {
	ended      chan struct{}
	end        func()
	stubborn   bool
	terminated bool
	killed     bool
}

func (p *played) PID() int               { return 0 }
func (p *played) Ended() <-chan struct{} { return p.ended }
func (p *played) How() string            { return "exit status 7" }
func (p *played) Kill() error            { p.killed = true; p.end(); return nil }
func (p *played) Terminate() error {
	p.terminated = true
	if !p.stubborn {
		p.end()
	}
	return nil
}

// stage plays processes.
type stage struct {
	mu       sync.Mutex
	starts   []time.Time
	now      *played
	startErr error
	probeErr error
	stubborn bool
}

func (s *stage) start(context.Context) (Process, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.starts = append(s.starts, time.Now())
	if s.startErr != nil {
		return nil, s.startErr
	}
	ended := make(chan struct{})
	s.now = &played{ended: ended, end: sync.OnceFunc(func() { close(ended) }), stubborn: s.stubborn}
	return s.now, nil
}

func (s *stage) probe(context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.probeErr
}

func (s *stage) unwell(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.probeErr = err
}

// process is the present one, times are those of all starts; whatever is about to happen has happened.
func (s *stage) process() *played {
	synctest.Wait()
	return s.now
}

func (s *stage) times() []time.Time {
	synctest.Wait()
	return s.starts
}

func (s *stage) config() Config {
	return Config{Name: "x", Start: s.start, Probe: s.probe, Logger: slog.New(slog.DiscardHandler)}
}

func (s *stage) pauses() []time.Duration {
	var pauses []time.Duration
	for i := 1; i < len(s.times()); i++ {
		pauses = append(pauses, s.starts[i].Sub(s.starts[i-1]))
	}
	return pauses
}

func TestSupervisor_EndsAgainAndAgain_PausesGrowUntilItIsSteady(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		stage := &stage{}
		s := Start(stage.config())
		defer s.Close()
		require.NoError(t, s.First(t.Context()))
		for range 9 {
			stage.process().end()
			time.Sleep(DefaultMaxBackoff + time.Millisecond) // more than any pause, less than steady
			synctest.Wait()
		}
		state := s.State()
		assert.True(t, state.Serving)
		assert.False(t, state.Failing)
		assert.Equal(t, 9, state.Restarts)
		require.ErrorContains(t, state.Err, "x ended: exit status 7")
		time.Sleep(DefaultSteadyAfter + time.Millisecond)
		stage.process().end()
		before := time.Now()
		time.Sleep(time.Second)
		require.Len(t, stage.times(), 11)
		assert.Equal(t, DefaultMinBackoff, stage.times()[10].Sub(before))
	})
}

func TestSupervisor_CannotBeStarted_IsTriedWithGrowingPauses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		stage := &stage{startErr: errors.New("no such file")}
		s := Start(stage.config())
		require.ErrorContains(t, s.First(t.Context()), "start x: no such file")
		time.Sleep(time.Minute)
		s.Close()
		ms := time.Millisecond
		assert.Equal(t, []time.Duration{100 * ms, 200 * ms, 400 * ms, 800 * ms, 1600 * ms, 3200 * ms, 6400 * ms, 10000 * ms}, stage.pauses()[:8])
		assert.Equal(t, DefaultMaxBackoff, stage.pauses()[8])
		assert.NotZero(t, s.State().Restarts)
		assert.True(t, s.State().Failing)
		assert.False(t, s.State().Serving)
	})
}

func TestSupervisor_DoesNotAnswer_IsKilledAndStartedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		stage := &stage{}
		s := Start(stage.config())
		defer s.Close()
		require.NoError(t, s.First(t.Context()))
		first := stage.process()
		stage.unwell(errors.New("500"))
		time.Sleep((DefaultMaxFailures-1)*DefaultProbeEvery + time.Second)
		synctest.Wait()
		assert.False(t, first.killed, "it may be slow")
		stage.unwell(nil)
		time.Sleep(time.Hour)
		synctest.Wait()
		assert.False(t, first.killed, "it was slow")
		stage.unwell(errors.New("500"))
		time.Sleep(DefaultMaxFailures*DefaultProbeEvery + time.Second)
		stage.unwell(nil)
		synctest.Wait()
		assert.True(t, first.killed)
		time.Sleep(time.Second)
		synctest.Wait()
		assert.True(t, s.State().Serving)
		require.ErrorContains(t, s.State().Err, "x was killed: it hangs: 500")
	})
}

func TestSupervisor_NeverServes_IsKilled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		stage := &stage{probeErr: errors.New("refused")}
		s := Start(stage.config())
		defer s.Close()
		require.ErrorContains(t, s.First(t.Context()), "x was killed: it did not serve within 1m0s: refused")
		assert.Len(t, stage.times(), 1)
	})
}

func TestClose_ProcessIsStubborn_IsKilledAfterItsGrace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		stage := &stage{stubborn: true}
		s := Start(stage.config())
		require.NoError(t, s.First(t.Context()))
		began := time.Now()
		s.Close()
		assert.True(t, stage.process().terminated)
		assert.True(t, stage.process().killed)
		assert.Equal(t, DefaultStopTimeout, time.Since(began))
		s.Close() // harmless
		assert.Equal(t, State{Since: time.Now()}, s.State())
	})
}

func TestClose_WhileItPauses_EndsAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		stage := &stage{startErr: errors.New("no such file")}
		s := Start(stage.config())
		require.Error(t, s.First(t.Context()))
		time.Sleep(10 * time.Second)
		synctest.Wait()
		began := time.Now()
		s.Close()
		assert.Zero(t, time.Since(began))
	})
}

func TestRelease_ProcessGoesOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		stage := &stage{}
		s := Start(stage.config())
		require.NoError(t, s.First(t.Context()))
		s.Release()
		assert.False(t, stage.process().terminated)
		assert.False(t, stage.process().killed)
		stage.process().end()
		time.Sleep(time.Hour)
		assert.Len(t, stage.times(), 1, "nobody starts it again")
	})
}

func TestFirst_CallerLeaves_SaysSo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		stage := &stage{probeErr: errors.New("refused")}
		s := Start(stage.config())
		defer s.Close()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		require.ErrorIs(t, s.First(ctx), context.DeadlineExceeded)
	})
}

// limit bounds every wait for real processes.
const limit = 60 * time.Second

// mustRun keeps a shell script running.
func mustRun(t *testing.T, script string) *Supervisor {
	t.Helper()
	log, err := logfile.Open(filepath.Join(t.TempDir(), "log"), 1<<20, 1<<10)
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, log.Close()) })
	s := Start(Config{
		Name: "script", Log: log, Logger: slog.New(slog.DiscardHandler), StopTimeout: limit,
		Start: func(context.Context) (Process, error) {
			cmd := exec.Command("/bin/sh", "-c", script)
			cmd.SysProcAttr = Attributes()
			cmd.Stdout, cmd.Stderr = log, log
			return Run(cmd)
		},
		Probe: func(context.Context) error {
			if !strings.Contains(log.Tail(), "ready") {
				return errors.New("not ready")
			}
			return nil
		},
	})
	t.Cleanup(s.Close)
	return s
}

func TestRun_Child_HasASessionOfItsOwnAndComesBackAfterAKill(t *testing.T) {
	s := mustRun(t, "echo ready; exec sleep 300")
	require.NoError(t, s.First(t.Context()))
	before := s.State().PID
	group, err := syscall.Getpgid(before)
	require.NoError(t, err)
	assert.Equal(t, before, group)
	require.NoError(t, syscall.Kill(before, syscall.SIGKILL))
	require.Eventually(t, func() bool { return s.State().Serving && s.State().PID != before }, limit, 5*time.Millisecond)
	assert.ErrorContains(t, s.State().Err, "signal: killed")
	now := s.State().PID
	s.Close()
	assert.ErrorIs(t, syscall.Kill(now, 0), syscall.ESRCH)
}

func TestRun_ChildFails_FirstHasTheEndOfItsLog(t *testing.T) {
	s := mustRun(t, "echo 'the disk is full' >&2; exit 7")
	err := s.First(t.Context())
	require.ErrorContains(t, err, "exit status 7")
	assert.ErrorContains(t, err, "the disk is full")
}

func TestRun_ChildIsStopped_IsKilledWithItsGroup(t *testing.T) {
	s := mustRun(t, "sleep 300 & echo ready $!; wait")
	require.NoError(t, s.First(t.Context()))
	before := s.State().PID
	var grandchild int
	_, err := fmt.Sscanf(s.cfg.Log.Tail(), "ready %d", &grandchild)
	require.NoError(t, err)
	require.NoError(t, syscall.Kill(before, syscall.SIGSTOP))
	require.Eventually(t, func() bool { return s.State().Serving && s.State().PID != before }, limit, 5*time.Millisecond)
	assert.ErrorContains(t, s.State().Err, "stopped it by a signal")
	require.Eventually(t, func() bool { return !runs(grandchild) }, limit, 5*time.Millisecond, "its child")
}

func TestRun_ChildLeavesItsOutputOpen_ItsEndIsSeen(t *testing.T) {
	s := mustRun(t, "setsid sleep 20 & echo ready; exit 3")
	require.Eventually(t, func() bool { return s.State().Restarts > 0 }, limit, 5*time.Millisecond)
	assert.ErrorContains(t, s.State().Err, "exit status 3")
}

// runs is false for a process that has ended, whoever has to reap it.
func runs(pid int) bool {
	out, err := exec.Command("ps", "-o", "stat=", "-p", fmt.Sprint(pid)).Output()
	return err == nil && !strings.HasPrefix(strings.TrimSpace(string(out)), "Z")
}
