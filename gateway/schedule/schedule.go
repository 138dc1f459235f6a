package schedule

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/edge-serverless-box/esb/gateway"
)

const (
	// longestSleep bounds how late the scheduler notices that the clock was set.
	longestSleep = 10 * time.Second
	// setBack is how far the clock may go back before that counts: a correction by less must not make a tick run twice.
	setBack = time.Hour
	// enqueueTimeout bounds one try to hand an event over.
	enqueueTimeout = 5 * time.Second
	// firstRetry and lastRetry are the pauses between tries to hand over the same tick.
	firstRetry, lastRetry = time.Second, time.Minute
	// punctual is how late a tick may be without being called missed.
	punctual = time.Minute
)

// Queue takes asynchronous invocations; async.Queue is the one of production. It returns nil only when the event is
// durable.
type Queue interface {
	Enqueue(ctx context.Context, fn *gateway.Function, inv gateway.Invocation) error
}

// Options of a Scheduler. All are needed unless they say otherwise.
type Options struct {
	// Path is the file that keeps which ticks have run.
	Path string
	// Region and AccountID are those of the rules' ARNs.
	Region, AccountID string
	Queue             Queue
	Logger            *slog.Logger
	// Now is the wall clock, nil for time.Now.
	Now func() time.Time
}

// Scheduler runs the schedules of one configuration at a time.
type Scheduler struct {
	opts   Options
	cancel context.CancelFunc
	ended  chan struct{}
	// changed wakes the loop after Use. It has room for one.
	changed chan struct{}

	// mu guards all below, and what entries point to. It is not held while an event is handed over.
	mu  sync.Mutex
	set Set
	// kept is what the file said, until the first Use.
	kept map[string]record
	// dirty says that the file is not what entries say.
	dirty bool
}

// Set are the schedules of one configuration.
type Set struct {
	// entries by name of the schedule; the disabled ones are off.
	entries map[string]*entry
	off     []gateway.Schedule
	offOf   map[string]string // function of a disabled schedule
}

// entry is one enabled schedule.
type entry struct {
	record
	fn   *gateway.Function
	spec gateway.Schedule
	expr *Expression
	next time.Time // zero: never
	// tries counts how often the due tick could not be handed over, retry is when it is tried again.
	tries   int
	retry   time.Time
	problem string
}

// State is one schedule as the operator sees it.
type State struct {
	Name       string `json:"name"`
	Function   string `json:"function"`
	Expression string `json:"expression"`
	Timezone   string `json:"timezone,omitempty"`
	Enabled    bool   `json:"enabled"`
	// Next is when it fires, nil for never. Last is the last tick that was handed over, nil for none.
	Next *time.Time `json:"next"`
	Last *time.Time `json:"last"`
	// LastRequestID is that of Last's invocation.
	LastRequestID string `json:"last_request_id,omitempty"`
	// Problem says why the tick that is due could not be handed over.
	Problem string `json:"problem,omitempty"`
}

// Open reads the file and starts the scheduler, which has nothing to do until Use.
func Open(o Options) (*Scheduler, error) {
	if o.Now == nil {
		o.Now = time.Now
	}
	kept, broken, err := readState(o.Path)
	if err != nil {
		return nil, err
	}
	if broken != nil {
		o.Logger.Error("the file of schedules is broken and was put aside: ticks that the box missed do not run", "file", o.Path+".broken", "error", broken.Error())
	}
	ctx, cancel := context.WithCancel(context.Background())
	s := &Scheduler{opts: o, cancel: cancel, ended: make(chan struct{}), changed: make(chan struct{}, 1), kept: kept}
	go func() {
		defer close(s.ended)
		s.run(ctx)
	}()
	return s, nil
}

// Compile returns the schedules of functions. Its error says which expression is wrong.
func Compile(functions map[string]*gateway.Function) (*Set, error) {
	set := &Set{entries: make(map[string]*entry), offOf: make(map[string]string)}
	for _, fn := range functions {
		for _, spec := range fn.Schedules {
			if !spec.Enabled {
				set.off = append(set.off, spec)
				set.offOf[spec.Name] = fn.Name
				continue
			}
			expr, err := Parse(spec.Expression, spec.Timezone)
			if err != nil {
				return nil, fmt.Errorf("schedule %s of function %s: %w", spec.Name, fn.Name, err)
			}
			set.entries[spec.Name] = &entry{
				record: record{Function: fn.Name, Expression: spec.Expression, Timezone: spec.Timezone},
				fn:     fn, spec: spec, expr: expr,
			}
		}
	}
	return set, nil
}

