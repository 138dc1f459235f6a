// Package native holds the domain of the native way to run esb: the two services as plain processes of one Linux
// machine, started by `go tool task up` and removed by `go tool task down`. It depends on nothing but the
// standard library; each package below it does one job (settings, preflight, build, process, ...) and
// stack puts them together.
package native

import (
	"errors"
	"strings"
	"time"
)

// Names of the services, which are also the names of their binaries, pid files and log files.
const (
	// Agent is the service that makes and ends function containers.
	Agent = "agent"
	// Gateway is the service that clients talk to.
	Gateway = "gateway"
	// Stores runs the native stores: S3, the DynamoDB API, VictoriaLogs and the image registry.
	Stores = "stores"
	// Containerd is the agent's own child; it has a log file, but the agent starts and stops it.
	Containerd = "containerd"
)

// Problem is something on this machine that keeps the box from running, and what the person at the keyboard can
// do about it.
type Problem struct {
	// What is wrong, with the names and figures involved.
	What string
	// Do is what to do about it, as an imperative sentence.
	Do string
}

// Error implements error.
func (p *Problem) Error() string { return p.What + "\n    " + p.Do }

// Problems returns every Problem in err's tree, in order.
func Problems(err error) []*Problem {
	if err == nil {
		return nil
	}
	if many, ok := err.(interface{ Unwrap() []error }); ok {
		var all []*Problem
		for _, e := range many.Unwrap() {
			all = append(all, Problems(e)...)
		}
		return all
	}
	var p *Problem
	if errors.As(err, &p) {
		return []*Problem{p}
	}
	return nil
}

// State is what a service is doing, as observed.
type State string

// States of a service.
const (
	// Healthy: its process runs and it says that it is ready.
	Healthy State = "healthy"
	// Unhealthy: its process runs, but it is not ready.
	Unhealthy State = "unhealthy"
	// Down: it has no process.
	Down State = "down"
	// NotAvailable: it is a native store that is not made for this machine's processor. The box does without it.
	NotAvailable State = "not available"
)

// Service is one service as observed.
type Service struct {
	Name  string `json:"name"`
	State State  `json:"state"`
	// PID is 0 when the service is down.
	PID int `json:"pid,omitempty"`
	// Since is when the process was started.
	Since time.Time `json:"since,omitzero"`
	// Reason says why the service is not healthy.
	Reason string `json:"reason,omitempty"`
	// Restarts is how often the box has started it again by itself, since `esb up` or `esb run`; DownSince is since when it does
	// not serve, zero while it does or nobody watches.
	Restarts  int       `json:"restarts"`
	DownSince time.Time `json:"down_since,omitzero"`
}

// Function is one function as the gateway has it.
type Function struct {
	Name string `json:"name"`
	// Idle, Busy, Starting and Standby count its containers; Waiting are the requests that wait for one.
	Idle     int `json:"idle"`
	Busy     int `json:"busy"`
	Starting int `json:"starting"`
	Standby  int `json:"standby"`
	Waiting  int `json:"waiting"`
	// Outdated counts those of an older configuration, which serve until one of the present is ready.
	Outdated int `json:"outdated"`
	// Error is why the last start of a container failed, or why none can succeed; empty after one that did.
	Error string `json:"error,omitempty"`
}

// Configuration says whether what functions.yml, routing.yml and resources.yml say is what the box serves.
type Configuration struct {
	// Refused is true when they were changed and have mistakes: the box serves what they said before.
	Refused   bool      `json:"refused"`
	RefusedAt time.Time `json:"refused_at,omitzero"`
	Problems  []string  `json:"problems,omitempty"`
	// Substitutes are the runtimes that something else runs than the box's base image for them: "nodejs20.x by nodejs24.x (orders)".
	Substitutes []string `json:"substitutes,omitempty"`
}

// Container is one function container as the agent observes it.
type Container struct {
	ID       string `json:"id"`
	Name     string `json:"name"`
	Function string `json:"function"`
	// Address is host:port of the worker endpoint.
	Address string `json:"address"`
	// State is RUNNING, PAUSED, STOPPED or UNKNOWN.
	State   string    `json:"state"`
	Standby bool      `json:"standby"`
	Image   string    `json:"image"`
	Created time.Time `json:"created"`
	// MemoryBytes is what the container's cgroup charges now; 0 when it could not be read.
	MemoryBytes uint64 `json:"memory_bytes"`
}

// Status is the whole stack as observed.
type Status struct {
	// State is Healthy when all services are that are available, Down when none has a process, else Unhealthy.
	State    State     `json:"state"`
	Home     string    `json:"home"`
	URLs     []string  `json:"urls"`
	Services []Service `json:"services"`
	// Supervisor is the process that starts again what ends or hangs; 0 when none does.
	Supervisor int         `json:"supervisor"`
	Containers []Container `json:"containers"`
	// Configuration and Functions are empty when the gateway does not answer.
	Configuration Configuration `json:"configuration"`
	Functions     []Function    `json:"functions"`
}

// Overall folds the states of services into one.
func Overall(services []Service) State {
	all, healthy, down := 0, 0, 0
	for _, s := range services {
		switch s.State {
		case Healthy:
			healthy++
		case Down:
			down++
		case Unhealthy:
		case NotAvailable:
			continue
		}
		all++
	}
	switch {
	case all > 0 && healthy == all:
		return Healthy
	case down == all:
		return Down
	}
	return Unhealthy
}

// Indent puts prefix before each line of text, for quoting a log or a command's output in a message.
func Indent(text, prefix string) string {
	text = strings.TrimRight(text, "\n")
	if text == "" {
		return ""
	}
	return prefix + strings.ReplaceAll(text, "\n", "\n"+prefix)
}

// Image is an image that the agent has.
type Image struct {
	Name   string `json:"name"`
	Digest string `json:"digest"`
	// Bytes of its content and unpacked layers; what images share counts for each.
	Bytes int64 `json:"bytes"`
	// Used is when a container was last made of it, or a function last named it; InUse says whether one does now.
	Used  time.Time `json:"used"`
	InUse bool      `json:"in_use"`
	// Archive is the file that it came from, "" for one of a registry.
	Archive string `json:"archive,omitempty"`
}
