package images

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/content"
	core "github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/image-spec/identity"

	"github.com/edge-serverless-box/esb/agent"
)

const (
	// labelUsed has when an image was last used.
	labelUsed = "esb_used_at"
	// usedStep is how far what labelUsed says may be behind.
	usedStep = time.Hour
	// wantedFor is for how long an image counts as in use that a gateway has asked for: it asks for those of all functions, again and again.
	wantedFor = 10 * time.Minute
	// bases is the part of a name by which images are known that run code: functions that are made later need them.
	bases = "/esb/runtime-"
)

// usage is when images were last asked for in this process.
type usage struct {
	// mu guards what follows.
	mu sync.Mutex
	at map[string]time.Time
	// heard is when a gateway last asked for the images of functions, since when the first of those times was that are no further apart
	// than wantedFor: only then it is known which images functions name.
	heard, since time.Time
}

// hear notes that a gateway has asked for the images of functions.
func (u *usage) hear() {
	u.mu.Lock()
	defer u.mu.Unlock()
	now := time.Now()
	if now.Sub(u.heard) >= wantedFor {
		u.since = now
	}
	u.heard = now
}

// hearing says whether a gateway has asked lately, and since when it has again and again.
func (u *usage) hearing() (since time.Time, ok bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.since, time.Since(u.heard) < wantedFor
}

func (u *usage) note(name string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.at == nil {
		u.at = map[string]time.Time{}
	}
	u.at[name] = time.Now()
}

func (u *usage) last(name string) time.Time {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.at[name]
}

// List returns all images by name; running are the names of those of containers. bytes is what all take together.
func (s *Store) List(ctx context.Context, running []string) (list []agent.Image, bytes int64, err error) {
	records, err := s.client.ImageService().List(ctx)
	if err != nil {
		return nil, 0, fmt.Errorf("list the images: %w", err)
	}
	for _, record := range records {
		img := s.describe(record, running, time.Now())
		if img.Bytes, err = s.size(ctx, record); err != nil {
			return nil, 0, err
		}
		list = append(list, img)
	}
	slices.SortFunc(list, func(a, b agent.Image) int { return strings.Compare(a.Name, b.Name) })
	bytes, err = s.total(ctx)
	return list, bytes, err
}

// describe is all of an image but its size.
func (s *Store) describe(record core.Image, running []string, now time.Time) agent.Image {
	img := agent.Image{Name: record.Name, Digest: record.Target.Digest.String(), UsedAt: record.UpdatedAt}
	if at, err := time.Parse(time.RFC3339, record.Labels[labelUsed]); err == nil {
		img.UsedAt = at
	}
	last := s.usage.last(record.Name)
	img.InUse = slices.Contains(running, record.Name) || !last.IsZero() && now.Sub(last) < wantedFor
	if img.InUse {
		last = now
	}
	if last.After(img.UsedAt) {
		img.UsedAt = last
	}
	if file := record.Labels[labelArchive]; file != "" {
		if _, err := os.Stat(file); err == nil {
			img.Archive = file
		}
	}
	return img
}

// size is what an image takes: content and unpacked layers. What has gone of it takes nothing.
func (s *Store) size(ctx context.Context, record core.Image) (int64, error) {
	img := containerd.NewImageWithPlatform(s.client, record, s.platform)
	bytes, err := img.Size(ctx)
	if err != nil {
		return 0, ignoreDamage(ctx, err)
	}
	layers, err := img.RootFS(ctx)
	if err != nil {
		return bytes, ignoreDamage(ctx, err)
	}
	sn := s.client.SnapshotService(Snapshotter)
	for i := range layers {
		used, err := sn.Usage(ctx, identity.ChainID(layers[:i+1]).String())
		if err != nil {
			return bytes, ignoreDamage(ctx, err)
		}
		bytes += used.Size
	}
	return bytes, nil
}

// ignoreDamage is nil for an error that is the image's own.
func ignoreDamage(ctx context.Context, err error) error {
	if ctx.Err() != nil || errdefs.IsUnavailable(err) {
		return err
	}
	return nil
}

// total is what all images take.
func (s *Store) total(ctx context.Context) (bytes int64, err error) {
	err = s.client.ContentStore().Walk(ctx, func(info content.Info) error {
		bytes += info.Size
		return nil
	})
	if err != nil {
		return 0, fmt.Errorf("list the content of images: %w", err)
	}
	sn := s.client.SnapshotService(Snapshotter)
	var names []string
	err = sn.Walk(ctx, func(_ context.Context, info snapshots.Info) error {
		if info.Kind == snapshots.KindCommitted {
			names = append(names, info.Name)
		}
		return nil
	})
	if err != nil {
		return 0, fmt.Errorf("list the unpacked layers: %w", err)
	}
	for _, name := range names {
		used, err := sn.Usage(ctx, name)
		if err != nil && !errdefs.IsNotFound(err) {
			return 0, fmt.Errorf("ask for the size of the unpacked layer %s: %w", name, err)
		}
		bytes += used.Size
	}
	return bytes, nil
}

