// Package images has the images of function containers on containerd: from archives in a folder and from registries, unpacked,
// and named as a box at the edge names them. It knows nothing of containers.
package images

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/content"
	core "github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/errdefs"
	"github.com/containerd/log"
	"github.com/containerd/platforms"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/identity"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/sirupsen/logrus"

	"github.com/edge-serverless-box/esb/agent"
	"github.com/edge-serverless-box/esb/agent/errcode"
	"github.com/edge-serverless-box/esb/agent/flight"
	"github.com/edge-serverless-box/esb/api/reason"
)

const (
	// Snapshotter holds the unpacked layers.
	Snapshotter = "overlayfs"
	// pinTries is how often an image of a digest is looked for when its tag is given to another one meanwhile.
	pinTries = 3
	// fetchTimeout bounds one import, pull or unpacking, however many requests wait for it.
	fetchTimeout = 10 * time.Minute
)

// Image is an image that is unpacked: containers can be made of it.
type Image struct {
	// Name is the normalised reference.
	Name string
	// Target is the digest that the name points at: Manifest, or that of an index which has it.
	Target digest.Digest
	// Manifest is the digest of this platform's manifest.
	Manifest digest.Digest
	// Chain is the snapshot that a container's own is made on.
	Chain string
	// Content is the digest of its configuration: what is made of the image is kept for as long as that.
	Content digest.Digest
	Config  ocispec.ImageConfig
}

// Config of a Store. agent/settings documents those that are settings.
type Config struct {
	// ArchivesDir holds image archives.
	ArchivesDir string
	// Registry is where references without a host are looked for.
	Registry       string
	PlainHTTP      []string
	RegistryConfig string
	// RegistryPoll is the pause between two questions to a registry that is not this machine's own; 0 asks none.
	RegistryPoll time.Duration
	// RegistryUser, when not empty, and RegistryPassword, or what is in RegistryPasswordFile, are the credentials for Registry.
	RegistryUser, RegistryPassword, RegistryPasswordFile string
	// MaxMB bounds the layers of one image, unpacked.
	MaxMB int
	// UnusedFor is for how long nothing uses an image that is removed then, ArchivesUnusedFor an archive; 0 removes none. StoreMaxMB bounds
	// all images together, ArchivesMaxMB all archives: those that nothing uses go then, the longest unused first; 0 bounds nothing.
	UnusedFor, ArchivesUnusedFor time.Duration
	StoreMaxMB, ArchivesMaxMB    int
	// Disk is a folder on the disk that containerd has images on; empty when that is not known.
	Disk string
	// BeforeMend, when not nil, gives up snapshots that nothing needs: layers that one stands on cannot be made again.
	BeforeMend func(context.Context) error
	Logger     *slog.Logger
}

// Store gets images from archives and registries, each once however many ask for it at the same time.
type Store struct {
	client      *containerd.Client
	archives    *archives
	registry    string
	plainHTTP   []string
	credentials credentialSource
	// registries speaks to them; watch asks them from time to time.
	registries *http.Client
	watch      *registryWatch
	platform   platforms.MatchComparer
	// maxBytes bounds the layers of one image, unpacked.
	maxBytes int64
	log      *slog.Logger
	// life ends at Close; what is in flight is bound to it and counted in running, not to any caller.
	life    context.Context
	end     context.CancelFunc
	running sync.WaitGroup
	flights *flight.Group[any]
	// unpacked holds images by the digest that their name points at. It only saves reading: what it says follows
	// from the digest.
	unpacked sync.Map // digest.Digest -> Image
	// derived holds the names of the snapshots that Derive has made or found.
	derived sync.Map
	mending mending
	// beforeMend is that of Config.
	beforeMend func(context.Context) error
	// unusedFor, archivesUnusedFor, storeMaxBytes and archivesMaxBytes are those of Config.
	unusedFor, archivesUnusedFor    time.Duration
	storeMaxBytes, archivesMaxBytes int64
	usage                           usage
	opened                          time.Time
	// free says how many bytes the disk with the images has left.
	free func() (int64, error)
}

