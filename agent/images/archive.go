package images

import (
	"archive/tar"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	core "github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/images/archive"
	"github.com/containerd/errdefs"
	"github.com/distribution/reference"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Labels of an image that came from an archive: which file, and its state then.
const (
	labelArchive = "esb_archive"
	labelStamp   = "esb_archive_stamp"
)

// maxIndexBytes bounds the JSON read from an archive.
const maxIndexBytes = 4 << 20

// archives is the folder of image archives. It remembers which state of each file is in containerd's store; containerd
// itself keeps that in labels, from which load reads it after a restart.
type archives struct {
	dir      string
	registry string
	log      *slog.Logger
	// mu guards the two below; it is not held while a file is read.
	mu sync.Mutex
	// imported holds the stamp of the last import of a file, by its path.
	imported map[string]string
	// contents holds what is in a file, by its path, so that it is opened once in each state.
	contents map[string]archiveContent
	// tried holds the state in which a file, or an image, was last taken over unasked, or tried to be.
	tried map[string]string
}

// archiveContent is what reading an archive's index gave.
type archiveContent struct {
	stamp string
	// names maps the name in the archive's index to the normalised one.
	names map[string]string
	err   error
}

func newArchives(dir, registry string, log *slog.Logger) *archives {
	return &archives{dir: dir, registry: registry, log: log, imported: map[string]string{}, contents: map[string]archiveContent{}, tried: map[string]string{}}
}

// load takes over what an earlier agent imported.
func (a *archives) load(imgs []core.Image) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, img := range imgs {
		if file := img.Labels[labelArchive]; file != "" {
			a.imported[file] = img.Labels[labelStamp]
		}
	}
}

// archiveFile is a file of the folder that is new or has changed.
type archiveFile struct {
	path  string
	stamp string
	// names maps the name in the archive's index to the normalised one.
	names map[string]string
}

// changed lists the files that are not imported in their present state, but for those that were written within settling. When
// name is not empty, only those that hold an image of that name. A file that cannot be read is in the error, and the others are returned all the same.
func (a *archives) changed(name string, settling time.Duration) ([]archiveFile, error) {
	entries, err := os.ReadDir(a.dir)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil, nil
		}
		return nil, fmt.Errorf("read the folder of image archives: %w", err)
	}
	var out []archiveFile
	var errs []error
	for _, e := range entries {
		file := filepath.Join(a.dir, e.Name())
		if filepath.Ext(file) != ".tar" {
			continue
		}
		info, err := os.Stat(file) // not e.Info: an archive may be a symbolic link
		if err != nil || !info.Mode().IsRegular() {
			continue // taken away meanwhile
		}
		stamp := fmt.Sprintf("%s/%d", info.ModTime().UTC().Format(time.RFC3339Nano), info.Size())
		if age := time.Since(info.ModTime()); a.done(file, stamp) || age >= 0 && age < settling {
			continue
		}
		names, err := a.namesOf(file, stamp)
		if err != nil {
			errs = append(errs, fmt.Errorf("image archive %s: %w", file, err))
			continue
		}
		if name == "" || slices.Contains(slices.Collect(maps.Values(names)), name) {
			out = append(out, archiveFile{path: file, stamp: stamp, names: names})
		}
	}
	return out, errors.Join(errs...)
}

func (a *archives) done(file, stamp string) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.imported[file] == stamp
}

// tryOnce is true the first time that it is asked about a thing in its present state: what cannot be taken over unasked is
// tried again when it changes, or when a function needs it.
func (a *archives) tryOnce(thing, state string) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.tried[thing] == state {
		return false
	}
	a.tried[thing] = state
	return true
}

func (a *archives) markDone(f archiveFile) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.imported[f.path] = f.stamp
}

