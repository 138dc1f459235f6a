package images

import (
	"archive/tar"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/content"
	core "github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/containerd/v2/core/metadata"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/containerd/v2/plugins/content/local"
	"github.com/containerd/containerd/v2/plugins/snapshots/native"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.etcd.io/bbolt"

	"github.com/edge-serverless-box/esb/agent"
)

// collector frees, as containerd does, what nothing needs any more when a lease ends.
type collector struct {
	leases.Manager
	db *metadata.DB
	// on says that it does so: what tests make has no labels that hold it together.
	on bool
}

func (c *collector) Delete(ctx context.Context, lease leases.Lease, options ...leases.DeleteOpt) error {
	err := c.Manager.Delete(ctx, lease, options...)
	if err == nil && c.on {
		_, err = c.db.GarbageCollect(ctx)
	}
	return err
}

// mustStore opens a Store on containerd's own stores, without a containerd.
func mustStore(t *testing.T, cfg Config) (context.Context, *Store) {
	t.Helper()
	dir := t.TempDir()
	bolt, err := bbolt.Open(filepath.Join(dir, "meta.db"), 0o600, &bbolt.Options{NoSync: true})
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, bolt.Close()) })
	blobs, err := local.NewStore(filepath.Join(dir, "content"))
	require.NoError(t, err)
	layers, err := native.NewSnapshotter(filepath.Join(dir, "snapshots"))
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, layers.Close()) })
	db := metadata.NewDB(bolt, blobs, map[string]snapshots.Snapshotter{Snapshotter: layers})
	require.NoError(t, db.Init(t.Context()))
	client, err := containerd.New("", containerd.WithServices(containerd.WithImageStore(metadata.NewImageStore(db)),
		containerd.WithContentStore(db.ContentStore()), containerd.WithLeasesService(&collector{Manager: metadata.NewLeaseManager(db), db: db}),
		containerd.WithSnapshotters(map[string]snapshots.Snapshotter{Snapshotter: db.Snapshotter(Snapshotter)})))
	require.NoError(t, err)
	cfg.Logger = slog.New(slog.DiscardHandler)
	if cfg.ArchivesDir == "" {
		cfg.ArchivesDir = t.TempDir()
	}
	ctx := namespaces.WithNamespace(t.Context(), "esb-test")
	s, err := Open(ctx, client, cfg)
	require.NoError(t, err)
	t.Cleanup(s.Close)
	return ctx, s
}

// mustImage makes an image of nothing but a manifest and a configuration.
func mustImage(ctx context.Context, t *testing.T, s *Store, name string) digest.Digest {
	t.Helper()
	write := func(mediaType string, v any) ocispec.Descriptor {
		data, err := json.Marshal(v)
		require.NoError(t, err)
		d := ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(data), Size: int64(len(data))}
		w, err := content.OpenWriter(ctx, s.client.ContentStore(), content.WithRef(name+mediaType), content.WithDescriptor(d))
		if errdefs.IsAlreadyExists(err) {
			return d
		}
		require.NoError(t, err)
		_, err = w.Write(data)
		require.NoError(t, err)
		require.NoError(t, w.Commit(ctx, d.Size, d.Digest))
		require.NoError(t, w.Close())
		return d
	}
	config := write(ocispec.MediaTypeImageConfig, ocispec.Image{Author: name, Platform: ocispec.Platform{OS: "linux", Architecture: "amd64"}})
	manifest := write(ocispec.MediaTypeImageManifest, ocispec.Manifest{MediaType: ocispec.MediaTypeImageManifest, Config: config})
	_, err := s.client.ImageService().Create(ctx, core.Image{Name: name, Target: manifest})
	require.NoError(t, err)
	return manifest.Digest
}

// know has a Store know an image as unpacked, on a layer that is there.
func know(ctx context.Context, t *testing.T, s *Store, of digest.Digest, chain string) {
	t.Helper()
	sn := s.client.SnapshotService(Snapshotter)
	_, err := sn.Prepare(ctx, "x"+chain, "")
	require.NoError(t, err)
	require.NoError(t, sn.Commit(ctx, chain, "x"+chain))
	s.unpacked.Store(of, Image{Chain: chain})
	s.derived.Store(chain+"-variant", struct{}{})
	_, err = sn.Prepare(ctx, "y"+chain, chain)
	require.NoError(t, err)
	require.NoError(t, sn.Commit(ctx, chain+"-variant", "y"+chain))
}

const image = "127.0.0.1:5010/my/image:1"