// Open makes a Store of what containerd has. The client stays the caller's.
func Open(ctx context.Context, client *containerd.Client, cfg Config) (*Store, error) {
	// containerd's library writes lines of its own format to standard error; what matters in them is in its errors.
	quiet := logrus.New()
	quiet.SetOutput(io.Discard)
	life, end := context.WithCancel(log.WithLogger(context.WithoutCancel(ctx), logrus.NewEntry(quiet)))
	s := &Store{
		client: client, archives: newArchives(cfg.ArchivesDir, cfg.Registry, cfg.Logger), registry: cfg.Registry, plainHTTP: cfg.PlainHTTP,
		credentials: credentialSource{cfg.RegistryConfig, cfg.Registry, cfg.RegistryUser, cfg.RegistryPassword, cfg.RegistryPasswordFile}, platform: platforms.Default(), maxBytes: int64(cfg.MaxMB) << 20,
		unusedFor: cfg.UnusedFor, archivesUnusedFor: cfg.ArchivesUnusedFor, storeMaxBytes: int64(cfg.StoreMaxMB) << 20, archivesMaxBytes: int64(cfg.ArchivesMaxMB) << 20, log: cfg.Logger, life: life, end: end, opened: time.Now(),
		free: freeOf(cfg.Disk), beforeMend: cfg.BeforeMend,
	}
	s.flights = flight.New[any](life, fetchTimeout, &s.running)
	s.registries = newRegistryClient()
	s.watch = newRegistryWatch(life, &s.running, s, cfg.RegistryPoll, cfg.Logger)
	known, err := client.ImageService().List(ctx)
	if err != nil {
		end()
		return nil, fmt.Errorf("list the images: %w", err)
	}
	s.archives.load(known)
	return s, nil
}

// Close cancels what is in flight and waits for it.
func (s *Store) Close() {
	s.watch.stop(s.end)
	s.running.Wait()
	s.registries.CloseIdleConnections()
}

// Prefetch imports and unpacks in the background what is new among the archives, so that the first request need not.
func (s *Store) Prefetch() {
	s.running.Go(func() {
		files, _ := s.archives.changed("", 0) // an archive that cannot be read is in the log
		for _, f := range files {
			if s.life.Err() != nil {
				return
			}
			if s.unusedFor > 0 && time.Since(f.written) > s.unusedFor {
				continue // it is imported when a function needs it, and else removed again
			}
			if err := s.importOnce(s.life, f); err != nil {
				s.log.Warn("image archive cannot be imported", "error", err)
				continue
			}
			for _, name := range f.names {
				if _, err := s.Unpack(s.life, name); err != nil {
					s.log.Warn("image cannot be unpacked", "image", name, "error", err)
				}
			}
		}
	})
}

// Get returns an unpacked image, imported or pulled as policy says.
func (s *Store) Get(ctx context.Context, ref string, policy agent.PullPolicy) (Image, error) {
	name, err := normalize(ref, s.registry)
	if err != nil {
		return Image{}, agent.Errorf(agent.CodeInvalid, "image: %w", err)
	}
	s.usage.note(name)
	_, pin, pinned := strings.Cut(name, "@")
	var img Image
	for range pinTries {
		if img, err = s.get(ctx, name, policy); err != nil || !pinned || img.is(pin) {
			return img, err
		}
		// It was found under a tag, which has become another one's meanwhile: what it was is kept under its digest (keepBefore).
	}
	return Image{}, agent.Because(reason.ImageInvalid, agent.Errorf(agent.CodePrecondition,
		"image %s cannot be used: what is here as %s has the digest %s; remove that (`esb images rm`), or the archive that has it under this name", name, img.Name, img.Target))
}

// is says whether an image is the one that a digest means.
func (i Image) is(pin string) bool { return i.Target.String() == pin || i.Manifest.String() == pin }

// get is Get for a normalised name. What it returns for one with a digest may be found under a tag, and be what that has come to mean.
func (s *Store) get(ctx context.Context, name string, policy agent.PullPolicy) (Image, error) {
	if policy == agent.PullAlways {
		if err := s.pull(ctx, name); err != nil {
			return Image{}, err
		}
		return s.whole(ctx, name, policy)
	}
	if found, ok := s.byDigest(ctx, name); ok {
		s.usage.note(found)
		return s.whole(ctx, found, policy)
	}
	archiveErr := s.importChanged(ctx, name)
	img, err := s.whole(ctx, name, policy)
	if errors.Is(err, errNoImage) && s.archives.forget(name) {
		// Somebody has removed it, or containerd's store was made anew.
		archiveErr = s.importChanged(ctx, name)
		img, err = s.whole(ctx, name, policy)
	}
	switch {
	case err == nil:
		// A half-written or broken archive must not stop a function whose image is here.
		return img, nil
	case !errors.Is(err, errNoImage):
		return Image{}, err
	case policy == agent.PullNever:
		return Image{}, s.missing(name, "pull_policy is never, so no registry was asked", archiveErr)
	}
	if err := s.pull(ctx, name); err != nil {
		if archiveErr != nil {
			err = agent.Errorf(agent.ErrorCode(err), "%w; and %w", err, archiveErr)
		}
		return Image{}, err
	}
	return s.whole(ctx, name, policy)
}

