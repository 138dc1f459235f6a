// Package dynamofront stands in front of a DynamoDB API that accepts anybody: it lets signed requests through and
// answers the others as AWS does.
package dynamofront

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"time"

	"github.com/edge-serverless-box/esb/sigv4"
)

const (
	// maxBody is AWS's limit of a request: 16 MB for BatchWriteItem (DynamoDB developer guide, quotas).
	maxBody = 16 << 20
	// dialTimeout is how long a request waits for a backend that is being restarted.
	dialTimeout = 15 * time.Second
	// grace is how long requests in flight may take when the front is closed.
	grace = 5 * time.Second
)

// Front serves listeners.
type Front struct {
	server *http.Server
	ended  chan error
	count  int
}

// Start serves the listeners, which are its own from now on, until Close. dial connects to the backend and may wait for
// it.
func Start(listeners []net.Listener, verifier *sigv4.Verifier, dial func(context.Context) (net.Conn, error), log *slog.Logger) *Front {
	f := &Front{
		server: &http.Server{
			Handler:           Handler(verifier, dial, log),
			ReadHeaderTimeout: 10 * time.Second,
			IdleTimeout:       2 * time.Minute,
			ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelDebug),
		},
		ended: make(chan error, len(listeners)),
		count: len(listeners),
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
	return err
}

// Handler returns the front as a handler.
func Handler(verifier *sigv4.Verifier, dial func(context.Context) (net.Conn, error), log *slog.Logger) http.Handler {
	proxy := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.Out.URL.Scheme, r.Out.URL.Host = "http", "dynamodb"
			r.Out.Host = r.In.Host
		},
		Transport: &http.Transport{
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				ctx, cancel := context.WithTimeout(ctx, dialTimeout)
				defer cancel()
				return dial(ctx)
			},
			MaxIdleConnsPerHost: 64,
			IdleConnTimeout:     time.Minute,
			DisableCompression:  true,
		},
		ErrorHandler: func(w http.ResponseWriter, r *http.Request, err error) {
			if r.Context().Err() == nil {
				log.Warn("a request to the DynamoDB API failed", "error", err)
			}
			// SDKs try again after this one.
			refuse(w, http.StatusInternalServerError, "com.amazonaws.dynamodb.v20120810#InternalServerError", "The request processing has failed because of an unknown error, exception or failure.")
		},
		ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodGet && r.URL.Path == "/" {
			// The health of an endpoint is anybody's to know, as with AWS.
			proxy.ServeHTTP(w, r)
			return
		}
		if r.Method != http.MethodPost || r.URL.Path != "/" {
			refuse(w, http.StatusNotFound, "com.amazon.coral.service#UnknownOperationException", "Only POST / is served here.")
			return
		}
		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
		var tooLarge *http.MaxBytesError
		switch {
		case errors.As(err, &tooLarge):
			refuse(w, http.StatusRequestEntityTooLarge, "com.amazon.coral.validate#ValidationException", fmt.Sprintf("Request size exceeded %d bytes", maxBody))
			return
		case err != nil:
			refuse(w, http.StatusBadRequest, "com.amazon.coral.service#SerializationException", "The request body could not be read.")
			return
		}
		var refused *sigv4.Error
		if _, err := verifier.Verify(r, body); errors.As(err, &refused) {
			log.Warn("a request to the DynamoDB API was refused", "code", refused.Code, "remote", r.RemoteAddr)
			refuse(w, http.StatusBadRequest, "com.amazon.coral.service#"+refused.Code, refused.Message)
			return
		}
		r.Body, r.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
		r.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(body)), nil }
		r.TransferEncoding = nil
		proxy.ServeHTTP(w, r)
	})
}

// refuse writes an error as DynamoDB does.
func refuse(w http.ResponseWriter, status int, code, message string) {
	w.Header().Set("Content-Type", "application/x-amz-json-1.0")
	w.WriteHeader(status)
	// Text only: encoding cannot fail, and a client that has gone needs no answer.
	body, _ := json.Marshal(map[string]string{"__type": code, "message": message})
	_, _ = w.Write(body)
}
