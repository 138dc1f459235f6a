// Package supervise keeps a process running: it starts it, waits until it serves, looks after its life and its health,
// starts it again with growing pauses when it ends or hangs, and stops it. What a process is, how it is started and how it is
// asked are the caller's.
package supervise

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"runtime"
	"strings"
	"sync"
	"time"

	"github.com/edge-serverless-box/esb/guard/logfile"
)

// Defaults of Config.
const (
	// DefaultStartTimeout: opening a large store on a slow disk takes its time.
	DefaultStartTimeout = 60 * time.Second
	// DefaultStopTimeout of a process that has been asked to end.
	DefaultStopTimeout = 15 * time.Second
	// DefaultProbeEvery, DefaultProbeTimeout, DefaultMaxFailures find a process that hangs within a minute, and mistake none
	// for that which a loaded machine makes slow.
	DefaultProbeEvery   = 5 * time.Second
	DefaultProbeTimeout = 10 * time.Second
	DefaultMaxFailures  = 4
	// DefaultMinBackoff and DefaultMaxBackoff bound the pause before a start; it doubles with each failure.
	DefaultMinBackoff = 100 * time.Millisecond
	DefaultMaxBackoff = 10 * time.Second
	// DefaultSteadyAfter is how long a process serves until its failures are forgotten.
	DefaultSteadyAfter = time.Minute
)

const (
	// firstProbe is the pause between questions while a process starts.
	firstProbe = 20 * time.Millisecond
	// standstillEvery is how often the kernel is asked whether a process is stopped by a signal, standstills after how many times
	// in a row it is taken to hang: unlike one that does not answer, it cannot be busy.
	standstillEvery = time.Second
	standstills     = 2
	// killTimeout is how long the kernel may take to tear a killed process down.
	killTimeout = 10 * time.Second
)

// Process is a running process.
type Process interface {
	// PID names it.
	PID() int
	// Ended is closed when it has ended.
	Ended() <-chan struct{}
	// How says how it has ended, once it has.
	How() string
	// Terminate asks it to end.
	Terminate() error
	// Kill ends it and all of its group.
	Kill() error
}

// Config says what is kept running, and how. Durations and counts that are 0 are the defaults.
type Config struct {
	// Name for errors and logs.
	Name string
	// Start starts the process, or finds the one that runs. It is always called on the same thread, which lives as long as the
	// Supervisor: the kernel sends the signal of Pdeathsig when the thread that has started a child ends (golang/go#27505).
	Start func(ctx context.Context) (Process, error)
	// Probe asks whether it serves.
	Probe func(ctx context.Context) error
	// Serves is called when the process has begun to serve, Ended when it has ended; both may be nil.
	Serves func()
	Ended  func()
	// Changed is called after every change of the state; it may be nil.
	Changed func()
	// Log has what the process writes, for errors; nil when somebody else has.
	Log *logfile.File
	// Logger is where starts, ends and restarts are reported.
	Logger *slog.Logger

	// StartTimeout bounds one start until it serves, StopTimeout an end until it is killed.
	StartTimeout, StopTimeout time.Duration
	// ProbeEvery is the pause between questions once it serves. After MaxFailures wrong answers in a row, each of which may take
	// ProbeTimeout, it is taken to hang, and killed.
	ProbeEvery, ProbeTimeout time.Duration
	MaxFailures              int
	// MinBackoff, MaxBackoff and SteadyAfter: see their defaults.
	MinBackoff, MaxBackoff, SteadyAfter time.Duration
}

// State is what is known of the process.
type State struct {
	// PID is 0 when there is none.
	PID int
	// Serving: it has begun to serve, and has not ended since.
	Serving bool
	// Failing: the last start did not come to serve. A process that has ended, and is about to be started again, is none.
	Failing bool
	// Since is when it began to serve, or when it ceased to.
	Since time.Time
	// Restarts counts the ends that nobody asked for.
	Restarts int
	// Err is why it ended last, or could not be started.
	Err error
}

// Supervisor keeps one process running.
type Supervisor struct {
	cfg    Config
	cancel context.CancelCauseFunc
	done   chan struct{}
	// first is closed after the first start, whose outcome firstErr is.
	first    chan struct{}
	firstErr error

	// mu guards everything below.
	mu    sync.Mutex
	state State
}

