// Package s3front stands in front of an S3 store that knows one key, and lets functions in with keys of their own: a request
// that a function has signed is checked, must be for what functions.yml gives the function, and is signed again with the
// store's key. What else comes from the function network must be signed by a key of the operator that not everybody
// knows. Every other request passes untouched, and the store checks it. Bodies are streamed.
package s3front

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/edge-serverless-box/esb/guard/budget"
	"github.com/edge-serverless-box/esb/sigv4"
	"github.com/edge-serverless-box/esb/sigv4/functionkeys"
	"github.com/edge-serverless-box/esb/sigv4/sigv2"
	"github.com/edge-serverless-box/esb/stores/front"
	"github.com/edge-serverless-box/esb/stores/lifecycle"
)

// service is S3's name in signatures.
const service = "s3"

// Options of a front. Callers, Dial and Logger are needed. Without a Budget, nothing is refused for want of memory.
type Options struct {
	Callers front.Callers
	// Dial connects to the store and may wait for it.
	Dial   front.Dial
	Budget *budget.Budget
	Logger *slog.Logger
	// Region is the store's, in which requests are signed that had none (signatures of version 2); us-east-1 when it is empty.
	Region string
	// Domains are the names of hosts below which each bucket has a host of its own: "bucket.files.example.com". That of
	// localhost is always one.
	Domains []string
	// Ignorant says that the store, versitygw, says yes to some things that it does not do: the front refuses them then.
	Ignorant bool
	// EncryptedDisk says that what the store keeps is encrypted on its disk: answers of an Ignorant store say so then, as S3's do.
	EncryptedDisk bool
	// Lifecycle keeps the rules of buckets where the store cannot, nil where it can.
	Lifecycle *lifecycle.Rules
}

func (o Options) region() string { return cmp.Or(o.Region, "us-east-1") }

// Start serves the listeners, which are the front's own from now on, until it is closed.
func Start(listeners []net.Listener, o Options) *front.Front {
	h := newHandler(o)
	return front.Start(listeners, h, h.proxy, o.Callers.Network, o.Logger)
}

// Handler returns the front as a handler.
func Handler(o Options) http.Handler { return newHandler(o) }

type handler struct {
	opts Options
	// verifier checks what functions and the operator have signed.
	verifier *sigv4.Verifier
	proxy    *httputil.ReverseProxy
	domains  []string
	tokens   tokens
	// unencrypted is done when the log has said what encryption means here.
	unencrypted sync.Once
}

func newHandler(o Options) *handler {
	h := &handler{
		opts: o, verifier: sigv4.NewVerifier(service, o.Callers.Keys), domains: append([]string{"localhost"}, o.Domains...),
		tokens: newTokens(o.Callers.Store.SecretAccessKey),
	}
	h.proxy = front.Proxy(o.Dial, h.rewrite, h.refuse, o.Logger)
	answered := h.proxy.ModifyResponse
	h.proxy.ModifyResponse = func(r *http.Response) error { return errors.Join(answered(r), h.answered(r)) }
	return h
}

// checked is what the front knows about a request whose signature it has found right. It travels in the request's context.
type checked struct {
	// resign is true when the request is to be signed again.
	resign    bool
	signature sigv4.Signature
	// payload is what the request is signed for again.
	payload string
	// denied are objects of DeleteObjects that the function may not delete.
	denied []refusedKey
	// nothing is true when those are all that were named: there is nothing to ask the store for.
	nothing bool
	// parts is true when the number of an object's parts is to be added to the answer.
	parts bool
	// listed is true when the answer is a list that may have continuation tokens, and token the one that was sent.
	listed bool
	token  string
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
	w = &answerWriter{ResponseWriter: w}
	// A copy: by its own request the server knows what of the body was not read.
	c := &checked{}
	r = r.Clone(context.WithValue(r.Context(), contextKey{}, c))
	serve, err := h.admit(r, c, &claim)
	switch {
	case err != nil:
		h.refuse(w, r, err)
	case serve != nil:
		serve(w, r)
	default:
		h.proxy.ServeHTTP(w, r)
	}
}

// admit decides on a request and prepares it for the store. Where the front itself answers, it returns what does.
func (h *handler) admit(r *http.Request, c *checked, claim *budget.Claim) (serve http.HandlerFunc, err error) {
	host := h.bucketOf(r.Host)
	if isForm(r) {
		bucket := cmp.Or(host, strings.TrimSuffix(strings.TrimPrefix(r.URL.Path, "/"), "/"))
		if err := h.upload(r, bucket, claim); err != nil {
			return nil, err
		}
		byPath(r, host)
		return nil, nil
	}
	id := front.AccessKeyID(r)
	link := sigv2.Presigned(r)
	query, _ := url.ParseQuery(r.URL.RawQuery) // what cannot be read is refused by who has to read it
	mine := functionkeys.IsID(id)
	if h.opts.Ignorant && !mine {
		if err := h.ignored(r, query); err != nil {
			return nil, err
		}
	}
	if err := systemTags(r, query, claim); err != nil {
		return nil, err
	}
	special, mend := h.special(r, query, host)
	if !mine && (id != h.opts.Callers.Store.AccessKeyID || !link && host == "" && !mend) {
		return nil, h.stranger(r)
	}
	if err := h.check(r, c, host, claim); err != nil {
		return nil, err
	}
	if h.opts.Ignorant && mine {
		// What a function may not do comes first.
		if err := h.ignored(r, query); err != nil {
			return nil, err
		}
	}
	if c.nothing {
		return h.deletedNothing, nil
	}
	if link {
		// Its parameters have become headers.
		query, _ = url.ParseQuery(r.URL.RawQuery)
		special, _ = h.special(r, query, "")
	}
	return special, nil
}

