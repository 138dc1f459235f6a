package imagebuild

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"runtime"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/partial"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// Archive is an image in an archive file. Its image reads from the file until Close.
type Archive struct {
	v1.Image
	file *os.File
}

// OpenArchive opens an archive with one image, or one for this machine's architecture: an OCI image layout as a tar file,
// or what `docker save` writes.
func OpenArchive(name string) (*Archive, error) {
	file, err := os.Open(name)
	if err != nil {
		return nil, fmt.Errorf("open an image archive: %w", err)
	}
	img, err := readArchive(name, file)
	if err != nil {
		_ = file.Close()
		return nil, fmt.Errorf("open the image archive %s: %w", name, err)
	}
	return &Archive{Image: img, file: file}, nil
}

// Close closes the file.
func (a *Archive) Close() error { return a.file.Close() }

func readArchive(name string, file *os.File) (v1.Image, error) {
	entries := map[string]*io.SectionReader{}
	archive := tar.NewReader(file)
	for {
		header, err := archive.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, err
		}
		// The reader has consumed exactly the header: the content starts here.
		offset, err := file.Seek(0, io.SeekCurrent)
		if err != nil {
			return nil, err
		}
		entries[path.Clean(header.Name)] = io.NewSectionReader(file, offset, header.Size)
	}
	if entries[indexFile] == nil {
		if entries["manifest.json"] == nil {
			return nil, errors.New("neither an OCI layout (index.json) nor a Docker archive (manifest.json)")
		}
		return tarball.ImageFromPath(name, nil)
	}
	layout := &layoutImage{entries: entries}
	if err := layout.find(indexFile, 1); err != nil {
		return nil, err
	}
	return partial.CompressedToImage(layout)
}

// layoutImage is an image of an OCI layout in a tar file. It implements partial.CompressedImageCore.
type layoutImage struct {
	entries    map[string]*io.SectionReader
	descriptor v1.Descriptor
	manifest   *v1.Manifest
}

// errNoPlatform is an index without an image of this architecture.
var errNoPlatform = errors.New("no image for linux/" + runtime.GOARCH)

// maxIndexes is how deep indexes may lie in each other: images have two.
const maxIndexes = 8

// find looks for the image of this architecture in an index, and in the indexes in it.
func (l *layoutImage) find(name string, deep int) error {
	if deep > maxIndexes {
		return fmt.Errorf("%s: more than %d indexes in each other", name, maxIndexes)
	}
	data, err := l.read(name)
	if err != nil {
		return err
	}
	index, err := v1.ParseIndexManifest(data)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	for _, d := range index.Manifests {
		switch {
		case d.MediaType.IsIndex():
			if err := l.find(blobPath(d.Digest), deep+1); !errors.Is(err, errNoPlatform) {
				return err
			}
		case d.MediaType.IsImage() && (d.Platform == nil || d.Platform.OS == "linux" && d.Platform.Architecture == runtime.GOARCH):
			manifest, err := l.read(blobPath(d.Digest))
			if err != nil {
				return err
			}
			l.descriptor = d
			l.manifest, err = v1.ParseManifest(manifest)
			return err
		}
	}
	return fmt.Errorf("%s: %w", name, errNoPlatform)
}

func (l *layoutImage) read(name string) (io.Reader, error) {
	section, ok := l.entries[name]
	if !ok {
		return nil, fmt.Errorf("%s is missing", name)
	}
	return io.NewSectionReader(section, 0, section.Size()), nil
}

func (l *layoutImage) bytes(digest v1.Hash) ([]byte, error) {
	r, err := l.read(blobPath(digest))
	if err != nil {
		return nil, err
	}
	return io.ReadAll(r)
}

// RawConfigFile implements partial.CompressedImageCore.
func (l *layoutImage) RawConfigFile() ([]byte, error) { return l.bytes(l.manifest.Config.Digest) }

// RawManifest implements partial.CompressedImageCore.
func (l *layoutImage) RawManifest() ([]byte, error) { return l.bytes(l.descriptor.Digest) }

// MediaType implements partial.CompressedImageCore.
func (l *layoutImage) MediaType() (types.MediaType, error) { return l.descriptor.MediaType, nil }

// LayerByDigest implements partial.CompressedImageCore.
func (l *layoutImage) LayerByDigest(digest v1.Hash) (partial.CompressedLayer, error) {
	for _, d := range append(l.manifest.Layers, l.manifest.Config) {
		if d.Digest == digest {
			return &layoutBlob{image: l, descriptor: d}, nil
		}
	}
	return nil, fmt.Errorf("no layer %s", digest)
}

// layoutBlob is one layer of a layoutImage. It implements partial.CompressedLayer.
type layoutBlob struct {
	image      *layoutImage
	descriptor v1.Descriptor
}

// Digest implements partial.CompressedLayer.
func (b *layoutBlob) Digest() (v1.Hash, error) { return b.descriptor.Digest, nil }

// Compressed implements partial.CompressedLayer.
func (b *layoutBlob) Compressed() (io.ReadCloser, error) {
	r, err := b.image.read(blobPath(b.descriptor.Digest))
	if err != nil {
		return nil, err
	}
	return io.NopCloser(r), nil
}

// Size implements partial.CompressedLayer.
func (b *layoutBlob) Size() (int64, error) { return b.descriptor.Size, nil }

// MediaType implements partial.CompressedLayer.
func (b *layoutBlob) MediaType() (types.MediaType, error) { return b.descriptor.MediaType, nil }
