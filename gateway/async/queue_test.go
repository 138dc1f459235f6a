package async

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/edge-serverless-box/esb/gateway"
)

func TestQueue_EventRunsOnce_AndNothingIsLeft(t *testing.T) {
	inv := newInvoker()
	q := mustOpen(t, options(t.TempDir(), inv))
	f := function("f")
	apply(q, f)
	enqueue(t, q, f, "r1", `{"a":1}`)
	empty(t, q)
	require.Equal(t, 1, inv.ran("r1"))
	got := inv.runs["r1"][0]
	assert.Regexp(t, `^Root=1-2-3;Lineage=1:[0-9a-f]{8}:0$`, got.TraceID)
	got.TraceID = ""
	assert.Equal(t, gateway.Invocation{RequestID: "r1", ClientContext: "e30=", Qualifier: "$LATEST", Payload: []byte(`{"a":1}`), EndsWithCaller: true}, got)
	assert.Empty(t, letters(t, q, "f"))
	assert.NoError(t, q.Check(t.Context()))
	assert.Empty(t, q.Notes())
	registry := prometheus.NewPedanticRegistry()
	require.NoError(t, registry.Register(q))
	_, err := registry.Gather()
	assert.NoError(t, err)
}

func TestQueue_FunctionError_IsTriedAgainUnderTheSameID_ThenBuried(t *testing.T) {
	for _, retries := range []int{0, 1, 2} {
		t.Run(fmt.Sprint(retries), func(t *testing.T) {
			inv := newInvoker()
			inv.set("f", fails)
			opts := options(t.TempDir(), inv)
			opts.RetryBase = 50 * time.Millisecond
			q := mustOpen(t, opts)
			f := function("f", func(f *gateway.Function) { f.Async.Retries = retries })
			apply(q, f)
			began := time.Now()
			enqueue(t, q, f, "r1", `{"a":1}`)
			empty(t, q)
			assert.Equal(t, retries+1, inv.ran("r1"))
			// 1 and 2 times the base.
			assert.GreaterOrEqual(t, time.Since(began), opts.RetryBase*time.Duration(retries*(retries+1)/2))
			l := letters(t, q, "f")
			require.Len(t, l, 1)
			assert.Equal(t, Letter{ID: l[0].ID, Kind: LetterEvent, Function: "f", RequestID: "r1", Condition: "RetriesExhausted", ErrorCode: 200, ErrorMessage: "no luck",
				Invocations: retries + 1, Accepted: l[0].Accepted, Died: l[0].Died, Bytes: 7, Payload: []byte(`{"a":1}`)}, l[0])
			m, err := q.store.deadLetters().GetMsg(t.Context(), l[0].ID)
			require.NoError(t, err)
			assert.Equal(t, `{"a":1}`+`{"errorMessage":"no luck","errorType":"Bad"}`, string(m.Data))
			assert.Equal(t, []string{"r1", "200", "no luck"}, []string{m.Header.Get("RequestID"), m.Header.Get("ErrorCode"), m.Header.Get("ErrorMessage")})
			assert.EqualValues(t, 1, stateOf(t, q, "f").DeadLetters)
		})
	}
}

func TestQueue_FailureThatIsCured_LeavesNoLetter(t *testing.T) {
	inv := newInvoker()
	inv.set("f", func(ctx context.Context, i gateway.Invocation, n int) (gateway.Result, error) {
		if n < 3 {
			return fails(ctx, i, n)
		}
		return gateway.Result{Payload: []byte("1")}, nil
	})
	q := mustOpen(t, options(t.TempDir(), inv))
	f := function("f")
	apply(q, f)
	enqueue(t, q, f, "r1", `{}`)
	empty(t, q)
	assert.Equal(t, 3, inv.ran("r1"))
	assert.Empty(t, letters(t, q, "f"))
}

