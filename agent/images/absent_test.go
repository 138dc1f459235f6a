package images

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestAbsent_NamesWhatNoArchiveHas(t *testing.T) {
	dir := t.TempDir()
	mustTar(t, filepath.Join(dir, "a.tar"), "manifest.json", `[{"RepoTags":["esb/echo:latest","ghcr.io/x/y:2"]}]`)
	absent, err := Absent(dir, "127.0.0.1:5010", []string{"esb/echo", "my/hello:1", "ghcr.io/x/y:2", "127.0.0.1:5010/esb/echo:latest", "my/hello:1", "ghcr.io/esb/echo"})
	require.NoError(t, err)
	assert.Equal(t, []string{"ghcr.io/esb/echo", "my/hello:1"}, absent)

	require.NoError(t, os.WriteFile(filepath.Join(dir, "cut.tar"), []byte("noise"), 0o600))
	absent, err = Absent(dir, "127.0.0.1:5010", []string{"esb/echo"})
	assert.ErrorContains(t, err, "cut.tar: not a whole tar file")
	assert.Empty(t, absent)
	absent, err = Absent(filepath.Join(dir, "none"), "127.0.0.1:5010", []string{"esb/echo"})
	require.NoError(t, err)
	assert.Equal(t, []string{"esb/echo"}, absent)
}
