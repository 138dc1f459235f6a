// Package lambdaapi is the data plane of AWS Lambda's API: AWS SDKs invoke the box's functions by it, and functions
// invoke each other. Sources: the Lambda API reference (Invoke, InvokeAsync, InvokeWithResponseStream) and recordings of
// the real service (section 5 of tests/conformance/rows.yml).
package lambdaapi

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/edge-serverless-box/esb/gateway"
	"github.com/edge-serverless-box/esb/gateway/lineage"
	"github.com/edge-serverless-box/esb/guard/budget"
	"github.com/edge-serverless-box/esb/sigv4"
	"github.com/edge-serverless-box/esb/sigv4/functionkeys"
)

// The paths of the operations that the API has: prefix, function name, suffix.
const (
	PrefixInvoke       = "/2015-03-31/functions/"
	PrefixInvokeAsync  = "/2014-11-13/functions/"
	PrefixInvokeStream = "/2021-11-15/functions/"
)

const (
	service = "lambda"
	// version is the only one that a function has.
	version = "$LATEST"
	// maxClientContext is the largest X-Amz-Client-Context in bytes, as it is sent (API reference, Invoke).
	maxClientContext = 3583
	// maxDrained is how much of a body that is too large is read, so that its sender sees the answer.
	maxDrained = 32 << 20
	// heldBytes is what a request holds besides its body: the goroutine and what net/http has of it.
	heldBytes = 16 << 10
	// writeTimeout bounds how long a client may take to read the answer, or one piece of it.
	writeTimeout = 60 * time.Second
)

// Invoker calls functions; invoke.Invoker is the one of production.
type Invoker interface {
	Invoke(ctx context.Context, fn *gateway.Function, inv gateway.Invocation) (gateway.Result, error)
}

// Streamer calls functions whose result is wanted while it arrives; invoke.Invoker is the one of production.
type Streamer interface {
	InvokeStream(ctx context.Context, fn *gateway.Function, inv gateway.Invocation, w gateway.StreamWriter) (gateway.Result, error)
}

// Queue takes events of asynchronous invocations. It returns nil only when the event is durable.
type Queue interface {
	Enqueue(ctx context.Context, fn *gateway.Function, inv gateway.Invocation) error
}

// Options of an API.
type Options struct {
	Invoker Invoker
	// Streamer and Queue answer InvokeWithResponseStream and asynchronous invocations; what is nil is refused with a
	// ServiceException.
	Streamer Streamer
	Queue    Queue
	// AccessKeys are the secrets of those who may invoke everything, by access key id (LAMBDA_ACCESS_KEYS).
	AccessKeys map[string]string
	// FunctionKeys are the keys of the functions themselves.
	FunctionKeys *functionkeys.Keys
	// Region and Account are what ARNs name (AWS_REGION, AWS_ACCOUNT_ID).
	Region, Account string
}

// API answers requests to Lambda's API. It is safe for concurrent use.
type API struct {
	opts     Options
	verifier *sigv4.Verifier
	current  atomic.Pointer[directory]
}

// directory is the current configuration.
type directory struct {
	functions map[string]*gateway.Function
	// callers are the functions by their access key id.
	callers map[string]*gateway.Function
}

// New returns an API that knows no functions yet.
func New(o Options) *API {
	a := &API{opts: o}
	a.verifier = sigv4.NewVerifier(service, a.secret)
	a.current.Store(&directory{})
	return a
}

// SetFunctions replaces all functions at once.
func (a *API) SetFunctions(functions map[string]*gateway.Function) {
	d := &directory{functions: functions, callers: make(map[string]*gateway.Function, len(functions))}
	if a.opts.FunctionKeys != nil {
		for name, fn := range functions {
			d.callers[a.opts.FunctionKeys.Of(name).AccessKeyID] = fn
		}
	}
	a.current.Store(d)
}

