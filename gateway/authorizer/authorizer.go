// Package authorizer asks Lambda authorizers: functions that decide who may call a route. It builds their events, reads their
// answers (policies and simple ones), keeps answers for a while, and lets requests with the same identity share one call.
package authorizer

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"log/slog"
	"reflect"
	"regexp"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/edge-serverless-box/esb/gateway"
	"github.com/edge-serverless-box/esb/gateway/event"
	"github.com/edge-serverless-box/esb/guard/budget"
)

// callTimeout bounds a call that requests share, which ends with the last of them in any case (AWS: 30 s).
const callTimeout = 30 * time.Second

// unauthorized is the errorMessage with which a function asks for a 401 (AWS: throw "Unauthorized").
const unauthorized = "Unauthorized"

// Invoker calls functions; invoke.Invoker is the one of production.
type Invoker interface {
	Invoke(ctx context.Context, fn *gateway.Function, inv gateway.Invocation) (gateway.Result, error)
}

// Options of Authorizers. All are needed unless they say otherwise.
type Options struct {
	Invoker Invoker
	Events  *event.Builder
	// Region stands in the ARNs that policies name.
	Region string
	// Memory bounds what answers hold; nil does not.
	Memory *budget.Budget
	Logger *slog.Logger
	// Now is the clock; nil means time.Now.
	Now func() time.Time
}

// Authorizers ask the authorizers of each configuration, of which there is a Set. They are safe for concurrent use. Close ends
// the calls that are under way.
type Authorizers struct {
	invoker Invoker
	events  *event.Builder
	region  string
	memory  *budget.Budget
	log     *slog.Logger
	now     func() time.Time

	ctx   context.Context
	stop  context.CancelFunc
	calls sync.WaitGroup
}

// Set are the authorizers of the routes of one configuration. It is safe for concurrent use.
type Set struct {
	*Authorizers
	// states by authorizer; the map never changes.
	states map[*gateway.Authorizer]*state
}

// state is what belongs to one authorizer.
type state struct {
	authorizer *gateway.Authorizer
	validation *regexp.Regexp
	cache      *cache
}

// New returns Authorizers; Compile makes Sets of them.
func New(o Options) *Authorizers {
	a := &Authorizers{invoker: o.Invoker, events: o.Events, region: o.Region, memory: o.Memory, log: o.Logger, now: o.Now}
	if a.now == nil {
		a.now = time.Now
	}
	a.ctx, a.stop = context.WithCancel(context.Background())
	return a
}

// Close ends the calls under way and waits for them. No Authorize may run or follow.
func (a *Authorizers) Close() {
	a.stop()
	a.calls.Wait()
}

// Compile returns the authorizers of routes. One that has not changed since the Set before, nil for none, its function
// included, shares its cached answers.
func (a *Authorizers) Compile(routes []gateway.Route, before *Set) (*Set, error) {
	kept := make(map[string]*state)
	if before != nil {
		for _, s := range before.states {
			kept[s.authorizer.Name] = s
		}
	}
	set := &Set{Authorizers: a, states: make(map[*gateway.Authorizer]*state)}
	for i := range routes {
		spec := routes[i].Authorizer
		if spec == nil || set.states[spec] != nil {
			continue
		}
		s := &state{authorizer: spec, cache: newCache()}
		if spec.Validation != "" {
			var err error
			if s.validation, err = regexp.Compile(spec.Validation); err != nil {
				return nil, fmt.Errorf("authorizer %s: validation: %w", spec.Name, err)
			}
		}
		if old := kept[spec.Name]; old != nil && same(old.authorizer, spec) {
			s.cache = old.cache
		}
		set.states[spec] = s
	}
	return set, nil
}

// same says whether both would answer alike.
func same(a, b *gateway.Authorizer) bool {
	x, y := *a, *b
	x.Function, y.Function = nil, nil
	return reflect.DeepEqual(x, y) && a.Function.Name == b.Function.Name && a.Function.Generation == b.Function.Generation
}

