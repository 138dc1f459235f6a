// Package front is what stands in front of a store: a server with bounds, a proxy to the store's process, and who asks. The
// packages s3front and dynamofront know the two APIs.
package front

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"net/netip"
	"time"

	"github.com/edge-serverless-box/esb/guard/budget"
	"github.com/edge-serverless-box/esb/guard/connlimit"
	"github.com/edge-serverless-box/esb/guard/memlimit"
	"github.com/edge-serverless-box/esb/guard/upload"
)

const (
	// headerTimeout and idleTimeout bound what a connection may wait for the next request.
	headerTimeout, idleTimeout = 10 * time.Second, 2 * time.Minute
	// grace is how long requests in flight may take when a server is closed.
	grace = 5 * time.Second
	// Connections in all, of one address, of the function network, and of one container.
	maxConns, maxConnsPerAddress           = 4096, 2048
	maxFunctionConns, maxConnsPerContainer = 2048, 256
	// maxHeader bounds the headers of a request: 8 KB of S3 (its user guide, "Common request headers"), and a long URL.
	maxHeader = 64 << 10
	// bodyTimeout is how long a body may take, bytesPerSecond how slow a longer one may be.
	bodyTimeout, bytesPerSecond = 60 * time.Second, 16 << 10
	// dialTimeout is how long a request waits for a store that is being restarted.
	dialTimeout = 15 * time.Second
	// bufferSize is that of each buffer through which a body goes.
	bufferSize = 32 << 10
)

// RequestCost is about what a request holds in buffers while it is passed on, in bytes.
const RequestCost = 4 * bufferSize

// Of the memory that the process may use, this share may be held for requests, and never more than the most.
const (
	budgetShare = 0.4
	budgetMost  = 160 << 20
)

// Budget tells Go's runtime how much memory this process may use, and returns the bytes that all fronts of the process
// together may hold for requests.
func Budget(getenv func(string) string, log *slog.Logger) (*budget.Budget, error) {
	limit, err := memlimit.Apply(getenv)
	if err != nil {
		return nil, err
	}
	b := budget.New(limit.Budget(budgetShare, budgetMost))
	log.Info("memory", "limit_mb", limit.Bytes>>20, "limit_by", limit.Source, "requests_mb", b.Limit()>>20)
	return b, nil
}

// Server serves listeners.
type Server struct {
	server *http.Server
	ended  chan error
	count  int
}

// Start serves the listeners, which are its own from now on, until Close. network is that of the functions, which have
// bounds of their own.
func Start(listeners []net.Listener, handler http.Handler, network netip.Prefix, log *slog.Logger) *Server {
	bounds := connlimit.Bounds{Total: maxConns, PerAddress: maxConnsPerAddress}
	if network.IsValid() {
		bounds.Networks = []connlimit.Network{{Name: "functions", Prefix: network, Total: maxFunctionConns, PerAddress: maxConnsPerContainer}}
	}
	limiter := connlimit.New(bounds)
	s := &Server{
		server: &http.Server{
			Handler:           upload.Handler(upload.Limits{Within: bodyTimeout, BytesPerSecond: bytesPerSecond}, handler),
			ReadHeaderTimeout: headerTimeout,
			IdleTimeout:       idleTimeout,
			MaxHeaderBytes:    maxHeader,
			ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelDebug),
		},
		ended: make(chan error, len(listeners)),
		count: len(listeners),
	}
	for _, l := range listeners {
		go func() { s.ended <- s.server.Serve(limiter.Listener(l)) }()
	}
	return s
}

// Close lets requests in flight end, within bounds, and waits until nothing runs any more. It may be called once.
func (s *Server) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), grace)
	defer cancel()
	err := s.server.Shutdown(ctx)
	if err != nil {
		err = s.server.Close()
	}
	for range s.count {
		if ended := <-s.ended; !errors.Is(ended, http.ErrServerClosed) {
			err = errors.Join(err, ended)
		}
	}
	return err
}

// Dial connects to a store and may wait for it.
type Dial func(context.Context) (net.Conn, error)

// Proxy returns a proxy to a store. rewrite prepares each request once its target is the store; failed answers when the
// store does not.
func Proxy(dial Dial, rewrite func(*httputil.ProxyRequest), failed func(http.ResponseWriter, *http.Request, error), log *slog.Logger) *httputil.ReverseProxy {
	return &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.Out.URL.Scheme, r.Out.URL.Host = "http", "store"
			// The proxy drops parameters that it cannot parse; the store must see what was signed.
			r.Out.URL.RawQuery = r.In.URL.RawQuery
			r.Out.Host = r.In.Host
			rewrite(r)
		},
		Transport: &http.Transport{
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				ctx, cancel := context.WithTimeout(ctx, dialTimeout)
				defer cancel()
				return dial(ctx)
			},
			MaxIdleConnsPerHost:   64,
			IdleConnTimeout:       time.Minute,
			ExpectContinueTimeout: time.Second,
			DisableCompression:    true,
			WriteBufferSize:       bufferSize,
			ReadBufferSize:        bufferSize,
		},
		ErrorHandler: func(w http.ResponseWriter, r *http.Request, err error) {
			if r.Context().Err() == nil { // else the client has left
				failed(w, r, err)
			}
		},
		ModifyResponse: func(r *http.Response) error {
			if _, ok := r.Header["Content-Type"]; !ok {
				r.Header["Content-Type"] = nil // the server would guess one
			}
			return nil
		},
		// No FlushInterval: answers of unknown length, which are watched while they grow, are passed on as they come in any
		// case. Headers ahead of a short body make the AWS SDK for Go close the connection in between, once in a thousand times:
		// it closes a request's body when the headers come, and its transport may still be reading that.
		BufferPool: newBuffers(),
		ErrorLog:   slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
}

// CloseIdle closes the connections of a proxy that no request uses.
func CloseIdle(p *httputil.ReverseProxy) {
	if t, ok := p.Transport.(*http.Transport); ok {
		t.CloseIdleConnections()
	}
}