func (a *archives) namesOf(file, stamp string) (map[string]string, error) {
	a.mu.Lock()
	known, ok := a.contents[file]
	a.mu.Unlock()
	if ok && known.stamp == stamp {
		return known.names, known.err
	}
	names, err := readNames(file, a.registry)
	if err != nil {
		a.log.Warn("image archive cannot be read", "archive", file, "error", err)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.contents[file] = archiveContent{stamp: stamp, names: names, err: err}
	return names, err
}

// readNames returns the names of the images in an archive: from what containerd's importer will call them to their
// normalised names. Docker's tags are looked at first, since newer "docker save" writes them with docker.io in front
// into the OCI index.
func readNames(file, registry string) (map[string]string, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	var docker []struct{ RepoTags []string }
	var index ocispec.Index
	tr := tar.NewReader(f) // seeks over the layers
	for {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("not a whole tar file: %w", err)
		}
		var into any
		switch path.Clean(h.Name) {
		case "manifest.json":
			into = &docker
		case ocispec.ImageIndexFile:
			into = &index
		default:
			continue
		}
		if err := json.NewDecoder(io.LimitReader(tr, maxIndexBytes)).Decode(into); err != nil {
			return nil, fmt.Errorf("%s: %w", h.Name, err)
		}
	}
	names := map[string]string{}
	for _, d := range docker {
		for _, tag := range d.RepoTags {
			full, err := normalize(tag, registry)
			if err != nil {
				return nil, err
			}
			named, err := reference.ParseDockerRef(tag)
			if err != nil {
				return nil, fmt.Errorf("image %q: %w", tag, err)
			}
			names[named.String()] = full
		}
	}
	for _, m := range index.Manifests {
		name := indexName(m)
		if _, known := names[name]; known || !strings.ContainsAny(name, "/:") {
			continue // a bare tag names no image
		}
		full, err := normalize(name, registry)
		if err != nil {
			return nil, err
		}
		names[name] = full
	}
	if len(names) == 0 {
		return nil, errors.New("names no image: neither RepoTags in manifest.json nor an annotation " + core.AnnotationImageName +
			" or " + ocispec.AnnotationRefName + " with a whole name in index.json; save it with its name")
	}
	return names, nil
}

// indexName is the name of a manifest in an OCI index.
func indexName(m ocispec.Descriptor) string {
	return cmp.Or(m.Annotations[core.AnnotationImageName], m.Annotations[ocispec.AnnotationRefName])
}

// importArchive reads an archive into containerd's store and sets its names there. client.Import would do, but for the
// names, which it takes to be docker.io's.
func (s *Store) importArchive(ctx context.Context, file archiveFile) (err error) {
	ctx, release, err := s.client.WithLease(ctx)
	if err != nil {
		return fmt.Errorf("import %s: %w", file.path, err)
	}
	defer func() { err = errors.Join(err, release(context.WithoutCancel(ctx))) }()

	f, err := os.Open(file.path)
	if err != nil {
		return fmt.Errorf("import image archive: %w", err)
	}
	defer func() { _ = f.Close() }()
	store := s.client.ContentStore()
	index, err := archive.ImportIndex(ctx, store, f)
	if err != nil {
		return fmt.Errorf("import %s: %w", file.path, err)
	}
	raw, err := content.ReadBlob(ctx, store, index)
	if err != nil {
		return fmt.Errorf("import %s: read its index: %w", file.path, err)
	}
	var idx ocispec.Index
	if err := json.Unmarshal(raw, &idx); err != nil {
		return fmt.Errorf("import %s: its index: %w", file.path, err)
	}
	// The labels that this sets keep a manifest's config and layers from containerd's garbage collection.
	keep := core.SetChildrenLabels(store, core.FilterPlatforms(core.ChildrenHandler(store), s.platform))
	for _, m := range idx.Manifests {
		name, ok := file.names[indexName(m)]
		if !ok {
			continue
		}
		if err := core.WalkNotEmpty(ctx, keep, m); err != nil {
			return fmt.Errorf("import %s of %s: %w", name, file.path, err)
		}
		img := core.Image{Name: name, Target: m, Labels: map[string]string{labelArchive: file.path, labelStamp: file.stamp}}
		if _, err = s.client.ImageService().Update(ctx, img, "target", "labels"); errdefs.IsNotFound(err) {
			_, err = s.client.ImageService().Create(ctx, img)
		}
		if err != nil {
			return fmt.Errorf("import %s of %s: %w", name, file.path, err)
		}
		s.log.InfoContext(ctx, "image imported", "image", name, "digest", m.Digest.String(), "archive", file.path)
	}
	s.archives.markDone(file)
	return nil
}