// Use makes next the current schedules, all at once; a Set is used once. A schedule whose name, function, expression and time
// zone stay goes on; any other begins now.
func (s *Scheduler) Use(next *Set) {
	now := s.now()
	s.mu.Lock()
	defer s.mu.Unlock()
	for name, e := range next.entries {
		// The same object goes on: a tick of it may be on its way.
		if old, ok := s.set.entries[name]; ok && old.same(e.record) {
			old.fn, old.spec = e.fn, e.spec
			next.entries[name] = old
			continue
		}
		if kept, ok := s.kept[name]; ok && kept.same(e.record) {
			e.record = kept
		} else {
			// In whole seconds, as EventBridge's times.
			e.Since = now.Truncate(time.Second)
			e.Last = e.Since
		}
		e.next, _ = e.expr.Next(e.Last, e.Since)
		if e.next.IsZero() {
			s.opts.Logger.Warn("a schedule never fires any more", "schedule", name, "function", e.Function, "expression", e.Expression)
		}
	}
	s.set, s.kept, s.dirty = *next, nil, true
	select {
	case s.changed <- struct{}{}:
	default:
	}
}

// Snapshot returns all schedules by name.
func (s *Scheduler) Snapshot() []State {
	s.mu.Lock()
	defer s.mu.Unlock()
	states := make([]State, 0, len(s.set.entries)+len(s.set.off))
	for name, e := range s.set.entries {
		state := State{
			Name: name, Function: e.Function, Expression: e.Expression, Timezone: e.Timezone, Enabled: true,
			LastRequestID: e.Request, Problem: e.problem,
		}
		if next := e.next; !next.IsZero() {
			state.Next = &next
		}
		if last := e.Last; !last.Equal(e.Since) {
			state.Last = &last
		}
		states = append(states, state)
	}
	for _, spec := range s.set.off {
		states = append(states, State{Name: spec.Name, Function: s.set.offOf[spec.Name], Expression: spec.Expression, Timezone: spec.Timezone})
	}
	slices.SortFunc(states, func(a, b State) int { return cmp.Compare(a.Name, b.Name) })
	return states
}

// Close stops the scheduler and waits for it. A tick that is being handed over is given up: it is due again after the next
// start, with the same request id.
func (s *Scheduler) Close() error {
	s.cancel()
	<-s.ended
	return s.save()
}

// now is the wall clock alone: a monotonic reading would hide that the clock was set.
func (s *Scheduler) now() time.Time { return s.opts.Now().Round(0).UTC() }

func (s *Scheduler) run(ctx context.Context) {
	for {
		wake := s.fire(ctx)
		if err := s.save(); err != nil {
			s.opts.Logger.Error("the times of schedules cannot be written: after a restart ticks may run twice", "file", s.opts.Path, "error", err.Error())
		}
		timer := time.NewTimer(min(max(wake, 0), longestSleep))
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-s.changed:
			timer.Stop()
		case <-timer.C:
		}
	}
}

// due is a tick that is to be handed over.
type due struct {
	entry *entry
	fn    *gateway.Function
	spec  gateway.Schedule
	tick  time.Time
	// more says that there were ticks before this one that nobody ran: they do not run any more.
	more bool
}

// fire hands over what is due and returns the time until something is due next.
func (s *Scheduler) fire(ctx context.Context) time.Duration {
	for _, d := range s.due() {
		if ctx.Err() != nil {
			break
		}
		s.hand(ctx, d)
		// After each, so that a crash repeats one tick at most. Its error is reported by run, which tries again.
		_ = s.save()
	}
	now := s.now()
	wake := longestSleep
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, e := range s.set.entries {
		at := e.next
		if e.tries > 0 && e.retry.After(at) {
			at = e.retry
		}
		if !at.IsZero() {
			wake = min(wake, at.Sub(now))
		}
	}
	return wake
}

