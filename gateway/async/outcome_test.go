package async

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/edge-serverless-box/esb/gateway"
)

// mustRecord is the one record in the store.
func mustRecord(t *testing.T, q *Queue) map[string]any {
	t.Helper()
	objects := q.opts.Objects.(*fakeObjects).all()
	require.Len(t, objects, 1)
	for _, text := range objects {
		r := object(t, text)
		delete(r, "timestamp")
		return r
	}
	return nil
}

// Recorded from AWS (destination-event-age-60 and -90): the record comes at once when the next try would be later than
// MaximumEventAgeInSeconds, with the last answer.
func TestQueue_NextTryWouldBeTooLate_GivesUpAtOnce_WithTheLastAnswer(t *testing.T) {
	for _, c := range []struct {
		name      string
		age, base time.Duration
		tries     int
	}{
		{"after the first", time.Minute, time.Minute, 1},
		{"after the second", 12 * time.Second, 3 * time.Second, 2}, // at 0 and 3 s; the third would be at 9 s, and with what the machine needs after 12 s
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			inv := newInvoker()
			inv.set("f", func(_ context.Context, i gateway.Invocation, n int) (gateway.Result, error) {
				if n == 2 {
					time.Sleep(4 * time.Second) // the time that the function takes counts
				}
				return fails(t.Context(), i, n)
			})
			opts := options(t.TempDir(), inv)
			opts.RetryBase = c.base
			q := mustOpen(t, opts)
			f := function("f", func(f *gateway.Function) {
				f.Async.MaxAge = c.age
				f.Async.OnFailure = &gateway.Destination{Bucket: "records"}
			})
			apply(q, f)
			enqueue(t, q, f, "r1", `{"a":1}`)
			empty(t, q)
			assert.Equal(t, c.tries, inv.ran("r1"))
			l := letters(t, q, "f")
			require.Len(t, l, 1)
			assert.Equal(t, "EventAgeExceeded", l[0].Condition)
			assert.Equal(t, 200, l[0].ErrorCode, "the function failed")
			assert.Equal(t, "no luck", l[0].ErrorMessage)
			assert.Equal(t, map[string]any{
				"version": "1.0",
				"requestContext": map[string]any{"requestId": "r1", "functionArn": "arn:aws:lambda:us-east-1:123456789012:function:f:$LATEST",
					"condition": "EventAgeExceeded", "approximateInvokeCount": float64(c.tries)},
				"requestPayload":  map[string]any{"a": 1.0},
				"responseContext": map[string]any{"statusCode": 200.0, "executedVersion": "$LATEST", "functionError": "Unhandled"},
				"responsePayload": map[string]any{"errorMessage": "no luck", "errorType": "Bad"},
			}, mustRecord(t, q))
		})
	}
}

// The answer outlives the wait, and a restart, and is no part of what the function gets.
func TestQueue_TooOldAfterAFailure_HasTheLastAnswer(t *testing.T) {
	dir := t.TempDir()
	inv := newInvoker()
	inv.set("f", fails)
	opts := options(dir, inv)
	opts.RetryBase = 400 * time.Millisecond
	q, err := Open(t.Context(), opts)
	require.NoError(t, err)
	f := function("f", func(f *gateway.Function) { f.Async.OnFailure = &gateway.Destination{Bucket: "records"} })
	apply(q, f)
	enqueue(t, q, f, "r1", `{"a":1}`)
	eventually(t, "the retry waits", func() bool { s := stateOf(t, q, "f"); return inv.ran("r1") == 1 && s.Backlog == 1 && s.InFlight == 0 })
	mustClose(t, q)

	inv.set("f", unavailableFor)
	q = mustOpen(t, opts)
	g := function("f", func(f *gateway.Function) {
		f.Async.MaxAge = 3 * time.Second
		f.Async.OnFailure = &gateway.Destination{Bucket: "records"}
	})
	apply(q, g)
	empty(t, q)
	require.Greater(t, inv.ran("r1"), 1)
	assert.JSONEq(t, `{"a":1}`, string(inv.runs["r1"][1].Payload))
	r := mustRecord(t, q)
	assert.Equal(t, "EventAgeExceeded", r["requestContext"].(map[string]any)["condition"])
	assert.Equal(t, map[string]any{"statusCode": 200.0, "executedVersion": "$LATEST", "functionError": "Unhandled"}, r["responseContext"])
	assert.Equal(t, map[string]any{"errorMessage": "no luck", "errorType": "Bad"}, r["responsePayload"])
	assert.Equal(t, map[string]any{"a": 1.0}, r["requestPayload"])
}

