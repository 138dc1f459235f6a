package httpapi

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/labstack/echo/v4"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// readyTimeout bounds the checks of /readyz.
const readyTimeout = 2 * time.Second

// dependencyState is one line of /readyz.
type dependencyState struct {
	Status string `json:"status"`
	Error  string `json:"error,omitempty"`
	// Notes do not make it unready.
	Notes []string `json:"notes,omitempty"`
}

// newAdmin serves the operator: errors are shown in full. guardAdmin stands before it.
func newAdmin(o Options) *echo.Echo {
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
		if operator(c.Request(), o.AdminToken) {
			answer.Dependencies = dependencies
		}
		return c.JSON(status, answer)
	})
	e.GET("/pools", func(c echo.Context) error {
		return c.JSON(http.StatusOK, map[string]any{"pools": o.Pools()})
	})
	e.GET(ContainerMetricsPath, func(c echo.Context) error {
		if err := containerMetrics(c, o); err != nil {
			return c.JSON(http.StatusServiceUnavailable, map[string]string{"message": err.Error()})
		}
		return nil
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
		asyncAdmin(e, o.Async)
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
		}
		if d.Notes != nil {
			state.Notes = d.Notes()
		}
		states[d.Name] = state
	}
	return status, states
}
