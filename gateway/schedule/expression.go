// Package schedule calls functions at times that functions.yml names, as Amazon EventBridge does: it reads rate() and
// cron() expressions, computes when they fire, and hands a scheduled event to the queue of asynchronous invocations. What
// has fired is kept on disk, so that a tick that the box slept through runs once when it is back, and none runs twice.
package schedule

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
	_ "time/tzdata" // the gateway's image has no time zones of its own
)

// Bounds of a rate. EventBridge documents a positive number only; the upper bound keeps times representable.
const maxRate = 10 * 365 * 24 * time.Hour

// Expression says when a schedule fires. It is immutable.
type Expression struct {
	// every is the interval of a rate, 0 for cron.
	every time.Duration
	cron  cronFields
	zone  *time.Location
}

// Parse reads an expression in EventBridge's syntax, "rate(5 minutes)" or "cron(0 18 ? * MON-FRI *)". The time zone is an
// IANA name, empty for UTC; only cron has one. What EventBridge refuses is refused, with an error for whoever wrote it.
// Source: EventBridge user guide, "Cron expressions reference" and "Rate expressions reference".
func Parse(expression, timezone string) (*Expression, error) {
	kind, rest, _ := strings.Cut(expression, "(")
	inner, closed := strings.CutSuffix(rest, ")")
	if !closed || kind != "rate" && kind != "cron" {
		return nil, fmt.Errorf("must be rate(value unit) such as rate(5 minutes), or cron(minutes hours day-of-month month day-of-week year) such as cron(0 18 ? * MON-FRI *), got %q", expression)
	}
	if kind == "rate" {
		if timezone != "" {
			return nil, errors.New("a rate has no time zone: it counts hours that have passed; remove timezone, or write cron(...)")
		}
		every, err := parseRate(inner)
		if err != nil {
			return nil, err
		}
		return &Expression{every: every, zone: time.UTC}, nil
	}
	zone, err := parseZone(timezone)
	if err != nil {
		return nil, err
	}
	fields, err := parseCron(inner)
	if err != nil {
		return nil, err
	}
	return &Expression{cron: fields, zone: zone}, nil
}

func parseZone(name string) (*time.Location, error) {
	switch name {
	case "":
		return time.UTC, nil
	case "Local":
	default:
		if zone, err := time.LoadLocation(name); err == nil {
			return zone, nil
		}
	}
	return nil, fmt.Errorf("there is no time zone %q: write a name of the IANA database, such as Europe/Berlin or UTC", name)
}

func parseRate(inner string) (time.Duration, error) {
	value, unit, _ := strings.Cut(inner, " ")
	n, err := strconv.ParseUint(value, 10, 31)
	if err != nil || n == 0 || value[0] == '+' || value[0] == '0' {
		return 0, fmt.Errorf("rate(%s): the value must be a whole number from 1, then a blank and minutes, hours or days", inner)
	}
	length := map[string]time.Duration{"minute": time.Minute, "hour": time.Hour, "day": 24 * time.Hour}
	single := strings.TrimSuffix(unit, "s")
	every, ok := length[single]
	switch {
	case !ok:
		return 0, fmt.Errorf("rate(%s): the unit must be minute, minutes, hour, hours, day or days", inner)
	case n == 1 && unit != single:
		return 0, fmt.Errorf("rate(%s): with the value 1 the unit is singular: rate(1 %s)", inner, single)
	case n > 1 && unit == single:
		return 0, fmt.Errorf("rate(%s): with a value over 1 the unit is plural: rate(%d %ss)", inner, n, single)
	case n > uint64(maxRate/every):
		return 0, fmt.Errorf("rate(%s): must be at most %d %ss (ten years)", inner, maxRate/every, single)
	}
	return every * time.Duration(n), nil
}

// Next returns the first time after a given one at which the expression fires, false when it never does again. A rate
// counts from since, which is not a time at which it fires.
func (e *Expression) Next(after, since time.Time) (time.Time, bool) {
	if e.every == 0 {
		return e.cron.next(after, e.zone)
	}
	if after.Before(since) {
		after = since
	}
	return since.Add(after.Sub(since)/e.every*e.every + e.every), true
}

// Latest returns the last time in (after, until] at which the expression fires, false when there is none.
func (e *Expression) Latest(after, until, since time.Time) (time.Time, bool) {
	tick, ok := e.Next(after, since)
	if !ok || tick.After(until) {
		return time.Time{}, false
	}
	// A box that was off for a year must not count through a year of minutes: the last hour, day, month that has a tick
	// has the latest one.
	for _, window := range []time.Duration{time.Hour, 24 * time.Hour, 32 * 24 * time.Hour, 367 * 24 * time.Hour} {
		start := until.Add(-window)
		if !start.After(after) {
			break
		}
		if late, ok := e.Next(start, since); ok && !late.After(until) {
			tick = late
			break
		}
	}
	for {
		next, ok := e.Next(tick, since)
		if !ok || next.After(until) {
			return tick, true
		}
		tick = next
	}
}