// What is stored a second time, because the answer to the first was lost, is the same.
func TestQueue_RecordOrState_StoredTwice_IsOne(t *testing.T) {
	t.Run("record", func(t *testing.T) {
		inv := newInvoker()
		q := mustOpen(t, options(t.TempDir(), inv))
		apply(q)
		for _, id := range []string{"one", "two", "three"} {
			for range 5 {
				require.NoError(t, q.enqueue(t.Context(), "g", state{RequestID: id, Accepted: time.Now().UnixMilli()}, []byte(`{}`), id))
			}
		}
		eventually(t, "in the index", func() bool { return stateOf(t, q, "g").Backlog == 3 })
		apply(q, function("g"))
		empty(t, q)
		for _, id := range []string{"one", "two", "three"} {
			assert.Equal(t, 1, inv.ran(id))
		}
	})
	t.Run("state", func(t *testing.T) {
		q := mustOpen(t, options(t.TempDir(), newInvoker()))
		apply(q)
		ev := event{function: "f", payload: []byte("{}")}
		ev.RequestID, ev.Accepted, ev.Tries = "r1", time.Now().UnixMilli(), 1
		e := entry{seq: 1, shard: 2, born: q.up.now()}
		for range 3 {
			assert.Equal(t, done, q.replace(e, ev))
		}
		info, err := q.store.shard(2).Info(t.Context())
		require.NoError(t, err)
		assert.EqualValues(t, 1, info.State.Msgs)
	})
	t.Run("state, later than the store recognises", func(t *testing.T) {
		dir := t.TempDir()
		inv := newInvoker()
		q, err := Open(t.Context(), options(dir, inv))
		require.NoError(t, err)
		apply(q)
		for range 3 { // without an id
			storeRaw(t, q, "f", state{RequestID: "r1", Accepted: 1, Up: 1, Tries: 1, Replaces: 1}, `{}`)
		}
		storeRaw(t, q, "f", state{RequestID: "r2", Accepted: 1, Up: 1, Tries: 1}, `{}`)
		mustClose(t, q)
		q = mustOpen(t, options(dir, inv))
		apply(q, function("f"))
		empty(t, q)
		assert.Equal(t, 1, inv.ran("r2"))
		assert.LessOrEqual(t, inv.ran("r1"), 1) // the first stored message is the one that they replace
	})
}

func TestQueue_RecordThatNobodyTakes_IsBuriedInTheEnd(t *testing.T) {
	dir := t.TempDir()
	mustNoteUptime(t, dir, deliverFor+time.Hour)
	opts := options(dir, newInvoker())
	opts.Objects = &fakeObjects{err: errors.New("away")}
	q := mustOpen(t, opts)
	apply(q, function("f"))
	old := outcome{Condition: conditionSuccess, At: time.Now().UnixMilli(), Up: 1, PayloadBytes: 2, Destination: "s3://records/"}
	storeRaw(t, q, "f", state{RequestID: "old", Accepted: 1, Outcome: &old}, `{}`)
	young := old
	young.Up = q.up.now()
	storeRaw(t, q, "f", state{RequestID: "young", Accepted: 1, Outcome: &young}, `{}`)
	eventually(t, "the old one is given up", func() bool { return len(letters(t, q, "f")) == 1 })
	l := letters(t, q, "f")[0]
	assert.Equal(t, LetterRecord, l.Kind)
	assert.Equal(t, "old", l.RequestID)
	assert.Contains(t, l.ErrorMessage, "could not be delivered")
	assert.Equal(t, 1, stateOf(t, q, "f").Outcomes, "the young one is tried again")
}

func TestQueue_FailureOfTheBox_EndsAThrottle(t *testing.T) {
	inv := newInvoker()
	var both sync.WaitGroup
	both.Add(2)
	inv.set("f", func(ctx context.Context, i gateway.Invocation, n int) (gateway.Result, error) {
		switch {
		case i.RequestID != "first": // both at the same time, or never
			both.Done()
			met := make(chan struct{})
			go func() { both.Wait(); close(met) }()
			select {
			case <-met:
				return gateway.Result{Payload: []byte("1")}, nil
			case <-ctx.Done():
				return gateway.Result{}, ctx.Err()
			}
		case n == 1:
			return gateway.Result{}, gateway.Errorf(gateway.CodeThrottled, "full")
		case n == 2:
			return gateway.Result{}, gateway.Errorf(gateway.CodeTransport, "broke off")
		}
		return gateway.Result{Payload: []byte("1")}, nil
	})
	q := mustOpen(t, options(t.TempDir(), inv))
	f := function("f")
	apply(q, f)
	enqueue(t, q, f, "first", `{}`)
	eventually(t, "throttled", func() bool { return stateOf(t, q, "f").PausedUntil != nil })
	enqueue(t, q, f, "second", `{}`)
	enqueue(t, q, f, "third", `{}`)
	eventually(t, "the others ran", func() bool { return inv.ran("second") == 1 && inv.ran("third") == 1 })
	empty(t, q)
}
