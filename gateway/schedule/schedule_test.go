package schedule_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/edge-serverless-box/esb/gateway"
	"github.com/edge-serverless-box/esb/gateway/schedule"
)

// queue remembers what it was given; fail, when set, may refuse.
type queue struct {
	mu    sync.Mutex
	calls []call
	fail  func(n int) error
	tries int
}

type call struct {
	at       time.Time
	function string
	inv      gateway.Invocation
}

func (q *queue) Enqueue(_ context.Context, fn *gateway.Function, inv gateway.Invocation) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.tries++
	if q.fail != nil {
		if err := q.fail(q.tries); err != nil {
			return err
		}
	}
	q.calls = append(q.calls, call{time.Now().UTC(), fn.Name, inv})
	return nil
}

// taken returns the calls so far and forgets them.
func (q *queue) taken() []call {
	q.mu.Lock()
	defer q.mu.Unlock()
	calls := q.calls
	q.calls = nil
	return calls
}

// eventTimes are the times that the events of calls name.
func eventTimes(t *testing.T, calls []call) []string {
	t.Helper()
	var all []string
	for _, c := range calls {
		var event struct {
			Time time.Time `json:"time"`
		}
		require.NoError(t, json.Unmarshal(c.inv.Payload, &event))
		all = append(all, event.Time.Format("01-02 15:04:05"))
	}
	return all
}

// box is one place on disk over several starts of a scheduler.
type box struct {
	t      *testing.T
	path   string
	queue  *queue
	offset atomic.Int64 // of the wall clock, nanoseconds
	log    *bytes.Buffer
}

func newBox(t *testing.T) *box {
	return &box{t: t, path: filepath.Join(t.TempDir(), "schedules.json"), queue: &queue{}, log: &bytes.Buffer{}}
}

func (b *box) open() *schedule.Scheduler {
	b.t.Helper()
	s, err := schedule.Open(schedule.Options{
		Path: b.path, Region: "eu-central-1", AccountID: "123456789012", Queue: b.queue,
		Logger: slog.New(slog.NewJSONHandler(b.log, nil)),
		Now:    func() time.Time { return time.Now().Add(time.Duration(b.offset.Load())) },
	})
	require.NoError(b.t, err)
	b.t.Cleanup(func() { require.NoError(b.t, s.Close()) })
	return s
}

func functions(schedules ...gateway.Schedule) map[string]*gateway.Function {
	return map[string]*gateway.Function{"f": {Name: "f", Schedules: schedules}}
}

func one(expression string) map[string]*gateway.Function {
	return functions(gateway.Schedule{Name: "f", Expression: expression, Enabled: true})
}

// sleep lets time pass and the scheduler do all that is due. Time in a bubble begins at 2000-01-01 00:00 UTC.
func sleep(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func TestScheduler_Tick_HandsOverEventBridgesEvent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBox(t)
		s := b.open()
		require.NoError(t, apply(s, one("cron(0 18 ? * MON-FRI *)")))
		sleep(65 * time.Hour) // from Saturday to Monday 17:00
		require.Empty(t, b.queue.taken())
		sleep(time.Hour)
		calls := b.queue.taken()
		require.Len(t, calls, 1)
		require.NoError(t, s.Close())

		inv := calls[0].inv
		assert.Equal(t, "f", calls[0].function)
		assert.Regexp(t, `^[0-9a-f]{8}-[0-9a-f]{4}-5[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`, inv.RequestID)
		assert.Regexp(t, `^Root=1-[0-9a-f]{8}-[0-9a-f]{24};Parent=[0-9a-f]{16};Sampled=0$`, inv.TraceID)
		var event map[string]any
		require.NoError(t, json.Unmarshal(inv.Payload, &event))
		assert.NotEqual(t, inv.RequestID, event["id"])
		delete(event, "id")
		assert.Equal(t, map[string]any{
			"version": "0", "detail-type": "Scheduled Event", "source": "aws.events", "account": "123456789012",
			"time": "2000-01-03T18:00:00Z", "region": "eu-central-1",
			"resources": []any{"arn:aws:events:eu-central-1:123456789012:rule/f"}, "detail": map[string]any{},
		}, event)
	})
}

