package agentclient

import (
	"context"
	"errors"
	"time"

	"github.com/edge-serverless-box/esb/gateway"
	"github.com/edge-serverless-box/esb/gateway/pool"
)

var _ pool.Inits = (*Client)(nil)

const (
	// initTimeout is how long a worker is asked, longer than lambda-init gives an init: one that is not over then has not failed either.
	initTimeout = 15 * time.Second
	// A worker is asked again after firstInitPause, doubled each time up to lastInitPause.
	firstInitPause, lastInitPause = 5 * time.Millisecond, 100 * time.Millisecond
)

// errInit is what a function without a process means, which was to have one.
var errInit = errors.New("its init has failed; the function's log says why")

// AwaitInit implements pool.Inits by the state that lambda-init tells. Without lambda-init nothing can be told.
func (c *Client) AwaitInit(ctx context.Context, w gateway.Worker) error {
	if w.Interface == gateway.RIE {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, initTimeout)
	defer cancel()
	for pause := firstInitPause; ; pause = min(2*pause, lastInitPause) {
		is, err := c.workerState(ctx, w, healthPath)
		switch {
		case err != nil && ctx.Err() != nil:
			return nil
		case err != nil:
			return gateway.Errorf(gateway.CodeUnavailable, "worker %s at %s does not say how its init went: %w", w.Name, w.Addr, err)
		case is.State == "standby" && is.Init == initTimedOut:
			return nil // it is done again with the first request, as on AWS
		case is.State == "standby":
			return gateway.Errorf(gateway.CodeUnavailable, "worker %s: %w", w.Name, errInit)
		case is.State != "init":
			return nil
		}
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return nil
		}
	}
}
