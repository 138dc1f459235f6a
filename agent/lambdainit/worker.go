package lambdainit

import (
	"encoding/base64"
	"errors"
	"strconv"
	"time"

	"github.com/edge-serverless-box/esb/agent/lambdainit/http1"
)

const (
	invokePath = "/2015-03-31/functions/function/invocations"
	healthPath = "/health"

	// bodyLimit is how long the gateway may take to send an event, or to take a result.
	bodyLimit = 30 * time.Second

	headerRequestID = "X-Amzn-Requestid"

	headerReset = "X-Esb-Sandbox-Reset"
	// headerSpoilt says why this container must not serve any more.
	headerSpoilt    = "X-Esb-Sandbox-Spoilt"
	headerWorking   = "X-Esb-Extensions"
	headerLogResult = "X-Amz-Log-Result"
	// headerContainer names the container that a request is for.
	headerContainer = "X-Esb-Container-Id"
	// headerQualifier is what the caller of the Invoke API named beside the function.
	headerQualifier = "X-Esb-Qualifier"
)

// serveWorker serves the worker endpoint (docs/lambda-init.md, "Invoked by the gateway").
func (s *Supervisor) serveWorker(x *http1.Exchange) {
	if !s.isFor(x) {
		// Nothing of it is read: it may be another function's event.
		x.CloseAfter()
		writeError(x, 421, "MisdirectedRequest", "This is not the container that "+headerContainer+" names")
		return
	}
	method := methods[x.Path]
	switch {
	case method == "":
		writeError(x, 404, "NotFound", "No such path")
	case method != x.Method:
		writeError(x, 405, "MethodNotAllowed", "Method not allowed", http1.Field{Name: "Allow", Value: method})
	case x.Path == invokePath:
		s.serveInvocation(x)
	default:
		s.serveHealth(x)
	}
}

// methods are those of the paths of the worker endpoint.
var methods = map[string]string{invokePath: http1.MethodPost, healthPath: http1.MethodGet}

func (s *Supervisor) serveHealth(x *http1.Exchange) {
	if x.Query == "flush=1" {
		s.journal.flush(drainLimit)
	}
	status := 200
	if s.spoilt.Load() {
		status = 503
	}
	state := s.state()
	if state == "standby" && s.tooLong.Load() {
		state += `","init":"timeout`
	}
	x.Status(status)
	x.Set("Content-Type", "application/json")
	x.Send([]byte(`{"state":"` + state + "\"}\n"))
}

// isFor says whether a request is for this container: an address outlives its container, and whoever believes in that
// one still must not reach the next. Without a name (ESB_INIT_CONTAINER) nothing can be told.
func (s *Supervisor) isFor(x *http1.Exchange) bool {
	if s.cfg.Container == "" {
		return true
	}
	name, ok := x.Only(headerContainer)
	return ok && name == s.cfg.Container
}

