package images

import (
	"archive/tar"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// mustTar writes a tar file of name and text pairs.
func mustTar(t *testing.T, file string, files ...string) {
	t.Helper()
	f, err := os.Create(file)
	require.NoError(t, err)
	w := tar.NewWriter(f)
	for i := 0; i < len(files); i += 2 {
		require.NoError(t, w.WriteHeader(&tar.Header{Name: files[i], Mode: 0o644, Size: int64(len(files[i+1]))}))
		_, err := w.Write([]byte(files[i+1]))
		require.NoError(t, err)
	}
	require.NoError(t, w.Close())
	require.NoError(t, f.Close())
}

func TestReadNames(t *testing.T) {
	const reg = "127.0.0.1:5010"
	oci := func(name string) string {
		return `{"manifests":[{"annotations":{"org.opencontainers.image.ref.name":"` + name + `"}}]}`
	}
	for name, c := range map[string]struct {
		files []string
		want  map[string]string
		err   string
	}{
		"OCI":            {files: []string{"index.json", oci("esb/echo:latest")}, want: map[string]string{"esb/echo:latest": reg + "/esb/echo:latest"}},
		"docker save":    {files: []string{"manifest.json", `[{"RepoTags":["esb/echo:1"]}]`}, want: map[string]string{"docker.io/esb/echo:1": reg + "/esb/echo:1"}},
		"docker save 25": {files: []string{"index.json", oci("docker.io/esb/echo:1"), "manifest.json", `[{"RepoTags":["esb/echo:1"]}]`}, want: map[string]string{"docker.io/esb/echo:1": reg + "/esb/echo:1"}},
		"with host":      {files: []string{"./index.json", oci("ghcr.io/a/b:1")}, want: map[string]string{"ghcr.io/a/b:1": "ghcr.io/a/b:1"}},
		"bare tag":       {files: []string{"index.json", oci("latest")}, err: "names no image"},
		"no image":       {files: []string{"a.txt", "x"}, err: "names no image"},
		"bad JSON":       {files: []string{"index.json", "{"}, err: "index.json"},
	} {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "a.tar")
			mustTar(t, file, c.files...)
			got, err := readNames(file, reg)
			if c.err != "" {
				require.ErrorContains(t, err, c.err)
				return
			}
			require.NoError(t, err)
			assert.Equal(t, c.want, got)
		})
	}
}

func TestArchives_Changed(t *testing.T) {
	a := newArchives(t.TempDir(), "r.test", slog.New(slog.DiscardHandler))
	mustTar(t, filepath.Join(a.dir, "a.tar"), "manifest.json", `[{"RepoTags":["a:1"]}]`)
	mustTar(t, filepath.Join(a.dir, "b.tar"), "manifest.json", `[{"RepoTags":["b:1"]}]`)
	require.NoError(t, os.WriteFile(filepath.Join(a.dir, "half.tar"), []byte("half"), 0o644))
	require.NoError(t, os.WriteFile(filepath.Join(a.dir, "readme.txt"), nil, 0o644))

	all, err := a.changed("", 0)
	assert.ErrorContains(t, err, "half.tar")
	assert.Len(t, all, 2)
	one, _ := a.changed("r.test/b:1", 0)
	require.Len(t, one, 1)
	a.markDone(one[0])
	one, _ = a.changed("r.test/b:1", 0)
	assert.Empty(t, one)
	mustTar(t, filepath.Join(a.dir, "b.tar"), "manifest.json", `[{"RepoTags":["b:1"]}]`, "more", "x")
	later := time.Now().Add(time.Hour)
	require.NoError(t, os.Chtimes(filepath.Join(a.dir, "b.tar"), later, later))
	one, _ = a.changed("r.test/b:1", 0)
	assert.Len(t, one, 1)

	none, err := newArchives(filepath.Join(a.dir, "nowhere"), "r.test", a.log).changed("x", 0)
	assert.NoError(t, err)
	assert.Empty(t, none)
}

// TestArchives_WrittenJustNow_AreLeftAlone: an archive is written in steps, and each step looks like a new one.
func TestArchives_WrittenJustNow_AreLeftAlone(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "a.tar")
	mustTar(t, file, "manifest.json", `[{"RepoTags":["a:1"]}]`)
	a := newArchives(dir, "r.test", slog.New(slog.DiscardHandler))
	files, err := a.changed("", time.Minute)
	require.NoError(t, err)
	assert.Empty(t, files)
	for _, at := range []time.Time{time.Now().Add(-time.Hour), time.Now().Add(time.Hour)} {
		require.NoError(t, os.Chtimes(file, at, at))
		files, err = a.changed("", time.Minute)
		require.NoError(t, err)
		assert.Len(t, files, 1, "old, or of a clock that was set")
	}
	assert.True(t, a.tryOnce(file, "1"))
	assert.False(t, a.tryOnce(file, "1"), "one that cannot be imported is not tried at each look")
	assert.True(t, a.tryOnce(file, "2"))
}
