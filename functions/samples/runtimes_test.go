package samples

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/edge-serverless-box/esb/functions/imagebuild"
)

func TestRuntimes_AreThoseOfTheArchivesInTheFolder(t *testing.T) {
	dir := t.TempDir()
	img, err := imagebuild.Scratch()
	require.NoError(t, err)
	for file, name := range map[string]string{"a.tar": "esb/runtime-python:3.13", "b.tar": "registry.local:5010/esb/runtime-nodejs:24", "c.tar": "esb/runtime-provided:latest",
		"d.tar": "esb/lambda-echo:latest", "e.tar": "other/runtime-python:3.9"} {
		require.NoError(t, imagebuild.WriteArchive(filepath.Join(dir, file), name, img, nil))
	}
	require.NoError(t, os.WriteFile(filepath.Join(dir, "f.tar"), []byte("cut"), 0o600))
	names, err := Runtimes(dir)
	require.NoError(t, err)
	assert.Equal(t, []string{"nodejs24.x", "provided.al2", "provided.al2023", "python3.13"}, names)
	names, err = Runtimes(t.TempDir())
	require.NoError(t, err)
	assert.Empty(t, names)
}
