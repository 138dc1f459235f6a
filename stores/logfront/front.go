// Package logfront stands in front of VictoriaLogs, whose own port does more than any client of the box should: one GET
// takes a day's logs away. It lets queries and inserts through for who has the credentials, health for everybody, and
// nothing else.
package logfront

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"path"
	"strings"
	"time"

	"github.com/edge-serverless-box/esb/guard/connlimit"
	"github.com/edge-serverless-box/esb/guard/origin"
	"github.com/edge-serverless-box/esb/guard/upload"
	"github.com/edge-serverless-box/esb/stores/basicauth"
)

const (
	// maxQuery bounds the form of a query.
	maxQuery = 1 << 20
	// bodyTimeout is how long a body may take to come.
	bodyTimeout = 60 * time.Second
	// maxConns bounds the connections of all listeners.
	maxConns = 512
	// dialTimeout is how long a request waits for a VictoriaLogs that is being restarted.
	dialTimeout = 15 * time.Second
	// grace is how long requests in flight may take when the front is closed.
	grace = 5 * time.Second
)

// Options of a Front.
type Options struct {
	// Credentials are the operator's and the agent's.
	Credentials basicauth.Credentials
	// Store are the credentials that VictoriaLogs itself asks for.
	Store basicauth.Credentials
	// Dial connects to VictoriaLogs and may wait for it.
	Dial func(context.Context) (net.Conn, error)
	// Full says why no line is taken at present, "" when lines are; nil: they always are.
	Full   func() string
	Logger *slog.Logger
}

// Front serves listeners.
type Front struct {
	server *http.Server
	ended  chan error
	count  int
}

// Start serves the listeners, which are its own from now on, until Close.
func Start(listeners []net.Listener, o Options) *Front {
	f := &Front{
		server: &http.Server{
			Handler:           Handler(o),
			ReadHeaderTimeout: 10 * time.Second,
			IdleTimeout:       2 * time.Minute,
			MaxHeaderBytes:    64 << 10,
			ErrorLog:          slog.NewLogLogger(o.Logger.Handler(), slog.LevelDebug),
		},
		ended: make(chan error, len(listeners)),
		count: len(listeners),
	}
	limiter := connlimit.New(connlimit.Bounds{Total: maxConns})
	for _, l := range listeners {
		go func() { f.ended <- f.server.Serve(limiter.Listener(l)) }()
	}
	return f
}

// Close lets requests in flight end, within bounds, and waits until nothing runs any more. It may be called once.
func (f *Front) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), grace)
	defer cancel()
	err := f.server.Shutdown(ctx)
	if err != nil {
		err = f.server.Close() // a query that follows the log never ends by itself
	}
	for range f.count {
		if ended := <-f.ended; !errors.Is(ended, http.ErrServerClosed) {
			err = errors.Join(err, ended)
		}
	}
	return err
}

// hint is what who has no credentials reads.
const hint = "The log store asks for the user and password of VICTORIALOGS_USER and VICTORIALOGS_PASSWORD; `esb up` says where they are."

// Handler returns the front as a handler.
func Handler(o Options) http.Handler {
	proxy := newProxy(o)
	return upload.Handler(upload.Limits{Within: bodyTimeout}, origin.Guard(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p := r.URL.Path
		query, insert := strings.HasPrefix(p, "/select/"), strings.HasPrefix(p, "/insert/")
		switch {
		case p == "/health" && (r.Method == http.MethodGet || r.Method == http.MethodHead):
		case !query && !insert || !plain(p):
			refuse(w, http.StatusNotFound, "Only /select/, /insert/ and /health are served here.")
			return
		case !o.Credentials.Match(r):
			basicauth.Refuse(w, "esb logs", hint)
			return
		}
		if insert {
			if full := o.full(); full != "" {
				refuse(w, http.StatusInsufficientStorage, full)
				return
			}
			proxy.ServeHTTP(w, r)
			return
		}
		form, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxQuery))
		if err != nil {
			refuse(w, http.StatusBadRequest, "The query could not be read, or has more than 1 MiB.")
			return
		}
		r.Body, r.ContentLength, r.TransferEncoding = io.NopCloser(bytes.NewReader(form)), int64(len(form)), nil
		proxy.ServeHTTP(w, r)
	})))
}

func (o Options) full() string {
	if o.Full == nil {
		return ""
	}
	return o.Full()
}

// plain is false for a path that a server behind could take for another one.
func plain(p string) bool {
	return path.Clean(p) == strings.TrimSuffix(p, "/") && !strings.ContainsAny(p, "\\%\x00")
}

func newProxy(o Options) *httputil.ReverseProxy {
	return &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.Out.URL.Scheme, r.Out.URL.Host = "http", "victorialogs"
			r.Out.Host = r.In.Host
			r.Out.Header.Del("Authorization")
			if o.Store.User != "" {
				r.Out.SetBasicAuth(o.Store.User, o.Store.Password)
			}
		},
		Transport: &http.Transport{
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				ctx, cancel := context.WithTimeout(ctx, dialTimeout)
				defer cancel()
				return o.Dial(ctx)
			},
			MaxIdleConnsPerHost: 16,
			IdleConnTimeout:     time.Minute,
			DisableCompression:  true,
		},
		// Lines that come while the log is followed are handed on at once.
		FlushInterval: -1,
		ErrorHandler: func(w http.ResponseWriter, r *http.Request, err error) {
			if r.Context().Err() == nil {
				o.Logger.Warn("a request to the log store failed", "error", err)
			}
			refuse(w, http.StatusBadGateway, "The log store does not answer.")
		},
		ErrorLog: slog.NewLogLogger(o.Logger.Handler(), slog.LevelDebug),
	}
}

// refuse answers without reading what is left of the body.
func refuse(w http.ResponseWriter, status int, why string) {
	w.Header().Set("Connection", "close")
	http.Error(w, why, status)
}