func TestQueue_ThrottleAndBoxFailures_DoNotCountAsTries(t *testing.T) {
	for _, code := range []gateway.Code{gateway.CodeThrottled, gateway.CodeUnavailable, gateway.CodeTransport, gateway.CodeInternal} {
		t.Run(string(code), func(t *testing.T) {
			t.Parallel()
			inv := newInvoker()
			inv.set("f", func(ctx context.Context, i gateway.Invocation, n int) (gateway.Result, error) {
				if n == 1 {
					return gateway.Result{}, gateway.Errorf(code, "not now")
				}
				return fails(ctx, i, n)
			})
			q := mustOpen(t, options(t.TempDir(), inv))
			f := function("f", func(f *gateway.Function) { f.Async.Retries = 1 })
			apply(q, f)
			began := time.Now()
			enqueue(t, q, f, "r1", `{}`)
			empty(t, q)
			assert.Equal(t, 3, inv.ran("r1"), "once in vain, then two tries")
			assert.GreaterOrEqual(t, time.Since(began), firstPause)
			require.Len(t, letters(t, q, "f"), 1)
			assert.Equal(t, 2, letters(t, q, "f")[0].Invocations)
		})
	}
}

func TestQueue_RefusedForEver_IsBuriedAtOnce(t *testing.T) {
	inv := newInvoker()
	inv.set("f", func(context.Context, gateway.Invocation, int) (gateway.Result, error) {
		return gateway.Result{}, gateway.Errorf(gateway.CodeInvalid, "bad header")
	})
	q := mustOpen(t, options(t.TempDir(), inv))
	f := function("f")
	apply(q, f)
	enqueue(t, q, f, "r1", `{}`)
	empty(t, q)
	assert.Equal(t, 1, inv.ran("r1"))
	assert.Equal(t, 400, letters(t, q, "f")[0].ErrorCode)
}

func TestQueue_ThrottledFunction_DoesNotBlockAnother(t *testing.T) {
	inv := newInvoker()
	inv.set("full", func(context.Context, gateway.Invocation, int) (gateway.Result, error) {
		return gateway.Result{}, gateway.Errorf(gateway.CodeThrottled, "full")
	})
	release := make(chan struct{})
	inv.set("slow", func(ctx context.Context, _ gateway.Invocation, _ int) (gateway.Result, error) {
		select {
		case <-release:
			return gateway.Result{}, nil
		case <-ctx.Done():
			return gateway.Result{}, gateway.Errorf(gateway.CodeCanceled, "left")
		}
	})
	q := mustOpen(t, options(t.TempDir(), inv))
	full, slow, f := function("full"), function("slow"), function("f")
	apply(q, full, slow, f)
	for i := range 20 {
		enqueue(t, q, full, fmt.Sprint("full", i), `{}`)
		enqueue(t, q, slow, fmt.Sprint("slow", i), `{}`)
	}
	for i := range 20 {
		enqueue(t, q, f, fmt.Sprint("f", i), `{}`)
	}
	eventually(t, "the third function has run", func() bool { s := stateOf(t, q, "f"); return s.Backlog+s.InFlight == 0 })
	eventually(t, "slow is full", func() bool { return stateOf(t, q, "slow").InFlight == 3 })
	assert.Equal(t, 17, stateOf(t, q, "slow").Backlog, "one worker of four is left to others")
	eventually(t, "full waits", func() bool { return stateOf(t, q, "full").PausedUntil != nil })
	close(release)
	eventually(t, "slow has run", func() bool { s := stateOf(t, q, "slow"); return s.Backlog+s.InFlight == 0 })
}

func TestLane_Throttles_PauseGrows_AndOneEventProbes(t *testing.T) {
	q := &Queue{functions: map[string]*gateway.Function{"f": function("f")}, up: newUptime()}
	l := &lane{q: q, function: "f"}
	assert.Equal(t, 3, l.limit())
	began := time.Now()
	l.throttled(began)
	l.throttled(began) // was under way too
	assert.Equal(t, 1, l.throttles)
	assert.Equal(t, 1, l.limit())
	assert.InDelta(t, q.up.now()+1000, l.resumeAt, 900)
	for range 20 {
		l.throttled(time.Now())
	}
	assert.Greater(t, l.resumeAt-q.up.now(), int64(4*60*1000))
	assert.LessOrEqual(t, l.resumeAt-q.up.now(), int64(5*60*1000))
	l.unthrottled()
	assert.Equal(t, 3, l.limit())
}

