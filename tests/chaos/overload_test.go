package chaos

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/edge-serverless-box/esb/tests/stack"
	"github.com/edge-serverless-box/esb/tests/traffic"
)

const (
	// workBody keeps a worker for a while in which it needs no CPU.
	workBody = `{"action":"sleep","ms":20}`
	// goodput is what part of the peak an overloaded box must serve, refusalLimit how fast it refuses the rest, and slower how many times
	// as long a function that is hardly asked may take meanwhile: where the machine does nothing else.
	goodput, refusalLimit, slower = 0.9, 100 * time.Millisecond, 3
	// quietLeast is what a quiet function may take in any case.
	quietLeast = 20 * time.Millisecond
	// rssLimit is what the gateway may hold: half of what the bodies and answers of all requests may take by default.
	rssLimit = 512
)

// runOverload asks one function, and then all of a crowd, for twice what they can answer.
func runOverload(t *testing.T, b *box, a *account) {
	for _, c := range []struct {
		name      string
		functions int
		lasts     time.Duration
	}{
		{"overload of one function", 1, 8 * time.Second},
		{fmt.Sprintf("overload of %d functions", crowdFunctions), crowdFunctions, 15 * time.Second},
	} {
		t.Run(c.name, func(t *testing.T) {
			b.overload(t, a.open(t, c.name), c.functions, a.plan.lasts(c.lasts, 3*time.Second, 30*time.Second))
			b.mustRest(t)
		})
	}
}

func (b *box) overload(t *testing.T, p *part, functions int, lasts time.Duration) {
	crowd := b.written(t, traffic.Stream{Name: "crowd", Request: b.post(crowdName, workBody)}, functions)
	clients := 2 * functions * crowdWorkers
	open := func(streams ...traffic.Stream) (from, until time.Time, rss int) {
		from = time.Now()
		stop := b.send(t, streams...)
		defer stop()
		gateway := b.pids(t, "gateway")
		require.Len(t, gateway, 1)
		ticker := time.NewTicker(100 * time.Millisecond)
		defer ticker.Stop()
		for until = from; until.Sub(from) < lasts; until = <-ticker.C {
			rss = max(rss, residentMB(gateway[0]))
		}
		return from, until, rss
	}
	from, until, _ := open(b.quietStream())
	alone := b.gen.Samples("quiet", from, until)
	// All workers are started first.
	ctx, cancel := context.WithCancel(t.Context())
	started := make(chan []traffic.Sample, 1)
	go func() { started <- b.gen.Closed(ctx, clients, crowd) }()
	stack.Eventually(t, func() bool {
		pools, err := b.pools(t.Context())
		n := 0
		for _, one := range pools {
			if strings.HasPrefix(one.Function, "crowd") {
				n += one.Idle + one.Busy
			}
		}
		return err == nil && n == functions*crowdWorkers
	}, "the workers must be there")
	cancel()
	p.count(<-started)

	ctx, cancel = context.WithTimeout(t.Context(), lasts/3)
	defer cancel()
	left := cpuLeft()
	samples := b.gen.Closed(ctx, clients, crowd)
	leftAtPeak := left()
	p.count(samples)
	most := float64(len(samples) - len(traffic.Failed(samples)))
	require.Positive(t, most)
	peak := most / (lasts / 3).Seconds()
	crowd.Rate = 2 * peak
	left = cpuLeft()
	from, until, rss := open(b.quietStream(), crowd) // while the workers are still there: what is asked too much costs, not what is started
	leftNow := left()
	end := b.mustSettle(t)

	all := b.gen.Samples("crowd", from, end)
	p.count(all)
	p.count(b.gen.Samples("quiet", from, end))
	inTime, refused, notSent := 0, 0, 0
	wrong := map[string]int{}
	for _, s := range all {
		switch {
		case s.OK():
			if s.Answered().Before(until) {
				inTime++
			}
		case errors.Is(s.Err, traffic.ErrNotSent):
			notSent++ // the machine is so slow that the generator cannot go on
		case s.Err == nil && (s.Status == http.StatusTooManyRequests || s.Status == http.StatusServiceUnavailable || s.Status == http.StatusGatewayTimeout):
			refused++
		default:
			wrong[s.Cause()]++
		}
	}
	// A gateway that gets no CPU cannot read a request in time.
	p.target(t, len(wrong) == 0, "requests are answered, or refused by 429, 503 or 504: %s", traffic.CausesText(wrong))
	share := float64(inTime) / until.Sub(from).Seconds() / peak
	p.measure("peak %.0f/s, asked %.0f/s", peak, 2*peak)
	if notSent > 0 {
		p.measure("%d not sent", notSent)
	}
	p.measure("answered %.0f %% of the peak", 100*share)
	// The clients run on the same CPUs, and twice as many requests cost them twice as much: that is not the box's.
	share = float64(inTime) / leftNow.Seconds() / (most / leftAtPeak.Seconds())
	p.measure("%.0f %% for the CPU that clients left", 100*share)
	p.target(t, share >= goodput, "%.0f %% of the peak were answered for the CPU that clients left", 100*share)
	p.within(t, fmt.Sprintf("%d refusals p99", refused), traffic.QuantileOf(all, http.StatusTooManyRequests, 0.99), refusalLimit)
	beside := b.gen.Samples("quiet", from, end)
	before := traffic.Quantile(alone, 0.99)
	p.measure("quiet p99 alone %s", short(before))
	p.within(t, "beside", traffic.Quantile(beside, 0.99), max(slower*before, quietLeast))
	quietFailed := traffic.Failed(beside)
	// One whose only worker gets no CPU waits in a line that has a bound, too.
	p.target(t, len(quietFailed) == 0, "%d quiet requests failed: %s", len(quietFailed), describe(quietFailed, from))
	p.measure("gateway at most %d MiB", rss)
	p.target(t, rss < rssLimit, "the gateway had %d MiB", rss)
}

// written is a stream whose first n requests are written beforehand: the CPUs are for what answers them.
func (b *box) written(t *testing.T, s traffic.Stream, n int) traffic.Stream {
	t.Helper()
	for i := range n {
		r, err := s.Request(t.Context(), i)
		require.NoError(t, err)
		text, err := traffic.Write(r)
		require.NoError(t, err)
		s.Texts, s.Addr = append(s.Texts, text), r.URL.Host
	}
	return s
}

// cpuLeft begins to count the CPU time that this process, which has the clients, leaves to all others; the returned function ends it.
func cpuLeft() func() time.Duration {
	used := func() time.Duration {
		var u syscall.Rusage
		if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
			return 0
		}
		return time.Duration(u.Utime.Nano() + u.Stime.Nano())
	}
	began, before := time.Now(), used()
	return func() time.Duration { return time.Since(began)*time.Duration(runtime.NumCPU()) - (used() - before) }
}

// residentMB is the memory of a process; 0 of one that is gone.
func residentMB(pid int) int {
	text, err := os.ReadFile(filepath.Join("/proc", fmt.Sprint(pid), "statm"))
	if err != nil {
		return 0
	}
	var size, resident int
	_, _ = fmt.Sscan(string(text), &size, &resident)
	return resident * os.Getpagesize() >> 20
}
