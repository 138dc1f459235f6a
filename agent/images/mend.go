package images

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	core "github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/edge-serverless-box/esb/agent"
	"github.com/edge-serverless-box/esb/agent/errcode"
)

const (
	// mendPause is the least time between two looks at what may be damaged of one image: all of it is read for that. While nothing is
	// found, it doubles up to mendPauseMax: the image itself is at fault.
	mendPause, mendPauseMax = time.Minute, time.Hour
	// mendRounds is how often an image is fetched again: what a damaged index or manifest names is seen when that is whole.
	mendRounds = 3
)

// mending is when images were last looked at, and what came of it.
type mending struct {
	// looking is held while what is damaged is looked for and removed: images share layers.
	looking sync.Mutex
	// mu guards last.
	mu   sync.Mutex
	last map[string]mended
}

type mended struct {
	at   time.Time
	done bool
	// of is the digest that the name had, pause how long what came of it stands.
	of    digest.Digest
	pause time.Duration
}

// stands says whether there need be no other look at an image that has this digest now.
func (m mended) stands(now time.Time, of digest.Digest) bool {
	return m.of == of && now.Sub(m.at) < m.pause && !now.Before(m.at)
}

// next is what came of a look after this one.
func (m mended) next(now time.Time, of digest.Digest, done bool, err error) mended {
	next := mended{at: now, done: done, of: of, pause: mendPause}
	if !done && err == nil && m.of == of && m.pause > 0 {
		next.pause = min(2*m.pause, mendPauseMax)
	}
	return next
}

// ease has an image that could be unpacked looked at again as soon as the first time.
func (m *mending) ease(name string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if last, ok := m.last[name]; ok {
		last.pause = mendPause
		m.last[name] = last
	}
}

// whole is Unpack, for an image that may have to be mended for it.
func (s *Store) whole(ctx context.Context, name string, policy agent.PullPolicy) (Image, error) {
	img, err := s.Unpack(ctx, name)
	if err == nil || errors.Is(err, errNoImage) || ctx.Err() != nil {
		return img, err
	}
	switch agent.ErrorCode(err) {
	case agent.CodeUnavailable, agent.CodeCanceled, agent.CodeExhausted, agent.CodeDeadline:
		return Image{}, err
	}
	done, mendErr := s.Mend(ctx, name, policy)
	if !done {
		return Image{}, withCause(err, mendErr)
	}
	return s.Unpack(ctx, name)
}

// withCause adds why an image could not be mended to what was wrong with it.
func withCause(err, cause error) error {
	if cause == nil {
		return err
	}
	return agent.Errorf(agent.ErrorCode(err), "%w; and it could not be made again: %w", err, cause)
}

// Mend makes anew what has gone, or is not what it was, of an image in containerd's store: content is imported or pulled again, as
// policy allows, and layers are unpacked again by the next Unpack. It looks once a minute for each image, more seldom while nothing is
// damaged, and says the same until then. done is false when nothing is damaged.
func (s *Store) Mend(ctx context.Context, name string, policy agent.PullPolicy) (done bool, err error) {
	v, err := s.flights.Do(ctx, "mend "+name, func(ctx context.Context) (any, error) {
		if s.forgetLost(ctx) {
			return true, nil
		}
		of, err := s.here(ctx, name)
		if err != nil {
			return false, fmt.Errorf("look up image %s: %w", name, err)
		}
		s.mending.mu.Lock()
		last := s.mending.last[name]
		s.mending.mu.Unlock()
		if last.stands(time.Now(), of) {
			return last.done, nil
		}
		done, err := s.mend(ctx, name, policy)
		if err != nil {
			s.log.ErrorContext(ctx, "a damaged image cannot be made whole", "image", name, "error", err)
		}
		s.mending.mu.Lock()
		defer s.mending.mu.Unlock()
		if s.mending.last == nil {
			s.mending.last = map[string]mended{}
		}
		s.mending.last[name] = last.next(time.Now(), of, done, err)
		return done, err
	})
	done, _ = v.(bool)
	return done, err
}

