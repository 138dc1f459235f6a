// Package supervisor runs the agent's own containerd as a child process: it writes its configuration, starts it,
// waits until it serves, restarts it when it dies, and stops it. Shims and containers are not children of containerd
// and live on through all of that.
package supervisor

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"sync/atomic"
	"syscall"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health/grpc_health_v1"
)

const (
	// startTimeout bounds one start until it serves; a large metadata database on a slow disk takes seconds.
	startTimeout = 60 * time.Second
	// stopTimeout is how long containerd has to end after SIGTERM before it is killed.
	stopTimeout = 10 * time.Second
	// Bounds of the wait before a restart; it doubles each time, and starts anew once containerd was up for
	// steadyAfter.
	minBackoff  = 100 * time.Millisecond
	maxBackoff  = 10 * time.Second
	steadyAfter = time.Minute
	// Size of the log file when it is moved to <name>.1, in bytes: the log takes at most twice this.
	maxLogSize = 4 << 20
	// logTailSize is how much of the log an error shows, in bytes.
	logTailSize = 2 << 10
)

// Config says how containerd is run.
type Config struct {
	// Dir holds images, snapshots and metadata, and lasts. The log is in ../logs/containerd.log next to it.
	Dir string
	// RunDir holds sockets, pid file, configuration and the state of running containers, as lasting as these.
	// Socket paths are limited to 108 bytes; when RunDir is too long for that, /run/esb-<hash of RunDir> is used in
	// its place.
	RunDir string
	// Binary is the path of containerd.
	Binary string
	// BinDir is searched first for containerd-shim-runc-v2 and runc.
	BinDir string
	// Logger is where starts, exits and restarts are reported; nil means slog.Default().
	Logger *slog.Logger
}

// Containerd is a running containerd with its watcher.
type Containerd struct {
	cfg     Config
	paths   paths
	log     *slog.Logger
	output  *logFile
	healthy atomic.Bool
	// cancel asks the watcher to stop containerd; done is closed when it has, closeErr is valid then.
	cancel   context.CancelFunc
	done     chan struct{}
	closeErr error
}

// Start stops a containerd that a killed agent left, starts a new one and returns when it serves. It is restarted
// when it exits, until Close. When Start fails, nothing runs. ctx bounds Start alone.
func Start(ctx context.Context, cfg Config) (*Containerd, error) {
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	for _, dir := range []*string{&cfg.Dir, &cfg.RunDir, &cfg.BinDir, &cfg.Binary} {
		abs, err := filepath.Abs(*dir)
		if err != nil {
			return nil, fmt.Errorf("containerd: %w", err)
		}
		*dir = abs
	}
	if err := checkBinaries(cfg); err != nil {
		return nil, err
	}
	c := &Containerd{cfg: cfg, paths: pathsOf(cfg), log: cfg.Logger, done: make(chan struct{})}
	if err := stopLeftover(ctx, c.paths, c.log); err != nil {
		return nil, err
	}
	if err := c.paths.prepare(cfg); err != nil {
		return nil, err
	}
	output, err := openLog(c.paths.log, maxLogSize, logTailSize)
	if err != nil {
		return nil, err
	}
	c.output = output

	background, cancel := context.WithCancel(context.WithoutCancel(ctx))
	c.cancel = cancel
	first := make(chan error, 1)
	go c.watch(background, first)
	select {
	case err = <-first:
	case <-ctx.Done():
		err = fmt.Errorf("start containerd: %w", ctx.Err())
	}
	if err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}

// checkBinaries names what is missing before anything is started.
func checkBinaries(cfg Config) error {
	for _, path := range []string{cfg.Binary, filepath.Join(cfg.BinDir, "containerd-shim-runc-v2"), filepath.Join(cfg.BinDir, "runc")} {
		if _, err := exec.LookPath(path); err != nil {
			return fmt.Errorf("the agent's own containerd needs %s (ESB_BIN_DIR), or set CONTAINERD_ADDRESS to use another containerd: %w", path, err)
		}
	}
	return nil
}

// Address returns the path of containerd's socket. It stays the same over restarts.
func (c *Containerd) Address() string { return c.paths.socket }

// ShimSockets is the folder of the sockets of its shims. Nobody else has sockets there.
func (c *Containerd) ShimSockets() string { return c.paths.shims }

// Healthy tells whether containerd runs and has served since its last start.
func (c *Containerd) Healthy() bool { return c.healthy.Load() }

// Close stops containerd and waits until it has ended. Shims and containers live on; the run folder is removed as far
// as they do not need it. Close may be called twice.
func (c *Containerd) Close() error {
	c.cancel()
	<-c.done
	return c.closeErr
}

