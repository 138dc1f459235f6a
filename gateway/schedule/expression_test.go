package schedule_test

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/edge-serverless-box/esb/gateway/schedule"
)

const layout = "2006-01-02 15:04"

// at reads "2026-11-27 18:00" as UTC.
func at(t *testing.T, text string) time.Time {
	t.Helper()
	when, err := time.Parse(layout, text)
	require.NoError(t, err)
	return when
}

// firings returns the next times after a given one, UTC.
func firings(t *testing.T, expression, zone, after string, n int) []string {
	t.Helper()
	e, err := schedule.Parse(expression, zone)
	require.NoError(t, err)
	var all []string
	tick := at(t, after)
	for range n {
		next, ok := e.Next(tick, at(t, after))
		if !ok {
			all = append(all, "never")
			break
		}
		require.True(t, next.After(tick))
		all = append(all, next.Format(layout))
		tick = next
	}
	return all
}

func TestNext_FiresWhenEventBridgeSays(t *testing.T) {
	// 2026-11-27 is a Friday; the 1st is a Sunday, the 30th a Monday.
	const after = "2026-11-27 12:00"
	for _, c := range []struct {
		expression string
		want       []string
	}{
		{"cron(0 10 * * ? *)", []string{"2026-11-28 10:00", "2026-11-29 10:00"}},
		{"cron(15 12 * * ? *)", []string{"2026-11-27 12:15", "2026-11-28 12:15"}},
		{"cron(0 18 ? * MON-FRI *)", []string{"2026-11-27 18:00", "2026-11-30 18:00"}},
		{"cron(0 18 ? * mon-fri *)", []string{"2026-11-27 18:00", "2026-11-30 18:00"}},
		{"cron(0 8 1 * ? *)", []string{"2026-12-01 08:00", "2027-01-01 08:00"}},
		{"cron(0/15 * * * ? *)", []string{"2026-11-27 12:15", "2026-11-27 12:30", "2026-11-27 12:45", "2026-11-27 13:00"}},
		{"cron(*/20 * * * ? *)", []string{"2026-11-27 12:20", "2026-11-27 12:40", "2026-11-27 13:00"}},
		{"cron(5/20 * * * ? *)", []string{"2026-11-27 12:05", "2026-11-27 12:25", "2026-11-27 12:45", "2026-11-27 13:05"}},
		{"cron(0 8-20/6 * * ? *)", []string{"2026-11-27 14:00", "2026-11-27 20:00", "2026-11-28 08:00"}},
		{"cron(0/10 * ? * MON-FRI *)", []string{"2026-11-27 12:10"}},
		{"cron(0/30 20-2 ? * MON-FRI *)", []string{"2026-11-27 20:00", "2026-11-27 20:30"}},
		{"cron(0 0 ? * FRI-MON *)", []string{"2026-11-28 00:00", "2026-11-29 00:00", "2026-11-30 00:00", "2026-12-04 00:00"}},
		{"cron(0 12 ? * 1,7 *)", []string{"2026-11-28 12:00", "2026-11-29 12:00", "2026-12-05 12:00"}},
		{"cron(0 9 ? * 2#1 *)", []string{"2026-12-07 09:00", "2027-01-04 09:00"}},
		{"cron(0 9 ? * TUE#5 *)", []string{"2026-12-29 09:00", "2027-03-30 09:00"}},
		{"cron(15 10 ? * 6L *)", []string{"2026-12-25 10:15", "2027-01-29 10:15"}},
		{"cron(15 10 ? * FRIL *)", []string{"2026-12-25 10:15"}},
		{"cron(0 0 ? * L *)", []string{"2026-11-28 00:00", "2026-12-05 00:00"}},
		{"cron(0 0 L * ? *)", []string{"2026-11-30 00:00", "2026-12-31 00:00", "2027-01-31 00:00", "2027-02-28 00:00"}},
		{"cron(0 0 LW * ? *)", []string{"2026-11-30 00:00", "2026-12-31 00:00", "2027-01-29 00:00"}},
		{"cron(0 0 28W * ? *)", []string{"2026-12-28 00:00", "2027-01-28 00:00", "2027-02-26 00:00"}},
		{"cron(0 0 1W 5,8 ? *)", []string{"2027-05-03 00:00", "2027-08-02 00:00"}}, // Saturday the 1st; Sunday the 1st
		{"cron(0 0 31W * ? *)", []string{"2026-12-31 00:00", "2027-01-29 00:00", "2027-03-31 00:00"}},
		{"cron(0 0 29 2 ? *)", []string{"2028-02-29 00:00", "2032-02-29 00:00"}},
		{"cron(0 0 29 FEB ? 2032-2040/4)", []string{"2032-02-29 00:00", "2036-02-29 00:00", "2040-02-29 00:00", "never"}},
		{"cron(59 23 31 12 ? 2199)", []string{"2199-12-31 23:59", "never"}},
		{"cron(0 0 30 2 ? *)", []string{"never"}},
		{"cron(0 0 1 1 ? 2020)", []string{"never"}},
		{"cron(0 0 30-2 JAN,JUN ? 2027)", []string{"2027-01-01 00:00", "2027-01-02 00:00", "2027-01-30 00:00", "2027-01-31 00:00", "2027-06-01 00:00"}},
		{"rate(1 minute)", []string{"2026-11-27 12:01", "2026-11-27 12:02"}},
		{"rate(5 minutes)", []string{"2026-11-27 12:05", "2026-11-27 12:10"}},
		{"rate(1 hour)", []string{"2026-11-27 13:00"}},
		{"rate(7 days)", []string{"2026-12-04 12:00", "2026-12-11 12:00"}},
	} {
		t.Run(c.expression, func(t *testing.T) {
			assert.Equal(t, c.want, firings(t, c.expression, "", after, len(c.want)))
		})
	}
}