// TestUnpack_ImageGone_ForgetsWhatWasUnpacked: containerd's store was made anew, and has none of the layers.
func TestUnpack_ImageGone_ForgetsWhatWasUnpacked(t *testing.T) {
	ctx, s := mustStore(t, Config{})
	know(ctx, t, s, mustImage(ctx, t, s, image), "sha256:aa")
	_, err := s.Unpack(ctx, image)
	require.NoError(t, err)
	require.NoError(t, s.client.ImageService().Delete(ctx, image))
	for _, layer := range []string{"sha256:aa-variant", "sha256:aa"} {
		require.NoError(t, s.client.SnapshotService(Snapshotter).Remove(ctx, layer))
	}
	_, err = s.Unpack(ctx, image)
	require.ErrorIs(t, err, errNoImage)
	_, unpacked := s.unpacked.Load(mustImage(ctx, t, s, image))
	_, derived := s.derived.Load("sha256:aa-variant")
	assert.False(t, unpacked || derived)
}

// TestUnpack_ImageMissing_LeavesTheOthers: a function whose image is nowhere is no reason to look at all again.
func TestUnpack_ImageMissing_LeavesTheOthers(t *testing.T) {
	ctx, s := mustStore(t, Config{})
	of := mustImage(ctx, t, s, image)
	know(ctx, t, s, of, "sha256:aa")
	_, err := s.Unpack(ctx, "127.0.0.1:5010/my/missing:1")
	require.ErrorIs(t, err, errNoImage)
	_, unpacked := s.unpacked.Load(of)
	assert.True(t, unpacked)
}

// TestMend_LayerGoneUnderAnImageThatIsThere_ForgetsIt: also between two looks at the image's content.
func TestMend_LayerGoneUnderAnImageThatIsThere_ForgetsIt(t *testing.T) {
	ctx, s := mustStore(t, Config{})
	of := mustImage(ctx, t, s, image)
	know(ctx, t, s, of, "sha256:aa")
	done, err := s.Mend(ctx, image, agent.PullNever)
	require.NoError(t, err)
	require.False(t, done, "all is there")
	for _, gone := range []string{"sha256:aa-variant", "sha256:aa"} {
		require.NoError(t, s.client.SnapshotService(Snapshotter).Remove(ctx, gone))
		s.unpacked.Store(of, Image{Chain: "sha256:aa"})
		s.derived.Store("sha256:aa-variant", struct{}{})
		done, err = s.Mend(ctx, image, agent.PullNever)
		require.NoError(t, err)
		assert.True(t, done)
		_, unpacked := s.unpacked.Load(of)
		assert.False(t, unpacked)
	}
}

func TestMended_NothingFound_IsLookedForMoreSeldom(t *testing.T) {
	now := time.Now()
	one := mended{}.next(now, "a", false, nil)
	assert.True(t, one.stands(now.Add(mendPause-1), "a"))
	assert.False(t, one.stands(now.Add(mendPause), "a"))
	assert.False(t, one.stands(now, "b"), "another image has the name")
	assert.False(t, one.stands(now.Add(-time.Hour), "a"), "the clock was set back")
	m := one
	for range 10 {
		m = m.next(now, "a", false, nil)
	}
	assert.Equal(t, mendPauseMax, m.pause)
	for _, again := range []mended{m.next(now, "b", false, nil), m.next(now, "a", true, nil), m.next(now, "a", false, errors.New("x"))} {
		assert.Equal(t, mendPause, again.pause)
	}
}

// failing is content that cannot be read.
type failing struct {
	content.Store
	err error
}

func (f failing) ReaderAt(context.Context, ocispec.Descriptor) (content.ReaderAt, error) {
	return f, nil
}
func (f failing) ReadAt([]byte, int64) (int, error) { return 0, f.err }
func (f failing) Size() int64                       { return 1 }
func (f failing) Close() error                      { return nil }

var _ io.ReaderAt = failing{}

// TestVerify_ContainerdOrMachineAtFault_IsNoDamage: what lies on the disk may be whole.
func TestVerify_ContainerdOrMachineAtFault_IsNoDamage(t *testing.T) {
	d := ocispec.Descriptor{Digest: digest.FromString("x"), Size: 1}
	for _, err := range []error{
		errdefs.ErrUnavailable, errdefs.ErrResourceExhausted, context.DeadlineExceeded, context.Canceled, errors.New("open x: too many open files"),
	} {
		got := verify(t.Context(), failing{err: err}, d)
		require.Error(t, got)
		assert.NotErrorIs(t, got, errDamaged, "%v", err)
	}
	require.ErrorIs(t, verify(t.Context(), failing{err: errors.New("read x: input/output error")}, d), errDamaged)
}

