package containerd

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/containerd/containerd/v2/core/containers"
	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

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
	p := r.parked.take()
	if p != nil {
		p.leave()
	}
	return p
}

// newBinding makes a launch of a container that is parked.
func (r *Runtime) newBinding(spec agent.ContainerSpec, img images.Image, leased *code.Lease, p *parked) *launch {
	l := r.newLaunch(spec, img, leased, shortID(p.record.sandbox))
	l.parked, l.groups, l.pid, l.ready = p, p.groups, p.pid, p.ready
	l.record.sandbox, l.record.attachment, l.record.firstID, l.record.IP = p.record.sandbox, p.record.attachment, p.record.firstID, p.record.IP
	l.record.shim = p.record.shim
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
	var base string
	// unbound is a failure that is not the function's own, nor its image's.
	unbound := false
	err = l.run(ctx, []step{
		{"limits", "limit it", func(context.Context) error {
			l.watch()
			err := l.r.groups.SetLimits(l.record.sandbox, l.record.memoryMB)
			unbound = err != nil
			return err
		}},
		{"root", "give it its root filesystem", func(ctx context.Context) (err error) {
			base, err = l.enter(ctx)
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
		l.r.background.Go(func() { l.r.writeRecord(l.record, base) })
		return nil
	}
	if ctx.Err() == nil {
		l.log().WarnContext(ctx, "a container that was made ahead could not be bound to the function, which gets another one", "error", err)
	}
	l.r.memory.Release(l.record.sandbox)
	l.r.background.Go(func() { l.r.discard(context.WithoutCancel(ctx), l.parked) })
	return err
}

// enter gives the container the function's root filesystem, and returns the snapshot that it is of.
func (l *launch) enter(ctx context.Context) (string, error) {
	base, err := l.r.mountView(ctx, l.image, firstOf(l.spec.WorkingDirectory, l.image.Config.WorkingDir))
	if err != nil {
		return "", err
	}
	in, err := l.input(ctx, nil)
	if err != nil {
		return "", err
	}
	root := rootmount.Root{View: base, Keep: l.parked.keep}
	for _, m := range mounts(in, nil) {
		switch {
		case within(m.Destination, l.parked.keep) && m.Destination != "/proc/meminfo":
		case m.Type == "bind":
			root.Binds = append(root.Binds, rootmount.Bind{Source: m.Source, Target: m.Destination, Attributes: attributes(m)})
		case m.Destination == "/tmp":
			root.Tmp = &rootmount.Tmp{SizeMB: in.tmpSizeMB, Owner: in.firstID}
		default:
			return "", fmt.Errorf("%s cannot be mounted in a container that runs", m.Destination)
		}
	}
	return base, l.r.parked.views.Enter(int(l.pid), root)
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

// call tells lambda-init what it is. Its log has the name of the container before there is a line in it.
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

// mountView returns the snapshot of an image that containers are made on, with its view mounted.
func (r *Runtime) mountView(ctx context.Context, img images.Image, workingDir string) (string, error) {
	base, err := r.prepared(ctx, img, workingDir)
	if err != nil {
		return "", errors.Join(errImage, err)
	}
	l := r.parked
	l.mu.Lock()
	known := l.layers[base]
	l.used[base] = time.Now()
	l.mu.Unlock()
	if l.views.Has(base) {
		if known.unchanged() {
			return base, nil
		}
		if err := l.views.Drop(base); err != nil {
			return "", err
		}
	}
	// The snapshot keeps the layers until the container's own record does.
	sn := r.client.SnapshotService(images.Snapshotter)
	labels := map[string]string{labelRoot: time.Now().UTC().Format(time.RFC3339), labelStack: r.cfg.Stack}
	found, err := sn.View(ctx, viewKey(base), base, snapshots.WithLabels(labels))
	if errdefs.IsAlreadyExists(err) {
		found, err = sn.Mounts(ctx, viewKey(base))
	}
	if err != nil {
		return "", errors.Join(errImage, err)
	}
	if len(found) != 1 || found[0].Type != "overlay" {
		return "", errors.Join(errImage, fmt.Errorf("the root filesystem of image %s is no overlay", img.Name))
	}
	if images.Missing(found) {
		return "", errors.Join(errImage, fmt.Errorf("a layer of image %s has no files any more", img.Name), sn.Remove(ctx, viewKey(base)))
	}
	l.mu.Lock()
	l.layers[base] = layersOf(found[0])
	l.mu.Unlock()
	return base, l.views.Add(base, found[0].Options)
}

// layers are the folders that a view is of, each with what tells it from another one of its name: a store that was damaged is made
// again, and a view of what it had shows nothing any more.
type layers map[string]string

func layersOf(view mount.Mount) layers {
	out := layers{}
	for _, o := range view.Options {
		if folders, ok := strings.CutPrefix(o, "lowerdir="); ok {
			for _, dir := range strings.Split(folders, ":") {
				out[dir] = identity(dir)
			}
		}
	}
	return out
}

// identity is empty for a folder that is not there.
func identity(dir string) string {
	var s unix.Statx_t
	if unix.Statx(unix.AT_FDCWD, dir, 0, unix.STATX_INO|unix.STATX_BTIME, &s) != nil {
		return ""
	}
	return fmt.Sprint(s.Dev_major, ":", s.Dev_minor, " ", s.Ino, " ", s.Btime.Sec, ".", s.Btime.Nsec)
}

func (l layers) unchanged() bool {
	for dir, was := range l {
		if was == "" || identity(dir) != was {
			return false
		}
	}
	return true
}

// writeRecord has containerd keep whose the container is, and its layers. Until that is done the next agent would take it for one
// that is nobody's, and remove it; so it is tried for as long as the container lives.
func (r *Runtime) writeRecord(rec record, base string) {
	for pause := reconnectInterval; ; pause = min(2*pause, upkeepInterval) {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(r.life), launchTimeout)
		_, err := r.client.ContainerService().Update(ctx, containers.Container{
			ID: rec.sandbox, Labels: rec.labels(r.cfg.Stack), Image: rec.Image, SnapshotKey: base,
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
