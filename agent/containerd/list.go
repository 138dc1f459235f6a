package containerd

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"syscall"
	"time"

	tasks "github.com/containerd/containerd/api/services/tasks/v1"
	"github.com/containerd/containerd/api/types/task"
	"github.com/containerd/errdefs"
	"github.com/containerd/errdefs/pkg/errgrpc"

	"github.com/edge-serverless-box/esb/agent"
	"github.com/edge-serverless-box/esb/agent/errcode"
)

// List implements agent.Runtime. Containers that are still starting belong to the call that starts them, and are not
// in the list.
func (r *Runtime) List(ctx context.Context, function string) ([]agent.Container, error) {
	found, err := r.observe(ctx, function)
	if err != nil {
		return nil, err
	}
	out := make([]agent.Container, 0, len(found))
	for _, o := range found {
		if c, ok := r.view(o); ok {
			out = append(out, c)
		}
	}
	return out, nil
}

// view is a container as callers see it; false while it is starting.
func (r *Runtime) view(o observed) (agent.Container, bool) {
	c := o.Container
	c.Status = r.status(o)
	c.Outdated = len(r.differs(o.madeWith)) > 0
	if s := r.state(o.sandbox); s != nil {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.starting {
			return c, false
		}
		c.LastUsedAt = s.lastUsed
		if s.dying {
			c.Status = agent.StatusStopped // soon
		}
	}
	return c, true
}

// status joins what containerd says about the process with what the kernel says about the freezer, which this agent
// writes behind containerd's back.
func (r *Runtime) status(o observed) agent.Status {
	switch {
	case o.process == nil || o.process.Status == task.Status_STOPPED:
		return agent.StatusStopped
	case o.running():
		frozen, err := r.groups.Frozen(o.sandbox)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return agent.StatusStopped
		case err != nil:
			return agent.StatusUnknown
		case frozen:
			return agent.StatusPaused
		}
		return agent.StatusRunning
	}
	return agent.StatusUnknown
}

// Pause implements agent.Runtime. It writes the freezer's file itself: a call to containerd would start runc, which
// takes a hundred times as long.
func (r *Runtime) Pause(ctx context.Context, id string) error {
	return r.setFrozen(ctx, id, "pause", r.groups.Freeze)
}

// Resume implements agent.Runtime.
func (r *Runtime) Resume(ctx context.Context, id string) error {
	return r.setFrozen(ctx, id, "resume", r.groups.Thaw)
}

// ThawFile implements agent.Thawer. Who thaws a container that is being removed is in nobody's way: a removal thaws it first.
func (r *Runtime) ThawFile(id string) (path, text string, err error) {
	s := r.state(id)
	if s == nil {
		return "", "", agent.Errorf(agent.CodeNotFound, "no container %q", id)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if path, text, err = r.groups.ShareThaw(s.record.sandbox, r.cfg.GatewayUID); err != nil {
		return "", "", errcode.Of(agent.CodeInternal, err)
	}
	return path, text, nil
}

func (r *Runtime) setFrozen(ctx context.Context, id, verb string, write func(string) error) error {
	missing := agent.Errorf(agent.CodeNotFound, "no container %q", id)
	s := r.state(id)
	if s == nil {
		return missing
	}
	// Held while writing, so that a removal that thaws first is not followed by a freeze.
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.starting || s.dying {
		return missing
	}
	if s.ended {
		return agent.Errorf(agent.CodePrecondition, "%s container %s: it has ended", verb, id)
	}
	if err := write(s.record.sandbox); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return missing
		}
		return errcode.Of(agent.CodeInternal, fmt.Errorf("%s container %s: %w", verb, id, err))
	}
	s.lastUsed = time.Now()
	r.log.DebugContext(ctx, "container "+verb+"d", "container_id", id, "function", s.record.FunctionName)
	return nil
}

// Metrics implements agent.Runtime.
func (r *Runtime) Metrics(ctx context.Context, id string) (agent.Metrics, error) {
	rec, err := r.find(ctx, id)
	if err != nil {
		return agent.Metrics{}, err
	}
	o := observed{record: rec}
	got, err := r.client.TaskService().Get(ctx, &tasks.GetRequest{ContainerID: rec.sandbox})
	switch err = errgrpc.ToNative(err); {
	case err == nil:
		o.process = got.Process
	case errdefs.IsNotFound(err):
		o.process = r.lonely(rec.sandbox)
	default:
		return agent.Metrics{}, errcode.Of(agent.CodeInternal, fmt.Errorf("look at the process of container %s: %w", id, err))
	}
	view, _ := r.view(o)
	m := agent.Metrics{Container: view}
	if o.process != nil && o.process.Status == task.Status_STOPPED {
		m.ExitCode = &o.process.ExitStatus
	}
	stats, err := r.groups.Stats(rec.sandbox)
	// ENODEV: the group went away while its files were read.
	if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, syscall.ENODEV) {
		return agent.Metrics{}, errcode.Of(agent.CodeInternal, fmt.Errorf("read the counters of container %s: %w", id, err))
	}
	m.MemoryBytes, m.MemoryPeakBytes, m.MemoryLimitBytes = stats.MemoryBytes, stats.MemoryPeakBytes, stats.MemoryLimitBytes
	m.CPUNanoseconds, m.ThrottledPeriods, m.OOMKills, m.PIDs = stats.CPUNanoseconds, stats.ThrottledPeriods, stats.OOMKills, stats.PIDs
	return m, nil
}
