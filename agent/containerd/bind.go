package containerd

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/containerd/containerd/v2/core/containers"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/edge-serverless-box/esb/agent"
	"github.com/edge-serverless-box/esb/agent/code"
	"github.com/edge-serverless-box/esb/agent/images"
	"github.com/edge-serverless-box/esb/agent/rootmount"
)

// callLimit bounds the handing over of what to start.
const callLimit = 5 * time.Second

// errImage marks failures that are an image's, and tell nothing of other binds.
var errImage = errors.New("the image cannot be had as it is")

// takeParked returns a parked container for a function, nil when there is none or it needs one of its own: a root filesystem
// whose files belong to users of its own, or the Runtime Interface Emulator.
func (r *Runtime) takeParked(spec agent.ContainerSpec, img images.Image) *parked {
	if spec.Interface != agent.Supervisor || namesUser(img.Config.User) {
		return nil
	}
	if r.parked.stale(identity(r.binary("lambda-init"))) {
		list := r.parked.empty()
		r.background.Go(func() { r.removeParked(r.life, list, parallelRemovals) })
	}
	for {
		p := r.parked.take()
		if p == nil {
			return nil
		}
		p.leave()
		if !r.hasLostShim(p) {
			return p
		}
		r.background.Go(func() { r.discard(context.WithoutCancel(r.life), p) })
	}
}

// hasLostShim says whether the shim of a parked container has ended: nobody would say how a function's process ends in it.
func (r *Runtime) hasLostShim(p *parked) bool {
	p.state.mu.Lock()
	defer p.state.mu.Unlock()
	return p.state.ended || r.shims != nil && p.record.shim != "" && !r.shims.Lives(p.record.shim)
}

// newBinding makes a launch of a container that is parked.
func (r *Runtime) newBinding(spec agent.ContainerSpec, img images.Image, leased *code.Lease, p *parked) *launch {
	l := r.newLaunch(spec, img, leased, shortID(p.record.sandbox))
	l.parked, l.groups, l.mounted, l.ready = p, p.groups, p.mounts, p.ready
	l.record.sandbox, l.record.attachment, l.record.firstID, l.record.IP = p.record.sandbox, p.record.attachment, p.record.firstID, p.record.IP
	l.record.shim = p.record.shim
	p.state.mu.Lock()
	l.record.view, l.state.view = p.state.view, p.state.view // of a stem cell
	p.state.mu.Unlock()
	l.state.record, l.state.socket, l.state.pid = l.record, p.state.socket, p.state.pid
	// From here on it is the function's, whatever becomes of it.
	r.mu.Lock()
	r.states[l.record.sandbox] = l.state
	r.mu.Unlock()
	return l
}

// bind makes the parked container the function's. When that fails it is removed, in the background: the function can have another.
func (l *launch) bind(ctx context.Context) error {
	err := l.reserve(ctx)
	if err != nil {
		l.r.background.Go(func() { l.r.discard(context.WithoutCancel(ctx), l.parked) })
		return err
	}
	// unbound is a failure that is not the function's own, nor its image's.
	unbound := false
	err = l.run(ctx, []step{
		{"limits", "limit it", func(context.Context) error {
			l.watch()
			err := l.r.groups.SetLimits(l.record.sandbox, l.record.memoryMB)
			unbound = err != nil
			return err
		}},
		{"root", "give it its root filesystem", func(ctx context.Context) error {
			err := l.giveRoot(ctx)
			unbound = err != nil && !errors.Is(err, errImage) && !errors.Is(err, rootmount.ErrNoView)
			return err
		}},
		{"tmp", "give it its /tmp", l.bindDisk},
		{"call", "start its process", l.call},
	})
	if ctx.Err() == nil && (err == nil || unbound) {
		l.r.bound(err)
	}
	if err == nil {
		l.r.memory.Started(l.record.sandbox)
		l.parked.letGo()
		l.r.background.Go(func() { l.r.writeRecord(l.record) })
		return nil
	}
	if ctx.Err() == nil {
		l.log().WarnContext(ctx, "a container that was made ahead could not be bound to the function, which gets another one", "error", err)
	}
	l.r.memory.Release(l.record.sandbox)
	l.r.background.Go(func() { l.r.discard(context.WithoutCancel(ctx), l.parked) })
	return err
}

// giveRoot has the container see the function's root filesystem.
func (l *launch) giveRoot(ctx context.Context) error {
	if l.parked.kind != nil {
		return l.addMounts(ctx)
	}
	return l.enter(ctx)
}

// enter gives the container the function's root filesystem. Its view is held for as long as there is the container.
func (l *launch) enter(ctx context.Context) error {
	base, err := l.r.prepared(ctx, l.image, firstOf(l.spec.WorkingDirectory, l.image.Config.WorkingDir))
	if err != nil {
		return errors.Join(errImage, err)
	}
	if err = l.r.holdView(ctx, base, l.image); err == nil {
		err = l.enterView(ctx, base)
	}
	if err != nil {
		l.r.views.release(base)
		return err
	}
	l.record.view = base
	l.state.mu.Lock()
	l.state.view = base
	l.state.mu.Unlock()
	return nil
}

