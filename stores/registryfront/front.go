// Package registryfront stands in front of the image registry, which lets anybody read and replace the images of
// functions: it asks for a password for all of it, and tells everybody whether the registry works.
package registryfront

import (
	"context"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/edge-serverless-box/esb/guard/origin"
	"github.com/edge-serverless-box/esb/guard/upload"
	"github.com/edge-serverless-box/esb/stores/basicauth"
	"github.com/edge-serverless-box/esb/stores/server"
)

// A layer may be of any size, but not be slower than this after the first minute.
const (
	bodyTimeout = 60 * time.Second
	leastSpeed  = 64 << 10
)

// HealthPath is answered without credentials, 200 when the registry works.
const HealthPath = "/health"

// versionPath is answered 200 by a registry that lets one in (OCI distribution specification, end-1).
const versionPath = "/v2/"

// Options of the front.
type Options struct {
	// Credentials are those of the agent and of who pushes images.
	Credentials basicauth.Credentials
	// Dial connects to the registry and may wait for it.
	Dial   func(context.Context) (net.Conn, error)
	Logger *slog.Logger
}

const hint = "The registry asks for the user and password of ESB_REGISTRY_USER and ESB_REGISTRY_PASSWORD; `esb up` says where they are."

// Handler returns the front.
func Handler(o Options) http.Handler {
	proxy := server.Proxy("registry", basicauth.Credentials{}, o.Dial, o.Logger)
	limits := upload.Limits{Within: bodyTimeout, BytesPerSecond: leastSpeed}
	return upload.Handler(limits, origin.Guard(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		look := r.Method == http.MethodGet || r.Method == http.MethodHead
		switch p := r.URL.Path; {
		case p == "/" && look:
			// Docker's own registry answers so too; health checks ask for it.
			w.WriteHeader(http.StatusOK)
			return
		case p == HealthPath && look:
			r.URL.Path, r.URL.RawPath, r.URL.RawQuery = versionPath, "", ""
		case p != "/v2" && !strings.HasPrefix(p, versionPath):
			server.Refuse(w, http.StatusNotFound, "Only /v2/ and "+HealthPath+" are served here.")
			return
		case !o.Credentials.Match(r):
			basicauth.Refuse(w, "esb registry", hint)
			return
		}
		proxy.ServeHTTP(w, r)
	})))
}
