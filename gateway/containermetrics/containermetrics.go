// Package containermetrics is the answer about memory and CPU of every function container, which the admin listener and the
// public ones give alike.
package containermetrics

import (
	"time"

	"github.com/edge-serverless-box/esb/gateway"
)

// Path is where the answer is: for the operator on the admin listener, on the public ones for callers with a token, because names
// of functions and how busy they are is nobody else's business. A route cannot take it.
const Path = "/metrics/containers"

// Answer is the answer, as JSON.
type Answer struct {
	Containers []Container `json:"containers"`
}

// Container is one container; sizes are bytes.
type Container struct {
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

// Of returns the answer about containers.
func Of(containers []gateway.Container) Answer {
	answer := Answer{Containers: make([]Container, len(containers))}
	for i, c := range containers {
		answer.Containers[i] = of(c)
	}
	return answer
}

func of(c gateway.Container) Container {
	a := Container{
		ContainerName: c.Name, ContainerID: c.ID, Function: c.Function, State: c.State, CreatedAt: c.CreatedAt.UTC(),
		OOMKills: c.OOMKills, Processes: c.Processes,
	}
	a.Memory.Current, a.Memory.Peak, a.Memory.Limit = c.MemoryCurrent, c.MemoryPeak, c.MemoryLimit
	a.CPU.UsageSeconds, a.CPU.ThrottledPeriods = c.CPU.Seconds(), c.ThrottledPeriods
	return a
}