// bucketOf returns the bucket that a host names, empty for none.
func (h *handler) bucketOf(host string) string {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	for _, domain := range h.domains {
		if bucket, ok := strings.CutSuffix(strings.ToLower(host), "."+domain); ok && bucketName.MatchString(bucket) {
			return bucket
		}
	}
	return ""
}

// byPath names the bucket in the path that a host named. The store knows no host.
func byPath(r *http.Request, bucket string) {
	if bucket == "" {
		return
	}
	escaped := "/" + bucket + r.URL.EscapedPath()
	r.URL.Path = "/" + bucket + r.URL.Path
	r.URL.RawPath = escaped
	r.Host = r.Host[len(bucket)+1:]
}

// stranger decides on a request of somebody whom the front does not know, or that the store can check by itself.
func (h *handler) stranger(r *http.Request) error {
	if !h.opts.Callers.FromFunctions(r) {
		return nil
	}
	if h.opts.Callers.Known(front.AccessKeyID(r)) {
		return errKnown
	}
	if strings.HasPrefix(r.Header.Get("Authorization"), "AWS ") {
		return &s3Error{http.StatusBadRequest, "InvalidRequest", "The authorization mechanism you have provided is not supported. Please use AWS4-HMAC-SHA256."}
	}
	if sigv2.Presigned(r) {
		return errGone // nobody whom the front does not know signs so
	}
	// A key that the front does not know may be one of the store; whether it is signed at all is to be seen here.
	_, err := h.verifier.VerifyHead(r)
	var refused *sigv4.Error
	if errors.As(err, &refused) && refused.Reason == sigv4.UnknownKey {
		return nil
	}
	return err
}

var (
	errKnown = &s3Error{http.StatusForbidden, "InvalidAccessKeyId", "This AWS Access Key Id is known to everybody, and functions have keys of their own: it does not work from the function network."}
	errGone  = &sigv4.Error{Reason: sigv4.UnknownKey, Message: "The AWS Access Key Id you provided does not exist in our records."}
)

// verify checks a request's signature, and makes one of version 4 that is not signed of a link of version 2.
func (h *handler) verify(r *http.Request, host string) (sigv4.Signature, error) {
	if !sigv2.Presigned(r) {
		return h.verifier.VerifyHead(r)
	}
	path := r.URL.EscapedPath()
	if host != "" {
		path = "/" + host + path
	}
	link, err := sigv2.Verify(r, path, h.opts.Callers.Keys, time.Now())
	if err != nil {
		return sigv4.Signature{}, err
	}
	payload := r.Header.Get(sigv4.HeaderContentSHA256)
	switch {
	case payload == "":
		payload = sigv4.UnsignedPayload
	case payload != sigv4.UnsignedPayload && len(payload) != 64:
		return sigv4.Signature{}, errUnsupported // chunks that are signed need a signature of version 4
	}
	for name, values := range link.Header {
		if name != sigv4.HeaderSecurityToken {
			r.Header[name] = values
		}
	}
	r.URL.RawQuery = link.Query
	return sigv4.Signature{AccessKeyID: link.AccessKeyID, Payload: payload, Scope: sigv4.Scope{Region: h.opts.region(), Service: service}}, nil
}

// check checks a signature and, where it is a function's, its rights, and prepares the request for the store.
func (h *handler) check(r *http.Request, c *checked, host string, claim *budget.Claim) error {
	callers := h.opts.Callers
	signature, err := h.verify(r, host)
	if err != nil {
		return err
	}
	if callers.FromFunctions(r) && callers.Known(signature.AccessKeyID) {
		return errKnown
	}
	byPath(r, host)
	mine := functionkeys.IsID(signature.AccessKeyID)
	rights, ok := callers.Rights(signature.AccessKeyID)
	if mine && !ok {
		// Its function has gone since the secret was looked up.
		return errGone
	}
	oneList(r.Header)
	var op operation
	if mine {
		if op, err = parse(r); err != nil {
			return err
		}
		// DeleteObjects has an answer for each object.
		if err := decide(op, rights); err != nil && !op.deletes {
			return err
		}
	}
	*c = checked{resign: true, signature: signature, payload: signature.Payload, parts: h.wantsParts(r)}
	if err := h.readToken(r, c); err != nil {
		return err
	}
	switch signature.Payload {
	case sigv4.StreamingPayload, sigv4.StreamingPayloadTrailer, sigv4.StreamingUnsignedTrailer:
		if op.deletes {
			return errUnsupported // no SDK sends it so
		}
	}
	switch signature.Payload {
	case sigv4.StreamingPayload, sigv4.StreamingPayloadTrailer:
		c.payload, err = h.decode(r, signature)
		return err
	default:
		// Of a body whose hash is signed, the store checks the hash too, and a body with unsigned chunks is its own format.
		r.Body = signature.Body(r.Body)
	}
	if !op.deletes {
		return nil
	}
	return h.deletes(r, c, op.needs[0].bucket, rights, claim)
}

// rewrite makes the request that goes to the store.
func (h *handler) rewrite(r *httputil.ProxyRequest) {
	if c, ok := r.In.Context().Value(contextKey{}).(*checked); ok && c.resign {
		sigv4.Resign(r.Out, c.signature, h.opts.Callers.Store, c.payload, time.Now())
	}
}