func TestScheduler_Input_ReplacesTheEvent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBox(t)
		s := b.open()
		require.NoError(t, apply(s, functions(gateway.Schedule{Name: "n", Expression: "rate(1 minute)", Input: []byte(`{"a":1}`), Enabled: true})))
		sleep(time.Minute)
		calls := b.queue.taken()
		require.Len(t, calls, 1)
		assert.JSONEq(t, `{"a":1}`, string(calls[0].inv.Payload))
		require.NoError(t, s.Close())
	})
}

func TestScheduler_Rate_CountsFromWhenItWasFirstSeen_AlsoOverARestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBox(t)
		sleep(10 * time.Second)
		s := b.open()
		require.NoError(t, apply(s, one("rate(5 minutes)")))
		sleep(11 * time.Minute)
		require.NoError(t, s.Close())
		assert.Equal(t, []string{"01-01 00:05:10", "01-01 00:10:10"}, eventTimes(t, b.queue.taken()))
		s = b.open()
		require.NoError(t, apply(s, one("rate(5 minutes)")))
		sleep(5 * time.Minute)
		assert.Equal(t, []string{"01-01 00:15:10"}, eventTimes(t, b.queue.taken()))
		require.NoError(t, s.Close())
	})
}

func TestScheduler_MissedTicks_RunOnceAfterARestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBox(t)
		s := b.open()
		require.NoError(t, apply(s, one("cron(0 * * * ? *)")))
		sleep(time.Hour + time.Minute)
		require.NoError(t, s.Close())
		assert.Equal(t, []string{"01-01 01:00:00"}, eventTimes(t, b.queue.taken()))

		sleep(5 * time.Hour) // the box is off
		s = b.open()
		require.NoError(t, apply(s, one("cron(0 * * * ? *)")))
		synctest.Wait()
		assert.Equal(t, []string{"01-01 06:00:00"}, eventTimes(t, b.queue.taken()))
		sleep(time.Hour)
		assert.Equal(t, []string{"01-01 07:00:00"}, eventTimes(t, b.queue.taken()))
		require.NoError(t, s.Close())
		assert.Contains(t, b.log.String(), `"outcome":"missed"`)

		// Nothing was missed this time.
		s = b.open()
		require.NoError(t, apply(s, one("cron(0 * * * ? *)")))
		sleep(time.Minute)
		assert.Empty(t, b.queue.taken())
		require.NoError(t, s.Close())
	})
}

func TestScheduler_StateLost_TheSameTickHasTheSameRequestID(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBox(t)
		s := b.open()
		require.NoError(t, apply(s, one("cron(0 * * * ? *)")))
		sleep(time.Minute)
		before, err := os.ReadFile(b.path)
		require.NoError(t, err)
		sleep(time.Hour)
		require.NoError(t, s.Close())
		// As after a kill between the queue's answer and the write.
		require.NoError(t, os.WriteFile(b.path, before, 0o600))
		s = b.open()
		require.NoError(t, apply(s, one("cron(0 * * * ? *)")))
		synctest.Wait()
		sleep(time.Hour)
		require.NoError(t, s.Close())
		calls := b.queue.taken()
		require.Len(t, calls, 3)
		assert.Equal(t, calls[0].inv, calls[1].inv)
		assert.NotEqual(t, calls[0].inv.RequestID, calls[2].inv.RequestID)
	})
}

