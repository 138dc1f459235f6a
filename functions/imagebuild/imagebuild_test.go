package imagebuild

import (
	"archive/tar"
	"context"
	"errors"
	"io"
	"io/fs"
	"log"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/validate"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func mustLayer(t *testing.T, tree *Tree) v1.Layer {
	t.Helper()
	layer, err := NewLayer(tree)
	require.NoError(t, err)
	return layer
}

func mustImage(t *testing.T, config Config, trees ...*Tree) v1.Image {
	t.Helper()
	img, err := Scratch()
	require.NoError(t, err)
	for _, tree := range trees {
		img, err = Build(img, config, mustLayer(t, tree))
		require.NoError(t, err)
	}
	return img
}

func mustOpen(t *testing.T, file string) *Archive {
	t.Helper()
	archive, err := OpenArchive(file)
	require.NoError(t, err)
	t.Cleanup(func() { _ = archive.Close() })
	return archive
}

func oneFile(name, content string) *Tree {
	tree := NewTree()
	tree.AddData(name, []byte(content), false)
	return tree
}

func mustDigest(t *testing.T, of interface{ Digest() (v1.Hash, error) }) string {
	t.Helper()
	digest, err := of.Digest()
	require.NoError(t, err)
	return digest.String()
}

func TestLayer_Files_AreNormalised(t *testing.T) {
	host := t.TempDir()
	require.NoError(t, os.MkdirAll(filepath.Join(host, "pkg", "empty"), 0o700))
	require.NoError(t, os.WriteFile(filepath.Join(host, "pkg", "secret.txt"), []byte("s"), 0o600))
	require.NoError(t, os.WriteFile(filepath.Join(host, "run"), []byte("r"), 0o700))
	require.NoError(t, os.Symlink("pkg/secret.txt", filepath.Join(host, "link")))
	tree := NewTree()
	require.NoError(t, tree.AddTree("/var/task", host))
	tree.AddDir("/tmp", fs.ModeSticky|0o777)
	tree.AddData("../../etc/escape", nil, false)

	type header struct {
		typ  byte
		mode int64
		link string
	}
	got := map[string]header{}
	var order []string
	content, err := mustLayer(t, tree).Uncompressed()
	require.NoError(t, err)
	archive := tar.NewReader(content)
	for {
		h, err := archive.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		require.NoError(t, err)
		got[h.Name] = header{h.Typeflag, h.Mode, h.Linkname}
		order = append(order, h.Name)
		assert.Zero(t, h.Uid+h.Gid, h.Name)
		assert.Equal(t, time.Unix(0, 0).UTC(), h.ModTime.UTC(), h.Name)
	}
	assert.Equal(t, map[string]header{
		"etc/":                    {tar.TypeDir, 0o755, ""},
		"etc/escape":              {tar.TypeReg, 0o644, ""},
		"tmp/":                    {tar.TypeDir, 0o1777, ""},
		"var/":                    {tar.TypeDir, 0o755, ""},
		"var/task/":               {tar.TypeDir, 0o755, ""},
		"var/task/link":           {tar.TypeSymlink, 0o777, "pkg/secret.txt"},
		"var/task/pkg/":           {tar.TypeDir, 0o755, ""},
		"var/task/pkg/empty/":     {tar.TypeDir, 0o755, ""},
		"var/task/pkg/secret.txt": {tar.TypeReg, 0o644, ""},
		"var/task/run":            {tar.TypeReg, 0o755, ""},
	}, got)
	assert.IsIncreasing(t, order)
}

func TestLayer_MissingFile_IsNamed(t *testing.T) {
	tree := NewTree()
	tree.AddFile("/bin/x", "/nothere/x", true)
	_, err := NewLayer(tree)
	assert.ErrorIs(t, err, os.ErrNotExist)
	assert.ErrorContains(t, err, "bin/x")
}

func TestBuild_SameInput_SameDigest(t *testing.T) {
	build := func(touched time.Time) string {
		dir := t.TempDir()
		file := filepath.Join(dir, "a.py")
		require.NoError(t, os.WriteFile(file, []byte("a"), 0o600))
		require.NoError(t, os.Chtimes(file, touched, touched))
		tree := NewTree()
		require.NoError(t, tree.AddTree("/var/task", dir))
		img := mustImage(t, Config{Env: map[string]string{"B": "2", "A": "1", "C": "3"}}, tree)
		return mustDigest(t, img)
	}
	assert.Equal(t, build(time.Now()), build(time.Now().Add(-time.Hour)))
}