func (l *launch) enterView(ctx context.Context, base string) error {
	in, err := l.input(ctx, nil)
	if err != nil {
		return err
	}
	root, err := l.rootOf(in)
	if err != nil {
		return err
	}
	root.View = base
	return l.r.views.mounts.Enter(l.parked.mounts, root)
}

// rootOf is all of the root filesystem but the view.
func (l *launch) rootOf(in specInput) (rootmount.Root, error) {
	root := rootmount.Root{Keep: l.parked.keep}
	for _, m := range mounts(in, nil) {
		switch {
		case within(m.Destination, l.parked.keep) && m.Destination != "/proc/meminfo":
		case m.Type == "bind":
			root.Binds = append(root.Binds, rootmount.Bind{Source: m.Source, Target: m.Destination, Attributes: attributes(m)})
		case m.Destination == "/tmp":
			root.Tmp = &rootmount.Tmp{SizeMB: in.tmpSizeMB, Owner: in.firstID}
		default:
			return root, fmt.Errorf("%s cannot be mounted in a container that runs", m.Destination)
		}
	}
	return root, nil
}

// within says whether a path is one of some mount points, or on one.
func within(name string, points []string) bool {
	return slices.ContainsFunc(points, func(p string) bool { return name == p || strings.HasPrefix(name, p+"/") })
}

// attributes are the options of a mount as the kernel has them.
func attributes(m specs.Mount) uint64 {
	var out uint64
	for _, o := range m.Options {
		out |= map[string]uint64{"ro": rootmount.ReadOnly, "nosuid": rootmount.NoSuid, "nodev": rootmount.NoDev, "noexec": rootmount.NoExec}[o]
	}
	return out
}

// call tells lambda-init what it is. Its log has the name of the container before there is a line in it, and whose it is stands in a
// file before anything of the function runs: an agent that is killed from then on leaves a container that the next one knows.
func (l *launch) call(ctx context.Context) error {
	in, err := l.input(ctx, nil)
	if err != nil {
		return err
	}
	what, err := in.process()
	if err != nil {
		return err
	}
	what.Args = what.Args[1:] // the first is lambda-init
	if err := l.r.logs.Assign(l.record.sandbox, l.record.ID); err != nil {
		return err
	}
	if err := l.r.noteBound(l.record); err != nil {
		return err
	}
	text, err := json.Marshal(what)
	if err != nil {
		return err
	}
	if err := l.parked.conn.SetWriteDeadline(time.Now().Add(callLimit)); err != nil {
		return err
	}
	if _, err := l.parked.conn.Write(text); err != nil {
		return fmt.Errorf("tell its lambda-init what to start: %w", err)
	}
	return l.parked.conn.Close()
}

// boundName is the file that says whose a container is that was parked, until containerd knows it.
const boundName = "bound.json"

// noteBound writes the labels of a container that gets its function into a file: in memory, as the folder of running containers is, and
// some thousand times as fast as containerd's record.
func (r *Runtime) noteBound(rec record) error {
	text, err := json.Marshal(bound{Labels: rec.labels(r.cfg.Stack), View: rec.view})
	if err == nil {
		err = os.WriteFile(filepath.Join(r.files(rec.ID), boundName), text, 0o600)
	}
	if err != nil {
		return fmt.Errorf("write down whose it is: %w", err)
	}
	return nil
}

// bound is what a container that was parked has become.
type bound struct {
	Labels map[string]string `json:"labels"`
	View   string            `json:"view"`
}

// recordIn reads a container's record, and says whether containerd has an old one: of what was parked, and has become a function's
// just before its agent was killed.
func (r *Runtime) recordIn(c containers.Container) (rec record, old bool) {
	rec = recordOf(c.ID, c.Labels)
	if rec.ID != rec.sandbox {
		rec.view = viewOf(c.SnapshotKey)
	}
	if !rec.parked {
		return rec, false
	}
	text, err := os.ReadFile(filepath.Join(r.files(c.ID), boundName))
	if err != nil {
		return rec, false
	}
	var b bound
	// A half of it was written by an agent that has not said anything to lambda-init.
	if json.Unmarshal(text, &b) != nil {
		return rec, false
	}
	rec = recordOf(c.ID, b.Labels)
	rec.view = b.View
	return rec, true
}

// writeRecord has containerd keep whose the container is, and its layers. It is tried for as long as the container lives.
func (r *Runtime) writeRecord(rec record) {
	for pause := reconnectInterval; ; pause = min(2*pause, upkeepInterval) {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(r.life), launchTimeout)
		_, err := r.client.ContainerService().Update(ctx, containers.Container{
			ID: rec.sandbox, Labels: rec.labels(r.cfg.Stack), Image: rec.Image, SnapshotKey: viewKey(rec.view),
		}, "labels", "image", "snapshotkey")
		cancel()
		if err == nil || errdefs.IsNotFound(err) {
			return
		}
		r.log.Warn("whose a container is cannot be written down yet", "container_id", rec.ID, "function", rec.FunctionName, "error", err)
		if !sleep(r.life, pause) {
			return
		}
	}
}
