package lambdainit

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/edge-serverless-box/esb/agent/lambdainit/http1"
	"github.com/edge-serverless-box/esb/agent/loglevel"
)

// shutdownLimit bounds the kill after the orderly shutdown, the last answer, and the last log lines: each of them.
const shutdownLimit = 150 * time.Millisecond

// Supervisor is lambda-init: one function process at a time, and one invocation at a time.
type Supervisor struct {
	cfg       Config
	journal   *journal
	notify    notifier
	memory    *memoryCgroup
	processes *processes
	listener  net.Listener
	server    *http1.Server
	watchers  sync.WaitGroup

	// busy is true from the acceptance of an invocation until its answer is on its way.
	busy atomic.Bool
	// initialising is true while the init at start goes on.
	initialising atomic.Bool
	// tooLong says that the init at start took longer than it may: that is no failure.
	tooLong atomic.Bool
	// spoilt says that a process of an earlier life could not be killed: nothing is started beside it, and the sandbox serves
	// no more.
	spoilt atomic.Bool
	// turn is held by whoever drives the function process: an invocation until its last log line is written, the
	// init at start, the clean-up after an exit. It guards initSpent, oomKills and the replacement of instance.
	turn chan struct{}
	// initSpent says that the init phase of its own has been tried in vain: the next init belongs to the
	// invocation that needs it and counts against its timeout (AWS: "suppressed init").
	initSpent bool
	// oomKills is the kernel's count at the end of the last invocation.
	oomKills uint64

	// mu guards the fields below; the holder of turn takes it to replace instance.
	mu       sync.Mutex
	instance *instance
	closing  bool
}

// Open binds the worker endpoint and opens what lambda-init reads and writes; nothing is served before Run. Log
// lines go to out.
func Open(cfg Config, out io.Writer) (*Supervisor, error) {
	if err := harden(cfg); err != nil {
		return nil, err
	}
	listener, err := net.Listen("tcp", cfg.Listen)
	if err != nil {
		return nil, fmt.Errorf("open the worker endpoint on %s (ESB_INIT_LISTEN): %w", cfg.Listen, err)
	}
	var procs *processes
	if cfg.Ahead != nil {
		procs = cfg.Ahead.processes
	} else if procs, err = openProcesses(cfg.User); err != nil {
		return nil, errors.Join(err, listener.Close())
	}
	var logError error
	if cfg.Log != "" {
		// Written here, and not by who reads standard output: a disk that was full is tried again, and no reader holds anybody up.
		if file, err := os.OpenFile(cfg.Log, os.O_WRONLY|os.O_APPEND, 0); err != nil {
			logError = fmt.Errorf("open the log (ESB_INIT_LOG); it goes to standard output: %w", err)
		} else {
			out = file
		}
	}
	s := &Supervisor{
		cfg:       cfg,
		notify:    notifier{cfg.Notify},
		processes: procs,
		listener:  listener,
		turn:      make(chan struct{}, 1),
	}
	s.journal = openJournal(out, cfg.Function, cfg.Container, cfg.LogRate, func(lines int) {
		_ = s.notify.send(notifyLogLost + itoa(lines) + "\n") // the line that says so is in the log already
	})
	s.journal.json, s.journal.least, s.journal.leastSystem = cfg.LogJSON, loglevel.Rank(cfg.LogLevel), loglevel.Rank(cfg.SystemLogLevel)
	if logError != nil {
		s.warn(logError)
	}
	if s.memory, err = openMemoryCgroup(cfg.Cgroup); err != nil {
		s.warn(err) // the function can run without the figures
	}
	s.oomKills = s.memory.oomKills()
	s.server = &http1.Server{Handler: s.serveWorker, HeadTimeout: bodyLimit, WriteTimeout: bodyLimit, Fault: s.journal.serverFault}
	return s, nil
}

// harden readies this process for others below it.
func harden(cfg Config) error {
	dumpNoMemory()
	// Before any process of the function is there: memory, environment and descriptors of this one are closed to them
	// (proc(5), ptrace(2)), whatever user they are. What is started by exec is as it always is.
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("close lambda-init to the function: %w", err)
	}
	return setLimits(cfg)
}

// Addr is the address of the worker endpoint.
func (s *Supervisor) Addr() net.Addr { return s.listener.Addr() }