func TestScheduler_QueueRefuses_TheTickIsTriedAgain_AndLaterTicksBecomeOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBox(t)
		var open atomic.Bool
		b.queue.fail = func(int) error {
			if open.Load() {
				return nil
			}
			return gateway.Errorf(gateway.CodeUnavailable, "disk full")
		}
		s := b.open()
		require.NoError(t, apply(s, one("rate(1 minute)")))
		sleep(90 * time.Second)
		require.Greater(t, b.queue.tries, 3)
		states := s.Snapshot()
		require.Len(t, states, 1)
		assert.Equal(t, "disk full", states[0].Problem)
		sleep(5 * time.Minute)
		open.Store(true)
		sleep(70 * time.Second)
		calls := b.queue.taken()
		require.NotEmpty(t, calls)
		assert.LessOrEqual(t, len(calls), 3, "the ticks that passed meanwhile must not all run")
		require.NoError(t, s.Close())
		assert.Empty(t, s.Snapshot()[0].Problem)
	})
}

func TestScheduler_EventThatNeverFits_IsDroppedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBox(t)
		b.queue.fail = func(int) error { return gateway.Errorf(gateway.CodeTooLarge, "too large") }
		s := b.open()
		require.NoError(t, apply(s, one("rate(1 hour)")))
		sleep(90 * time.Minute)
		assert.Equal(t, 1, b.queue.tries)
		require.NoError(t, s.Close())
	})
}

func TestScheduler_OneScheduleThatFails_DoesNotStopTheOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBox(t)
		b.queue.fail = func(n int) error {
			if n == 1 {
				return errors.New("once")
			}
			return nil
		}
		s := b.open()
		require.NoError(t, apply(s, functions(
			gateway.Schedule{Name: "a", Expression: "rate(1 hour)", Enabled: true},
			gateway.Schedule{Name: "b", Expression: "rate(1 hour)", Enabled: true})))
		sleep(time.Hour)
		assert.Len(t, b.queue.taken(), 1)
		sleep(time.Second)
		assert.Len(t, b.queue.taken(), 1)
		require.NoError(t, s.Close())
	})
}

func TestScheduler_Reload_KeepsWhatStays_AndBeginsWhatIsNew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBox(t)
		s := b.open()
		two := func(second string, enabled bool) map[string]*gateway.Function {
			return functions(
				gateway.Schedule{Name: "stays", Expression: "rate(10 minutes)", Enabled: true},
				gateway.Schedule{Name: "other", Expression: second, Enabled: enabled})
		}
		require.NoError(t, apply(s, two("rate(10 minutes)", true)))
		sleep(7 * time.Minute)
		require.NoError(t, apply(s, two("rate(4 minutes)", true)))
		sleep(3 * time.Minute)
		assert.Equal(t, []string{"01-01 00:10:00"}, eventTimes(t, b.queue.taken()), "stays")
		sleep(time.Minute)
		assert.Equal(t, []string{"01-01 00:11:00"}, eventTimes(t, b.queue.taken()), "other, 4 minutes after the change")
		require.NoError(t, apply(s, two("rate(4 minutes)", false)))
		sleep(8 * time.Minute)
		assert.Empty(t, b.queue.taken(), "disabled")
		states := s.Snapshot()
		require.Len(t, states, 2)
		assert.False(t, states[0].Enabled)
		assert.Nil(t, states[0].Next)
		assert.Equal(t, "2000-01-01T00:20:00Z", states[1].Next.Format(time.RFC3339))
		assert.Equal(t, "2000-01-01T00:10:00Z", states[1].Last.Format(time.RFC3339))
		require.NoError(t, apply(s, two("rate(4 minutes)", true)))
		sleep(time.Minute)
		assert.Equal(t, []string{"01-01 00:20:00"}, eventTimes(t, b.queue.taken()), "what was missed while disabled does not run")
		require.NoError(t, apply(s, nil))
		sleep(time.Hour)
		assert.Empty(t, b.queue.taken(), "all removed")
		require.NoError(t, s.Close())
	})
}

func TestScheduler_ClockSetForward_IsNoticed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBox(t)
		s := b.open()
		require.NoError(t, apply(s, one("cron(0 * * * ? *)")))
		sleep(time.Second)
		b.offset.Store(int64(30 * time.Hour))
		sleep(10 * time.Second)
		assert.Equal(t, []string{"01-02 06:00:00"}, eventTimes(t, b.queue.taken()))
		require.NoError(t, s.Close())
	})
}

