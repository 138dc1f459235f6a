package async

import (
	"context"
	"strconv"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/edge-serverless-box/esb/gateway"
)

// storeRaw stores an event as an earlier process, with another clock, did.
func storeRaw(t *testing.T, q *Queue, function string, s state, body string) {
	t.Helper()
	m, err := message(q.eventSubject(0, function), s, []byte(body))
	require.NoError(t, err)
	_, err = q.store.publish(t.Context(), m)
	require.NoError(t, err)
}

// mustNoteUptime leaves a folder in which a gateway has run for so long.
func mustNoteUptime(t *testing.T, dir string, up time.Duration) {
	t.Helper()
	q, err := Open(t.Context(), options(dir, newInvoker()))
	require.NoError(t, err)
	_, err = q.store.publish(t.Context(), &nats.Msg{Subject: q.uptimeSubject(), Data: []byte(strconv.FormatInt(up.Milliseconds(), 10))})
	require.NoError(t, err)
	mustClose(t, q)
}

func unavailableFor(context.Context, gateway.Invocation, int) (gateway.Result, error) {
	return gateway.Result{}, gateway.Errorf(gateway.CodeUnavailable, "agent down")
}

// A box that was off for a day, and one without a battery clock, which accepts events at the date of its image until NTP
// sets it.
func TestQueue_OffForLongerThanMaxAge_RunsItsEvents(t *testing.T) {
	for name, up := range map[string]int64{"up-time noted": 1000, "of a version that did not note it": 0} {
		t.Run(name, func(t *testing.T) {
			inv := newInvoker()
			dir := t.TempDir()
			mustNoteUptime(t, dir, time.Minute)
			q := mustOpen(t, options(dir, inv))
			storeRaw(t, q, "f", state{RequestID: "r1", Accepted: time.Now().Add(-24 * time.Hour).UnixMilli(), Up: up}, `{}`)
			apply(q, function("f"))
			empty(t, q)
			assert.Equal(t, 1, inv.ran("r1"))
			assert.Empty(t, letters(t, q, "f"))
		})
	}
}

// The hours during which the box was up do count, over all its processes.
func TestQueue_UpForLongerThanMaxAge_GivesUp(t *testing.T) {
	inv := newInvoker()
	dir := t.TempDir()
	mustNoteUptime(t, dir, 7*time.Hour)
	q := mustOpen(t, options(dir, inv))
	storeRaw(t, q, "f", state{RequestID: "r1", Accepted: time.Now().UnixMilli(), Up: 1}, `{}`)
	apply(q, function("f"))
	empty(t, q)
	assert.Zero(t, inv.ran("r1"))
	require.Len(t, letters(t, q, "f"), 1)
	assert.Equal(t, "EventAgeExceeded", letters(t, q, "f")[0].Condition)
}

// A retry was put off by a clock that was a year ahead, and then the clock is put right.
func TestQueue_ClockSetBack_RunsWhatIsDueInAYear(t *testing.T) {
	ahead := time.Now().Add(365 * 24 * time.Hour)
	for name, s := range map[string]state{
		"up-time noted":                     {Up: 1, DueUp: 60_001},
		"of a version that did not note it": {},
		// The folder of the up-time was lost.
		"up-time of another clock": {Up: 1, DueUp: (1000 * time.Hour).Milliseconds()},
	} {
		t.Run(name, func(t *testing.T) {
			inv := newInvoker()
			dir := t.TempDir()
			mustNoteUptime(t, dir, time.Hour)
			q := mustOpen(t, options(dir, inv))
			s.RequestID, s.Tries = "r1", 1
			s.Accepted, s.Due = ahead.UnixMilli(), ahead.Add(time.Minute).UnixMilli()
			storeRaw(t, q, "f", s, `{}`)
			apply(q, function("f"))
			empty(t, q)
			assert.Equal(t, 1, inv.ran("r1"))
		})
	}
}

// An event that was accepted in the future does not live until then.
func TestQueue_ClockSetBack_GivesUpInTime(t *testing.T) {
	inv := newInvoker()
	inv.set("f", unavailableFor)
	q := mustOpen(t, options(t.TempDir(), inv))
	storeRaw(t, q, "f", state{RequestID: "r1", Accepted: time.Now().Add(365 * 24 * time.Hour).UnixMilli()}, `{}`)
	apply(q, function("f", func(f *gateway.Function) { f.Async.MaxAge = time.Second }))
	empty(t, q)
	require.Len(t, letters(t, q, "f"), 1)
	assert.Equal(t, "EventAgeExceeded", letters(t, q, "f")[0].Condition)
}