// secret is the sigv4.Keys of the verifier: the configured keys, and those of the functions that there are.
func (a *API) secret(accessKeyID string) (string, bool) {
	if secret, ok := a.opts.AccessKeys[accessKeyID]; ok {
		return secret, true
	}
	if _, ok := a.current.Load().callers[accessKeyID]; ok {
		return a.opts.FunctionKeys.Secret(accessKeyID)
	}
	return "", false
}

// versions are the first segments of all paths of Lambda's API, whichever operations of them are here (the service models of
// botocore 1.43.11 and of aws-sdk-go-v2/service/lambda 1.114.2).
var versions = [...]string{
	"2014-11-13", "2015-03-31", "2016-08-19", "2017-03-31", "2017-10-31", "2018-10-31", "2019-09-25", "2019-09-30", "2020-04-22",
	"2020-06-30", "2021-07-20", "2021-10-31", "2021-11-15", "2024-08-31", "2025-11-30", "2025-12-01", "2026-07-09",
}

// Prefixes are those of all paths of Lambda's API, each with a slash at its end.
func Prefixes() []string {
	all := make([]string, len(versions))
	for i, v := range versions {
		all[i] = "/" + v + "/"
	}
	return all
}

// Owns says whether the API answers a path, as it was sent: all of Lambda's API, so that no request of its clients gets to a
// route.
func Owns(path string) bool {
	const n = len("/2015-03-31")
	if len(path) <= n || path[n] != '/' || path[1] != '2' {
		return false
	}
	for _, v := range versions {
		if path[1:n] == v {
			return true
		}
	}
	return false
}

// operation is one of the API's.
type operation int

const (
	opInvoke operation = iota
	opInvokeAsync
	opInvokeStream
)

// names are those of the operations, by which metrics count.
var names = [...]string{"lambda:Invoke", "lambda:InvokeAsync", "lambda:InvokeWithResponseStream"}

// Call is a request with what the front knows of it already.
type Call struct {
	W http.ResponseWriter
	R *http.Request
	// Path is as it was sent, without the query.
	Path      string
	RequestID string
	TraceID   string
	// Memory is what the request holds of the gateway's memory; the caller releases it.
	Memory *budget.Claim
}

// Outcome is what became of a request, for log and metrics.
type Outcome struct {
	// Operation is "lambda:Invoke" and the like, empty for an unknown one.
	Operation string
	// Function is empty while it is not known.
	Function          string
	Status            int
	BytesIn, BytesOut int
	InitDuration      time.Duration
	// Err is why the request was refused or failed, or how the function failed.
	Err error
}

// Serve answers a request whose path the API Owns.
func (a *API) Serve(c Call) (out Outcome) {
	s := &session{api: a, Call: c, out: &out, dir: a.current.Load()}
	if err := s.serve(); err != nil {
		s.refuse(err)
	}
	return out
}

// session is one request.
type session struct {
	Call
	api *API
	dir *directory
	out *Outcome
	op  operation
	// name is the function's, as the path has it.
	name string
	body []byte
	// caller is the function that asks, nil for a configured key.
	caller *gateway.Function
	fn     *gateway.Function
	// qualifier is the caller's, empty when it gave none.
	qualifier string
	inv       gateway.Invocation
	begun     bool
}

func (s *session) serve() error {
	if err := s.route(); err != nil {
		return err
	}
	given, err := s.api.verifier.Head(s.R)
	if err != nil {
		return errSignature(err)
	}
	// Whoever gets here knows an access key at least.
	if err := s.read(); err != nil {
		return err
	}
	if err := s.authenticate(given); err != nil {
		return err
	}
	query := s.R.URL.Query()
	if err := s.validate(query); err != nil {
		return err
	}
	ref := parseName(s.name)
	if err := ref.qualify(query); err != nil {
		return err
	}
	if err := s.find(ref); err != nil {
		return err
	}
	kind, err := s.prepare()
	if err != nil {
		return err
	}
	switch kind {
	case dryRun:
		s.head(http.StatusNoContent)
		return nil
	case event:
		return s.enqueue() // the queue counts loops itself, and takes the event that is one too many
	}
	if err := s.step(); err != nil {
		return err
	}
	if s.op == opInvokeStream {
		return s.stream()
	}
	return s.invoke()
}

