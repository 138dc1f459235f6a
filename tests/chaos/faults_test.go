package chaos

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/edge-serverless-box/esb/tests/stack"
	"github.com/edge-serverless-box/esb/tests/traffic"
)

const (
	warmRate = 50
	coldRate = 0.5
	// standstill is how long a process is stopped by a signal, if nobody starts another one in its place before.
	standstill = 10 * time.Second
	// probeLimit bounds the wait for the first cold request that is answered.
	probeLimit = 2 * time.Minute
	// warmLimit and coldLimit are until when requests must be answered again, on a machine that does nothing else.
	warmLimit, coldLimit = time.Second, 3 * time.Second
)

// fault is something that happens to one process of the box.
type fault struct {
	name   string
	signal syscall.Signal
	// find names the process.
	find func(t *testing.T, b *box) int
	// cuts: requests that have reached it fail. Those that come later wait until another one listens: none is refused.
	cuts bool
	// loses is how many workers end with it.
	loses int
}

// faults are the twelve.
func faults() []fault {
	program := func(name string) func(*testing.T, *box) int {
		return func(t *testing.T, b *box) int {
			t.Helper()
			var pids []int
			stack.Eventually(t, func() bool { pids = b.pids(t, name); return len(pids) == 1 }, "there must be one %s", name)
			return pids[0]
		}
	}
	// A program of a service may run more than once.
	service := func(name string) func(*testing.T, *box) int {
		return func(t *testing.T, b *box) (pid int) {
			t.Helper()
			stack.Eventually(t, func() bool {
				s, err := b.Status(t.Context())
				pid = s.PIDs()[name]
				return err == nil && pid > 0
			}, "%s must run", name)
			return pid
		}
	}
	all := []fault{{name: "stores kill -9", signal: syscall.SIGKILL, find: service("stores")}}
	for _, name := range []string{"agent", "containerd", "victoria-logs", "versitygw", "dynoxide"} {
		all = append(all, fault{name: name + " kill -9", signal: syscall.SIGKILL, find: program(name)})
	}
	for _, name := range []string{"agent", "containerd"} {
		all = append(all, fault{name: name + " SIGSTOP", signal: syscall.SIGSTOP, find: program(name)})
	}
	return append(all,
		fault{name: "gateway kill -9", signal: syscall.SIGKILL, find: program("gateway"), cuts: true},
		fault{name: "gateway SIGSTOP", signal: syscall.SIGSTOP, find: program("gateway"), cuts: true},
		// Its containers serve on.
		fault{name: "shim kill -9", signal: syscall.SIGKILL, find: func(t *testing.T, b *box) int { return mustParent(t, b.mustVictim(t, inShim(t))) }},
		fault{name: "lambda-init kill -9", signal: syscall.SIGKILL, loses: 1, find: func(t *testing.T, b *box) int { return b.mustVictim(t, anyOne) }},
		// lambda-init starts another process, or gives the worker up.
		fault{name: "function kill -9", signal: syscall.SIGKILL, loses: 1, find: func(t *testing.T, b *box) int {
			function := mustChild(t, b.mustVictim(t, anyOne))
			// It is served by another process once it is asked, which need not be soon, and a gateway that starts does not take it over.
			b.hurt = append(b.hurt, b.victim)
			return function
		}},
	)
}

// mustVictim is process 1 of the warm worker that has not been asked for longest, of those whose process 1 will do.
func (b *box) mustVictim(t *testing.T, will func(pid int) bool) int {
	t.Helper()
	pools, err := b.pools(t.Context())
	require.NoError(t, err)
	var idle []worker
	for _, p := range pools {
		for _, w := range p.Workers {
			if strings.HasPrefix(p.Function, "warm") && w.State == "idle" {
				idle = append(idle, w)
			}
		}
	}
	slices.SortFunc(idle, func(a, b worker) int { return a.Since.Compare(b.Since) })
	for _, w := range idle {
		if pid := first(t, w.ID); pid > 0 && will(pid) {
			b.victim = w.ID
			return pid
		}
	}
	require.FailNow(t, "a worker must be idle", "%v", idle)
	return 0
}

func anyOne(int) bool { return true }

