package config_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/edge-serverless-box/esb/gateway"
)

func TestLoad_Schedules_AreTaken(t *testing.T) {
	c := mustLoad(t, `
functions:
  none: {image: a}
  single: {image: a, schedule: rate(5 minutes)}
  many:
    image: a
    schedules:
      - cron(0 18 ? * MON-FRI *)
      - expression: cron(30 7 * * ? *)
        timezone: Europe/Berlin
        name: breakfast
        enabled: false
        input: {z: 1, a: [true, null, 2.5, "3", "${TABLE}"], date: 2026-11-27, html: <b>, big: 0x10, empty: }
      - {expression: rate(1 hour), input: text}
`, `
routes:
  - {path: /a, method: GET, function: {container: inline, image: i, schedule: rate(1 day)}}
  - {path: /b, method: GET, function: {container: inline, image: i, schedule: rate(1 day)}}
`)
	assert.Nil(t, c.Functions["none"].Schedules)
	assert.Equal(t, []gateway.Schedule{{Name: "single", Expression: "rate(5 minutes)", Enabled: true}}, c.Functions["single"].Schedules)
	assert.Equal(t, []gateway.Schedule{{Name: "inline", Expression: "rate(1 day)", Enabled: true}}, c.Functions["inline"].Schedules)
	many := c.Functions["many"].Schedules
	require.Len(t, many, 3)
	assert.Equal(t, gateway.Schedule{Name: "many-1", Expression: "cron(0 18 ? * MON-FRI *)", Enabled: true}, many[0])
	assert.Equal(t, `{"z":1,"a":[true,null,2.5,"3","items"],"date":"2026-11-27","html":"<b>","big":16,"empty":null}`, string(many[1].Input))
	many[1].Input = nil
	assert.Equal(t, gateway.Schedule{Name: "breakfast", Expression: "cron(30 7 * * ? *)", Timezone: "Europe/Berlin"}, many[1])
	assert.Equal(t, `"text"`, string(many[2].Input))

	same := mustLoad(t, one("schedule: rate(5 minutes)"), noRoutes).Functions["echo"].Generation
	assert.Equal(t, mustLoad(t, one("timeout: 3"), noRoutes).Functions["echo"].Generation, same, "a schedule replaces no container")
}

func TestLoad_BadSchedules_NameFileLineAndKey(t *testing.T) {
	for _, c := range []struct{ name, functions, want string }{
		{"expression", "  f: {image: a, schedule: rate(1 minutes)}", "functions.yml:2: functions.f.schedule: rate(1 minutes): with the value 1 the unit is singular: rate(1 minute)"},
		{"not a text", "  f: {image: a, schedule: 5}", "functions.yml:2: functions.f.schedule: must be rate(5 minutes), or cron(0 18 ? * MON-FRI *), got 5"},
		{"both", "  f: {image: a, schedule: rate(1 hour), schedules: [rate(1 day)]}", "functions.yml:2: functions.f.schedule: and schedules are both there: put this one into the list of schedules"},
		{"empty list", "  f: {image: a, schedules: []}", "functions.yml:2: functions.f.schedules: must have 1 to 100 entries, has 0"},
		{"not a list", "  f: {image: a, schedules: rate(1 day)}", `functions.yml:2: functions.f.schedules: must be a list, got "rate(1 day)"`},
		{"no expression", "  f:\n    image: a\n    schedules:\n      - {name: x}", "functions.yml:5: functions.f.schedules[0].expression: is missing: rate(5 minutes), or cron(0 18 ? * MON-FRI *)"},
		{"time zone", "  f: {image: a, schedules: [{expression: 'cron(0 1 * * ? *)', timezone: Mars}]}", `functions.yml:2: functions.f.schedules[0].expression: there is no time zone "Mars": write a name of the IANA database, such as Europe/Berlin or UTC`},
		{"time zone of a rate", "  f: {image: a, schedules: [{timezone: UTC, expression: rate(1 day)}]}", "functions.yml:2: functions.f.schedules[0].expression: a rate has no time zone: it counts hours that have passed; remove timezone, or write cron(...)"},
		{"name", "  f: {image: a, schedules: [{expression: rate(1 day), name: a/b}]}", `functions.yml:2: functions.f.schedules[0].name: must be 1 to 64 letters, digits, dots, dashes and underscores, got "a/b"`},
		{"enabled", "  f: {image: a, schedules: [{expression: rate(1 day), enabled: 1}]}", `functions.yml:2: functions.f.schedules[0].enabled: must be true or false, got "1"`},
		{"unknown key", "  f: {image: a, schedules: [{expression: rate(1 day), time_zone: UTC}]}", "functions.yml:2: functions.f.schedules[0].time_zone: is not a known key; did you mean timezone?"},
		{"input", "  f: {image: a, schedules: [{expression: rate(1 day), input: {a: [.inf]}}]}", `functions.yml:2: functions.f.schedules[0].input.a[0]: must be a value that JSON has, got ".inf"`},
		{"input twice", "  f: {image: a, schedules: [{expression: rate(1 day), input: {a: 1, a: 2}}]}", "functions.yml:2: functions.f.schedules[0].input.a: must be a plain key that is given once"},
		{"input in itself", "  f: {image: a, schedules: [{expression: rate(1 day), input: &a [*a]}]}", "functions.yml:2: functions.f.schedules[0].input" + strings.Repeat("[0]", 101) + ": is nested deeper than 100 levels"},
		{"input too large", "  f: {image: a, schedules: [{expression: rate(1 day), input: [" + strings.Repeat("0,", 140000) + "]}]}", "functions.yml:2: functions.f.schedules[0].input: must be at most 256 KB as JSON"},
		{"name twice", "  f: {image: a, schedule: rate(1 day)}\n  g:\n    image: a\n    schedules:\n      - {expression: rate(1 day), name: f}", "functions.yml:6: functions.g.schedules[0]: has the name f, as the schedule at functions.yml:2 has: give it another one with the key name"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := load(t, "functions:\n"+c.functions+"\n", noRoutes)
			require.EqualError(t, err, c.want)
		})
	}
}