// Run serves until ctx ends or SIGTERM or SIGINT comes, then ends the function and everything else it started: at once
// without extensions, else as AWS does it, by SIGTERM and SHUTDOWN events. It returns within 2.5 s of that, and nil unless
// serving failed. Other
// signals that a function may know (SIGHUP, SIGQUIT, SIGUSR1, SIGUSR2) are passed on to it.
func (s *Supervisor) Run(ctx context.Context) error {
	signals := make(chan os.Signal, 8)
	// SIGPIPE is taken, so that a reader of standard output that has gone does not end the container.
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP, syscall.SIGQUIT, syscall.SIGUSR1,
		syscall.SIGUSR2, syscall.SIGPIPE)
	defer signal.Stop(signals)

	// The listener has a backlog: the endpoint answers whoever comes now. First, so that it comes first.
	s.tell(notifyReady)
	if !s.cfg.Standby {
		s.turn <- struct{}{}
		s.initialising.Store(true)
		s.watchers.Go(s.initAtOnce)
	}
	served := make(chan error, 1)
	go func() { served <- s.server.Serve(s.listener) }()

	for {
		select {
		case <-ctx.Done():
		case sig := <-signals:
			switch sig {
			case syscall.SIGPIPE:
				continue
			case syscall.SIGTERM, syscall.SIGINT:
			default:
				s.signal(sig.(syscall.Signal))
				continue
			}
		case err := <-served:
			s.shutdown()
			return fmt.Errorf("serve the worker endpoint on %s: %w", s.Addr(), err)
		}
		s.shutdown()
		if err := <-served; !errors.Is(err, http1.ErrClosed) {
			return fmt.Errorf("serve the worker endpoint on %s: %w", s.Addr(), err)
		}
		return nil
	}
}

// signal sends sig to the function's process group.
func (s *Supervisor) signal(sig syscall.Signal) {
	if i := s.current(); i != nil {
		i.signal(sig)
	}
}

func (s *Supervisor) shutdown() {
	s.mu.Lock()
	s.closing = true
	i := s.instance
	s.mu.Unlock()
	if i != nil {
		i.takeLeave(reasonSpindown)
	}
	s.processes.killAll(shutdownLimit)

	// An invocation that the function was killed under gets its answer.
	if !s.server.Shutdown(shutdownLimit) {
		_ = s.server.Close()
	}
	// Whoever has the turn sees that the process is gone and cleans up.
	done := make(chan struct{})
	go func() {
		s.watchers.Wait()
		close(done)
	}()
	if wait(done, shutdownLimit) {
		s.processes.close()
		_ = s.memory.close()
	}
	s.journal.close(shutdownLimit)
}

// wait returns whether c was closed within limit.
func wait(c <-chan struct{}, limit time.Duration) bool {
	t := time.NewTimer(limit)
	defer t.Stop()
	select {
	case <-c:
		return true
	case <-t.C:
		return false
	}
}

func (s *Supervisor) current() *instance {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.instance
}

// state is what /health says.
func (s *Supervisor) state() string {
	i := s.current()
	switch {
	case i == nil && s.busy.Load():
		return "busy"
	case i == nil && s.initialising.Load():
		return "init"
	case i == nil:
		return "standby"
	case !i.initialised():
		return "init"
	case s.busy.Load(), i.resting() != nil:
		return "busy"
	}
	return "idle"
}

func (s *Supervisor) tell(message string) {
	if err := s.notify.send(message); err != nil {
		s.warn(err)
	}
}

func (s *Supervisor) warn(err error) {
	s.journal.platform(typeFault, "WARN", "lambda-init: "+err.Error(), nil)
}

func (s *Supervisor) fault(message string) {
	s.journal.platform(typeFault, "ERROR", message, nil)
}

var (
	errClosing = errors.New("the container is shutting down")
	errSpoilt  = errors.New("a process of the function cannot be killed")
)

// tellExtensions logs what became of the extensions.
func (s *Supervisor) tellExtensions(i *instance) {
	for _, line := range i.extensionLines() {
		if s.journal.json {
			s.journal.event(typeExtension, "platform.extension", line.level, line.members, nil)
		} else {
			s.journal.platform(typeExtension, loglevel.Info, line.text, nil)
		}
	}
}

// startInstance begins a life of the function's process, and a watcher that cleans up when it, or an extension, ends while
// nobody has the turn.
func (s *Supervisor) startInstance() (*instance, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closing {
		return nil, errClosing
	}
	if s.spoilt.Load() {
		return nil, errSpoilt
	}
	i, err := startInstance(&s.cfg, s.processes, s.journal)
	if err != nil {
		return nil, err
	}
	s.instance = i
	s.watchers.Go(func() {
		var what string
		select {
		case <-i.exited:
			what = "The function's process ended between invocations: " + exitMessage(i.status)
		case <-i.broken:
			what = "An extension ended between invocations: " + i.downfall.errorType + ": " + i.downfall.message
		case <-i.gone:
			return
		}
		s.turn <- struct{}{}
		defer func() { <-s.turn }()
		s.mu.Lock()
		mine, closing := s.instance == i, s.closing
		s.mu.Unlock()
		if mine {
			s.discard(i, reasonFailure)
		}
		if mine && !closing {
			s.fault(what + "; the next request starts a fresh one")
		}
	})
	return i, nil
}

