package containerd

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	tasks "github.com/containerd/containerd/api/services/tasks/v1"
	"github.com/containerd/containerd/api/types/task"
	"github.com/containerd/errdefs"
	"github.com/containerd/errdefs/pkg/errgrpc"

	"github.com/edge-serverless-box/esb/agent"
	"github.com/edge-serverless-box/esb/agent/errcode"
	"github.com/edge-serverless-box/esb/agent/images"
)

// Destroy implements agent.Runtime. It runs to its end also when the caller leaves.
func (r *Runtime) Destroy(ctx context.Context, id string, grace time.Duration, reason string) error {
	rec, err := r.find(ctx, id)
	if err != nil {
		return err
	}
	begin := time.Now()
	if err := r.remove(ctx, rec, grace); err != nil {
		return errcode.Of(agent.CodeInternal, fmt.Errorf("destroy container %s: %w", id, err))
	}
	r.log.InfoContext(ctx, "container destroyed", "container_id", id, "function", rec.FunctionName, "reason", reason,
		"duration_ms", time.Since(begin).Milliseconds())
	return nil
}

// find returns what is known about a container of this stack; agent.CodeNotFound when there is none. One that is still
// starting is not there yet.
func (r *Runtime) find(ctx context.Context, id string) (record, error) {
	missing := agent.Errorf(agent.CodeNotFound, "no container %q", id)
	if s := r.state(id); s != nil {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.starting {
			return record{}, missing
		}
		return s.record, nil
	}
	// One whose removal failed half way is known to containerd alone.
	c, err := r.client.ContainerService().Get(ctx, id)
	if errdefs.IsNotFound(err) {
		c, err = r.client.ContainerService().Get(ctx, parkedID(id))
	}
	if errdefs.IsNotFound(err) || errdefs.IsInvalidArgument(err) {
		return record{}, missing
	}
	if err != nil {
		return record{}, errcode.Of(agent.CodeInternal, fmt.Errorf("look up container %s: %w", id, err))
	}
	if c.Labels[agent.LabelCreatedBy] != agent.CreatedBy || c.Labels[labelStack] != r.cfg.Stack {
		return record{}, missing
	}
	rec, _ := r.recordIn(c)
	if rec.ID != id {
		return record{}, missing
	}
	return rec, nil
}

// remove ends a container and takes everything away that belongs to it, as far as it is there. It may be called for
// one that was made half, and again after it failed. Two at once share the work.
func (r *Runtime) remove(ctx context.Context, rec record, grace time.Duration) error {
	_, err, _ := r.removals.Do(rec.sandbox, func() (any, error) {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), removeTimeout+grace)
		defer cancel()
		err := r.removeAll(ctx, rec, grace)
		if s := r.state(rec.sandbox); s != nil && err != nil {
			s.mu.Lock()
			s.unfinished = true
			s.mu.Unlock()
		}
		if err == nil {
			r.memory.Release(rec.sandbox)
		}
		return nil, err
	})
	return err
}

