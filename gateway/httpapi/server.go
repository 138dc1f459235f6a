// Package httpapi is the gateway's HTTP front: the listeners, the path of a request from client to function and
// back, the login, and the admin endpoints. It is the only package that imports Echo, which serves the gateway's
// own endpoints; calls of functions go past it, through a plain http.Handler.
package httpapi

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
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
	"github.com/edge-serverless-box/esb/gateway/lambdaapi"
	"github.com/edge-serverless-box/esb/gateway/pool"
	"github.com/edge-serverless-box/esb/gateway/schedule"
	"github.com/edge-serverless-box/esb/guard/budget"
	"github.com/edge-serverless-box/esb/guard/connlimit"
	"github.com/edge-serverless-box/esb/guard/upload"
)

// Times and sizes of a client's connection. They are no settings: they bound what one client can hold.
const (
	// readHeaderTimeout bounds how long request line and headers may take to arrive.
	readHeaderTimeout = 10 * time.Second
	// readBodyTimeout bounds how long a body may take to arrive.
	readBodyTimeout = 60 * time.Second
	// writeTimeout bounds a whole request from its headers on: its body, the longest route timeout (29 s), and
	// a slow client's reading of the answer. Routes that stream set deadlines of their own.
	writeTimeout = readBodyTimeout + 120*time.Second
	// idleTimeout closes a connection that is kept alive for nothing.
	idleTimeout = 75 * time.Second
	// parserHeaderBytes is where the HTTP parser gives up; below it, maxHeaderBytes is refused with an answer.
	parserHeaderBytes = 32 << 10
	// maxStreams is how many requests an HTTP/2 connection may have at once.
	maxStreams = 100
	// adminConnections bounds the connections of operators. One more closes the oldest: whoever holds them all keeps nobody
	// out.
	adminConnections = 64
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
	// AdminAddr (GATEWAY_ADMIN_ADDR) is "host:port", empty for none.
	AdminAddr string
	// AdminToken lets an operator in at AdminAddr.
	AdminToken string
	// Connections bounds those of HTTPSAddrs and HTTPAddrs together. The admin listener has a bound of its own.
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
	// StreamIdle ends a stream in which nothing moves. Default: 5 minutes (AWS).
	StreamIdle time.Duration
	// Lambda answers the paths of Lambda's API; nil for none.
	Lambda *lambdaapi.API
	// Dependencies are asked by /readyz.
	Dependencies []Dependency
	// Pools answers /pools.
	Pools func() []pool.State
	// Configuration answers GET /configuration.
	Configuration func() ConfigurationState
	// Containers answers ContainerMetricsPath.
	Containers func(ctx context.Context) ([]gateway.Container, error)
	// Reload answers POST /reload; its error is shown to the operator.
	Reload func() error
	// Async answers the admin endpoints below /async; nil for none.
	Async AsyncQueue
	// Schedules answers /schedules; nil for none.
	Schedules func() []schedule.State
	// Registry takes the server's metrics; /metrics shows them and Gatherer's.
	Registry *prometheus.Registry
	// Gatherer has further metrics; nil for none.
	Gatherer prometheus.Gatherer
	Logger   *slog.Logger
	// AccessLogger gets one line for each request. It should not write unbuffered.
	AccessLogger *slog.Logger
}

// The Status of a ConfigurationState.
const (
	ConfigurationOK      = "ok"
	ConfigurationRefused = "refused"
)

// ConfigurationState says whether what functions.yml, routing.yml and resources.yml say is what holds.
type ConfigurationState struct {
	Status string `json:"status"`
	// RefusedAt is when the files were read last, and Problems why they were refused: the configuration of before holds.
	RefusedAt *time.Time `json:"refused_at,omitempty"`
	Problems  []string   `json:"problems,omitempty"`
	// Substitutes are the runtimes that something else runs than the box's base image for them: "nodejs20.x by nodejs24.x (orders)".
	Substitutes []string `json:"substitutes,omitempty"`
}

// Dependency is something that the gateway cannot work without.
type Dependency struct {
	Name string
	// Check returns nil when it works; its error is shown to the operator.
	Check func(ctx context.Context) error
	// Notes are what the operator should know though it works; nil for none.
	Notes func() []string
}

// Server is the HTTP front. Open binds its listeners, Serve begins to answer, Shutdown ends it.
type Server struct {
	front     *front
	log       *slog.Logger
	listeners []*listener
	failed    chan error
	serving   sync.WaitGroup
}

