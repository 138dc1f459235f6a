// Package dynamofront stands in front of a DynamoDB API that may accept anybody: it lets signed requests through, those of
// functions for what functions.yml gives them, and answers the others as AWS does. A function's request is signed again
// with the store's key.
package dynamofront

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"os"
	"strconv"
	"sync"
	"time"

	"github.com/edge-serverless-box/esb/guard/budget"
	"github.com/edge-serverless-box/esb/sigv4"
	"github.com/edge-serverless-box/esb/sigv4/functionaccess"
	"github.com/edge-serverless-box/esb/sigv4/functionkeys"
	"github.com/edge-serverless-box/esb/stores/front"
)

const (
	// service is DynamoDB's name in signatures, that of its streams too.
	service = "dynamodb"
	// maxBody is AWS's limit of a request: 16 MB for BatchWriteItem (DynamoDB developer guide, quotas). The signature covers
	// the body and does not say its hash beforehand, so the body has to be held.
	maxBody = 16 << 20
)

// Options of a front. All are needed, but for Budget: without one, nothing is refused for want of memory.
type Options struct {
	Callers front.Callers
	// Dial connects to the store and may wait for it.
	Dial   front.Dial
	Budget *budget.Budget
	Logger *slog.Logger
	// Names are the box's region and account, in ARNs.
	Names Names
}

// Start serves the listeners, which are the front's own from now on, until it is closed.
func Start(listeners []net.Listener, o Options) *front.Front {
	h := newHandler(o)
	return front.Start(listeners, h, h.proxy, o.Callers.Network, o.Logger)
}

// Handler returns the front as a handler.
func Handler(o Options) http.Handler { return newHandler(o) }

type handler struct {
	opts     Options
	verifier *sigv4.Verifier
	proxy    *httputil.ReverseProxy
}

func newHandler(o Options) *handler {
	h := &handler{opts: o, verifier: sigv4.NewVerifier(service, o.Callers.Keys)}
	h.proxy = front.Proxy(o.Dial, func(*httputil.ProxyRequest) {}, h.refuse, o.Logger)
	answered := h.proxy.ModifyResponse
	h.proxy.ModifyResponse = func(r *http.Response) error { return errors.Join(answered(r), h.answered(r)) }
	return h
}

// answer is a refusal in DynamoDB's words.
type answer struct {
	status        int
	kind, message string
}

// Error implements error.
func (a *answer) Error() string { return a.kind + ": " + a.message }

// ServeHTTP implements http.Handler.
func (h *handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	claim := h.opts.Budget.Claim(front.Caller(r))
	defer claim.Release()
	if r.Method == http.MethodGet && r.URL.Path == "/" && r.URL.RawQuery == "" && r.ContentLength == 0 {
		// The health of an endpoint is anybody's to know, as with AWS.
		h.proxy.ServeHTTP(w, r)
		return
	}
	c, err := h.check(r, &claim)
	if err == nil {
		err = h.prepare(r, c)
	}
	if err != nil {
		h.refuse(w, r, err)
		return
	}
	if h.answers(w, r, c) {
		return
	}
	out := r.Clone(context.WithValue(r.Context(), contextKey{}, c))
	whole := &held{data: c.body, claim: &claim}
	// Before the claim is released here: the proxy's own goroutine may still have the body.
	defer func() { _ = whole.Close() }()
	out.Body, out.ContentLength, out.TransferEncoding = whole, int64(len(c.body)), nil
	out.Header.Set("Content-Length", strconv.Itoa(len(c.body)))
	if c.target != "" {
		out.Header.Set("X-Amz-Target", c.target)
	}
	if c.own || c.changed {
		// A hash that the client has named is not that of another body.
		out.Header.Del(sigv4.HeaderContentSHA256)
		sigv4.Resign(out, c.signature, h.opts.Callers.Store, c.signature.Payload, time.Now())
	}
	h.proxy.ServeHTTP(w, out)
}

// checked is what the front knows about a request whose signature it has found right. It travels in the request's context.
type checked struct {
	op        operation
	body      []byte
	signature sigv4.Signature
	// own is true for a function's request, changed when the body is not the client's any more.
	own, changed bool
	rights       functionaccess.Rights
	// names are tables by the ARNs that the request had, table is that of an iterator.
	names renamed
	table string
	// target is the operation that the store is asked for in place of the client's, when it is not empty.
	target string
}

type contextKey struct{}

// check reads a request's body and checks who sent it, and whether they may. What can be known without the body is looked
// at before the body is read.
func (h *handler) check(r *http.Request, claim *budget.Claim) (*checked, error) {
	if r.Method != http.MethodPost || r.URL.Path != "/" {
		return nil, &answer{http.StatusNotFound, "com.amazon.coral.service#UnknownOperationException", "Only POST / is served here."}
	}
	head, err := h.verifier.Head(r)
	if err != nil {
		return nil, err
	}
	callers := h.opts.Callers
	if callers.Known(head.AccessKeyID) && callers.FromFunctions(r) {
		return nil, &answer{http.StatusBadRequest, "com.amazon.coral.service#UnrecognizedClientException",
			"This access key is known to everybody, and functions have keys of their own: it does not work from the function network."}
	}
	c := &checked{own: functionkeys.IsID(head.AccessKeyID)}
	c.op, err = parse(r.Header)
	if c.own {
		var ok bool
		if c.rights, ok = callers.Rights(head.AccessKeyID); !ok {
			return nil, unknownKey()
		}
		if err == nil {
			err = c.op.possible(c.rights, head.Scope.Region)
		}
		if err != nil {
			return nil, err
		}
	}
	if c.body, err = budget.ReadAll(r.Body, nil, r.ContentLength, maxBody, claim); err != nil {
		return nil, err
	}
	if c.signature, err = h.verifier.Complete(r, head, c.body); err != nil {
		return nil, err
	}
	if c.own {
		err = c.op.allowed(c.rights, c.signature.Scope.Region, c.body)
	}
	return c, err
}

