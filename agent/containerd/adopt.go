package containerd

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	tasks "github.com/containerd/containerd/api/services/tasks/v1"
	"github.com/containerd/containerd/api/types/task"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs/pkg/errgrpc"
	"golang.org/x/sync/errgroup"

	"github.com/edge-serverless-box/esb/agent"
	"github.com/edge-serverless-box/esb/agent/errcode"
	"github.com/edge-serverless-box/esb/agent/images"
	"github.com/edge-serverless-box/esb/agent/notify"
	"github.com/edge-serverless-box/esb/agent/tmpdisk"
)

// observed is one container of this stack as containerd reports it now.
type observed struct {
	record
	// old: containerd's record is of when it was parked.
	old bool
	// process is nil when there is no task.
	process *task.Process
}

func (o observed) running() bool {
	return o.process != nil && (o.process.Status == task.Status_RUNNING || o.process.Status == task.Status_PAUSED)
}

// observe lists the stack's containers: two calls, however many there are. Whose they are this process knows sooner than their
// labels.
func (r *Runtime) observe(ctx context.Context, function string) ([]observed, error) {
	filter := "labels." + strconv.Quote(agent.LabelCreatedBy) + "==" + strconv.Quote(agent.CreatedBy) +
		",labels." + strconv.Quote(labelStack) + "==" + strconv.Quote(r.cfg.Stack)
	found, err := r.client.ContainerService().List(ctx, filter)
	if err != nil {
		return nil, errcode.Of(agent.CodeInternal, fmt.Errorf("list containers: %w", err))
	}
	if len(found) == 0 {
		return nil, nil
	}
	list, err := r.client.TaskService().List(ctx, &tasks.ListTasksRequest{})
	if err != nil {
		return nil, errcode.Of(agent.CodeInternal, fmt.Errorf("list tasks: %w", errgrpc.ToNative(err)))
	}
	out := make([]observed, 0, len(found))
	for _, c := range found {
		var o observed
		if s := r.state(c.ID); s != nil && (s.record.parked || s.record.ID != s.record.sandbox) {
			o.record = s.record
		} else {
			o.record, o.old = r.recordIn(c)
		}
		if function != "" && o.FunctionName != function {
			continue
		}
		// A task's own process has the container's id.
		if i := slices.IndexFunc(list.Tasks, func(p *task.Process) bool { return p.ID == c.ID }); i >= 0 {
			o.process = list.Tasks[i]
		} else {
			o.process = r.lonely(c.ID)
		}
		out = append(out, o)
	}
	return out, nil
}

// adopt takes over the running containers and removes everything else of this stack.
func (r *Runtime) adopt(ctx context.Context) error {
	found, err := r.observe(ctx, "")
	if err != nil {
		return err
	}
	var live []string
	group, groupCtx := errgroup.WithContext(ctx)
	group.SetLimit(parallelRemovals)
	for _, o := range found {
		s := &state{record: o.record, lastUsed: o.CreatedAt}
		r.mu.Lock()
		r.states[o.sandbox] = s
		r.mu.Unlock()
		if o.process != nil {
			s.pid = o.process.Pid
		}
		r.adoptInShim(o)
	}
	for _, o := range found {
		s := r.state(o.sandbox)
		if o.process == nil && r.findAlone(s) {
			o.process = r.lonely(o.sandbox)
		}
		// One that is parked waits for an agent that has gone.
		if !o.running() || o.parked {
			group.Go(func() error {
				// One that cannot be removed is no reason not to serve the others: upkeep tries again.
				if err := r.remove(groupCtx, o.record, 0); err != nil {
					r.log.ErrorContext(ctx, "container left by an earlier agent cannot be removed yet", "container_id", o.ID, "error", err)
				}
				return groupCtx.Err()
			})
			continue
		}
		live = append(live, o.attachment)
		if s.disk, err = r.adoptDisk(o); err != nil {
			r.log.WarnContext(ctx, "the disk of an adopted container will be written before it is removed", "container_id", o.ID, "error", err)
		}
		if o.view != "" {
			s.view = o.view
			if err := r.adoptView(ctx, o.view); err != nil {
				r.log.WarnContext(ctx, "layers of an adopted container may go before it does", "container_id", o.ID, "function", o.FunctionName, "error", err)
			}
		}
		r.listenAgain(s)
		if o.old {
			r.background.Go(func() { r.writeRecord(o.record) })
		}
		r.log.InfoContext(ctx, "container adopted", "container_id", o.ID, "function", o.FunctionName, "made_with_other", r.differs(o.madeWith))
	}
	if err := group.Wait(); err != nil {
		return fmt.Errorf("remove containers left by an earlier agent: %w", err)
	}
	if r.shims != nil {
		r.shims.EndEmpty()
	}
	if err := r.network.Reconcile(ctx, live); err != nil {
		return fmt.Errorf("release network attachments left by an earlier agent: %w", err)
	}
	if err := r.removeLeftovers(ctx); err != nil {
		r.log.ErrorContext(ctx, "some things of an earlier agent stay until the next start", "error", err)
	}
	return ctx.Err()
}

