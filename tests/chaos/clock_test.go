package chaos

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	agentv1 "github.com/edge-serverless-box/esb/api/esb/agent/v1"
	"github.com/edge-serverless-box/esb/tests/stack"
	"github.com/edge-serverless-box/esb/tests/traffic"
)

func TestMain(m *testing.M) {
	if difference := os.Getenv(guardVariable); difference != "" {
		if err := guardClock(difference); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

const (
	// clockStep is how far the clock goes: beyond what a token, an event of clockAge and an idle worker last.
	clockStep = 2 * time.Hour
	// clockLeast is how long a step is looked at: more than one minute of the schedules.
	clockLeast = 75 * time.Second
	// tickLimit bounds the wait for a schedule of a minute: the worst is a tick that has just gone by, and one more on a busy machine.
	tickLimit = 4 * time.Minute
	// refusalDelay bounds how long the gateway remembers that a token was good.
	refusalDelay = 90 * time.Second
)

// runClock sets the clock of the whole machine forward, right, back and right again, where it may.
func runClock(t *testing.T, b *box, a *account) {
	if !a.plan.clock {
		a.open(t, "clock steps").measure("left out: they are of the whole machine's clock (ESB_CHAOS_CLOCK=true)")
		return
	}
	clock, err := holdClock()
	if errors.Is(err, errClockIsFixed) {
		a.open(t, "clock steps").measure("left out: %s", err)
		return
	}
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, clock.release(), "the clock of this machine may be wrong: set it") })
	t.Run("the guard", func(t *testing.T) { checkGuard(t, a.open(t, "the guard of the clock")) })
	if t.Failed() {
		return
	}
	b.config.clock = true
	require.NoError(t, b.config.write())
	s := &clockSteps{box: b, clock: clock, tokens: map[time.Duration]string{}}
	stop := b.send(t, b.warmStream(20))
	for _, step := range []struct {
		name string
		off  time.Duration
	}{
		{"the clock is right", 0},
		{"the clock goes 2 h forward", clockStep},
		{"the clock is right again", 0},
		{"the clock goes 2 h back", -clockStep},
		{"the clock is right at last", 0},
	} {
		if !t.Run(step.name, func(t *testing.T) { s.step(t, a.open(t, step.name), step.off) }) {
			break // the next one would set the clock of a box of which nobody knows how it is
		}
	}
	stop()
	require.NoError(t, clock.set(0))
	t.Run("after the clock steps", func(t *testing.T) {
		p := a.open(t, "after the clock steps")
		b.config.clock = false
		require.NoError(t, b.config.write())
		b.checkLeaks(t, p)
	})
}

// clockSteps is what is remembered from one step to the next.
type clockSteps struct {
	*box
	clock *machineClock
	// tokens are those that were given out, by how far the clock was off then.
	tokens map[time.Duration]string
}

// step sets the clock so that it is off by a time, and looks at all that has to do with time.
func (s *clockSteps) step(t *testing.T, p *part, off time.Duration) {
	s.mustBeWell(t)
	// In the first step the functions of this part are just becoming known.
	idler := traffic.Stream{Name: "idler", Request: s.post(always("idler"), okBody)}
	stack.Eventually(t, func() bool { return s.gen.Ask(t.Context(), idler, 0).OK() }, "the function that is idle afterwards must answer")
	workers, idlers, services := s.mustWarm(t), s.idlers(t), s.services(t)
	// They fail, and wait to be tried again when the clock is set.
	var failing []string
	for n := range 3 {
		r, err := s.EventRequest(t.Context(), "retrier", fmt.Appendf(nil, `{"n":%d,"body":"{\"action\":\"panic\"}"}`, n))
		require.NoError(t, err)
		answer, err := s.HTTP.Do(r)
		require.NoError(t, err)
		_ = answer.Body.Close()
		require.Equal(t, http.StatusAccepted, answer.StatusCode)
		failing = append(failing, answer.Header.Get("X-Amzn-RequestId"))
	}
	began := time.Now()
	require.NoError(t, s.clock.set(off))
	deadline := time.NewTimer(clockLeast)
	defer deadline.Stop()

	again := s.probe(t, began)
	p.within(t, "cold after", again.Sub(began), coldLimit)
	s.checkLogs(t, p)
	s.checkTokens(t, p, off)
	for _, id := range failing {
		stack.Eventually(t, func() bool { return s.events.failed(id) > 0 }, "the event %s must be tried to its end", id)
		p.hold(t, s.events.failed(id) == 3, "the event %s was given up after %d tries", id, s.events.failed(id))
	}
	p.measure("%d failing events were tried to their end %s after it", len(failing), short(time.Since(began)))
	s.checkTicks(t, p, began, deadline.C)
	stack.Eventually(t, func() bool {
		return !slices.ContainsFunc(s.Containers(t, ""), func(c *agentv1.ContainerInfo) bool { return strings.HasPrefix(c.GetFunctionName(), "probe") })
	}, "workers that have been idle for their time must go")

	until := s.mustSettle(t)
	p.count(s.gen.Samples("", began, until))
	warm := s.gen.Samples("warm", began, until)
	failed := traffic.Failed(warm)
	p.hold(t, len(failed) == 0, "%d of %d warm requests failed: %s", len(failed), len(warm), describe(failed, began))
	now := s.mustWarm(t)
	p.hold(t, slices.Equal(workers, now), "the workers are kept: %v, then %v", workers, now)
	now = s.idlers(t)
	p.hold(t, slices.Equal(idlers, now), "a worker that is idle for less than its time is kept: %v, then %v", idlers, now)
	s.mustBeWell(t)
	running := s.services(t)
	p.hold(t, assert.ObjectsAreEqual(services, running), "no service is started anew: %v, then %v", services, running)
	is, err := s.clock.off()
	require.NoError(t, err)
	p.hold(t, (is-off).Abs() < time.Minute, "the clock is off by %s and not by %s: somebody else sets this machine's clock (timedatectl set-ntp false)", is, off)
}