// Start begins to keep a process running, until Close. It returns at once: see First.
func Start(cfg Config) *Supervisor {
	defaults(&cfg)
	ctx, cancel := context.WithCancelCause(context.Background())
	s := &Supervisor{cfg: cfg, cancel: cancel, done: make(chan struct{}), first: make(chan struct{}), state: State{Since: time.Now()}}
	go s.watch(ctx)
	return s
}

func defaults(cfg *Config) {
	for _, d := range []struct {
		value    *time.Duration
		fallback time.Duration
	}{
		{&cfg.StartTimeout, DefaultStartTimeout}, {&cfg.StopTimeout, DefaultStopTimeout}, {&cfg.ProbeEvery, DefaultProbeEvery},
		{&cfg.ProbeTimeout, DefaultProbeTimeout}, {&cfg.MinBackoff, DefaultMinBackoff}, {&cfg.MaxBackoff, DefaultMaxBackoff},
		{&cfg.SteadyAfter, DefaultSteadyAfter},
	} {
		if *d.value == 0 {
			*d.value = d.fallback
		}
	}
	if cfg.MaxFailures == 0 {
		cfg.MaxFailures = DefaultMaxFailures
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	if cfg.Serves == nil {
		cfg.Serves = func() {}
	}
	if cfg.Ended == nil {
		cfg.Ended = func() {}
	}
	if cfg.Changed == nil {
		cfg.Changed = func() {}
	}
}

// First waits for the outcome of the first start. One that has failed is tried again like any other, until Close.
func (s *Supervisor) First(ctx context.Context) error {
	select {
	case <-s.first:
		return s.firstErr
	case <-ctx.Done():
		return fmt.Errorf("start %s: %w", s.cfg.Name, ctx.Err())
	}
}

// State returns what is known of the process now.
func (s *Supervisor) State() State {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.state
}

// Close stops the process and waits until it has ended. It may be called twice.
func (s *Supervisor) Close() {
	s.cancel(nil)
	<-s.done
}

// errReleased is why the watch ends without the process.
var errReleased = errors.New("released")

// Release ends the watch and leaves the process as it is.
func (s *Supervisor) Release() {
	s.cancel(errReleased)
	<-s.done
}

func (s *Supervisor) set(change func(*State)) {
	s.mu.Lock()
	change(&s.state)
	s.mu.Unlock()
	s.cfg.Changed()
}

// watch keeps the process running until ctx ends.
func (s *Supervisor) watch(ctx context.Context) {
	defer close(s.done)
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var once sync.Once
	tell := func(err error) {
		once.Do(func() { s.firstErr = err; close(s.first) })
	}

	wait := s.cfg.MinBackoff
	for {
		served, err := s.runOnce(ctx, func() { tell(nil) })
		tell(err)
		if ctx.Err() != nil {
			return
		}
		if served > s.cfg.SteadyAfter {
			wait = s.cfg.MinBackoff
		}
		s.set(func(state *State) { state.Err, state.Failing = err, served == 0; state.Restarts++ })
		s.cfg.Logger.Error(s.cfg.Name+" has ended and is started again", "error", err, "restart_in_ms", wait.Milliseconds())
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-timer.C:
		}
		wait = min(2*wait, s.cfg.MaxBackoff)
	}
}

// runOnce starts the process and returns when it has ended: by itself, because it did not serve, or because ctx ended. served is how
// long it has.
func (s *Supervisor) runOnce(ctx context.Context, first func()) (served time.Duration, err error) {
	if s.cfg.Log != nil {
		s.cfg.Log.Mark()
	}
	began := time.Now()
	p, err := s.cfg.Start(ctx)
	if err != nil {
		return 0, fmt.Errorf("start %s: %w", s.cfg.Name, err)
	}
	s.set(func(state *State) { state.PID = p.PID() })
	unwell := make(chan error, 2)
	run, end := context.WithCancel(ctx)
	var attending sync.WaitGroup
	attending.Go(func() {
		if err := s.attend(run, func() {
			s.set(func(state *State) { state.Serving, state.Failing, state.Since = true, false, time.Now() })
			s.cfg.Serves()
			s.cfg.Logger.Info(s.cfg.Name+" serves", "pid", p.PID(), "start_ms", time.Since(began).Milliseconds())
			first()
		}); err != nil {
			unwell <- err
		}
	})
	attending.Go(func() {
		if standstill(run, p.PID()) {
			unwell <- errors.New("it hangs: somebody has stopped it by a signal")
		}
	})
	select {
	case <-p.Ended():
		err = fmt.Errorf("%s ended: %s%s", s.cfg.Name, p.How(), s.tail())
	case <-ctx.Done():
		if !errors.Is(context.Cause(ctx), errReleased) {
			s.stop(p)
		}
	case reason := <-unwell:
		err = fmt.Errorf("%s was killed: %w%s", s.cfg.Name, reason, s.tail())
		// It would not heed SIGTERM either, and what it keeps has to survive a kill anyway.
		s.kill(p)
	}
	if ctx.Err() == nil {
		// Two of it would be worse than none: one that hangs in the kernel, most likely on its disk, is waited for.
		select {
		case <-p.Ended():
		case <-ctx.Done():
		}
	}
	end()
	attending.Wait()
	s.cfg.Ended()
	s.set(func(state *State) {
		if state.Serving {
			served = time.Since(state.Since)
			state.Serving, state.Since = false, time.Now()
		}
		state.PID = 0
	})
	if ctx.Err() != nil {
		return served, ctx.Err()
	}
	return served, err
}