// route finds operation and name in the path.
func (s *session) route() error {
	prefix, suffix := "", ""
	switch {
	case strings.HasPrefix(s.Path, PrefixInvoke):
		s.op, prefix, suffix = opInvoke, PrefixInvoke, "/invocations"
	case strings.HasPrefix(s.Path, PrefixInvokeStream):
		s.op, prefix, suffix = opInvokeStream, PrefixInvokeStream, "/response-streaming-invocations"
	case strings.HasPrefix(s.Path, PrefixInvokeAsync):
		s.op, prefix, suffix = opInvokeAsync, PrefixInvokeAsync, "/invoke-async"
	}
	// SDKs send a slash behind invoke-async.
	name, ok := strings.CutSuffix(strings.TrimSuffix(s.Path[len(prefix):], "/"), suffix)
	if prefix == "" || !ok || s.R.Method != http.MethodPost || strings.Contains(name, "/") {
		return errUnknownOperation()
	}
	name, err := url.PathUnescape(name)
	if err != nil {
		return errUnknownOperation()
	}
	s.name, s.out.Operation = name, names[s.op]
	return nil
}

// read reads the body, which must be there before the signature can be checked.
func (s *session) read() error {
	r := s.R
	if r.Body == nil || r.Body == http.NoBody {
		return nil
	}
	if r.ContentLength > maxDrained {
		return errTooLarge(gateway.MaxEvent)
	}
	err := s.Memory.Grow(heldBytes)
	if err == nil {
		s.body, err = budget.ReadAll(r.Body, nil, r.ContentLength, gateway.MaxEvent, s.Memory)
	}
	s.out.BytesIn = len(s.body)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, budget.ErrTooLong):
		s.body = nil
		_, _ = io.CopyN(io.Discard, r.Body, maxDrained) // for the sender's sake
		return errTooLarge(gateway.MaxEvent)
	case errors.Is(err, budget.ErrUsedUp):
		return &refusal{status: http.StatusTooManyRequests, kind: "TooManyRequestsException", user: true, message: "Rate Exceeded.",
			reason: "CallerRateLimitExceeded", retryAfter: time.Second}
	case errors.Is(err, os.ErrDeadlineExceeded):
		return &refusal{status: http.StatusBadRequest, kind: "InvalidRequestContentException", user: true,
			message: "The request body did not arrive in time."}
	case r.Context().Err() != nil:
		return gateway.Errorf(gateway.CodeCanceled, "client left while it sent the body: %w", err)
	}
	return &refusal{status: http.StatusBadRequest, kind: "InvalidRequestContentException", user: true,
		message: "The request body could not be read."}
}

// authenticate finds out who asks.
func (s *session) authenticate(given sigv4.Signature) error {
	signed, err := s.api.verifier.Complete(s.R, given, s.body)
	if err != nil {
		return errSignature(err)
	}
	s.caller = s.dir.callers[signed.AccessKeyID]
	if _, all := s.api.opts.AccessKeys[signed.AccessKeyID]; !all && s.caller == nil {
		// Its function is gone since the secret was looked up.
		return errSignature(&sigv4.Error{Reason: sigv4.UnknownKey, Code: "UnrecognizedClientException", Message: "The security token included in the request is invalid."})
	}
	return nil
}

// find looks the function up, for who may invoke it: AWS tells nobody else whether it is there.
func (s *session) find(ref reference) error {
	o := s.api.opts
	arn := "arn:aws:lambda:" + o.Region + ":" + o.Account + ":function:" + ref.name
	if ref.region != "" && ref.region != o.Region {
		return &refusal{status: http.StatusNotFound, kind: "ResourceNotFoundException", user: true, capital: true,
			message: "Functions from '" + ref.region + "' are not reachable in this region ('" + o.Region + "')"}
	}
	if ref.account != "" && ref.account != o.Account {
		return s.denied("arn:aws:lambda:"+o.Region+":"+ref.account+":function:"+ref.name, "resource-based")
	}
	if s.caller != nil && !slices.Contains(s.caller.Invoke, ref.name) {
		return s.denied(arn, "identity-based")
	}
	qualifier := ref.qualifier
	if qualifier == "" {
		qualifier = version
	}
	fn, ok := s.dir.functions[ref.name]
	if !ok || qualifier != version {
		return &refusal{status: http.StatusNotFound, kind: "ResourceNotFoundException", user: true, capital: true,
			message: "Function not found: " + arn + ":" + qualifier}
	}
	s.fn, s.out.Function, s.qualifier = fn, fn.Name, ref.qualifier
	return nil
}

