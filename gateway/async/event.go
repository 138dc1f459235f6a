package async

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/edge-serverless-box/esb/gateway"
)

// stateHeader is the message header with an event's state. The body is the event's payload, then, once the function has
// answered, its last answer.
const stateHeader = "Esb-State"

// Conditions of AWS's invocation record.
const (
	conditionSuccess = "Success"
	conditionRetries = "RetriesExhausted"
	conditionAge     = "EventAgeExceeded"
	conditionZero    = "ZeroReservedConcurrency"
	// conditionLoop is the box's own: AWS does not say what it writes.
	conditionLoop = "RecursiveInvocation"
)

// state is what a message says of its event besides the payload. A message never changes: a new state is a new message
// that Replaces the old one.
type state struct {
	RequestID     string `json:"request_id"`
	TraceID       string `json:"trace_id,omitempty"`
	ClientContext string `json:"client_context,omitempty"`
	Qualifier     string `json:"qualifier,omitempty"`
	// Accepted is when the event was, Due when it is to be tried, in milliseconds since 1970; 0 is at once.
	Accepted int64 `json:"accepted"`
	Due      int64 `json:"due,omitempty"`
	// Up and DueUp are the same in up-time, by which they are reckoned; 0 is unknown.
	Up    int64 `json:"up,omitempty"`
	DueUp int64 `json:"due_up,omitempty"`
	// Tries is how often the function has failed on it.
	Tries int `json:"tries,omitempty"`
	// Error is why it was tried in vain the last time, for people.
	Error string `json:"error,omitempty"`
	// Last is how the function failed in the last try, nil before the first.
	Last *lastTry `json:"last,omitempty"`
	// Loops is how often the chain of invocations has come to the function, when that is too often: it is not run.
	Loops int `json:"loops,omitempty"`
	// Replaces is the sequence number of the message in whose place this one is.
	Replaces uint64 `json:"replaces,omitempty"`
	// Outcome is nil as long as the function has not answered for good.
	Outcome *outcome `json:"outcome,omitempty"`
}

// lastTry is a try after which there is another.
type lastTry struct {
	// PayloadBytes is where in the body the payload ends and the answer begins.
	PayloadBytes  int    `json:"payload_bytes"`
	FunctionError string `json:"function_error"`
}

// outcome is how an event ended, and what is left to be done about it.
type outcome struct {
	Condition string `json:"condition"`
	// At is when, in milliseconds since 1970, Up in up-time.
	At int64 `json:"at"`
	Up int64 `json:"up,omitempty"`
	// PayloadBytes is where in the body the payload ends and the answer begins; Answered says that there is one.
	PayloadBytes int  `json:"payload_bytes"`
	Answered     bool `json:"answered,omitempty"`
	// FunctionError is "Unhandled" when the answer describes an error.
	FunctionError string `json:"function_error,omitempty"`
	// Invocations is how often the function was invoked with it (AWS: approximateInvokeCount).
	Invocations int `json:"invocations"`
	// Code is the HTTP status that AWS gives a dead letter as ErrorCode, 0 after a success.
	Code int `json:"code,omitempty"`
	// Bury says that the event is still to be put into the dead-letter queue.
	Bury bool `json:"bury,omitempty"`
	// Destination is where the record is still to be delivered, as functions.yml has it, empty for nowhere.
	Destination string `json:"destination,omitempty"`
}

// eventSubject makes the subject of an event in one of the streams.
func (q *Queue) eventSubject(shard int, function string) string {
	return fmt.Sprintf("%s.event.%d.%s", q.opts.Prefix, shard, function)
}

func (q *Queue) deadSubject(function string) string { return q.opts.Prefix + ".dead." + function }

// message makes the message of an event.
func message(subject string, s state, body []byte) (*nats.Msg, error) {
	text, err := json.Marshal(s)
	if err != nil {
		return nil, fmt.Errorf("encode the state of event %s: %w", s.RequestID, err)
	}
	return &nats.Msg{Subject: subject, Header: nats.Header{stateHeader: {string(text)}}, Data: body}, nil
}

