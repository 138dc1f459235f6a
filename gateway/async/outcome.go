package async

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/edge-serverless-box/esb/gateway"
)

const (
	// deliverFor is how long the delivery of a record is tried. Then it goes to the dead-letter queue.
	deliverFor = gateway.MaxAsyncAge
	// postTimeout bounds one POST of a record, putTimeout one object.
	postTimeout = 10 * time.Second
	putTimeout  = 30 * time.Second
)

// namespace makes the ids that have to be the same at every try to deliver a record.
var namespace = uuid.MustParse("6f6a3d0e-5a0b-4c55-9d52-6e1f0b1f7c11")

// putAway does what is left of an ended event: its dead letter, then its record.
func (q *Queue) putAway(e entry, ev event) verdict {
	o := ev.Outcome
	if o.Bury {
		if v := q.bury(e, ev); v != done || o.Destination == "" {
			return v
		}
		next := *o
		next.Bury = false
		ev.Outcome = &next
		return q.replace(e, ev)
	}
	if o.Destination == "" {
		return done
	}
	to, err := gateway.ParseDestination(o.Destination)
	if err != nil {
		ev.Error = fmt.Sprintf("destination %s", err)
		return q.bury(e, ev)
	}
	err = q.deliver(ev, to)
	if err == nil {
		delivered.WithLabelValues(ev.function, kindOf(to)).Inc()
		return done
	}
	if q.ctx.Err() != nil {
		return brokenOff
	}
	undelivered.WithLabelValues(ev.function, kindOf(to)).Inc()
	var final *finalError
	over := q.up.age(e.born) > deliverFor
	q.log.Warn("record not delivered", "function", ev.function, "request_id", ev.RequestID, "kind", kindOf(to), "tries", e.setbacks+1,
		"final", over || errors.As(err, &final), "error", err.Error())
	var stored *unclearError
	switch {
	case over, errors.As(err, &final):
	case errors.As(err, &stored):
		return unclear
	default:
		return setback
	}
	ev.Error = "the record could not be delivered: " + err.Error()
	return q.bury(e, ev)
}

// finalError is one that another try does not cure.
type finalError struct{ err error }

func (e *finalError) Error() string { return e.err.Error() }
func (e *finalError) Unwrap() error { return e.err }

// unclearError is one after which the record may have been stored all the same.
type unclearError struct{ err error }

func (e *unclearError) Error() string { return e.err.Error() }
func (e *unclearError) Unwrap() error { return e.err }

func kindOf(to gateway.Destination) string {
	switch {
	case to.Function != "":
		return "function"
	case to.Bucket != "":
		return "s3"
	}
	return "http"
}

// deliver brings the record of ev to its destination.
func (q *Queue) deliver(ev event, to gateway.Destination) error {
	body, err := q.record(ev)
	if err != nil {
		return &finalError{err}
	}
	// A second try makes the same names.
	id := uuid.NewSHA1(namespace, []byte(ev.function+"\x00"+ev.RequestID+"\x00"+strconv.FormatInt(ev.Outcome.At, 10))).String()
	switch {
	case to.Function != "":
		return q.invoke(ev, to.Function, id, body)
	case to.Bucket != "":
		if q.opts.Objects == nil {
			return errors.New("the box has no object store (S3_ENDPOINT is off)")
		}
		ctx, cancel := context.WithTimeout(q.ctx, putTimeout)
		defer cancel()
		// AWS: aws/lambda/async/<function-name>/YYYY/MM/DD/YYYY-MM-DDTHH.MM.SS-<Random UUID> (Lambda developer guide,
		// Capturing records of Lambda asynchronous invocations).
		at := time.UnixMilli(ev.Outcome.At).UTC()
		key := to.Prefix + "aws/lambda/async/" + ev.function + "/" + at.Format("2006/01/02/2006-01-02T15.04.05") + "-" + id
		return q.opts.Objects.Put(ctx, to.Bucket, key, body)
	}
	return q.post(ev, to.URL, body)
}

// invoke makes the record an event of another function.
func (q *Queue) invoke(ev event, function, id string, body []byte) error {
	q.mu.Lock()
	fn := q.functions[function]
	q.mu.Unlock()
	if fn == nil {
		return fmt.Errorf("there is no function %s", function)
	}
	err := q.enqueue(q.ctx, function, q.accept(fn, id, ev.TraceID), body, id)
	switch gateway.ErrorCode(err) {
	case "":
		accepted.WithLabelValues(function).Inc()
		return nil
	case gateway.CodeTooLarge, gateway.CodeInvalid:
		return &finalError{err}
	}
	return &unclearError{err}
}

// noRedirects: none are followed: a record goes where functions.yml says.
var noRedirects = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }

func (q *Queue) post(ev event, to string, body []byte) error {
	ctx, cancel := context.WithTimeout(q.ctx, postTimeout)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, to, bytes.NewReader(body))
	if err != nil {
		return &finalError{errors.New("the URL cannot be used")}
	}
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("X-Amzn-RequestId", ev.RequestID)
	if ev.TraceID != "" {
		r.Header.Set("X-Amzn-Trace-Id", ev.TraceID)
	}
	resp, err := q.poster.Do(r)
	if err != nil {
		// The URL may hold a secret, and its error does so too.
		var about *url.Error
		if errors.As(err, &about) {
			err = about.Err
		}
		return fmt.Errorf("POST to %s: %w", r.URL.Host, err)
	}
	defer func() { _ = resp.Body.Close() }()
	// Read, so that the connection can be used again; how much is bounded.
	_, _ = io.Copy(io.Discard, io.LimitReader(resp.Body, 64<<10))
	if resp.StatusCode >= 200 && resp.StatusCode < 300 {
		return nil
	}
	err = fmt.Errorf("POST to %s: status %d", r.URL.Host, resp.StatusCode)
	switch c := resp.StatusCode; {
	case c == http.StatusRequestTimeout, c == http.StatusTooEarly, c == http.StatusTooManyRequests, c < 400, c >= 500:
		return err
	}
	return &finalError{err}
}

// bury puts an event, or the record of one, into the dead-letter queue.
func (q *Queue) bury(e entry, ev event) verdict {
	m, err := message(q.deadSubject(ev.function), ev.state, ev.body())
	if err != nil {
		q.log.Error("dead letter not encoded", "function", ev.function, "request_id", ev.RequestID, "error", err.Error())
		return setback
	}
	// AWS's attributes of a dead letter.
	m.Header.Set("RequestID", plain(ev.RequestID))
	m.Header.Set("ErrorCode", strconv.Itoa(errorCode(ev.Outcome)))
	m.Header.Set("ErrorMessage", plain(ev.Error))
	// A letter that was written before the process ended is not written a second time.
	id := fmt.Sprintf("dead-%d-%d-%d", e.shard, e.seq, ev.Outcome.At)
	if _, err := q.store.publish(q.ctx, m, jetstream.WithMsgID(id)); err != nil {
		if q.ctx.Err() == nil {
			q.deadRefused.Store(&err)
		}
		return q.failedStore("dead letter not stored: the event stays in the queue until it can be", ev.function, e, err)
	}
	q.deadRefused.Store(nil)
	deadLettered.WithLabelValues(ev.function).Inc()
	q.log.Warn("dead letter", "function", ev.function, "request_id", ev.RequestID, "condition", ev.Outcome.Condition, "error", ev.Error)
	return done
}

func errorCode(o *outcome) int {
	if o == nil || o.Code == 0 {
		return http.StatusInternalServerError
	}
	return o.Code
}

// plain is text that may stand in a header.
func plain(text string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, text)
}
