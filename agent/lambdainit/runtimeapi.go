package lambdainit

import (
	"encoding/base64"
	"errors"
	"io"
	"net/http"
	"runtime"
	"strconv"
	"strings"
	"time"
)

const (
	apiPrefix = "/2018-06-01/runtime/"

	// discardLimit is how much of a body that is too large is read, so that the runtime gets to read the answer.
	discardLimit = 64 << 20
)

// ServeHTTP serves the Runtime API (AWS: Lambda developer guide, "Using the Lambda runtime API"; the wording of
// errors is RIE's).
func (i *instance) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	path, ok := strings.CutPrefix(r.URL.Path, apiPrefix)
	if !ok {
		if call, ok := strings.CutPrefix(r.URL.Path, extensionPrefix); ok {
			i.serveExtensions(w, r, call)
			return
		}
		if r.URL.Path == telemetryPath || r.URL.Path == logsPath {
			i.serveTelemetry(w, r)
			return
		}
		http.NotFound(w, r)
		return
	}
	method, handle := http.MethodPost, http.HandlerFunc(nil)
	switch path {
	case "invocation/next":
		method, handle = http.MethodGet, i.next
	case "init/error":
		handle = i.failInit
	default:
		rest, ok := strings.CutPrefix(path, "invocation/")
		if !ok {
			break
		}
		switch id, what, _ := strings.Cut(rest, "/"); what {
		case "response":
			handle = func(w http.ResponseWriter, r *http.Request) { i.answer(w, r, id, false) }
		case "error":
			handle = func(w http.ResponseWriter, r *http.Request) { i.answer(w, r, id, true) }
		}
	}
	switch {
	case handle == nil:
		http.NotFound(w, r)
	case r.Method != method:
		w.Header().Set("Allow", method)
		http.Error(w, http.StatusText(http.StatusMethodNotAllowed), http.StatusMethodNotAllowed)
	default:
		handle(w, r)
	}
}

func (i *instance) next(w http.ResponseWriter, r *http.Request) {
	i.mu.Lock()
	switch i.state {
	case stateInit, stateReady:
	case stateAnswered:
		close(i.current.overtaken)
	default:
		state := i.state
		i.mu.Unlock()
		refuseTransition(w, state, "Ready")
		return
	}
	i.state = stateReady
	i.settleInit()
	i.mu.Unlock()

	var inv *invocation
	select {
	case inv = <-i.events:
	case <-r.Context().Done():
		return
	}
	defer close(inv.delivered)
	i.mu.Lock()
	if i.state == stateGone {
		i.mu.Unlock()
		return
	}
	i.state, i.current = stateRunning, inv
	inv.due = inv.deadline
	if inv.due.IsZero() {
		inv.due = time.Now().Add(inv.budget)
	}
	i.offer(inv)
	i.mu.Unlock()

	h := w.Header()
	h["Content-Type"] = []string{"application/json"}
	h["Content-Length"] = []string{strconv.Itoa(len(inv.payload))}
	h["Lambda-Runtime-Aws-Request-Id"] = []string{inv.id}
	h["Lambda-Runtime-Deadline-Ms"] = []string{strconv.FormatInt(inv.due.UnixMilli(), 10)}
	h["Lambda-Runtime-Invoked-Function-Arn"] = []string{i.cfg.functionARN(inv.qualifier)}
	if inv.trace != "" {
		h["Lambda-Runtime-Trace-Id"] = []string{inv.trace}
	}
	if inv.clientContext != "" {
		h["Lambda-Runtime-Client-Context"] = []string{inv.clientContext}
	}
	if inv.cognito != "" {
		h["Lambda-Runtime-Cognito-Identity"] = []string{inv.cognito}
	}
	_, _ = w.Write(inv.payload)
	_ = http.NewResponseController(w).Flush()
}