// first is process 1 of a container, 0 when there is none.
func first(t *testing.T, id string) int {
	t.Helper()
	// One that was parked has another id in containerd, and another cgroup, with the same end.
	end := id[strings.LastIndexByte(id, '-'):]
	for _, pattern := range []string{"/sys/fs/cgroup/esb*/*" + end, "/sys/fs/cgroup/pids/esb*/*" + end} {
		files, err := filepath.Glob(filepath.Join(pattern, "cgroup.procs"))
		require.NoError(t, err)
		for _, file := range files {
			text, _ := os.ReadFile(file) // it may be gone
			for pid := range strings.FieldsSeq(string(text)) {
				state, _ := os.ReadFile(filepath.Join("/proc", pid, "status"))
				for line := range strings.Lines(string(state)) {
					if fields := strings.Fields(line); len(fields) > 2 && fields[0] == "NSpid:" && fields[len(fields)-1] == "1" {
						number, err := strconv.Atoi(pid)
						require.NoError(t, err)
						return number
					}
				}
			}
		}
	}
	return 0
}

// inShim says whether a process is in a shim.
func inShim(t *testing.T) func(pid int) bool {
	return func(pid int) bool {
		program, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", mustParent(t, pid)))
		return err == nil && filepath.Base(program) == "containerd-shim-runc-v2"
	}
}

// mustParent is the parent of a process.
func mustParent(t *testing.T, pid int) int {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	require.NoError(t, err)
	_, rest, _ := strings.Cut(string(text), ") ")
	parent, err := strconv.Atoi(strings.Fields(rest)[1])
	require.NoError(t, err)
	return parent
}

// mustChild is the child of a process that has one.
func mustChild(t *testing.T, parent int) int {
	t.Helper()
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", parent))
	require.NoError(t, err)
	var children []string
	for _, file := range files {
		text, err := os.ReadFile(file)
		require.NoError(t, err)
		children = append(children, strings.Fields(string(text))...)
	}
	require.Len(t, children, 1, "the children of process %d", parent)
	pid, err := strconv.Atoi(children[0])
	require.NoError(t, err)
	return pid
}

// runFaults gives one fault after the other to a box that has traffic of all kinds.
func runFaults(t *testing.T, b *box, a *account) {
	began := time.Now()
	stop := b.send(t, b.warmStream(warmRate), b.coldStream(coldRate), b.eventStream(5))
	random := a.plan.random(1)
	for round := range a.plan.times(1, 1, 20) {
		if round > 0 && a.plan.late(a.began, 0.3) {
			t.Logf("%d rounds: the others have no time", round)
			break
		}
		all := faults()
		random.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
		for _, f := range all {
			if !t.Run(f.name, func(t *testing.T) { b.fault(t, a.open(t, f.name), f) }) {
				b.mustBeWell(t)
			}
		}
	}
	stop()
	t.Run("after the faults", func(t *testing.T) {
		p := a.open(t, "after the faults")
		b.checkEvents(t, p, began)
		b.checkLeaks(t, p)
	})
}

// fault gives one.
func (b *box) fault(t *testing.T, p *part, f fault) {
	b.mustBeWell(t)
	workers := b.mustWarm(t)
	from := time.Now()
	b.mustSend(t, "warm", from, 2*warmRate)
	pid := f.find(t, b)
	require.Positive(t, pid)
	struck := time.Now()
	require.NoError(t, syscall.Kill(pid, f.signal))
	over := struck
	if f.signal == syscall.SIGSTOP {
		over = b.standStill(t, p, f, pid, struck)
	}
	again := b.probe(t, over)
	b.mustBeWell(t)
	p.measure("healthy after %s", short(time.Since(struck)))
	now := b.mustWarm(t)
	b.mustSend(t, "warm", time.Now(), 2*warmRate)
	until := b.mustSettle(t)

	p.count(b.gen.Samples("", from, until))
	warm := b.gen.Samples("warm", struck, until)
	failed := traffic.Failed(warm)
	if f.cuts {
		first, ok := firstAnswer(warm)
		require.True(t, ok, "a warm request must be answered")
		p.within(t, "first warm 200 after", first.Answered().Sub(over), warmLimit)
		p.measure("%d of %d warm requests failed", len(failed), len(warm))
		var refused []traffic.Sample
		for _, s := range failed {
			if errors.Is(s.Err, syscall.ECONNREFUSED) {
				refused = append(refused, s)
			}
		}
		p.hold(t, len(refused) == 0, "%d warm requests were refused: %s", len(refused), describe(refused, struck))
		failed = traffic.Failed(b.gen.Samples("warm", first.Sent, until))
		p.hold(t, len(failed) == 0, "%d warm requests failed after the first that was answered: %s", len(failed), describe(failed, struck))
	} else {
		p.hold(t, len(failed) == 0, "%d of %d warm requests failed: %s", len(failed), len(warm), describe(failed, struck))
	}
	p.within(t, "cold again after", again.Sub(over), coldLimit)
	if bad := traffic.Failed(b.gen.Samples("cold", struck, until)); len(bad) > 0 {
		p.measure("%d cold requests failed meanwhile (%s)", len(bad), traffic.CausesText(traffic.Causes(bad)))
	}
	var gone []string
	for _, id := range workers {
		if !slices.Contains(now, id) {
			gone = append(gone, id)
		}
	}
	p.measure("kept %d of %d workers", len(workers)-len(gone), len(workers))
	gone = slices.DeleteFunc(gone, func(id string) bool { return slices.Contains(b.hurt, id) })
	p.hold(t, len(gone) <= f.loses, "of %d workers those were not kept: %v", len(workers), gone)
	p.measure("warm p99 %s, then %s", short(traffic.Quantile(b.gen.Samples("warm", from, struck), 0.99)), short(traffic.Quantile(warm, 0.99)))
}