// outdated says whether containerd has not some of the layers any more that this process knows to be there.
func (s *Store) outdated(ctx context.Context) (gone bool) {
	sn := s.client.SnapshotService(Snapshotter)
	look := func(name string) bool {
		if name == "" {
			return true // an image without layers
		}
		_, err := sn.Stat(ctx, name)
		gone = errdefs.IsNotFound(err)
		return !gone
	}
	s.unpacked.Range(func(_, img any) bool { return look(img.(Image).Chain) })
	if !gone {
		s.derived.Range(func(name, _ any) bool { return look(name.(string)) })
	}
	return gone
}

func (s *Store) mend(ctx context.Context, name string, policy agent.PullPolicy) (done bool, err error) {
	var unused error
	if s.beforeMend != nil {
		unused = s.beforeMend(ctx)
	}
	dropped, layersErr := s.dropSnapshots(ctx)
	layersErr = errors.Join(unused, layersErr)
	if len(dropped) > 0 {
		s.log.WarnContext(ctx, "unpacked layers of images have gone: they are unpacked again", "image", name, "layers", len(dropped))
		done = true
	}
	for range mendRounds {
		bad, err := s.dropContent(ctx, name)
		if err != nil {
			return done, errors.Join(layersErr, err)
		}
		if len(bad) == 0 {
			break
		}
		s.log.WarnContext(ctx, "content of an image has gone or is damaged: it is fetched again", "image", name, "blobs", len(bad), "first", bad[0].String())
		if err := s.fetch(ctx, name, policy); err != nil {
			return done, errors.Join(layersErr, err)
		}
		done = true
	}
	return done, layersErr
}

// fetch gets an image again from where it came: the archive that has it, else its registry.
func (s *Store) fetch(ctx context.Context, name string, policy agent.PullPolicy) error {
	s.archives.forget(name)
	if err := s.importChanged(ctx, name); err != nil {
		return err
	}
	if s.archives.takenFrom(name) != (source{}) {
		return nil
	}
	if policy == agent.PullNever {
		return s.missing(name, "pull_policy is never, so no registry was asked", nil)
	}
	return s.pullIf(ctx, name, false)
}

// dropContent forgets the content of an image that is not what its digest says, and waits until it is off the disk: containerd
// would take what lies there for whole.
func (s *Store) dropContent(ctx context.Context, name string) ([]digest.Digest, error) {
	s.mending.looking.Lock()
	defer s.mending.looking.Unlock()
	record, err := s.client.ImageService().Get(ctx, name)
	if err != nil {
		return nil, fmt.Errorf("look up image %s: %w", name, err)
	}
	store := s.client.ContentStore()
	var bad []digest.Digest
	look := core.HandlerFunc(func(ctx context.Context, d ocispec.Descriptor) ([]ocispec.Descriptor, error) {
		switch err := verify(ctx, store, d); {
		case errors.Is(err, errDamaged):
			bad = append(bad, d.Digest)
			return nil, core.ErrSkipDesc
		case err != nil:
			return nil, err
		}
		return nil, nil
	})
	if err := core.Walk(ctx, core.Handlers(look, core.FilterPlatforms(core.ChildrenHandler(store), s.platform)), record.Target); err != nil && !errdefs.IsNotFound(err) {
		return nil, fmt.Errorf("look at the content of image %s: %w", name, err)
	}
	if len(bad) == 0 {
		return nil, nil
	}
	for _, d := range bad {
		if err := store.Delete(ctx, d); err != nil && !errdefs.IsNotFound(err) {
			return nil, fmt.Errorf("remove damaged content of image %s: %w", name, err)
		}
	}
	s.unpacked.Clear()
	return bad, s.collect(ctx)
}

// errDamaged says that content is missing or not what its digest says.
var errDamaged = errors.New("content is damaged")

// verify reads content.
func verify(ctx context.Context, store content.Store, d ocispec.Descriptor) (err error) {
	blob, err := store.ReaderAt(ctx, d)
	if errdefs.IsNotFound(err) {
		return errDamaged
	}
	if err != nil {
		return fmt.Errorf("read content %s: %w", d.Digest, err)
	}
	defer func() { err = errors.Join(err, blob.Close()) }()
	if d.Size > 0 && blob.Size() != d.Size {
		return errDamaged
	}
	sum := d.Digest.Verifier()
	if _, err := io.Copy(sum, content.NewReader(blob)); err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if passes(err) {
			return fmt.Errorf("read content %s: %w", d.Digest, err)
		}
		return errDamaged // the disk does not give it back
	}
	if !sum.Verified() {
		return errDamaged
	}
	return nil
}

