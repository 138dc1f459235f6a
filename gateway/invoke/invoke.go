// Package invoke carries one invocation to a worker and its answer back: it asks the function's circuit breaker,
// borrows a worker, speaks the worker contract (docs/lambda-init.md, or the Runtime Interface Emulator's) and
// decides from what happened whether the worker may serve again.
package invoke

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/edge-serverless-box/esb/gateway"
	"github.com/edge-serverless-box/esb/gateway/cpugate"
	"github.com/edge-serverless-box/esb/gateway/pool"
	"github.com/edge-serverless-box/esb/guard/rawconn"
	"github.com/sony/gobreaker/v2"
)

const (
	// MaxResult is the largest result in bytes (AWS: 6 MB and 100 bytes).
	MaxResult = gateway.MaxEvent + 100
	// initLimit is how long a function may take to initialize (AWS: 10 s), which is not counted in its timeout.
	initLimit = 10 * time.Second
	// guardMargin is how much later than lambda-init the gateway ends an invocation that ran past its timeout: lambda-init
	// answers when the sandbox is reset, for which extensions have 2 s, processes 4 s to end, and their last lines half a second.
	guardMargin = 7 * time.Second
	// dialTimeout bounds a connection to a worker, which listens already.
	dialTimeout = 3 * time.Second
	// maxWorkers is how many workers an invocation tries when those it got cannot even be reached.
	maxWorkers = 3
)

// Defaults of Options.
const (
	DefaultBreakerFailures = 5
	DefaultBreakerOpenFor  = 10 * time.Second
)

// Options of an Invoker. Zero values mean the defaults.
type Options struct {
	// BreakerFailures is how many infrastructure failures in a row open the circuit of a function
	// (CIRCUIT_BREAKER_FAILURES).
	BreakerFailures int
	// BreakerOpenFor is how long an open circuit refuses requests before it lets one through as a probe
	// (CIRCUIT_BREAKER_OPEN_SECONDS).
	BreakerOpenFor time.Duration
	// StreamLimit is the most bytes of a streamed result (GATEWAY_STREAM_LIMIT_MB). Default: DefaultStreamLimit.
	StreamLimit int64
	// EndWithCaller ends an invocation, and its worker, when its caller leaves or the route's timeout passes
	// (INVOCATION_OUTLIVES_CLIENT=false). Else it runs to its end, as on AWS.
	EndWithCaller bool
	// CPU holds invocations back while functions want more CPU than there is (INVOCATION_CPU_TURNS); nil holds none back.
	CPU *cpugate.Gate
	// Logger gets a line when a worker is condemned or a circuit changes. Default: slog.Default().
	Logger *slog.Logger
}

// Invoker invokes functions on the workers of a pool. Connections belong to the workers, and the pool closes them, which ends
// what the Invoker still runs; Wait, after that, sees its end.
type Invoker struct {
	pool *pool.Manager
	opts Options
	log  *slog.Logger
	dial func(ctx context.Context, network, addr string) (net.Conn, error)
	// late counts the goroutines that see to invocations whose callers have their answer, or have left.
	late sync.WaitGroup

	// counts has a *counted for each function.
	counts sync.Map
	// mu guards breakers, by function.
	mu       sync.RWMutex
	breakers map[string]*breaker
}

// New returns an Invoker that takes its workers from p.
func New(p *pool.Manager, opts Options) *Invoker {
	if opts.BreakerFailures <= 0 {
		opts.BreakerFailures = DefaultBreakerFailures
	}
	if opts.BreakerOpenFor <= 0 {
		opts.BreakerOpenFor = DefaultBreakerOpenFor
	}
	if opts.StreamLimit <= 0 {
		opts.StreamLimit = DefaultStreamLimit
	}
	if opts.Logger == nil {
		opts.Logger = slog.Default()
	}
	return &Invoker{
		pool: p, opts: opts, log: opts.Logger,
		dial:     dial,
		breakers: make(map[string]*breaker),
	}
}

