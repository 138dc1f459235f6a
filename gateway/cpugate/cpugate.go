// Package cpugate holds invocations back while functions want more CPU than the machine has. Without it they all run at once, each
// waits for the CPU at each of its steps, and a function that is hardly asked waits as long as those that are asked too much. With it
// about as many run as keep the CPU busy, the others wait in the gateway, where they cost nothing, and whose functions have fewest
// running go next.
package cpugate

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"
)

// When the gate narrows and widens, by Load: functions use enough CPU to be what is in the way, and so many threads could run for each
// CPU. Between the two it stays.
const (
	busy        = 0.25
	many, few   = 3, 2
	narrow      = 0.8
	widen       = 1.15
	leastPerCPU = 2
	// calmReadings in which nobody waits open the gate.
	calmReadings = 25
	// After so many crowded readings in a row twice as many may run for some readings. When not this much more can run then, it is not the
	// number of invocations that keeps the CPU busy, but a few with many threads, or something else on the machine: the gate opens, for so
	// many readings at least.
	crowdedReadings = 20
	trialReadings   = 8
	more            = 1.15
	pauseReadings   = 50
	// restReadings are between a trial that has shown that the gate is of use and the next one.
	restReadings = 150
	// weight is that of one reading in their average.
	weight = 0.3
	// silence is how long a reading counts.
	silence = 2 * time.Second
)

// Load is one reading of the machine.
type Load struct {
	// CPUs is how many it has.
	CPUs int
	// Functions is the part of all CPU time that functions use, 0 to 1.
	Functions float64
	// Runnable is how many threads run or could, for each CPU.
	Runnable float64
}

// Source tells of loads.
type Source interface {
	// WatchCPU tells readings, several a second while functions are busy, until ctx ends or it cannot go on, and says why.
	WatchCPU(ctx context.Context, tell func(Load)) error
}

// ErrNoTurn says that no CPU was to be had in time.
var ErrNoTurn = errors.New("the CPU is taken by other invocations, and its turn did not come in time")

// Gate is open, until Observe says that it is too busy behind it. Its methods may be called concurrently. A nil Gate is always open.
type Gate struct {
	log     *slog.Logger
	end     context.CancelFunc
	follows sync.WaitGroup

	// mu guards what is below.
	mu sync.Mutex
	// limit is how many may run, all functions together; 0 while the gate is open.
	limit   int
	running int
	// lines are those of functions, by name, and active how many of them run something or wait.
	lines  map[string]*line
	active int
	// seq counts the turns that were granted.
	seq int
	// calm counts readings in a row in which nobody waited, pause those for which the gate stays open, and rest those without a trial.
	calm, pause, rest int
	// crowded counts the readings in a row in which too much could run, which was level on average. trial counts those for which more
	// invocations run than the limit before was, and the level was base.
	crowded, trial, before int
	level, base            float64
	// heard is when the last reading came.
	heard time.Time
}

// line is one function's invocations.
type line struct {
	running int
	waiting []*waiter
	// served is when, by seq, it had the last turn.
	served int
}

type waiter struct{ granted chan struct{} }

// New returns an open gate, which Observe alone narrows.
func New(log *slog.Logger) *Gate {
	if log == nil {
		log = slog.Default()
	}
	return &Gate{log: log, lines: make(map[string]*line), end: func() {}}
}

// Open returns a gate that follows s until Close. While s has nothing to say it is open.
func Open(s Source, log *slog.Logger) *Gate {
	g := New(log)
	var ctx context.Context
	ctx, g.end = context.WithCancel(context.Background())
	g.follows.Go(func() { g.follow(ctx, s) })
	return g
}

// Close opens the gate, and nothing is observed any more.
func (g *Gate) Close() {
	g.end()
	g.follows.Wait()
}

func (g *Gate) follow(ctx context.Context, s Source) {
	ticker := time.NewTicker(silence)
	defer ticker.Stop()
	g.follows.Go(func() {
		for {
			select {
			case <-ticker.C:
				g.open(silence)
			case <-ctx.Done():
				return
			}
		}
	})
	for {
		_ = s.WatchCPU(ctx, g.Observe) // an agent that is away is told of by those who need it
		g.open(0)
		select {
		case <-time.After(retry):
		case <-ctx.Done():
			return
		}
	}
}

// retry is the pause before a source is asked again.
const retry = 2 * time.Second