func TestBuild_Config_ReplacesAndMerges(t *testing.T) {
	base, err := Build(mustImage(t, Config{}), Config{Entrypoint: []string{"/a"}, Cmd: []string{"x"}, WorkingDir: "/w",
		Env: map[string]string{"K": "old", "L": "l"}, Labels: map[string]string{"one": "1"}}, mustLayer(t, oneFile("a", "a")))
	require.NoError(t, err)
	settings := func(c Config) v1.Config {
		img, err := Build(base, c)
		require.NoError(t, err)
		file, err := img.ConfigFile()
		require.NoError(t, err)
		return file.Config
	}
	assert.Equal(t, v1.Config{Entrypoint: []string{"/a"}, Cmd: []string{"y"}, WorkingDir: "/w", User: "1000:1000",
		Env: []string{"L=l", "K=new"}, Labels: map[string]string{"one": "1", "two": "2"}},
		settings(Config{Cmd: []string{"y"}, User: "1000:1000", Env: map[string]string{"K": "new"}, Labels: map[string]string{"two": "2"}}))
	assert.Empty(t, settings(Config{Entrypoint: []string{"/b"}}).Cmd, "a new entrypoint drops the base's command")
}

func TestArchive_RoundTrip_KeepsDigestsAndNames(t *testing.T) {
	img := mustImage(t, Config{Entrypoint: []string{"/x"}}, oneFile("a", "base"), oneFile("b", "top"))
	file := filepath.Join(t.TempDir(), "image.tar")
	require.NoError(t, WriteArchive(file, "esb/hello", img, map[string]string{"k": "v"}))

	annotations, err := Annotations(file)
	require.NoError(t, err)
	assert.Equal(t, map[string]string{"k": "v", "io.containerd.image.name": "esb/hello:latest", "org.opencontainers.image.ref.name": "latest"}, annotations)

	archive := mustOpen(t, file)
	require.NoError(t, validate.Image(archive))
	assert.Equal(t, mustDigest(t, img), mustDigest(t, archive))
	require.NoError(t, Whole(file))
	content, err := os.ReadFile(file)
	require.NoError(t, err)
	for _, left := range []int{len(content) - 512, len(content) - 1024, len(content) / 2, 100, 0} {
		cut := filepath.Join(t.TempDir(), "cut.tar")
		require.NoError(t, os.WriteFile(cut, content[:left], 0o600))
		assert.ErrorContains(t, Whole(cut), cut)
	}

	tag, err := name.NewTag("esb/hello:latest")
	require.NoError(t, err)
	docker, err := tarball.ImageFromPath(file, &tag)
	require.NoError(t, err, "docker load reads it too")
	require.NoError(t, validate.Image(docker))

	info, err := os.Stat(file)
	require.NoError(t, err)
	assert.Equal(t, fs.FileMode(0o644), info.Mode())
	assert.Len(t, mustReadDir(t, filepath.Dir(file)), 1, "no temporary file is left")

	derived, err := Build(archive, Config{Cmd: []string{"c"}}, mustLayer(t, oneFile("c", "more")))
	require.NoError(t, err)
	base, err := img.Layers()
	require.NoError(t, err)
	all, err := derived.Layers()
	require.NoError(t, err)
	require.Len(t, all, len(base)+1)
	for i := range base {
		assert.Equal(t, mustDigest(t, base[i]), mustDigest(t, all[i]), "base layers are shared")
	}
}

func mustReadDir(t *testing.T, dir string) []os.DirEntry {
	t.Helper()
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	return entries
}

func TestOpenArchive_ForeignArchives(t *testing.T) {
	img := mustImage(t, Config{}, oneFile("a", "a"))
	dir := t.TempDir()

	dockerOnly := filepath.Join(dir, "docker.tar")
	tag, err := name.NewTag("x:1")
	require.NoError(t, err)
	require.NoError(t, tarball.WriteToFile(dockerOnly, tag, img))
	require.NoError(t, validate.Image(mustOpen(t, dockerOnly)))

	ociOnly := mustOCIArchive(t, mustIndex(t, img))
	assert.Equal(t, mustDigest(t, img), mustDigest(t, mustOpen(t, ociOnly)))

	other := filepath.Join(dir, "other.tar")
	require.NoError(t, os.WriteFile(other, make([]byte, 1024), 0o600))
	_, err = OpenArchive(other)
	assert.ErrorContains(t, err, "neither an OCI layout (index.json) nor a Docker archive")
	_, err = Annotations(other)
	assert.ErrorContains(t, err, "not an OCI archive")
	_, err = OpenArchive(filepath.Join(dir, "nothere.tar"))
	assert.ErrorIs(t, err, os.ErrNotExist)
}

