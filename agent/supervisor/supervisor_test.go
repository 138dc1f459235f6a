package supervisor

import (
	"context"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// limit is for what takes milliseconds on an idle machine.
const limit = 60 * time.Second

// mustConfig returns a configuration with folders of the test's own, or skips the test.
func mustConfig(t *testing.T) Config {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("containerd needs root")
	}
	bin := os.Getenv("ESB_BIN_DIR")
	if bin == "" {
		bin = filepath.Join("..", "..", ".esb", "bin")
	}
	bin, err := filepath.Abs(bin)
	require.NoError(t, err)
	if _, err := os.Stat(filepath.Join(bin, "containerd")); err != nil {
		t.Skipf("no containerd in %s: build it, or set ESB_BIN_DIR", bin)
	}
	dir := t.TempDir()
	return Config{Dir: filepath.Join(dir, "containerd"), RunDir: filepath.Join(dir, "run"), Binary: filepath.Join(bin, "containerd"), BinDir: bin}
}

func mustStart(t *testing.T, cfg Config) *Containerd {
	t.Helper()
	c, err := Start(t.Context(), cfg)
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, c.Close()) })
	return c
}

func mustPID(t *testing.T, p paths) int {
	t.Helper()
	text, err := os.ReadFile(p.pid)
	require.NoError(t, err)
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	require.NoError(t, err)
	return pid
}

func assertServes(t *testing.T, address string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	assert.NoError(t, waitServing(ctx, address))
}

func TestStart_Serves_AndCloseLeavesOnlyWhatLasts(t *testing.T) {
	cfg := mustConfig(t)
	c := mustStart(t, cfg)
	assert.True(t, c.Healthy())
	assertServes(t, c.Address())
	pid := mustPID(t, c.paths)

	require.NoError(t, c.Close())

	assert.False(t, c.Healthy())
	assert.ErrorIs(t, syscall.Kill(pid, 0), syscall.ESRCH)
	assert.NoDirExists(t, c.paths.run)
	assert.DirExists(t, cfg.Dir)
	assert.FileExists(t, filepath.Join(filepath.Dir(cfg.Dir), "logs", "containerd.log"))
	assert.NoError(t, c.Close(), "a second Close is harmless")
}

func TestWatch_ContainerdKilled_ServesAgainAtTheSameAddress(t *testing.T) {
	c := mustStart(t, mustConfig(t))
	before := mustPID(t, c.paths)
	require.NoError(t, syscall.Kill(before, syscall.SIGKILL))

	require.Eventually(t, func() bool {
		text, err := os.ReadFile(c.paths.pid)
		return err == nil && strings.TrimSpace(string(text)) != strconv.Itoa(before) && c.Healthy()
	}, limit, 10*time.Millisecond)
	assertServes(t, c.Address())
}

func TestStart_ContainerdLeftByAKilledAgent_IsReplaced(t *testing.T) {
	cfg := mustConfig(t)
	p := pathsOf(cfg)
	require.NoError(t, p.prepare(cfg))
	// As an agent that was killed leaves it: running, with socket and pid file.
	left := exec.Command(cfg.Binary, "--config", p.config)
	require.NoError(t, left.Start())
	ended := make(chan struct{})
	go func() { defer close(ended); _ = left.Wait() }()
	t.Cleanup(func() { _ = left.Process.Kill(); <-ended })
	require.NoError(t, os.WriteFile(p.pid, []byte(strconv.Itoa(left.Process.Pid)), 0o600))
	assertServes(t, p.socket)

	c := mustStart(t, cfg)

	select {
	case <-ended:
	case <-time.After(limit):
		t.Fatal("the former containerd still runs")
	}
	assert.NotEqual(t, left.Process.Pid, mustPID(t, c.paths))
	assertServes(t, c.Address())
}

func TestStopLeftover_PidOfAnotherProcess_IsLeftAlone(t *testing.T) {
	other := exec.Command("sleep", "600")
	require.NoError(t, other.Start())
	t.Cleanup(func() { _ = other.Process.Kill(); _ = other.Wait() })
	dir := t.TempDir()
	p := pathsOf(Config{Dir: filepath.Join(dir, "c"), RunDir: dir})
	p.pid = filepath.Join(dir, "containerd.pid")
	for _, content := range []string{strconv.Itoa(other.Process.Pid), "", "not a number", "-1", "1"} {
		require.NoError(t, os.WriteFile(p.pid, []byte(content), 0o600))
		require.NoError(t, stopLeftover(t.Context(), p, nil), "pid file %q", content)
	}
	assert.NoError(t, other.Process.Signal(syscall.Signal(0)))
}

