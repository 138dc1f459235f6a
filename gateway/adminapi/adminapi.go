// Package adminapi is the listener of the operator: readiness, metrics, the state of pools, queue and schedules, and reloads. No
// request of a client comes through it.
package adminapi

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/labstack/echo/v4"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/edge-serverless-box/esb/gateway"
	"github.com/edge-serverless-box/esb/gateway/containermetrics"
	"github.com/edge-serverless-box/esb/gateway/internal/listener"
	"github.com/edge-serverless-box/esb/gateway/pool"
	"github.com/edge-serverless-box/esb/gateway/schedule"
	"github.com/edge-serverless-box/esb/guard/connlimit"
	"github.com/edge-serverless-box/esb/guard/upload"
)

const (
	// readyTimeout bounds the checks of /readyz.
	readyTimeout = 2 * time.Second
	// maxConnections bounds the connections of operators. One more closes the oldest: whoever holds them all keeps nobody out.
	maxConnections = 64
)

// Options of a Server. All are needed unless they say otherwise.
type Options struct {
	// Addr (GATEWAY_ADMIN_ADDR) is "host:port", empty for none.
	Addr string
	// Token lets an operator in.
	Token string
	// Dependencies are asked by /readyz.
	Dependencies []Dependency
	// Pools answers /pools.
	Pools func() []pool.State
	// Configuration answers GET /configuration.
	Configuration func() ConfigurationState
	// Containers answers containermetrics.Path.
	Containers func(ctx context.Context) ([]gateway.Container, error)
	// Reload answers POST /reload; its error is shown to the operator.
	Reload func() error
	// Async answers the endpoints below /async; nil for none.
	Async Queue
	// Schedules answers /schedules; nil for none.
	Schedules func() []schedule.State
	// Sockets are bound already; when Addr is not among them, Open binds it.
	Sockets *listener.Sockets
	// Registry takes the server's metrics; /metrics shows all that are in it, and Gatherer's.
	Registry *prometheus.Registry
	// Gatherer has further metrics; nil for none.
	Gatherer prometheus.Gatherer
	Logger   *slog.Logger
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

// Server is the operator's listener. Open binds it, Serve begins to answer, Shutdown ends it.
type Server struct{ listeners *listener.Set }

// Open binds the listener, if there is an address.
func Open(ctx context.Context, o Options) (*Server, error) {
	s := &Server{listeners: listener.NewSet("admin", connlimit.Bounds{Total: maxConnections, Evict: true}, o.Registry, o.Logger, o.Sockets)}
	if o.Addr == "" {
		return s, nil
	}
	l, err := s.listeners.Add(ctx, "GATEWAY_ADMIN_ADDR", o.Addr, "admin")
	if err != nil {
		return nil, err
	}
	l.Server.Handler = upload.Handler(upload.Limits{Within: listener.BodyTimeout}, guard(endpoints(o), o))
	return s, nil
}

// Serve begins to answer. A listener that fails later is reported by Failed.
func (s *Server) Serve() { s.listeners.Serve() }

// Failed delivers the error of a listener that ended by itself.
func (s *Server) Failed() <-chan error { return s.listeners.Failed() }

// Addrs returns the bound address, if there is one.
func (s *Server) Addrs() []net.Addr { return s.listeners.Addrs("admin") }

// Bound is the socket that is listened on, if there is one.
func (s *Server) Bound() map[string]net.Listener { return s.listeners.Bound() }

// Shutdown accepts no more connections, and waits for the requests in flight until ctx ends.
func (s *Server) Shutdown(ctx context.Context) error { return s.listeners.Shutdown(ctx) }

// Close gives the address of a Server back that does not serve.
func (s *Server) Close() error { return s.listeners.Close() }

// dependencyState is one line of /readyz. Status is "ok", "down", or "full": down for want of disk space, which no start of a
// program brings back.
type dependencyState struct {
	Status string `json:"status"`
	Error  string `json:"error,omitempty"`
	// Notes do not make it unready.
	Notes []string `json:"notes,omitempty"`
}

// endpoints serve the operator: errors are shown in full. guard stands before them.
func endpoints(o Options) *echo.Echo {
	e := echo.New()
	e.HTTPErrorHandler = func(err error, c echo.Context) {
		status := http.StatusInternalServerError
		var he *echo.HTTPError
		if errors.As(err, &he) {
			status = he.Code
		}
		_ = c.JSON(status, map[string]string{"message": http.StatusText(status)})
	}
	e.GET("/healthz", func(c echo.Context) error {
		return c.JSON(http.StatusOK, map[string]string{"status": "ok"})
	})
	e.GET("/readyz", func(c echo.Context) error {
		ctx, cancel := context.WithTimeout(c.Request().Context(), readyTimeout)
		defer cancel()
		status, dependencies := ready(ctx, o.Dependencies)
		answer := struct {
			Status       string                     `json:"status"`
			Dependencies map[string]dependencyState `json:"dependencies,omitempty"`
		}{Status: "ok"}
		if status != http.StatusOK {
			answer.Status = "unavailable"
		}
		if operator(c.Request(), o.Token) {
			answer.Dependencies = dependencies
		}
		return c.JSON(status, answer)
	})
	e.GET("/pools", func(c echo.Context) error {
		return c.JSON(http.StatusOK, map[string]any{"pools": o.Pools()})
	})
	e.GET(containermetrics.Path, func(c echo.Context) error {
		containers, err := o.Containers(c.Request().Context())
		if err != nil {
			return c.JSON(http.StatusServiceUnavailable, map[string]string{"message": err.Error()})
		}
		return c.JSON(http.StatusOK, containermetrics.Of(containers))
	})
	if o.Configuration != nil {
		e.GET("/configuration", func(c echo.Context) error {
			return c.JSON(http.StatusOK, o.Configuration())
		})
	}
	e.POST("/reload", func(c echo.Context) error {
		if err := o.Reload(); err != nil {
			return c.JSON(http.StatusUnprocessableEntity, map[string]any{"status": "refused", "problems": strings.Split(err.Error(), "\n")})
		}
		return c.JSON(http.StatusOK, map[string]string{"status": "ok"})
	})
	if o.Async != nil {
		asyncEndpoints(e, o.Async)
	}
	if o.Schedules != nil {
		e.GET("/schedules", func(c echo.Context) error {
			return c.JSON(http.StatusOK, map[string]any{"schedules": o.Schedules()})
		})
	}
	gatherers := prometheus.Gatherers{o.Registry}
	if o.Gatherer != nil {
		gatherers = append(gatherers, o.Gatherer)
	}
	e.GET("/metrics", echo.WrapHandler(promhttp.HandlerFor(gatherers, promhttp.HandlerOpts{})))
	return e
}

// ready asks all dependencies at the same time.
func ready(ctx context.Context, dependencies []Dependency) (int, map[string]dependencyState) {
	errs := make([]error, len(dependencies))
	var wg sync.WaitGroup
	for i, d := range dependencies {
		wg.Go(func() { errs[i] = d.Check(ctx) })
	}
	wg.Wait()
	status := http.StatusOK
	states := make(map[string]dependencyState, len(dependencies))
	for i, d := range dependencies {
		state := dependencyState{Status: "ok"}
		if errs[i] != nil {
			status = http.StatusServiceUnavailable
			state = dependencyState{Status: "down", Error: errs[i].Error()}
			if errors.Is(errs[i], syscall.ENOSPC) {
				state.Status = "full"
			}
		}
		if d.Notes != nil {
			state.Notes = d.Notes()
		}
		states[d.Name] = state
	}
	return status, states
}