// watch runs containerd until ctx ends. The outcome of the first start goes to first.
func (c *Containerd) watch(ctx context.Context, first chan<- error) {
	defer close(c.done)
	// The kernel sends Pdeathsig when the thread that started the child ends, so that thread stays (golang/go#27505).
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()

	wait := minBackoff
	for {
		started := time.Now()
		err := c.runOnce(ctx, func() {
			c.healthy.Store(true)
			if first != nil {
				first <- nil
				first = nil
			}
			c.log.Info("containerd serves", "address", c.paths.socket, "start_ms", time.Since(started).Milliseconds())
		})
		c.healthy.Store(false)
		if first != nil {
			first <- err
			break
		}
		if ctx.Err() != nil {
			break
		}
		if time.Since(started) > steadyAfter {
			wait = minBackoff
		}
		c.log.Error("containerd has ended and is restarted", "error", err, "restart_in_ms", wait.Milliseconds())
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
		case <-timer.C:
		}
		if ctx.Err() != nil {
			break
		}
		wait = min(2*wait, maxBackoff)
	}
	c.closeErr = errors.Join(c.paths.remove(), c.output.Close())
}

// runOnce starts containerd and returns when it has ended: by itself, because it never served, or because ctx ended.
func (c *Containerd) runOnce(ctx context.Context, serves func()) error {
	run, end := context.WithCancel(ctx)
	defer end()
	cmd := exec.CommandContext(run, c.cfg.Binary, "--config", c.paths.config)
	cmd.Env = environment(c.cfg.BinDir)
	cmd.Stdout, cmd.Stderr = c.output, c.output
	// When run ends: TERM, and KILL after WaitDelay.
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = stopTimeout
	// A group of its own, so that Ctrl-C in a terminal reaches the agent alone. TERM when the agent is killed.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	c.output.mark()
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start containerd: %w", err)
	}
	pidErr := os.WriteFile(c.paths.pid, []byte(strconv.Itoa(cmd.Process.Pid)+"\n"), 0o600)
	if pidErr != nil {
		end()
	}
	probed := make(chan error, 1)
	go func() {
		probe, cancel := context.WithTimeout(run, startTimeout)
		defer cancel()
		err := waitServing(probe, c.paths.socket)
		switch {
		case err == nil:
			serves()
		case run.Err() != nil:
			err = nil // Not the probe has failed, the process has ended or is to end.
		default:
			end()
		}
		probed <- err
	}()
	// The error says no more than the state that is reported below.
	_ = cmd.Wait()
	end()
	switch probeErr := <-probed; {
	case ctx.Err() != nil:
		return ctx.Err()
	case pidErr != nil:
		return fmt.Errorf("write the pid file of containerd: %w", pidErr)
	case probeErr != nil:
		return fmt.Errorf("containerd did not serve within %s; the end of %s:\n%s: %w", startTimeout, c.paths.log, c.output.tail(), probeErr)
	}
	return fmt.Errorf("containerd ended: %s; the end of %s:\n%s", cmd.ProcessState, c.paths.log, c.output.tail())
}

// waitServing returns when the standard health service answers at the socket.
func waitServing(ctx context.Context, socket string) error {
	conn, err := grpc.NewClient("unix://"+socket,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 10 * time.Millisecond, Multiplier: 1.5, MaxDelay: 100 * time.Millisecond},
			MinConnectTimeout: time.Second,
		}))
	if err != nil {
		return fmt.Errorf("connect to containerd at %s: %w", socket, err)
	}
	defer func() { _ = conn.Close() }()
	answer, err := grpc_health_v1.NewHealthClient(conn).Check(ctx, &grpc_health_v1.HealthCheckRequest{}, grpc.WaitForReady(true))
	if err != nil {
		return fmt.Errorf("ask containerd at %s for its health: %w", socket, err)
	}
	if answer.GetStatus() != grpc_health_v1.HealthCheckResponse_SERVING {
		return fmt.Errorf("containerd at %s says it is %s", socket, answer.GetStatus())
	}
	return nil
}

// environment is what containerd and, through it, the shims see: none of the agent's settings, which may be secrets,
// and no NOTIFY_SOCKET, which is the agent's.
func environment(binDir string) []string {
	env := []string{"PATH=" + binDir + ":/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
	for _, name := range []string{"HOME", "TMPDIR"} {
		if value, ok := os.LookupEnv(name); ok {
			env = append(env, name+"="+value)
		}
	}
	return env
}
