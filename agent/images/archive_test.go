package images

import (
	"archive/tar"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	core "github.com/containerd/containerd/v2/core/images"
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

// written gives a file a time of change.
func written(t *testing.T, file string, at time.Time) {
	t.Helper()
	require.NoError(t, os.Chtimes(file, at, at))
}

// paths are those of the archives that an image is to be taken from.
func paths(t *testing.T, a *archives, name string) []string {
	t.Helper()
	files, err := a.changed(name, 0)
	require.NoError(t, err)
	var out []string
	for _, f := range files {
		out = append(out, filepath.Base(f.path))
	}
	return out
}

// labelled is what containerd keeps of an image that was taken from an archive.
func labelled(name string, f archiveFile) core.Image {
	return core.Image{Name: name, Labels: f.source().labels()}
}

// TestArchives_TwoOfOneName_TheLastWrittenCounts: whatever the order in which they are met, and however often the agent starts.
func TestArchives_TwoOfOneName_TheLastWrittenCounts(t *testing.T) {
	const name = "r.test/flip:1"
	dir, log := t.TempDir(), slog.New(slog.DiscardHandler)
	first, second := filepath.Join(dir, "z-first.tar"), filepath.Join(dir, "a-second.tar")
	for i, file := range []string{first, second} {
		mustTar(t, file, "manifest.json", `[{"RepoTags":["flip:1"]}]`)
		written(t, file, time.Unix(1000+int64(i), 0))
	}
	a := newArchives(dir, "r.test", log)
	files, err := a.changed(name, 0)
	require.NoError(t, err)
	require.Len(t, files, 1)
	assert.Equal(t, second, files[0].path)
	for range 3 { // starts of the agent
		a = newArchives(dir, "r.test", log)
		a.load([]core.Image{labelled(name, files[0])})
		assert.Empty(t, paths(t, a, ""), "the other one is no news")
	}
	written(t, first, time.Unix(2000, 0))
	assert.Equal(t, []string{"z-first.tar"}, paths(t, a, name), "written anew")
	require.NoError(t, os.Remove(first))
	assert.Empty(t, paths(t, a, name), "gone, and the image is the second one's")
}

// TestArchives_BeingWritten_NoOlderOneTakesItsPlace: an image does not go back for the moment in which its archive is copied.
func TestArchives_BeingWritten_NoOlderOneTakesItsPlace(t *testing.T) {
	const name = "r.test/flip:1"
	dir := t.TempDir()
	older, newer := filepath.Join(dir, "older.tar"), filepath.Join(dir, "newer.tar")
	for i, file := range []string{older, newer} {
		mustTar(t, file, "manifest.json", `[{"RepoTags":["flip:1"]}]`)
		written(t, file, time.Unix(1000+int64(i), 0))
	}
	a := newArchives(dir, "r.test", slog.New(slog.DiscardHandler))
	files, err := a.changed(name, 0)
	require.NoError(t, err)
	a.markDone(files[0])
	require.NoError(t, os.WriteFile(newer, []byte("half"), 0o644))
	files, err = a.changed(name, 0)
	assert.ErrorContains(t, err, "newer.tar")
	assert.Empty(t, files)
	require.NoError(t, os.Remove(newer))
	assert.Equal(t, []string{"older.tar"}, paths(t, a, name), "taken away, the one before counts again")
}

// TestArchives_AnotherRegistry_IsAnotherName: images without a host are named by the box's registry, whose address is a setting.
func TestArchives_AnotherRegistry_IsAnotherName(t *testing.T) {
	dir, log := t.TempDir(), slog.New(slog.DiscardHandler)
	mustTar(t, filepath.Join(dir, "a.tar"), "manifest.json", `[{"RepoTags":["a:1"]}]`)
	before := newArchives(dir, "old.test:5010", log)
	files, err := before.changed("", 0)
	require.NoError(t, err)
	now := newArchives(dir, "new.test:5020", log)
	now.load([]core.Image{labelled("old.test:5010/a:1", files[0])})
	assert.Equal(t, []string{"a.tar"}, paths(t, now, "new.test:5020/a:1"))
	again := newArchives(dir, "old.test:5010", log)
	again.load([]core.Image{labelled("old.test:5010/a:1", files[0])})
	assert.Empty(t, paths(t, again, ""))
}

// TestArchives_Forgotten_IsTakenAgain: an image that containerd has no more comes from its archive once more.
func TestArchives_Forgotten_IsTakenAgain(t *testing.T) {
	dir := t.TempDir()
	mustTar(t, filepath.Join(dir, "a.tar"), "manifest.json", `[{"RepoTags":["a:1"]}]`)
	a := newArchives(dir, "r.test", slog.New(slog.DiscardHandler))
	files, err := a.changed("", 0)
	require.NoError(t, err)
	a.markDone(files[0])
	assert.Empty(t, paths(t, a, "r.test/a:1"))
	assert.True(t, a.forget("r.test/a:1"))
	assert.False(t, a.forget("r.test/a:1"))
	assert.Equal(t, []string{"a.tar"}, paths(t, a, "r.test/a:1"))
}
