package lambdainit

import (
	"errors"
	"syscall"
	"time"

	"github.com/edge-serverless-box/esb/agent/loglevel"
)

// initError says why an init phase has failed.
type initError struct {
	answer answer // of the runtime, when it posted one
	err    error  // the process could not be started
	status *syscall.WaitStatus
	// extension is set when one has failed.
	extension *extensionError
	exitType  string // of status
	timedOut  bool
	oom       bool
	after     time.Duration
}

// initAtOnce is the init phase of a container that is not on standby. It gives the turn back.
func (s *Supervisor) initAtOnce() {
	defer func() { <-s.turn }()
	_, failed := s.init(s.cfg.InitLimit, phaseInit)
	s.tooLong.Store(failed != nil && failed.timedOut)
	s.initialising.Store(false)
	if failed == nil {
		return
	}
	// As AWS does it: the first invocation tries again and reports what comes of that.
	s.initSpent = true
	if !failed.timedOut {
		switch {
		case failed.extension != nil:
			s.fault("Error: " + failed.extension.message)
		case failed.status != nil:
			s.fault("Error: " + exitMessage(*failed.status))
		}
		s.fault("INIT_REPORT " + initReport(failed.after, phaseInit, "error", s.initOutcome(&invocation{}, failed).errorType))
	}
}

// init starts the function's process and waits until it asks for an invocation. When it fails, nothing is left of
// the process; phase is for the line that says so. The caller holds the turn.
func (s *Supervisor) init(limit time.Duration, phase string) (*instance, *initError) {
	s.tell(notifyInitStart)
	began := time.Now()
	i, err := s.startInstance()
	if err != nil {
		s.tell(notifyInitError)
		return nil, &initError{err: err, after: time.Since(began)}
	}
	t := time.NewTimer(limit)
	defer t.Stop()
	e := &initError{}
	registered, reason := i.registered, reasonFailure
	for again := true; again; {
		again = false
		select {
		case <-registered:
			registered, again = nil, true
			if err := i.startRuntime(); err != nil {
				e.err, again = err, false
			}
		case <-i.ready:
			took := i.readyAt.Sub(i.startedAt)
			i.telemetry.platform("platform.initRuntimeDone", initDoneRecord())
			i.telemetry.platform("platform.initReport", initReportRecord(took))
			if s.journal.json {
				s.journal.event(typeInit, "platform.initRuntimeDone", loglevel.Debug, initDoneRecord(), nil)
				s.journal.event(typeInit, "platform.initReport", loglevel.Debug, initReportRecord(took), nil)
			}
			s.tellExtensions(i)
			i.telemetry.settle()
			s.tell(notifyInitOK)
			return i, nil
		case <-i.failed:
			e.answer = i.initError
			wait(i.exited, lastWords) // a runtime usually ends by itself now, and may have something to say
		case <-i.broken:
			e.extension = &i.downfall
		case <-i.exited:
			// It may have said why just before.
			i.settle()
			select {
			case <-i.failed:
				e.answer = i.initError
			default:
				e.status, e.exitType = &i.status, i.exitType()
				e.oom = s.memory.oomKills() > s.oomKills
			}
		case <-t.C:
			e.timedOut, reason = true, reasonTimeout
		}
	}
	e.after = time.Since(began)
	s.tellExtensions(i)
	s.discard(i, reason)
	s.tell(notifyInitError)
	if e.timedOut {
		s.fault("INIT_REPORT " + initReport(e.after, phase, "timeout", ""))
	}
	return nil, e
}

// initFor starts a function process for inv, or says what inv gets instead.
func (s *Supervisor) initFor(inv *invocation) (*instance, *outcome) {
	began := time.Now()
	if !s.initSpent {
		i, failed := s.init(s.cfg.InitLimit, phaseInit)
		if failed == nil {
			return i, nil
		}
		if !failed.timedOut {
			out := s.initOutcome(inv, failed)
			return nil, &out
		}
		// AWS: "If the Init phase exceeds 10 s, it is done again at the first invocation, within the function's
		// timeout".
		s.initSpent = true
	}
	inv.deadline = time.Now().Add(inv.budget)
	i, failed := s.init(inv.budget, phaseInvoke)
	s.initSpent = false
	if failed == nil {
		return i, nil
	}
	out := s.initOutcome(inv, failed)
	out.init = time.Since(began)
	if !failed.timedOut {
		s.fault("INIT_REPORT " + initReport(failed.after, phaseInvoke, "error", out.errorType))
	}
	return nil, &out
}

// initOutcome words a failed init phase.
func (s *Supervisor) initOutcome(inv *invocation, failed *initError) outcome {
	var out outcome
	reset := resetInit
	switch {
	case failed.timedOut:
		out, reset = s.timedOut(inv), resetTimeout
	case failed.answer.failed:
		out = outcome{answer: failed.answer, ended: time.Now()}
	case errors.Is(failed.err, errClosing), errors.Is(failed.err, errSpoilt):
		out = failure(inv, errExit, failed.err.Error())
	case failed.err != nil:
		s.fault("lambda-init: start the function: " + failed.err.Error())
		errorType, message := errInit, "the function could not be started"
		if program := (*programError)(nil); errors.As(failed.err, &program) {
			errorType, message = errEntrypoint, program.Error()
		}
		out = failure(inv, errorType, message)
	case failed.extension != nil:
		out = failure(inv, failed.extension.errorType, failed.extension.message)
	default:
		out = failure(inv, failed.exitType, exitMessage(*failed.status))
		if failed.oom {
			out.fault, reset = s.oomFault(inv), resetOOM
		}
	}
	out.init, out.waited, out.reset = failed.after, true, reset
	return out
}
