package images

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/content"
	core "github.com/containerd/containerd/v2/core/images"
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
		containerd.WithContentStore(db.ContentStore()), containerd.WithLeasesService(metadata.NewLeaseManager(db)),
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

// TestArchiveUsed_ImageNotInContainerd_CountsWhatWasSeen: its record may have been lost with containerd's store.
func TestArchiveUsed_ImageNotInContainerd_CountsWhatWasSeen(t *testing.T) {
	_, s := mustStore(t, Config{ArchivesUnusedFor: 48 * time.Hour})
	f := archiveFile{path: filepath.Join(t.TempDir(), "x.tar"), names: map[string]string{"a": image}}
	require.NoError(t, os.WriteFile(f.path, nil, 0o600))
	now := time.Now()
	assert.True(t, s.archiveUsed(f, nil, nil, now), "nothing is known of before")
	s.usage.note(image)
	now = now.Add(49 * time.Hour)
	assert.False(t, s.archiveUsed(f, nil, nil, now.Add(time.Hour)))
	s.usage.at[image] = now
	assert.True(t, s.archiveUsed(f, nil, nil, now.Add(time.Hour)))
}
