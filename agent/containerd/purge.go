package containerd

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"
)

// purgeGrace is what functions have to end when their box does: their extensions have 2 s (AWS: "Shutdown phase"), lambda-init a
// moment more.
const purgeGrace = 3 * time.Second

// Purge removes all containers of the stack with everything that belongs to them but their network, which goes as a
// whole. Images and logs stay. No Runtime of the stack may be open.
func Purge(ctx context.Context, cfg Config) (err error) {
	r, err := connect(ctx, cfg, nil)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	found, err := r.observe(ctx, "")
	if err != nil {
		return err
	}
	group, groupCtx := errgroup.WithContext(ctx)
	group.SetLimit(parallelRemovals)
	for _, o := range found {
		group.Go(func() error {
			if err := r.remove(groupCtx, o.record, purgeGrace); err != nil {
				return fmt.Errorf("remove container %s: %w", o.ID, err)
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	if err := r.purgeShims(ctx); err != nil {
		return err
	}
	if err := r.removeLeftovers(ctx); err != nil {
		return err
	}
	return r.groups.Purge(ctx)
}
