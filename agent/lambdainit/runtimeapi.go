package lambdainit

import (
	"encoding/base64"
	"errors"
	"io"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/edge-serverless-box/esb/agent/lambdainit/http1"
)

const (
	apiPrefix = "/2018-06-01/runtime/"

	// discardLimit is how much of a body that is too large is read, so that the runtime gets to read the answer.
	discardLimit = 64 << 20
	// smallEvent is the size in bytes up to which an event goes out in one piece with its head.
	smallEvent = 8 << 10
)

// serveAPI serves the Runtime API (AWS: Lambda developer guide, "Using the Lambda runtime API"; the wording of
// errors is RIE's), and those of extensions.
func (i *instance) serveAPI(x *http1.Exchange) {
	path, ok := strings.CutPrefix(x.Path, apiPrefix)
	if !ok {
		if call, ok := strings.CutPrefix(x.Path, extensionPrefix); ok {
			i.serveExtensions(x, call)
			return
		}
		if x.Path == telemetryPath || x.Path == logsPath {
			i.serveTelemetry(x)
			return
		}
		notFound(x)
		return
	}
	if path == "invocation/next" {
		if x.Method != http1.MethodGet {
			x.NotAllowed(http1.MethodGet)
			return
		}
		i.next(x)
		return
	}
	rest, ok := strings.CutPrefix(path, "invocation/")
	id, what, _ := strings.Cut(rest, "/")
	switch {
	case path != "init/error" && (!ok || what != "response" && what != "error"):
		notFound(x)
	case x.Method != http1.MethodPost:
		x.NotAllowed(http1.MethodPost)
	case path == "init/error":
		i.failInit(x)
	default:
		i.answer(x, id, what == "error")
	}
}

func notFound(x *http1.Exchange) { x.Plain(404, "404 page not found") }

// next waits for the next invocation, which the goroutine that has it brings: take.
func (i *instance) next(x *http1.Exchange) {
	i.mu.Lock()
	switch i.state {
	case stateInit, stateReady:
	case stateAnswered:
		if i.current.overtaken != nil {
			close(i.current.overtaken)
		}
	default:
		state := i.state
		i.mu.Unlock()
		refuseTransition(x, state, "Ready")
		return
	}
	i.state = stateReady
	i.settleInit()
	i.waiting = append(i.waiting, x)
	i.mu.Unlock()
	kick(i.asked)

	_ = x.Await()
	i.mu.Lock()
	n := slices.Index(i.waiting, x)
	if n >= 0 {
		// It has left, or did not wait for the answer: either ends the connection.
		i.waiting = slices.Delete(i.waiting, n, n+1)
	}
	i.mu.Unlock()
	if n < 0 {
		x.Answered()
	}
}

// take gives inv to the runtime, if it waits for one. The caller holds the supervisor's turn.
func (i *instance) take(inv *invocation) bool {
	select {
	case <-i.exited:
		return false // a process that is gone does not wait
	default:
	}
	i.mu.Lock()
	last := len(i.waiting) - 1
	if last < 0 || i.state == stateGone {
		i.mu.Unlock()
		return false
	}
	// The newest: older ones may be of a client that gave up, and whose leaving has not been seen.
	x := i.waiting[last]
	i.waiting = slices.Delete(i.waiting, last, last+1)
	x.Claim()
	i.state, i.current = stateRunning, inv
	inv.handed, inv.due = time.Now(), inv.deadline
	if inv.due.IsZero() {
		inv.due = inv.handed.Add(inv.budget)
	}
	i.offer(inv)
	i.mu.Unlock()

	b := x.AppendStatus(i.head[:0], 200)
	b = append(b, "Content-Type: application/json\r\nLambda-Runtime-Deadline-Ms: "...)
	b = append(strconv.AppendInt(b, inv.due.UnixMilli(), 10), "\r\n"...)
	b = http1.AppendField(b, "Lambda-Runtime-Aws-Request-Id", inv.id)
	b = http1.AppendField(b, "Lambda-Runtime-Invoked-Function-Arn", i.cfg.functionARN(inv.qualifier))
	if inv.trace != "" {
		b = http1.AppendField(b, "Lambda-Runtime-Trace-Id", inv.trace)
	}
	if inv.clientContext != "" {
		b = http1.AppendField(b, "Lambda-Runtime-Client-Context", inv.clientContext)
	}
	if inv.cognito != "" {
		b = http1.AppendField(b, "Lambda-Runtime-Cognito-Identity", inv.cognito)
	}
	b = strconv.AppendInt(append(b, "Content-Length: "...), int64(len(inv.payload)), 10)
	b = append(b, "\r\n\r\n"...)
	payload := inv.payload
	if len(payload) <= smallEvent {
		b, payload = append(b, payload...), nil // one copy is cheaper than two pieces
	}
	i.head = b
	x.Deliver(b, payload, func() { inv.delivered.Store(true) })
	if cap(i.head) > 2*smallEvent {
		i.head = nil
	}
	return true
}

