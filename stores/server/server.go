// Package server serves the HTTP fronts of stores.
package server

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"sync/atomic"
	"time"

	"github.com/edge-serverless-box/esb/guard/connlimit"
	"github.com/edge-serverless-box/esb/stores/basicauth"
)

// FewConns bounds the connections of all listeners of a front that has few clients.
const FewConns = 512

const (
	// dialTimeout is how long a request waits for a store that is being restarted.
	dialTimeout = 15 * time.Second
	// grace is how long requests in flight may take when a front is closed.
	grace = 5 * time.Second
)

// Server serves listeners.
type Server struct {
	server *http.Server
	ended  chan error
	count  int
	// closing has each answer be the last one of its connection.
	closing atomic.Bool
}

// Start serves the listeners, which are its own from now on, with no more connections than bounds says, until Close.
func Start(listeners []net.Listener, handler http.Handler, bounds connlimit.Bounds, log *slog.Logger) *Server {
	s := &Server{
		server: &http.Server{
			ReadHeaderTimeout: 10 * time.Second,
			IdleTimeout:       2 * time.Minute,
			MaxHeaderBytes:    64 << 10,
			ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelDebug),
		},
		ended: make(chan error, len(listeners)),
		count: len(listeners),
	}
	s.server.Handler = s.last(handler)
	limiter := connlimit.New(bounds)
	for _, l := range listeners {
		go func() { s.ended <- s.server.Serve(limiter.Listener(l)) }()
	}
	return s
}

// last is handler, which says of each answer that it is the last one of its connection when it is.
func (s *Server) last(handler http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if s.closing.Load() {
			w.Header().Set("Connection", "close")
		}
		handler.ServeHTTP(w, r)
	})
}

// LetGo has clients, which are served on, make new connections for their next requests: one that is closed while nobody answers on it may
// lose the request that its client is just sending.
func (s *Server) LetGo() { s.closing.Store(true) }

// Close lets requests in flight end, within bounds, and waits until nothing runs any more. It may be called once.
func (s *Server) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), grace)
	defer cancel()
	err := s.server.Shutdown(ctx)
	if err != nil {
		err = s.server.Close() // a query that follows the log never ends by itself
	}
	for range s.count {
		if ended := <-s.ended; !errors.Is(ended, http.ErrServerClosed) {
			err = errors.Join(err, ended)
		}
	}
	return err
}

// Proxy hands requests to a store, without the credentials that its front has checked, and with those of its own where it
// has any. dial connects to the store and may wait for it. What the store answers is passed on as it comes.
func Proxy(name string, own basicauth.Credentials, dial func(context.Context) (net.Conn, error), log *slog.Logger) *httputil.ReverseProxy {
	return &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.Out.URL.Scheme, r.Out.URL.Host = "http", name
			r.Out.Host = r.In.Host
			r.Out.Header.Del("Authorization")
			if own.User != "" {
				r.Out.SetBasicAuth(own.User, own.Password)
			}
		},
		Transport: &http.Transport{
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				ctx, cancel := context.WithTimeout(ctx, dialTimeout)
				defer cancel()
				return dial(ctx)
			},
			MaxIdleConnsPerHost: 16,
			IdleConnTimeout:     time.Minute,
			DisableCompression:  true,
		},
		FlushInterval: -1,
		ErrorHandler: func(w http.ResponseWriter, r *http.Request, err error) {
			if r.Context().Err() == nil {
				log.Warn("a request to a store failed", "store", name, "error", err)
			}
			Refuse(w, http.StatusBadGateway, "The store does not answer.")
		},
		ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
}

// Refuse answers and closes the connection.
func Refuse(w http.ResponseWriter, status int, why string) {
	w.Header().Set("Connection", "close")
	http.Error(w, why, status)
}