func TestLane_Limit(t *testing.T) {
	for _, c := range []struct{ capacity, concurrency, want int }{{1, 0, 1}, {2, 0, 1}, {10, 0, 9}, {10, 3, 3}, {2, 5, 2}} {
		f := function("f", func(f *gateway.Function) { f.Scaling.MaxCapacity, f.Async.Concurrency = c.capacity, c.concurrency })
		l := &lane{q: &Queue{functions: map[string]*gateway.Function{"f": f}}, function: "f"}
		assert.Equal(t, c.want, l.limit(), "%+v", c)
	}
	l := &lane{q: &Queue{}, function: "gone"}
	assert.Zero(t, l.limit())
}

func TestPause(t *testing.T) {
	assert.Equal(t, time.Second, pause(1))
	assert.Equal(t, 2*time.Second, pause(2))
	assert.Equal(t, 5*time.Minute, pause(12))
	assert.Equal(t, 5*time.Minute, pause(1000))
}

func TestQueue_TooOld_IsBuriedWithoutARun(t *testing.T) {
	inv := newInvoker()
	inv.set("f", func(context.Context, gateway.Invocation, int) (gateway.Result, error) {
		return gateway.Result{}, gateway.Errorf(gateway.CodeUnavailable, "agent down")
	})
	q := mustOpen(t, options(t.TempDir(), inv))
	f := function("f", func(f *gateway.Function) {
		f.Async.MaxAge = 1200 * time.Millisecond // config allows from 60 s
		f.Async.OnFailure = &gateway.Destination{Bucket: "records"}
	})
	apply(q, f)
	enqueue(t, q, f, "r1", `{"a":1}`)
	empty(t, q)
	l := letters(t, q, "f")
	require.Len(t, l, 1)
	assert.Equal(t, "EventAgeExceeded", l[0].Condition)
	assert.Equal(t, 500, l[0].ErrorCode)
	require.Len(t, q.opts.Objects.(*fakeObjects).all(), 1)
	for _, text := range q.opts.Objects.(*fakeObjects).all() {
		r := object(t, text)
		assert.Equal(t, "EventAgeExceeded", r["requestContext"].(map[string]any)["condition"])
		assert.NotContains(t, r, "responseContext", "it never ran")
	}
}

func TestQueue_RemovedFunction_WaitsAndComesBack(t *testing.T) {
	inv := newInvoker()
	q := mustOpen(t, options(t.TempDir(), inv))
	f := function("f")
	apply(q)
	enqueue(t, q, f, "r1", `{}`)
	eventually(t, "in the index", func() bool { return stateOf(t, q, "f").Backlog == 1 })
	assert.False(t, stateOf(t, q, "f").Configured)
	assert.NotNil(t, stateOf(t, q, "f").Oldest)
	apply(q, f)
	empty(t, q)
	assert.Equal(t, 1, inv.ran("r1"))
}

func TestQueue_ZeroConcurrency_EndsWithoutARun(t *testing.T) {
	inv := newInvoker()
	opts := options(t.TempDir(), inv)
	q := mustOpen(t, opts)
	f := function("f", func(f *gateway.Function) {
		f.Scaling.MaxCapacity = 0
		f.Async.OnFailure = &gateway.Destination{Bucket: "records", Prefix: "failed/"}
	})
	apply(q, f)
	enqueue(t, q, f, "r1", `{"a":[1,2]}`)
	empty(t, q)
	assert.Zero(t, inv.ran("r1"))
	objects := opts.Objects.(*fakeObjects).all()
	require.Len(t, objects, 1)
	for key, text := range objects {
		assert.Regexp(t, regexp.MustCompile(`^records/failed/aws/lambda/async/f/\d{4}/\d\d/\d\d/\d{4}-\d\d-\d\dT\d\d\.\d\d\.\d\d-[0-9a-f]{8}-[0-9a-f-]{27}$`), key)
		r := object(t, text)
		assert.Regexp(t, `^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$`, r["timestamp"])
		delete(r, "timestamp")
		assert.Equal(t, object(t, `{"version":"1.0","requestContext":{"requestId":"r1","functionArn":"arn:aws:lambda:us-east-1:123456789012:function:f:$LATEST",
			"condition":"ZeroReservedConcurrency","approximateInvokeCount":0},"requestPayload":{"a":[1,2]}}`), r)
	}
	assert.Equal(t, 429, letters(t, q, "f")[0].ErrorCode)
}

