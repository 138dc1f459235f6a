package async

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/edge-serverless-box/esb/gateway"
	"github.com/edge-serverless-box/esb/gateway/lineage"
)

// shownPayload is the largest payload in bytes that a list of dead letters shows.
const shownPayload = 4 << 10

// sweepInterval is how often old dead letters are looked for.
const sweepInterval = time.Hour

// Kinds of a Letter.
const (
	// LetterEvent is an event that was given up; a replay runs the function with it.
	LetterEvent = "event"
	// LetterRecord is a record that could not be delivered; a replay delivers it.
	LetterRecord = "record"
)

// ErrNoLetter says that there is no dead letter of the function with that id.
var ErrNoLetter = errors.New("there is no such dead letter")

// Letter is one entry of the dead-letter queue.
type Letter struct {
	ID        uint64 `json:"id"`
	Kind      string `json:"kind"`
	Function  string `json:"function"`
	RequestID string `json:"request_id"`
	Condition string `json:"condition"`
	// ErrorCode is an HTTP status, as AWS's attribute is: 200 when the function failed, 429 when it could not be run.
	ErrorCode    int       `json:"error_code"`
	ErrorMessage string    `json:"error_message"`
	Invocations  int       `json:"invocations"`
	Accepted     time.Time `json:"accepted"`
	Died         time.Time `json:"died"`
	// Destination of a LetterRecord.
	Destination string `json:"destination,omitempty"`
	Bytes       int    `json:"bytes"`
	// Payload is the event, a JSON text when it is not JSON itself. A list leaves out those over 4 KB.
	Payload json.RawMessage `json:"payload,omitempty"`
	// Record is that of a LetterRecord; a list leaves it out.
	Record json.RawMessage `json:"record,omitempty"`
}

// States returns what waits for every function, by name.
func (q *Queue) States(ctx context.Context) ([]FunctionState, error) {
	counts, err := q.deadCounts(ctx)
	if err != nil {
		return nil, err
	}
	states := q.backlog()
	for function, n := range counts {
		s := states[function]
		s.Function, s.DeadLetters = function, n
		states[function] = s
	}
	list := make([]FunctionState, 0, len(states))
	for _, s := range states {
		list = append(list, s)
	}
	slices.SortFunc(list, func(a, b FunctionState) int { return strings.Compare(a.Function, b.Function) })
	return list, nil
}

func (q *Queue) deadStream() (jetstream.Stream, error) {
	if s := q.store.deadLetters(); s != nil {
		return s, nil
	}
	return nil, gateway.Errorf(gateway.CodeUnavailable, "the dead-letter queue is not available: %w", *q.broken.Load())
}

func (q *Queue) deadCounts(ctx context.Context) (map[string]uint64, error) {
	stream, err := q.deadStream()
	if err != nil {
		return nil, err
	}
	info, err := stream.Info(ctx, jetstream.WithSubjectFilter(q.deadSubject("*")))
	if err != nil {
		return nil, fmt.Errorf("count the dead letters: %w", err)
	}
	counts := make(map[string]uint64, len(info.State.Subjects))
	for subject, n := range info.State.Subjects {
		counts[strings.TrimPrefix(subject, q.deadSubject(""))] = n
	}
	return counts, nil
}

// Letters returns at most limit dead letters of a function, the oldest first, that come after the id after. next is the
// id to go on with, 0 at the end.
func (q *Queue) Letters(ctx context.Context, function string, after uint64, limit int) (letters []Letter, next uint64, err error) {
	letters = []Letter{}
	err = q.each(ctx, function, after, func(m *jetstream.RawStreamMsg) (bool, error) {
		if len(letters) == limit {
			next = letters[limit-1].ID
			return false, nil
		}
		l, _ := q.letter(function, m)
		if len(l.Payload) > shownPayload {
			l.Payload = nil
		}
		l.Record = nil
		letters = append(letters, l)
		return true, nil
	})
	return letters, next, err
}

// Letter returns one dead letter, whole. The error is ErrNoLetter when there is none.
func (q *Queue) Letter(ctx context.Context, function string, id uint64) (Letter, error) {
	m, err := q.find(ctx, function, id)
	if err != nil {
		return Letter{}, err
	}
	l, _ := q.letter(function, m)
	return l, nil
}

// letter reads a dead letter. One that cannot be read is shown all the same.
func (q *Queue) letter(function string, m *jetstream.RawStreamMsg) (Letter, event) {
	l := Letter{ID: m.Sequence, Kind: LetterEvent, Function: function, Died: m.Time.UTC(), Bytes: len(m.Data), ErrorMessage: m.Header.Get("ErrorMessage"), RequestID: m.Header.Get("RequestID")}
	ev, err := readEvent(function, m)
	if err != nil || ev.Outcome == nil {
		l.ErrorMessage = "the dead letter cannot be read; " + l.ErrorMessage
		l.Payload = jsonOf(m.Data)
		return l, ev
	}
	l.RequestID, l.ErrorMessage = ev.RequestID, ev.Error
	l.Condition, l.ErrorCode, l.Invocations = ev.Outcome.Condition, errorCode(ev.Outcome), ev.Outcome.Invocations
	l.Accepted = time.UnixMilli(ev.Accepted).UTC()
	l.Payload, l.Bytes = jsonOf(ev.payload), len(ev.payload)
	if !ev.Outcome.Bury {
		l.Kind, l.Destination = LetterRecord, ev.Outcome.Destination
		l.Record, _ = q.record(ev) // shown if it can be made
	}
	return l, ev
}

