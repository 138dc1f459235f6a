package lambdainit

import (
	"encoding/base64"
	"errors"
	"io"
	"net/http"
	"strconv"
	"time"
)

const (
	invokePath = "/2015-03-31/functions/function/invocations"

	// bodyLimit is how long the gateway may take to send an event, or to take a result.
	bodyLimit = 30 * time.Second

	headerReset = "X-Esb-Sandbox-Reset"
	// headerSpoilt says why this container must not serve any more.
	headerSpoilt    = "X-Esb-Sandbox-Spoilt"
	headerWorking   = "X-Esb-Extensions"
	headerLogResult = "X-Amz-Log-Result"
	// headerContainer names the container that a request is for, written as net/http has it in its map.
	headerContainer = "X-Esb-Container-Id"
	// headerQualifier is what the caller of the Invoke API named beside the function.
	headerQualifier = "X-Esb-Qualifier"
)

// serveWorker serves the worker endpoint (docs/lambda-init.md, "Invoked by the gateway").
func (s *Supervisor) serveWorker(w http.ResponseWriter, r *http.Request) {
	if !s.isFor(r) {
		// Nothing of it is read: it may be another function's event.
		w.Header()["Connection"] = []string{"close"}
		writeError(w, http.StatusMisdirectedRequest, "MisdirectedRequest", "This is not the container that "+headerContainer+" names")
		return
	}
	switch {
	case r.URL.Path == invokePath && r.Method == http.MethodPost:
		s.serveInvocation(w, r)
	case r.URL.Path == "/health" && r.Method == http.MethodGet:
		if r.URL.RawQuery == "flush=1" {
			s.journal.flush(drainLimit)
		}
		w.Header().Set("Content-Type", "application/json")
		if s.spoilt.Load() {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
		state := s.state()
		if state == "standby" && s.tooLong.Load() {
			state += `","init":"timeout`
		}
		_, _ = io.WriteString(w, `{"state":"`+state+"\"}\n")
	case r.URL.Path == invokePath || r.URL.Path == "/health":
		w.Header().Set("Allow", map[string]string{invokePath: http.MethodPost, "/health": http.MethodGet}[r.URL.Path])
		writeError(w, http.StatusMethodNotAllowed, "MethodNotAllowed", "Method not allowed")
	default:
		writeError(w, http.StatusNotFound, "NotFound", "No such path")
	}
}

// isFor says whether a request is for this container: an address outlives its container, and whoever believes in that
// one still must not reach the next. Without a name (ESB_INIT_CONTAINER) nothing can be told.
func (s *Supervisor) isFor(r *http.Request) bool {
	names := r.Header[headerContainer]
	return s.cfg.Container == "" || len(names) == 1 && names[0] == s.cfg.Container
}

func (s *Supervisor) serveInvocation(w http.ResponseWriter, r *http.Request) {
	inv, err := s.newInvocation(r)
	if err != nil {
		writeError(w, http.StatusBadRequest, "InvalidRequestContent", err.Error())
		return
	}
	w.Header()["X-Amzn-Requestid"] = []string{inv.id}
	if r.ContentLength > MaxRequestBytes {
		refuseTooLarge(w)
		return
	}
	if !s.busy.CompareAndSwap(false, true) {
		writeError(w, http.StatusConflict, "Busy", "An invocation is running: a container takes one at a time")
		return
	}
	// Not deferred alone: busy ends before the answer is sent, so that the gateway's next request finds it free.
	answered := false
	defer func() {
		if !answered {
			s.busy.Store(false)
		}
	}()

	control := http.NewResponseController(w)
	_ = control.SetReadDeadline(time.Now().Add(bodyLimit))
	payload, err := readBody(r.Body, r.ContentLength, MaxRequestBytes)
	_ = control.SetReadDeadline(time.Time{})
	switch {
	case errors.Is(err, errBodyTooLarge):
		refuseTooLarge(w)
		return
	case err != nil:
		writeError(w, http.StatusBadRequest, "InvalidRequestContent", "The request body ended early")
		return
	}
	inv.payload = *payload

	// The turn is free but for the last log lines of the invocation before, or the init at start.
	s.turn <- struct{}{}
	defer func() { <-s.turn }()
	s.mu.Lock()
	closing := s.closing
	s.mu.Unlock()
	switch {
	case closing:
		writeError(w, http.StatusServiceUnavailable, "Unavailable", "The container is shutting down")
		return
	case s.spoilt.Load():
		writeError(w, http.StatusServiceUnavailable, "Unavailable", "A process of the function cannot be killed")
		return
	}
	s.journal.begin(scope{requestID: inv.id, traceID: traceRoot(inv.trace)}, inv.wantTail)
	if inv.wantStream {
		inv.to, inv.left, inv.stream = w, r.Context().Done(), make(chan *stream, 1)
	}
	out := s.invoke(inv)
	defer giveBack(inv, payload, &out)
	var tail []byte
	if out.streamed {
		// net/http sends the end of the stream when this returns: the lines go first, and nothing is late.
		tail = s.conclude(inv, &out)
		out.spoilt = s.spoilt.Load()
		answered = true
		s.busy.Store(false)
		_ = control.SetWriteDeadline(time.Now().Add(bodyLimit))
		writeTrailers(w.Header(), inv, &out, tail)
		return
	}
	// The gateway does not wait for the log lines of a success, unless it asked for them.
	late := out.reset == "" && !inv.wantTail
	if !late {
		tail = s.conclude(inv, &out)
	}
	out.spoilt = s.spoilt.Load()
	answered = true
	s.busy.Store(false)
	_ = control.SetWriteDeadline(time.Now().Add(bodyLimit))
	if i := s.current(); late && i != nil && i.resting() != nil {
		w.Header()[headerWorking] = []string{"working"}
	}
	writeOutcome(w, inv, &out, tail)
	_ = control.Flush()
	_ = control.SetWriteDeadline(time.Time{})
	if late {
		s.conclude(inv, &out)
	}
}

// giveBack ends the use of the event of inv and of its result. Who holds an invocation still, as the function's process that had it
// last, holds neither.
func giveBack(inv *invocation, event *[]byte, out *outcome) {
	select {
	case <-inv.delivered:
		inv.payload = nil
		buffers.put(event)
	default: // the runtime may still be reading it
	}
	if out.buffer != nil {
		out.body = nil
		buffers.put(out.buffer)
	}
	buffers.release()
}

func refuseTooLarge(w http.ResponseWriter) {
	writeError(w, http.StatusRequestEntityTooLarge, "RequestEntityTooLarge",
		"Request must be smaller than "+strconv.Itoa(MaxRequestBytes)+" bytes for the InvokeFunction operation")
}

// newInvocation reads the headers of an invocation.
func (s *Supervisor) newInvocation(r *http.Request) (*invocation, error) {
	inv := &invocation{
		arrived:    time.Now(),
		trace:      r.Header.Get("X-Amzn-Trace-Id"),
		qualifier:  r.Header.Get(headerQualifier),
		cognito:    r.Header.Get("Lambda-Runtime-Cognito-Identity"),
		wantTail:   r.Header.Get("X-Amz-Log-Type") == "Tail",
		wantStream: r.Header.Get(headerInvokeMode) == modeStream,
		budget:     s.cfg.Timeout,
		done:       make(chan answer, 1),
		delivered:  make(chan struct{}),
		overtaken:  make(chan struct{}),
	}
	if inv.id = r.Header.Get("X-Amzn-Requestid"); inv.id == "" {
		inv.id = newRequestID()
	} else if !validRequestID(inv.id) {
		return nil, errors.New("X-Amzn-RequestId: must be 1 to 128 letters, digits, '-', '_', '.' or '='")
	}
	if inv.qualifier != "" && !validQualifier(inv.qualifier) {
		return nil, errors.New(headerQualifier + ": must be 1 to 128 letters, digits, '$', '-' or '_'")
	}
	if v := r.Header.Get("Lambda-Runtime-Deadline-Ms"); v != "" {
		ms, err := strconv.ParseInt(v, 10, 64)
		if err != nil {
			return nil, errors.New("Lambda-Runtime-Deadline-Ms: must be epoch milliseconds")
		}
		inv.budget = time.UnixMilli(ms).Sub(inv.arrived)
	}
	if v := r.Header.Get("X-Amz-Client-Context"); v != "" {
		b, err := base64.StdEncoding.DecodeString(v)
		if err != nil {
			return nil, errors.New("X-Amz-Client-Context: must be base64")
		}
		inv.clientContext = string(b)
	}
	return inv, nil
}

// validQualifier accepts what AWS does (Lambda API reference, Invoke, Qualifier).
func validQualifier(q string) bool {
	if len(q) > 128 {
		return false
	}
	for _, c := range []byte(q) {
		switch {
		case c >= '0' && c <= '9', c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c == '$', c == '-', c == '_':
		default:
			return false
		}
	}
	return true
}

func writeOutcome(w http.ResponseWriter, inv *invocation, out *outcome, tail []byte) {
	h := w.Header()
	if out.contentType != "" {
		h["Content-Type"] = []string{out.contentType}
	} else {
		h["Content-Type"] = []string{"application/json"}
	}
	h["Content-Length"] = []string{strconv.Itoa(len(out.body))}
	writeFacts(h, inv, out)
	if out.failed {
		h["X-Amz-Function-Error"] = []string{"Unhandled"}
	}
	writeReset(h, out)
	if inv.wantTail {
		h[headerLogResult] = []string{base64.StdEncoding.EncodeToString(tail)}
	}
	_, _ = w.Write(out.body)
}

// writeReset says what has become of the function's process, and of the container.
func writeReset(h http.Header, out *outcome) {
	if out.reset != "" {
		h[headerReset] = []string{out.reset}
	}
	if out.spoilt {
		h[headerSpoilt] = []string{errSpoilt.Error()}
	}
}

// writeFacts sets the headers that are known before an answer has come to its end.
func writeFacts(h http.Header, inv *invocation, out *outcome) {
	if inv.trace != "" {
		h["X-Amzn-Trace-Id"] = []string{inv.trace}
	}
	if out.waited {
		h["X-Esb-Init-Duration-Ms"] = []string{strconv.FormatFloat(float64(out.init)/float64(time.Millisecond), 'f', 3, 64)}
	}
}
