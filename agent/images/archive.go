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

// archives is the folder of image archives. It remembers of which state of which file each image was taken; containerd itself
// keeps that in the labels of images, from which load reads it after a restart.
type archives struct {
	dir      string
	registry string
	log      *slog.Logger
	// mu guards the maps below; it is not held while a file is read.
	mu sync.Mutex
	// taken holds, by the normalised name of an image, the archive that it was last taken from. What a registry had later keeps
	// it: the image is then newer than that archive.
	taken map[string]source
	// contents holds what is in a file, by its path, so that it is opened once in each state.
	contents map[string]archiveContent
	// tried holds the state in which a file, or an image, was last taken over unasked, or tried to be.
	tried map[string]string
	// rivals holds what was last said about an image that several archives have.
	rivals map[string]string
}

// source is an archive in one state.
type source struct{ file, stamp string }

// labels are those of an image that came from the archive.
func (s source) labels() map[string]string {
	if s == (source{}) {
		return map[string]string{}
	}
	return map[string]string{labelArchive: s.file, labelStamp: s.stamp}
}

// archiveContent is what reading an archive's index gave.
type archiveContent struct {
	stamp string
	// names maps the name in the archive's index to the normalised one.
	names map[string]string
	err   error
}

func newArchives(dir, registry string, log *slog.Logger) *archives {
	return &archives{
		dir: dir, registry: registry, log: log,
		taken: map[string]source{}, contents: map[string]archiveContent{}, tried: map[string]string{}, rivals: map[string]string{},
	}
}

// load takes over what an earlier agent imported.
func (a *archives) load(imgs []core.Image) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, img := range imgs {
		if file := img.Labels[labelArchive]; file != "" {
			a.taken[img.Name] = source{file, img.Labels[labelStamp]}
		}
	}
}

// archiveFile is a file of the folder.
type archiveFile struct {
	path  string
	stamp string
	// names maps the name in the archive's index to the normalised one, for the images that are to be taken from it.
	names   map[string]string
	written time.Time
}

func (f archiveFile) source() source { return source{f.path, f.stamp} }

// changed lists the files from which images are to be taken: of several that have an image, the one that was written last, unless the
// image was taken from it in its present state. Those that were written within settling are left out. When name is not empty,
// only files with an image of that name are listed. A file that cannot be read is in the error, and the others are returned all the same.
func (a *archives) changed(name string, settling time.Duration) ([]archiveFile, error) {
	files, unread, err := a.files()
	if len(files) == 0 {
		return nil, err
	}
	// The last one that has an image counts.
	last := map[string]string{}
	for _, f := range files {
		for _, n := range f.names {
			if before := last[n]; before != "" && before != f.path { // one file may name it twice
				a.sayRivals(n, before, f)
			}
			last[n] = f.path
		}
	}
	var out []archiveFile
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, f := range files {
		wanted, named := map[string]string{}, name == ""
		for in, n := range f.names {
			// While the file that an image came from is being written anew, an older one does not take its place.
			if from := a.taken[n]; last[n] != f.path || from == f.source() || slices.Contains(unread, from.file) {
				continue
			}
			wanted[in] = n
			named = named || n == name
		}
		if age := time.Since(f.written); len(wanted) == 0 || !named || age >= 0 && age < settling {
			continue
		}
		f.names = wanted
		out = append(out, f)
	}
	return out, err
}

// files lists the archives that can be read, oldest first, and the paths of the others. The error says what is wrong with those.
func (a *archives) files() (files []archiveFile, unread []string, err error) {
	entries, err := os.ReadDir(a.dir)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil, nil, nil
		}
		return nil, nil, fmt.Errorf("read the folder of image archives: %w", err)
	}
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
		names, err := a.namesOf(file, stamp)
		if err != nil {
			errs, unread = append(errs, fmt.Errorf("image archive %s: %w", file, err)), append(unread, file)
			continue
		}
		files = append(files, archiveFile{path: file, stamp: stamp, names: names, written: info.ModTime()})
	}
	slices.SortStableFunc(files, func(x, y archiveFile) int {
		return cmp.Or(x.written.Compare(y.written), strings.Compare(x.path, y.path))
	})
	return files, unread, errors.Join(errs...)
}

// sayRivals says once that two archives have the same image.
func (a *archives) sayRivals(name, before string, now archiveFile) {
	text := before + " " + now.path + " " + now.stamp
	a.mu.Lock()
	known := a.rivals[name] == text
	a.rivals[name] = text
	a.mu.Unlock()
	if !known {
		a.log.Warn("two archives have the same image: the one that was written last counts", "image", name, "counts", now.path, "other", before)
	}
}

// done says whether all images of a file have been taken from it.
func (a *archives) done(f archiveFile) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, name := range f.names {
		if a.taken[name] != f.source() {
			return false
		}
	}
	return true
}

// forget makes an image one that was never taken from an archive, and says whether it had been.
func (a *archives) forget(name string) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	_, known := a.taken[name]
	delete(a.taken, name)
	return known
}

// takenFrom returns the archive that an image was last taken from.
func (a *archives) takenFrom(name string) source {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.taken[name]
}

// tryAgain forgets which things that begin so were tried.
func (a *archives) tryAgain(prefix string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	maps.DeleteFunc(a.tried, func(thing, _ string) bool { return strings.HasPrefix(thing, prefix) })
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
	for _, name := range f.names {
		a.taken[name] = f.source()
	}
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
		s.keepBefore(ctx, name, m.Digest)
		img := core.Image{Name: name, Target: m, Labels: file.source().labels()}
		if _, err = s.client.ImageService().Update(ctx, img, "target", "labels"); errdefs.IsNotFound(err) {
			s.forgetLost(ctx) // as Unpack does
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
