// Package listener binds the addresses of the gateway and serves HTTP on them, the public ones and the operator's alike.
package listener

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/edge-serverless-box/esb/guard/connlimit"
	"github.com/edge-serverless-box/esb/guard/listen"
)

// Times and sizes of a client's connection. They are no settings: they bound what one client can hold.
const (
	// BodyTimeout bounds how long a body may take to arrive; whoever serves requests keeps to it.
	BodyTimeout = 60 * time.Second
	// headerTimeout bounds how long request line and headers may take to arrive.
	headerTimeout = 10 * time.Second
	// writeTimeout bounds a whole request from its headers on: its body, the longest route timeout (29 s), and
	// a slow client's reading of the answer. Routes that stream set deadlines of their own.
	writeTimeout = BodyTimeout + 120*time.Second
	// idleTimeout closes a connection that is kept alive for nothing.
	idleTimeout = 75 * time.Second
	// freshLimit is how long a connection on which no request comes keeps a gateway from ending whose sockets another one has.
	freshLimit = time.Second
	// parserHeaderBytes is where the HTTP parser gives up; below it, a request is refused with an answer.
	parserHeaderBytes = 32 << 10
)

// Listener is one bound address and the server that answers on it.
type Listener struct {
	net.Listener
	// Server has the times and sizes of all; who adds the listener sets its handler.
	Server  *http.Server
	setting string // the environment variable that names the address
	scheme  string
	// bound is what is listened on, under the bounds of connections, and name what it is known by to the next gateway.
	bound net.Listener
	name  string
}

// Set are the listeners of one kind. They are added, then served, then shut down.
type Set struct {
	limit     *connlimit.Limiter
	log       *slog.Logger
	listeners []*Listener
	failed    chan error
	serving   sync.WaitGroup
	// sockets are bound already; nil for none.
	sockets *Sockets
	// closing has each answer be the last one of its connection.
	closing atomic.Bool
	// mu guards fresh: connections that were made since then and on which nothing has come yet.
	mu    sync.Mutex
	fresh map[net.Conn]bool
}

// NewSet returns a Set whose connections are bounded together. Its metrics name the kind. It takes the sockets that it needs from those
// that are bound already.
func NewSet(kind string, bounds connlimit.Bounds, metrics prometheus.Registerer, log *slog.Logger, sockets *Sockets) *Set {
	s := &Set{limit: connlimit.New(bounds), log: log, failed: make(chan error, 1), sockets: sockets, fresh: map[net.Conn]bool{}}
	metrics.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "esb_connections_open", Help: "Connections of clients.", ConstLabels: prometheus.Labels{"listener": kind},
	}, func() float64 { return float64(s.limit.Open()) }))
	for _, reason := range connlimit.Reasons() {
		metrics.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{
			Name:        "esb_connections_refused_total",
			Help:        "Connections that were closed at once, by the bound that they are above: total, address, network; evicted is an old one that gave way.",
			ConstLabels: prometheus.Labels{"listener": kind, "reason": reason.String()},
		}, func() float64 { return float64(s.limit.Refused(reason)) }))
	}
	return s
}

// Add binds addr, the value of a setting, so that a port in use is known before anything else has begun.
func (s *Set) Add(ctx context.Context, setting, addr, scheme string) (*Listener, error) {
	bound := s.sockets.take(setting, addr)
	if bound == nil {
		var err error
		if bound, err = listen.One(ctx, setting, addr); err != nil {
			return nil, err
		}
	}
	l := &Listener{Listener: s.limit.Listener(bound), setting: setting, scheme: scheme, bound: bound, name: listen.Name(setting, addr), Server: &http.Server{
		ReadHeaderTimeout: headerTimeout,
		WriteTimeout:      writeTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    parserHeaderBytes,
		// "OPTIONS *" is a request like any other: no route.
		DisableGeneralOptionsHandler: true,
		// What a client does to its connection is no fault of the box.
		ErrorLog:  slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
		ConnState: s.watch,
	}}
	s.listeners = append(s.listeners, l)
	return l, nil
}