// passes says whether it is not the content, but containerd or the machine, that is at fault for an error of reading it.
func passes(err error) bool {
	return agent.ErrorCode(errcode.Of(agent.CodePrecondition, err)) != agent.CodePrecondition || strings.Contains(err.Error(), "too many open files")
}

// collect has containerd remove what nothing names, and waits for it.
func (s *Store) collect(ctx context.Context) error {
	manager := s.client.LeasesService()
	lease, err := manager.Create(ctx, leases.WithRandomID())
	if err == nil {
		err = manager.Delete(ctx, lease, leases.SynchronousDelete)
	}
	if err != nil {
		return fmt.Errorf("have containerd remove what is not needed: %w", err)
	}
	return nil
}

// dropSnapshots removes the unpacked layers whose files, or those of a layer below, have gone. Layers that a container stands on stay.
func (s *Store) dropSnapshots(ctx context.Context) (dropped []string, err error) {
	s.mending.looking.Lock()
	defer s.mending.looking.Unlock()
	sn := s.client.SnapshotService(Snapshotter)
	parents, above, kinds := map[string]string{}, map[string]int{}, map[string]snapshots.Kind{}
	err = sn.Walk(ctx, func(_ context.Context, info snapshots.Info) error {
		// What was being unpacked when an agent was killed stays for a day.
		if info.Kind == snapshots.KindCommitted || info.Kind == snapshots.KindActive && strings.HasPrefix(info.Name, snapshots.UnpackKeyPrefix) {
			parents[info.Name] = info.Parent
			kinds[info.Name] = info.Kind
		}
		above[info.Parent]++
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list the unpacked layers: %w", err)
	}
	for name := range parents {
		// From the top down to the first one that is whole.
		for at := name; at != "" && above[at] == 0; at = parents[at] {
			gone, err := broken(ctx, sn, at, kinds[at])
			if err != nil {
				return dropped, err
			}
			if !gone {
				break
			}
			if err := sn.Remove(ctx, at); err != nil && !errdefs.IsNotFound(err) {
				return dropped, fmt.Errorf("remove the unpacked layer %s: %w", at, err)
			}
			dropped = append(dropped, at)
			above[parents[at]]--
			above[at] = -1 // once
		}
	}
	if len(dropped) == 0 {
		return nil, nil
	}
	s.forgetAll()
	return dropped, s.collect(ctx)
}

// broken says whether nothing can be made on a snapshot any more, or in it.
func broken(ctx context.Context, sn snapshots.Snapshotter, name string, kind snapshots.Kind) (gone bool, err error) {
	if kind == snapshots.KindActive {
		mounts, err := sn.Mounts(ctx, name)
		if errdefs.IsNotFound(err) {
			return false, nil // it was finished meanwhile
		}
		if err != nil {
			return false, fmt.Errorf("look at the layer %s: %w", name, err)
		}
		return Missing(mounts), nil
	}
	key := "esb-look-" + name + "-" + digest.FromString(time.Now().String()).Encoded()[:8]
	mounts, err := sn.View(ctx, key, name)
	if err != nil {
		if Lost(err) {
			return true, nil
		}
		return false, fmt.Errorf("look at the unpacked layer %s: %w", name, err)
	}
	defer func() {
		if removeErr := sn.Remove(ctx, key); removeErr != nil && !errdefs.IsNotFound(removeErr) {
			err = errors.Join(err, removeErr)
		}
	}()
	return Missing(mounts), nil
}

// Lost says whether an error comes from a layer, or its record, that has gone from containerd's store.
func Lost(err error) bool {
	return err != nil && (errdefs.IsNotFound(err) || strings.Contains(err.Error(), "no such file or directory"))
}

// Missing says whether a folder that mounts are made of has gone.
func Missing(mounts []mount.Mount) bool {
	for _, m := range mounts {
		folders := []string{m.Source}
		for _, o := range m.Options {
			if layers, ok := strings.CutPrefix(o, "lowerdir="); ok {
				folders = strings.Split(layers, ":")
			}
		}
		if slices.ContainsFunc(folders, func(dir string) bool {
			_, err := os.Stat(dir)
			return strings.HasPrefix(dir, "/") && errors.Is(err, fs.ErrNotExist)
		}) {
			return true
		}
	}
	return false
}