// Authorize asks the authorizer of r's route, which must be one of those that the Set was compiled of. ctx carries the
// route's timeout. The errors:
//
//   - CodeUnauthorized: an identity source is missing or a token has the wrong form, and the function was not asked; or it
//     asked for a 401.
//   - CodeAccessDenied, CodeExplicitDeny: the answer does not allow the request; CodeForbidden for a route of an HTTP API.
//   - CodeAuthorizerFailure: the function failed. CodeAuthorizerConfiguration: its answer has a wrong shape.
//   - those of Invoker.Invoke when there was no worker or no time for it.
func (set *Set) Authorize(ctx context.Context, r *event.Request) (*gateway.Caller, error) {
	spec := r.Route.Authorizer
	caller, outcome, err := set.authorize(ctx, set.states[spec], r)
	requests.WithLabelValues(spec.Name, outcome).Inc()
	return caller, err
}

func (a *Authorizers) authorize(ctx context.Context, s *state, r *event.Request) (caller *gateway.Caller, outcome string, err error) {
	spec := s.authorizer
	identity := make([]string, len(spec.Identity))
	for i, source := range spec.Identity {
		if identity[i] = a.events.IdentityValue(r, source); identity[i] == "" {
			return nil, "unauthorized", gateway.Errorf(gateway.CodeUnauthorized, "authorizer %s: the request has no %s %s", spec.Name, source.Kind, source.Name)
		}
	}
	if s.validation != nil && !s.validation.MatchString(identity[0]) {
		return nil, "unauthorized", gateway.Errorf(gateway.CodeUnauthorized, "authorizer %s: the token does not match the expression of validation", spec.Name)
	}
	arn := a.events.ResourceARN(a.region, r)
	d, latency, cached, err := a.decide(ctx, s, r, arn, identity)
	if err != nil {
		return nil, string(gateway.ErrorCode(err)), err
	}
	switch v := d.on(arn); {
	case v == allow:
	case r.Route.HTTPAPI():
		return nil, "deny", gateway.Errorf(gateway.CodeForbidden, "authorizer %s denies %s", spec.Name, arn)
	case v == explicitDeny:
		return nil, "deny", gateway.Errorf(gateway.CodeExplicitDeny, "authorizer %s denies %s", spec.Name, arn)
	default:
		return nil, "deny", gateway.Errorf(gateway.CodeAccessDenied, "authorizer %s: no statement allows %s", spec.Name, arn)
	}
	if cached {
		return d.caller, "cached", nil
	}
	told := *d.caller
	told.AuthorizerLatency = latency
	return &told, "allow", nil
}

// decide finds the answer in the cache, joins a call under way, or makes one.
func (a *Authorizers) decide(ctx context.Context, s *state, r *event.Request, arn string, identity []string) (d *decision, latency time.Duration, cached bool, err error) {
	if s.authorizer.Cache <= 0 {
		d, latency, err = a.call(ctx, s.authorizer, r.TraceID, a.events.AppendAuthorizer(nil, r, s.authorizer, arn, identity))
		return d, latency, false, err
	}
	c, k := s.cache, digest(identity)
	c.mu.Lock()
	if d := c.get(k, a.now()); d != nil {
		c.mu.Unlock()
		return d, 0, true, nil
	}
	f, running := c.flights[k]
	if running {
		f.waiters++
		c.mu.Unlock()
		d, latency, err = c.wait(ctx, f)
		return d, latency, false, err
	}
	callCtx, cancel := context.WithTimeout(a.ctx, callTimeout)
	f = &flight{key: k, done: make(chan struct{}), waiters: 1, cancel: cancel}
	c.flights[k] = f
	c.mu.Unlock()
	payload := a.events.AppendAuthorizer(nil, r, s.authorizer, arn, identity)
	trace := r.TraceID
	a.calls.Go(func() {
		defer cancel()
		a.fly(callCtx, s, f, trace, payload)
	})
	d, latency, err = c.wait(ctx, f)
	return d, latency, false, err
}

