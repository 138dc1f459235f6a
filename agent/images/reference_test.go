package images

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestNormalize(t *testing.T) {
	digest := "@sha256:" + strings.Repeat("a", 64)
	for ref, want := range map[string]string{
		"echo":                         "127.0.0.1:5010/echo:latest",
		"echo:1":                       "127.0.0.1:5010/echo:1",
		"esb/echo:latest":              "127.0.0.1:5010/esb/echo:latest",
		"docker.io/library/busybox":    "docker.io/library/busybox:latest",
		"localhost/x":                  "localhost/x:latest",
		"registry:5000/x:2":            "registry:5000/x:2",
		"ghcr.io/a/b" + digest:         "ghcr.io/a/b" + digest,
		"esb/echo" + digest:            "127.0.0.1:5010/esb/echo" + digest,
		"public.ecr.aws/lambda/x:3.12": "public.ecr.aws/lambda/x:3.12",
	} {
		got, err := normalize(ref, "127.0.0.1:5010")
		require.NoError(t, err, ref)
		assert.Equal(t, want, got)
	}
	for _, bad := range []string{"", "UPPER/x", "a b", "x:", "../x", "x@sha256:1"} {
		_, err := normalize(bad, "127.0.0.1:5010")
		assert.Error(t, err, bad)
	}
}