// missing is the error for an image that is nowhere.
func (s *Store) missing(name, why string, cause error) error {
	text := fmt.Sprintf("image %s cannot be had: it is not in containerd, no archive in %s holds it, and %s; "+
		"push it to %s or put its archive (*.tar) there", name, s.archives.dir, why, registryHost(name))
	if cause != nil {
		return agent.Errorf(agent.CodePrecondition, "%s: %w", text, cause)
	}
	return agent.Errorf(agent.CodePrecondition, "%s", text)
}

// importChanged imports the new and changed archives that hold name.
func (s *Store) importChanged(ctx context.Context, name string) error {
	files, err := s.archives.changed(name, 0)
	errs := []error{err}
	for _, f := range files {
		if err := s.importOnce(ctx, f); err != nil {
			s.log.WarnContext(ctx, "image archive cannot be imported", "archive", f.path, "error", err)
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

func (s *Store) importOnce(ctx context.Context, f archiveFile) error {
	_, err := s.flights.Do(ctx, "import "+f.path+f.stamp, func(ctx context.Context) (any, error) {
		if s.archives.done(f) {
			return nil, nil // since the caller looked
		}
		return nil, s.importArchive(ctx, f)
	})
	return err
}

// pull makes the store's image the one that the registry has now.
func (s *Store) pull(ctx context.Context, name string) error { return s.pullIf(ctx, name, true) }

// pullIf is pull; unless changed, what is here of the image does not count, and it is pulled again.
func (s *Store) pullIf(ctx context.Context, name string, changed bool) error {
	_, err := s.flights.Do(ctx, fmt.Sprint("pull ", name, changed), func(ctx context.Context) (any, error) {
		resolver, err := newResolver(s.registries, s.plainHTTP, s.credentials)
		if err != nil {
			return nil, agent.Errorf(agent.CodePrecondition, "image %s: %w", name, err)
		}
		_, target, err := resolver.Resolve(ctx, name)
		if err != nil {
			return nil, s.pullError(name, err)
		}
		have, err := s.client.ImageService().Get(ctx, name)
		if changed && err == nil && have.Target.Digest == target.Digest {
			return nil, nil
		}
		s.log.InfoContext(ctx, "image pull", "image", name, "digest", target.Digest.String())
		s.keepBefore(ctx, name, target.Digest)
		// Unpacked by Unpack, which looks at the size first.
		_, err = s.client.Pull(ctx, name, containerd.WithResolver(resolver), containerd.WithPlatformMatcher(s.platform),
			containerd.WithPullLabels(s.archives.takenFrom(name).labels()), containerd.WithImageHandler(s.boundDownload()))
		if err != nil {
			return nil, s.pullError(name, err)
		}
		if have.Name == "" {
			s.forgetLost(ctx) // as Unpack does
		}
		return nil, nil
	})
	return err
}

// there returns the digest that a tag has in its registry.
func (s *Store) there(ctx context.Context, name string) (digest.Digest, error) {
	resolver, err := newResolver(s.registries, s.plainHTTP, s.credentials)
	if err != nil {
		return "", err
	}
	_, target, err := resolver.Resolve(ctx, name)
	return target.Digest, err
}

// here returns the digest that a tag has in containerd.
func (s *Store) here(ctx context.Context, name string) (digest.Digest, error) {
	record, err := s.client.ImageService().Get(ctx, name)
	return record.Target.Digest, err
}

// pullError blames the registry, unless it was containerd that failed or the agent that stops.
func (s *Store) pullError(name string, err error) error {
	switch err := errcode.Of(agent.CodePrecondition, fmt.Errorf("pull image %s: %w", name, err)); agent.ErrorCode(err) {
	case agent.CodeUnavailable, agent.CodeCanceled, agent.CodeExhausted:
		return err
	}
	if network := net.Error(nil); errors.As(err, &network) {
		return agent.Because(reason.RegistryAway, s.missing(name, pullProblem(err), err))
	}
	return s.missing(name, pullProblem(err), err)
}

// errNoImage says that containerd has no image of a name.
var errNoImage = errors.New("containerd does not have it")

// Unpack makes sure that an image of the store is unpacked.
func (s *Store) Unpack(ctx context.Context, name string) (Image, error) {
	record, err := s.client.ImageService().Get(ctx, name)
	if errdefs.IsNotFound(err) {
		s.forgetLost(ctx) // somebody has removed it, or containerd's store was made anew
		return Image{}, fmt.Errorf("look up image %s: %w", name, errNoImage)
	}
	if err != nil {
		return Image{}, fmt.Errorf("look up image %s: %w", name, err)
	}
	if img, ok := s.unpacked.Load(record.Target.Digest); ok {
		known := img.(Image)
		known.Name, known.Target = name, record.Target.Digest
		return known, nil
	}
	v, err := s.flights.Do(ctx, "unpack "+record.Target.Digest.String(), func(ctx context.Context) (any, error) {
		img, err := s.unpackRecord(ctx, record)
		if err != nil {
			return nil, unusable(errcode.Of(agent.CodePrecondition, fmt.Errorf("image %s cannot be used: %w", name, err)))
		}
		s.unpacked.Store(record.Target.Digest, img)
		s.mending.ease(name)
		return img, nil
	})
	if err != nil {
		return Image{}, err
	}
	img := v.(Image)
	img.Name, img.Target = name, record.Target.Digest
	return img, nil
}

// forgetAll has all be looked for anew in containerd.
func (s *Store) forgetAll() {
	s.unpacked.Clear()
	s.derived.Clear()
	s.archives.tryAgain(triedImage)
}

// forgetLost is forgetAll, when containerd has lost some of what this process knows to be unpacked.
func (s *Store) forgetLost(ctx context.Context) (lost bool) {
	if lost = s.outdated(ctx); lost {
		s.log.WarnContext(ctx, "containerd has lost unpacked layers: they are made again")
		s.forgetAll()
	}
	return lost
}

// unusable says that it is the image that is at fault, unless its error may pass.
func unusable(err error) error {
	if agent.ErrorCode(err) != agent.CodePrecondition {
		return err
	}
	return agent.Because(reason.ImageInvalid, err)
}

// Forget drops what is known about an unpacked image: its snapshot has gone.
func (s *Store) Forget(img Image) {
	s.unpacked.Range(func(k, v any) bool {
		if v.(Image).Manifest == img.Manifest {
			s.unpacked.Delete(k)
		}
		return true
	})
	s.derived.Clear()
}

func (s *Store) unpackRecord(ctx context.Context, record core.Image) (Image, error) {
	img := containerd.NewImageWithPlatform(s.client, record, s.platform)
	done, err := img.IsUnpacked(ctx, Snapshotter)
	if err != nil {
		return Image{}, fmt.Errorf("look whether it is unpacked: %w", err)
	}
	if !done {
		if err := s.checkSize(ctx, img); err != nil {
			return Image{}, err
		}
	}
	// Also what is unpacked: this keeps it from containerd's garbage collection.
	if err := img.Unpack(ctx, Snapshotter); err != nil {
		return Image{}, fmt.Errorf("unpack: %w", err)
	}
	spec, err := img.Spec(ctx)
	if err != nil {
		return Image{}, fmt.Errorf("read its configuration: %w", err)
	}
	content, err := img.Config(ctx)
	if err != nil {
		return Image{}, fmt.Errorf("find its configuration: %w", err)
	}
	manifest, err := s.manifestDigest(ctx, record.Target)
	if err != nil {
		return Image{}, err
	}
	return Image{
		Name: record.Name, Manifest: manifest, Content: content.Digest,
		Chain: identity.ChainID(spec.RootFS.DiffIDs).String(), Config: spec.Config,
	}, nil
}

// manifestDigest returns the digest of this platform's manifest: the target's own, unless that is an index.
func (s *Store) manifestDigest(ctx context.Context, target ocispec.Descriptor) (digest.Digest, error) {
	if !core.IsIndexType(target.MediaType) {
		return target.Digest, nil
	}
	raw, err := content.ReadBlob(ctx, s.client.ContentStore(), target)
	if err != nil {
		return "", fmt.Errorf("read its index: %w", err)
	}
	var index ocispec.Index
	if err := json.Unmarshal(raw, &index); err != nil {
		return "", fmt.Errorf("its index: %w", err)
	}
	children := index.Manifests
	best := -1
	for i, m := range children {
		if m.Platform == nil || !s.platform.Match(*m.Platform) {
			continue
		}
		if best < 0 || s.platform.Less(*m.Platform, *children[best].Platform) {
			best = i
		}
	}
	if best >= 0 {
		return children[best].Digest, nil
	}
	if len(children) == 1 {
		return children[0].Digest, nil
	}
	return "", fmt.Errorf("its index has no manifest for %s", platforms.DefaultString())
}
