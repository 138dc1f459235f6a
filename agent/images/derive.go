package images

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"
)

// labelContent keeps a snapshot for as long as there is the content that it names (containerd, "Garbage collection", back
// references).
const labelContent = "containerd.io/gc.bref.content"

// Derive returns the snapshot that is an image's own and what change makes of it. It is made once for each variant, which names all
// that change does, and kept for as long as the image.
func (s *Store) Derive(ctx context.Context, img Image, variant string, change func(root string) error) (string, error) {
	name := img.Chain + "-" + variant
	if _, ok := s.derived.Load(name); ok {
		return name, nil
	}
	_, err := s.flights.Do(ctx, "derive "+name, func(ctx context.Context) (any, error) {
		sn := s.client.SnapshotService(Snapshotter)
		if _, err := sn.Stat(ctx, name); err == nil || !errdefs.IsNotFound(err) {
			return nil, err
		}
		keep := snapshots.WithLabels(map[string]string{labelContent: img.Content.String()})
		// Not the name of a layer, which storedb looks for: this one may come to nothing.
		key := "derive-" + name + "-" + strings.ToLower(rand.Text())
		mounts, err := sn.Prepare(ctx, key, img.Chain, keep)
		if err != nil {
			return nil, err
		}
		if err = mount.WithTempMount(ctx, mounts, change); err == nil {
			err = sn.Commit(ctx, name, key, keep)
		}
		if err != nil {
			return nil, errors.Join(err, sn.Remove(ctx, key))
		}
		return nil, nil
	})
	if err != nil {
		return "", fmt.Errorf("prepare the root filesystem of image %s: %w", img.Name, err)
	}
	s.derived.Store(name, struct{}{})
	return name, nil
}
