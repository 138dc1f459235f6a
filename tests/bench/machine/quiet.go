package machine

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

const (
	// quietShare of the CPUs must have had nothing to do for quietFor before something is measured.
	quietShare, quietFor = 0.85, 2 * time.Second
	// look is the pause between two looks.
	look = 250 * time.Millisecond
	// stolenShare is what the machine below may take of the CPUs while something is measured.
	stolenShare = 0.02
)

// Noise is what else there was while something was measured.
type Noise struct {
	// Idle is the part of the CPUs' time that had nothing to do before it began.
	Idle float64 `json:"idle_before"`
	// Stolen is the part that a virtual machine did not get while it lasted.
	Stolen float64 `json:"stolen"`
	// Load is the load average at its end.
	Load string `json:"load"`
	// Noisy says that the figures are not to be trusted, and why; empty for quiet.
	Noisy string `json:"noisy,omitempty"`
}

// Times are the CPUs' times since the machine has started, in ticks.
type Times struct{ Total, Idle, Stolen uint64 }

// Now reads them.
func Now() (Times, error) {
	text, err := os.ReadFile("/proc/stat")
	if err != nil {
		return Times{}, err
	}
	return parseTimes(string(text))
}

// parseTimes reads the first line of /proc/stat (proc_stat(5)): user, nice, system, idle, iowait, irq, softirq, steal, guest, guest_nice.
// The last two are in user and nice already.
func parseTimes(text string) (t Times, err error) {
	line, _, _ := strings.Cut(text, "\n")
	fields := strings.Fields(line)
	if len(fields) < 9 || fields[0] != "cpu" {
		return t, fmt.Errorf("/proc/stat begins with %q", line)
	}
	for i, f := range fields[1:9] {
		n, err := strconv.ParseUint(f, 10, 64)
		if err != nil {
			return t, fmt.Errorf("/proc/stat: %w", err)
		}
		t.Total += n
		switch i {
		case 3, 4:
			t.Idle += n
		case 7:
			t.Stolen = n
		}
	}
	return t, nil
}

// Shares are the parts of idle and stolen time since o.
func (t Times) Shares(o Times) (idle, stolen float64) {
	if t.Total <= o.Total {
		return 1, 0
	}
	total := float64(t.Total - o.Total)
	return float64(t.Idle-o.Idle) / total, float64(t.Stolen-o.Stolen) / total
}

// AwaitQuiet waits until the machine has had next to nothing to do for 2 seconds, for at most limit.
func AwaitQuiet(ctx context.Context, limit time.Duration) (n Noise, err error) {
	var seen []Times
	window := int(quietFor/look) + 1
	ticker := time.NewTicker(look)
	defer ticker.Stop()
	for began := time.Now(); ; {
		now, err := Now()
		if err != nil {
			return n, err
		}
		if seen = append(seen, now); len(seen) > window {
			seen = seen[1:]
		}
		if len(seen) == window {
			if n.Idle, _ = now.Shares(seen[0]); n.Idle >= quietShare {
				return n, nil
			}
			if time.Since(began) >= limit {
				n.Noisy = fmt.Sprintf("only %.0f %% idle", 100*n.Idle)
				return n, nil
			}
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return n, ctx.Err()
		}
	}
}

// Settle waits until the machine has next to nothing to do for one look, for at most limit: what the sample before has left
// to be done in the background is not the next one's.
func Settle(ctx context.Context, limit time.Duration) error {
	for began := time.Now(); time.Since(began) < limit; {
		before, err := Now()
		if err != nil {
			return err
		}
		select {
		case <-time.After(look / 2):
		case <-ctx.Done():
			return ctx.Err()
		}
		now, err := Now()
		if err != nil {
			return err
		}
		if idle, _ := now.Shares(before); idle > quietShare {
			return nil
		}
	}
	return nil
}

// End completes what AwaitQuiet has said, when what began at since is over.
func (n *Noise) End(since Times) error {
	now, err := Now()
	if err != nil {
		return err
	}
	_, n.Stolen = now.Shares(since)
	if n.Stolen > stolenShare && n.Noisy == "" {
		n.Noisy = fmt.Sprintf("%.0f %% of the CPUs stolen", 100*n.Stolen)
	}
	text, err := os.ReadFile("/proc/loadavg")
	if fields := strings.Fields(string(text)); len(fields) > 2 {
		n.Load = strings.Join(fields[:3], " ")
	}
	return err
}
