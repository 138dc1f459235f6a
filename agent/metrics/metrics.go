// Package metrics serves the agent's own figures over HTTP, in the text format of Prometheus.
package metrics

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"
)

const (
	// headerTimeout bounds the wait for a request's header.
	headerTimeout = 5 * time.Second
	// closeTimeout bounds the end of a scrape that is being answered when Close is called.
	closeTimeout = 3 * time.Second
)

// Kinds of figures, as Prometheus calls them.
const (
	Counter = "counter"
	Gauge   = "gauge"
)

// Figure is one number.
type Figure struct {
	Name, Kind, Help string
	Value            int64
}

// Server serves GET /metrics until Close.
type Server struct {
	server   *http.Server
	listener net.Listener
	done     chan error
}

// Open starts a server on addr (AGENT_METRICS_ADDR); figures is called for each scrape.
func Open(ctx context.Context, addr string, figures func() []Figure) (*Server, error) {
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("AGENT_METRICS_ADDR: listen on %s: %w: stop what uses the port, or choose another", addr, err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /metrics", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
		write(w, figures())
	})
	s := &Server{server: &http.Server{Handler: mux, ReadHeaderTimeout: headerTimeout}, listener: listener, done: make(chan error, 1)}
	go func() { s.done <- s.server.Serve(listener) }()
	return s, nil
}

// Addr is where the server listens.
func (s *Server) Addr() net.Addr { return s.listener.Addr() }

// Close ends the server and waits for it. It is called once.
func (s *Server) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
	defer cancel()
	err := s.server.Shutdown(ctx)
	if err != nil {
		err = errors.Join(err, s.server.Close())
	}
	if served := <-s.done; !errors.Is(served, http.ErrServerClosed) {
		err = errors.Join(err, served)
	}
	return err
}

func write(w io.Writer, figures []Figure) {
	for _, f := range figures {
		// A scraper that has left needs no answer.
		_, _ = fmt.Fprintf(w, "# HELP %s %s\n# TYPE %s %s\n%s %d\n", f.Name, f.Help, f.Name, f.Kind, f.Name, f.Value)
	}
}
