package async

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/edge-serverless-box/esb/gateway"
	"github.com/edge-serverless-box/esb/gateway/lineage"
)

// verdict says what becomes of an event after it was looked at.
type verdict int

const (
	// done: nothing is left to do with this message, which is removed.
	done verdict = iota
	// refusedNow: the function takes nothing at the moment, and the event keeps its place.
	refusedNow
	// setback: it failed for the box's sake, and waits by itself.
	setback
	// unclear is a setback of which nobody knows whether what was to be stored has been: the next try is soon enough to be
	// recognised as the same.
	unclear
	// brokenOff: the process ends, and the event stays as it is.
	brokenOff
	// gone: there is no such message any more.
	gone
)

// handle sees to one event and says so to its lane.
func (q *Queue) handle(l *lane, e entry, tooOld bool) {
	began := time.Now()
	v := q.look(l, e, tooOld)
	if v == done {
		q.handled <- e
	}
	if v == gone {
		q.bytes.Add(-int64(e.size))
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	delete(l.running, e.key())
	if tooOld {
		l.expiring--
	}
	switch v {
	case done, gone:
		l.unthrottled()
	case refusedNow:
		l.throttled(began)
		l.add(e)
	case setback, unclear:
		l.unthrottled()
		if e.setbacks < 32 {
			e.setbacks++
		}
		wait := pause(int(e.setbacks))
		if v == unclear {
			wait = min(wait, unclearPause)
		}
		e.due = q.up.now() + wait.Milliseconds()
		l.add(e)
	case brokenOff:
		l.add(e)
	}
	l.pump()
}

// look reads an event and does what is due.
func (q *Queue) look(l *lane, e entry, tooOld bool) verdict {
	ctx, cancel := context.WithTimeout(q.ctx, requestTimeout)
	m, err := q.store.shard(int(e.shard)).GetMsg(ctx, e.seq)
	cancel()
	switch {
	case errors.Is(err, jetstream.ErrMsgNotFound):
		return gone
	case err != nil:
		return q.failedStore("event not read", l.function, e, err)
	}
	ev, err := readEvent(l.function, m)
	if err != nil {
		q.log.Error("event cannot be read: it goes to the dead letters as it is", "function", l.function, "error", err.Error())
		ev = event{function: l.function, payload: m.Data}
		ev.RequestID = fmt.Sprintf("unreadable-%d-%d", e.shard, e.seq)
		ev.Error = err.Error()
		ev.Outcome = &outcome{Condition: conditionRetries, At: time.Now().UnixMilli(), PayloadBytes: len(m.Data), Code: http.StatusInternalServerError, Bury: true}
	}
	if ev.Outcome != nil {
		return q.putAway(e, ev)
	}
	q.mu.Lock()
	fn := q.functions[l.function]
	q.mu.Unlock()
	switch {
	case tooOld:
		return q.tooOld(e, ev, fn)
	case fn == nil:
		return setback // removed this very moment
	case ev.Loops > 0:
		ev.Error = fmt.Sprintf("the function is invoked in a recursive loop: the chain of invocations came to it more than %d times", lineage.Most)
		return q.end(e, ev, fn, outcome{Condition: conditionLoop, Code: http.StatusBadRequest, Invocations: ev.Tries}, nil)
	case fn.Scaling.MaxCapacity == 0:
		ev.Error = "max_capacity is 0: the function takes no events"
		return q.end(e, ev, fn, outcome{Condition: conditionZero, Code: http.StatusTooManyRequests, Invocations: ev.Tries}, nil)
	}
	return q.run(e, ev, fn)
}

// run invokes the function.
func (q *Queue) run(e entry, ev event, fn *gateway.Function) verdict {
	started.WithLabelValues(fn.Name).Inc()
	inv := ev.invocation()
	if q.opts.Memory != nil {
		held := q.opts.Memory.Claim("async " + fn.Name)
		defer held.Release()
		inv.Memory = &held
	}
	res, err := q.opts.Invoker.Invoke(q.ctx, fn, inv)
	if err != nil {
		if q.ctx.Err() != nil {
			return brokenOff
		}
		switch code := gateway.ErrorCode(err); code {
		case gateway.CodeThrottled, gateway.CodeUnavailable:
			throttled.WithLabelValues(fn.Name).Inc()
			q.log.Debug("event throttled", "function", fn.Name, "request_id", ev.RequestID, "error", err.Error())
			return refusedNow
		case gateway.CodeInvalid, gateway.CodeTooLarge:
			// It would be refused for ever.
			ev.Error = err.Error()
			return q.end(e, ev, fn, outcome{Condition: conditionRetries, Code: http.StatusBadRequest, Invocations: ev.Tries}, nil)
		default:
			throttled.WithLabelValues(fn.Name).Inc()
			q.log.Warn("event not handled for the box's sake: it is tried again", "function", fn.Name, "request_id", ev.RequestID, "error", err.Error())
			return setback
		}
	}
	if res.FunctionError == "" {
		succeeded.WithLabelValues(fn.Name).Inc()
		if fn.Async.OnSuccess == nil {
			return done
		}
		return q.end(e, ev, fn, outcome{Condition: conditionSuccess, Invocations: ev.Tries + 1}, &res)
	}
	ev.Tries++
	ev.Error = errorText(res.Payload)
	if ev.Tries > fn.Async.Retries {
		return q.end(e, ev, fn, outcome{Condition: conditionRetries, Code: http.StatusOK, FunctionError: res.FunctionError, Invocations: ev.Tries}, &res)
	}
	ev.Last, ev.answer = &lastTry{PayloadBytes: len(ev.payload), FunctionError: res.FunctionError}, res.Payload
	wait := q.opts.RetryBase * time.Duration(ev.Tries)
	if q.up.age(e.born)+wait >= fn.Async.MaxAge {
		// AWS gives it up at once (recorded).
		return q.tooOld(e, ev, fn)
	}
	ev.Due, ev.DueUp = time.Now().Add(wait).UnixMilli(), q.up.now()+wait.Milliseconds()
	retried.WithLabelValues(fn.Name).Inc()
	q.log.Info("function failed on an event: it is tried again", "function", fn.Name, "request_id", ev.RequestID, "tries", ev.Tries, "wait_s", wait.Seconds())
	return q.replace(e, ev)
}

// tooOld ends an event that has no time left. Its last answer goes into the record (recorded from AWS: responseContext
// and responsePayload of the last failed try).
func (q *Queue) tooOld(e entry, ev event, fn *gateway.Function) verdict {
	o := outcome{Condition: conditionAge, Code: http.StatusInternalServerError, Invocations: ev.Tries}
	var last *gateway.Result
	if ev.Last != nil {
		o.Code, o.FunctionError = http.StatusOK, ev.Last.FunctionError
		last = &gateway.Result{Payload: ev.answer}
	}
	if ev.Error == "" {
		ev.Error = "the event became older than max_age before a run succeeded"
	}
	return q.end(e, ev, fn, o, last)
}

// errorText is what a function's error says, at most 1 KB (AWS: ErrorMessage of a dead letter).
func errorText(payload []byte) string {
	var e struct {
		ErrorMessage string `json:"errorMessage"`
	}
	text := string(payload)
	if json.Unmarshal(payload, &e) == nil && e.ErrorMessage != "" {
		text = e.ErrorMessage
	}
	return text[:min(len(text), 1024)]
}

// end notes how an event ended, for putAway. fn is nil when the function is configured no more.
func (q *Queue) end(e entry, ev event, fn *gateway.Function, o outcome, res *gateway.Result) verdict {
	o.At, o.Up, o.PayloadBytes = time.Now().UnixMilli(), q.up.now(), len(ev.payload)
	ev.Due, ev.DueUp, ev.Last, ev.answer = 0, 0, nil, nil
	if res != nil {
		o.Answered, ev.answer = true, res.Payload
	}
	to := (*gateway.Destination)(nil)
	if o.Condition == conditionSuccess {
		to = fn.Async.OnSuccess
	} else {
		o.Bury = true
		if fn != nil {
			to, o.Bury = fn.Async.OnFailure, fn.Async.DeadLetter || fn.Async.OnFailure == nil
		}
		failed.WithLabelValues(ev.function, o.Condition).Inc()
		q.log.Warn("event given up", "function", ev.function, "request_id", ev.RequestID, "condition", o.Condition, "tries", ev.Tries, "error", ev.Error)
	}
	if ev.Loops > lineage.Most+1 {
		to, o.Bury = nil, true // on_failure had its record the first time, and perhaps it is what goes on
	}
	if to != nil {
		o.Destination = to.String()
	}
	ev.Outcome = &o
	return q.replace(e, ev)
}

// replace stores the new state of an event in the place of e. It tries until it can or the process ends: what is known
// of the event must not be lost for a moment's trouble of the store.
func (q *Queue) replace(e entry, ev event) verdict {
	ev.Replaces, ev.Up = e.seq, e.born
	if ev.Outcome != nil {
		ev.Up = 0 // the outcome has its own
	}
	m, err := message(q.eventSubject(int(e.shard), ev.function), ev.state, ev.body())
	if err != nil {
		q.log.Error("event not encoded", "function", ev.function, "request_id", ev.RequestID, "error", err.Error())
		return setback
	}
	if q.pace != nil && q.pace.wait(q.ctx, ev.function, len(m.Data)+overhead, 0) != nil {
		return brokenOff
	}
	// The id makes a second try harmless when only the answer to the first was lost.
	id := fmt.Sprintf("%d-%d-%d-%t", e.shard, e.seq, ev.Tries, ev.Outcome != nil)
	for n := 1; ; n++ {
		_, err := q.store.publish(q.ctx, m, jetstream.WithMsgID(id))
		if err == nil {
			return done
		}
		if tooBig(err) && len(ev.answer) > 0 {
			// A small max_payload of a cluster: the record does without the answer.
			q.log.Warn("answer too big for the queue: the record goes without it", "function", ev.function, "request_id", ev.RequestID, "bytes", len(ev.answer))
			ev.answer, ev.Last = nil, nil
			return q.replace(e, ev)
		}
		if v := q.failedStore("state of an event not stored", ev.function, e, err); v == brokenOff {
			return v
		}
		select {
		case <-q.ctx.Done():
			return brokenOff
		case <-time.After(min(pause(n), unclearPause)): // so that the repetition is recognised
		}
	}
}

func tooBig(err error) bool {
	return errors.Is(err, nats.ErrMaxPayload) || errors.Is(err, jetstream.ErrStreamMessageExceedsMaximum)
}

func (q *Queue) failedStore(what, function string, e entry, err error) verdict {
	if q.ctx.Err() != nil {
		return brokenOff
	}
	storeErrors.Inc()
	q.log.Error(what, "function", function, "shard", e.shard, "seq", e.seq, "error", err.Error())
	return setback
}

// remove takes handled events out of their streams, until the channel is closed. An event that cannot be removed is
// handled again by the next process.
func (q *Queue) remove() {
	for e := range q.handled {
		for n := 1; ; n++ {
			ctx, cancel := context.WithTimeout(context.Background(), requestTimeout)
			stream := q.store.shard(int(e.shard))
			err := stream.DeleteMsg(ctx, e.seq)
			if err != nil {
				// JetStream does not say why: perhaps there is no such message any more.
				if _, getErr := stream.GetMsg(ctx, e.seq); errors.Is(getErr, jetstream.ErrMsgNotFound) {
					err = nil
				}
			}
			cancel()
			if err == nil {
				break
			}
			storeErrors.Inc()
			q.log.Error("handled event not removed", "shard", e.shard, "seq", e.seq, "error", err.Error())
			if q.ctx.Err() != nil {
				break
			}
			select {
			case <-q.ctx.Done():
			case <-time.After(pause(n)):
			}
		}
		q.bytes.Add(-int64(e.size))
	}
}
