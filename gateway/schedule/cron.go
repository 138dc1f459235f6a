package schedule

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Years of a cron expression (EventBridge user guide).
const firstYear, lastYear = 1970, 2199

// cronFields are the six fields. Each set has the bit n for the value n.
type cronFields struct {
	minutes, hours, months uint64
	years                  [lastYear - firstYear + 1]bool
	days                   dayOfMonth
	weekdays               dayOfWeek
}

// dayOfMonth is one of: every day that weekdays allow (any), a set of days, or a rule.
type dayOfMonth struct {
	any  bool
	set  uint64
	last bool // L: the last day
	// weekday is W: the day from Monday to Friday that is nearest to day, or to the last day with last (LW).
	weekday bool
	day     int
}

// dayOfWeek is one of: every day that days allows (any), a set of days with 1 for Sunday, or a rule on day.
type dayOfWeek struct {
	any bool
	set uint64
	day int
	// nth is 3#2: the second Tuesday; last is 6L: the last Friday of the month. Both 0 and false: the set counts.
	nth  int
	last bool
}

var (
	monthNames   = names{"JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC"}
	weekdayNames = names{"SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"}
)

// names are of the values from 1.
type names []string

// field describes what one field takes.
type field struct {
	name        string
	least, most int
	names       names
	// step says whether / is allowed; day-of-week has none (EventBridge user guide).
	step bool
}

var (
	minuteField  = field{name: "minutes", least: 0, most: 59, step: true}
	hourField    = field{name: "hours", least: 0, most: 23, step: true}
	dayField     = field{name: "day-of-month", least: 1, most: 31, step: true}
	monthField   = field{name: "month", least: 1, most: 12, names: monthNames, step: true}
	weekdayField = field{name: "day-of-week", least: 1, most: 7, names: weekdayNames}
	yearField    = field{name: "year", least: firstYear, most: lastYear, step: true}
)

func parseCron(inner string) (cronFields, error) {
	var c cronFields
	parts := strings.Fields(inner)
	if len(parts) != 6 {
		return c, fmt.Errorf("cron(%s): must have 6 fields, minutes hours day-of-month month day-of-week year, has %d", inner, len(parts))
	}
	bits := func(f field, text string) (set uint64, err error) {
		err = f.each(text, func(n int) { set |= 1 << n })
		return set, err
	}
	var err error
	fail := func(err error) (cronFields, error) { return c, fmt.Errorf("cron(%s): %w", inner, err) }
	if c.minutes, err = bits(minuteField, parts[0]); err != nil {
		return fail(err)
	}
	if c.hours, err = bits(hourField, parts[1]); err != nil {
		return fail(err)
	}
	if c.days, err = parseDays(parts[2]); err != nil {
		return fail(err)
	}
	if c.months, err = bits(monthField, parts[3]); err != nil {
		return fail(err)
	}
	if c.weekdays, err = parseWeekdays(parts[4]); err != nil {
		return fail(err)
	}
	if err = yearField.each(parts[5], func(n int) { c.years[n-firstYear] = true }); err != nil {
		return fail(err)
	}
	switch {
	case c.days.any && c.weekdays.any:
		return fail(fmt.Errorf("day-of-month and day-of-week are both ?: one of them must say which days, * for every day"))
	case !c.days.any && !c.weekdays.any:
		return fail(fmt.Errorf("day-of-month is %s and day-of-week is %s: one of the two must be ?", parts[2], parts[4]))
	}
	return c, nil
}

func parseDays(text string) (dayOfMonth, error) {
	upper := strings.ToUpper(text)
	switch upper {
	case "?":
		return dayOfMonth{any: true}, nil
	case "L":
		return dayOfMonth{last: true}, nil
	case "LW":
		return dayOfMonth{last: true, weekday: true}, nil
	}
	if before, ok := strings.CutSuffix(upper, "W"); ok {
		day, err := dayField.value(before)
		return dayOfMonth{weekday: true, day: day}, err
	}
	var d dayOfMonth
	err := dayField.each(text, func(n int) { d.set |= 1 << n })
	return d, err
}

func parseWeekdays(text string) (dayOfWeek, error) {
	upper := strings.ToUpper(text)
	switch upper {
	case "?":
		return dayOfWeek{any: true}, nil
	case "L":
		return dayOfWeek{set: 1 << 7}, nil // the last day of the week, Saturday
	}
	if day, nth, ok := strings.Cut(upper, "#"); ok {
		n, err := strconv.Atoi(nth)
		if err != nil || n < 1 || n > 5 {
			return dayOfWeek{}, fmt.Errorf("day-of-week: %s: after # stands which one of the month, 1 to 5, and # stands alone in its field", text)
		}
		d, err := weekdayField.value(day)
		return dayOfWeek{day: d, nth: n}, err
	}
	if before, ok := strings.CutSuffix(upper, "L"); ok {
		day, err := weekdayField.value(before)
		return dayOfWeek{day: day, last: true}, err
	}
	var d dayOfWeek
	err := weekdayField.each(text, func(n int) { d.set |= 1 << n })
	return d, err
}