func TestScheduler_ClockSetBackALittle_RunsNoTickTwice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBox(t)
		s := b.open()
		require.NoError(t, apply(s, one("cron(0 * * * ? *)")))
		sleep(time.Hour + time.Minute)
		require.Len(t, b.queue.taken(), 1)
		b.offset.Store(int64(-10 * time.Minute))
		sleep(30 * time.Minute)
		assert.Empty(t, b.queue.taken())
		sleep(45 * time.Minute)
		assert.Equal(t, []string{"01-01 02:00:00"}, eventTimes(t, b.queue.taken()))
		require.NoError(t, s.Close())
	})
}

// A box without a clock of its own begins in the past until the network tells it the time.
func TestScheduler_ClockSetBackFar_GoesOn_AndRunsNothingTwiceWhenItIsRightAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBox(t)
		s := b.open()
		require.NoError(t, apply(s, one("cron(0 6 * * ? *)")))
		sleep(7 * time.Hour)
		require.Equal(t, []string{"01-01 06:00:00"}, eventTimes(t, b.queue.taken()))
		require.NoError(t, s.Close())

		b.offset.Store(int64(-20 * 365 * 24 * time.Hour))
		s = b.open()
		require.NoError(t, apply(s, one("cron(0 6 * * ? *)")))
		sleep(time.Minute)
		assert.Empty(t, b.queue.taken())
		sleep(24 * time.Hour)
		assert.Len(t, b.queue.taken(), 1, "days go on")
		require.NoError(t, s.Close())

		b.offset.Store(int64(-24*time.Hour + time.Minute))
		s = b.open()
		require.NoError(t, apply(s, one("cron(0 6 * * ? *)")))
		sleep(time.Minute)
		assert.Empty(t, b.queue.taken(), "it ran before the clock was wrong")
		sleep(24 * time.Hour)
		assert.Equal(t, []string{"01-02 06:00:00"}, eventTimes(t, b.queue.taken()))
		require.NoError(t, s.Close())
	})
}

func TestOpen_BrokenFile_IsPutAside(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBox(t)
		require.NoError(t, os.WriteFile(b.path, []byte("{"), 0o600))
		s := b.open()
		require.NoError(t, apply(s, one("rate(1 minute)")))
		sleep(time.Minute)
		assert.Len(t, b.queue.taken(), 1)
		require.NoError(t, s.Close())
		assert.FileExists(t, b.path+".broken")
		assert.FileExists(t, b.path)
	})
}

func TestOpen_FileOfANewerEsb_IsRefusedAndKept(t *testing.T) {
	const newer = `{"version": 2, "schedules": []}`
	b := newBox(t)
	require.NoError(t, os.WriteFile(b.path, []byte(newer), 0o600))
	_, err := schedule.Open(schedule.Options{Path: b.path, Queue: b.queue, Logger: slog.New(slog.DiscardHandler)})
	require.ErrorContains(t, err, b.path+" is of version 2")
	require.ErrorContains(t, err, "Use the newer esb again, or move the file away")
	text, err := os.ReadFile(b.path)
	require.NoError(t, err)
	assert.Equal(t, newer, string(text))
}

func TestScheduler_DiskFull_GoesOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBox(t)
		s := b.open()
		require.NoError(t, apply(s, one("rate(1 minute)")))
		synctest.Wait()
		// A folder in its place cannot be replaced by a file.
		require.NoError(t, os.Remove(b.path))
		require.NoError(t, os.Mkdir(b.path, 0o700))
		sleep(2 * time.Minute)
		assert.Len(t, b.queue.taken(), 2, "each tick once")
		require.NoError(t, os.Remove(b.path))
		sleep(10 * time.Second)
		assert.FileExists(t, b.path)
		require.NoError(t, s.Close())
	})
}

// apply makes the schedules of functions the current ones.
func apply(s *schedule.Scheduler, functions map[string]*gateway.Function) error {
	set, err := schedule.Compile(functions)
	if err != nil {
		return err
	}
	s.Use(set)
	return nil
}