func TestStart_ContainerdFails_SaysWhyAndLeavesNothing(t *testing.T) {
	cfg := mustConfig(t)
	// A binary that ends at once; the shim and runc are those of the box.
	cfg.Binary = filepath.Join(t.TempDir(), "containerd")
	require.NoError(t, os.WriteFile(cfg.Binary, []byte("#!/bin/sh\necho 'the disk is full' >&2\nexit 7\n"), 0o755))

	_, err := Start(t.Context(), cfg)

	require.Error(t, err)
	assert.Contains(t, err.Error(), "exit status 7")
	assert.Contains(t, err.Error(), "the disk is full")
	assert.NoDirExists(t, pathsOf(cfg).run)
}

func TestStart_CallerLeaves_StopsContainerd(t *testing.T) {
	cfg := mustConfig(t)
	cfg.Binary = filepath.Join(t.TempDir(), "containerd")
	started := filepath.Join(t.TempDir(), "started")
	require.NoError(t, os.WriteFile(cfg.Binary, []byte("#!/bin/sh\n: > "+started+"\nexec sleep 600\n"), 0o755))
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		defer cancel()
		for ctx.Err() == nil {
			if _, err := os.Stat(started); err == nil {
				return
			}
			time.Sleep(time.Millisecond)
		}
	}()

	_, err := Start(ctx, cfg)

	require.ErrorIs(t, err, context.Canceled)
	assert.NoDirExists(t, pathsOf(cfg).run)
}

func TestStart_BinaryMissing_NamesItAndTheSetting(t *testing.T) {
	cfg := mustConfig(t)
	cfg.BinDir = t.TempDir()
	_, err := Start(t.Context(), cfg)
	require.ErrorContains(t, err, filepath.Join(cfg.BinDir, "containerd-shim-runc-v2"))
	assert.ErrorContains(t, err, "ESB_BIN_DIR")
}

func TestPathsOf_DeepRunDir_SocketsStayWithinTheLimit(t *testing.T) {
	const longest = 107 // 108 bytes with the final zero.
	deep := "/srv/" + strings.Repeat("deep/", 40) + "run"
	for _, run := range []string{"/run/esb", deep} {
		p := pathsOf(Config{Dir: "/srv/containerd", RunDir: run})
		assert.LessOrEqual(t, len(p.socket+".ttrpc"), longest)
		assert.LessOrEqual(t, len(filepath.Join(p.shims, strings.Repeat("f", 64))), longest)
		assert.Equal(t, p, pathsOf(Config{Dir: "/srv/containerd", RunDir: run}), "an agent finds the folder of the one before")
	}
	assert.Equal(t, "/run/esb", pathsOf(Config{Dir: "/srv/c", RunDir: "/run/esb"}).run)
	assert.NotEqual(t, pathsOf(Config{RunDir: deep}).run, pathsOf(Config{RunDir: deep + "2"}).run)
}

func TestRemove_RunningContainersNeedIt_KeepsTheirState(t *testing.T) {
	dir := t.TempDir()
	cfg := Config{Dir: filepath.Join(dir, "containerd"), RunDir: filepath.Join(dir, "run")}
	p := pathsOf(cfg)
	p.run, p.state, p.shims = dir, filepath.Join(dir, "state"), filepath.Join(dir, "s")
	require.NoError(t, os.MkdirAll(filepath.Join(p.state, "io.containerd.runtime.v2.task", "esb-runtime", "one"), 0o700))
	require.NoError(t, os.MkdirAll(filepath.Join(p.state, "empty", "too"), 0o700))
	require.NoError(t, os.MkdirAll(p.shims, 0o700))
	address := filepath.Join(p.state, "io.containerd.runtime.v2.task", "esb-runtime", "one", "address")
	require.NoError(t, os.WriteFile(address, nil, 0o600))
	// In the container something is mounted on it.
	mountPoint := filepath.Join(filepath.Dir(address), "rootfs", "dev")
	require.NoError(t, os.MkdirAll(mountPoint, 0o700))
	shim, err := net.Listen("unix", filepath.Join(p.shims, "x"))
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, shim.Close()) })

	require.NoError(t, p.remove())

	assert.FileExists(t, address)
	assert.DirExists(t, mountPoint)
	assert.NoDirExists(t, filepath.Join(p.state, "empty"))
	assert.DirExists(t, p.shims)
}
