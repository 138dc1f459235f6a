// Package httpapi is the gateway's HTTP front: the public listeners, the path of a request from client to function and back, and
// the login. Echo serves the gateway's own endpoints; calls of functions go past it, through a plain http.Handler.
package httpapi

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/edge-serverless-box/esb/gateway"
	"github.com/edge-serverless-box/esb/gateway/auth"
	"github.com/edge-serverless-box/esb/gateway/event"
	"github.com/edge-serverless-box/esb/gateway/framelimit"
	"github.com/edge-serverless-box/esb/gateway/internal/listener"
	"github.com/edge-serverless-box/esb/gateway/lambdaapi"
	"github.com/edge-serverless-box/esb/guard/budget"
	"github.com/edge-serverless-box/esb/guard/connlimit"
)

const (
	// maxStreams is how many requests an HTTP/2 connection may have at once.
	maxStreams = 100
	// closeTimeout bounds how long requests may take to notice that their connection was closed.
	closeTimeout = 5 * time.Second
)

// Invoker calls functions; invoke.Invoker is the one of production. It must not use the invocation's Payload after
// it has returned, and gives the result's Payload away.
type Invoker interface {
	Invoke(ctx context.Context, fn *gateway.Function, inv gateway.Invocation) (gateway.Result, error)
	// InvokeStream passes the result to w while it arrives.
	InvokeStream(ctx context.Context, fn *gateway.Function, inv gateway.Invocation, w gateway.StreamWriter) (gateway.Result, error)
}

// Options of a Server. All are needed unless they say otherwise.
type Options struct {
	// HTTPSAddrs (GATEWAY_HTTPS_ADDR) and HTTPAddrs (GATEWAY_HTTP_ADDR) are "host:port"; none is none.
	HTTPSAddrs []string
	HTTPAddrs  []string
	// Connections bounds those of HTTPSAddrs and HTTPAddrs together.
	Connections connlimit.Bounds
	// Memory bounds what requests hold: bodies, events and answers; nil does not.
	Memory *budget.Budget
	// TLS serves HTTPSAddrs.
	TLS *tls.Config
	// LoginPath is where tokens are handed out (AUTH_ENDPOINT_PATH).
	LoginPath string
	// Auth hands them out.
	Auth    *auth.Authenticator
	Events  *event.Builder
	Invoker Invoker
	// Admission refuses requests for which no worker can even be waited for, before anything is done for them; nil refuses none.
	Admission Admission
	// StreamIdle ends a stream in which nothing moves. Default: 5 minutes (AWS).
	StreamIdle time.Duration
	// Lambda answers the paths of Lambda's API; nil for none.
	Lambda *lambdaapi.API
	// Containers answers containermetrics.Path.
	Containers func(ctx context.Context) ([]gateway.Container, error)
	// Sockets are bound already; what is not among them is bound by Open.
	Sockets *listener.Sockets
	// Registry takes the server's metrics.
	Registry prometheus.Registerer
	Logger   *slog.Logger
	// AccessLog gets one line for each request, in one call, and must not keep it. It should not write unbuffered.
	AccessLog io.Writer
	// AccessLevel is the least level of those lines.
	AccessLevel slog.Level
}

// Server is the HTTP front. Open binds its listeners, Serve begins to answer, Shutdown ends it.
type Server struct {
	front     *front
	listeners *listener.Set
}

// Open binds all listeners, so that a port in use is known before anything else has begun.
func Open(ctx context.Context, o Options) (*Server, error) {
	s := &Server{front: newFront(o), listeners: listener.NewSet("public", o.Connections, o.Registry, o.Logger, o.Sockets)}
	floods := new(atomic.Uint64)
	registerGuards(o.Registry, floods, o.Memory)
	add := func(setting, scheme string, addrs []string) error {
		for _, addr := range addrs {
			l, err := s.listeners.Add(ctx, setting, addr, scheme)
			if err != nil {
				return err
			}
			l.Server.Handler = s.front.on(scheme, l.Port())
			if scheme != "https" {
				continue
			}
			l.Server.TLSConfig = o.TLS.Clone()
			l.Server.HTTP2 = &http.HTTP2Config{MaxConcurrentStreams: maxStreams}
			if err := framelimit.Configure(l.Server, func() { floods.Add(1) }); err != nil {
				return err
			}
		}
		return nil
	}
	err := add("GATEWAY_HTTPS_ADDR", "https", o.HTTPSAddrs)
	if err == nil {
		err = add("GATEWAY_HTTP_ADDR", "http", o.HTTPAddrs)
	}
	if err != nil {
		return nil, errors.Join(err, s.listeners.Close())
	}
	return s, nil
}

// Use makes r, and all of it at once, what requests are answered by from now on; those that have begun keep theirs.
func (s *Server) Use(r *Routing) { s.front.routing.Store(r) }

// Serve begins to answer. A listener that fails later is reported by Failed.
func (s *Server) Serve() { s.listeners.Serve() }

// Failed delivers the error of a listener that ended by itself.
func (s *Server) Failed() <-chan error { return s.listeners.Failed() }

// Addrs returns the bound addresses for a scheme: "https" or "http".
func (s *Server) Addrs(scheme string) []net.Addr { return s.listeners.Addrs(scheme) }

// LetGo has clients make new connections for their next requests, serves that long, and then accepts no more.
func (s *Server) LetGo(ctx context.Context, during time.Duration) { s.listeners.LetGo(ctx, during) }

// Bound are the sockets that are listened on.
func (s *Server) Bound() map[string]net.Listener { return s.listeners.Bound() }

// Shutdown accepts no more connections, waits for the requests in flight until ctx ends, and then breaks those that are left. It
// returns when all requests have ended.
func (s *Server) Shutdown(ctx context.Context) error {
	return errors.Join(s.listeners.Shutdown(ctx), s.front.flights.wait(ctx))
}

// Close gives the addresses of a Server back that does not serve.
func (s *Server) Close() error { return s.listeners.Close() }

// flights counts the requests in flight, so that a stop can wait for them also when their connections were closed.
type flights struct {
	// mu guards n and idle; idle is closed when n falls to 0, and nil when nobody waits.
	mu   sync.Mutex
	n    int
	idle chan struct{}
}

func (f *flights) begin() {
	f.mu.Lock()
	f.n++
	f.mu.Unlock()
}

func (f *flights) end() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.n--
	if f.n == 0 && f.idle != nil {
		close(f.idle)
		f.idle = nil
	}
}

func (f *flights) count() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.n
}

// wait returns when no request is in flight. Their connections are closed, so this is soon: closeTimeout bounds it
// against a request that does not notice, also when ctx has ended already.
func (f *flights) wait(ctx context.Context) error {
	f.mu.Lock()
	if f.n == 0 {
		f.mu.Unlock()
		return nil
	}
	if f.idle == nil {
		f.idle = make(chan struct{})
	}
	idle := f.idle
	f.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeTimeout)
	defer cancel()
	select {
	case <-idle:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("%d requests did not end %v after their connections were closed", f.count(), closeTimeout)
	}
}