func TestQueue_Records_OfSuccessAndFailure(t *testing.T) {
	inv := newInvoker()
	inv.set("bad", fails)
	inv.set("good", func(context.Context, gateway.Invocation, int) (gateway.Result, error) {
		return gateway.Result{Payload: []byte(`{"sum":3}`)}, nil
	})
	q := mustOpen(t, options(t.TempDir(), inv))
	to := &gateway.Destination{Function: "sink"}
	good := function("good", func(f *gateway.Function) { f.Async.OnSuccess = to })
	bad := function("bad", func(f *gateway.Function) { f.Async.OnFailure, f.Async.DeadLetter = to, false })
	apply(q, good, bad, function("sink"))
	enqueue(t, q, good, "g", `{"a":1}`)
	enqueue(t, q, bad, "b", `"text"`)
	empty(t, q)
	assert.Empty(t, letters(t, q, "bad"), "dead_letter is false")
	records := map[string]map[string]any{}
	inv.mu.Lock()
	for id, runs := range inv.runs {
		if id != "g" && id != "b" {
			r := object(t, string(runs[0].Payload))
			delete(r, "timestamp")
			records[r["requestContext"].(map[string]any)["requestId"].(string)] = r
			assert.Regexp(t, `^Root=1-2-3;Lineage=1:[0-9a-f]{8}:1$`, runs[0].TraceID, "one chain")
		}
	}
	inv.mu.Unlock()
	assert.Equal(t, map[string]map[string]any{
		"g": object(t, `{"version":"1.0","requestContext":{"requestId":"g","functionArn":"arn:aws:lambda:us-east-1:123456789012:function:good:$LATEST",
			"condition":"Success","approximateInvokeCount":1},"requestPayload":{"a":1},"responseContext":{"statusCode":200,"executedVersion":"$LATEST"},"responsePayload":{"sum":3}}`),
		"b": object(t, `{"version":"1.0","requestContext":{"requestId":"b","functionArn":"arn:aws:lambda:us-east-1:123456789012:function:bad:$LATEST",
			"condition":"RetriesExhausted","approximateInvokeCount":3},"requestPayload":"text",
			"responseContext":{"statusCode":200,"executedVersion":"$LATEST","functionError":"Unhandled"},"responsePayload":{"errorMessage":"no luck","errorType":"Bad"}}`),
	}, records)
}

func TestQueue_HTTPDestination_IsTriedAgain_AndARefusalIsFinal(t *testing.T) {
	var calls atomic.Int64
	var mu sync.Mutex
	var bodies []string
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		switch {
		case r.URL.Path == "/never":
			w.WriteHeader(http.StatusForbidden)
		case r.URL.Path == "/moved":
			http.Redirect(w, r, "/never", http.StatusTemporaryRedirect)
		case calls.Add(1) == 1:
			w.WriteHeader(http.StatusServiceUnavailable)
		default:
			mu.Lock()
			bodies = append(bodies, r.Method+" "+r.Header.Get("Content-Type")+" "+string(body))
			mu.Unlock()
		}
	}))
	t.Cleanup(server.Close)
	q := mustOpen(t, options(t.TempDir(), newInvoker()))
	f := function("f", func(f *gateway.Function) {
		f.Async.OnSuccess = &gateway.Destination{URL: server.URL + "/hook?token=secret"}
	})
	g := function("g", func(f *gateway.Function) {
		f.Async.OnSuccess = &gateway.Destination{URL: server.URL + "/never?token=secret"}
	})
	apply(q, f, g)
	enqueue(t, q, f, "r1", `{"a":1}`)
	enqueue(t, q, g, "r2", `{"a":2}`)
	empty(t, q)
	require.Len(t, bodies, 1)
	assert.True(t, strings.HasPrefix(bodies[0], "POST application/json {"), bodies[0])
	assert.EqualValues(t, 2, calls.Load())
	assert.Empty(t, letters(t, q, "f"))
	l := letters(t, q, "g")
	require.Len(t, l, 1)
	assert.Equal(t, LetterRecord, l[0].Kind)
	assert.Contains(t, l[0].ErrorMessage, "status 403")
	assert.NotContains(t, l[0].ErrorMessage, "secret")
	whole, err := q.Letter(t.Context(), "g", l[0].ID)
	require.NoError(t, err)
	assert.Equal(t, "Success", object(t, string(whole.Record))["requestContext"].(map[string]any)["condition"])
	// A redirect is no delivery, and is tried again.
	ev := event{state: state{RequestID: "x", Outcome: &outcome{}}, function: "f"}
	assert.ErrorContains(t, q.post(ev, server.URL+"/moved", nil), "status 307")
}

