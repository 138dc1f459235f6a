package containerd

import (
	"context"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	tasks "github.com/containerd/containerd/api/services/tasks/v1"
	"github.com/containerd/errdefs/pkg/errgrpc"

	"github.com/edge-serverless-box/esb/agent"
	"github.com/edge-serverless-box/esb/agent/errcode"
	"github.com/edge-serverless-box/esb/agent/notify"
)

// exit is how a process 1 ended; err says why that could not be learned.
type exit struct {
	code uint32
	err  error
}

// exitError is a process 1 that ended before it was ready.
type exitError struct {
	code uint32
	oom  bool
}

// Error implements error.
func (e *exitError) Error() string {
	why := ""
	if e.oom {
		why = ", out of memory"
	}
	return fmt.Sprintf("the container ended with exit code %d%s before it was ready", e.code, why)
}

// listen hears what a container's lambda-init says; ready may be called more than once.
func (r *Runtime) listen(rec record, ready func()) (*notify.Socket, error) {
	return notify.Listen(filepath.Join(r.notifyDir(rec.ID), notifyName), rec.firstID, func(m notify.Message) {
		rec := rec
		if s := r.state(rec.sandbox); s != nil {
			rec = s.record // one that was parked has its function's now
		}
		if lines, ok := m.LogLost(); ok {
			r.log.Warn("log lines of a container were lost: its file could not be written, or took too long", "container_id", rec.ID,
				"function", rec.FunctionName, "lines", lines)
			return
		}
		switch m {
		case notify.Ready:
			ready()
		case notify.InitStart:
			// All the CPU there is, as AWS gives the init phase. A new life of the function's process needs it as the first one did:
			// with the quota of a small function, imports of a second take longer than an init may.
			if err := r.groups.LiftQuota(rec.sandbox); err != nil {
				r.log.Warn("container has its CPU quota in its init phase, too", "container_id", rec.ID, "function", rec.FunctionName, "error", err)
			}
		case notify.InitOK, notify.InitError:
			r.setQuota(rec)
		}
	})
}

// setQuota limits a container's CPU, unless it is being removed: its quota was lifted for that.
func (r *Runtime) setQuota(rec record) {
	if s := r.state(rec.sandbox); s != nil {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.dying {
			return
		}
	}
	if err := r.groups.SetQuota(rec.sandbox, rec.memoryMB); err != nil {
		r.log.Warn("container has no CPU quota", "container_id", rec.ID, "function", rec.FunctionName, "error", err)
	}
}

// waitExit waits until process 1 of a container has ended.
func (r *Runtime) waitExit(ctx context.Context, id string) exit {
	resp, err := r.client.TaskService().Wait(ctx, &tasks.WaitRequest{ContainerID: id})
	if err != nil {
		return exit{err: errgrpc.ToNative(err)}
	}
	return exit{code: resp.ExitStatus}
}

// waitReady waits until the worker endpoint answers, the process ends, the time is up or the caller leaves.
func (l *launch) waitReady(ctx context.Context) error {
	limit := l.r.cfg.ReadyTimeout
	timer := time.NewTimer(limit)
	defer timer.Stop()
	if l.spec.Interface == agent.RIE {
		probe, stop := context.WithCancel(ctx)
		var probing sync.WaitGroup
		defer probing.Wait()
		defer stop()
		probing.Go(func() { l.probe(probe) })
	}
	select {
	case <-l.ready:
		return nil
	case e := <-l.exit:
		return l.early(e)
	case <-timer.C:
		return agent.Errorf(agent.CodeDeadline, "container %s was not ready within %s (CONTAINER_READY_TIMEOUT_SECONDS)", l.record.ID, limit)
	case <-ctx.Done():
		return fmt.Errorf("the caller left while container %s started: %w", l.record.ID, ctx.Err())
	}
}

// probe closes l.ready when the worker port accepts connections. It sends nothing: any request to RIE is an invocation.
func (l *launch) probe(ctx context.Context) {
	addr := net.JoinHostPort(l.record.IP, strconv.Itoa(l.record.Port))
	tick := time.NewTicker(probeInterval)
	defer tick.Stop()
	for {
		dialer := net.Dialer{Timeout: time.Second}
		if conn, err := dialer.DialContext(ctx, "tcp", addr); err == nil {
			_ = conn.Close()
			close(l.ready)
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// early is the error for a process 1 that ended before it was ready. Unless a signal ended it, it will do so again.
func (l *launch) early(e exit) error {
	if e.err != nil {
		return fmt.Errorf("container %s: watch its process: %w", l.record.ID, e.err)
	}
	stats, err := l.r.groups.Stats(l.record.sandbox)
	died := &exitError{code: e.code, oom: err == nil && stats.OOMKills > 0}
	code := agent.CodePrecondition
	if e.code > 128 && !died.oom {
		code = agent.CodeInternal
	}
	return agent.Errorf(code, "container %s: %w", l.record.ID, died)
}

// publish hands the container from this launch to the rest of the Runtime.
func (l *launch) publish() error {
	l.state.mu.Lock()
	defer l.state.mu.Unlock()
	if l.state.ended {
		return l.early(exit{err: errors.New("it ended as soon as it was ready")})
	}
	l.state.starting = false
	return nil
}

// lastOutput returns the end of the container's log. The shim copies what the container prints and is sometimes a moment behind
// its exit, so an empty log is looked at again for up to tailPatience.
func (l *launch) lastOutput() string {
	for end := time.Now().Add(tailPatience); ; time.Sleep(tailPoll) {
		if tail := l.r.logs.Tail(l.record.ID, tailLines); tail != "" || !time.Now().Before(end) {
			return tail
		}
	}
}

// explain gives the error its code, and the last lines of the log when the container ended by itself. It is called
// after the removal, which waits for the shim to write them, but not for ever.
func (l *launch) explain(err error) error {
	var died *exitError
	if errors.As(err, &died) {
		if tail := l.lastOutput(); tail != "" {
			err = agent.Errorf(agent.ErrorCode(err), "%w; its last output: %s", err, strings.ToValidUTF8(tail, "?"))
		}
	}
	return errcode.Of(agent.CodeInternal, err)
}