// EventBridge Scheduler user guide, "Daylight saving time on EventBridge Scheduler".
func TestNext_DaylightSavingTime_SkipsWhatIsNotThereAndFiresOnceWhatComesTwice(t *testing.T) {
	for _, c := range []struct {
		name, expression, zone, after string
		want                          []string
	}{
		{"Berlin, skipped", "cron(30 2 * * ? *)", "Europe/Berlin", "2027-03-26 12:00", []string{"2027-03-27 01:30", "2027-03-29 00:30"}},
		{"Berlin, twice", "cron(30 2 * * ? *)", "Europe/Berlin", "2026-10-23 12:00", []string{"2026-10-24 00:30", "2026-10-25 00:30", "2026-10-26 01:30"}},
		{"New York, twice", "cron(30 1 * * ? *)", "America/New_York", "2026-10-31 12:00", []string{"2026-11-01 05:30", "2026-11-02 06:30"}},
		{"New York, skipped", "cron(0 2 14 3 ? *)", "America/New_York", "2027-01-01 00:00", []string{"2028-03-14 06:00"}},
		{"Cairo, skipped at midnight", "cron(0 0/2 * * ? *)", "Africa/Cairo", "2025-04-24 19:00", []string{"2025-04-24 20:00", "2025-04-24 23:00", "2025-04-25 01:00"}},
		{"Lord Howe, half an hour twice", "cron(0/15 * * * ? *)", "Australia/Lord_Howe", "2026-04-04 14:20", []string{"2026-04-04 14:30", "2026-04-04 14:45", "2026-04-04 15:30"}},
		{"Samoa, a day that was not", "cron(0 12 * * ? *)", "Pacific/Apia", "2011-12-29 12:00", []string{"2011-12-29 22:00", "2011-12-30 22:00"}},
		{"after in the second of two", "cron(15 1 * * ? *)", "America/New_York", "2026-11-01 06:00", []string{"2026-11-02 06:15"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			assert.Equal(t, c.want, firings(t, c.expression, c.zone, c.after, len(c.want)))
		})
	}
}