// discard ends the function's process, the extensions, and everything that they started; reason is what extensions are
// told. None of them is left when it returns, or the sandbox is spoilt. The caller holds the turn.
func (s *Supervisor) discard(i *instance, reason string) {
	if !i.close(reason) {
		s.spoilt.Store(true)
		s.fault("A process of the function cannot be killed: it waits in the kernel; this container serves no more")
	}
	s.journal.setTap(nil)
	s.mu.Lock()
	s.instance = nil
	s.mu.Unlock()
}

// invoke runs one invocation to its outcome. The caller holds the turn.
func (s *Supervisor) invoke(inv *invocation) outcome {
	if inv.budget <= 0 {
		return s.timedOut(inv) // the deadline passed on the way: the function is none the worse
	}
	// A process that exits between its /invocation/next and the hand-over has not seen the event: the event
	// goes to a fresh one. Once, because a function may do so for ever.
	for attempt := 0; ; attempt++ {
		i := s.current()
		if i == nil {
			var out *outcome
			if i, out = s.initFor(inv); out != nil {
				return *out
			}
		}
		out := outcome{}
		if !i.used {
			out.init = i.readyAt.Sub(i.startedAt)
			out.waited = i.readyAt.After(inv.arrived)
			i.drain() // lines of the init phase stand before START
		}
		s.start(inv)
		if out, handed := s.handOver(i, inv, out); handed || attempt > 0 {
			return out
		}
		s.discard(i, reasonFailure)
	}
}

// start writes the START line.
func (s *Supervisor) start(inv *invocation) {
	if inv.begun {
		return
	}
	inv.begun = true
	if i := s.current(); i != nil {
		i.telemetry.platform("platform.start", startRecord(inv, s.cfg.Version))
	}
	if s.journal.json {
		s.journal.event(typeStart, "platform.start", loglevel.Info, startRecord(inv, s.cfg.Version), nil)
		return
	}
	s.journal.platform(typeStart, "INFO", "START RequestId: "+inv.id+" Version: "+s.cfg.Version, nil)
}

// timeout is what inv could take, as it is told to the function's owner.
func (s *Supervisor) timeout(inv *invocation) time.Duration {
	limit := inv.budget
	// The gateway's deadline has been on the way for a moment; the function's owner knows the configured number.
	if d := s.cfg.Timeout - limit; limit <= 0 || d > 0 && d < 500*time.Millisecond {
		limit = s.cfg.Timeout
	}
	return limit
}

// timedOut is the outcome of an invocation that took longer than it may.
func (s *Supervisor) timedOut(inv *invocation) outcome {
	return failure(inv, errTimeout, timeoutMessage(s.timeout(inv)))
}

// timeoutEnd is when an invocation that was handed over at started ran out of time: its duration is the timeout to the
// millisecond, and no more is billed (AWS: "Duration: 3000.00 ms Billed Duration: 3000 ms ... Status: timeout").
func (s *Supervisor) timeoutEnd(inv *invocation, started time.Time) time.Time {
	if started.IsZero() || !inv.deadline.IsZero() { // not handed over, or less was left for it
		return time.Now()
	}
	return started.Add(s.timeout(inv))
}

func (s *Supervisor) oomFault(inv *invocation) string {
	limit := s.memory.limit()
	if limit == 0 {
		limit = uint64(s.cfg.MemoryMB) << 20
	}
	tmp := ""
	if n := tmpInMemory(tmpDir); n >= 1<<20 {
		tmp = fmt.Sprintf(", of which %d MB are in /tmp", n>>20)
	}
	return fmt.Sprintf("RequestId: %s Error: OOM: the kernel killed a process of the function at the memory limit of %d MB "+
		"(peak %d MB%s); raise memory_size or use less memory", inv.id, limit>>20, (s.memory.peak()+1<<20-1)>>20, tmp)
}

// handOver gives inv to the function and waits for what comes of it. It returns false when the process has
// exited without having seen inv.
func (s *Supervisor) handOver(i *instance, inv *invocation, out outcome) (outcome, bool) {
	if !i.take(inv) {
		// The runtime has not asked yet: it still works on what it had to do after its last answer.
		t := time.NewTimer(inv.budget)
		defer t.Stop()
		for !i.take(inv) {
			select {
			case <-i.asked:
			case <-i.broken:
				return s.brokenDown(i, inv, out), true
			case <-i.exited:
				init := out.init
				out = failure(inv, i.exitType(), exitMessage(i.status))
				out.init, out.waited, out.reset = init, init > 0, resetExit
				return out, false
			case <-t.C:
				return s.expire(i, inv, out), true
			}
		}
	}
	i.used = true
	out.started = inv.handed
	limit := inv.budget
	if !inv.deadline.IsZero() {
		limit = time.Until(inv.deadline)
	}
	t := time.NewTimer(limit)
	defer t.Stop()
	select {
	case out.answer = <-inv.done:
	case st := <-inv.stream:
		return s.passOn(i, inv, st, out, t.C), true
	case <-t.C:
		return s.expire(i, inv, out), true
	case <-i.broken:
		return s.brokenDown(i, inv, out), true
	case <-i.exited:
		i.settle()
		select {
		case st := <-inv.stream:
			return s.passOn(i, inv, st, out, t.C), true
		case out.answer = <-inv.done:
		default:
			return s.crashed(i, inv, out), true
		}
	}
	out.ended = time.Now()
	return out, true
}