// Open binds all listeners, so that a port in use is known before anything else has begun.
func Open(ctx context.Context, o Options) (*Server, error) {
	s := &Server{front: newFront(o), log: o.Logger}
	public, admin := connlimit.New(o.Connections), connlimit.New(connlimit.Bounds{Total: adminConnections, Evict: true})
	floods := new(atomic.Uint64)
	registerGuards(o.Registry, guards{public: public, admin: admin, floods: floods, memory: o.Memory})
	add := func(setting, addr, scheme string, handler http.Handler) error {
		l, err := listen(ctx, setting, addr, scheme)
		if err != nil {
			return err
		}
		if scheme == "admin" {
			l.Listener = admin.Listener(l.Listener)
		} else {
			l.Listener = public.Listener(l.Listener)
		}
		l.server = &http.Server{
			Handler:           handler,
			ReadHeaderTimeout: readHeaderTimeout,
			WriteTimeout:      writeTimeout,
			IdleTimeout:       idleTimeout,
			MaxHeaderBytes:    parserHeaderBytes,
			// "OPTIONS *" is a request like any other: no route.
			DisableGeneralOptionsHandler: true,
			// What a client does to its connection is no fault of the box.
			ErrorLog: slog.NewLogLogger(o.Logger.Handler(), slog.LevelDebug),
		}
		s.listeners = append(s.listeners, l)
		return nil
	}
	var err error
	for _, addr := range o.HTTPSAddrs {
		if err == nil {
			err = add("GATEWAY_HTTPS_ADDR", addr, "https", nil)
		}
	}
	for _, addr := range o.HTTPAddrs {
		if err == nil {
			err = add("GATEWAY_HTTP_ADDR", addr, "http", nil)
		}
	}
	for _, l := range s.listeners {
		l.server.Handler = s.front.on(l.scheme, l.port())
		if l.scheme == "https" {
			l.server.TLSConfig = o.TLS.Clone()
			l.server.HTTP2 = &http.HTTP2Config{MaxConcurrentStreams: maxStreams}
			err = errors.Join(err, framelimit.Configure(l.server, func() { floods.Add(1) }))
		}
	}
	if err == nil && o.AdminAddr != "" {
		err = add("GATEWAY_ADMIN_ADDR", o.AdminAddr, "admin", upload.Handler(upload.Limits{Within: readBodyTimeout}, guardAdmin(newAdmin(o), o)))
	}
	if err != nil {
		return nil, errors.Join(err, s.closeListeners())
	}
	s.failed = make(chan error, len(s.listeners))
	return s, nil
}

// Use makes r, and all of it at once, what requests are answered by from now on; those that have begun keep theirs.
func (s *Server) Use(r *Routing) { s.front.routing.Store(r) }

// Serve begins to answer. A listener that fails later is reported by Failed.
func (s *Server) Serve() {
	for _, l := range s.listeners {
		s.log.Info("listening", "scheme", l.scheme, "addr", l.Addr().String())
		s.serving.Go(func() {
			if err := l.serve(); !errors.Is(err, http.ErrServerClosed) {
				s.failed <- fmt.Errorf("%s: serve on %s: %w", l.setting, l.Addr(), err)
			}
		})
	}
}

// Failed delivers the error of a listener that ended by itself.
func (s *Server) Failed() <-chan error { return s.failed }

// Addrs returns the bound addresses for a scheme: "https", "http" or "admin".
func (s *Server) Addrs(scheme string) []net.Addr {
	var addrs []net.Addr
	for _, l := range s.listeners {
		if l.scheme == scheme {
			addrs = append(addrs, l.Addr())
		}
	}
	return addrs
}

// Shutdown accepts no more connections, waits for the requests in flight until ctx ends, and then breaks those that
// are left. The admin listener goes last, so that readiness and metrics show the stop. It returns when all requests
// have ended.
func (s *Server) Shutdown(ctx context.Context) error {
	var public, admin []*listener
	for _, l := range s.listeners {
		if l.scheme == "admin" {
			admin = append(admin, l)
		} else {
			public = append(public, l)
		}
	}
	err := errors.Join(shutdown(ctx, public), s.front.flights.wait(ctx), shutdown(ctx, admin))
	s.serving.Wait()
	// A server that was never served does not know its listener.
	return errors.Join(err, s.closeListeners())
}

func shutdown(ctx context.Context, listeners []*listener) error {
	errs := make([]error, len(listeners))
	var wg sync.WaitGroup
	for i, l := range listeners {
		wg.Go(func() {
			if err := l.server.Shutdown(ctx); err != nil {
				errs[i] = errors.Join(fmt.Errorf("stop %s: requests in flight were broken: %w", l.Addr(), err), l.server.Close())
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

func (s *Server) closeListeners() error {
	var errs []error
	for _, l := range s.listeners {
		if err := l.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

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
