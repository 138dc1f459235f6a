package lambdainit

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/edge-serverless-box/esb/agent/loglevel"
)

// maxExtensions is how many extensions a function may have, external and internal together (AWS: 10).
const maxExtensions = 10

// What a process's end may take (AWS: Lambda developer guide, "Shutdown phase"): nothing without extensions, 500 ms with
// internal ones, 2 s with external ones, of which the runtime has runtimeShare (RIE: runtimeDeadlineShare).
const (
	internalLimit = 500 * time.Millisecond
	externalLimit = 2 * time.Second
	runtimeShare  = 0.3
)

// Reasons of a SHUTDOWN event.
const (
	reasonSpindown = "spindown"
	reasonTimeout  = "timeout"
	reasonFailure  = "failure"
)

// Errors of extensions (RIE: fatalerror).
const (
	errExtensionInit   = "Extension.InitError"
	errExtensionExit   = "Extension.ExitError"
	errExtensionCrash  = "Extension.Crash"
	errExtensionLaunch = "Extension.LaunchError"
)

// extensionState is where an extension stands in the Extensions API's order of calls; the names are RIE's.
type extensionState string

const (
	extensionStarted    extensionState = "Started"
	extensionRegistered extensionState = "Registered"
	extensionReady      extensionState = "Ready"   // waits in /event/next, or may come back there
	extensionRunning    extensionState = "Running" // has an event
	extensionInitFailed extensionState = "InitError"
	extensionExitFailed extensionState = "ExitError"
	extensionNotStarted extensionState = "LaunchError"
)

// extension is one extension in one life of the function's process. External ones are processes of their own; an
// internal one is a part of the function's process that has registered itself.
type extension struct {
	name     string
	external bool
	// events hands over what /event/next waits for. There is room for an event and the SHUTDOWN after it.
	events chan []byte

	// exited is closed when an external one's process has ended, with status.
	exited chan struct{}
	status syscall.WaitStatus

	// The instance's mu guards the following.
	pid       int    // of an external one's process, 0 when it could not be started
	id        string // given by /register
	state     extensionState
	errorType string // of /init/error and /exit/error
	invoke    bool   // subscribed to INVOKE
	shutdown  bool   // subscribed to SHUTDOWN
}

// extensionError says which extension has ended the instance, as AWS puts it.
type extensionError struct {
	errorType string
	message   string
}

// extensionFiles lists the programs of external extensions.
func extensionFiles(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var files []string
	for _, e := range entries {
		if !e.IsDir() {
			files = append(files, filepath.Join(dir, e.Name()))
		}
	}
	return files, nil
}

// startExtensions starts the external extensions. The runtime follows when each of them has registered: i.registered is
// closed then, at once when there are none. A failure is told by i.broken.
func (i *instance) startExtensions() {
	files, err := extensionFiles(i.cfg.Extensions)
	if err != nil {
		i.breakDown(extensionError{errExtensionLaunch, err.Error()})
		return
	}
	i.mu.Lock()
	i.unregistered = len(files)
	if len(files) == 0 {
		close(i.registered)
	}
	i.mu.Unlock()
	if len(files) > 0 {
		i.telemetry.begin()
		i.telemetry.platform("platform.initStart", initStartRecord(i.cfg))
	}
	for n, file := range files {
		e := &extension{name: filepath.Base(file), external: true, state: extensionStarted, events: make(chan []byte, 2), exited: make(chan struct{})}
		i.mu.Lock()
		i.extensions = append(i.extensions, e)
		i.mu.Unlock()
		err := errors.New("more than " + itoa(maxExtensions) + " extensions")
		if n < maxExtensions {
			err = i.launch(e, file)
		}
		if err != nil {
			i.mu.Lock()
			e.state, e.errorType = extensionNotStarted, launchErrorType(n, err)
			i.mu.Unlock()
			close(e.exited)
			i.breakDown(extensionError{errExtensionLaunch, err.Error()})
			return
		}
	}
}