func dial(ctx context.Context, network, addr string) (net.Conn, error) {
	conn, err := (&net.Dialer{Timeout: dialTimeout}).DialContext(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	return rawconn.New(conn), nil
}

// Wait returns when all has ended that outlived its caller. The pool must be closed: it is what ends it.
func (i *Invoker) Wait() { i.late.Wait() }

// Invoke runs fn once with inv. ctx carries the route's timeout as its deadline and ends when the client leaves. A function
// that works by then runs on to its end, for at most its own timeout; its answer is dropped, and its worker is busy until
// then (AWS does not stop a function whose caller has left). Neither inv.Payload nor inv.Memory is used once Invoke has
// returned. A function that fails or runs past its own timeout is a Result with FunctionError, not an error. The errors:
//
//   - CodeTooLarge: the event is over gateway.MaxEvent. CodeInvalid: the worker contract does not allow the value of a header.
//   - CodeThrottled, CodeUnavailable: as pool.Manager.Acquire; CodeUnavailable too while the circuit is open.
//   - CodeIntegrationTimeout, CodeCanceled: ctx has ended, by its deadline or otherwise.
//   - CodeUnavailable, Busy: the function ran, and there was no memory for its result (Invocation.Memory).
//   - CodeTransport: the worker could not be reached, broke off, or did not keep to the contract.
func (i *Invoker) Invoke(ctx context.Context, fn *gateway.Function, inv gateway.Invocation) (gateway.Result, error) {
	began := time.Now()
	res, err := i.guarded(ctx, fn, inv, nil)
	i.count(fn.Name, outcome(res, err), time.Since(began))
	return res, err
}

// guarded asks the circuit first. The result goes to to when that is not nil, and the worker streams.
func (i *Invoker) guarded(ctx context.Context, fn *gateway.Function, inv gateway.Invocation, to *sink) (res gateway.Result, err error) {
	if len(inv.Payload) > gateway.MaxEvent {
		return res, gateway.Errorf(gateway.CodeTooLarge, "function %s: event of %d bytes, at most %d are allowed", fn.Name, len(inv.Payload), gateway.MaxEvent)
	}
	for _, h := range [...]struct{ name, value string }{{"request id", inv.RequestID}, {"trace id", inv.TraceID}, {"client context", inv.ClientContext}, {"qualifier", inv.Qualifier}} {
		if !plain(h.value) {
			return res, gateway.Errorf(gateway.CodeInvalid, "function %s: %s holds a control character", fn.Name, h.name)
		}
	}
	b := i.breaker(fn)
	connected, done, err := b.allow()
	if err != nil {
		return res, err
	}
	// Reported also when this goroutine panics: a probe that never reports keeps the circuit half open for ever.
	err = errAbandoned
	defer func() { done(err) }()
	res, err = i.onWorkers(ctx, fn, inv, to, connected)
	return res, err
}

// plain says whether s has no control characters.
func plain(s string) bool {
	for i := range len(s) {
		if s[i] < ' ' || s[i] == 0x7f {
			return false
		}
	}
	return true
}

// errAbandoned is what the breaker is told of an invocation that panicked: it is not counted.
var errAbandoned = gateway.Errorf(gateway.CodeInternal, "the invocation was abandoned")

// onWorkers invokes on one worker, and on another one only when it is certain that the first never saw the
// invocation. connected, when it is not nil, is called when one of them is connected.
func (i *Invoker) onWorkers(ctx context.Context, fn *gateway.Function, inv gateway.Invocation, to *sink, connected func()) (gateway.Result, error) {
	// It waits for a worker and for its turn within one acquire_timeout.
	began := time.Now()
	for tried := 1; ; tried++ {
		lease, err := i.pool.Acquire(ctx, fn, inv.RequestID)
		if err != nil {
			return gateway.Result{}, err
		}
		if err := i.opts.CPU.Enter(ctx, fn.Name, fn.Scaling.AcquireTimeout-time.Since(began), inv.Inner); err != nil {
			lease.GiveUp()
			return gateway.Result{}, notEntered(ctx, fn, err)
		}
		res, err := i.onWorker(ctx, fn, &inv, lease, to, connected)
		var unreached *unreachedError
		if err == nil || !errors.As(err, &unreached) || tried == maxWorkers || ctx.Err() != nil {
			return res, err
		}
	}
}

// notEntered says why an invocation that had a worker did not begin.
func notEntered(ctx context.Context, fn *gateway.Function, err error) error {
	if ctx.Err() != nil {
		return contextError(ctx, fn.Name)
	}
	out := gateway.Errorf(gateway.CodeUnavailable, "function %s: %w", fn.Name, err)
	out.Busy, out.RetryAfter = true, time.Second
	return out
}

// run is one invocation on one worker. It belongs to its caller's goroutine, and to one of the Invoker's from when the caller
// has left on.
type run struct {
	invoker   *Invoker
	fn        *gateway.Function
	lease     *pool.Lease
	worker    gateway.Worker
	link      *link
	requestID string
	began     time.Time
	// guard is when it ends whatever happens.
	guard time.Time
	// fault is why the worker may not serve again, empty when it may; working says that its extensions still are.
	fault   string
	working bool
	// late says that its caller has left.
	late bool
}

// onWorker invokes on the worker of lease, and ends the lease: now, or when the function has ended that its caller does not
// wait for.
func (i *Invoker) onWorker(ctx context.Context, fn *gateway.Function, inv *gateway.Invocation, lease *pool.Lease, to *sink, connected func()) (res gateway.Result, err error) {
	r := run{invoker: i, fn: fn, lease: lease, worker: lease.Worker(), requestID: inv.RequestID, fault: "invocation panicked"}
	goesOn := false
	defer func() {
		if !goesOn {
			r.end()
		}
	}()
	if lease.Cold() {
		coldStarts.WithLabelValues(fn.Name).Inc()
	}
	r.link, _ = lease.Attachment().(*link)
	if r.link == nil {
		r.link = &link{addr: r.worker.Addr, container: r.worker.ID, dial: i.dial}
		lease.Attach(r.link)
	}
	r.link.connected = connected
	// lambda-init ends invocations itself, and only it knows whether this one has to wait for an init: any can, when
	// the process has died meanwhile. RIE says nothing at its timeout that is not known here by then.
	limit := fn.Timeout + initLimit + guardMargin
	if r.worker.Interface == gateway.RIE {
		limit = fn.Timeout
		if lease.Cold() {
			limit += initLimit
		}
	}
	r.began = time.Now()
	r.guard = r.began.Add(limit)
	// What the function is told it has, it has: its own timeout, unless it ends with its caller.
	deadline, cut := r.began.Add(fn.Timeout), false
	tied := inv.EndsWithCaller || i.opts.EndWithCaller
	if tied {
		if end, ok := ctx.Deadline(); ok && end.Before(deadline) {
			deadline, cut = end, true
		}
	}
	rep, err := r.link.roundTrip(ctx, r.guard, inv, deadline, to != nil, tied)
	switch {
	case errors.Is(err, errLeft) && !tied:
		goesOn = true
		i.late.Go(r.kept().goOn)
		return res, contextError(ctx, fn.Name)
	case err == nil && rep.streamed:
		if rep, goesOn, err = r.stream(ctx, rep, to, tied); goesOn {
			return res, err
		}
	}
	res, err = r.outcome(ctx, rep, err, to)
	if cut && res.TimedOut {
		// lambda-init's clock has struck before this one.
		return gateway.Result{}, gateway.Errorf(gateway.CodeIntegrationTimeout, "function %s: the route's timeout passed before it answered", fn.Name)
	}
	return res, err
}

// kept returns a copy for another goroutine; r itself stays on its caller's stack.
func (r *run) kept() *run {
	k := *r
	return &k
}

// outcome says what came of the invocation, and whether the worker may serve again (fault). ctx is its caller's.
func (r *run) outcome(ctx context.Context, rep reply, err error, to *sink) (res gateway.Result, _ error) {
	fn, w, elapsed := r.fn, r.worker, time.Since(r.began)
	left := ctx.Err() != nil
	if err != nil {
		if res, why, out := r.streamFailed(ctx, to, err, elapsed); why != "" {
			r.fault = why
			return res, out
		}
	}
	var unreached *unreachedError
	switch {
	case err == nil:
	case left && errors.As(err, &unreached):
		// Nothing was sent: whoever comes next may find it well.
		r.fault = ""
		return res, contextError(ctx, fn.Name)
	case left:
		err := contextError(ctx, fn.Name)
		r.fault = string(err.Code)
		return res, err
	case errors.Is(err, errGuard):
		r.fault = "function timeout, and no answer from the worker"
		return timedOut(fn, r.requestID), nil
	case errors.Is(err, errTooLarge):
		r.fault = "answer over the limit"
		return functionError("Function.ResponseSizeTooLarge",
			"Response payload size exceeded maximum allowed payload size ("+strconv.Itoa(MaxResult)+" bytes)."), nil
	default:
		r.fault = "transport: " + err.Error()
		return res, gateway.Errorf(gateway.CodeTransport, "function %s: worker %s at %s: %w", fn.Name, w.Name, w.Addr, err)
	}

	if w.Interface == gateway.RIE {
		res, r.fault, err = interpretRIE(fn, r.requestID, rep, elapsed)
	} else {
		res, r.fault, err = interpret(rep)
		r.working = rep.header.extensions != ""
	}
	switch {
	case err == nil && rep.noRoom && left:
		return gateway.Result{}, contextError(ctx, fn.Name)
	case err == nil && rep.noRoom && !r.late:
		return gateway.Result{}, errNoRoom(fn.Name)
	}
	var known *gateway.Error
	if err != nil && !errors.As(err, &known) {
		err = gateway.Errorf(gateway.CodeTransport, "function %s: worker %s at %s: %w", fn.Name, w.Name, w.Addr, err)
	}
	return res, err
}

// goOn waits for the end of an invocation whose caller has left while the function worked.
func (r *run) goOn() {
	rep, err := r.link.rest(r.guard)
	r.endLate(rep, err)
}

// endLate ends an invocation whose caller has left. Its answer is dropped.
func (r *run) endLate(rep reply, err error) {
	r.late = true
	res, err := r.outcome(context.Background(), rep, err, nil)
	end := outcome(res, err)
	outlived.WithLabelValues(r.fn.Name, end).Inc()
	r.invoker.log.Info("invocation ended after its caller had left", "function", r.fn.Name, "request_id", r.requestID,
		"container_id", r.worker.ID, "outcome", end, "duration_ms", time.Since(r.began).Milliseconds())
	r.end()
}

// end gives the worker back, or up.
func (r *run) end() {
	switch {
	case r.fault == "" && r.working:
		r.invoker.late.Go(r.kept().releaseLater)
	case r.fault == "":
		r.release()
	default:
		r.condemn(r.fault, nil)
	}
}

func (r *run) release() {
	if r.lease.Release() {
		r.invoker.opts.CPU.Leave(r.fn.Name)
	}
}

func (r *run) condemn(reason string, cause error) {
	if r.lease.Condemn(reason) {
		r.invoker.opts.CPU.Leave(r.fn.Name)
	}
	attrs := []any{"function", r.fn.Name, "request_id", r.requestID, "container_id", r.worker.ID, "reason", reason}
	if cause != nil {
		attrs = append(attrs, "error", cause.Error())
	}
	r.invoker.log.Warn("worker condemned", attrs...)
}

// releaseLater gives a worker back when its extensions have done with the invocation that the function has answered: it is
// free then, and no sooner. It ends with the lease, whose connection the pool closes when it takes the worker away.
func (r *run) releaseLater() {
	if err := r.link.settle(time.Now().Add(r.fn.Timeout + guardMargin)); err != nil {
		r.condemn("extensions did not end their work", err)
		return
	}
	r.release()
}

// errNoRoom: the function has run, and the gateway's memory has no room for what it answered.
func errNoRoom(function string) error {
	err := gateway.Errorf(gateway.CodeUnavailable, "function %s: no memory for its result within %v: too much is in flight", function, roomWait)
	err.Busy, err.RetryAfter = true, time.Second
	return err
}

func contextError(ctx context.Context, function string) *gateway.Error {
	return gateway.Left(ctx, "before function "+function+" answered")
}

// outcome names what happened, for the metric.
func outcome(res gateway.Result, err error) string {
	switch {
	case errors.Is(err, gobreaker.ErrOpenState), errors.Is(err, gobreaker.ErrTooManyRequests):
		return "circuit_open"
	case err != nil:
		return string(gateway.ErrorCode(err))
	case res.TimedOut:
		return "timeout"
	case res.FunctionError != "":
		return "function_error"
	default:
		return outcomeOK
	}
}

const outcomeOK = "ok"

// Headers of the worker contract.
const (
	headerFunctionError = "X-Amz-Function-Error"
	headerReset         = "X-Esb-Sandbox-Reset"
	headerSpoilt        = "X-Esb-Sandbox-Spoilt"
	headerInitDuration  = "X-Esb-Init-Duration-Ms"
	headerLogResult     = "X-Amz-Log-Result"
	headerExtensions    = "X-Esb-Extensions"
	headerContainer     = "X-Esb-Container-Id"
	headerQualifier     = "X-Esb-Qualifier"
)

// interpret makes the result of what lambda-init answered (docs/lambda-init.md). fault, when not empty, is why the
// worker may not serve again; err, why there is no result. A function that ran past its timeout is no fault: lambda-init has
// ended its processes, and the next invocation starts them anew, as on AWS.
func interpret(rep reply) (res gateway.Result, fault string, err error) {
	switch rep.status {
	case http.StatusOK:
	case http.StatusBadRequest:
		return res, "", gateway.Errorf(gateway.CodeInvalid, "the worker refused the invocation: %.200s", rep.body)
	case http.StatusRequestEntityTooLarge:
		return res, "", gateway.Errorf(gateway.CodeTooLarge, "the worker refused the invocation: %.200s", rep.body)
	case http.StatusServiceUnavailable:
		// It has been told to end, and has not looked at the invocation.
		err = &unreachedError{errors.New("the worker is shutting down")}
		return res, err.Error(), err
	case http.StatusMisdirectedRequest:
		// The worker is gone and another container has its address, which has not looked at the invocation either.
		err = &unreachedError{errors.New("the worker is gone, and its address is another container's")}
		return res, err.Error(), err
	default:
		err = fmt.Errorf("status %d, which the worker contract does not know for a valid invocation", rep.status)
		return res, err.Error(), err
	}
	h := &rep.header
	res = gateway.Result{
		Payload:       rep.body,
		FunctionError: h.functionError,
		LogTail:       h.logResult,
		TimedOut:      h.reset == "timeout",
		ContentType:   h.contentType,
	}
	if rep.streamed {
		interpretTrailer(&res, &rep.trailer)
	}
	if h.initDuration != "" {
		if ms, err := strconv.ParseFloat(h.initDuration, 64); err == nil && ms > 0 {
			res.InitDuration = time.Duration(ms * float64(time.Millisecond))
		}
	}
	if spoilt := h.spoilt + rep.trailer.spoilt; spoilt != "" {
		fault = "sandbox cannot be reset: " + spoilt
	}
	return res, fault, nil
}