// prepare makes of a request's body what the store understands.
func (h *handler) prepare(r *http.Request, c *checked) error {
	if c.op.name == "" || !json.Valid(c.body) {
		return nil // the store says what is wrong with it
	}
	body, names, err := h.opts.Names.toStore(c.op, c.body)
	if err != nil {
		return err
	}
	c.names = names
	if c.own && c.op.means.tables == iterator {
		if body, err = h.unwrap(c, body); err != nil {
			return err
		}
	}
	if c.own && c.op.name == "GetShardIterator" {
		if arns, err := only(c.body, "StreamArn"); err == nil {
			c.table, _ = c.op.tableOf(arns[0])
		}
	}
	if h.opts.Names.maps() && c.op.name == "DescribeContinuousBackups" {
		c.target = "DynamoDB_20120810.DescribeTable"
	}
	if c.changed = c.target != "" || !bytes.Equal(body, c.body); c.changed {
		c.body = body
		c.signature.Payload = sigv4.HashPayload(body)
	}
	return nil
}

// unwrap puts the store's iterator in place of a function's, if the function may read the table that it is of.
func (h *handler) unwrap(c *checked, body []byte) ([]byte, error) {
	e := &editor{body: body[:len(body):len(body)]}
	value, err := member(e.body, "ShardIterator")
	if err != nil {
		return nil, err
	}
	wrapped, err := text(value)
	if err != nil {
		return nil, shaped(err, "ShardIterator")
	}
	table, inner, ok := h.iterators().unwrap(wrapped)
	if !ok {
		return nil, &answer{http.StatusBadRequest, "com.amazonaws.dynamodb.v20120810#ValidationException", "Invalid ShardIterator"}
	}
	if !c.rights.Items(table, read) {
		return nil, c.op.denied(c.rights, c.signature.Scope.Region, table, why(c.rights))
	}
	c.table = table
	e.replace(value, inner)
	return e.apply(), nil
}

func (h *handler) iterators() iterators { return iterators{h.opts.Callers.Store.SecretAccessKey} }

// held is a body that gives its memory back as soon as the store has it.
type held struct {
	// mu guards data and read: the proxy closes a body while it may still be read.
	mu    sync.Mutex
	data  []byte
	read  int
	claim *budget.Claim
}

// Read implements io.Reader.
func (b *held) Read(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.read == len(b.data) {
		b.free()
		return 0, io.EOF
	}
	n := copy(p, b.data[b.read:])
	b.read += n
	return n, nil
}

// Close implements io.Closer.
func (b *held) Close() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.free()
	return nil
}

func (b *held) free() {
	if b.data != nil {
		b.data, b.read = nil, 0
		b.claim.Release()
	}
}

func unknownKey() error {
	return &sigv4.Error{Reason: sigv4.UnknownKey, Code: "UnrecognizedClientException", Message: "The security token included in the request is invalid."}
}

// refuse answers for the store, as DynamoDB does.
func (h *handler) refuse(w http.ResponseWriter, r *http.Request, err error) {
	a := answerOf(err)
	h.opts.Logger.Warn("a request to the DynamoDB API was refused", "type", a.kind, "access_key", front.AccessKeyID(r), "remote", r.RemoteAddr, "error", err.Error())
	w.Header().Set("Content-Type", "application/x-amz-json-1.0")
	w.WriteHeader(a.status)
	// Text only: encoding cannot fail, and a client that has gone needs no answer.
	data, _ := json.Marshal(map[string]string{"__type": a.kind, "message": a.message})
	_, _ = w.Write(data)
}

func answerOf(err error) *answer {
	var refused *sigv4.Error
	var a *answer
	switch {
	case errors.As(err, &a):
		return a
	case errors.As(err, &refused):
		return &answer{http.StatusBadRequest, "com.amazon.coral.service#" + refused.Code, refused.Message}
	case errors.Is(err, budget.ErrTooLong):
		return &answer{http.StatusRequestEntityTooLarge, "com.amazon.coral.validate#ValidationException", fmt.Sprintf("Request size exceeded %d bytes", maxBody)}
	case errors.Is(err, budget.ErrUsedUp):
		// SDKs try again after this one.
		return &answer{http.StatusServiceUnavailable, "com.amazon.coral.availability#ServiceUnavailableException", "The service is currently unavailable or busy."}
	case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, io.ErrUnexpectedEOF):
		return &answer{http.StatusBadRequest, "com.amazon.coral.service#SerializationException", "The request body could not be read."}
	}
	// SDKs try again after this one.
	return &answer{http.StatusInternalServerError, "com.amazonaws.dynamodb.v20120810#InternalServerError", "The request processing has failed because of an unknown error, exception or failure."}
}