// each calls add for every value that a field's text names: a list of *, values, ranges, and these with a step.
func (f field) each(text string, add func(int)) error {
	for part := range strings.SplitSeq(text, ",") {
		span, stepText, stepped := strings.Cut(part, "/")
		from, to, step := f.least, f.most, 1
		var err error
		if first, last, isRange := strings.Cut(span, "-"); isRange {
			if from, err = f.value(first); err != nil {
				return err
			}
			if to, err = f.value(last); err != nil {
				return err
			}
			if from > to && f.wide() {
				return fmt.Errorf("%s: the range %s must not run backwards", f.name, span)
			}
			if from > to {
				to += f.most - f.least + 1 // FRI-MON goes on through SAT, SUN
			}
		} else if span != "*" {
			if from, err = f.value(span); err != nil {
				return err
			}
			if !stepped {
				to = from
			}
		}
		if stepped {
			if !f.step {
				return fmt.Errorf("%s: %s: this field takes no /: list the days", f.name, part)
			}
			// EventBridge refuses */60 minutes: a step is a value of its field.
			if step, err = strconv.Atoi(stepText); err != nil || stepText[0] == '+' || step < 1 || step > f.widest() {
				return fmt.Errorf("%s: %s: the step after / must be 1 to %d", f.name, part, f.widest())
			}
		}
		for n := from; n <= to; n += step {
			if n > f.most {
				add(n - (f.most - f.least + 1))
			} else {
				add(n)
			}
		}
	}
	return nil
}

// wide says that the field is the year, which does not begin again after its last value.
func (f field) wide() bool { return f.least == firstYear }

// widest is the largest step.
func (f field) widest() int {
	if f.wide() {
		return f.most - f.least
	}
	return f.most
}

// value reads one number or name.
func (f field) value(text string) (int, error) {
	for i, name := range f.names {
		if strings.EqualFold(text, name) {
			return i + 1, nil
		}
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < f.least || n > f.most || text[0] == '+' || text[0] == '-' {
		want := fmt.Sprintf("%d to %d", f.least, f.most)
		if f.names != nil {
			want += fmt.Sprintf(" or %s to %s", f.names[0], f.names[len(f.names)-1])
		}
		return 0, fmt.Errorf("%s: must be %s, got %q", f.name, want, text)
	}
	return n, nil
}

// next returns the first time after a given one. Days are those of the zone. As with EventBridge Scheduler, a time that
// the clocks jump over is skipped, and of one that comes twice the first counts (Scheduler user guide, "Daylight saving
// time").
func (c *cronFields) next(after time.Time, zone *time.Location) (time.Time, bool) {
	year, month, day := after.In(zone).Date()
	for ; year <= lastYear; year, month, day = year+1, time.January, 1 {
		if year < firstYear || !c.years[year-firstYear] {
			continue
		}
		for ; month <= time.December; month, day = month+1, 1 {
			if c.months&(1<<month) == 0 {
				continue
			}
			length := daysIn(year, month)
			first := time.Date(year, month, 1, 0, 0, 0, 0, time.UTC).Weekday()
			for ; day <= length; day++ {
				if !c.on(day, length, first) {
					continue
				}
				if tick, ok := c.within(year, month, day, after, zone); ok {
					return tick, true
				}
			}
		}
	}
	return time.Time{}, false
}

// within returns the first time of one day that is after a given one.
func (c *cronFields) within(year int, month time.Month, day int, after time.Time, zone *time.Location) (time.Time, bool) {
	for hour := range 24 {
		if c.hours&(1<<hour) == 0 {
			continue
		}
		for minute := range 60 {
			if c.minutes&(1<<minute) == 0 {
				continue
			}
			if tick, exists := wall(year, month, day, hour, minute, zone); exists && tick.After(after) {
				return tick, true
			}
		}
	}
	return time.Time{}, false
}

// wall returns when the clocks of a zone show a time for the first time, false when they jump over it.
func wall(year int, month time.Month, day, hour, minute int, zone *time.Location) (time.Time, bool) {
	t := time.Date(year, month, day, hour, minute, 0, 0, zone)
	if t.Hour() != hour || t.Minute() != minute || t.Day() != day {
		return time.Time{}, false
	}
	// time.Date does not say which of two it takes. The other one is as far off as the clocks were set back.
	if start, _ := t.ZoneBounds(); !start.IsZero() {
		_, offset := t.Zone()
		_, before := start.Add(-time.Second).Zone()
		if earlier := t.Add(time.Duration(offset-before) * time.Second); earlier.Before(start) {
			return earlier.UTC(), true
		}
	}
	return t.UTC(), true
}

// on says whether a day of a month of some length, which begins on a day of the week, is one of the expression's.
func (c *cronFields) on(day, length int, first time.Weekday) bool {
	weekday := (int(first)+day-1)%7 + 1 // 1 is Sunday
	d, w := &c.days, &c.weekdays
	switch {
	case !w.any && w.nth > 0:
		return weekday == w.day && (day+6)/7 == w.nth
	case !w.any && w.last:
		return weekday == w.day && day+7 > length
	case !w.any:
		return w.set&(1<<weekday) != 0
	case d.weekday:
		target := d.day
		if d.last {
			target = length
		}
		return target <= length && day == nearestWeekday(target, length, first)
	case d.last:
		return day == length
	default:
		return d.set&(1<<day) != 0
	}
}

// nearestWeekday returns the day from Monday to Friday that is nearest to a day, in the same month.
func nearestWeekday(day, length int, first time.Weekday) int {
	switch (first + time.Weekday(day) - 1) % 7 {
	case time.Saturday:
		if day == 1 {
			return 3
		}
		return day - 1
	case time.Sunday:
		if day == length {
			return day - 2
		}
		return day + 1
	default:
		return day
	}
}

func daysIn(year int, month time.Month) int {
	return time.Date(year, month+1, 0, 0, 0, 0, 0, time.UTC).Day()
}