func TestParse_RefusesWhatEventBridgeRefuses(t *testing.T) {
	for _, c := range []struct{ expression, zone, want string }{
		{"", "", "must be rate(value unit)"},
		{"0 10 * * ? *", "", "must be rate(value unit)"},
		{"at(2026-11-27T12:00:00)", "", "must be rate(value unit)"},
		{"Rate(5 minutes)", "", "must be rate(value unit)"},
		{"rate(5 minutes) ", "", "must be rate(value unit)"},
		{"rate(1 minutes)", "", "the unit is singular: rate(1 minute)"},
		{"rate(5 minute)", "", "the unit is plural: rate(5 minutes)"},
		{"rate(0 minutes)", "", "a whole number from 1"},
		{"rate(-1 minutes)", "", "a whole number from 1"},
		{"rate(+1 minute)", "", "a whole number from 1"},
		{"rate(1.5 hours)", "", "a whole number from 1"},
		{"rate(5  minutes)", "", "the unit must be"},
		{"rate(30 seconds)", "", "the unit must be"},
		{"rate(5minutes)", "", "a whole number from 1"},
		{"rate(4000 days)", "", "at most 3650 days"},
		{"rate(5 minutes)", "Europe/Berlin", "a rate has no time zone"},
		{"cron(0 10 * * *)", "", "has 5"},
		{"cron(0 0 10 * * ? *)", "", "has 7"},
		{"cron(0 10 * * * *)", "", "one of the two must be ?"},
		{"cron(0 10 1 * MON *)", "", "one of the two must be ?"},
		{"cron(0 10 ? * ? *)", "", "are both ?"},
		{"cron(60 10 * * ? *)", "", `minutes: must be 0 to 59, got "60"`},
		{"cron(0 24 * * ? *)", "", `hours: must be 0 to 23, got "24"`},
		{"cron(0 0 0 * ? *)", "", "day-of-month: must be 1 to 31"},
		{"cron(0 0 32W * ? *)", "", "day-of-month: must be 1 to 31"},
		{"cron(0 0 W * ? *)", "", "day-of-month: must be 1 to 31"},
		{"cron(0 0 L-3 * ? *)", "", "day-of-month: must be 1 to 31"},
		{"cron(0 0 1,15W * ? *)", "", "day-of-month: must be 1 to 31"},
		{"cron(0 0 3L * ? *)", "", "day-of-month: must be 1 to 31"},
		{"cron(0 0 1 13 ? *)", "", "month: must be 1 to 12 or JAN to DEC"},
		{"cron(0 0 1 JANUARY ? *)", "", "month: must be"},
		{"cron(0 0 ? * 0 *)", "", "day-of-week: must be 1 to 7 or SUN to SAT"},
		{"cron(0 0 ? * 8 *)", "", "day-of-week: must be"},
		{"cron(0 0 ? * 2#6 *)", "", "1 to 5"},
		{"cron(0 0 ? * 3#1,6#3 *)", "", "# stands alone"},
		{"cron(0 0 ? * 1/2 *)", "", "takes no /"},
		{"cron(? 0 * * ? *)", "", "minutes: must be"},
		{"cron(0 0 * ? MON *)", "", "month: must be"},
		{"cron(0 0 * * ? 1969)", "", "year: must be 1970 to 2199"},
		{"cron(0 0 * * ? 2200)", "", "year: must be"},
		{"cron(0 0 * * ? 2030-2020)", "", "must not run backwards"},
		{"cron(*/60 * * * ? *)", "", "the step after / must be 1 to 59"},
		{"cron(*/0 * * * ? *)", "", "the step after /"},
		{"cron(0/ * * * ? *)", "", "the step after /"},
		{"cron(1,,2 * * * ? *)", "", "minutes: must be"},
		{"cron(1, * * * ? *)", "", "minutes: must be"},
		{"cron(*-5 * * * ? *)", "", "minutes: must be"},
		{"cron(0 10 * * ? *)", "Berlin", `no time zone "Berlin"`},
		{"cron(0 10 * * ? *)", "Local", `no time zone "Local"`},
		{"cron(0 10 * * ? *)", "../etc/passwd", "no time zone"},
	} {
		t.Run(c.expression+c.zone, func(t *testing.T) {
			_, err := schedule.Parse(c.expression, c.zone)
			require.ErrorContains(t, err, c.want)
		})
	}
}

func TestLatest_IsTheLastOfAllThatAreDue(t *testing.T) {
	for _, c := range []struct{ expression, after, until, want string }{
		{"cron(* * * * ? *)", "2020-01-01 00:00", "2026-11-27 12:00", "2026-11-27 12:00"},
		{"cron(0 3 * * ? *)", "2026-11-01 03:00", "2026-11-27 02:59", "2026-11-26 03:00"},
		{"cron(0 3 * * ? *)", "2026-11-26 03:00", "2026-11-27 02:59", ""},
		{"cron(0 0 29 2 ? *)", "2019-01-01 00:00", "2026-11-27 12:00", "2024-02-29 00:00"},
		{"cron(0 0 1 1 ? *)", "2019-01-01 00:00", "2026-11-27 12:00", "2026-01-01 00:00"},
		{"cron(0 0 1 * ? *)", "2025-01-01 00:00", "2026-11-27 12:00", "2026-11-01 00:00"},
		{"rate(7 minutes)", "2026-11-27 00:00", "2026-11-27 00:20", "2026-11-27 00:14"},
		{"rate(7 minutes)", "2020-01-01 00:00", "2026-11-27 12:00", "2026-11-27 11:58"},
	} {
		t.Run(c.expression+" until "+c.until, func(t *testing.T) {
			e, err := schedule.Parse(c.expression, "")
			require.NoError(t, err)
			tick, ok := e.Latest(at(t, c.after), at(t, c.until), at(t, c.after))
			if c.want == "" {
				require.False(t, ok)
				return
			}
			require.True(t, ok)
			assert.Equal(t, c.want, tick.Format(layout))
		})
	}
}

// brute says, minute by minute and without the code under test, whether a simple expression fires at a local time.
type brute struct {
	expression string
	match      func(time.Time) bool
}