func TestQueue_ReplayedRecord_IsDelivered_NotRunAgain(t *testing.T) {
	var allow atomic.Bool
	var got atomic.Int64
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if !allow.Load() {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		got.Add(1)
	}))
	t.Cleanup(server.Close)
	inv := newInvoker()
	q := mustOpen(t, options(t.TempDir(), inv))
	f := function("f", func(f *gateway.Function) { f.Async.OnSuccess = &gateway.Destination{URL: server.URL} })
	apply(q, f)
	enqueue(t, q, f, "r1", `{}`)
	empty(t, q)
	require.Len(t, letters(t, q, "f"), 1)
	allow.Store(true)
	n, err := q.Replay(t.Context(), "f")
	require.NoError(t, err)
	assert.Equal(t, 1, n)
	empty(t, q)
	assert.EqualValues(t, 1, got.Load())
	assert.Equal(t, 1, inv.ran("r1"))
	assert.Empty(t, letters(t, q, "f"))
}

func TestQueue_DeadLetters_ListReplayPurge(t *testing.T) {
	inv := newInvoker()
	inv.set("f", fails)
	q := mustOpen(t, options(t.TempDir(), inv))
	f := function("f", func(f *gateway.Function) { f.Async.Retries = 0 })
	apply(q, f, function("g"))
	for i := range 5 {
		enqueue(t, q, f, fmt.Sprint("r", i), fmt.Sprintf(`{"n":%d}`, i))
	}
	enqueue(t, q, f, "big", `"`+strings.Repeat("x", shownPayload)+`"`)
	empty(t, q)
	page, next, err := q.Letters(t.Context(), "f", 0, 4)
	require.NoError(t, err)
	require.Len(t, page, 4)
	assert.Equal(t, page[3].ID, next)
	rest, next, err := q.Letters(t.Context(), "f", next, 4)
	require.NoError(t, err)
	assert.Len(t, rest, 2)
	assert.Zero(t, next)
	for _, l := range append(page, rest...) {
		if l.RequestID == "big" {
			assert.Nil(t, l.Payload, "too big for a list")
			whole, err := q.Letter(t.Context(), "f", l.ID)
			require.NoError(t, err)
			assert.Len(t, whole.Payload, shownPayload+2)
		} else {
			assert.NotNil(t, l.Payload)
		}
	}
	_, err = q.Letter(t.Context(), "g", page[0].ID)
	assert.ErrorIs(t, err, ErrNoLetter, "of another function")

	// One replayed that fails again comes back with a new id.
	n, err := q.Replay(t.Context(), "f", page[0].ID)
	require.NoError(t, err)
	assert.Equal(t, 1, n)
	empty(t, q)
	assert.Equal(t, 2, inv.ran(page[0].RequestID))
	assert.Len(t, letters(t, q, "f"), 6)
	_, err = q.Replay(t.Context(), "f", page[0].ID)
	assert.ErrorIs(t, err, ErrNoLetter)

	n, err = q.Purge(t.Context(), "f", page[1].ID)
	require.NoError(t, err)
	assert.Equal(t, 1, n)
	inv.set("f", nil)
	n, err = q.Replay(t.Context(), "f")
	require.NoError(t, err)
	assert.Equal(t, 5, n)
	empty(t, q)
	assert.Empty(t, letters(t, q, "f"))
	assert.Equal(t, 1, inv.ran(page[1].RequestID), "was purged")
	n, err = q.Purge(t.Context(), "f")
	require.NoError(t, err)
	assert.Zero(t, n)
}

