package containerd

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	tasks "github.com/containerd/containerd/api/services/tasks/v1"
	"github.com/containerd/containerd/v2/core/sandbox"
	"github.com/containerd/errdefs"
	"github.com/containerd/errdefs/pkg/errgrpc"

	"github.com/edge-serverless-box/esb/agent"
	"github.com/edge-serverless-box/esb/agent/shims"
)

// inOneShim is how many containers are in one shim at most: most of what a shim takes is its own.
const inOneShim = 16

// parkedKey is for those that are nobody's yet; no function is called that.
const parkedKey = "."

// errShim marks a start that failed because its shim has ended: in another one it can succeed.
var errShim = errors.New("its shim has ended")

// shimSandbox is the name under which containerd is told that containers share shims: it takes the address of one only for a container
// of a sandbox that it has a record of (containerd v2.4, core/runtime/v2/shim_manager.go). There is one record for all.
func (r *Runtime) shimSandbox() string { return "esb-shims-" + r.cfg.Stack }

// shimsDir has the files of shims.
func (r *Runtime) shimsDir() string { return filepath.Join(r.cfg.RunDir, "shims") }

// openShims takes over the shims of an earlier agent. On a containerd that others use, too, each container has one that containerd starts.
func (r *Runtime) openShims(ctx context.Context) error {
	if r.cfg.ShimSockets == "" {
		return nil
	}
	if err := r.keepSandbox(ctx); err != nil {
		return err
	}
	var err error
	r.shims, err = shims.Open(shims.Config{
		BinDir: r.cfg.BinDir, Namespace: agent.Namespace, Address: r.cfg.Address, SocketDir: r.cfg.ShimSockets, Dir: r.shimsDir(), Max: inOneShim, Logger: r.log,
	})
	return err
}

// keepSandbox makes the record that shimSandbox names, when it is not there.
func (r *Runtime) keepSandbox(ctx context.Context) error {
	_, err := r.client.SandboxStore().Create(ctx, sandbox.Sandbox{ID: r.shimSandbox(), Runtime: sandbox.RuntimeOpts{Name: r.binary(front)}})
	if err != nil && !errdefs.IsAlreadyExists(err) {
		return fmt.Errorf("make the record of shared shims: %w", err)
	}
	return nil
}

// closeShims leaves them as they are.
func (r *Runtime) closeShims() error {
	if r.shims == nil {
		return nil
	}
	return r.shims.Close()
}

// purgeShims ends all of them. No container is left.
func (r *Runtime) purgeShims(ctx context.Context) error {
	if r.cfg.ShimSockets == "" {
		return nil
	}
	err := r.client.SandboxStore().Delete(ctx, r.shimSandbox())
	if err = ignoreNotFound(err); err != nil {
		return fmt.Errorf("remove the record of shared shims: %w", err)
	}
	if err := r.endShims(ctx, "", "shim without a container was ended"); err != nil {
		return fmt.Errorf("end the shims: %w", err)
	}
	return os.RemoveAll(r.shimsDir())
}

// shimKey says with whom a container may share a shim: with others of its function.
func (rec record) shimKey() string {
	if rec.parked || rec.ID != rec.sandbox {
		return parkedKey
	}
	return rec.FunctionName
}

// adoptInShim notes where a container of an earlier agent is, also one whose shim has not answered in time.
func (r *Runtime) adoptInShim(o observed) {
	if r.shims != nil && o.shim != "" {
		r.shims.Adopt(o.shim, o.shimKey(), o.sandbox)
	}
}

// joinShim finds a shim for the container, or begins to start one: it comes up beside the other steps.
func (l *launch) joinShim(ctx context.Context) error {
	if l.r.shims == nil {
		return nil
	}
	shim, err := l.r.shims.Join(l.record.shimKey(), l.record.sandbox)
	if err != nil {
		l.log().WarnContext(ctx, "the container gets a shim of its own", "error", err)
		return nil
	}
	l.shim, l.record.shim = shim, shim.ID
	l.state.record = l.record
	return nil
}

// createTask makes the container's process in its shim.
func (l *launch) createTask(ctx context.Context, request *tasks.CreateTaskRequest) error {
	if l.shim != nil {
		request.TaskApiAddress, request.TaskApiVersion = l.r.shims.Address(l.shim), shims.Version
	}
	made, err := l.r.client.TaskService().Create(ctx, request)
	err = errgrpc.ToNative(err)
	if l.shim != nil {
		l.r.shims.Made(l.record.sandbox, err == nil)
		if err != nil && l.r.shims.Gone(l.shim) {
			return errors.Join(errShim, err)
		}
	}
	if err != nil {
		return err
	}
	l.pid = made.Pid
	l.state.mu.Lock()
	l.state.pid = made.Pid
	l.state.mu.Unlock()
	return nil
}

// shimLives says whether the shim of a container has not ended, where that is known.
func (r *Runtime) shimLives(id string) bool { return r.shims != nil && id != "" && r.shims.Lives(id) }

// leaveShim has to come before a container's task is removed.
func (r *Runtime) leaveShim(ctx context.Context, id string) error {
	if r.shims == nil {
		return nil
	}
	return r.shims.Leave(ctx, id)
}

// leftShim comes after the task of a container was removed, or was found not to be there.
func (r *Runtime) leftShim(id string) {
	if r.shims != nil {
		r.shims.Left(id)
	}
}
