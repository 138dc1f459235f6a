// Package s3front stands in front of an S3 store that knows one key, and lets functions in with keys of their own: a request
// that a function has signed is checked, must be for what functions.yml gives the function, and is signed again with the
// store's key. What else comes from the function network must be signed by a key of the operator that not everybody
// knows. Every other request passes untouched, and the store checks it. Bodies are streamed.
package s3front

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"time"

	"github.com/edge-serverless-box/esb/guard/budget"
	"github.com/edge-serverless-box/esb/sigv4"
	"github.com/edge-serverless-box/esb/sigv4/functionkeys"
	"github.com/edge-serverless-box/esb/stores/front"
	"github.com/edge-serverless-box/esb/stores/server"
)

// service is S3's name in signatures.
const service = "s3"

// Options of a front. All are needed, but for Budget: without one, nothing is refused for want of memory.
type Options struct {
	Callers front.Callers
	// Dial connects to the store and may wait for it.
	Dial   front.Dial
	Budget *budget.Budget
	Logger *slog.Logger
}

// Front serves listeners.
type Front struct {
	server *server.Server
	proxy  *httputil.ReverseProxy
}

// Start serves the listeners, which are its own from now on, until Close.
func Start(listeners []net.Listener, o Options) *Front {
	h := newHandler(o)
	return &Front{server: front.Start(listeners, h, o.Callers.Network, o.Logger), proxy: h.proxy}
}

// Close lets requests in flight end, within bounds, and waits until nothing runs any more. It may be called once.
func (f *Front) Close() error {
	err := f.server.Close()
	front.CloseIdle(f.proxy)
	return err
}

// Handler returns the front as a handler.
func Handler(o Options) http.Handler { return newHandler(o) }

type handler struct {
	opts Options
	// functions checks what functions have signed, all what the operator may have signed too.
	functions, all *sigv4.Verifier
	proxy          *httputil.ReverseProxy
}

func newHandler(o Options) *handler {
	h := &handler{opts: o, functions: sigv4.NewVerifier(service, o.Callers.Functions), all: sigv4.NewVerifier(service, o.Callers.Keys)}
	h.proxy = front.Proxy(o.Dial, h.rewrite, h.refuse, o.Logger)
	return h
}

// checked is what the front knows about a request that a function has signed. It travels in the request's context.
type checked struct {
	signature sigv4.Signature
	// payload is what the request is signed for again.
	payload string
}

type contextKey struct{}

// ServeHTTP implements http.Handler.
func (h *handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	claim := h.opts.Budget.Claim(front.Caller(r))
	if err := claim.Grow(front.RequestCost); err != nil {
		h.refuse(w, r, err)
		return
	}
	defer claim.Release()
	if !functionkeys.IsID(front.AccessKeyID(r)) {
		if err := h.stranger(r); err != nil {
			h.refuse(w, r, err)
			return
		}
		h.proxy.ServeHTTP(w, r)
		return
	}
	// A copy: by its own request the server knows what of the body was not read.
	c := &checked{}
	r = r.Clone(context.WithValue(r.Context(), contextKey{}, c))
	var err error
	if *c, err = h.check(r, &claim); err != nil {
		h.refuse(w, r, err)
		return
	}
	h.proxy.ServeHTTP(w, r)
}

// stranger decides on a request that no function has signed.
func (h *handler) stranger(r *http.Request) error {
	if !h.opts.Callers.FromFunctions(r) {
		return nil
	}
	if h.opts.Callers.Known(front.AccessKeyID(r)) {
		return &s3Error{http.StatusForbidden, "InvalidAccessKeyId", "This AWS Access Key Id is known to everybody, and functions have keys of their own: it does not work from the function network."}
	}
	// A key that the front does not know may be one of the store; whether it is signed at all is to be seen here.
	_, err := h.all.VerifyHead(r)
	var refused *sigv4.Error
	if errors.As(err, &refused) && refused.Reason == sigv4.UnknownKey {
		return nil
	}
	return err
}

// check checks a function's signature and rights, and prepares the body for the store.
func (h *handler) check(r *http.Request, claim *budget.Claim) (checked, error) {
	signature, err := h.functions.VerifyHead(r)
	if err != nil {
		return checked{}, err
	}
	rights, ok := h.opts.Callers.Rights(signature.AccessKeyID)
	if !ok {
		// Its function has gone since the secret was looked up.
		return checked{}, &sigv4.Error{Reason: sigv4.UnknownKey, Message: "The AWS Access Key Id you provided does not exist in our records."}
	}
	op, err := parse(r)
	if err != nil {
		return checked{}, err
	}
	if err := decide(op, rights); err != nil {
		return checked{}, err
	}
	c := checked{signature: signature, payload: signature.Payload}
	switch signature.Payload {
	case sigv4.StreamingPayload, sigv4.StreamingPayloadTrailer, sigv4.StreamingUnsignedTrailer:
		if op.deletes {
			return checked{}, errUnsupported // no SDK sends it so
		}
	}
	switch signature.Payload {
	case sigv4.StreamingPayload, sigv4.StreamingPayloadTrailer:
		c.payload, err = h.decode(r, signature)
		return c, err
	default:
		// Of a body whose hash is signed, the store checks the hash too, and a body with unsigned chunks is its own format.
		r.Body = signature.Body(r.Body)
	}
	if !op.deletes {
		return c, nil
	}
	body, err := budget.ReadAll(r.Body, nil, r.ContentLength, maxDeletes, claim)
	if err != nil {
		return c, err
	}
	if op.needs, err = deleted(op.needs[0].bucket, body); err != nil {
		return c, err
	}
	if err := decide(op, rights); err != nil {
		return c, err
	}
	r.Body, r.ContentLength, r.TransferEncoding = io.NopCloser(bytes.NewReader(body)), int64(len(body)), nil
	return c, nil
}

// rewrite makes the request that goes to the store.
func (h *handler) rewrite(r *httputil.ProxyRequest) {
	if c, ok := r.In.Context().Value(contextKey{}).(*checked); ok {
		sigv4.Resign(r.Out, c.signature, h.opts.Callers.Store, c.payload, time.Now())
	}
}