// As tools make them that build for one architecture after another.
func TestOpenArchive_IndexesInAnIndex_AreAllLookedAt(t *testing.T) {
	img := mustImage(t, Config{}, oneFile("a", "a"))
	foreign := mustIndexOf(t, img, "somewhere-else")
	for name, c := range map[string]struct {
		inner []v1.ImageIndex
		err   string
	}{
		"the second has it": {[]v1.ImageIndex{foreign, mustIndexOf(t, img, runtime.GOARCH)}, ""},
		"the first has it":  {[]v1.ImageIndex{mustIndexOf(t, img, runtime.GOARCH), foreign}, ""},
		"none has it":       {[]v1.ImageIndex{foreign}, "no image for linux/" + runtime.GOARCH},
	} {
		t.Run(name, func(t *testing.T) {
			path, err := layout.Write(t.TempDir(), empty.Index)
			require.NoError(t, err)
			for _, index := range c.inner {
				require.NoError(t, path.AppendIndex(index))
			}
			outer, err := path.ImageIndex()
			require.NoError(t, err)
			file := mustOCIArchive(t, outer)
			if c.err != "" {
				_, err = OpenArchive(file)
				require.ErrorContains(t, err, c.err)
				return
			}
			assert.Equal(t, mustDigest(t, img), mustDigest(t, mustOpen(t, file)))
		})
	}
}

// mustIndexOf returns an index with an image of an architecture alone.
func mustIndexOf(t *testing.T, img v1.Image, architecture string) v1.ImageIndex {
	t.Helper()
	path, err := layout.Write(t.TempDir(), empty.Index)
	require.NoError(t, err)
	require.NoError(t, path.AppendImage(img, layout.WithPlatform(v1.Platform{OS: "linux", Architecture: architecture})))
	index, err := path.ImageIndex()
	require.NoError(t, err)
	return index
}

// mustOCIArchive writes an index as an OCI layout in a tar file, and returns that.
func mustOCIArchive(t *testing.T, index v1.ImageIndex) string {
	t.Helper()
	path, err := layout.Write(t.TempDir(), index)
	require.NoError(t, err)
	file := filepath.Join(t.TempDir(), "oci.tar")
	out, err := os.Create(file)
	require.NoError(t, err)
	archive := tar.NewWriter(out)
	require.NoError(t, archive.AddFS(os.DirFS(string(path))))
	require.NoError(t, errors.Join(archive.Close(), out.Close()))
	return file
}

func TestWriteArchive_Fails_LeavesOldFile(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "image.tar")
	require.NoError(t, os.WriteFile(file, []byte("old"), 0o600))
	source := filepath.Join(dir, "source")
	require.NoError(t, os.WriteFile(source, []byte("s"), 0o600))

	err := WriteArchive(file, "esb/hello:1", brokenImage{mustImage(t, Config{}, oneFile("a", "a"))}, nil)
	require.ErrorContains(t, err, "image.tar")
	content, err := os.ReadFile(file)
	require.NoError(t, err)
	assert.Equal(t, "old", string(content))
	assert.Len(t, mustReadDir(t, dir), 2)

	for _, ref := range []string{"", "UPPER", "a b", "x@sha256:abc"} {
		assert.ErrorContains(t, WriteArchive(file, ref, mustImage(t, Config{}), nil), "must be name[:tag]", ref)
	}
}

// brokenImage is an image whose layers cannot be read.
type brokenImage struct{ v1.Image }

func (brokenImage) Layers() ([]v1.Layer, error) { return nil, errors.New("disk on fire") }

func TestReference_Tag(t *testing.T) {
	for given, want := range map[string][2]string{
		"esb/a":                 {"esb/a:latest", "latest"},
		"esb/a:1":               {"esb/a:1", "1"},
		"localhost:5010/a":      {"localhost:5010/a:latest", "latest"},
		"registry.local/a:v1.2": {"registry.local/a:v1.2", "v1.2"},
	} {
		full, tag, err := Reference(given)
		require.NoError(t, err, given)
		assert.Equal(t, want, [2]string{full, tag}, given)
	}
}

func TestPush_Registry_HasImage(t *testing.T) {
	server := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	defer server.Close()
	ref := strings.TrimPrefix(server.URL, "http://") + "/esb/hello:1"
	img := mustImage(t, Config{Cmd: []string{"x"}}, oneFile("a", "a"))

	require.NoError(t, Push(context.Background(), ref, img, PushOptions{}))

	parsed, err := name.ParseReference(ref)
	require.NoError(t, err)
	pulled, err := remote.Image(parsed)
	require.NoError(t, err)
	assert.Equal(t, mustDigest(t, img), mustDigest(t, pulled))

	server.Close()
	assert.ErrorContains(t, Push(context.Background(), ref, img, PushOptions{}), "push "+ref)
}

func mustIndex(t *testing.T, img v1.Image) v1.ImageIndex {
	t.Helper()
	path, err := layout.Write(t.TempDir(), empty.Index)
	require.NoError(t, err)
	require.NoError(t, path.AppendImage(img))
	index, err := path.ImageIndex()
	require.NoError(t, err)
	return index
}