func TestQueue_DeadLetterQueueFull_KeepsTheEvent(t *testing.T) {
	inv := newInvoker()
	inv.set("f", fails)
	opts := options(t.TempDir(), inv)
	opts.DeadMaxBytes = 3000
	q := mustOpen(t, opts)
	f := function("f", func(f *gateway.Function) { f.Async.Retries = 0 })
	apply(q, f)
	const events = 3
	for i := range events {
		enqueue(t, q, f, fmt.Sprint("r", i), `"`+strings.Repeat("x", 1000)+`"`)
	}
	eventually(t, "the letters are refused", func() bool { return len(q.Notes()) == 1 })
	assert.Contains(t, q.Notes()[0], "ASYNC_DEAD_LETTER_MAX_MB")
	eventually(t, "all are in one place or the other", func() bool {
		s := stateOf(t, q, "f")
		return s.Backlog+s.InFlight == 0 && s.Outcomes > 0 && s.DeadLetters > 0 && int(s.DeadLetters)+s.Outcomes == events
	})
	purged, err := q.Purge(t.Context(), "f")
	require.NoError(t, err)
	for purged < events {
		eventually(t, "room for letters", func() bool { return len(letters(t, q, "f")) > 0 })
		n, err := q.Purge(t.Context(), "f")
		require.NoError(t, err)
		purged += n
	}
	empty(t, q)
	for i := range events {
		assert.Equal(t, 1, inv.ran(fmt.Sprint("r", i)))
	}
}

func TestQueue_Refusals(t *testing.T) {
	opts := options(t.TempDir(), newInvoker())
	opts.MaxBytes = 10_000
	q := mustOpen(t, opts)
	apply(q)
	f := function("f") // not configured: its events stay
	code := func(payload, trace string) gateway.Code {
		return gateway.ErrorCode(q.Enqueue(t.Context(), f, gateway.Invocation{RequestID: "r", TraceID: trace, Payload: []byte(payload)}))
	}
	assert.Equal(t, gateway.CodeTooLarge, code(strings.Repeat("x", gateway.MaxAsyncEvent+1), ""))
	assert.Equal(t, gateway.CodeInvalid, code("{}", "a\nb"))
	n := 0
	for ; code(strings.Repeat("x", 1000), "") == ""; n++ {
		want := n + 1
		eventually(t, "in the index", func() bool { return stateOf(t, q, "f").Backlog == want })
	}
	assert.Greater(t, n, 3)
	assert.Equal(t, gateway.CodeUnavailable, code(strings.Repeat("x", 1000), ""))
	assert.Equal(t, n, stateOf(t, q, "f").Backlog)
	assert.NoError(t, q.Check(t.Context()), "it works, and says that it is full")
	assert.Contains(t, q.Notes()[0], "ASYNC_MAX_MB")
	inv := q.opts.Invoker.(*fakeInvoker)
	apply(q, f)
	empty(t, q)
	assert.Equal(t, n, inv.ran("r"))
	assert.Empty(t, code("{}", ""))
}

func TestQueue_LargestEvent_WithLargestAnswer(t *testing.T) {
	inv := newInvoker()
	inv.set("f", func(context.Context, gateway.Invocation, int) (gateway.Result, error) {
		return gateway.Result{Payload: []byte(`"` + strings.Repeat("y", 6<<20) + `"`)}, nil
	})
	q := mustOpen(t, options(t.TempDir(), inv))
	f := function("f", func(f *gateway.Function) { f.Async.OnSuccess = &gateway.Destination{Bucket: "b12"} })
	apply(q, f)
	enqueue(t, q, f, "r1", `"`+strings.Repeat("x", gateway.MaxAsyncEvent-2)+`"`)
	empty(t, q)
	for _, text := range q.opts.Objects.(*fakeObjects).all() {
		assert.Greater(t, len(text), 7<<20)
	}
	assert.Len(t, q.opts.Objects.(*fakeObjects).all(), 1)
}

