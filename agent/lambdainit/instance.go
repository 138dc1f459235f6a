package lambdainit

import (
	"fmt"
	"net"
	"os"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/edge-serverless-box/esb/agent/lambdainit/http1"
)

// How long the parts of a reset may take. They are reached only by a process in an uninterruptible wait, or by a
// reader of standard output that takes nothing; the gateway waits for an answer meanwhile, and gives the container up when
// processes are left: what has a small part of a CPU, and many processes, must have the time to end.
const (
	killLimit  = 4 * time.Second
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
	journal   *journal
	env       []string // of the function's process
	server    *http1.Server
	serving   chan struct{}
	telemetry *telemetry
	// background counts the goroutines that watch extensions.
	background sync.WaitGroup

	// registered is closed when every external extension has registered: the runtime may start.
	registered chan struct{}
	// ready is closed when the runtime has asked for its first invocation and every extension for its first event, at
	// readyAt.
	ready   chan struct{}
	readyAt time.Time
	// broken is closed when an extension has failed, as downfall says.
	broken   chan struct{}
	downfall extensionError
	// leave is the orderly end of runtime and extensions.
	leave sync.Once
	// failed is closed by /init/error, whose body is initError.
	failed    chan struct{}
	initError answer
	// exited is closed when the process has ended, with status.
	exited chan struct{}
	status syscall.WaitStatus
	// gone is closed when the instance has been given up.
	gone chan struct{}

	// asked is told when the runtime has come to wait in /invocation/next.
	asked chan struct{}
	// used says that an invocation has been handed over, and head is room for what goes before an event; they belong to whoever
	// holds the supervisor's turn.
	used bool
	head []byte

	// mu guards the fields below.
	mu      sync.Mutex
	state   apiState
	current *invocation
	// waiting are the calls of /invocation/next that have no answer; more than one when the runtime makes more.
	waiting []*http1.Exchange
	pid     int // of the function's process, 0 before its start
	pumps   []*pump
	// extensions are all that there are; unregistered counts the external ones that have not registered.
	extensions   []*extension
	unregistered int
	// working counts extensions that have an INVOKE event; rested is closed when they have done.
	working int
	rested  chan struct{}
	// leaving says that processes end because they are told to.
	leaving bool
	// fatal is the error type of the first /extension/init/error or /exit/error.
	fatal string
}

// startInstance opens a Runtime API and starts the external extensions; the function's process follows by startRuntime
// when i.registered is closed. What it has made is undone when it fails.
func startInstance(cfg *Config, procs *processes, j *journal) (*instance, error) {
	i := &instance{
		cfg:        cfg,
		processes:  procs,
		journal:    j,
		telemetry:  &telemetry{stop: make(chan struct{})},
		startedAt:  time.Now(),
		serving:    make(chan struct{}),
		registered: make(chan struct{}),
		ready:      make(chan struct{}),
		broken:     make(chan struct{}),
		failed:     make(chan struct{}),
		exited:     make(chan struct{}),
		gone:       make(chan struct{}),
		asked:      make(chan struct{}, 1),
	}
	listener, err := net.Listen("tcp", cfg.RuntimeAPI)
	if err != nil {
		return nil, fmt.Errorf("open the Runtime API on %s (ESB_INIT_RUNTIME_API): %w", cfg.RuntimeAPI, err)
	}
	i.env = append(slices.Clone(cfg.Env), envRuntimeAPI+"="+listener.Addr().String())
	// No timeouts: a runtime waits in /invocation/next for as long as there is nothing to do.
	i.server = &http1.Server{Handler: i.serveAPI, Date: true, Fault: j.serverFault}
	go func() {
		defer close(i.serving)
		_ = i.server.Serve(listener)
	}()
	j.setTap(i.telemetry)
	i.startExtensions()
	return i, nil
}

