package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/edge-serverless-box/esb/tests/stack"
)

// missedNewYears is what schedules.json says when the box starts.
const missedNewYears = `{"version":1,"schedules":{"scheduled":{"function":"scheduled","expression":"cron(0 0 1 1 ? *)",
	"since":"2020-06-01T00:00:00Z","last":"2020-06-01T00:00:00Z"}}}`

func TestSchedule_MissedTicks_RunOnceWhenTheBoxIsBack(t *testing.T) {
	way, err := stack.ChosenWay()
	require.NoError(t, err)
	if way != stack.Native {
		t.Skip("the file is in a volume of Docker's")
	}
	type schedule struct {
		Name, Function, Expression string
		Enabled                    bool
		Next, Last                 *time.Time
		LastRequestID              string `json:"last_request_id"`
	}
	// Once and for all, before the first request of any test.
	year := time.Now().UTC().Year()
	var got schedule
	require.Eventually(t, func() bool {
		answer, err := box.Do(t.Context(), http.MethodGet, box.AdminURL+"/schedules", "", nil)
		require.NoError(t, err)
		var all struct{ Schedules []schedule }
		require.NoError(t, json.Unmarshal(answer.Body, &all), "%s", answer.Body)
		require.Len(t, all.Schedules, 1)
		got = all.Schedules[0]
		return got.LastRequestID != ""
	}, time.Minute, 50*time.Millisecond)
	assert.Equal(t, schedule{
		Name: "scheduled", Function: "scheduled", Expression: "cron(0 0 1 1 ? *)", Enabled: true, LastRequestID: got.LastRequestID,
		Last: newYear(year), Next: newYear(year + 1),
	}, got)
	lines := box.EventuallyLogged(t, fmt.Sprintf("request_id:=%q job:=lambda", got.LastRequestID), func(lines []stack.LogLine) bool {
		return len(lines) > 0 && lines[len(lines)-1].Type == "platform.report"
	})
	assert.Equal(t, "scheduled", lines[len(lines)-1].Function)
	starts := box.EventuallyLogged(t, "function:=scheduled type:=platform.start", func(lines []stack.LogLine) bool { return len(lines) > 0 })
	assert.Len(t, starts, 1, "one run for all that were missed")
	missed := box.EventuallyLogged(t, "job:=gateway schedule:=scheduled outcome:=missed", func(lines []stack.LogLine) bool { return len(lines) > 0 })
	assert.Len(t, missed, 1)
}

func newYear(year int) *time.Time {
	t := time.Date(year, time.January, 1, 0, 0, 0, 0, time.UTC)
	return &t
}
