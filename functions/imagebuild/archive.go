package imagebuild

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/partial"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// Annotations of an archive's index.json, by which its reader names the image. containerd's importer takes
// AnnotationImageName as it is (client/import.go of containerd 2.4.2).
const (
	AnnotationImageName = "io.containerd.image.name"
	annotationRefName   = "org.opencontainers.image.ref.name"
)

const indexFile = "index.json"

// WriteArchive writes an image as an archive that names it ref, "name[:tag]". The archive is both an OCI image layout
// (containerd, podman, skopeo) and a Docker archive (`docker load`). annotations are kept in its index.json, see
// Annotations. file is replaced at once or not at all.
func WriteArchive(file, ref string, img v1.Image, annotations map[string]string) (err error) {
	full, tag, err := Reference(ref)
	if err != nil {
		return err
	}
	temporary, err := os.CreateTemp(filepath.Dir(file), "."+filepath.Base(file)+".*.tmp")
	if err != nil {
		return fmt.Errorf("write %s: %w", file, err)
	}
	defer func() {
		if err != nil {
			_ = temporary.Close()
			_ = os.Remove(temporary.Name())
			err = fmt.Errorf("write %s: %w", file, err)
		}
	}()
	all := map[string]string{AnnotationImageName: full, annotationRefName: tag}
	for key, value := range annotations {
		all[key] = value
	}
	if err := writeLayout(temporary, full, img, all); err != nil {
		return err
	}
	if err := temporary.Chmod(fileMode); err != nil {
		return err
	}
	// The rename must not become durable before the content: a power cut would leave an empty archive.
	if err := temporary.Sync(); err != nil {
		return err
	}
	if err := temporary.Close(); err != nil {
		return err
	}
	return os.Rename(temporary.Name(), file)
}

// Reference checks "name[:tag]" and returns it with its tag (latest when absent), and the tag alone.
func Reference(ref string) (full, tag string, err error) {
	parsed, err := name.NewTag(ref)
	if err != nil {
		return "", "", fmt.Errorf("image name %q: must be name[:tag], for example esb/hello:latest: %w", ref, err)
	}
	// parsed.Name() would add a registry host: which one is meant is the reader's setting.
	if suffix := ":" + parsed.TagStr(); len(ref) <= len(suffix) || ref[len(ref)-len(suffix):] != suffix {
		ref += suffix
	}
	return ref, parsed.TagStr(), nil
}

// writeLayout writes the tar stream. index.json comes first, so that Annotations reads little.
func writeLayout(w io.Writer, ref string, img v1.Image, annotations map[string]string) error {
	manifest, err := img.RawManifest()
	if err != nil {
		return fmt.Errorf("manifest: %w", err)
	}
	descriptor, err := partial.Descriptor(img)
	if err != nil {
		return fmt.Errorf("manifest: %w", err)
	}
	settings, err := img.ConfigFile()
	if err != nil {
		return fmt.Errorf("config: %w", err)
	}
	descriptor.Platform = &v1.Platform{OS: settings.OS, Architecture: settings.Architecture, Variant: settings.Variant}
	descriptor.Annotations = annotations
	descriptor.ArtifactType = "" // a plain image: only the manifest says what it is
	config, err := img.RawConfigFile()
	if err != nil {
		return fmt.Errorf("config: %w", err)
	}
	configDigest, err := img.ConfigName()
	if err != nil {
		return fmt.Errorf("config: %w", err)
	}
	layers, err := img.Layers()
	if err != nil {
		return fmt.Errorf("layers: %w", err)
	}
	docker := tarball.Descriptor{Config: blobPath(configDigest), RepoTags: []string{ref}}
	digests := make([]v1.Hash, len(layers))
	for i, layer := range layers {
		if digests[i], err = layer.Digest(); err != nil {
			return fmt.Errorf("layers: %w", err)
		}
		docker.Layers = append(docker.Layers, blobPath(digests[i]))
	}

	archive := tar.NewWriter(w)
	written := map[string]bool{}
	put := func(name string, size int64, content io.Reader) error {
		if written[name] { // two layers may be equal
			return nil
		}
		written[name] = true
		header := &tar.Header{Typeflag: tar.TypeReg, Name: name, Size: size, Mode: fileMode, ModTime: epoch}
		if err := archive.WriteHeader(header); err != nil {
			return err
		}
		_, err := io.Copy(archive, content)
		return err
	}
	putJSON := func(name string, v any) error {
		data, err := json.Marshal(v)
		if err != nil {
			return err
		}
		return put(name, int64(len(data)), bytes.NewReader(data))
	}
	index := v1.IndexManifest{SchemaVersion: 2, MediaType: types.OCIImageIndex, Manifests: []v1.Descriptor{*descriptor}}
	if err := errors.Join(
		putJSON(indexFile, index),
		putJSON("oci-layout", map[string]string{"imageLayoutVersion": "1.0.0"}),
		putJSON("manifest.json", tarball.Manifest{docker}),
		put(blobPath(descriptor.Digest), int64(len(manifest)), bytes.NewReader(manifest)),
		put(blobPath(configDigest), int64(len(config)), bytes.NewReader(config)),
	); err != nil {
		return err
	}
	for i, layer := range layers {
		size, err := layer.Size()
		if err != nil {
			return fmt.Errorf("layer %s: %w", digests[i], err)
		}
		content, err := layer.Compressed()
		if err != nil {
			return fmt.Errorf("layer %s: %w", digests[i], err)
		}
		err = put(blobPath(digests[i]), size, content)
		_ = content.Close()
		if err != nil {
			return fmt.Errorf("layer %s: %w", digests[i], err)
		}
	}
	return archive.Close()
}

func blobPath(digest v1.Hash) string { return path.Join("blobs", digest.Algorithm, digest.Hex) }

// Annotations returns the annotations of the only image in an archive.
func Annotations(file string) (map[string]string, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	archive := tar.NewReader(f)
	for {
		header, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return nil, fmt.Errorf("%s: not an OCI archive: no %s", file, indexFile)
		}
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", file, err)
		}
		if path.Clean(header.Name) != indexFile {
			continue
		}
		index, err := v1.ParseIndexManifest(archive)
		if err != nil {
			return nil, fmt.Errorf("read %s: %s: %w", file, indexFile, err)
		}
		if len(index.Manifests) != 1 {
			return nil, fmt.Errorf("%s: holds %d images, want one", file, len(index.Manifests))
		}
		return index.Manifests[0].Annotations, nil
	}
}

// endBlocks are two blocks of nothing, with which a tar file ends (tar(5)).
const endBlocks = 2 * 512

// Whole returns an error when a part of an archive is missing at its end, as after a power cut. What is in its files is not read.
func Whole(file string) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	for archive := tar.NewReader(f); ; {
		if _, err := archive.Next(); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return fmt.Errorf("read %s: %w", file, err)
		}
	}
	// One that is cut between two of its files ends for the reader as well.
	info, err := f.Stat()
	if err != nil {
		return err
	}
	end := make([]byte, endBlocks)
	if _, err := f.ReadAt(end, info.Size()-endBlocks); err != nil || !bytes.Equal(end, make([]byte, endBlocks)) {
		return fmt.Errorf("read %s: %w", file, io.ErrUnexpectedEOF)
	}
	return nil
}