// Enter waits until an invocation of function may run, for at most patience: a function that has none running always may, and so may one
// that another function waits for (inner), which keeps its own turn meanwhile. The caller calls Leave when the invocation has ended. The
// error is that of ctx, or ErrNoTurn.
func (g *Gate) Enter(ctx context.Context, function string, patience time.Duration, inner bool) error {
	if g == nil {
		return nil
	}
	g.mu.Lock()
	l := g.lines[function]
	if l == nil {
		l = &line{}
		g.lines[function] = l
	}
	if l.idle() {
		g.active++
	}
	if inner || len(l.waiting) == 0 && g.admits(l) {
		g.grant(l)
		g.mu.Unlock()
		return nil
	}
	w := &waiter{granted: make(chan struct{})}
	l.waiting = append(l.waiting, w)
	g.mu.Unlock()
	held.Inc()
	waiting.Inc()
	defer waiting.Dec()
	timer := time.NewTimer(patience)
	defer timer.Stop()
	var err error
	select {
	case <-w.granted:
		return nil
	case <-ctx.Done():
		err = ctx.Err()
	case <-timer.C:
		err = ErrNoTurn
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	for i, o := range l.waiting {
		if o == w {
			l.waiting = append(l.waiting[:i], l.waiting[i+1:]...)
			g.left(l)
			g.next() // whose share has grown
			return err
		}
	}
	return nil // its turn came in the same moment
}

// Leave ends what Enter began.
func (g *Gate) Leave(function string) {
	if g == nil {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	l := g.lines[function]
	l.running--
	g.running--
	g.left(l)
	if g.limit > 0 {
		g.next()
	}
}

// Running is how many invocations have entered and not left.
func (g *Gate) Running() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.running
}

func (l *line) idle() bool { return l.running+len(l.waiting) == 0 }

// left counts a line that has nothing more. Callers hold mu.
func (g *Gate) left(l *line) {
	if l.idle() {
		g.active--
	}
}

// admits says whether one more of l may run. Each function has a share, also when others had more than theirs before it came, and one
// invocation in any case: what it does may be what another one waits for. Callers hold mu.
func (g *Gate) admits(l *line) bool {
	return g.limit == 0 || g.running < g.limit || l.running < max(1, g.limit/max(g.active, 1))
}

// grant lets one more of l run. Callers hold mu.
func (g *Gate) grant(l *line) {
	g.seq++
	l.served = g.seq
	l.running++
	g.running++
}

// next lets those run that may, the functions with fewest running first. Callers hold mu.
func (g *Gate) next() {
	for {
		var best *line
		for _, l := range g.lines {
			if len(l.waiting) > 0 && g.admits(l) && (best == nil || l.running < best.running || l.running == best.running && l.served < best.served) {
				best = l
			}
		}
		if best == nil {
			return
		}
		w := best.waiting[0]
		best.waiting = best.waiting[1:]
		g.grant(best)
		close(w.granted)
	}
}

// Observe takes one reading.
func (g *Gate) Observe(load Load) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.heard = time.Now()
	g.rest = max(g.rest-1, 0)
	least := max(leastPerCPU*load.CPUs, leastPerCPU)
	crowd := 0
	for _, l := range g.lines {
		crowd += len(l.waiting)
	}
	if crowd > 0 {
		g.calm = 0
	}
	if g.pause > 0 {
		g.pause--
		return
	}
	crowded := load.Functions >= busy && load.Runnable > many
	if g.level += weight * (load.Runnable - g.level); crowded {
		g.crowded++
	} else {
		g.crowded = 0
	}
	switch {
	case crowded && g.limit == 0 && g.running > least:
		g.log.Info("functions want more CPU than there is: invocations take turns", "running", g.running, "runnable_per_cpu", load.Runnable)
		g.calm, g.crowded, g.trial = 0, 0, 0
		g.limit = max(int(float64(g.running)*narrow), least)
	case g.limit == 0:
	case g.trial > 0:
		if g.trial--; g.trial == 0 {
			g.judge()
		}
	case crowd == 0:
		if g.calm++; g.calm >= calmReadings {
			g.log.Info("functions have the CPU that they want: invocations no longer take turns")
			g.limit = 0
		}
	case g.crowded >= crowdedReadings && g.rest == 0:
		g.base, g.before, g.trial = g.level, g.limit, trialReadings
		g.limit = 2 * max(g.limit, g.running)
		g.next()
	case crowded && g.running > g.limit:
		// What ran before the last step does still.
	case crowded:
		g.limit = max(int(float64(g.limit)*narrow), least)
	case load.Runnable < few || load.Functions < busy:
		g.limit = max(int(float64(g.limit)*widen), g.limit+1)
		g.next()
	}
	limits.Set(float64(g.limit))
	if g.limit == 0 {
		for name, l := range g.lines {
			if l.idle() {
				delete(g.lines, name) // it may be no function any more
			}
		}
	}
}

// judge ends a trial. Callers hold mu.
func (g *Gate) judge() {
	g.limit, g.crowded = g.before, 0
	if g.level >= more*g.base {
		g.rest = restReadings
		return
	}
	g.log.Info("it is not the number of invocations that keeps the CPU busy: they no longer take turns", "runnable_per_cpu", g.level)
	g.limit, g.pause = 0, pauseReadings
	g.next()
}

// open lets everybody through when nothing was heard for so long.
func (g *Gate) open(silent time.Duration) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.limit == 0 || time.Since(g.heard) < silent {
		return
	}
	g.limit = 0
	limits.Set(0)
	g.next()
}
