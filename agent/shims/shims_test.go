package shims

import (
	"context"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// patience is a generous limit for what takes milliseconds.
const patience = 60 * time.Second

// TestMain makes this program the shim, when it is called that: it does nothing, until SIGTERM, which stands for containerd's telling it to end.
func TestMain(m *testing.M) {
	if filepath.Base(os.Args[0]) == program {
		told := make(chan os.Signal, 1)
		signal.Notify(told, unix.SIGTERM)
		log, err := os.OpenFile("log", os.O_WRONLY, 0)
		if err == nil {
			_, err = log.WriteString("here\n")
		}
		if err == nil {
			err = os.WriteFile("up", nil, 0o600)
		}
		if err != nil {
			panic(err)
		}
		<-told
		return
	}
	os.Exit(m.Run())
}

func mustConfig(t *testing.T) Config {
	t.Helper()
	dir := t.TempDir()
	self, err := os.Executable()
	require.NoError(t, err)
	require.NoError(t, os.Symlink(self, filepath.Join(dir, program)))
	sockets, err := os.MkdirTemp("", "shims") // short enough for a socket
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, os.RemoveAll(sockets)) })
	return Config{BinDir: dir, Namespace: "test", Address: filepath.Join(dir, "containerd.sock"), SocketDir: sockets, Dir: filepath.Join(dir, "shims"), Max: 2, Logger: slog.New(slog.DiscardHandler)}
}

func mustOpen(t *testing.T, cfg Config) *Pool {
	t.Helper()
	p, err := Open(cfg)
	require.NoError(t, err)
	t.Cleanup(func() { end(t, p) })
	return p
}

// end ends a pool and its shims.
func end(t *testing.T, p *Pool) {
	t.Helper()
	p.mu.Lock()
	var pids []int
	for _, s := range p.all {
		pids = append(pids, s.pid)
	}
	p.mu.Unlock()
	require.NoError(t, p.Close())
	for _, pid := range pids {
		_ = unix.Kill(pid, unix.SIGKILL)
		_, _ = unix.Wait4(pid, nil, 0, nil)
	}
}

func mustJoin(t *testing.T, p *Pool, key, container string) *Shim {
	t.Helper()
	s, err := p.Join(key, container)
	require.NoError(t, err)
	return s
}

func mustBeUp(t *testing.T, p *Pool, s *Shim) {
	t.Helper()
	require.Eventually(t, func() bool {
		_, err := os.Stat(filepath.Join(p.dir(s.ID), "up"))
		return err == nil
	}, patience, time.Millisecond, "the shim must come up")
}

func mustEnd(t *testing.T, p *Pool, s *Shim) {
	t.Helper()
	require.Eventually(t, func() bool {
		_, err := os.Stat(p.dir(s.ID))
		return os.IsNotExist(err)
	}, patience, time.Millisecond, "the shim must end, and its files go")
	assert.NoFileExists(t, p.socket(s.ID))
	assert.True(t, p.Gone(s))
	assert.ErrorIs(t, unix.Kill(s.pid, 0), unix.ESRCH, "it must be waited for")
}

func TestPool_ContainersOfAKeyShareAShim_AsManyAsFit(t *testing.T) {
	p := mustOpen(t, mustConfig(t))
	one := mustJoin(t, p, "f", "a")
	mustBeUp(t, p, one)
	assert.Same(t, one, mustJoin(t, p, "f", "b"), "also while the first is being made")
	two := mustJoin(t, p, "f", "c")
	assert.NotSame(t, one, two, "it is full")
	assert.NotSame(t, two, mustJoin(t, p, "g", "d"), "another function's")
	assert.FileExists(t, p.socket(one.ID))
	assert.Equal(t, "ttrpc+unix://"+p.socket(one.ID), p.Address(one))
	assert.False(t, p.Gone(one))
}

func TestPool_LastOneWaitsForTheOneThatIsBeingMade(t *testing.T) {
	p := mustOpen(t, mustConfig(t))
	s := mustJoin(t, p, "f", "a")
	p.Made("a", true)
	assert.Same(t, s, mustJoin(t, p, "f", "b"))
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	require.ErrorIs(t, p.Leave(ctx, "a"), context.DeadlineExceeded, "containerd would tell the shim to end, which has one half made")
	left := make(chan error, 1)
	go func() { left <- p.Leave(t.Context(), "a") }()
	p.Made("b", true)
	require.NoError(t, <-left)
	p.Left("a")
	assert.Same(t, s, mustJoin(t, p, "f", "c"))
	p.Made("c", false)
	require.NoError(t, p.Leave(t.Context(), "b"), "it is the last")
	next := mustJoin(t, p, "f", "d")
	assert.NotSame(t, s, next, "nobody comes into one that is to end")
	p.Left("b")
}

func TestPool_ShimWithoutContainers_EndsAndLeavesNothing(t *testing.T) {
	p := mustOpen(t, mustConfig(t))
	s := mustJoin(t, p, "f", "a")
	mustBeUp(t, p, s)
	p.Made("a", true)
	require.NoError(t, p.Leave(t.Context(), "a"))
	require.NoError(t, unix.Kill(s.pid, unix.SIGTERM)) // as containerd tells it
	p.Left("a")
	mustEnd(t, p, s)
	t.Run("also when nobody tells it", func(t *testing.T) {
		s := mustJoin(t, p, "f", "b")
		p.Made("b", false)
		mustEnd(t, p, s)
	})
}

