// Package front is what the fronts of S3 and of the DynamoDB API have in common: bounds, a proxy to the store, and who asks. The packages
// s3front and dynamofront know the two APIs.
package front

import (
	"context"
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
	"github.com/edge-serverless-box/esb/stores/server"
)

const (
	// Connections in all, of one address, of the function network, and of one container.
	maxConns, maxConnsPerAddress           = 4096, 2048
	maxFunctionConns, maxConnsPerContainer = 2048, 256
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

// Front serves listeners for a store.
type Front struct {
	server *server.Server
	proxy  *httputil.ReverseProxy
}

// Start serves the listeners, which are the front's own from now on, until Close. handler passes requests on to the store through
// proxy. network is that of the functions, which have bounds of their own.
func Start(listeners []net.Listener, handler http.Handler, proxy *httputil.ReverseProxy, network netip.Prefix, log *slog.Logger) *Front {
	bounds := connlimit.Bounds{Total: maxConns, PerAddress: maxConnsPerAddress}
	if network.IsValid() {
		bounds.Networks = []connlimit.Network{{Name: "functions", Prefix: network, Total: maxFunctionConns, PerAddress: maxConnsPerContainer}}
	}
	limits := upload.Limits{Within: bodyTimeout, BytesPerSecond: bytesPerSecond}
	return &Front{server: server.Start(listeners, upload.Handler(limits, handler), bounds, log), proxy: proxy}
}

// LetGo has clients make new connections for their next requests.
func (f *Front) LetGo() { f.server.LetGo() }

// Close lets requests in flight end, within bounds, and waits until nothing runs any more. It may be called once.
func (f *Front) Close() error {
	err := f.server.Close()
	if t, ok := f.proxy.Transport.(*http.Transport); ok {
		t.CloseIdleConnections()
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
