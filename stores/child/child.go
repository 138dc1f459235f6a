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
	"runtime"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/edge-serverless-box/esb/stores/confine"
)

const (
	// startTimeout bounds one start until it serves; opening a large store on a slow disk takes its time.
	startTimeout = 60 * time.Second
	// stopTimeout is how long a process has to end after SIGTERM before it is killed.
	stopTimeout = 15 * time.Second
	// Bounds of the wait before a restart; it doubles each time, and starts anew once the process was up for steadyAfter.
	minBackoff  = 100 * time.Millisecond
	maxBackoff  = 10 * time.Second
	steadyAfter = time.Minute
	// firstProbe and probeEvery are the pauses between questions whether the process serves, while it starts and afterwards;
	// after maxFailures wrong answers in a row, each of which may take probeTimeout, it is taken to hang.
	firstProbe   = 20 * time.Millisecond
	probeEvery   = 5 * time.Second
	probeTimeout = 10 * time.Second
	maxFailures  = 4
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
	// Logger is where starts, exits and restarts are reported.
	Logger *slog.Logger
}

// dial connects to one of the addresses of a process.
type dial func(ctx context.Context, addr string) (net.Conn, error)

// Child is a running process with its watcher.
type Child struct {
	cfg    Config
	output *logFile
	// cancel asks the watcher to stop the process; done is closed when it has.
	cancel context.CancelFunc
	done   chan struct{}

	// mu guards everything below: what is known of the present process.
	mu    sync.Mutex
	addrs []string
	dial  dial
	pid   int
	// serves is closed while the process serves; it is replaced when it has ended.
	serves chan struct{}
}

// Start starts the process and returns when it serves. It is restarted when it exits or hangs, until Close. When Start
// fails, nothing runs. ctx bounds Start alone.
func Start(ctx context.Context, cfg Config) (*Child, error) {
	if _, err := exec.LookPath(cfg.Binary); err != nil {
		return nil, fmt.Errorf("%s needs %s (ESB_BIN_DIR): %w", cfg.Name, cfg.Binary, err)
	}
	for _, dir := range []string{cfg.Dir, filepath.Dir(cfg.Log)} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, fmt.Errorf("make a folder of %s: %w", cfg.Name, err)
		}
	}
	output, err := openLog(cfg.Log, maxLogSize, logTailSize)
	if err != nil {
		return nil, err
	}
	background, cancel := context.WithCancel(context.WithoutCancel(ctx))
	c := &Child{cfg: cfg, output: output, cancel: cancel, done: make(chan struct{}), serves: make(chan struct{})}
	first := make(chan error, 1)
	go c.watch(background, first)
	select {
	case err = <-first:
	case <-ctx.Done():
		err = fmt.Errorf("start %s: %w", cfg.Name, ctx.Err())
	}
	if err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}

// PID is the present process, 0 when there is none.
func (c *Child) PID() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.pid
}