// Remove removes images that nothing uses: those that are named, or, when none is, all that nothing has used for so long. archives
// says whether their archives go, too. It returns what is removed: nothing while no gateway says which images functions name.
func (s *Store) Remove(ctx context.Context, refs []string, unusedFor time.Duration, archives bool, running []string) (removed []string, err error) {
	records, err := s.client.ImageService().List(ctx)
	if err != nil {
		return nil, fmt.Errorf("list the images: %w", err)
	}
	if _, ok := s.usage.hearing(); !ok {
		return nil, agent.Errorf(agent.CodePrecondition,
			"no image is removed: no gateway has asked for its images for %v, so it is not known which images functions name", wantedFor)
	}
	now := time.Now()
	var doomed []agent.Image
	for _, record := range records {
		if img := s.describe(record, running, now); len(refs) == 0 && !img.InUse && now.Sub(img.UsedAt) >= unusedFor {
			doomed = append(doomed, img)
		}
	}
	for _, ref := range refs {
		name, err := normalize(ref, s.registry)
		if err != nil {
			return nil, agent.Errorf(agent.CodeInvalid, "image: %w", err)
		}
		i := slices.IndexFunc(records, func(r core.Image) bool { return r.Name == name })
		if i < 0 {
			return nil, agent.Errorf(agent.CodeNotFound, "there is no image %s", name)
		}
		img := s.describe(records[i], running, now)
		if img.InUse {
			return nil, agent.Errorf(agent.CodePrecondition, "image %s is in use: a container is made of it, or a function names it", name)
		}
		doomed = append(doomed, img)
	}
	for _, img := range doomed {
		gone, err := s.delete(ctx, img, "asked for")
		if err != nil {
			return removed, err
		}
		if !gone {
			continue
		}
		removed = append(removed, img.Name)
		if archives && img.Archive != "" && !s.shared(img.Archive, doomed) {
			if err := os.Remove(img.Archive); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return removed, fmt.Errorf("remove an image archive: %w", err)
			}
			removed = append(removed, img.Archive)
		}
	}
	if len(removed) == 0 {
		return nil, nil
	}
	return removed, s.collect(ctx)
}

// shared says whether an archive has an image that is not doomed.
func (s *Store) shared(file string, doomed []agent.Image) bool {
	files, _, _ := s.archives.files()
	for _, f := range files {
		for _, name := range f.names {
			if f.path == file && !slices.ContainsFunc(doomed, func(img agent.Image) bool { return img.Name == name }) {
				return true
			}
		}
	}
	return false
}

// delete forgets an image, unless it has come to be wanted; collect frees what it took.
func (s *Store) delete(ctx context.Context, img agent.Image, why string) (gone bool, err error) {
	if time.Since(s.usage.last(img.Name)) < wantedFor {
		return false, nil // since somebody looked
	}
	if err := s.client.ImageService().Delete(ctx, img.Name); err != nil && !errdefs.IsNotFound(err) {
		return false, fmt.Errorf("remove image %s: %w", img.Name, err)
	}
	s.forgetAll()
	s.log.InfoContext(ctx, "image removed", "image", img.Name, "why", why, "used_at", img.UsedAt.UTC().Format(time.RFC3339))
	return true, nil
}

// Tend notes which images are in use, and removes those, and the archives, that nothing has used for too long or that are too many.
// running are the names of those of containers. It removes nothing until a gateway has said for wantedFor which images functions name.
func (s *Store) Tend(ctx context.Context, running []string) error {
	records, err := s.client.ImageService().List(ctx)
	if err != nil {
		return fmt.Errorf("list the images: %w", err)
	}
	now := time.Now()
	var unused, kept []agent.Image
	for _, record := range records {
		img := s.describe(record, running, now)
		noted, _ := time.Parse(time.RFC3339, record.Labels[labelUsed])
		if img.UsedAt.Sub(noted) > usedStep {
			update := core.Image{Name: record.Name, Labels: map[string]string{labelUsed: img.UsedAt.UTC().Format(time.RFC3339)}}
			if _, err := s.client.ImageService().Update(ctx, update, "labels."+labelUsed); err != nil && !errdefs.IsNotFound(err) {
				return fmt.Errorf("note the use of image %s: %w", record.Name, err)
			}
		}
		switch {
		case img.InUse:
		case record.Labels[labelBefore] != "" && now.Sub(img.UsedAt) > keptFor:
			kept = append(kept, img)
		default:
			unused = append(unused, img)
		}
	}
	if since, ok := s.usage.hearing(); !ok || now.Sub(since) < wantedFor {
		return nil
	}
	slices.SortFunc(unused, func(a, b agent.Image) int { return cmp.Or(a.UsedAt.Compare(b.UsedAt), strings.Compare(a.Name, b.Name)) })
	var errs []error
	for _, img := range kept {
		_, err := s.delete(ctx, img, "another one has its name, and nothing has gone back to it")
		errs = append(errs, err, s.collect(ctx))
	}
	for len(unused) > 0 && s.unusedFor > 0 && now.Sub(unused[0].UsedAt) > s.unusedFor {
		_, err := s.delete(ctx, unused[0], "nothing has used it for longer than IMAGE_UNUSED_DAYS")
		errs = append(errs, err, s.collect(ctx))
		unused = unused[1:]
	}
	for len(unused) > 0 && s.storeMaxBytes > 0 {
		bytes, err := s.total(ctx)
		if err != nil || bytes <= s.storeMaxBytes {
			errs = append(errs, err)
			break
		}
		_, err = s.delete(ctx, unused[0], "images take more than IMAGE_STORE_MAX_MB")
		errs = append(errs, err, s.collect(ctx))
		unused = unused[1:]
	}
	return errors.Join(append(errs, s.tendArchives(ctx, records, running, now))...)
}