// each calls do with the dead letters of a function until it returns false.
func (q *Queue) each(ctx context.Context, function string, after uint64, do func(*jetstream.RawStreamMsg) (bool, error)) error {
	stream, err := q.deadStream()
	if err != nil {
		return err
	}
	for {
		m, err := stream.GetMsg(ctx, after+1, jetstream.WithGetMsgSubject(q.deadSubject(function)))
		if errors.Is(err, jetstream.ErrMsgNotFound) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read the dead letters of %s: %w", function, err)
		}
		if more, err := do(m); err != nil || !more {
			return err
		}
		after = m.Sequence
	}
}

func (q *Queue) find(ctx context.Context, function string, id uint64) (*jetstream.RawStreamMsg, error) {
	stream, err := q.deadStream()
	if err != nil {
		return nil, err
	}
	m, err := stream.GetMsg(ctx, id)
	switch {
	case errors.Is(err, jetstream.ErrMsgNotFound), err == nil && m.Subject != q.deadSubject(function):
		return nil, fmt.Errorf("%s, id %d: %w", function, id, ErrNoLetter)
	case err != nil:
		return nil, fmt.Errorf("read dead letter %d of %s: %w", id, function, err)
	}
	return m, nil
}

// Replay puts dead letters back into the queue and returns how many: those with the ids, or all that there are when none
// is given. An event begins anew, under its old request id; a record is delivered again. A letter leaves the dead-letter
// queue when it is durable in the other.
func (q *Queue) Replay(ctx context.Context, function string, ids ...uint64) (int, error) {
	return q.eachOf(ctx, function, ids, func(stream jetstream.Stream, m *jetstream.RawStreamMsg) error {
		_, ev := q.letter(function, m)
		if ev.RequestID == "" {
			return fmt.Errorf("dead letter %d of %s cannot be read, and so not be replayed: purge it", m.Sequence, function)
		}
		s := state{RequestID: ev.RequestID, ClientContext: ev.ClientContext, Qualifier: ev.Qualifier, Accepted: time.Now().UnixMilli(), Up: q.up.now()}
		s.TraceID, _ = lineage.Hop(lineage.Cut(ev.TraceID), function)
		body := ev.payload
		if o := ev.Outcome; o != nil && !o.Bury {
			s.Outcome, body = o, ev.body()
		}
		if err := q.enqueue(ctx, function, s, body); err != nil {
			return err
		}
		accepted.WithLabelValues(function).Inc()
		q.log.Info("dead letter replayed", "function", function, "request_id", ev.RequestID, "id", m.Sequence)
		return stream.DeleteMsg(ctx, m.Sequence)
	})
}

// Purge removes dead letters for good and returns how many: those with the ids, or all that there are when none is given.
func (q *Queue) Purge(ctx context.Context, function string, ids ...uint64) (int, error) {
	return q.eachOf(ctx, function, ids, func(stream jetstream.Stream, m *jetstream.RawStreamMsg) error {
		q.log.Info("dead letter purged", "function", function, "request_id", m.Header.Get("RequestID"), "id", m.Sequence)
		return stream.DeleteMsg(ctx, m.Sequence)
	})
}

// sweepOften removes the dead letters that have been kept for long enough, until ctx ends.
func (q *Queue) sweepOften(ctx context.Context) {
	for first := true; ; first = false {
		wait := sweepInterval
		if first {
			wait = time.Second // the streams have been read by then, and nobody waits for it
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
		if err := q.sweep(ctx); err != nil && ctx.Err() == nil {
			q.log.Warn("old dead letters not removed", "error", err.Error())
		}
	}
}

// sweep removes the dead letters that are older than DeadRetention, up to the first that is not.
func (q *Queue) sweep(ctx context.Context) error {
	stream := q.store.deadLetters()
	if stream == nil {
		return nil // a cluster that is not there yet
	}
	for {
		m, err := stream.GetMsg(ctx, 1, jetstream.WithGetMsgSubject(q.deadSubject("*")))
		if errors.Is(err, jetstream.ErrMsgNotFound) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read the oldest dead letter: %w", err)
		}
		died := int64(0) // of a letter that cannot be read, or of a version that did not note it
		if s, err := parseState(m.Header); err == nil && s.Outcome != nil {
			died = s.Outcome.Up
		}
		if q.up.age(died) <= q.opts.DeadRetention {
			return nil
		}
		q.log.Warn("dead letter removed: it was kept for ASYNC_DEAD_LETTER_RETENTION_DAYS", "subject", m.Subject, "request_id", m.Header.Get("RequestID"), "id", m.Sequence)
		if err := stream.DeleteMsg(ctx, m.Sequence); err != nil {
			return fmt.Errorf("remove dead letter %d: %w", m.Sequence, err)
		}
	}
}

// eachOf calls do with the letters that ids name, or with all that there were at the beginning.
func (q *Queue) eachOf(ctx context.Context, function string, ids []uint64, do func(jetstream.Stream, *jetstream.RawStreamMsg) error) (n int, err error) {
	stream, err := q.deadStream()
	if err != nil {
		return 0, err
	}
	if len(ids) > 0 {
		for _, id := range ids {
			m, err := q.find(ctx, function, id)
			if err != nil {
				return n, err
			}
			if err := do(stream, m); err != nil {
				return n, err
			}
			n++
		}
		return n, nil
	}
	info, err := stream.Info(ctx)
	if err != nil {
		return 0, fmt.Errorf("ask for the dead letters: %w", err)
	}
	err = q.each(ctx, function, 0, func(m *jetstream.RawStreamMsg) (bool, error) {
		if m.Sequence > info.State.LastSeq {
			return false, nil // a letter that came back already
		}
		if err := do(stream, m); err != nil {
			return false, err
		}
		n++
		return true, nil
	})
	return n, err
}