// Serve begins to answer. A listener that fails later is reported by Failed.
func (s *Set) Serve() {
	for _, l := range s.listeners {
		s.log.Info("listening", "scheme", l.scheme, "addr", l.Addr().String())
		l.Server.Handler = s.last(l.Server.Handler)
		s.serving.Go(func() {
			if err := l.serve(); !errors.Is(err, http.ErrServerClosed) && !s.closing.Load() {
				select {
				case s.failed <- fmt.Errorf("%s: serve on %s: %w", l.setting, l.Addr(), err):
				default: // one is enough to end the gateway
				}
			}
		})
	}
}

// last is handler, which says of each answer that it is the last one of its connection when it is.
func (s *Set) last(handler http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if s.closing.Load() {
			w.Header()["Connection"] = []string{"close"}
		}
		handler.ServeHTTP(w, r)
	})
}

// watch notes which connections are fresh, once that is of use.
func (s *Set) watch(c net.Conn, state http.ConnState) {
	if !s.closing.Load() {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if state == http.StateNew {
		s.fresh[c] = true
	} else {
		delete(s.fresh, c)
	}
}

// LetGo has clients make new connections for their next requests, which are taken for some time more, and then no more: a connection that
// is closed while nobody answers on it may lose the request that its client is just sending. When it returns, the sockets are another
// process's alone, and Shutdown breaks nothing: it drops requests that come on connections on which none has come before.
func (s *Set) LetGo(ctx context.Context, during time.Duration) {
	s.closing.Store(true)
	serving, cancel := context.WithTimeout(ctx, during)
	defer cancel()
	<-serving.Done()
	for _, l := range s.listeners {
		_ = l.Close() // once more in Shutdown
	}
	s.serving.Wait()
	waiting, cancel := context.WithTimeout(ctx, freshLimit)
	defer cancel()
	ticker := time.NewTicker(time.Millisecond)
	defer ticker.Stop()
	for {
		s.mu.Lock()
		n := len(s.fresh)
		s.mu.Unlock()
		if n == 0 {
			return
		}
		select {
		case <-waiting.Done():
			return
		case <-ticker.C:
		}
	}
}

// Bound are the sockets that are listened on, by the names that Sockets knows them by.
func (s *Set) Bound() map[string]net.Listener {
	bound := make(map[string]net.Listener, len(s.listeners))
	for _, l := range s.listeners {
		bound[l.name] = l.bound
	}
	return bound
}

// Failed delivers the error of a listener that ended by itself.
func (s *Set) Failed() <-chan error { return s.failed }

// Addrs returns the bound addresses for a scheme.
func (s *Set) Addrs(scheme string) []net.Addr {
	var addrs []net.Addr
	for _, l := range s.listeners {
		if l.scheme == scheme {
			addrs = append(addrs, l.Addr())
		}
	}
	return addrs
}

// Shutdown accepts no more connections, waits for the requests in flight until ctx ends, and then closes the connections of those
// that are left.
func (s *Set) Shutdown(ctx context.Context) error {
	errs := make([]error, len(s.listeners))
	var wg sync.WaitGroup
	for i, l := range s.listeners {
		wg.Go(func() {
			if err := l.Server.Shutdown(ctx); err != nil {
				errs[i] = errors.Join(fmt.Errorf("stop %s: requests in flight were broken: %w", l.Addr(), err), l.Server.Close())
			}
		})
	}
	wg.Wait()
	s.serving.Wait()
	// A server that was never served does not know its listener.
	return errors.Join(errors.Join(errs...), s.Close())
}

// Close gives the addresses of listeners back that are not served.
func (s *Set) Close() error {
	var errs []error
	for _, l := range s.listeners {
		if err := l.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// Port is the port that is bound.
func (l *Listener) Port() string {
	_, port, _ := net.SplitHostPort(l.Addr().String())
	return port
}

func (l *Listener) serve() error {
	if l.Server.TLSConfig != nil {
		return l.Server.ServeTLS(l.Listener, "", "")
	}
	return l.Server.Serve(l.Listener)
}