// expire ends a process that has had inv for too long.
func (s *Supervisor) expire(i *instance, inv *invocation, so outcome) outcome {
	out := s.timedOut(inv)
	out.take(so)
	out.ended, out.reset = s.timeoutEnd(inv, out.started), resetTimeout
	s.discard(i, reasonTimeout)
	return out
}

// brokenDown cleans up after an extension that has failed while the function had inv.
func (s *Supervisor) brokenDown(i *instance, inv *invocation, so outcome) outcome {
	out := failure(inv, i.downfall.errorType, i.downfall.message)
	out.take(so)
	out.reset = resetExit
	s.discard(i, reasonFailure)
	return out
}

// awaitExtensions waits until the extensions have done with inv, which the runtime has answered: that is when the
// invocation ends (AWS: "Invoke phase"), for at most its timeout.
func (s *Supervisor) awaitExtensions(inv *invocation, out *outcome) {
	i := s.current()
	if i == nil || out.started.IsZero() {
		return
	}
	i.telemetry.platform("platform.runtimeDone", doneRecord(inv, out))
	rested := i.resting()
	if rested == nil {
		return
	}
	t := time.NewTimer(time.Until(inv.due))
	defer t.Stop()
	failed, reason := outcome{}, reasonFailure
	select {
	case <-rested:
		out.ended = time.Now()
	case <-i.broken:
		failed = failure(inv, i.downfall.errorType, i.downfall.message)
		out.ended = failed.ended
	case <-t.C:
		failed, reason = s.timedOut(inv), reasonTimeout
		out.ended = s.timeoutEnd(inv, out.started)
	}
	if failed.failed {
		// The caller has the function's answer, or gets it: this is for the log.
		out.errorType, out.fault = failed.errorType, failed.fault
		s.discard(i, reason)
	}
}

// crashed cleans up after a process that has exited while it had inv.
func (s *Supervisor) crashed(i *instance, inv *invocation, so outcome) outcome {
	out := failure(inv, i.exitType(), exitMessage(i.status))
	out.take(so)
	out.reset = resetExit
	if s.memory.oomKills() > s.oomKills {
		out.fault, out.reset = s.oomFault(inv), resetOOM
	}
	s.discard(i, reasonFailure)
	return out
}

// levelOf is the level of an event about an invocation: well when it went well (AWS: "System log level event mapping").
func levelOf(out *outcome, well string) string {
	if out.errorType != "" {
		return loglevel.Warn
	}
	return well
}

// conclude writes the last lines of an invocation and returns its log tail. The caller holds the turn.
func (s *Supervisor) conclude(inv *invocation, out *outcome) []byte {
	s.start(inv)
	s.awaitExtensions(inv, out)
	if i := s.current(); i != nil {
		i.drain()
	}
	kills := s.memory.oomKills()
	if out.fault == "" && kills > s.oomKills {
		out.fault = s.oomFault(inv) // a child of the function: the function itself has survived
	}
	s.oomKills = kills
	if out.fault != "" {
		s.fault(out.fault)
	}
	if !s.journal.json {
		s.journal.platform(typeEnd, loglevel.Info, "END RequestId: "+inv.id, nil)
	} else {
		s.journal.event(typeEnd, "platform.runtimeDone", levelOf(out, loglevel.Debug), doneRecord(inv, out), nil)
	}
	peak := s.memory.peak()
	if i := s.current(); i != nil && !out.started.IsZero() {
		i.telemetry.platform("platform.report", reportRecord(inv, out, s.cfg.MemoryMB, peak))
	}
	message, figures := out.report(inv, s.cfg.MemoryMB, peak)
	if !s.journal.json {
		s.journal.platform(typeReport, loglevel.Info, message, figures)
	} else {
		s.journal.event(typeReport, "platform.report", levelOf(out, loglevel.Info), reportRecord(inv, out, s.cfg.MemoryMB, peak), figures)
	}
	if out.reset != "" {
		s.journal.flush(drainLimit) // the gateway may have the container killed as soon as it has the answer
	}
	return s.journal.end()
}
