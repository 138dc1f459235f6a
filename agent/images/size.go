package images

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"sync/atomic"

	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/content"
	core "github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/pkg/archive/compression"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/edge-serverless-box/esb/agent"
	"github.com/edge-serverless-box/esb/api/reason"
)

// entryBytes is what an entry of a layer takes on disk at least, beside its content: an inode and its place in a folder.
const entryBytes = 4096

// checkSize refuses an image whose layers take more than maxBytes on disk, before anything of them is unpacked. It has to
// read them for that, which costs about as much as unpacking them, once: what is compressed does not say how much it is.
func (s *Store) checkSize(ctx context.Context, img containerd.Image) error {
	manifest, err := core.Manifest(ctx, s.client.ContentStore(), img.Target(), s.platform)
	if err != nil {
		return fmt.Errorf("read its manifest: %w", err)
	}
	left := s.maxBytes
	for _, layer := range manifest.Layers {
		if left, err = s.countLayer(ctx, layer, left); err != nil {
			return fmt.Errorf("layer %s: %w", layer.Digest, err)
		}
	}
	return nil
}

// countLayer takes what a layer needs on disk off left.
func (s *Store) countLayer(ctx context.Context, layer ocispec.Descriptor, left int64) (_ int64, err error) {
	blob, err := s.client.ContentStore().ReaderAt(ctx, layer)
	if err != nil {
		return 0, fmt.Errorf("read: %w", err)
	}
	defer func() { err = errors.Join(err, blob.Close()) }()
	plain, err := compression.DecompressStream(content.NewReader(blob))
	if err != nil {
		return 0, fmt.Errorf("unpack: %w", err)
	}
	defer func() { _ = plain.Close() }() // not read to its end, when there is too much
	return s.countEntries(ctx, plain, left)
}

// countEntries adds up the files of a tar stream. What a header says of a file counts, not what is in the stream: a sparse
// file is written out.
func (s *Store) countEntries(ctx context.Context, stream io.Reader, left int64) (int64, error) {
	for entries := tar.NewReader(stream); ; {
		header, err := entries.Next()
		switch {
		case errors.Is(err, io.EOF):
			return left, nil
		case err != nil:
			return 0, fmt.Errorf("unpack: %w", err)
		case ctx.Err() != nil:
			return 0, ctx.Err()
		}
		if left -= header.Size + entryBytes; left < 0 || header.Size < 0 {
			return 0, s.tooLarge()
		}
	}
}

func (s *Store) tooLarge() error {
	return agent.Because(reason.ImageInvalid, agent.Errorf(agent.CodePrecondition, "its layers take more than %d MB unpacked (IMAGE_MAX_MB)", s.maxBytes>>20))
}

// boundDownload ends a pull whose manifests name more than maxBytes, before that is downloaded.
func (s *Store) boundDownload() core.HandlerFunc {
	var total atomic.Int64
	return func(_ context.Context, d ocispec.Descriptor) ([]ocispec.Descriptor, error) {
		if d.Size < 0 || total.Add(d.Size) > s.maxBytes {
			return nil, s.tooLarge()
		}
		return nil, nil
	}
}
