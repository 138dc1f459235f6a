// Package sweep runs what deletes from time to time what has expired in a store.
package sweep

import (
	"context"
	"log/slog"
	"time"
)

// Loop runs a sweep until Close.
type Loop struct {
	cancel context.CancelFunc
	done   chan struct{}
}

// Start returns a Loop that runs sweep at once, so that a machine that is off at night does so too, and then interval after each
// end. what names, for the log, the things that sweep deletes; sweep returns how many it has deleted, also beside an error.
func Start(sweep func(context.Context) (deleted int, err error), what string, interval time.Duration, log *slog.Logger) *Loop {
	ctx, cancel := context.WithCancel(context.Background())
	l := &Loop{cancel: cancel, done: make(chan struct{})}
	go func() {
		defer close(l.done)
		for {
			deleted, err := sweep(ctx)
			if ctx.Err() != nil {
				return
			}
			if err != nil {
				log.Warn("not all that has expired could be deleted; the next sweep tries again", "what", what, "error", err, "deleted", deleted)
			} else if deleted > 0 {
				log.Info("deleted what has expired", "what", what, "deleted", deleted)
			}
			select {
			case <-ctx.Done():
				return
			case <-time.After(interval):
			}
		}
	}()
	return l
}

// Close ends the Loop, and a sweep that is running, and waits for that.
func (l *Loop) Close() error {
	l.cancel()
	<-l.done
	return nil
}