// fly makes the call of f and hands its result to all who wait.
func (a *Authorizers) fly(ctx context.Context, s *state, f *flight, trace string, payload []byte) {
	defer func() {
		if p := recover(); p != nil {
			a.log.Error("panic while an authorizer was asked", "authorizer", s.authorizer.Name, "panic", p)
			f.decision, f.err = nil, gateway.Errorf(gateway.CodeInternal, "panic: %v", p)
		}
		s.cache.mu.Lock()
		s.cache.forget(f)
		if f.err == nil {
			s.cache.put(f.key, f.decision, a.now().Add(s.authorizer.Cache))
		}
		s.cache.mu.Unlock()
		close(f.done)
	}()
	f.decision, f.latency, f.err = a.call(ctx, s.authorizer, trace, payload)
}

// call invokes the function, with a request id of its own and the trace of the request.
func (a *Authorizers) call(ctx context.Context, spec *gateway.Authorizer, trace string, payload []byte) (*decision, time.Duration, error) {
	id := uuid.NewString()
	began := time.Now()
	held := a.memory.Claim("authorizer " + spec.Name)
	defer held.Release()
	result, err := a.invoker.Invoke(ctx, spec.Function, gateway.Invocation{RequestID: id, TraceID: trace, Payload: payload, Memory: &held})
	latency := time.Since(began)
	durations.WithLabelValues(spec.Name).Observe(latency.Seconds())
	if err != nil {
		switch gateway.ErrorCode(err) {
		case gateway.CodeCanceled, gateway.CodeIntegrationTimeout, gateway.CodeThrottled, gateway.CodeUnavailable:
			return nil, latency, err
		}
		return nil, latency, gateway.Errorf(gateway.CodeAuthorizerFailure, "authorizer %s: request %s: %w", spec.Name, id, err)
	}
	if result.TimedOut {
		return nil, latency, gateway.Errorf(gateway.CodeAuthorizerFailure, "authorizer %s: request %s: function %s ran past its timeout", spec.Name, id, spec.Function.Name)
	}
	if result.FunctionError != "" {
		var failure struct {
			Message string `json:"errorMessage"`
		}
		if json.Unmarshal(result.Payload, &failure) == nil && failure.Message == unauthorized {
			return nil, latency, gateway.Errorf(gateway.CodeUnauthorized, "authorizer %s: request %s: function %s answered %s", spec.Name, id, spec.Function.Name, unauthorized)
		}
		return nil, latency, gateway.Errorf(gateway.CodeAuthorizerFailure, "authorizer %s: request %s: function %s failed: %.200s",
			spec.Name, id, spec.Function.Name, strings.ToValidUTF8(failure.Message, "?"))
	}
	d, err := parseAnswer(spec, result.Payload)
	if err != nil {
		return nil, latency, gateway.Errorf(gateway.CodeAuthorizerConfiguration, "authorizer %s: request %s: %w", spec.Name, id, err)
	}
	return d, latency, nil
}

// digest is the same for the same values only: each goes in with its length.
func digest(identity []string) key {
	h := sha256.New()
	var n [8]byte
	for _, s := range identity {
		binary.BigEndian.PutUint64(n[:], uint64(len(s)))
		_, _ = h.Write(n[:])
		_, _ = h.Write([]byte(s))
	}
	return key(h.Sum(nil))
}

var (
	requests = promauto.NewCounterVec(prometheus.CounterOpts{
		Name: "esb_authorizer_requests_total",
		Help: "Requests that Lambda authorizers decided, by authorizer and outcome: allow, cached, deny, unauthorized, or the code of an error.",
	}, []string{"authorizer", "outcome"})
	durations = promauto.NewHistogramVec(prometheus.HistogramOpts{
		Name:    "esb_authorizer_duration_seconds",
		Help:    "Time of the calls of Lambda authorizers; cached answers are not in it.",
		Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30},
	}, []string{"authorizer"})
)