func (s *Supervisor) serveInvocation(x *http1.Exchange) {
	inv, err := s.newInvocation(x)
	if err != nil {
		writeError(x, 400, "InvalidRequestContent", err.Error())
		return
	}
	named := http1.Field{Name: headerRequestID, Value: inv.id}
	if x.ContentLength > MaxRequestBytes {
		refuseTooLarge(x, named)
		return
	}
	if !s.busy.CompareAndSwap(false, true) {
		writeError(x, 409, "Busy", "An invocation is running: a container takes one at a time", named)
		return
	}
	// Not deferred alone: busy ends before the answer is sent, so that the gateway's next request finds it free.
	answered := false
	defer func() {
		if !answered {
			s.busy.Store(false)
		}
	}()

	limited := !x.Buffered()
	if limited {
		x.SetReadDeadline(time.Now().Add(bodyLimit))
	}
	payload, err := readBody(x, x.ContentLength, MaxRequestBytes)
	if limited {
		x.SetReadDeadline(time.Time{})
	}
	switch {
	case errors.Is(err, errBodyTooLarge):
		refuseTooLarge(x, named)
		return
	case err != nil:
		writeError(x, 400, "InvalidRequestContent", "The request body ended early", named)
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
		writeError(x, 503, "Unavailable", "The container is shutting down", named)
		return
	case s.spoilt.Load():
		writeError(x, 503, "Unavailable", "A process of the function cannot be killed", named)
		return
	}
	s.journal.begin(scope{requestID: inv.id, traceID: traceRoot(inv.trace)}, inv.wantTail)
	if inv.wantStream {
		inv.to, inv.stream, inv.overtaken = x, make(chan *stream, 1), make(chan struct{})
	}
	out := s.invoke(inv)
	defer giveBack(inv, payload, &out)
	var tail []byte
	if out.streamed {
		// The lines go before the end of the stream, and nothing is late.
		tail = s.conclude(inv, &out)
		out.spoilt = s.spoilt.Load()
		answered = true
		s.busy.Store(false)
		x.End(trailers(inv, &out, tail))
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
	i := s.current()
	writeOutcome(x, inv, &out, tail, late && i != nil && i.resting() != nil)
	if late {
		s.conclude(inv, &out)
	}
}

// giveBack ends the use of the event of inv and of its result. Who holds an invocation still, as the function's process that had it
// last, holds neither.
func giveBack(inv *invocation, event *[]byte, out *outcome) {
	if inv.delivered.Load() { // else the runtime may still be reading it
		inv.payload = nil
		buffers.put(event)
	}
	if out.buffer != nil {
		out.body = nil
		buffers.put(out.buffer)
	}
	buffers.release()
}

func refuseTooLarge(x *http1.Exchange, named http1.Field) {
	writeError(x, 413, "RequestEntityTooLarge",
		"Request must be smaller than "+strconv.Itoa(MaxRequestBytes)+" bytes for the InvokeFunction operation", named)
}

// newInvocation reads the headers of an invocation.
func (s *Supervisor) newInvocation(x *http1.Exchange) (*invocation, error) {
	inv := &invocation{
		arrived:    time.Now(),
		trace:      x.Header("X-Amzn-Trace-Id"),
		qualifier:  x.Header(headerQualifier),
		cognito:    x.Header("Lambda-Runtime-Cognito-Identity"),
		wantTail:   x.Header("X-Amz-Log-Type") == "Tail",
		wantStream: x.Header(headerInvokeMode) == modeStream && x.CanStream(),
		budget:     s.cfg.Timeout,
		done:       make(chan answer, 1),
	}
	if inv.id = x.Header(headerRequestID); inv.id == "" {
		inv.id = newRequestID()
	} else if !validRequestID(inv.id) {
		return nil, errors.New("X-Amzn-RequestId: must be 1 to 128 letters, digits, '-', '_', '.' or '='")
	}
	if inv.qualifier != "" && !validQualifier(inv.qualifier) {
		return nil, errors.New(headerQualifier + ": must be 1 to 128 letters, digits, '$', '-' or '_'")
	}
	if v := x.Header("Lambda-Runtime-Deadline-Ms"); v != "" {
		ms, err := strconv.ParseInt(v, 10, 64)
		if err != nil {
			return nil, errors.New("Lambda-Runtime-Deadline-Ms: must be epoch milliseconds")
		}
		inv.budget = time.UnixMilli(ms).Sub(inv.arrived)
	}
	if v := x.Header("X-Amz-Client-Context"); v != "" {
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

// writeOutcome answers; working says that extensions still are.
func writeOutcome(x *http1.Exchange, inv *invocation, out *outcome, tail []byte, working bool) {
	x.Status(200)
	if out.contentType != "" {
		x.Set("Content-Type", out.contentType)
	} else {
		x.Set("Content-Type", "application/json")
	}
	writeFacts(x, inv, out)
	if working {
		x.Set(headerWorking, "working")
	}
	if out.failed {
		x.Set("X-Amz-Function-Error", "Unhandled")
	}
	for _, f := range resets(nil, out) {
		x.Set(f.Name, f.Value)
	}
	if inv.wantTail {
		x.Set(headerLogResult, base64.StdEncoding.EncodeToString(tail))
	}
	x.Send(out.body)
}

// resets appends what has become of the function's process, and of the container.
func resets(list []http1.Field, out *outcome) []http1.Field {
	if out.reset != "" {
		list = append(list, http1.Field{Name: headerReset, Value: out.reset})
	}
	if out.spoilt {
		list = append(list, http1.Field{Name: headerSpoilt, Value: errSpoilt.Error()})
	}
	return list
}

// writeFacts sets the headers that are known before an answer has come to its end.
func writeFacts(x *http1.Exchange, inv *invocation, out *outcome) {
	x.Set(headerRequestID, inv.id)
	if inv.trace != "" {
		x.Set("X-Amzn-Trace-Id", inv.trace)
	}
	if out.waited {
		x.Set("X-Esb-Init-Duration-Ms", strconv.FormatFloat(float64(out.init)/float64(time.Millisecond), 'f', 3, 64))
	}
}
