package containerd

import (
	"context"
	"fmt"
	"time"

	"github.com/edge-serverless-box/esb/agent"
	"github.com/edge-serverless-box/esb/agent/errcode"
)

// tendInterval is how often images are looked through for those that nothing uses, tendDelay when that is done first: by then a
// gateway has said which images its functions have.
const tendInterval, tendDelay = time.Hour, 15 * time.Minute

var _ agent.ImageKeeper = (*Runtime)(nil)

// Images implements agent.ImageKeeper.
func (r *Runtime) Images(ctx context.Context) ([]agent.Image, int64, error) {
	running, err := r.imagesInUse(ctx)
	if err != nil {
		return nil, 0, err
	}
	list, bytes, err := r.images.List(ctx, running)
	if err != nil {
		return nil, 0, errcode.Of(agent.CodeInternal, err)
	}
	return list, bytes, nil
}

// RemoveImages implements agent.ImageKeeper.
func (r *Runtime) RemoveImages(ctx context.Context, names []string, unusedFor time.Duration, archives bool) ([]string, error) {
	running, err := r.imagesInUse(ctx)
	if err != nil {
		return nil, err
	}
	if err := r.dropViews(ctx, 0); err != nil {
		return nil, errcode.Of(agent.CodeInternal, fmt.Errorf("give up views of images: %w", err))
	}
	removed, err := r.images.Remove(ctx, names, unusedFor, archives, running)
	if err != nil {
		return removed, errcode.Of(agent.CodeInternal, err)
	}
	return removed, nil
}

// imagesInUse are the names of the images that containers are made of, or are being made of.
func (r *Runtime) imagesInUse(ctx context.Context) ([]string, error) {
	found, err := r.observe(ctx, "")
	if err != nil {
		return nil, err
	}
	var names []string
	for _, o := range found {
		names = append(names, o.Image)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, s := range r.states {
		names = append(names, s.record.Image)
	}
	return names, nil
}

// relieveDisk gives up images that are kept for functions that go back, when the disk is short, with the views of them.
func (r *Runtime) relieveDisk(ctx context.Context) error {
	return r.images.Relieve(ctx, func(ctx context.Context) ([]string, error) {
		running, err := r.imagesInUse(ctx)
		if err != nil {
			return nil, err
		}
		return running, r.dropViews(ctx, 0)
	})
}

// tendImages removes what nothing uses, from time to time.
func (r *Runtime) tendImages() {
	timer := time.NewTimer(tendDelay)
	defer timer.Stop()
	for {
		select {
		case <-r.life.Done():
			return
		case <-timer.C:
		}
		running, err := r.imagesInUse(r.life)
		if err == nil {
			err = r.dropViews(r.life, 0)
		}
		if err == nil {
			err = r.images.Tend(r.life, running)
		}
		if err != nil && r.life.Err() == nil {
			r.log.Warn("images that nothing uses cannot be removed", "error", err)
		}
		timer.Reset(tendInterval)
	}
}
