package containerd

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"
	"time"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"

	"github.com/edge-serverless-box/esb/agent/images"
)

func (l *launch) makeSnapshot(ctx context.Context) error {
	sn := l.r.client.SnapshotService(images.Snapshotter)
	labels := map[string]string{labelRoot: time.Now().UTC().Format(time.RFC3339), labelStack: l.r.cfg.Stack}
	if namesUser(l.image.Config.User) {
		maps.Copy(labels, mappedRoot(l.record.firstID))
	}
	opt := snapshots.WithLabels(labels)
	err := l.prepare(ctx, sn, opt)
	if cleaner, ok := sn.(snapshots.Cleaner); ok && err != nil && strings.Contains(err.Error(), "file exists") {
		// A containerd that was killed has made a snapshot's folder and not written it down: its number is used again.
		if err := cleaner.Cleanup(ctx); err != nil {
			return fmt.Errorf("remove folders of snapshots that a killed containerd has left: %w", err)
		}
		err = l.prepare(ctx, sn, opt)
	}
	if !images.Lost(err) {
		return err
	}
	// What is known of the image may be of before containerd has tidied up: it was removed, or its tag is another one's now, and what
	// was derived from it has gone in order.
	l.r.images.Forget(l.image)
	if err = l.prepareAnew(ctx, sn, opt); !images.Lost(err) {
		return err
	}
	// Something of it has gone from containerd's store that should be there.
	mended, mendErr := l.r.images.Mend(ctx, l.image.Name, l.spec.PullPolicy)
	if !mended {
		return errors.Join(err, mendErr)
	}
	return l.prepareAnew(ctx, sn, opt)
}

// prepareAnew is prepare with the image as it is now: a registry may have another one meanwhile. It is looked for as the function names it:
// one that is pinned may have been found under a tag, which can be another one's by now.
func (l *launch) prepareAnew(ctx context.Context, sn snapshots.Snapshotter, opt snapshots.Opt) error {
	img, err := l.r.images.Get(ctx, l.spec.Image, l.spec.PullPolicy)
	if err != nil {
		return err
	}
	l.image, l.record.Image, l.record.ImageDigest = img, img.Name, img.Manifest.String()
	return l.prepare(ctx, sn, opt)
}

// prepare makes the container's snapshot. The error is images.Lost when folders of layers have gone.
func (l *launch) prepare(ctx context.Context, sn snapshots.Snapshotter, opt snapshots.Opt) error {
	base, err := l.r.prepared(ctx, l.image, firstOf(l.spec.WorkingDirectory, l.image.Config.WorkingDir))
	if err != nil {
		return err
	}
	if l.rootfs, err = sn.Prepare(ctx, l.record.sandbox, base, opt); err != nil {
		return err
	}
	if images.Missing(l.rootfs) {
		return errors.Join(fmt.Errorf("a layer of image %s has no files any more: %w", l.image.Name, errdefs.ErrNotFound), sn.Remove(ctx, l.record.sandbox))
	}
	return nil
}
