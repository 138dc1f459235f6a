package images

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"io"
	"strconv"
	"testing"

	"github.com/containerd/containerd/v2/pkg/archive/compression"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/edge-serverless-box/esb/agent"
)

func TestCountEntries_RefusesWhatIsTooLargeUnpacked(t *testing.T) {
	const limit = 8 << 20
	for name, c := range map[string]struct {
		files int
		size  int64
		want  int64
	}{
		"nothing":             {0, 0, limit},
		"as much as allowed":  {1, limit - entryBytes, 0},
		"one byte more":       {1, limit - entryBytes + 1, -1},
		"much, compressed":    {1, 10 * limit, -1},
		"many empty files":    {limit/entryBytes + 1, 0, -1},
		"several together":    {3, limit / 2, -1},
		"several that fit in": {2, limit / 4, limit/2 - 2*entryBytes},
	} {
		t.Run(name, func(t *testing.T) {
			var layer bytes.Buffer
			zipped := gzip.NewWriter(&layer)
			w := tar.NewWriter(zipped)
			for i := range c.files {
				require.NoError(t, w.WriteHeader(&tar.Header{Name: strconv.Itoa(i), Mode: 0o644, Size: c.size, Typeflag: tar.TypeReg}))
				_, err := io.CopyN(w, zeros{}, c.size)
				require.NoError(t, err)
			}
			require.NoError(t, w.Close())
			require.NoError(t, zipped.Close())
			plain, err := compression.DecompressStream(&layer)
			require.NoError(t, err)
			defer func() { _ = plain.Close() }()

			left, err := (&Store{maxBytes: limit}).countEntries(t.Context(), plain, limit)
			if c.want < 0 {
				assert.Equal(t, agent.CodePrecondition, agent.ErrorCode(err))
				assert.ErrorContains(t, err, "IMAGE_MAX_MB")
				return
			}
			require.NoError(t, err)
			assert.Equal(t, c.want, left)
		})
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}
