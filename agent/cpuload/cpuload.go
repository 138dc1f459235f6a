// Package cpuload tells how much the functions of a box want the CPU: what they use of it, and how many threads of the machine could
// run at the same time. When functions use much and many could run, they wait for each other, and each further invocation makes all of
// them slower without a gain.
package cpuload

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"runtime"
	"strconv"
	"strings"
	"time"

	"github.com/edge-serverless-box/esb/agent"
)

const (
	// period is the time of one reading, in which the runnable threads are counted looks times when functions are busy.
	period = 200 * time.Millisecond
	looks  = 10
	// busy is what part of the machine's CPU functions use when there may be something to tell.
	busy = 0.25
	// after is how many readings are told when they are no longer busy: who listens sees that it is over.
	after = 50
)

// Meter reads. Used returns the CPU time of all functions together, since ever.
type Meter struct {
	Used   func() (time.Duration, error)
	Logger *slog.Logger
	// loadavg and cpus are the machine's; tests have others.
	loadavg string
	cpus    int
}

// Watch returns a channel that has a reading each 200 ms while functions are busy, and for some seconds after; it is closed when ctx
// ends. A reader that is slow misses some.
func (m Meter) Watch(ctx context.Context) <-chan agent.CPULoad {
	if m.loadavg == "" {
		m.loadavg = "/proc/loadavg"
	}
	if m.cpus == 0 {
		m.cpus = runtime.NumCPU()
	}
	c := make(chan agent.CPULoad, 1)
	go func() {
		defer close(c)
		if err := m.run(ctx, c); err != nil && ctx.Err() == nil {
			m.Logger.Warn("the functions' use of the CPU cannot be read: invocations are not held back when they want more than there is", "error", err)
		}
	}()
	return c
}

func (m Meter) run(ctx context.Context, c chan<- agent.CPULoad) error {
	ticker := time.NewTicker(period)
	defer ticker.Stop()
	used, err := m.Used()
	if err != nil {
		return err
	}
	at, left, fine := time.Now(), 0, false
	for {
		runnable, err := m.runnable(ctx, ticker, fine)
		if err != nil {
			return err
		}
		now := time.Now()
		usedNow, err := m.Used()
		if err != nil {
			return err
		}
		load := agent.CPULoad{
			CPUs: m.cpus, Functions: (usedNow - used).Seconds() / now.Sub(at).Seconds() / float64(m.cpus), Runnable: runnable / float64(m.cpus),
		}
		used, at = usedNow, now
		fineNow := load.Functions >= busy
		switch {
		case fineNow:
			left = after
		case left > 0:
			left--
		}
		if fine != (left > 0) {
			fine = left > 0
			if fine {
				ticker.Reset(period / looks)
				continue // counted once
			}
			ticker.Reset(period)
		}
		if left == 0 {
			continue
		}
		select {
		case c <- load:
		default:
		}
	}
}

// runnable waits for a period and returns how many threads could run in it, on average. It looks once when it is not asked for more.
func (m Meter) runnable(ctx context.Context, ticker *time.Ticker, fine bool) (float64, error) {
	n := 1
	if fine {
		n = looks
	}
	sum := 0
	for range n {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return 0, ctx.Err()
		}
		now, err := m.count()
		if err != nil {
			return 0, err
		}
		sum += now
	}
	return float64(sum) / float64(n), nil
}

// count is how many threads run or could, this one left out (proc_loadavg(5), the fourth field).
func (m Meter) count() (int, error) {
	text, err := os.ReadFile(m.loadavg)
	if err != nil {
		return 0, fmt.Errorf("count the runnable threads: %w", err)
	}
	fields := strings.Fields(string(text))
	if len(fields) < 4 {
		return 0, fmt.Errorf("count the runnable threads: %s has %d fields", m.loadavg, len(fields))
	}
	runnable, _, _ := strings.Cut(fields[3], "/")
	n, err := strconv.Atoi(runnable)
	if err != nil {
		return 0, fmt.Errorf("count the runnable threads: %s: %w", m.loadavg, err)
	}
	return max(n-1, 0), nil
}
