package imagebuild

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/klauspost/compress/gzip"
)

// layer is a compressed layer in memory. It implements v1.Layer; tarball.LayerFromOpener of go-containerregistry would
// compress the content again for each of its digest, size and data.
type layer struct {
	compressed     []byte
	digest, diffID v1.Hash
}

// NewLayer makes the layer of a tree, compressed with gzip.
func NewLayer(t *Tree) (v1.Layer, error) {
	var compressed bytes.Buffer
	digest, diffID := sha256.New(), sha256.New()
	compressor := gzip.NewWriter(io.MultiWriter(&compressed, digest))
	if err := t.write(io.MultiWriter(compressor, diffID)); err != nil {
		return nil, err
	}
	if err := compressor.Close(); err != nil {
		return nil, fmt.Errorf("compress a layer: %w", err)
	}
	return &layer{
		compressed: compressed.Bytes(),
		digest:     v1.Hash{Algorithm: "sha256", Hex: hex.EncodeToString(digest.Sum(nil))},
		diffID:     v1.Hash{Algorithm: "sha256", Hex: hex.EncodeToString(diffID.Sum(nil))},
	}, nil
}

// Digest implements v1.Layer.
func (l *layer) Digest() (v1.Hash, error) { return l.digest, nil }

// DiffID implements v1.Layer.
func (l *layer) DiffID() (v1.Hash, error) { return l.diffID, nil }

// Compressed implements v1.Layer.
func (l *layer) Compressed() (io.ReadCloser, error) {
	return io.NopCloser(bytes.NewReader(l.compressed)), nil
}

// Uncompressed implements v1.Layer.
func (l *layer) Uncompressed() (io.ReadCloser, error) {
	return gzip.NewReader(bytes.NewReader(l.compressed))
}

// Size implements v1.Layer.
func (l *layer) Size() (int64, error) { return int64(len(l.compressed)), nil }

// MediaType implements v1.Layer.
func (l *layer) MediaType() (types.MediaType, error) { return types.OCILayer, nil }