func (s *session) denied(arn, policy string) error {
	action := "lambda:InvokeFunction"
	if s.op == opInvokeAsync {
		action = "lambda:InvokeAsync"
	}
	who := "arn:aws:iam::" + s.api.opts.Account + ":root"
	if s.caller != nil {
		who = "arn:aws:sts::" + s.api.opts.Account + ":assumed-role/" + s.caller.Name + "/" + s.caller.Name
	}
	return &refusal{status: http.StatusForbidden, kind: "AccessDeniedException", capital: true,
		message: "User: " + who + " is not authorized to perform: " + action + " on resource: " + arn + " because no " + policy + " policy allows the " + action + " action"}
}

// step counts the invocation in its chain (package lineage), and refuses one that comes back too often.
func (s *session) step() error {
	trace, loops := lineage.Hop(s.inv.TraceID, s.fn.Name)
	if loops > lineage.Most && !s.fn.AllowLoops {
		return &refusal{status: http.StatusBadRequest, kind: "RecursiveInvocationException", user: true, capital: true,
			message: "Lambda has detected your function being invoked in a recursive loop with other Amazon Web Services resources and stopped your function's invocation."}
	}
	s.inv.TraceID, s.inv.Inner = trace, s.caller != nil
	return nil
}

// invoke runs the function and answers with its result.
func (s *session) invoke() error {
	s.unbound()
	res, err := s.api.opts.Invoker.Invoke(s.R.Context(), s.fn, s.inv)
	if err != nil {
		return s.failure(err)
	}
	s.finished(res)
	h := s.W.Header()
	if res.FunctionError != "" {
		h["X-Amz-Function-Error"] = []string{res.FunctionError}
	}
	if s.inv.LogTail {
		h["X-Amz-Log-Result"] = []string{res.LogTail}
	}
	h["X-Amz-Executed-Version"] = []string{version}
	s.answer(http.StatusOK, "application/json", res.Payload)
	return nil
}

// enqueue hands the event to the queue.
func (s *session) enqueue() error {
	if s.api.opts.Queue == nil {
		return gateway.Errorf(gateway.CodeInternal, "there is no queue for asynchronous invocations")
	}
	if err := s.api.opts.Queue.Enqueue(s.R.Context(), s.fn, s.inv); err != nil {
		return s.failure(err)
	}
	s.W.Header()["Content-Length"] = []string{"0"}
	s.head(http.StatusAccepted)
	return nil
}

// unbound lifts the server's limit of a whole answer: a function has its own, of up to 15 minutes.
func (s *session) unbound() {
	_ = http.NewResponseController(s.W).SetWriteDeadline(time.Time{})
}

// bound limits how long the client may take to read what is written next.
func (s *session) bound() {
	_ = http.NewResponseController(s.W).SetWriteDeadline(time.Now().Add(writeTimeout))
}

// finished takes note of a result.
func (s *session) finished(res gateway.Result) {
	s.out.InitDuration = res.InitDuration
	if res.FunctionError != "" {
		s.out.Err = gateway.Errorf(gateway.CodeFunction, "function failed: %s", gateway.Excerpt(res.Payload))
	}
}

// failure recognises that the client has left, whatever that broke.
func (s *session) failure(err error) error {
	if s.R.Context().Err() != nil {
		return gateway.Errorf(gateway.CodeCanceled, "client left: %w", err)
	}
	return err
}