// Dial connects to the i-th port. While the process is being restarted, it waits, for as long as ctx allows.
func (c *Child) Dial(ctx context.Context, i int) (net.Conn, error) {
	for {
		c.mu.Lock()
		serves := c.serves
		c.mu.Unlock()
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
	c.cancel()
	<-c.done
	return c.output.Close()
}

// watch runs the process until ctx ends. The outcome of the first start goes to first.
func (c *Child) watch(ctx context.Context, first chan<- error) {
	defer close(c.done)
	// The kernel sends Pdeathsig when the thread that started the child ends, so that thread stays (golang/go#27505).
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()

	log := c.cfg.Logger
	wait := minBackoff
	for {
		started := time.Now()
		err := c.runOnce(ctx, func(pid int) {
			if first != nil {
				first <- nil
				first = nil
			}
			log.Info("store serves", "store", c.cfg.Name, "pid", pid, "start_ms", time.Since(started).Milliseconds())
		})
		if first != nil {
			first <- err
			return
		}
		if ctx.Err() != nil {
			return
		}
		if time.Since(started) > steadyAfter {
			wait = minBackoff
		}
		log.Error("store has ended and is restarted", "store", c.cfg.Name, "error", err, "restart_in_ms", wait.Milliseconds())
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
		wait = min(2*wait, maxBackoff)
	}
}

// runOnce starts the process and returns when it has ended: by itself, because it did not serve, or because ctx ended.
func (c *Child) runOnce(ctx context.Context, serves func(pid int)) error {
	addrs, err := freeAddrs(c.cfg.Ports)
	if err != nil {
		return fmt.Errorf("find a port for %s: %w", c.cfg.Name, err)
	}
	held, err := lockData(ctx, c.cfg.Dir)
	if err != nil {
		return fmt.Errorf("start %s: %w", c.cfg.Name, err)
	}
	run, end := context.WithCancel(ctx)
	defer end()
	cmd := exec.CommandContext(run, c.cfg.Binary, c.cfg.Args(addrs)...)
	cmd.Env = c.cfg.Env
	cmd.Dir = c.cfg.Dir
	cmd.Stdout, cmd.Stderr = c.output, c.output
	// The lock lives as long as the process, whatever becomes of this one.
	cmd.ExtraFiles = []*os.File{held}
	// When run ends: TERM, and KILL after WaitDelay.
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = stopTimeout
	// A group of its own, so that Ctrl-C in a terminal reaches this program alone. TERM when this program is killed.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	c.output.mark()
	dial, closeDial, err := c.startProcess(cmd)
	_ = held.Close()
	if err != nil {
		return fmt.Errorf("start %s: %w", c.cfg.Name, err)
	}
	defer closeDial()
	pid := cmd.Process.Pid
	c.mu.Lock()
	c.addrs, c.dial, c.pid = addrs, dial, pid
	c.mu.Unlock()
	first := func(ctx context.Context) (net.Conn, error) { return dial(ctx, addrs[0]) }

	probed := make(chan error, 1)
	go func() {
		err := c.attend(run, first, func() { serves(pid) })
		if err != nil {
			// It would not heed SIGTERM either, and its data survives a kill.
			_ = cmd.Process.Kill()
		}
		probed <- err
	}()
	// The error says no more than the state that is reported below.
	_ = cmd.Wait()
	end()
	probeErr := <-probed
	c.mu.Lock()
	select {
	case <-c.serves:
		c.serves = make(chan struct{})
	default:
	}
	c.pid = 0
	c.mu.Unlock()
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case probeErr != nil:
		return fmt.Errorf("%s was killed: %w; the end of %s:\n%s", c.cfg.Name, probeErr, c.cfg.Log, c.output.tail())
	}
	return fmt.Errorf("%s ended: %s; the end of %s:\n%s", c.cfg.Name, cmd.ProcessState, c.cfg.Log, c.output.tail())
}

// attend waits until the process serves, says so, and goes on asking until it does not any more, which is an error, or
// ctx ends.
func (c *Child) attend(ctx context.Context, first func(context.Context) (net.Conn, error), serves func()) error {
	if err := c.awaitServing(ctx, first); err != nil || ctx.Err() != nil {
		return err
	}
	c.mu.Lock()
	close(c.serves)
	c.mu.Unlock()
	serves()
	ticker := time.NewTicker(probeEvery)
	defer ticker.Stop()
	for failures := 0; ; {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
		err := c.probe(ctx, first)
		switch {
		case ctx.Err() != nil:
			return nil
		case err == nil:
			failures = 0
		default:
			failures++
			c.cfg.Logger.Warn("store does not answer as it should", "store", c.cfg.Name, "error", err, "failures", failures)
			if failures == maxFailures {
				return fmt.Errorf("it hangs: %w", err)
			}
		}
	}
}

func (c *Child) awaitServing(ctx context.Context, first func(context.Context) (net.Conn, error)) error {
	starting, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	ticker := time.NewTicker(firstProbe)
	defer ticker.Stop()
	for {
		err := c.probe(starting, first)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return nil
		case <-starting.Done():
			return fmt.Errorf("it did not serve within %s: %w", startTimeout, err)
		case <-ticker.C:
		}
	}
}

func (c *Child) probe(ctx context.Context, first func(context.Context) (net.Conn, error)) error {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	return c.cfg.Probe(ctx, first)
}

// startProcess starts the process, confined where it shall be, and returns how it is reached until closeDial.
func (c *Child) startProcess(cmd *exec.Cmd) (reach dial, closeDial func(), err error) {
	if !c.cfg.Confined {
		reach = func(ctx context.Context, addr string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "tcp", addr)
		}
		return reach, func() {}, cmd.Start()
	}
	dialer, started, err := confine.Command(cmd)
	if err != nil {
		return nil, nil, err
	}
	err = cmd.Start()
	started()
	if err != nil {
		return nil, nil, errors.Join(err, dialer.Close())
	}
	return dialer.Dial, func() { _ = dialer.Close() }, nil
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