// adoptDisk returns the disk that is /tmp of a container, nil when that is memory.
func (r *Runtime) adoptDisk(o observed) (*tmpdisk.Disk, error) {
	process, err := r.openProcess(o.process.Pid, o.sandbox)
	if err != nil {
		return nil, err
	}
	defer func() { _ = process.Close() }()
	return tmpdisk.Adopt(process)
}

// listenAgain hears an adopted container's lambda-init, and gives the container its CPU quota, unless it stands by: its
// init phase is still to come.
func (r *Runtime) listenAgain(s *state) {
	rec := s.record
	waits := false
	if rec.Interface == agent.Supervisor {
		socket, err := r.listenAnew(rec)
		if err != nil {
			r.log.Warn("adopted container cannot be heard", "container_id", rec.ID, "function", rec.FunctionName, "error", err)
		}
		s.socket = socket
		running, countErr := r.groups.Processes(rec.sandbox)
		waits = err == nil && countErr == nil && rec.Standby && running <= 1
	}
	if !waits {
		r.setQuota(rec)
	}
}

// listenAnew takes the place of a socket that an agent which was killed has left.
func (r *Runtime) listenAnew(rec record) (*notify.Socket, error) {
	if err := os.Remove(filepath.Join(r.notifyDir(rec.ID), notifyName)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	return r.listen(rec, func() {})
}

// removeLeftovers removes snapshots, cgroups and files that belong to no container that this process knows.
func (r *Runtime) removeLeftovers(ctx context.Context) error {
	var errs []error
	sn := r.client.SnapshotService(images.Snapshotter)
	var keys []string
	err := sn.Walk(ctx, func(_ context.Context, info snapshots.Info) error {
		keys = append(keys, info.Name)
		return nil
	}, "labels."+strconv.Quote(labelStack)+"=="+strconv.Quote(r.cfg.Stack))
	errs = append(errs, err)
	for _, key := range keys {
		if r.state(key) == nil && !r.views.keeps(key) {
			errs = append(errs, ignoreNotFound(sn.Remove(ctx, key)))
		}
	}
	ids, err := r.groups.IDs()
	errs = append(errs, err)
	for _, id := range ids {
		if r.state(id) == nil {
			removeCtx, cancel := context.WithTimeout(ctx, removeTimeout)
			errs = append(errs, r.groups.Remove(removeCtx, id))
			cancel()
		}
	}
	known := map[string]bool{}
	r.mu.Lock()
	for id := range r.states {
		known[shortID(id)] = true
	}
	r.mu.Unlock()
	errs = append(errs, r.logs.RemoveWaiting())
	entries, err := os.ReadDir(r.filesDir())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		errs = append(errs, err)
	}
	for _, e := range entries {
		if e.IsDir() && !known[e.Name()] {
			errs = append(errs, os.RemoveAll(filepath.Join(r.filesDir(), e.Name())))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("remove what an earlier agent left: %w", err)
	}
	return nil
}