// A wait that was begun goes on after a restart, and no longer than it has to.
func TestQueue_RetryThatBecameDueWhileTheBoxWasOff_RunsAtOnce(t *testing.T) {
	inv := newInvoker()
	q := mustOpen(t, options(t.TempDir(), inv))
	storeRaw(t, q, "f", state{RequestID: "r1", Tries: 1, Up: 1, Accepted: time.Now().Add(-time.Hour).UnixMilli(),
		Due: time.Now().Add(-time.Minute).UnixMilli(), DueUp: q.up.now() + 60_000}, `{}`)
	apply(q, function("f"))
	empty(t, q)
	assert.Equal(t, 1, inv.ran("r1"))
}

// Dead letters are kept for days during which the box was up: a clock that is set forward throws none away.
func TestDeadLetters_AreKeptForUptime(t *testing.T) {
	dir := t.TempDir()
	const retention = 14 * 24 * time.Hour
	mustNoteUptime(t, dir, retention+time.Hour)
	opts := options(dir, newInvoker())
	opts.DeadRetention = retention
	q := mustOpen(t, opts)
	info, err := q.store.deadLetters().Info(t.Context())
	require.NoError(t, err)
	assert.Zero(t, info.Config.MaxAge)
	for i, up := range []int64{1, 2 * time.Hour.Milliseconds()} {
		ev := event{function: "f"}
		ev.RequestID, ev.Outcome = []string{"old", "young"}[i], &outcome{Condition: conditionRetries, At: time.Now().UnixMilli(), Up: up, Bury: true}
		require.Equal(t, done, q.bury(entry{seq: uint64(i)}, ev))
	}
	eventually(t, "the old one goes", func() bool { l := letters(t, q, "f"); return len(l) == 1 && l[0].RequestID == "young" })
	require.NoError(t, q.sweep(t.Context()))
	assert.Len(t, letters(t, q, "f"), 1)
}

func TestUptime_GoesOnAfterARestart(t *testing.T) {
	dir := t.TempDir()
	mustNoteUptime(t, dir, time.Hour)
	q, err := Open(t.Context(), options(dir, newInvoker()))
	require.NoError(t, err)
	apply(q)
	enqueue(t, q, function("gone"), "r1", `{}`)
	first := q.up.now()
	assert.GreaterOrEqual(t, first, time.Hour.Milliseconds())
	eventually(t, "time goes by", func() bool { return q.up.now() > first+50 })
	eventually(t, "in the index", func() bool { return stateOf(t, q, "gone").Backlog == 1 })
	mustClose(t, q) // notes it, because an event waits
	q = mustOpen(t, options(dir, newInvoker()))
	assert.Greater(t, q.up.now(), first+50)
	q.mu.Lock()
	defer q.mu.Unlock()
	born := q.runs["gone"].waiting[0].born
	assert.LessOrEqual(t, born, first)
	assert.Greater(t, born, first-60_000)
}

// What was not noted when the process died is at least what its events say.
func TestUptime_IsNeverBeforeItsEvents(t *testing.T) {
	dir := t.TempDir()
	q, err := Open(t.Context(), options(dir, newInvoker()))
	require.NoError(t, err)
	storeRaw(t, q, "f", state{RequestID: "r1", Accepted: 1, Up: time.Hour.Milliseconds()}, `{}`)
	eventually(t, "in the index", func() bool { return stateOf(t, q, "f").Backlog == 1 })
	q.bytes.Store(0) // so that it is not noted
	mustClose(t, q)
	q = mustOpen(t, options(dir, newInvoker()))
	assert.GreaterOrEqual(t, q.up.now(), time.Hour.Milliseconds())
}

func TestUptime_AtLeast(t *testing.T) {
	u := newUptime()
	assert.Positive(t, u.now())
	u.atLeast(5000)
	assert.GreaterOrEqual(t, u.now(), int64(5000))
	u.atLeast(100)
	assert.GreaterOrEqual(t, u.now(), int64(5000))
	assert.Zero(t, u.age(1<<40), "the future")
	assert.GreaterOrEqual(t, u.age(1000), 4*time.Second)
}