func TestPool_ShimIsKilled_IsNotJoined(t *testing.T) {
	p := mustOpen(t, mustConfig(t))
	s := mustJoin(t, p, "f", "a")
	p.Made("a", true)
	require.NoError(t, unix.Kill(s.pid, unix.SIGKILL))
	require.Eventually(t, func() bool { return p.Gone(s) }, patience, time.Millisecond)
	mustEnd(t, p, s)
	assert.NotSame(t, s, mustJoin(t, p, "f", "b"))
	require.NoError(t, p.Leave(t.Context(), "a"))
	p.Left("a")
}

func TestLevelOf_WhatIsNotSaidToBeLess_IsAWarning(t *testing.T) {
	for line, want := range map[string]slog.Level{
		`time="2026-01-02T03:04:05Z" level=info msg="starting signal loop"`: slog.LevelDebug, `level=debug msg=x`: slog.LevelDebug,
		`level=error msg=x`: slog.LevelWarn, "panic: x": slog.LevelWarn, "goroutine 1 [running]:": slog.LevelWarn,
	} {
		assert.Equal(t, want, levelOf([]byte(line)), line)
	}
}

func TestOpen_TakesOverWhatRuns_AndEndsWhatIsEmpty(t *testing.T) {
	cfg := mustConfig(t)
	before := mustOpen(t, cfg)
	used, empty := mustJoin(t, before, "f", "a"), mustJoin(t, before, "g", "b")
	mustBeUp(t, before, used)
	mustBeUp(t, before, empty)
	before.Made("a", true)
	require.NoError(t, before.Close())
	require.NoError(t, os.MkdirAll(before.dir(Prefix+"gone"), 0o700))

	p := mustOpen(t, cfg)
	p.Adopt(used.ID, "f", "a")
	p.Adopt("unknown", "f", "x")
	p.EndEmpty()
	assert.NoDirExists(t, p.dir(Prefix+"gone"))
	again := mustJoin(t, p, "f", "c")
	assert.Equal(t, used.ID, again.ID)
	mustEnd(t, p, &Shim{ID: empty.ID, pid: empty.pid})
	p.Made("c", true)
	require.NoError(t, p.Leave(t.Context(), "a"))
	p.Left("a")
	assert.False(t, p.Gone(again))
}

// What functions run is in /proc, too.
func TestOpen_ProcessThatOnlyLooksLikeAShim_IsLeftAlone(t *testing.T) {
	cfg := mustConfig(t)
	kept := filepath.Join(filepath.Dir(cfg.Dir), "kept")
	require.NoError(t, os.MkdirAll(kept, 0o700))
	pretend := func(id string, attr *syscall.SysProcAttr) *exec.Cmd {
		c := exec.Command("/bin/sleep", "600")
		c.Args = []string{program, "-namespace", cfg.Namespace, "-address", cfg.Address, "-id", id}
		c.Path, c.SysProcAttr = "/proc/self/exe", attr
		c.Dir = t.TempDir()
		require.NoError(t, c.Start())
		t.Cleanup(func() { _ = c.Process.Kill(); _ = c.Wait() })
		return c
	}
	path := pretend(Prefix+"/../../kept", nil)
	elsewhere := pretend(Prefix+"0badc0de", &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWPID})
	require.NoError(t, os.MkdirAll(filepath.Join(cfg.Dir, Prefix+"0badc0de"), 0o700))
	p := mustOpen(t, cfg)
	p.mu.Lock()
	assert.Empty(t, p.all)
	p.mu.Unlock()
	p.EndEmpty()
	assert.DirExists(t, kept)
	for _, c := range []*exec.Cmd{path, elsewhere} {
		assert.NoError(t, c.Process.Signal(unix.Signal(0)))
	}
}

func TestOpen_ShimOfAnotherRelease_IsNotJoined(t *testing.T) {
	cfg := mustConfig(t)
	before := mustOpen(t, cfg)
	s := mustJoin(t, before, "f", "a")
	mustBeUp(t, before, s)
	before.Made("a", true)
	require.NoError(t, before.Close())
	self, err := os.Executable()
	require.NoError(t, err)
	text, err := os.ReadFile(self)
	require.NoError(t, err)
	next := filepath.Join(cfg.BinDir, program)
	require.NoError(t, os.Remove(next))
	require.NoError(t, os.WriteFile(next, text, 0o700))

	p := mustOpen(t, cfg)
	p.Adopt(s.ID, "f", "a")
	p.EndEmpty()
	assert.True(t, p.Lives(s.ID))
	other := mustJoin(t, p, "f", "b")
	assert.NotEqual(t, s.ID, other.ID)
	assert.Equal(t, other.ID, mustJoin(t, p, "f", "c").ID)
	require.NoError(t, unix.Kill(s.pid, unix.SIGKILL))
	require.Eventually(t, func() bool { return !p.Lives(s.ID) }, patience, time.Millisecond)
}