func TestQueue_Restart_InTheMiddle(t *testing.T) {
	dir := t.TempDir()
	inv := newInvoker()
	inFlight := make(chan struct{}, 10)
	inv.set("slow", func(ctx context.Context, _ gateway.Invocation, n int) (gateway.Result, error) {
		inFlight <- struct{}{}
		<-ctx.Done()
		return gateway.Result{}, gateway.Errorf(gateway.CodeCanceled, "left")
	})
	inv.set("f", fails)
	opts := options(dir, inv)
	opts.RetryBase = time.Hour
	q, err := Open(t.Context(), opts)
	require.NoError(t, err)
	slow, f := function("slow"), function("f")
	apply(q, slow, f)
	enqueue(t, q, slow, "s", `{}`)
	enqueue(t, q, f, "r", `{"k":"v"}`)
	<-inFlight
	eventually(t, "the retry waits", func() bool { s := stateOf(t, q, "f"); return inv.ran("r") == 1 && s.Backlog == 1 && s.InFlight == 0 })
	_, err = Open(t.Context(), opts)
	assert.ErrorContains(t, err, "another gateway uses it")
	q.Quiesce()
	enqueue(t, q, f, "late", `{}`) // still taken
	mustClose(t, q)
	assert.Error(t, q.Check(t.Context()))

	inv.set("slow", nil)
	inv.set("f", nil)
	q = mustOpen(t, opts)
	apply(q, slow, f)
	eventually(t, "the broken-off one runs, and the late one", func() bool { return inv.ran("s") == 2 && inv.ran("late") == 1 })
	eventually(t, "they are gone", func() bool { s := stateOf(t, q, "slow"); return s.Backlog+s.InFlight == 0 })
	assert.Equal(t, 1, inv.ran("r"), "its retry is due in an hour, as before")
	assert.Equal(t, 1, stateOf(t, q, "f").Backlog)
	mustClose(t, q)
	// The clock is not waited for: the state says so.
	q2 := mustOpen(t, opts)
	for _, e := range q2.runs["f"].waiting {
		m, err := q2.store.shard(int(e.shard)).GetMsg(t.Context(), e.seq)
		require.NoError(t, err)
		ev, err := readEvent("f", m)
		require.NoError(t, err)
		assert.Equal(t, 1, ev.Tries)
		assert.Greater(t, ev.Due, time.Now().Add(30*time.Minute).UnixMilli())
		assert.Equal(t, `{"k":"v"}`, string(ev.payload))
	}
}

// A state that was replaced when the process ended is not run.
func TestQueue_ReplacedState_IsRemovedAtTheStart(t *testing.T) {
	dir := t.TempDir()
	inv := newInvoker()
	q, err := Open(t.Context(), options(dir, inv))
	require.NoError(t, err)
	first, err := message(q.eventSubject(1, "f"), state{RequestID: "r", Accepted: time.Now().UnixMilli()}, []byte("1"))
	require.NoError(t, err)
	q.Quiesce()
	ack, err := q.store.publish(t.Context(), first)
	require.NoError(t, err)
	second, err := message(q.eventSubject(1, "f"), state{RequestID: "r", Accepted: time.Now().UnixMilli(), Tries: 1, Replaces: ack.Sequence}, []byte("1"))
	require.NoError(t, err)
	_, err = q.store.publish(t.Context(), second)
	require.NoError(t, err)
	mustClose(t, q)

	q = mustOpen(t, options(dir, inv))
	apply(q, function("f"))
	empty(t, q)
	assert.Equal(t, 1, inv.ran("r"))
}

func TestQueue_ManyPublishers_NothingLost(t *testing.T) {
	inv := newInvoker()
	q := mustOpen(t, options(t.TempDir(), inv))
	f := function("f", func(f *gateway.Function) { f.Scaling.MaxCapacity = 8 })
	apply(q, f)
	const publishers, each = 32, 20
	var wg sync.WaitGroup
	for p := range publishers {
		wg.Go(func() {
			for i := range each {
				assert.NoError(t, q.Enqueue(t.Context(), f, gateway.Invocation{RequestID: fmt.Sprint(p, "-", i), Payload: []byte("{}")}))
			}
		})
	}
	wg.Wait()
	empty(t, q)
	inv.mu.Lock()
	defer inv.mu.Unlock()
	assert.Len(t, inv.runs, publishers*each)
	for id, runs := range inv.runs {
		assert.Len(t, runs, 1, id)
	}
}

