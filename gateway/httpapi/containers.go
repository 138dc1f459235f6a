package httpapi

import (
	"net/http"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/edge-serverless-box/esb/gateway"
)

// ContainerMetricsPath answers with memory and CPU of every function container: to everyone on the admin listener, on the
// public ones to callers with a token, because names of functions and how busy they are is nobody else's business. A route
// cannot take it.
const ContainerMetricsPath = "/metrics/containers"

// containerAnswer is one container of the answer; sizes are bytes.
type containerAnswer struct {
	ContainerName string    `json:"container_name"`
	ContainerID   string    `json:"container_id"`
	Function      string    `json:"function"`
	State         string    `json:"state"`
	CreatedAt     time.Time `json:"created_at"`
	Memory        struct {
		Current uint64 `json:"current_bytes"`
		Peak    uint64 `json:"peak_bytes"`
		Limit   uint64 `json:"limit_bytes"`
	} `json:"memory"`
	CPU struct {
		UsageSeconds     float64 `json:"usage_seconds"`
		ThrottledPeriods uint64  `json:"throttled_periods"`
	} `json:"cpu"`
	OOMKills  uint64 `json:"oom_kills"`
	Processes uint64 `json:"processes"`
}

func containerMetrics(c echo.Context, o Options) error {
	containers, err := o.Containers(c.Request().Context())
	if err != nil {
		return err
	}
	answers := make([]containerAnswer, len(containers))
	for i, from := range containers {
		answers[i] = answerOf(from)
	}
	return c.JSON(http.StatusOK, map[string]any{"containers": answers})
}

func answerOf(c gateway.Container) containerAnswer {
	a := containerAnswer{
		ContainerName: c.Name, ContainerID: c.ID, Function: c.Function, State: c.State, CreatedAt: c.CreatedAt.UTC(),
		OOMKills: c.OOMKills, Processes: c.Processes,
	}
	a.Memory.Current, a.Memory.Peak, a.Memory.Limit = c.MemoryCurrent, c.MemoryPeak, c.MemoryLimit
	a.CPU.UsageSeconds, a.CPU.ThrottledPeriods = c.CPU.Seconds(), c.ThrottledPeriods
	return a
}