// answer takes the result of the current invocation, or its error.
func (i *instance) answer(w http.ResponseWriter, r *http.Request, id string, failed bool) {
	i.mu.Lock()
	inv, state := i.current, i.state
	if inv == nil || inv.id != id {
		i.mu.Unlock()
		writeError(w, http.StatusBadRequest, "InvalidRequestID", "Invalid request ID")
		return
	}
	if state != stateRunning {
		i.mu.Unlock()
		to := "InvocationResponse"
		if failed {
			to = "InvocationErrorResponse"
		}
		refuseTransition(w, state, to)
		return
	}
	// From here on a second answer is refused, so that there is one reader and one result.
	i.state = stateAnswering
	i.mu.Unlock()

	if !failed && inv.streams(r) {
		i.relay(w, r, inv)
		return
	}
	a := answer{contentType: r.Header.Get("Content-Type"), failed: failed}
	buf, err := readBody(r.Body, r.ContentLength, MaxResponseBytes)
	switch {
	case errors.Is(err, errBodyTooLarge):
		a.failed = true
		a.errorType = errResponseTooLarge
		a.contentType = "application/json"
		a.body = errorJSON(errResponseTooLarge,
			"Response payload size exceeded maximum allowed payload size ("+strconv.Itoa(MaxResponseBytes)+" bytes).")
		i.finish(inv, a)
		_, _ = io.CopyN(io.Discard, r.Body, discardLimit)
		writeError(w, http.StatusRequestEntityTooLarge, "RequestEntityTooLarge",
			"Exceeded maximum allowed payload size ("+strconv.Itoa(MaxResponseBytes)+" bytes).")
		return
	case err != nil:
		// The connection broke; the runtime may try again.
		i.mu.Lock()
		if i.state == stateAnswering {
			i.state = stateRunning
		}
		i.mu.Unlock()
		writeError(w, http.StatusBadRequest, "InvalidRequestFormat", "The request body ended early")
		return
	}
	a.body, a.buffer = *buf, buf
	if failed {
		a.setError(r.Header.Get(trailerErrorType))
	} else if trailer := r.Trailer.Get(trailerErrorType); trailer != "" {
		// A streamed response that failed on the way says so in its trailers (AWS: "Building a custom runtime").
		if body, err := base64.StdEncoding.DecodeString(r.Trailer.Get(trailerErrorBody)); err == nil {
			a.body = body
		}
		a.setError(trailer)
	}
	if !i.finish(inv, a) {
		refuseTransition(w, stateGone, "InvocationResponse")
		return
	}
	// The gateway's answer goes first: the function has time until the next invocation.
	runtime.Gosched()
	accept(w)
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

func (i *instance) failInit(w http.ResponseWriter, r *http.Request) {
	buf, err := readBody(r.Body, r.ContentLength, MaxResponseBytes)
	if errors.Is(err, errBodyTooLarge) {
		_, _ = io.CopyN(io.Discard, r.Body, discardLimit)
		writeError(w, http.StatusRequestEntityTooLarge, "RequestEntityTooLarge",
			"Exceeded maximum allowed payload size ("+strconv.Itoa(MaxResponseBytes)+" bytes).")
		return
	}
	if err != nil {
		writeError(w, http.StatusBadRequest, "InvalidRequestFormat", "The request body ended early")
		return
	}
	a := answer{body: *buf}
	a.setError(r.Header.Get("Lambda-Runtime-Function-Error-Type"))

	i.mu.Lock()
	state := i.state
	if state == stateInit {
		i.state = stateInitFailed
		i.initError = a
		close(i.failed)
	}
	i.mu.Unlock()
	if state != stateInit {
		refuseTransition(w, state, "InitError")
		return
	}
	accept(w)
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

func accept(w http.ResponseWriter) {
	const body = "{\"status\":\"OK\"}\n"
	h := w.Header()
	h["Content-Type"] = []string{"application/json"}
	h["Content-Length"] = []string{strconv.Itoa(len(body))}
	w.WriteHeader(http.StatusAccepted)
	_, _ = io.WriteString(w, body)
}

func refuseTransition(w http.ResponseWriter, from apiState, to string) {
	writeError(w, http.StatusForbidden, "InvalidStateTransition",
		"State transition from "+from.String()+" to "+to+" failed for runtime. Error: State transition is not allowed")
}

// writeError answers a runtime or the gateway with an error document.
func writeError(w http.ResponseWriter, status int, errorType, message string) {
	b := appendString([]byte(`{"errorMessage":`), message)
	b = appendString(append(b, `,"errorType":`...), errorType)
	b = append(b, "}\n"...)
	h := w.Header()
	h["Content-Type"] = []string{"application/json"}
	h["Content-Length"] = []string{strconv.Itoa(len(b))}
	w.WriteHeader(status)
	_, _ = w.Write(b)
}