// startRuntime starts the function's process.
func (i *instance) startRuntime() error {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.leaving {
		return errClosing
	}
	exited := func(status syscall.WaitStatus) {
		i.status = status
		close(i.exited)
	}
	if taken, err := i.takeAhead(exited); taken || err != nil {
		return err
	}
	files, closeFiles, err := i.openOutput("")
	if err != nil {
		return err
	}
	defer closeFiles()
	env := i.env
	// Without it, runtimes write their messages to standard output, line by line.
	if fd, err := i.openFrames(files[1]); err == nil {
		defer func() { _ = syscall.Close(fd) }()
		env = append(slices.Clip(env), envTelemetryFD+"="+strconv.Itoa(len(files)))
		files = append(files, uintptr(fd))
	}
	command := i.cfg.wrapped()
	wrapperFailed := func(failed error) bool {
		if i.cfg.Wrapper == "" {
			return false
		}
		line, status := wrapperFault(command[0], failed)
		if status != 0 {
			// As AWS's start script, which then ends: on standard output.
			_, _ = syscall.Write(int(files[1]), []byte(line+"\n"))
			exited(exitOf(status))
		}
		return status != 0
	}
	if wrapperFailed(nil) {
		return nil
	}
	if i.pid, err = i.processes.start(command, env, files, exited); err != nil && wrapperFailed(err) {
		return nil
	}
	return err
}

// takeAhead has the runtime that was started ahead be the function's process, if there is one that can. Callers hold mu.
func (i *instance) takeAhead(exited func(syscall.WaitStatus)) (bool, error) {
	a, env := i.cfg.Ahead, i.env
	if a != nil && a.frames {
		env = append(slices.Clip(env), envTelemetryFD+"="+strconv.Itoa(aheadFrames))
	}
	if !a.take(i.cfg, env, exited) {
		return false, nil
	}
	i.pid = a.pid
	for n, stream := range outputStreams {
		p, err := startPump(stream, "", a.outputs[n], i.journal)
		if err != nil {
			return false, err
		}
		i.pumps = append(i.pumps, p)
	}
	if a.frames {
		i.stdoutPump().takeFrames()
	}
	return true, nil
}

// openFrames opens the pipe of the function's standard output, whose write end is stdout, for frames. Callers hold mu.
func (i *instance) openFrames(stdout uintptr) (int, error) {
	fd, err := openAgain(stdout)
	if err != nil {
		return 0, err
	}
	i.stdoutPump().takeFrames()
	return fd, nil
}

// stdoutPump is that of the function's standard output. Callers hold mu.
func (i *instance) stdoutPump() *pump {
	return i.pumps[slices.IndexFunc(i.pumps, func(p *pump) bool { return p.extension == "" && p.stream == outputStreams[0] })]
}

// openOutput makes standard input, output and error of a process: the function's, or that of the named extension. The
// caller closes them when it has started the process. Callers hold mu.
func (i *instance) openOutput(extension string) (_ []uintptr, closeFiles func(), err error) {
	null, err := os.Open(os.DevNull)
	if err != nil {
		return nil, nil, fmt.Errorf("open the function's standard input: %w", err)
	}
	files := []*os.File{null}
	closeFiles = func() {
		for _, f := range files {
			_ = f.Close()
		}
	}
	fds := []uintptr{null.Fd()}
	for _, stream := range outputStreams {
		p, w, err := openPump(stream, extension, i.journal)
		if err != nil {
			closeFiles()
			return nil, nil, err
		}
		i.pumps = append(i.pumps, p)
		files = append(files, w)
		fds = append(fds, w.Fd())
	}
	return fds, closeFiles, nil
}

// settle gives requests that the process sent before it exited the time to be read.
func (i *instance) settle() {
	i.server.Shutdown(lastWords)
}

// close ends the function's process, the extensions and all their descendants, and logs the rest of their output. reason
// is for the extensions. It returns false when something could not be killed.
func (i *instance) close(reason string) bool {
	i.mu.Lock()
	if i.state != stateGone {
		close(i.gone)
	}
	i.state = stateGone
	i.mu.Unlock()
	i.takeLeave(reason)
	_ = i.server.Close()
	dead := i.processes.killAll(killLimit)
	limit := time.Now().Add(drainLimit)
	for _, p := range i.allPumps() {
		p.close(time.Until(limit))
	}
	<-i.serving
	i.background.Wait()
	i.telemetry.close()
	return dead
}

func (i *instance) allPumps() []*pump {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.pumps
}

// drain logs everything that function and extensions have written so far.
func (i *instance) drain() {
	limit := time.Now().Add(drainLimit)
	for _, p := range i.allPumps() {
		p.drain(max(time.Until(limit), drainLimit/10))
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
