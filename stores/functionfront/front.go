// Package functionfront stands in front of a store that knows one key and lets functions in with keys of their own: a
// request that a function has signed is checked, and signed again with the store's key. Every other request passes
// untouched, and the store checks it. Bodies are streamed.
package functionfront

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strings"
	"time"

	"github.com/edge-serverless-box/esb/sigv4"
	"github.com/edge-serverless-box/esb/sigv4/functionkeys"
)

const (
	// maxBody is AWS's limit of a DynamoDB request, 16 MB for BatchWriteItem (DynamoDB developer guide, quotas). Its
	// signature covers the body and does not say the hash beforehand, so the body has to be held.
	maxBody = 16 << 20
	// dialTimeout is how long a request waits for a store that is being restarted.
	dialTimeout = 15 * time.Second
	// grace is how long requests in flight may take when the front is closed.
	grace = 5 * time.Second
)

// Service is the API that a front stands before.
type Service string

// Services, by the names that signatures have for them.
const (
	S3       Service = "s3"
	DynamoDB Service = "dynamodb"
)

// Options of a front. All are needed.
type Options struct {
	Service Service
	// Keys are the functions'; KeyFile.Secret is the one of production.
	Keys sigv4.Keys
	// Store is the key that the store knows.
	Store sigv4.Credentials
	// Dial connects to the store and may wait for it.
	Dial   func(context.Context) (net.Conn, error)
	Logger *slog.Logger
}

// Front serves listeners.
type Front struct {
	server    *http.Server
	transport *http.Transport
	ended     chan error
	count     int
}

// Start serves the listeners, which are its own from now on, until Close.
func Start(listeners []net.Listener, o Options) *Front {
	h := newHandler(o)
	f := &Front{
		server: &http.Server{
			Handler:           h,
			ReadHeaderTimeout: 10 * time.Second,
			IdleTimeout:       2 * time.Minute,
			ErrorLog:          slog.NewLogLogger(o.Logger.Handler(), slog.LevelDebug),
		},
		transport: h.transport,
		ended:     make(chan error, len(listeners)),
		count:     len(listeners),
	}
	for _, l := range listeners {
		go func() { f.ended <- f.server.Serve(l) }()
	}
	return f
}

// Close lets requests in flight end, within bounds, and waits until nothing runs any more. It may be called once.
func (f *Front) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), grace)
	defer cancel()
	err := f.server.Shutdown(ctx)
	if err != nil {
		err = f.server.Close()
	}
	for range f.count {
		if ended := <-f.ended; !errors.Is(ended, http.ErrServerClosed) {
			err = errors.Join(err, ended)
		}
	}
	f.transport.CloseIdleConnections()
	return err
}

// Handler returns the front as a handler.
func Handler(o Options) http.Handler { return newHandler(o) }

type handler struct {
	opts      Options
	verifier  *sigv4.Verifier
	proxy     *httputil.ReverseProxy
	transport *http.Transport
}

func newHandler(o Options) *handler {
	h := &handler{opts: o, verifier: sigv4.NewVerifier(string(o.Service), o.Keys)}
	h.transport = &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			ctx, cancel := context.WithTimeout(ctx, dialTimeout)
			defer cancel()
			return o.Dial(ctx)
		},
		MaxIdleConnsPerHost:   64,
		IdleConnTimeout:       time.Minute,
		ExpectContinueTimeout: time.Second,
		DisableCompression:    true,
		WriteBufferSize:       64 << 10,
		ReadBufferSize:        64 << 10,
	}
	h.proxy = &httputil.ReverseProxy{
		Rewrite:      h.rewrite,
		Transport:    h.transport,
		ErrorHandler: h.failed,
		ModifyResponse: func(r *http.Response) error {
			if _, ok := r.Header["Content-Type"]; !ok {
				r.Header["Content-Type"] = nil // the server would guess one
			}
			return nil
		},
		// As soon as it comes: some answers are watched while they grow.
		FlushInterval: -1,
		BufferPool:    newBuffers(),
		ErrorLog:      slog.NewLogLogger(o.Logger.Handler(), slog.LevelDebug),
	}
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
	if !functionkeys.IsID(accessKeyID(r)) {
		h.proxy.ServeHTTP(w, r)
		return
	}
	// A copy: by its own request the server knows what of the body was not read.
	c := &checked{}
	r = r.Clone(context.WithValue(r.Context(), contextKey{}, c))
	var err error
	if *c, err = h.check(w, r); err != nil {
		h.refuse(w, r, err)
		return
	}
	h.proxy.ServeHTTP(w, r)
}

// accessKeyID returns whose signature a request says it has, without checking anything.
func accessKeyID(r *http.Request) string {
	credential := ""
	if _, rest, ok := strings.Cut(r.Header.Get("Authorization"), "Credential="); ok {
		credential = rest
	} else if strings.Contains(r.URL.RawQuery, "X-Amz-Credential=") {
		// ParseQuery gives what it could read.
		query, _ := url.ParseQuery(r.URL.RawQuery)
		credential = query.Get("X-Amz-Credential")
	}
	id, _, _ := strings.Cut(credential, "/")
	return id
}

// check checks a function's signature, and prepares the body for the store.
func (h *handler) check(w http.ResponseWriter, r *http.Request) (checked, error) {
	if h.opts.Service == DynamoDB {
		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
		if err != nil {
			return checked{}, err
		}
		signature, err := h.verifier.Verify(r, body)
		if err != nil {
			return checked{}, err
		}
		r.Body, r.ContentLength, r.TransferEncoding = io.NopCloser(bytes.NewReader(body)), int64(len(body)), nil
		return checked{signature: signature, payload: signature.Payload}, nil
	}
	signature, err := h.verifier.VerifyHead(r)
	if err != nil {
		return checked{}, err
	}
	c := checked{signature: signature, payload: signature.Payload}
	switch signature.Payload {
	case sigv4.StreamingPayload, sigv4.StreamingPayloadTrailer:
		c.payload, err = h.decode(r, signature)
	default:
		// Of a body whose hash is signed, the store checks the hash too, and a body with unsigned chunks is its own format.
		r.Body = signature.Body(r.Body)
	}
	return c, err
}

// rewrite makes the request that goes to the store.
func (h *handler) rewrite(r *httputil.ProxyRequest) {
	r.Out.URL.Scheme, r.Out.URL.Host = "http", string(h.opts.Service)
	// The proxy drops parameters that it cannot parse; the store must see what was signed.
	r.Out.URL.RawQuery = r.In.URL.RawQuery
	r.Out.Host = r.In.Host
	c, ok := r.In.Context().Value(contextKey{}).(*checked)
	if !ok {
		return
	}
	sigv4.Resign(r.Out, c.signature, h.opts.Store, c.payload, time.Now())
}

// failed answers when the store gave no answer, or the body turned out not to be what was signed.
func (h *handler) failed(w http.ResponseWriter, r *http.Request, err error) {
	if r.Context().Err() != nil {
		return // the client has left
	}
	h.refuse(w, r, err)
}
