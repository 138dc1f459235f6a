package httpapi

import (
	"cmp"
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/edge-serverless-box/esb/gateway"
	"github.com/edge-serverless-box/esb/gateway/auth"
	"github.com/edge-serverless-box/esb/gateway/awsapi"
	"github.com/edge-serverless-box/esb/gateway/event"
	"github.com/edge-serverless-box/esb/gateway/internal/listener"
	"github.com/edge-serverless-box/esb/gateway/lambdaapi"
	"github.com/edge-serverless-box/esb/gateway/response"
	"github.com/edge-serverless-box/esb/gateway/route"
	"github.com/edge-serverless-box/esb/gateway/throttle"
	"github.com/edge-serverless-box/esb/guard/budget"
	"github.com/edge-serverless-box/esb/guard/upload"
)

// Limits of a request.
const (
	// maxBodyBytes is API Gateway's (AWS: 10 MB).
	maxBodyBytes = 10485760
	// maxHeaderBytes bounds request line and headers together (AWS: 10240 bytes). The answer is that of HTTP
	// APIs, 431.
	maxHeaderBytes = 10240
	// keptBuffer is the largest buffer that goes back to the pool, and the largest body whose memory is not given back as
	// soon as its event is built.
	keptBuffer = 64 << 10
	// heldBytes is what a request with a body holds besides it: the goroutine and what net/http has of it.
	heldBytes = 16 << 10
	// envelopeBytes is what an event has besides the body, as a first guess.
	envelopeBytes = 16 << 10
)

// front answers clients. One front serves all public listeners.
type front struct {
	// routing is the Routing in use; a request reads it once, at its beginning.
	routing atomic.Pointer[Routing]
	events  *event.Builder
	invoker Invoker
	// admission may be nil.
	admission Admission
	system    *echo.Echo
	lambda    *lambdaapi.API
	login     string
	account   string
	// plain is what holds before there are routes, and for the gateway's own endpoints at all times.
	plain   *Routing
	metrics *metrics
	log     *slog.Logger
	access  io.Writer
	// accessLevel is the least level of lines of access.
	accessLevel slog.Level
	flights     flights
	// refusals bounds the lines of access about requests that cannot be served.
	refusals refusals
	buffers  sync.Pool
	// memory bounds what all requests hold.
	memory *budget.Budget
	// streamIdle ends a stream in which nothing moves.
	streamIdle time.Duration
}

// Routing is what one configuration says of requests, and never changes. A request keeps the one that it began with: it is never
// judged by the rules of one configuration for the route of another.
type Routing struct {
	// Matcher finds the routes; nil has none.
	Matcher *route.Matcher
	// API is what is set for all routes, Replies are the answers that the gateway gives itself.
	API     *gateway.API
	Replies *response.Set
	// CORS of requests that no route matches and of the gateway's own public endpoints, nil for none.
	CORS *gateway.CORS
	// Throttle of all routes together, nil for none. Limits has its bucket and those of the routes.
	Throttle *gateway.Throttle
	Limits   *throttle.Set
	// Auth checks tokens and keys.
	Auth *auth.Rules
	// Authorizers decide about routes with a Lambda authorizer; nil for none.
	Authorizers Authorizers
}

// buffers are the memory that one request uses and gives back.
type buffers struct {
	body  []byte
	event []byte
}

func newFront(o Options) *front {
	f := &front{
		events:    o.Events,
		invoker:   o.Invoker,
		admission: o.Admission,
		system:    newSystem(o),
		lambda:    o.Lambda,
		login:     o.LoginPath,
		log:       o.Logger,
		access:    o.AccessLog,
		buffers:   sync.Pool{New: func() any { return new(buffers) }},
		memory:    o.Memory,

		accessLevel: o.AccessLevel,

		streamIdle: cmp.Or(o.StreamIdle, streamIdle),
	}
	f.account = o.Events.AccountID()
	f.plain = &Routing{API: &gateway.API{}, Replies: response.Default()}
	f.routing.Store(f.plain)
	f.metrics = newMetrics(o.Registry, f.flights.count)
	return f
}

