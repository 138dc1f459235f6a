// Package logfront stands in front of VictoriaLogs, whose own port does more than any client of the box should: one GET
// takes a day's logs away. It lets queries and inserts through for who has the credentials, health for everybody, and
// nothing else.
package logfront

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"path"
	"strings"
	"time"

	"github.com/edge-serverless-box/esb/guard/origin"
	"github.com/edge-serverless-box/esb/guard/upload"
	"github.com/edge-serverless-box/esb/stores/basicauth"
	"github.com/edge-serverless-box/esb/stores/server"
)

const (
	// maxQuery bounds the form of a query.
	maxQuery = 1 << 20
	// maxRefused is how much of the lines is read that are not taken.
	maxRefused = 64 << 20
	// bodyTimeout is how long a body may take to come.
	bodyTimeout = 60 * time.Second
)

// Options of the front.
type Options struct {
	// Credentials are the operator's and the agent's.
	Credentials basicauth.Credentials
	// Store are the credentials that VictoriaLogs itself asks for.
	Store basicauth.Credentials
	// Dial connects to VictoriaLogs and may wait for it.
	Dial func(context.Context) (net.Conn, error)
	// Take says why a request with so many bytes of lines (-1: not known) is not taken, "" when it is; nil: all are.
	Take   func(bytes int64) string
	Logger *slog.Logger
}

// hint is what who has no credentials reads.
const hint = "The log store asks for the user and password of VICTORIALOGS_USER and VICTORIALOGS_PASSWORD; `esb up` says where they are."

// Handler returns the front.
func Handler(o Options) http.Handler {
	proxy := server.Proxy("victorialogs", o.Store, o.Dial, o.Logger)
	return upload.Handler(upload.Limits{Within: bodyTimeout}, origin.Guard(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p := r.URL.Path
		query, insert := strings.HasPrefix(p, "/select/"), strings.HasPrefix(p, "/insert/")
		switch {
		case p == "/health" && (r.Method == http.MethodGet || r.Method == http.MethodHead):
		case !query && !insert || !plain(p):
			server.Refuse(w, http.StatusNotFound, "Only /select/, /insert/ and /health are served here.")
			return
		case !o.Credentials.Match(r):
			basicauth.Refuse(w, "esb logs", hint)
			return
		}
		if insert {
			if o.Take != nil {
				if full := o.Take(r.ContentLength); full != "" {
					// So that who sends gets to read the answer.
					_, _ = io.Copy(io.Discard, io.LimitReader(r.Body, maxRefused))
					server.Refuse(w, http.StatusInsufficientStorage, full)
					return
				}
			}
			proxy.ServeHTTP(w, r)
			return
		}
		form, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxQuery))
		if err != nil {
			server.Refuse(w, http.StatusBadRequest, "The query could not be read, or has more than 1 MiB.")
			return
		}
		r.Body, r.ContentLength, r.TransferEncoding = io.NopCloser(bytes.NewReader(form)), int64(len(form)), nil
		proxy.ServeHTTP(w, r)
	})))
}

// plain is false for a path that a server behind could take for another one.
func plain(p string) bool {
	return path.Clean(p) == strings.TrimSuffix(p, "/") && !strings.ContainsAny(p, "\\%\x00")
}