func TestUsage_Hearing_IsUnbrokenOrBeginsAnew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var u usage
		_, ok := u.hearing()
		assert.False(t, ok)
		began := time.Now()
		for range 5 {
			u.hear()
			time.Sleep(wantedFor / 2)
		}
		since, ok := u.hearing()
		assert.True(t, ok)
		assert.Equal(t, began, since)
		time.Sleep(wantedFor)
		_, ok = u.hearing()
		assert.False(t, ok)
		u.hear()
		since, ok = u.hearing()
		assert.True(t, ok)
		assert.Equal(t, time.Now(), since)
	})
}

// TestTend_NobodySaysWhatFunctionsName_RemovesNothing: a gateway that is away, or a clock that was set forward, is no reason to.
func TestTend_NobodySaysWhatFunctionsName_RemovesNothing(t *testing.T) {
	ctx, s := mustStore(t, Config{UnusedFor: 1, ArchivesUnusedFor: 1, StoreMaxMB: 1})
	s.storeMaxBytes = 1
	mustImage(ctx, t, s, image)
	there := func() bool {
		_, err := s.client.ImageService().Get(ctx, image)
		return err == nil
	}
	require.NoError(t, s.Tend(ctx, nil))
	assert.True(t, there())
	_, err := s.Remove(ctx, nil, 0, false, nil)
	assert.Equal(t, agent.CodePrecondition, agent.ErrorCode(err))
	_, err = s.Versions(ctx, []Query{{Image: "another:1"}})
	require.NoError(t, err)
	require.NoError(t, s.Tend(ctx, nil))
	assert.True(t, there(), "not all functions may have been named")

	s.usage.since = s.usage.since.Add(-wantedFor)
	require.NoError(t, s.Tend(ctx, nil))
	assert.False(t, there())
	mustImage(ctx, t, s, image)
	removed, err := s.Remove(ctx, []string{image}, 0, false, nil)
	require.NoError(t, err)
	assert.Equal(t, []string{image}, removed)
}

// TestTend_ImagesTakeTooMuch_TheLongestUnusedGo: as many as it takes, and no more.
func TestTend_ImagesTakeTooMuch_TheLongestUnusedGo(t *testing.T) {
	ctx, s := mustStore(t, Config{})
	names := []string{"127.0.0.1:5010/my/oldest:1", "127.0.0.1:5010/my/runs:1", "127.0.0.1:5010/my/newer:1"}
	for i, name := range names {
		mustImage(ctx, t, s, name)
		used := map[string]string{labelUsed: time.Now().Add(time.Duration(i-10) * time.Hour).UTC().Format(time.RFC3339)}
		_, err := s.client.ImageService().Update(ctx, core.Image{Name: name, Labels: used}, "labels."+labelUsed)
		require.NoError(t, err)
	}
	s.usage.hear()
	s.usage.since = s.usage.since.Add(-wantedFor)
	left := func() (left []string) {
		records, err := s.client.ImageService().List(ctx)
		require.NoError(t, err)
		for _, r := range records {
			left = append(left, r.Name)
		}
		return left
	}
	bytes, err := s.total(ctx)
	require.NoError(t, err)
	s.client.LeasesService().(*collector).on = true
	s.storeMaxBytes = bytes
	require.NoError(t, s.Tend(ctx, names[1:2]))
	assert.ElementsMatch(t, names, left(), "they may take as much")
	s.storeMaxBytes = bytes - 1
	require.NoError(t, s.Tend(ctx, names[1:2]))
	assert.ElementsMatch(t, names[1:], left())
	s.storeMaxBytes = 1
	require.NoError(t, s.Tend(ctx, names[1:2]))
	assert.Equal(t, names[1:2], left(), "a container is made of it")
}

// mustArchiveFile writes an archive of so many bytes that has an image of this name, so long ago.
func mustArchiveFile(t *testing.T, s *Store, file, name string, bytes int, ago time.Duration) string {
	t.Helper()
	path := filepath.Join(s.archives.dir, file)
	out, err := os.Create(path)
	require.NoError(t, err)
	index := `[{"RepoTags": ["` + name + `"]}]`
	w := tar.NewWriter(out)
	for _, e := range []struct{ name, content string }{{"manifest.json", index}, {"layer", strings.Repeat("x", bytes)}} {
		require.NoError(t, w.WriteHeader(&tar.Header{Name: e.name, Mode: 0o600, Size: int64(len(e.content))}))
		_, err := w.Write([]byte(e.content))
		require.NoError(t, err)
	}
	require.NoError(t, errors.Join(w.Close(), out.Close()))
	at := time.Now().Add(-ago)
	require.NoError(t, os.Chtimes(path, at, at))
	return path
}

