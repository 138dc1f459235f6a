package pool

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/edge-serverless-box/esb/api/reason"
	"github.com/edge-serverless-box/esb/gateway"
)

// An agent that starts again, because its settings or its program have changed or because it has died, is back within some seconds.
// Whoever needs it meanwhile, for a cold start, for a frozen worker, or for the first look at what there is, waits on instead of being
// refused. One that stays away is found out once, for all: from then on requests are told as soon as it has been asked.

const (
	// awayPatience is how long after the agent was first found to be away requests wait for it.
	awayPatience = 5 * time.Second
	// awayPause is between two attempts meanwhile.
	awayPause = 200 * time.Millisecond
)

// away is since when the agent is away. The zero value is one that is there.
type away struct {
	mu    sync.Mutex
	since time.Time
}

// patient is told that the agent could not be asked, and says whether it is waited for.
func (a *away) patient(now time.Time) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.since.IsZero() {
		a.since = now
	}
	return now.Sub(a.since) < awayPatience
}

// over is told that the agent has answered.
func (a *away) over() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.since = time.Time{}
}

// isAway says whether err is that the agent cannot be asked.
func isAway(err error) bool {
	var known *gateway.Error
	return errors.As(err, &known) && known.Reason == reason.AgentAway
}

// awaits is told of every outcome of a call of the agent for which somebody waits, and says whether another attempt is.
func (m *Manager) awaits(err error) bool {
	if isAway(err) {
		return m.away.patient(time.Now())
	}
	if err == nil {
		m.away.over()
	}
	return false
}

// pauseFor waits for d; it is false when ctx has ended before.
func pauseFor(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
