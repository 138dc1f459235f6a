package invoke

import (
	"errors"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/edge-serverless-box/esb/api/reason"
	"github.com/edge-serverless-box/esb/gateway"
	"github.com/edge-serverless-box/esb/gateway/pool"
	"github.com/sony/gobreaker/v2"
)

// breaker is the circuit of one function in one generation. It counts infrastructure failures in a row and is
// asked before a worker is acquired, so that an open circuit starts no containers.
type breaker struct {
	cb         *gobreaker.TwoStepCircuitBreaker[struct{}]
	function   string
	generation string
	openFor    time.Duration
	// openedAt is when the circuit opened last, nil for never: gobreaker does not tell.
	openedAt atomic.Pointer[time.Time]
	// evidence is the failure that was counted last. One failed start answers every request that waited for it;
	// it is evidence of one failure all the same.
	evidence atomic.Pointer[pool.StartError]
}

// breaker returns the circuit of fn; a new generation, by its code or image too, begins with a closed one.
func (i *Invoker) breaker(fn *gateway.Function) *breaker {
	generation := i.pool.Generation(fn)
	i.mu.RLock()
	b := i.breakers[fn.Name]
	i.mu.RUnlock()
	if b != nil && b.generation == generation {
		return b
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	if b = i.breakers[fn.Name]; b == nil || b.generation != generation {
		b = newBreaker(fn.Name, generation, i.opts, i.log)
		i.breakers[fn.Name] = b
	}
	return b
}

func newBreaker(function, generation string, opts Options, log *slog.Logger) *breaker {
	b := &breaker{function: function, generation: generation, openFor: opts.BreakerOpenFor}
	b.cb = gobreaker.NewTwoStepCircuitBreaker[struct{}](gobreaker.Settings{
		Name:         function,
		MaxRequests:  1,
		Timeout:      opts.BreakerOpenFor,
		ReadyToTrip:  func(c gobreaker.Counts) bool { return c.ConsecutiveFailures >= uint32(opts.BreakerFailures) },
		IsSuccessful: func(err error) bool { return err == nil },
		IsExcluded:   b.excluded,
		OnStateChange: func(name string, from, to gobreaker.State) {
			if to == gobreaker.StateOpen {
				now := time.Now()
				b.openedAt.Store(&now)
			}
			log.Warn("circuit breaker changed", "function", name, "from", from.String(), "to", to.String())
		},
	})
	return b
}

// allow asks for leave to invoke; done must be told how it ended, and connected, when it is not nil, when a worker is connected.
// The error is CodeUnavailable, with the time until the circuit lets a probe through.
func (b *breaker) allow() (connected func(), done func(error), err error) {
	done, err = b.cb.Allow()
	if err == nil {
		if b.cb.State() == gobreaker.StateHalfOpen {
			connected, done = b.probe(done)
		}
		return connected, done, nil
	}
	refused := gateway.Errorf(gateway.CodeUnavailable, "function %s: circuit breaker: %w", b.function, err)
	var known *gateway.Error
	if start := b.evidence.Load(); start != nil && errors.As(start, &known) {
		// What opened it is what callers are told: a missing image is no passing trouble because it was asked for five times.
		refused.Reason, refused.Permanent = known.Reason, known.Permanent
	}
	refused.RetryAfter = time.Second // a probe is under way
	if at := b.openedAt.Load(); at != nil && errors.Is(err, gobreaker.ErrOpenState) {
		// Whatever is done to the wall clock: the time has a monotonic part.
		refused.RetryAfter = max(time.Until(at.Add(b.openFor)), time.Second)
	}
	return nil, nil, refused
}

// probe is allow's answer for a probe, whose own answer is done. The circuit is about the box: the probe has succeeded when a
// worker is connected, however long its function runs, and what comes of that counts as any other invocation's.
func (b *breaker) probe(done func(error)) (connected func(), ended func(error)) {
	connected = func() {
		if done != nil {
			done(nil)
			done = nil
		}
	}
	return connected, func(err error) {
		if done == nil {
			if b.cb.State() != gobreaker.StateClosed {
				return // opened again by others, whose own probe closes it
			}
			var refused error
			if done, refused = b.cb.Allow(); refused != nil {
				return // opened again by others
			}
		}
		done(err)
	}
}

// excluded is true for errors that say nothing about the box: throttled requests, clients that left, timeouts, starts
// that were not tried because the code is not known yet, and a failed start that was counted already. So are those for which the
// agent or its containerd was away: that they are back is known at once, and nothing is to be refused then. A nil error is a success:
// function errors and function timeouts come from workers that work.
func (b *breaker) excluded(err error) bool {
	if err == nil {
		return false
	}
	var known *gateway.Error
	if errors.As(err, &known) && (known.NotTried || known.Reason == reason.AgentAway) {
		return true
	}
	var start *pool.StartError
	if errors.As(err, &start) {
		return b.evidence.Swap(start) == start
	}
	if gateway.ErrorCode(err) != gateway.CodeTransport {
		return true
	}
	b.evidence.Store(nil)
	return false
}