func randomField(r *rand.Rand, least, most int) (string, func(int) bool) {
	a, b := least+r.IntN(most-least+1), least+r.IntN(most-least+1)
	a, b = min(a, b), max(a, b)
	step := 1 + r.IntN(most)
	switch r.IntN(6) {
	case 0:
		return "*", func(int) bool { return true }
	case 1:
		return fmt.Sprint(a), func(n int) bool { return n == a }
	case 2:
		return fmt.Sprintf("%d-%d", a, b), func(n int) bool { return n >= a && n <= b }
	case 3:
		return fmt.Sprintf("%d/%d", a, step), func(n int) bool { return n >= a && (n-a)%step == 0 }
	case 4:
		return fmt.Sprintf("%d,%d", a, b), func(n int) bool { return n == a || n == b }
	default:
		return fmt.Sprintf("%d-%d/%d", a, b, step), func(n int) bool { return n >= a && n <= b && (n-a)%step == 0 }
	}
}

func randomCron(r *rand.Rand) brute {
	minute, inMinute := randomField(r, 0, 59)
	hour, inHour := randomField(r, 0, 23)
	month, inMonth := randomField(r, 1, 12)
	day, inDay := randomField(r, 1, 31)
	weekday, inWeekday := "?", func(int) bool { return true }
	if r.IntN(2) == 0 {
		day, inDay = "?", inWeekday
		for weekday, inWeekday = randomField(r, 1, 7); strings.Contains(weekday, "/"); {
			weekday, inWeekday = randomField(r, 1, 7)
		}
	}
	return brute{
		fmt.Sprintf("cron(%s %s %s %s %s *)", minute, hour, day, month, weekday),
		func(t time.Time) bool {
			return inMinute(t.Minute()) && inHour(t.Hour()) && inDay(t.Day()) && inMonth(int(t.Month())) && inWeekday(int(t.Weekday())+1)
		},
	}
}

// Every minute of some days is compared: what fires, and that nothing between does, across changes of the clock.
func TestNext_AgreesWithCountingMinutes(t *testing.T) {
	zones := []string{"UTC", "Europe/Berlin", "America/New_York", "Africa/Cairo", "Asia/Kolkata"}
	starts := []string{"2026-10-24 00:00", "2026-10-31 00:00", "2027-03-13 00:00", "2027-03-27 00:00", "2027-04-29 00:00", "2027-12-30 00:00"}
	const days = 3
	for seed := range uint64(400) {
		r := rand.New(rand.NewPCG(seed, 1))
		c := randomCron(r)
		zone, err := time.LoadLocation(zones[r.IntN(len(zones))])
		require.NoError(t, err)
		start := at(t, starts[r.IntN(len(starts))])
		e, err := schedule.Parse(c.expression, zone.String())
		require.NoError(t, err, c.expression)

		var want, got []time.Time
		seen := make(map[string]bool)
		// What came twice may have come the first time before start.
		for m := -180; m <= days*24*60; m++ {
			when := start.Add(time.Duration(m) * time.Minute)
			wall := when.In(zone).Format(layout)
			if c.match(when.In(zone)) && !seen[wall] && m > 0 {
				want = append(want, when)
			}
			seen[wall] = true
		}
		for tick := start; ; {
			next, ok := e.Next(tick, start)
			if !ok || next.After(start.Add(days*24*time.Hour)) {
				break
			}
			got = append(got, next)
			tick = next
		}
		require.Equal(t, want, got, "seed %d: %s in %s from %s", seed, c.expression, zone, start)
	}
}

// FuzzParse checks that no expression makes the parser or its times panic or run backwards.
func FuzzParse(f *testing.F) {
	for _, seed := range []string{"rate(5 minutes)", "cron(0 18 ? * MON-FRI *)", "cron(0/5 8-17 L * ? 2026-2199/2)", "cron(0 0 ? * 3#2 *)",
		"cron(0 0 15W * ? *)", "cron(0 0 ? * 6L *)", "cron(1,2-9/3,50-10 * LW FEB-JAN ? *)"} {
		f.Add(seed, "Europe/Berlin", int64(1_795_000_000))
		f.Add(seed, "", int64(0))
	}
	f.Fuzz(func(t *testing.T, expression, zone string, unix int64) {
		e, err := schedule.Parse(expression, zone)
		if err != nil {
			require.NotEmpty(t, err.Error())
			return
		}
		since := time.Unix(unix%10_000_000_000, 0).UTC()
		tick := since
		for range 3 {
			next, ok := e.Next(tick, since)
			if !ok {
				return
			}
			require.True(t, next.After(tick))
			require.LessOrEqual(t, next.Year(), 2600)
			latest, ok := e.Latest(tick, next, since)
			require.True(t, ok)
			require.True(t, latest.Equal(next))
			tick = next
		}
	})
}