func launchErrorType(n int, err error) string {
	switch {
	case n >= maxExtensions:
		return "TooManyExtensions"
	case errors.Is(err, fs.ErrPermission):
		return "PermissionDenied"
	}
	return "UnknownError"
}

// launch starts the process of an external extension.
func (i *instance) launch(e *extension, file string) error {
	i.mu.Lock()
	defer i.mu.Unlock()
	files, closeFiles, err := i.openOutput(e.name)
	if err != nil {
		return err
	}
	defer closeFiles()
	env := make([]string, 0, len(i.env))
	for _, kv := range i.env {
		if name, _, _ := strings.Cut(kv, "="); !runtimeOnly[name] {
			env = append(env, kv)
		}
	}
	e.pid, err = i.processes.start([]string{file}, env, files, func(status syscall.WaitStatus) {
		e.status = status
		close(e.exited)
	})
	if err != nil {
		return err
	}
	i.background.Go(func() { i.watchExtension(e) })
	return nil
}

// runtimeOnly are the variables that extensions do not get (AWS: Lambda developer guide, "Using environment variables" of
// extensions).
var runtimeOnly = map[string]bool{
	"AWS_EXECUTION_ENV": true, "AWS_LAMBDA_LOG_GROUP_NAME": true, "AWS_LAMBDA_LOG_STREAM_NAME": true,
	"AWS_XRAY_CONTEXT_MISSING": true, "AWS_XRAY_DAEMON_ADDRESS": true, "LAMBDA_RUNTIME_DIR": true, "LAMBDA_TASK_ROOT": true,
	"_AWS_XRAY_DAEMON_ADDRESS": true, "_AWS_XRAY_DAEMON_PORT": true, "_HANDLER": true,
}

// watchExtension waits for the end of an extension's process: unless the instance ends, it ends the instance.
func (i *instance) watchExtension(e *extension) {
	select {
	case <-e.exited:
	case <-i.gone:
		return
	}
	i.mu.Lock()
	errorType := errExtensionCrash
	if i.fatal != "" {
		errorType = i.fatal
	}
	i.mu.Unlock()
	i.breakDown(extensionError{errorType, extensionExit(e.status)})
}

// extensionExit words the end of an extension's process as AWS does.
func extensionExit(status syscall.WaitStatus) string {
	switch {
	case status.Signaled():
		return "signal: " + status.Signal().String()
	case status.ExitStatus() != 0:
		return "exit status " + itoa(status.ExitStatus())
	}
	return "exit code 0"
}

// breakDown tells, once, that an extension has ended the instance. Not during its shutdown.
func (i *instance) breakDown(e extensionError) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.leaving || i.downfall.errorType != "" {
		return
	}
	i.downfall = e
	close(i.broken)
}

// exitType is the error type of a process that has ended: what an extension had to say about it comes first.
func (i *instance) exitType() string {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.fatal != "" {
		return i.fatal
	}
	return errExit
}

// settleInit closes ready when the runtime and every extension have asked for their first event. Callers hold mu.
func (i *instance) settleInit() {
	if i.state != stateReady || !i.readyAt.IsZero() {
		return
	}
	for _, e := range i.extensions {
		if e.state != extensionReady {
			return
		}
	}
	i.readyAt = time.Now()
	close(i.ready)
}

// offer gives the INVOKE event of inv to the extensions that want it. Callers hold mu.
func (i *instance) offer(inv *invocation) {
	var event []byte
	for _, e := range i.extensions {
		if !e.invoke {
			continue
		}
		if event == nil {
			event = i.invokeEvent(inv)
			i.rested = make(chan struct{})
		}
		e.state = extensionRunning
		i.working++
		e.events <- event // there is room: one that is ready has none, and INVOKE comes to ready ones only
	}
}