// exchange is one request and what becomes known of it.
type exchange struct {
	w            http.ResponseWriter
	r            *http.Request
	scheme, port string
	start        time.Time
	ids          ids
	trace        string
	path, query  string
	// sent is path as it was sent, but without the stage of the URL: path has no more than one slash at its beginning.
	sent         string
	sourceIP     string
	routing      *Routing
	route        *gateway.Route
	status       int
	bytesIn      int
	bytesOut     int
	initDuration time.Duration
	// authorizing is how long the Lambda authorizer took.
	authorizing time.Duration
	err         error
	// claim is what the request holds of the gateway's memory.
	claim budget.Claim
	// broken says that the answer has begun and will never be whole.
	broken bool
	// operation and function are of a request to Lambda's API, which has no route.
	operation, function string
}

// on returns the handler of one listener.
func (f *front) on(scheme, port string) http.Handler {
	return upload.Handler(upload.Limits{Within: listener.BodyTimeout}, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		x := &exchange{w: w, r: r, scheme: scheme, port: port, start: time.Now(), ids: newIDs(), routing: f.routing.Load()}
		f.serve(x)
		if x.broken {
			// The one way to keep net/http from ending the answer properly.
			panic(http.ErrAbortHandler)
		}
	}))
}

// serve answers any request. Whatever happens, the answer carries both ids.
func (f *front) serve(x *exchange) {
	f.flights.begin()
	defer f.finish(x)
	x.trace = x.ids.trace(x.r.Header.Get("X-Amzn-Trace-Id"), x.start)
	x.sent, x.query = target(x.r)
	x.path = oneSlash(x.sent)
	x.sourceIP = sourceIP(x.r.RemoteAddr)
	x.claim = f.memory.Claim(claimant(x.sourceIP))
	h := x.w.Header()
	h["x-amzn-RequestId"] = []string{x.ids.request}
	h["x-amz-apigw-id"] = []string{x.ids.extended}
	h["X-Amzn-Trace-Id"] = []string{x.trace}
	switch {
	case headerBytes(x.r) > maxHeaderBytes:
		x.err = gateway.Errorf(gateway.CodeHeaderTooLarge, "request line and headers exceed %d bytes", maxHeaderBytes)
	case f.own(x.r.Method, x.sent):
		x.withDefaultCORS()
		f.serveOwn(x)
	case lambdaapi.Owns(x.path) && f.lambda != nil: // with slashes before it, too: no route may have it
		f.serveLambda(x)
	default:
		if service, ok := awsapi.Of(x.r); ok {
			x.refuseService(service)
			break
		}
		x.err = f.proxy(x)
	}
	if x.err != nil && x.status == 0 {
		f.writeError(x)
	}
}

// proxy is the path of a call: match, authenticate, read, build, invoke, map, answer.
func (f *front) proxy(x *exchange) error {
	match, ok := x.match()
	if x.r.Method == http.MethodOptions && x.preflight(match.Route) {
		return nil
	}
	if !ok {
		x.withDefaultCORS()
		return gateway.Errorf(gateway.CodeNoRoute, "no route for %s", x.r.Method)
	}
	x.route = match.Route
	if x.route.HTTPAPI() {
		// What HTTP APIs call the request's id, and what events say it is.
		h := x.w.Header()
		h["apigw-requestid"] = h["x-amzn-RequestId"]
		delete(h, "x-amz-apigw-id")
		if _, ok := event.DecodePath(x.sent); !ok {
			return gateway.Errorf(gateway.CodeInvalid, "the path cannot be decoded: its escapes are no UTF-8")
		}
	}
	x.withCORS(x.route.CORS)
	caller, err := f.admit(x, match.PathParameters)
	if err != nil {
		return err
	}
	buf := f.buffers.Get().(*buffers)
	if err := f.fill(x, buf, match.PathParameters, caller); err != nil {
		return err
	}
	inv := gateway.Invocation{RequestID: x.ids.request, TraceID: x.trace, Payload: buf.event, Memory: &x.claim}
	if x.route.Stream {
		err := f.stream(x, inv)
		if err == nil {
			f.release(buf)
		}
		return err
	}
	ctx, cancel := context.WithTimeout(x.r.Context(), x.budget())
	defer cancel()
	result, err := f.invoker.Invoke(ctx, x.route.Function, inv)
	if err != nil {
		return f.failure(ctx, x, err)
	}
	defer f.release(buf)
	x.initDuration = result.InitDuration
	if result.FunctionError != "" || result.TimedOut {
		return gateway.Errorf(gateway.CodeFunction, "function failed: %s", gateway.Excerpt(result.Payload))
	}
	answer, err := event.Map(x.route, result.Payload, x.r.Header.Get("Accept"))
	if err != nil {
		return err
	}
	x.write(answer)
	return nil
}