// parseState reads the state out of a message's header.
func parseState(h nats.Header) (state, error) {
	var s state
	if err := json.Unmarshal([]byte(h.Get(stateHeader)), &s); err != nil {
		return s, fmt.Errorf("read the header %s: %w", stateHeader, err)
	}
	return s, nil
}

// event is a stored event, read.
type event struct {
	state
	function string
	payload  []byte
	// answer is the function's, nil when there is none.
	answer []byte
}

func readEvent(function string, m *jetstream.RawStreamMsg) (event, error) {
	s, err := parseState(m.Header)
	if err != nil {
		return event{}, err
	}
	e := event{state: s, function: function, payload: m.Data}
	size, answered := len(m.Data), false
	switch {
	case s.Outcome != nil:
		size, answered = s.Outcome.PayloadBytes, s.Outcome.Answered
	case s.Last != nil:
		size, answered = s.Last.PayloadBytes, true
	}
	if size < 0 || size > len(m.Data) {
		return e, fmt.Errorf("event %s: the payload has %d bytes and the message only %d", s.RequestID, size, len(m.Data))
	}
	e.payload = m.Data[:size:size]
	if answered {
		e.answer = m.Data[size:]
	}
	return e, nil
}

func (e event) body() []byte {
	if len(e.answer) == 0 {
		return e.payload
	}
	return append(append(make([]byte, 0, len(e.payload)+len(e.answer)), e.payload...), e.answer...)
}

func (e event) invocation() gateway.Invocation {
	// An event that a stop of the gateway breaks off goes back to the queue: it must not run to its end as well.
	return gateway.Invocation{RequestID: e.RequestID, TraceID: e.TraceID, ClientContext: e.ClientContext, Qualifier: e.Qualifier, Payload: e.payload, EndsWithCaller: true}
}

// record is AWS's invocation record (Lambda developer guide, Capturing records of Lambda asynchronous invocations).
type record struct {
	Version         string           `json:"version"`
	Timestamp       string           `json:"timestamp"`
	RequestContext  requestContext   `json:"requestContext"`
	RequestPayload  json.RawMessage  `json:"requestPayload"`
	ResponseContext *responseContext `json:"responseContext,omitempty"`
	ResponsePayload json.RawMessage  `json:"responsePayload,omitempty"`
}

type requestContext struct {
	RequestID              string `json:"requestId"`
	FunctionARN            string `json:"functionArn"`
	Condition              string `json:"condition"`
	ApproximateInvokeCount int    `json:"approximateInvokeCount"`
}

type responseContext struct {
	StatusCode      int    `json:"statusCode"`
	ExecutedVersion string `json:"executedVersion"`
	FunctionError   string `json:"functionError,omitempty"`
}

const latestVersion = "$LATEST"

// record makes the record of an event with an outcome. What is not JSON, which a runtime of one's own may answer, is
// carried as a JSON text.
func (q *Queue) record(e event) ([]byte, error) {
	o := e.Outcome
	r := record{
		Version:   "1.0",
		Timestamp: time.UnixMilli(o.At).UTC().Format("2006-01-02T15:04:05.000Z"),
		RequestContext: requestContext{
			RequestID:              e.RequestID,
			FunctionARN:            fmt.Sprintf("arn:aws:lambda:%s:%s:function:%s:%s", q.opts.Region, q.opts.AccountID, e.function, latestVersion),
			Condition:              o.Condition,
			ApproximateInvokeCount: o.Invocations,
		},
		RequestPayload: jsonOf(e.payload),
	}
	if o.Answered {
		r.ResponseContext = &responseContext{StatusCode: 200, ExecutedVersion: latestVersion, FunctionError: o.FunctionError}
		r.ResponsePayload = jsonOf(e.answer)
	}
	text, err := json.Marshal(r)
	if err != nil {
		return nil, fmt.Errorf("make the record of event %s: %w", e.RequestID, err)
	}
	return text, nil
}

func jsonOf(data []byte) json.RawMessage {
	if len(data) == 0 {
		return json.RawMessage("null")
	}
	if json.Valid(data) {
		return data
	}
	text, _ := json.Marshal(string(data)) // a text always encodes
	return text
}
