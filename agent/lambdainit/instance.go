package lambdainit

import (
	"context"
	"errors"
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
	"slices"
	"sync"
	"syscall"
	"time"
)

// How long the parts of a reset may take. They are reached only by a process in an uninterruptible wait, or by a
// reader of standard output that takes nothing; the gateway waits for an answer meanwhile.
const (
	killLimit  = 500 * time.Millisecond
	drainLimit = 500 * time.Millisecond
	// lastWords is what an exited process's requests to the Runtime API get to be read to their end.
	lastWords = 200 * time.Millisecond
)

// apiState is where the runtime stands in the Runtime API's order of calls (AWS: "runtime lifecycle").
type apiState int

const (
	stateInit       apiState = iota // before the first /invocation/next
	stateInitFailed                 // /init/error was posted
	stateReady                      // asked for the next invocation
	stateRunning                    // has an invocation
	stateAnswering                  // is posting its answer
	stateAnswered                   // has posted it
	stateGone                       // reset: the answer is not wanted any more
)

// instance is one life of the function's process: the process, its pipes, and a Runtime API of its own, so that
// nothing an earlier process sent can reach a later one.
type instance struct {
	cfg       *Config
	processes *processes
	startedAt time.Time
	server    *http.Server
	serving   chan struct{}
	pumps     []*pump

	// ready is closed by the first /invocation/next, at readyAt.
	ready   chan struct{}
	readyAt time.Time
	// failed is closed by /init/error, whose body is initError.
	failed    chan struct{}
	initError answer
	// exited is closed when the process has ended, with status.
	exited chan struct{}
	// gone is closed when the instance has been given up.
	gone   chan struct{}
	status syscall.WaitStatus
	pid    int

	// events hands an invocation to a runtime that is waiting in /invocation/next.
	events chan *invocation
	// used says that an invocation has been handed over; it belongs to whoever holds the supervisor's turn.
	used bool

	// mu guards the fields below.
	mu      sync.Mutex
	state   apiState
	current *invocation
}

// startInstance starts the function's process. What it has made is undone when it fails.
func startInstance(cfg *Config, procs *processes, j *journal) (_ *instance, err error) {
	i := &instance{
		cfg:       cfg,
		processes: procs,
		serving:   make(chan struct{}),
		ready:     make(chan struct{}),
		failed:    make(chan struct{}),
		exited:    make(chan struct{}),
		gone:      make(chan struct{}),
		events:    make(chan *invocation),
	}
	listener, err := net.Listen("tcp", cfg.RuntimeAPI)
	if err != nil {
		return nil, fmt.Errorf("open the Runtime API on %s (ESB_INIT_RUNTIME_API): %w", cfg.RuntimeAPI, err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, listener.Close())
			for _, p := range i.pumps {
				p.close(drainLimit)
			}
		}
	}()
	null, err := os.Open(os.DevNull)
	if err != nil {
		return nil, fmt.Errorf("open the function's standard input: %w", err)
	}
	files := []*os.File{null}
	defer func() {
		for _, f := range files {
			_ = f.Close()
		}
	}()
	for _, stream := range []string{"stdout", "stderr"} {
		p, w, err := openPump(stream, j)
		if err != nil {
			return nil, err
		}
		i.pumps = append(i.pumps, p)
		files = append(files, w)
	}
	env := append(slices.Clone(cfg.Env), envRuntimeAPI+"="+listener.Addr().String())

	i.startedAt = time.Now()
	i.pid, err = procs.start(cfg.Command, env, []uintptr{files[0].Fd(), files[1].Fd(), files[2].Fd()},
		func(status syscall.WaitStatus) {
			i.status = status
			close(i.exited)
		})
	if err != nil {
		return nil, err
	}
	// No timeouts: a runtime waits in /invocation/next for as long as there is nothing to do.
	i.server = &http.Server{Handler: i, ErrorLog: log.New(serverErrors{j}, "", 0)}
	go func() {
		defer close(i.serving)
		_ = i.server.Serve(listener)
	}()
	return i, nil
}

// settle gives requests that the process sent before it exited the time to be read.
func (i *instance) settle() {
	ctx, cancel := context.WithTimeout(context.Background(), lastWords)
	defer cancel()
	_ = i.server.Shutdown(ctx)
}

// close ends the process with all its descendants and logs the rest of their output. It returns false when
// something could not be killed.
func (i *instance) close() bool {
	i.mu.Lock()
	if i.state != stateGone {
		close(i.gone)
	}
	i.state = stateGone
	i.mu.Unlock()
	_ = i.server.Close()
	dead := i.processes.killAll(killLimit)
	limit := time.Now().Add(drainLimit)
	for _, p := range i.pumps {
		p.close(time.Until(limit))
	}
	<-i.serving
	return dead
}

// drain logs everything that the function has written so far.
func (i *instance) drain() {
	limit := time.Now().Add(drainLimit)
	for _, p := range i.pumps {
		p.drain(time.Until(limit))
	}
}

// initialised says whether the init phase has ended well.
func (i *instance) initialised() bool {
	select {
	case <-i.ready:
		return true
	default:
		return false
	}
}