// tail is the end of the log, for an error.
func (s *Supervisor) tail() string {
	if s.cfg.Log == nil {
		return ""
	}
	return fmt.Sprintf("; the end of %s:\n%s", s.cfg.Log.Path(), s.cfg.Log.Tail())
}

// stop asks the process to end, and kills it when it does not.
func (s *Supervisor) stop(p Process) {
	_ = p.Terminate() // one that has ended is no error, and any other is followed by a kill
	if !within(p.Ended(), s.cfg.StopTimeout) {
		s.cfg.Logger.Warn(s.cfg.Name+" does not end and is killed", "pid", p.PID(), "after_ms", s.cfg.StopTimeout.Milliseconds())
		s.kill(p)
	}
}

func (s *Supervisor) kill(p Process) {
	err := p.Kill()
	if !within(p.Ended(), killTimeout) {
		s.cfg.Logger.Error(s.cfg.Name+" is still there after SIGKILL: it hangs in the kernel, most likely on its disk", "pid", p.PID(), "error", err)
	}
}

func within(ended <-chan struct{}, limit time.Duration) bool {
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-ended:
		return true
	case <-timer.C:
		return false
	}
}

// attend waits until the process serves, says so, and goes on asking until it does not any more, which is an error, or
// ctx ends.
func (s *Supervisor) attend(ctx context.Context, serves func()) error {
	if err := s.awaitServing(ctx); err != nil || ctx.Err() != nil {
		return err
	}
	serves()
	ticker := time.NewTicker(s.cfg.ProbeEvery)
	defer ticker.Stop()
	for failures := 0; ; {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
		err := s.probe(ctx)
		switch {
		case ctx.Err() != nil:
			return nil
		case err == nil:
			failures = 0
		default:
			failures++
			s.cfg.Logger.Warn(s.cfg.Name+" does not answer as it should", "error", err, "failures", failures)
			if failures >= s.cfg.MaxFailures {
				return fmt.Errorf("it hangs: %w", err)
			}
		}
	}
}

func (s *Supervisor) awaitServing(ctx context.Context) error {
	starting, cancel := context.WithTimeout(ctx, s.cfg.StartTimeout)
	defer cancel()
	ticker := time.NewTicker(firstProbe)
	defer ticker.Stop()
	for {
		err := s.probe(starting)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return nil
		case <-starting.Done():
			if ctx.Err() != nil {
				return nil
			}
			return fmt.Errorf("it did not serve within %s: %w", s.cfg.StartTimeout, err)
		case <-ticker.C:
		}
	}
}

func (s *Supervisor) probe(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.ProbeTimeout)
	defer cancel()
	return s.cfg.Probe(ctx)
}

// standstill waits until a signal has stopped the process for good; it returns false when ctx ends.
func standstill(ctx context.Context, pid int) bool {
	ticker := time.NewTicker(standstillEvery)
	defer ticker.Stop()
	for still := 0; still < standstills; {
		select {
		case <-ctx.Done():
			return false
		case <-ticker.C:
		}
		if still++; !standsStill(pid) {
			still = 0
		}
	}
	return true
}

// standsStill is true for a process that a signal has stopped, state T of proc(5); one that is debugged is not.
func standsStill(pid int) bool {
	line, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	// The command, in brackets, may hold brackets.
	_, rest, _ := strings.Cut(string(line[max(strings.LastIndexByte(string(line), ')'), 0):]), " ")
	return strings.HasPrefix(rest, "T ")
}
