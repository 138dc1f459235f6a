// Package loginsert takes log lines that functions post, as VictoriaLogs would, and nothing else: a function can add lines
// and neither read, change nor delete any. Whose lines they are is told by the address that a connection comes from,
// whatever the lines say, and each container has its own share of the rate.
package loginsert

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"time"

	"github.com/edge-serverless-box/esb/agent/logshare"
	"github.com/edge-serverless-box/esb/guard/connlimit"
	"github.com/edge-serverless-box/esb/guard/upload"
)

const (
	// Path is where lines are posted, VictoriaLogs' endpoint of JSON lines.
	Path = "/insert/jsonline"
	// maxBody bounds one request; with the connections below it bounds the memory.
	maxBody = 1 << 20
	// Connections in all and of one container.
	maxConns, maxConnsOfOne = 128, 8
	// maxRequests is how many bodies are in memory at once.
	maxRequests = 16
	// bodyTimeout is how long a body may take to come.
	bodyTimeout = 15 * time.Second
	// linesPerSecond is how many lines a container may post, burst of how many seconds it may have at once.
	linesPerSecond = 1000
	burst          = 4
	// grace is how long requests in flight may take when the server is closed.
	grace = 3 * time.Second
)

// Config of a Server.
type Config struct {
	// Addr is the box's own address on the function network, with a port.
	Addr string
	// Source returns the container that has an address, false when none has.
	Source func(netip.Addr) (container, function string, ok bool)
	// Send stores records, which are JSON lines with the fields "time" and "message".
	Send func(ctx context.Context, records []byte) error
	// Shares bound what functions post in a day, together with what they print; nil: there is no bound.
	Shares *logshare.Shares
	// BytesPerSecond is what a container may post.
	BytesPerSecond int
	Logger         *slog.Logger
}

// Server serves until Close.
type Server struct {
	cfg    Config
	server *http.Server
	ended  chan error
	rates  *rates
	slots  chan struct{}
}

// Open listens and serves.
func Open(ctx context.Context, cfg Config) (*Server, error) {
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", cfg.Addr)
	if err != nil {
		return nil, fmt.Errorf("FUNCTION_LOGS_ADDR: take log lines of functions on %s: %w: choose another address, or off", cfg.Addr, err)
	}
	s := newServer(cfg)
	limiter := connlimit.New(connlimit.Bounds{Total: maxConns, PerAddress: maxConnsOfOne})
	go func() { s.ended <- s.server.Serve(limiter.Listener(listener)) }()
	return s, nil
}

func newServer(cfg Config) *Server {
	s := &Server{cfg: cfg, ended: make(chan error, 1), slots: make(chan struct{}, maxRequests), rates: newRates(cfg.BytesPerSecond)}
	s.server = &http.Server{
		Handler:           upload.Handler(upload.Limits{Within: bodyTimeout}, http.HandlerFunc(s.serve)),
		ReadHeaderTimeout: 5 * time.Second,
		IdleTimeout:       time.Minute,
		MaxHeaderBytes:    16 << 10,
		ErrorLog:          slog.NewLogLogger(cfg.Logger.Handler(), slog.LevelDebug),
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
	if ended := <-s.ended; !errors.Is(ended, http.ErrServerClosed) {
		err = errors.Join(err, ended)
	}
	return err
}

func (s *Server) serve(w http.ResponseWriter, r *http.Request) {
	switch {
	case r.URL.Path == "/health" && (r.Method == http.MethodGet || r.Method == http.MethodHead):
		_, _ = io.WriteString(w, "OK") // who asks may have left
		return
	case r.URL.Path != Path:
		refuse(w, http.StatusNotFound, "Functions may post JSON lines to "+Path+", nothing else.")
		return
	case r.Method != http.MethodPost:
		w.Header().Set("Allow", http.MethodPost)
		refuse(w, http.StatusMethodNotAllowed, "Lines are posted.")
		return
	case r.Header.Get("Content-Encoding") != "":
		refuse(w, http.StatusUnsupportedMediaType, "Lines are taken as they are, without a Content-Encoding.")
		return
	}
	names, err := readNames(r)
	if err != nil {
		refuse(w, http.StatusBadRequest, err.Error())
		return
	}
	peer, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		refuse(w, http.StatusForbidden, "It is not known who posts.")
		return
	}
	container, function, known := s.cfg.Source(peer.Addr().Unmap())
	if !known {
		refuse(w, http.StatusForbidden, "Lines are taken from containers of functions only.")
		return
	}
	if wait := s.rates.wait(container); wait > 0 {
		tooMany(w, r, wait)
		return
	}
	select {
	case s.slots <- struct{}{}:
		defer func() { <-s.slots }()
	default:
		tooMany(w, r, time.Second)
		return
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &tooLarge):
		refuse(w, http.StatusRequestEntityTooLarge, fmt.Sprintf("A request may have %d bytes.", maxBody))
		return
	case err != nil:
		refuse(w, http.StatusBadRequest, "The lines could not be read.")
		return
	}
	records, lines, err := rewrite(body, names, container, function, time.Now())
	// What is wrong costs its sender as much as what is right.
	s.rates.spend(container, len(body), lines)
	switch {
	case err != nil:
		refuse(w, http.StatusBadRequest, err.Error())
	case lines == 0:
		w.WriteHeader(http.StatusOK)
	case !s.cfg.Shares.Take(function, int64(len(records)), lines):
		w.Header().Set("Retry-After", "3600")
		refuse(w, http.StatusTooManyRequests, "The function has used up its share of today's log.")
	default:
		if err := s.cfg.Send(r.Context(), records); err != nil {
			if r.Context().Err() == nil {
				s.cfg.Logger.Warn("lines that a function posted could not be stored", "function", function, "container_id", container, "lines", lines, "error", err.Error())
			}
			w.Header().Set("Retry-After", "5")
			refuse(w, http.StatusServiceUnavailable, "The lines could not be stored; post them again later.")
			return
		}
		w.WriteHeader(http.StatusOK)
	}
}

// tooMany reads the body away first, without keeping it: a client that is still sending when its connection is closed
// meets a reset, and neither the status nor when to come again.
func tooMany(w http.ResponseWriter, r *http.Request, wait time.Duration) {
	if r.ContentLength <= maxBody {
		_, _ = io.Copy(io.Discard, io.LimitReader(r.Body, maxBody)) // who stops half way gets the answer all the same
	}
	w.Header().Set("Retry-After", strconv.Itoa(int(math.Ceil(wait.Seconds()))))
	refuse(w, http.StatusTooManyRequests, "Too many lines: print them to standard output, or post them more slowly.")
}

func refuse(w http.ResponseWriter, status int, why string) {
	http.Error(w, why, status)
}
