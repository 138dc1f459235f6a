// Package child runs a store's process: it starts it on free loopback ports that it alone reaches, waits until it serves, looks after its
// health, restarts it when it dies or hangs, and stops it.
package child

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"github.com/edge-serverless-box/esb/guard/logfile"
	"github.com/edge-serverless-box/esb/guard/supervise"
	"github.com/edge-serverless-box/esb/stores/confine"
)

const (
	// maxLogSize is the size of the log file, in bytes, when it is moved to <name>.1: the log takes at most twice this.
	maxLogSize = 8 << 20
	// logTailSize is how much of the log an error shows, in bytes.
	logTailSize = 2 << 10
	// retryDial is the pause before a process that is just starting is dialled again.
	retryDial = 20 * time.Millisecond
)

// Config says how a process is run.
type Config struct {
	// Name for logs and errors.
	Name string
	// Binary is the path of the program.
	Binary string
	// Ports is how many loopback ports it serves on.
	Ports int
	// Args makes the command line for the addresses, one host:port for each of Ports.
	Args func(addrs []string) []string
	// Env is the whole environment.
	Env []string
	// Dir is the folder of the data. It is made, and <Dir>.lock is locked while a process runs, so that no two work on it.
	Dir string
	// Log is the file of standard output and error.
	Log string
	// Confined lets nobody but this program reach the ports.
	Confined bool
	// Probe asks the process whether it serves; dial connects to its first port.
	Probe func(ctx context.Context, dial func(context.Context) (net.Conn, error)) error
	// Logger is where starts, ends and restarts are reported.
	Logger *slog.Logger
}

// dial connects to one of the addresses of a process.
type dial func(ctx context.Context, addr string) (net.Conn, error)

// Child is a running process with its watcher.
type Child struct {
	cfg     Config
	output  *logfile.File
	watcher *supervise.Supervisor

	// mu guards everything below: what is known of the present process.
	mu    sync.Mutex
	addrs []string
	dial  dial
	// closeDial gives the way to it up.
	closeDial func()
	// serves is closed while the process serves; it is replaced when it has ended.
	serves chan struct{}
}

// Start begins to start the process, and restarts it when it exits or hangs, or could not be started, until Close. When Start
// fails, nothing can ever run.
func Start(cfg Config) (*Child, error) {
	if _, err := exec.LookPath(cfg.Binary); err != nil {
		return nil, fmt.Errorf("%s needs %s (ESB_BIN_DIR): %w", cfg.Name, cfg.Binary, err)
	}
	for _, dir := range []string{cfg.Dir, filepath.Dir(cfg.Log)} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, fmt.Errorf("make a folder of %s: %w", cfg.Name, err)
		}
	}
	output, err := logfile.Open(cfg.Log, maxLogSize, logTailSize)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", cfg.Name, err)
	}
	c := &Child{cfg: cfg, output: output, serves: make(chan struct{})}
	c.watcher = supervise.Start(supervise.Config{
		Name: cfg.Name, Start: c.start, Probe: c.probe, Serves: c.open, Ended: c.shut, Log: output, Logger: cfg.Logger.With("store", cfg.Name),
	})
	return c, nil
}

// First waits until the process serves for the first time; the error says why it could not be started. It is tried again
// then all the same.
func (c *Child) First(ctx context.Context) error { return c.watcher.First(ctx) }

// PID is the present process, 0 when there is none.
func (c *Child) PID() int { return c.watcher.State().PID }

// Dial connects to the i-th port. While the process is being restarted, it waits, for as long as ctx allows. It does not wait
// for one that could not be started.
func (c *Child) Dial(ctx context.Context, i int) (net.Conn, error) {
	for {
		c.mu.Lock()
		serves := c.serves
		c.mu.Unlock()
		if c.watcher.State().Failing {
			return nil, fmt.Errorf("connect to %s: it cannot be started", c.cfg.Name)
		}
		select {
		case <-serves:
		case <-ctx.Done():
			return nil, fmt.Errorf("connect to %s, which is being restarted: %w", c.cfg.Name, ctx.Err())
		}
		c.mu.Lock()
		dial, addrs := c.dial, c.addrs
		c.mu.Unlock()
		conn, err := dial(ctx, addrs[i])
		if err == nil {
			return conn, nil
		}
		if ctx.Err() != nil {
			return nil, fmt.Errorf("connect to %s: %w", c.cfg.Name, err)
		}
		// It has just died: the watcher is about to notice.
		select {
		case <-time.After(retryDial):
		case <-ctx.Done():
		}
	}
}

// Close stops the process and waits until it has ended. It may be called twice.
func (c *Child) Close() error {
	c.watcher.Close()
	return c.output.Close()
}

// start starts the process on other ports than the one before.
func (c *Child) start(ctx context.Context) (supervise.Process, error) {
	addrs, err := freeAddrs(c.cfg.Ports)
	if err != nil {
		return nil, fmt.Errorf("find a port: %w", err)
	}
	held, err := lockData(ctx, c.cfg.Dir)
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(c.cfg.Binary, c.cfg.Args(addrs)...)
	cmd.Env = c.cfg.Env
	cmd.Dir = c.cfg.Dir
	cmd.Stdout, cmd.Stderr = c.output, c.output
	// The lock lives as long as the process, whatever becomes of this one.
	cmd.ExtraFiles = []*os.File{held}
	cmd.SysProcAttr = supervise.Attributes()
	process, dial, closeDial, err := c.startProcess(cmd)
	_ = held.Close()
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.addrs, c.dial, c.closeDial = addrs, dial, closeDial
	return process, nil
}

// open lets those in who wait for the process, shut has them wait for the next one.
func (c *Child) open() {
	c.mu.Lock()
	defer c.mu.Unlock()
	close(c.serves)
}

func (c *Child) shut() {
	c.mu.Lock()
	defer c.mu.Unlock()
	select {
	case <-c.serves:
		c.serves = make(chan struct{})
	default:
	}
	c.closeDial()
}

func (c *Child) probe(ctx context.Context) error {
	c.mu.Lock()
	dial, addr := c.dial, c.addrs[0]
	c.mu.Unlock()
	return c.cfg.Probe(ctx, func(ctx context.Context) (net.Conn, error) { return dial(ctx, addr) })
}

// startProcess starts the process, confined where it shall be, and returns how it is reached until closeDial.
func (c *Child) startProcess(cmd *exec.Cmd) (process supervise.Process, reach dial, closeDial func(), err error) {
	if !c.cfg.Confined {
		reach = func(ctx context.Context, addr string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "tcp", addr)
		}
		process, err = supervise.Run(cmd)
		return process, reach, func() {}, err
	}
	dialer, started, err := confine.Command(cmd)
	if err != nil {
		return nil, nil, nil, err
	}
	process, err = supervise.Run(cmd)
	started()
	if err != nil {
		return nil, nil, nil, errors.Join(err, dialer.Close())
	}
	return process, dialer.Dial, func() { _ = dialer.Close() }, nil
}

// freeAddrs finds loopback ports that nobody listens on, here; a confined process has all to itself. One that is taken before the process has it lets the process
// fail, and the next start has others.
func freeAddrs(n int) ([]string, error) {
	addrs := make([]string, n)
	for i := range addrs {
		l, err := net.Listen("tcp4", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		defer func() { _ = l.Close() }()
		addrs[i] = net.JoinHostPort("127.0.0.1", strconv.Itoa(l.Addr().(*net.TCPAddr).Port))
	}
	return addrs, nil
}