func TestQueue_UnreadableState_BecomesADeadLetter(t *testing.T) {
	q := mustOpen(t, options(t.TempDir(), newInvoker()))
	m, err := message(q.eventSubject(0, "f"), state{}, []byte(`{"kept":true}`))
	require.NoError(t, err)
	m.Header.Set(stateHeader, "{")
	_, err = q.store.publish(t.Context(), m)
	require.NoError(t, err)
	empty(t, q)
	l := letters(t, q, "f")
	require.Len(t, l, 1)
	assert.JSONEq(t, `{"kept":true}`, string(l[0].Payload))
	assert.Contains(t, l[0].ErrorMessage, stateHeader)
}

// What a power cut may leave: a torn end of the last file.
func TestOpen_TornEnd_KeepsWhatIsBeforeIt(t *testing.T) {
	dir := t.TempDir()
	inv := newInvoker()
	q, err := Open(t.Context(), options(dir, inv))
	require.NoError(t, err)
	f := function("f")
	apply(q)
	for i := range 8 {
		enqueue(t, q, f, fmt.Sprint("r", i), `{}`)
	}
	mustClose(t, q)
	blocks, err := filepath.Glob(filepath.Join(dir, "jetstream", "$G", "streams", "*", "msgs", "*.blk"))
	require.NoError(t, err)
	torn := 0
	for _, b := range blocks {
		if !strings.Contains(b, "event") {
			continue
		}
		file, err := os.OpenFile(b, os.O_APPEND|os.O_WRONLY, 0)
		require.NoError(t, err)
		_, err = file.Write([]byte{200, 0, 0, 0, 9, 9, 9})
		require.NoError(t, err)
		require.NoError(t, file.Close())
		torn++
		// The summary of a clean stop is not there after a crash.
		require.NoError(t, removeIfThere(filepath.Join(filepath.Dir(b), "index.db")))
	}
	require.Positive(t, torn)
	q = mustOpen(t, options(dir, inv))
	apply(q, f)
	empty(t, q)
	for i := range 8 {
		assert.Equal(t, 1, inv.ran(fmt.Sprint("r", i)))
	}
}

func removeIfThere(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

func TestOpen_DamagedStream_IsSetAside(t *testing.T) {
	dir := t.TempDir()
	inv := newInvoker()
	q, err := Open(t.Context(), options(dir, inv))
	require.NoError(t, err)
	f := function("f")
	apply(q)
	for i := range 8 {
		enqueue(t, q, f, fmt.Sprint("r", i), `{}`)
	}
	damaged := q.store.streamDir(q.store.eventName(2))
	mustClose(t, q)
	require.NoError(t, os.WriteFile(filepath.Join(damaged, "meta.inf"), []byte("garbage"), 0o600))
	q = mustOpen(t, options(dir, inv))
	require.Len(t, q.Notes(), 1)
	assert.Contains(t, q.Notes()[0], "damaged")
	apply(q, f)
	empty(t, q)
	ran := 0
	for i := range 8 {
		ran += inv.ran(fmt.Sprint("r", i))
	}
	assert.Equal(t, 6, ran, "those of the other streams")
	kept, err := filepath.Glob(filepath.Join(dir, "damaged", "*", "msgs", "*.blk"))
	require.NoError(t, err)
	assert.NotEmpty(t, kept)
	enqueue(t, q, f, "new", `{}`)
	empty(t, q)
	assert.Equal(t, 1, inv.ran("new"))
}

func TestQueue_MoreBytesThanMemoryBears_AreRefused(t *testing.T) {
	inv := newInvoker()
	q := mustOpen(t, options(t.TempDir(), inv))
	q.pace = newPace(1, 1000) // a byte a second
	f := function("f")
	apply(q, f)
	enqueue(t, q, f, "r1", `{}`)
	err := q.Enqueue(t.Context(), f, gateway.Invocation{RequestID: "r2", Payload: []byte("{}")})
	assert.Equal(t, gateway.CodeUnavailable, gateway.ErrorCode(err))
	assert.ErrorContains(t, err, "MB of events a second")
	empty(t, q)
	assert.Equal(t, 1, inv.ran("r1"))
	assert.Zero(t, inv.ran("r2"))
}