// fill reads the body and builds the event of it, into buf. The memory of a body that is not small is free again when it
// returns: the event may wait for its worker for long.
func (f *front) fill(x *exchange, buf *buffers, parameters map[string]string, caller *gateway.Caller) error {
	if err := readBody(x, buf); err != nil {
		return err
	}
	// An event is never smaller than its body: what cannot fit is not even built.
	if len(buf.body) > gateway.MaxEvent {
		return errEventTooLarge(len(buf.body))
	}
	large := len(buf.body) > keptBuffer
	if large {
		size := len(buf.body)/3*4 + envelopeBytes
		if err := x.claim.Grow(int64(size)); err != nil {
			return errBusy(err)
		}
		buf.event = make([]byte, 0, size)
	}
	if buf.body == nil {
		buf.body = []byte{} // none, where nil is one that is not read
	}
	buf.event = f.events.Append(buf.event[:0], x.request(buf.body, parameters, caller))
	if len(buf.event) > gateway.MaxEvent {
		return errEventTooLarge(len(buf.event))
	}
	if large {
		buf.body = nil
		if err := x.claim.Set(heldBytes + int64(cap(buf.event))); err != nil {
			return errBusy(err)
		}
	}
	return nil
}

// match finds a route. ANY stands for the seven methods of API Gateway.
func (x *exchange) match() (route.Match, bool) {
	switch x.r.Method {
	case http.MethodGet, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete, http.MethodHead, http.MethodOptions:
	default:
		return route.Match{}, false
	}
	if x.routing.Matcher == nil {
		return route.Match{}, false
	}
	if x.routing.API.StageInURL {
		// Slashes before the stage vanish; those behind it are not in the way of a route, but events have them (recorded:
		// rest-event-slash-before-stage and -after-stage of public test suites; localstack/localstack issue 11253).
		below, ok := strings.CutPrefix(x.path, "/"+x.routing.API.Stage)
		if !ok || below != "" && below[0] != '/' {
			return route.Match{}, false
		}
		if x.sent = below; below == "" {
			x.sent = "/"
		}
		x.path = oneSlash(x.sent)
	}
	return x.routing.Matcher.Match(x.r.Method, x.path)
}

// failure makes sure that the route's timeout and the client's leaving are recognised, whatever they broke.
func (f *front) failure(ctx context.Context, x *exchange, err error) error {
	if x.r.Context().Err() != nil {
		return gateway.Errorf(gateway.CodeCanceled, "client left: %w", err)
	}
	if errors.Is(ctx.Err(), context.DeadlineExceeded) && gateway.ErrorCode(err) == gateway.CodeInternal {
		return gateway.Errorf(gateway.CodeIntegrationTimeout, "route timeout of %v: %w", x.route.Timeout, err)
	}
	return err
}

// release gives the buffers of a request that went well back to the others. Those of a failed one are left to the
// garbage collector: who failed may still hold them.
func (f *front) release(buf *buffers) {
	if cap(buf.body) <= keptBuffer && cap(buf.event) <= keptBuffer {
		f.buffers.Put(buf)
	}
}

func (x *exchange) request(body []byte, parameters map[string]string, caller *gateway.Caller) *event.Request {
	return &event.Request{
		HTTP:              x.r,
		Path:              x.path,
		SentPath:          x.sent,
		Query:             x.query,
		Body:              body,
		Route:             x.route,
		API:               x.routing.API,
		PathParameters:    parameters,
		Caller:            caller,
		RequestID:         x.ids.request,
		ExtendedRequestID: x.ids.extended,
		TraceID:           x.trace,
		SourceIP:          x.sourceIP,
		Scheme:            x.scheme,
		Port:              x.port,
		Time:              x.start,
	}
}