// standStill waits until a stopped process has been replaced, or lets it go on after a while, and returns when that was.
func (b *box) standStill(t *testing.T, p *part, f fault, pid int, struck time.Time) time.Time {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), standstill)
	defer cancel()
	ticker := time.NewTicker(20 * time.Millisecond)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
			if ended(pid) { // nobody else has its number meanwhile
				p.measure("killed after %s", short(time.Since(struck)))
				return time.Now()
			}
		case <-ctx.Done():
			require.NoError(t, syscall.Kill(pid, syscall.SIGCONT), f.name)
			p.measure("stood still for %s", standstill)
			return time.Now()
		}
	}
}

// ended is true for a process that is gone, or waits for its parent to notice.
func ended(pid int) bool {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	_, rest, _ := strings.Cut(string(text), ") ")
	return err != nil || strings.HasPrefix(rest, "Z") || strings.HasPrefix(rest, "X")
}

// probes bounds those without an answer.
const probes = 4

// probe asks cold functions, four times a second, until one answers, and returns when.
func (b *box) probe(t *testing.T, after time.Time) time.Time {
	t.Helper()
	answered := make(chan time.Time, 1)
	ctx, cancel := context.WithTimeout(t.Context(), probeLimit)
	defer cancel()
	var asked sync.WaitGroup
	defer asked.Wait()
	ticker := time.NewTicker(250 * time.Millisecond)
	defer ticker.Stop()
	places := make(chan struct{}, probes)
	for n := 0; ; n++ {
		select {
		case places <- struct{}{}:
			asked.Go(func() {
				defer func() { <-places }()
				if s := b.gen.Ask(context.WithoutCancel(ctx), b.probeStream(), n); s.OK() {
					select {
					case answered <- s.Answered():
					default:
					}
				}
			})
		default:
		}
		select {
		case first := <-answered:
			return first
		case <-ticker.C:
		case <-ctx.Done():
			require.Failf(t, "no cold request is answered", "in %s", time.Since(after))
		}
	}
}

// firstAnswer is the answered one that was sent first.
func firstAnswer(samples []traffic.Sample) (first traffic.Sample, ok bool) {
	for _, s := range samples {
		if s.OK() && (!ok || s.Sent.Before(first.Sent)) {
			first, ok = s, true
		}
	}
	return first, ok
}

// describe says what came of failed requests, and when they were sent.
func describe(failed []traffic.Sample, struck time.Time) string {
	if len(failed) == 0 {
		return ""
	}
	least, most := failed[0].Sent, failed[0].Sent
	for _, s := range failed {
		if s.Sent.Before(least) {
			least = s.Sent
		}
		if s.Sent.After(most) {
			most = s.Sent
		}
	}
	return fmt.Sprintf("%s, sent %s to %s after it", traffic.CausesText(traffic.Causes(failed)), short(least.Sub(struck)), short(most.Sub(struck)))
}