// due looks through the schedules, in the order of their ticks.
func (s *Scheduler) due() []due {
	now := s.now()
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []due
	for name, e := range s.set.entries {
		before := e.Rewound
		from := e.from(now)
		if !e.Rewound.Equal(before) {
			s.dirty = true
			if !e.Rewound.IsZero() {
				s.opts.Logger.Warn("the clock was set back: a schedule goes on from now", "schedule", name, "last", e.Last, "now", now)
			}
		}
		e.next, _ = e.expr.Next(from, e.Since)
		if e.next.IsZero() || e.next.After(now) || e.tries > 0 && e.retry.After(now) && e.retry.Sub(now) <= lastRetry {
			continue
		}
		tick, _ := e.expr.Latest(from, now, e.Since)
		all = append(all, due{entry: e, fn: e.fn, spec: e.spec, tick: tick, more: tick.After(e.next)})
	}
	slices.SortFunc(all, func(a, b due) int {
		return cmp.Or(a.tick.Compare(b.tick), cmp.Compare(a.spec.Name, b.spec.Name))
	})
	return all
}

// from returns the time after which ticks are still to run. That is the last one that ran, unless the clock was set back
// far behind it, as on a box without a clock of its own that has no network yet: then what is due from now on runs. Last
// stays, so that nothing runs twice when the clock is right again.
func (e *entry) from(now time.Time) time.Time {
	if !e.Last.After(now.Add(setBack)) {
		e.Rewound = time.Time{}
		return e.Last
	}
	if e.Rewound.IsZero() || e.Rewound.After(now.Add(setBack)) {
		e.Rewound = now
	}
	return e.Rewound
}

// hand gives one tick to the queue.
func (s *Scheduler) hand(ctx context.Context, d due) {
	inv, err := s.invocation(d.spec, d.tick)
	if err == nil {
		ctx, cancel := context.WithTimeout(ctx, enqueueTimeout)
		err = s.opts.Queue.Enqueue(ctx, d.fn, inv)
		cancel()
	}
	now := s.now()
	late := now.Sub(d.tick)
	log := s.opts.Logger.With("schedule", d.spec.Name, "function", d.fn.Name, "request_id", inv.RequestID,
		"trace_id", inv.TraceID, "tick", d.tick, "late_ms", late.Milliseconds())
	outcome := "accepted"
	switch {
	case err == nil && (d.more || late > punctual):
		outcome = "missed"
		log.Warn("a schedule's missed tick was handed over, once for all that were missed", "outcome", outcome)
	case err == nil:
		log.Info("a schedule's tick was handed over", "outcome", outcome)
	case hopeless(err):
		outcome = "dropped"
		log.Error("a schedule's tick was dropped", "outcome", outcome, "error", err.Error())
	case ctx.Err() != nil:
		return // Close
	default:
		outcome = "failed"
		log.Warn("a schedule's tick could not be handed over and is tried again", "outcome", outcome, "error", err.Error())
	}
	ticks.WithLabelValues(d.spec.Name, d.fn.Name, outcome).Inc()

	s.mu.Lock()
	defer s.mu.Unlock()
	e := d.entry
	if outcome == "failed" {
		e.retry = now.Add(min(firstRetry<<min(e.tries, 10), lastRetry))
		e.tries++
		e.problem = err.Error()
		return
	}
	if err == nil {
		delay.Observe(late.Seconds())
		e.Request = inv.RequestID
	}
	if e.Rewound.IsZero() {
		e.Last = d.tick
	} else {
		e.Rewound = d.tick
	}
	e.tries, e.problem = 0, ""
	if err != nil {
		e.problem = err.Error()
	}
	e.next, _ = e.expr.Next(d.tick, e.Since)
	s.dirty = true
}

// hopeless says that the queue will never take the event.
func hopeless(err error) bool {
	code := gateway.ErrorCode(err)
	return code == gateway.CodeTooLarge || code == gateway.CodeInvalid
}

// save writes the file when it is not what the schedules say.
func (s *Scheduler) save() error {
	s.mu.Lock()
	if !s.dirty {
		s.mu.Unlock()
		return nil
	}
	records := make(map[string]record, len(s.set.entries))
	for name, e := range maps.All(s.set.entries) {
		records[name] = e.record
	}
	s.dirty = false
	s.mu.Unlock()
	err := writeState(s.opts.Path, records)
	if err != nil {
		s.mu.Lock()
		s.dirty = true
		s.mu.Unlock()
	}
	return err
}