// write sends a function's answer, with the names spelt as the function did.
func (x *exchange) write(a event.Answer) {
	if a.Status == http.StatusNoContent || a.Status == http.StatusNotModified {
		a.Body = nil
	} else {
		x.w.Header()["Content-Length"] = []string{strconv.Itoa(len(a.Body))}
	}
	x.bytesOut = len(a.Body)
	x.writeHead(a)
	if len(a.Body) > 0 {
		_, _ = x.w.Write(a.Body) // a client that has gone needs no answer
	}
}

// writeHead sends status and headers.
func (x *exchange) writeHead(a event.Answer) {
	h := x.w.Header()
	for _, field := range a.Header {
		h[field.Name] = field.Values
		if field.Name != "Content-Type" && strings.EqualFold(field.Name, "Content-Type") {
			h["Content-Type"] = nil // keeps net/http from guessing a second one
		}
	}
	x.status = a.Status
	x.w.WriteHeader(a.Status)
}

// readBody reads the whole body into buf.body.
func readBody(x *exchange, buf *buffers) error {
	r := x.r
	buf.body = buf.body[:0]
	if r.Body == nil || r.Body == http.NoBody {
		return nil
	}
	err := x.claim.Grow(heldBytes)
	if err == nil {
		buf.body, err = budget.ReadAll(r.Body, buf.body, r.ContentLength, maxBodyBytes, &x.claim)
	}
	switch {
	case err == nil:
		x.bytesIn = len(buf.body)
		return nil
	case errors.Is(err, budget.ErrTooLong):
		return errBodyTooLarge()
	case errors.Is(err, budget.ErrUsedUp):
		return errBusy(err)
	case errors.Is(err, os.ErrDeadlineExceeded):
		return gateway.Errorf(gateway.CodeInvalid, "body did not arrive within %v: %w", listener.BodyTimeout, err)
	case r.Context().Err() != nil:
		return gateway.Errorf(gateway.CodeCanceled, "client left while it sent the body: %w", err)
	}
	return gateway.Errorf(gateway.CodeInvalid, "read body: %w", err)
}

// errBusy: the memory for bodies, events and answers is in use.
func errBusy(err error) error {
	busy := gateway.Errorf(gateway.CodeUnavailable, "request not taken: %w", err)
	busy.RetryAfter = time.Second
	return busy
}

func errBodyTooLarge() error {
	return gateway.Errorf(gateway.CodeBodyTooLarge, "body exceeds %d bytes", maxBodyBytes)
}

func errEventTooLarge(size int) error {
	return gateway.Errorf(gateway.CodeTooLarge, "event of %d bytes or more exceeds %d", size, gateway.MaxEvent)
}

// target returns path and query as the client sent them.
func target(r *http.Request) (path, query string) {
	if strings.HasPrefix(r.RequestURI, "/") {
		path, query, _ = strings.Cut(r.RequestURI, "?")
		return path, query
	}
	if path = r.URL.EscapedPath(); path == "" {
		path = "/"
	}
	return path, r.URL.RawQuery
}

// oneSlash is path without further slashes behind its first one.
func oneSlash(path string) string {
	for len(path) > 1 && path[0] == '/' && path[1] == '/' {
		path = path[1:]
	}
	return path
}

// sourceIP is the address of "address:port", without brackets and zone.
func sourceIP(remote string) string {
	if i := strings.LastIndexByte(remote, ':'); i >= 0 {
		remote = remote[:i]
	}
	remote = strings.TrimSuffix(strings.TrimPrefix(remote, "["), "]")
	remote, _, _ = strings.Cut(remote, "%")
	return remote
}

// claimant is for whom the memory of a request is counted: a host of IPv6 may use all addresses of its /64.
func claimant(ip string) string {
	if strings.IndexByte(ip, ':') < 0 {
		return ip
	}
	addr, err := netip.ParseAddr(ip)
	if err != nil || !addr.Is6() || addr.Is4In6() {
		return ip
	}
	p, err := addr.Prefix(64)
	if err != nil {
		return ip
	}
	return p.String()
}

// headerBytes is the size of request line and headers, as far as it can be told from what was parsed.
func headerBytes(r *http.Request) int {
	n := len(r.Method) + len(r.RequestURI) + len(r.Proto) + len(r.Host)
	for name, values := range r.Header {
		for _, v := range values {
			n += len(name) + len(v) + len(": \r\n")
		}
	}
	return n
}
