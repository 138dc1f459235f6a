package containerd

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/edge-serverless-box/esb/agent/images"
	"github.com/edge-serverless-box/esb/agent/rootmount"
)

// viewKept is for how long a view of an image is kept that no container has.
const viewKept = 10 * time.Minute

// views are the root filesystems of containers that were parked: one for each image, and a snapshot of containerd's that keeps its
// layers. Those use the folders of layers as they lie there, so a view is held for as long as one of them is there.
type views struct {
	// mounts has them mounted; nil: nothing is parked.
	mounts *rootmount.Views

	// changing is held while one is made or given up. It is taken before mu.
	changing sync.Mutex
	// mu guards of, which has them by the snapshot that containers are made on.
	mu sync.Mutex
	of map[string]*view
}

// view is the root filesystem of containers of one image.
type view struct {
	// holds counts the containers that have it, or are about to get it.
	holds int
	// used is when it was last held.
	used time.Time
	// layers are what is mounted; nil when nothing is.
	layers layers
}

const viewPrefix = "esb-view-"

// viewKey is the name of the snapshot that keeps the layers of a view.
func viewKey(base string) string { return viewPrefix + base }

// viewOf is what viewKey was made of. Earlier agents wrote the snapshot down that the view is of.
func viewOf(key string) string { return strings.TrimPrefix(key, viewPrefix) }

// hold keeps a view until release, and returns what is mounted of it.
func (v *views) hold(base string) layers {
	v.mu.Lock()
	defer v.mu.Unlock()
	known := v.of[base]
	if known == nil {
		known = &view{}
		v.of[base] = known
	}
	known.holds++
	known.used = time.Now()
	return known.layers
}

func (v *views) release(base string) {
	if base == "" {
		return
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if known := v.of[base]; known != nil {
		known.holds--
		known.used = time.Now()
	}
}

// layers are what is mounted of a view that is held.
func (v *views) layers(base string) layers {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.of[base].layers
}

// mounted writes down what is mounted of a view that is held.
func (v *views) mounted(base string, layers layers) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.of[base].layers = layers
}

// alone says whether there is one hold of a view: the caller's.
func (v *views) alone(base string) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.of[base].holds == 1
}

// keeps says whether a snapshot is that of a view.
func (v *views) keeps(key string) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return strings.HasPrefix(key, viewPrefix) && v.of[viewOf(key)] != nil
}

// forget forgets the views that nobody has held for so long, and returns them.
func (v *views) forget(unusedFor time.Duration) (bases []string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for base, known := range v.of {
		if known.holds <= 0 && time.Since(known.used) >= unusedFor {
			bases = append(bases, base)
			delete(v.of, base)
		}
	}
	return bases
}

// close gives up what is mounted. Containers keep what they have.
func (v *views) close() error {
	if v.mounts == nil {
		return nil
	}
	return v.mounts.Close()
}

// holdView has the view of an image mounted, and keeps it until it is released: also when this fails.
func (r *Runtime) holdView(ctx context.Context, base string, img images.Image) error {
	v := &r.views
	if layers := v.hold(base); layers != nil && layers.unchanged() {
		return nil
	}
	v.changing.Lock()
	defer v.changing.Unlock()
	if layers := v.layers(base); layers != nil {
		if layers.unchanged() {
			return nil // since this one looked
		}
		v.mounted(base, nil)
		if err := v.mounts.Drop(base); err != nil {
			return err
		}
	}
	found, err := r.viewSnapshot(ctx, base)
	if err != nil {
		return errors.Join(errImage, err)
	}
	if len(found) != 1 || found[0].Type != "overlay" {
		return errors.Join(errImage, fmt.Errorf("the root filesystem of image %s is no overlay", img.Name))
	}
	if images.Missing(found) {
		err := errors.Join(errImage, fmt.Errorf("a layer of image %s has no files any more", img.Name))
		if v.alone(base) { // else the layers that are left are others' root filesystem
			err = errors.Join(err, r.client.SnapshotService(images.Snapshotter).Remove(ctx, viewKey(base)))
		}
		return err
	}
	if err := v.mounts.Add(base, found[0].Options); err != nil {
		return err
	}
	v.mounted(base, layersOf(found[0]))
	return nil
}

// viewSnapshot makes the snapshot that keeps the layers of a view, if it is not there.
func (r *Runtime) viewSnapshot(ctx context.Context, base string) ([]mount.Mount, error) {
	sn := r.client.SnapshotService(images.Snapshotter)
	labels := map[string]string{labelRoot: time.Now().UTC().Format(time.RFC3339), labelStack: r.cfg.Stack}
	found, err := sn.View(ctx, viewKey(base), base, snapshots.WithLabels(labels))
	if errdefs.IsAlreadyExists(err) {
		return sn.Mounts(ctx, viewKey(base))
	}
	return found, err
}

// adoptView holds the view that a container of an earlier agent has.
func (r *Runtime) adoptView(ctx context.Context, base string) error {
	r.views.hold(base)
	if _, err := r.viewSnapshot(ctx, base); err != nil {
		return fmt.Errorf("keep the layers of its root filesystem: %w", err)
	}
	return nil
}

// dropViews gives up the views that no container has had for so long: what layers of images take is free then.
func (r *Runtime) dropViews(ctx context.Context, unusedFor time.Duration) error {
	v := &r.views
	v.changing.Lock()
	defer v.changing.Unlock()
	var errs []error
	sn := r.client.SnapshotService(images.Snapshotter)
	for _, base := range v.forget(unusedFor) {
		if v.mounts != nil {
			errs = append(errs, v.mounts.Drop(base))
		}
		errs = append(errs, ignoreNotFound(sn.Remove(ctx, viewKey(base))))
	}
	return errors.Join(errs...)
}

// layers are the folders that a view is of, each with what tells it from another one of its name: a store that was damaged is made
// again, and a view of what it had shows nothing any more.
type layers map[string]string

func layersOf(view mount.Mount) layers {
	out := layers{}
	for _, o := range view.Options {
		if folders, ok := strings.CutPrefix(o, "lowerdir="); ok {
			for dir := range strings.SplitSeq(folders, ":") {
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