func (i *instance) invokeEvent(inv *invocation) []byte {
	b := append([]byte(`{"eventType":"INVOKE","deadlineMs":`), strconv.FormatInt(inv.due.UnixMilli(), 10)...)
	b = appendString(append(b, `,"requestId":`...), inv.id)
	b = appendString(append(b, `,"invokedFunctionArn":`...), i.cfg.functionARN(inv.qualifier))
	if inv.trace != "" {
		b = appendString(append(b, `,"tracing":{"type":"X-Amzn-Trace-Id","value":`...), inv.trace)
		b = append(b, '}')
	}
	return append(b, '}')
}

// resting returns a channel that is closed when no extension works on an INVOKE event, nil when none does.
func (i *instance) resting() <-chan struct{} {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.working == 0 {
		return nil
	}
	return i.rested
}

// takeLeave ends runtime and extensions in AWS's order: the runtime by SIGTERM, then the external extensions by a
// SHUTDOWN event, each within its time. Without extensions there is nothing to wait for. What is still there
// afterwards is killed by the caller. Only the first call does anything; others wait for it.
func (i *instance) takeLeave(reason string) {
	i.leave.Do(func() {
		i.mu.Lock()
		i.leaving = true
		all, started := i.extensions, i.pid != 0
		i.mu.Unlock()
		if len(all) == 0 {
			return
		}
		limit := internalLimit
		for _, e := range all {
			if e.external {
				limit = externalLimit
			}
		}
		end := time.Now().Add(limit)
		if started {
			i.signal(syscall.SIGTERM)
			if limit == externalLimit {
				limit = time.Duration(runtimeShare * float64(limit))
			}
			if !wait(i.exited, limit) {
				i.signal(syscall.SIGKILL)
			}
		}
		i.telemetry.flush()
		event := append([]byte(`{"eventType":"SHUTDOWN","shutdownReason":"`+reason+`","deadlineMs":`), strconv.FormatInt(end.UnixMilli(), 10)...)
		event = append(event, '}')
		for _, e := range all {
			i.mu.Lock()
			tell := e.external && e.shutdown && e.state != extensionInitFailed && e.state != extensionExitFailed
			if tell {
				e.state = extensionRunning
				select {
				case e.events <- event:
				default: // it has two events that it has not asked for
				}
			}
			i.mu.Unlock()
			if e.external && !tell {
				i.kill(e)
			}
		}
		for _, e := range all {
			if e.external && !wait(e.exited, time.Until(end)) {
				i.kill(e)
			}
		}
	})
}

// signal sends sig to the runtime's process group, unless it has ended or not begun.
func (i *instance) signal(sig syscall.Signal) {
	i.mu.Lock()
	pid := i.pid
	i.mu.Unlock()
	select {
	case <-i.exited:
	default:
		if pid > 0 {
			_ = syscall.Kill(-pid, sig)
		}
	}
}

// kill ends an external extension's process.
func (i *instance) kill(e *extension) {
	i.mu.Lock()
	pid := e.pid
	i.mu.Unlock()
	select {
	case <-e.exited:
	default:
		if pid > 0 {
			_ = syscall.Kill(-pid, syscall.SIGKILL)
		}
	}
}

// extensionLine says what became of an extension: as text, and as record.
type extensionLine struct {
	text, level string
	members     record
}

// extensionLines are what AWS logs about each extension at the end of an init phase; subscribers are told too.
func (i *instance) extensionLines() []extensionLine {
	i.mu.Lock()
	defer i.mu.Unlock()
	var lines []extensionLine
	for _, e := range i.extensions {
		var events []string
		if e.invoke {
			events = append(events, "INVOKE")
		}
		if e.shutdown {
			events = append(events, "SHUTDOWN")
		}
		line := "EXTENSION\tName: " + e.name + "\tState: " + string(e.state) + "\tEvents: [" + strings.Join(events, ",") + "]"
		members := extensionRecord(e.name, string(e.state), e.errorType, events)
		i.telemetry.platform("platform.extension", members)
		level := loglevel.Info
		if e.errorType != "" {
			line += "\tError Type: " + e.errorType
			level = loglevel.Warn
		}
		lines = append(lines, extensionLine{line, level, members})
	}
	return lines
}