// removeAll goes from process to record. The record comes last, and stays when anything before it failed: it says what
// is still to be removed, to the next attempt (finishRemovals) or the next agent.
func (r *Runtime) removeAll(ctx context.Context, rec record, grace time.Duration) error {
	s := r.state(rec.sandbox)
	if s != nil {
		s.mu.Lock()
		s.dying = true
		s.mu.Unlock()
	}
	// A frozen process hears no signal on cgroup v1, and many under a small quota do not get to their end within any grace.
	for _, free := range []func(string) error{r.groups.Thaw, r.groups.LiftQuota} {
		if err := free(rec.sandbox); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	if err := r.endTask(ctx, rec.sandbox, grace); err != nil {
		return err
	}
	r.leftShim(rec.sandbox)
	errs := []error{r.detach(ctx, rec), r.groups.Remove(ctx, rec.sandbox)}
	if s != nil {
		errs = append(errs, s.closeSocket(), s.discardDisk())
	}
	// What runc has of it goes with its task, but for one whose shim has ended before it.
	errs = append(errs, os.RemoveAll(r.files(rec.ID)), os.RemoveAll(filepath.Join(r.runcRoot(), agent.Namespace, rec.sandbox)))
	if rec.parked {
		errs = append(errs, r.logs.RemoveWaiting(rec.sandbox))
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	if err := ignoreNotFound(r.client.ContainerService().Delete(ctx, rec.sandbox)); err != nil {
		return fmt.Errorf("remove its record: %w", err)
	}
	if err := ignoreNotFound(r.client.SnapshotService(images.Snapshotter).Remove(ctx, rec.sandbox)); err != nil {
		return fmt.Errorf("remove its root filesystem: %w", err)
	}
	r.mu.Lock()
	delete(r.states, rec.sandbox)
	r.mu.Unlock()
	if s != nil {
		s.mu.Lock()
		view := s.view
		s.view = ""
		s.mu.Unlock()
		r.views.release(view)
	}
	return nil
}

// closeSocket closes the notify socket, once.
func (s *state) closeSocket() error {
	s.mu.Lock()
	socket := s.socket
	s.socket = nil
	s.mu.Unlock()
	if socket == nil {
		return nil
	}
	return socket.Close()
}

// discardDisk gives up /tmp, once. The container's processes have ended.
func (s *state) discardDisk() error {
	s.mu.Lock()
	disk := s.disk
	s.disk = nil
	s.mu.Unlock()
	if err := disk.Discard(); err != nil {
		return fmt.Errorf("give up its /tmp: %w", err)
	}
	return nil
}

func (r *Runtime) detach(ctx context.Context, rec record) error {
	if rec.attachment == "" || r.network == nil {
		return nil
	}
	if err := r.network.Detach(ctx, rec.attachment); err != nil {
		return fmt.Errorf("release its network: %w", err)
	}
	return nil
}

// endTask ends a container's processes and removes its task. A task that is gone is no error.
func (r *Runtime) endTask(ctx context.Context, id string, grace time.Duration) error {
	service := r.client.TaskService()
	got, err := service.Get(ctx, &tasks.GetRequest{ContainerID: id})
	if err = errgrpc.ToNative(err); errdefs.IsNotFound(err) {
		return r.endOrphan(ctx, id)
	}
	if err != nil {
		return fmt.Errorf("look at its process: %w", err)
	}
	if got.Process.Status != task.Status_STOPPED {
		if got.Process.Status == task.Status_CREATED {
			grace = 0 // nothing runs yet that could stop in order
		}
		if err := r.killTask(ctx, id, grace); err != nil {
			return err
		}
	}
	if err := r.leaveShim(ctx, id); err != nil {
		return err
	}
	_, err = service.Delete(ctx, &tasks.DeleteTaskRequest{ContainerID: id})
	if err = errgrpc.ToNative(err); err != nil && !errdefs.IsNotFound(err) {
		return fmt.Errorf("remove its process: %w", err)
	}
	return nil
}

// killTask sends SIGTERM, and after grace kills every process, and waits until process 1 has ended.
func (r *Runtime) killTask(ctx context.Context, id string, grace time.Duration) error {
	watch, stop := context.WithCancel(ctx)
	var watching sync.WaitGroup
	defer watching.Wait()
	defer stop()
	ended := make(chan exit, 1)
	watching.Go(func() { ended <- r.waitExit(watch, id) })
	if grace > 0 {
		if err := r.signal(ctx, id, syscall.SIGTERM); err != nil {
			return err
		}
		timer := time.NewTimer(grace)
		defer timer.Stop()
		select {
		case e := <-ended:
			return ignoreNotFound(e.err)
		case <-timer.C:
		}
	}
	if err := r.groups.Kill(ctx, id); err != nil {
		if !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		// Somebody has taken its group away, or its processes are of a pid namespace that this one does not see into.
		if err := r.signal(ctx, id, syscall.SIGKILL); err != nil {
			return err
		}
	}
	if e := <-ended; e.err != nil && !errdefs.IsNotFound(e.err) {
		return fmt.Errorf("wait for the end of its process: %w", e.err)
	}
	return nil
}

// signal sends a signal to process 1; one that has ended is no error.
func (r *Runtime) signal(ctx context.Context, id string, sig syscall.Signal) error {
	_, err := r.client.TaskService().Kill(ctx, &tasks.KillRequest{ContainerID: id, Signal: uint32(sig)})
	if err = errgrpc.ToNative(err); err != nil && !errdefs.IsNotFound(err) {
		return fmt.Errorf("send %s to its process: %w", sig, err)
	}
	return nil
}
