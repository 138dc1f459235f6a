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
	"strconv"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health/grpc_health_v1"

	"github.com/edge-serverless-box/esb/guard/logfile"
	"github.com/edge-serverless-box/esb/guard/supervise"
)

const (
	// stopTimeout is how long containerd has to end after SIGTERM before it is killed.
	stopTimeout = 10 * time.Second
	// maxLogSize is the size of the log file when it is moved to <name>.1, in bytes: the log takes at most twice this.
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
	// Before, when not nil, is called before each start: nothing has the files of containerd open then.
	Before func(ctx context.Context, stores Stores)
	// Logger is where starts, exits and restarts are reported; nil means slog.Default().
	Logger *slog.Logger
}

// Stores are the places of a containerd: Root lasts, State is of its running containers, Socket is where it serves.
type Stores struct{ Root, State, Socket string }

// Containerd is a running containerd with its watcher.
type Containerd struct {
	cfg     Config
	paths   paths
	output  *logfile.File
	watcher *supervise.Supervisor
	// closed is what the first Close has returned.
	closed func() error
}

// Start stops a containerd that a killed agent left, starts a new one and returns when it serves. It is restarted
// when it exits or hangs, until Close. When Start fails, nothing runs. ctx bounds Start alone.
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
	c := &Containerd{cfg: cfg, paths: pathsOf(cfg)}
	if err := stopLeftover(ctx, c.paths, cfg.Logger); err != nil {
		return nil, err
	}
	if err := c.paths.prepare(cfg); err != nil {
		return nil, err
	}
	output, err := logfile.Open(c.paths.log, maxLogSize, logTailSize)
	if err != nil {
		return nil, fmt.Errorf("containerd: %w", err)
	}
	c.output = output
	c.watcher = supervise.Start(supervise.Config{
		Name: "containerd", Start: c.start, Log: output, Logger: cfg.Logger.With("address", c.paths.socket), StopTimeout: stopTimeout,
		Probe: func(ctx context.Context) error { return waitServing(ctx, c.paths.socket) },
	})
	c.closed = sync.OnceValue(func() error {
		c.watcher.Close()
		return errors.Join(c.paths.remove(), c.output.Close())
	})
	if err := c.watcher.First(ctx); err != nil {
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
func (c *Containerd) Healthy() bool { return c.watcher.State().Serving }

// Close stops containerd and waits until it has ended. Shims and containers live on; the run folder is removed as far
// as they do not need it. Close may be called twice.
func (c *Containerd) Close() error { return c.closed() }

// start starts containerd and writes its pid file.
func (c *Containerd) start(ctx context.Context) (supervise.Process, error) {
	if c.cfg.Before != nil {
		c.cfg.Before(ctx, Stores{c.paths.root, c.paths.state, c.paths.socket})
		if err := c.paths.prepare(c.cfg); err != nil {
			return nil, err
		}
	}
	cmd := exec.Command(c.cfg.Binary, "--config", c.paths.config)
	cmd.Env = environment(c.cfg.BinDir)
	cmd.Stdout, cmd.Stderr = c.output, c.output
	cmd.SysProcAttr = supervise.Attributes()
	child, err := supervise.Run(cmd)
	if err != nil {
		return nil, err
	}
	if err := os.WriteFile(c.paths.pid, []byte(strconv.Itoa(child.PID())+"\n"), 0o600); err != nil {
		err = errors.Join(fmt.Errorf("write the pid file: %w", err), child.Kill())
		<-child.Ended()
		return nil, err
	}
	return child, nil
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