// answer takes the result of the current invocation, or its error.
func (i *instance) answer(x *http1.Exchange, id string, failed bool) {
	i.mu.Lock()
	inv, state := i.current, i.state
	if inv == nil || inv.id != id {
		i.mu.Unlock()
		writeError(x, 400, "InvalidRequestID", "Invalid request ID")
		return
	}
	if state != stateRunning {
		i.mu.Unlock()
		to := "InvocationResponse"
		if failed {
			to = "InvocationErrorResponse"
		}
		refuseTransition(x, state, to)
		return
	}
	// From here on a second answer is refused, so that there is one reader and one result.
	i.state = stateAnswering
	i.mu.Unlock()

	if !failed && inv.streams(x) {
		i.relay(x, inv)
		return
	}
	a := answer{contentType: x.Header("Content-Type"), failed: failed}
	buf, err := readBody(x, x.ContentLength, MaxResponseBytes)
	switch {
	case errors.Is(err, errBodyTooLarge):
		a.failed = true
		a.errorType = errResponseTooLarge
		a.contentType = "application/json"
		a.body = errorJSON(errResponseTooLarge,
			"Response payload size exceeded maximum allowed payload size ("+strconv.Itoa(MaxResponseBytes)+" bytes).")
		i.finish(inv, a)
		_, _ = io.CopyN(io.Discard, x, discardLimit)
		writeError(x, 413, "RequestEntityTooLarge",
			"Exceeded maximum allowed payload size ("+strconv.Itoa(MaxResponseBytes)+" bytes).")
		return
	case err != nil:
		// The connection broke; the runtime may try again.
		i.mu.Lock()
		if i.state == stateAnswering {
			i.state = stateRunning
		}
		i.mu.Unlock()
		writeError(x, 400, "InvalidRequestFormat", "The request body ended early")
		return
	}
	a.body, a.buffer = *buf, buf
	if failed {
		a.setError(x.Header(trailerErrorType))
	} else if trailer := x.Trailer(trailerErrorType); trailer != "" {
		// A streamed response that failed on the way says so in its trailers (AWS: "Building a custom runtime").
		if body, err := base64.StdEncoding.DecodeString(x.Trailer(trailerErrorBody)); err == nil {
			a.body = body
		}
		a.setError(trailer)
	}
	if !i.finish(inv, a) {
		refuseTransition(x, stateGone, "InvocationResponse")
		return
	}
	// The gateway's answer goes first: the function has time until the next invocation.
	runtime.Gosched()
	accept(x)
}

// setError makes a an error of errorType whose body is what the runtime posted, or one made from the type.
func (a *answer) setError(errorType string) {
	a.failed = true
	a.errorType = errorType
	if a.errorType == "" {
		a.errorType = errUnhandled
	}
	a.contentType = "application/json"
	if len(a.body) == 0 {
		a.body = errorJSON(a.errorType, "")
	}
}

// finish gives the invocation its answer, unless the invocation has ended without one.
func (i *instance) finish(inv *invocation, a answer) bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.state != stateAnswering || i.current != inv {
		return false
	}
	i.state = stateAnswered
	inv.done <- a
	return true
}

func (i *instance) failInit(x *http1.Exchange) {
	buf, err := readBody(x, x.ContentLength, MaxResponseBytes)
	if errors.Is(err, errBodyTooLarge) {
		_, _ = io.CopyN(io.Discard, x, discardLimit)
		writeError(x, 413, "RequestEntityTooLarge",
			"Exceeded maximum allowed payload size ("+strconv.Itoa(MaxResponseBytes)+" bytes).")
		return
	}
	if err != nil {
		writeError(x, 400, "InvalidRequestFormat", "The request body ended early")
		return
	}
	a := answer{body: *buf}
	a.setError(x.Header("Lambda-Runtime-Function-Error-Type"))

	i.mu.Lock()
	state := i.state
	if state == stateInit {
		i.state = stateInitFailed
		i.initError = a
		close(i.failed)
	}
	i.mu.Unlock()
	if state != stateInit {
		refuseTransition(x, state, "InitError")
		return
	}
	accept(x)
}

func (s apiState) String() string {
	switch s {
	case stateInit:
		return "Started"
	case stateInitFailed:
		return "InitError"
	case stateReady:
		return "Ready"
	case stateRunning:
		return "Running"
	case stateAnswering:
		return "InvocationResponse"
	case stateAnswered:
		return "ResponseSent"
	case stateGone:
	}
	return "Stopped"
}

func accept(x *http1.Exchange) {
	x.Status(202)
	x.Set("Content-Type", "application/json")
	x.Send(accepted)
}

var accepted = []byte("{\"status\":\"OK\"}\n")

func refuseTransition(x *http1.Exchange, from apiState, to string) {
	writeError(x, 403, "InvalidStateTransition",
		"State transition from "+from.String()+" to "+to+" failed for runtime. Error: State transition is not allowed")
}

// writeError answers a runtime or the gateway with an error document.
func writeError(x *http1.Exchange, status int, errorType, message string, fields ...http1.Field) {
	b := appendString([]byte(`{"errorMessage":`), message)
	b = appendString(append(b, `,"errorType":`...), errorType)
	x.Status(status)
	for _, f := range fields {
		x.Set(f.Name, f.Value)
	}
	x.Set("Content-Type", "application/json")
	x.Send(append(b, "}\n"...))
}
