package images

import (
	"context"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"
)

// A function whose new image cannot serve goes back to the one that it had. So an image that another one replaces under its name stays
// here for a while, under its digest; and an image that is asked for by its digest is found under whatever name it has.

const (
	// labelBefore is of an image that is kept: the name that it had.
	labelBefore = "esb_before"
	// keptFor is how long one is kept that nothing uses, and keptOf how many of each name.
	keptFor = 24 * time.Hour
	keptOf  = 3
	// keptRoom is what the disk must have left for images to be kept: with less, containers are refused for want of room for /tmp.
	keptRoom = 1 << 30
)

// repository is a normalised reference without tag and digest.
func repository(name string) string {
	name, _, _ = strings.Cut(name, "@")
	if i := strings.LastIndexByte(name, ':'); i > strings.LastIndexByte(name, '/') {
		name = name[:i]
	}
	return name
}

// byDigest finds the image that a normalised reference with a digest means among those that are here: under that name, or under another
// one of its repository.
func (s *Store) byDigest(ctx context.Context, name string) (found string, ok bool) {
	_, text, pinned := strings.Cut(name, "@")
	if !pinned {
		return "", false
	}
	records, err := s.client.ImageService().List(ctx)
	if err != nil {
		return "", false // who looks for it says so
	}
	for _, record := range records {
		if record.Name == name {
			return name, true
		}
		if found != "" || repository(record.Name) != repository(name) {
			continue
		}
		if manifest, err := s.manifestDigest(ctx, record.Target); record.Target.Digest.String() == text || err == nil && manifest.String() == text {
			found = record.Name
		}
	}
	return found, found != ""
}

// keepBefore keeps the image that has a name, which the one with the digest next is about to get. That it cannot be kept must not stop
// the new one.
func (s *Store) keepBefore(ctx context.Context, name string, next digest.Digest) {
	if strings.Contains(name, "@") {
		return
	}
	record, err := s.client.ImageService().Get(ctx, name)
	if err != nil || record.Target.Digest == next {
		return
	}
	manifest, err := s.manifestDigest(ctx, record.Target)
	if err == nil {
		kept := images.Image{Name: repository(name) + "@" + manifest.String(), Target: record.Target, Labels: map[string]string{labelBefore: name}}
		if _, err = s.client.ImageService().Create(ctx, kept); errdefs.IsAlreadyExists(err) {
			err = s.keepLonger(ctx, kept)
		}
	}
	if err != nil {
		s.log.WarnContext(ctx, "the image of before is not kept: a function whose new one does not work cannot go back to it", "image", name, "error", err)
		return
	}
	if err := s.dropKept(ctx, name); err != nil {
		s.log.WarnContext(ctx, "old images that are kept cannot be removed", "image", name, "error", err)
	}
}

// keepLonger has an image that is kept already count as one that is kept from now on. Not one that somebody has pulled by its digest.
func (s *Store) keepLonger(ctx context.Context, kept images.Image) error {
	record, err := s.client.ImageService().Get(ctx, kept.Name)
	if err != nil || record.Labels[labelBefore] == "" {
		return err
	}
	_, err = s.client.ImageService().Update(ctx, kept, "labels")
	return err
}

// dropKept removes the oldest of the kept images of a name that are too many, but for those that functions have gone back to.
func (s *Store) dropKept(ctx context.Context, name string) error {
	records, err := s.client.ImageService().List(ctx)
	if err != nil {
		return err
	}
	records = slices.DeleteFunc(records, func(r images.Image) bool { return r.Labels[labelBefore] != name })
	slices.SortFunc(records, func(a, b images.Image) int { return b.UpdatedAt.Compare(a.UpdatedAt) })
	for i, r := range records {
		if i < keptOf || time.Since(s.usage.last(r.Name)) < keptFor {
			continue // a function that has gone back to it has asked for it by its digest
		}
		if _, err := s.delete(ctx, s.describe(r, nil, time.Now()), "newer ones of its name are kept"); err != nil {
			return err
		}
	}
	return nil
}

// freeOf asks for the free bytes of the disk that a folder is on.
func freeOf(dir string) func() (int64, error) {
	return func() (int64, error) {
		if dir == "" {
			return math.MaxInt64, nil
		}
		var fs unix.Statfs_t
		if err := unix.Statfs(dir, &fs); err != nil {
			return 0, fmt.Errorf("look how much of the disk is free for images: %w", err)
		}
		return int64(fs.Bavail) * fs.Bsize, nil
	}
}

// Relieve gives up images that are kept, the oldest first, while the disk is short, but for those that functions have gone back to. When there
// are any, running is asked for the names of those of containers. Nothing is given up until a gateway has said for wantedFor which images
// functions name.
func (s *Store) Relieve(ctx context.Context, running func(context.Context) ([]string, error)) error {
	if free, err := s.free(); err != nil || free >= keptRoom {
		return err
	}
	if since, ok := s.usage.hearing(); !ok || time.Since(since) < wantedFor {
		return nil
	}
	records, err := s.client.ImageService().List(ctx)
	if err != nil {
		return fmt.Errorf("list the images: %w", err)
	}
	records = slices.DeleteFunc(records, func(r images.Image) bool {
		return r.Labels[labelBefore] == "" || time.Since(s.usage.last(r.Name)) < keptFor
	})
	if len(records) == 0 {
		return nil
	}
	inUse, err := running(ctx)
	if err != nil {
		return err
	}
	slices.SortFunc(records, func(a, b images.Image) int { return a.UpdatedAt.Compare(b.UpdatedAt) })
	for _, r := range records {
		img := s.describe(r, inUse, time.Now())
		if img.InUse {
			continue
		}
		if _, err := s.delete(ctx, img, "another one has its name, and the disk is short"); err != nil {
			return err
		}
		if err := s.collect(ctx); err != nil {
			return err
		}
		if free, err := s.free(); err != nil || free >= keptRoom {
			return err
		}
	}
	return nil
}