// services are the processes of the services, by name.
func (s *clockSteps) services(t *testing.T) map[string]int {
	t.Helper()
	status, err := s.Status(t.Context())
	require.NoError(t, err)
	return status.PIDs()
}

func (s *clockSteps) idlers(t *testing.T) []string {
	t.Helper()
	var ids []string
	for _, c := range s.Containers(t, "idler") {
		ids = append(ids, c.GetContainerId())
	}
	require.NotEmpty(t, ids, "an idle worker must be there")
	return ids
}

// checkLogs asks a function and looks for what it has logged.
func (s *clockSteps) checkLogs(t *testing.T, p *part) {
	t.Helper()
	began := time.Now()
	answer := s.Post(t, "/warm1", "", okBody)
	require.Equal(t, http.StatusOK, answer.Status, "%s", answer.Body)
	id := answer.Header.Get("X-Amzn-RequestId")
	require.NotEmpty(t, id)
	lines := s.EventuallyLogged(t, fmt.Sprintf("request_id:=%q type:=platform.report", id), func(lines []stack.LogLine) bool { return len(lines) > 0 })
	p.measure("a function's line is found %s after the request", short(time.Since(began)))
	// Round leaves the clock alone that nobody can set.
	p.hold(t, time.Now().Round(0).Sub(lines[0].Time).Abs() < 10*time.Minute, "the line of a function has the time of the clock: %s", lines[0].Time)
}

// checkTokens presents all tokens that were given out, each of which is good where the clock is as it was then.
func (s *clockSteps) checkTokens(t *testing.T, p *part, off time.Duration) {
	t.Helper()
	token, err := s.Token(t.Context())
	require.NoError(t, err)
	if s.tokens[off] == "" {
		s.tokens[off] = token
	}
	p.hold(t, s.Post(t, "/token", token, okBody).Status == http.StatusOK, "a token that was given out now is good")
	for given, token := range s.tokens {
		want := http.StatusUnauthorized
		if given == off {
			want = http.StatusOK
		}
		same := assert.Eventually(quietly{}, func() bool { return s.Post(t, "/token", token, okBody).Status == want }, refusalDelay, 500*time.Millisecond)
		p.hold(t, same, "a token of a clock that was off by %s is answered by %d where it is off by %s", given, want, off)
	}
}

// checkTicks waits for ticks of each schedule, and until so much time has gone by that too many would be seen.
func (s *clockSteps) checkTicks(t *testing.T, p *part, since time.Time, enough <-chan time.Time) {
	t.Helper()
	for name := range clockSchedules {
		came := assert.Eventually(quietly{}, func() bool { return s.events.ticks(name, since) > 0 }, tickLimit, 200*time.Millisecond)
		p.hold(t, came, "the schedule %s stands still", name)
	}
	<-enough
	for name := range clockSchedules {
		n := s.events.ticks(name, since)
		// What was missed runs once, and another may just be due at both ends.
		most := int(time.Since(since)/time.Minute) + 3
		p.measure("%d ticks of %s", n, name)
		p.hold(t, n <= most, "the schedule %s ticked %d times in %s", name, n, short(time.Since(since)))
	}
}

// record is what a destination gets of an event.
type record struct {
	RequestContext struct {
		RequestID, FunctionARN, Condition string
		ApproximateInvokeCount            int
	}
	RequestPayload json.RawMessage
}

// tick is which schedule has made the event; none of another function's.
func (r record) tick() string {
	var payload struct{ Of string }
	if !strings.Contains(r.RequestContext.FunctionARN, ":function:ticker") || json.Unmarshal(r.RequestPayload, &payload) != nil {
		return ""
	}
	return payload.Of
}

// ticks is how many events of a schedule have run since a time.
func (e *events) ticks(of string, since time.Time) (n int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, at := range e.ticked[of] {
		if !at.Before(since) {
			n++
		}
	}
	return n
}

// failed is how often an event was tried that has failed for good; 0 of another.
func (e *events) failed(id string) int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.gaveUp[id]
}

// checkGuard: the clock is set right when who has set it is no more.
func checkGuard(t *testing.T, p *part) {
	t.Helper()
	c, err := holdClock()
	require.NoError(t, err)
	require.NoError(t, c.set(10*clockSlack))
	err = c.leave()
	is, offErr := c.off()
	require.NoError(t, errors.Join(err, offErr, c.set(0)))
	p.hold(t, is.Abs() < clockSlack, "the guard has left the clock off by %s", is)
}

// TestGuard: a clock that is right is left alone. What it does with one that is not is looked at where the clock may be set.
func TestGuard(t *testing.T) {
	before, err := clockDifference()
	require.NoError(t, err)
	c, err := guarded(before)
	require.NoError(t, err)
	require.NoError(t, c.leave(), "the guard must end with what it guards")
	is, err := c.off()
	require.NoError(t, err)
	assert.Less(t, is.Abs(), clockSlack)
}