func TestTend_Archives_GoByAgeAndBySize(t *testing.T) {
	const day = 24 * time.Hour
	for name, c := range map[string]struct {
		unusedFor time.Duration
		maxBytes  int64
		left      []string
	}{
		"no bound":  {0, 0, []string{"base.tar", "fresh.tar", "named.tar", "older.tar", "oldest.tar"}},
		"by age":    {45 * day, 0, []string{"base.tar", "fresh.tar", "named.tar", "older.tar"}},
		"by size":   {0, 460_000, []string{"base.tar", "fresh.tar", "named.tar", "older.tar"}},
		"by both":   {45 * day, 360_000, []string{"base.tar", "fresh.tar", "named.tar"}},
		"too large": {0, 1, []string{"base.tar", "fresh.tar", "named.tar"}},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			ctx, s := mustStore(t, Config{ArchivesDir: dir, ArchivesUnusedFor: c.unusedFor, Registry: "127.0.0.1:5010"})
			s.archivesMaxBytes = c.maxBytes
			s.opened = time.Now().Add(-100 * day)
			mustArchiveFile(t, s, "oldest.tar", "my/oldest:1", 100_000, 60*day)
			mustArchiveFile(t, s, "older.tar", "my/older:1", 100_000, 30*day)
			mustArchiveFile(t, s, "named.tar", "my/named:1", 100_000, 90*day)
			mustArchiveFile(t, s, "base.tar", "esb/runtime-python:3.11", 100_000, 90*day)
			mustArchiveFile(t, s, "fresh.tar", "my/fresh:1", 100_000, time.Hour)
			require.NoError(t, s.Tend(ctx, nil))
			files, err := filepath.Glob(filepath.Join(dir, "*.tar"))
			require.NoError(t, err)
			require.Len(t, files, 5, "nobody has said which images functions name")
			s.usage.hear()
			s.usage.since = s.usage.since.Add(-wantedFor)
			named, err := normalize("my/named:1", s.registry)
			require.NoError(t, err)
			s.usage.note(named)
			for range 2 {
				require.NoError(t, s.Tend(ctx, nil))
			}
			files, err = filepath.Glob(filepath.Join(dir, "*.tar"))
			require.NoError(t, err)
			var left []string
			for _, f := range files {
				left = append(left, filepath.Base(f))
			}
			assert.Equal(t, c.left, left)
		})
	}
}

// TestRemove_Archives_GoWithTheirImages, but for one that has another image, too.
func TestRemove_Archives_GoWithTheirImages(t *testing.T) {
	dir := t.TempDir()
	ctx, s := mustStore(t, Config{ArchivesDir: dir})
	s.usage.hear()
	file := mustArchiveFile(t, s, "one.tar", image, 1, time.Hour)
	mustImage(ctx, t, s, image)
	from := map[string]string{labelArchive: file}
	_, err := s.client.ImageService().Update(ctx, core.Image{Name: image, Labels: from}, "labels."+labelArchive)
	require.NoError(t, err)
	removed, err := s.Remove(ctx, []string{image}, 0, true, []string{image})
	assert.Equal(t, agent.CodePrecondition, agent.ErrorCode(err), "a container is made of it")
	assert.Empty(t, removed)
	removed, err = s.Remove(ctx, []string{image}, 0, true, nil)
	require.NoError(t, err)
	assert.Equal(t, []string{image, file}, removed)
	assert.NoFileExists(t, file)
	_, err = s.Remove(ctx, []string{image}, 0, true, nil)
	assert.Equal(t, agent.CodeNotFound, agent.ErrorCode(err))
}

// TestArchiveUse_ImageNotInContainerd_CountsWhatWasSeen: its record may have been lost with containerd's store.
func TestArchiveUse_ImageNotInContainerd_CountsWhatWasSeen(t *testing.T) {
	_, s := mustStore(t, Config{ArchivesUnusedFor: 48 * time.Hour})
	f := archiveFile{path: filepath.Join(t.TempDir(), "x.tar"), names: map[string]string{"a": image}}
	require.NoError(t, os.WriteFile(f.path, nil, 0o600))
	now := time.Now()
	used, inUse := s.archiveUse(f, nil, nil, now)
	assert.False(t, inUse)
	assert.Equal(t, s.opened, used, "nothing is known of before")
	s.usage.note(image)
	_, inUse = s.archiveUse(f, nil, nil, now)
	assert.True(t, inUse)
	now = now.Add(49 * time.Hour)
	s.usage.at[image] = now
	used, inUse = s.archiveUse(f, nil, nil, now.Add(time.Hour))
	assert.False(t, inUse)
	assert.Equal(t, now, used)
}
