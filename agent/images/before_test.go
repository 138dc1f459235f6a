package images

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	core "github.com/containerd/containerd/v2/core/images"
	"github.com/opencontainers/go-digest"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/edge-serverless-box/esb/agent"
)

// replace gives image another one's content, as an import and a pull do, and returns its digest.
func replace(ctx context.Context, t *testing.T, s *Store, n int) digest.Digest {
	t.Helper()
	other := fmt.Sprintf("127.0.0.1:5010/other/image:%d", n)
	next := mustImage(ctx, t, s, other)
	record, err := s.client.ImageService().Get(ctx, other)
	require.NoError(t, err)
	s.keepBefore(ctx, image, next)
	_, err = s.client.ImageService().Update(ctx, core.Image{Name: image, Target: record.Target}, "target")
	require.NoError(t, err)
	require.NoError(t, s.client.ImageService().Delete(ctx, other))
	return next
}

func kept(ctx context.Context, t *testing.T, s *Store) (names []string) {
	t.Helper()
	records, err := s.client.ImageService().List(ctx)
	require.NoError(t, err)
	for _, r := range records {
		if strings.Contains(r.Name, "@") {
			names = append(names, r.Name)
		}
	}
	return names
}

func TestGet_ByDigest_FindsWhatHadTheName(t *testing.T) {
	ctx, s := mustStore(t, Config{Registry: "127.0.0.1:5010"})
	first := mustImage(ctx, t, s, image)
	know(ctx, t, s, first, "sha256:aa")
	pinned := "my/image@" + first.String()

	img, err := s.Get(ctx, pinned, agent.PullNever)
	require.NoError(t, err, "while it has its name")
	assert.Equal(t, "sha256:aa", img.Chain)

	next := replace(ctx, t, s, 1)
	know(ctx, t, s, next, "sha256:bb")
	img, err = s.Get(ctx, pinned, agent.PullNever)
	require.NoError(t, err)
	assert.Equal(t, "sha256:aa", img.Chain)
	assert.Equal(t, "127.0.0.1:5010/"+pinned, img.Name)
	img, err = s.Get(ctx, "my/image:1", agent.PullNever)
	require.NoError(t, err)
	assert.Equal(t, "sha256:bb", img.Chain, "the name has the new one")

	_, err = s.Get(ctx, "other/image@"+first.String(), agent.PullNever)
	assert.ErrorContains(t, err, "cannot be had", "another repository's may not be for everybody")
	s.keepBefore(ctx, image, next)
	assert.Len(t, kept(ctx, t, s), 1, "nothing is replaced")
}

func TestKeepBefore_IsBounded(t *testing.T) {
	ctx, s := mustStore(t, Config{})
	first := mustImage(ctx, t, s, image)
	for n := range 10 {
		replace(ctx, t, s, n)
		if n == 0 {
			s.usage.note("127.0.0.1:5010/my/image@" + first.String()) // a function has gone back to it
		}
	}
	names := kept(ctx, t, s)
	assert.Len(t, names, keptOf+1)
	assert.Contains(t, names, "127.0.0.1:5010/my/image@"+first.String())
}

func TestTend_KeptImages_GoAfterADay(t *testing.T) {
	ctx, s := mustStore(t, Config{})
	first := mustImage(ctx, t, s, image)
	name := "127.0.0.1:5010/my/image@" + first.String()
	replace(ctx, t, s, 1)
	_, err := s.Versions(ctx, []Query{{Image: image}})
	require.NoError(t, err)
	s.usage.since = s.usage.since.Add(-wantedFor)
	require.NoError(t, s.Tend(ctx, nil))
	assert.Equal(t, []string{name}, kept(ctx, t, s))

	long := time.Now().Add(-keptFor - time.Hour).UTC().Format(time.RFC3339)
	_, err = s.client.ImageService().Update(ctx, core.Image{Name: name, Labels: map[string]string{labelUsed: long}}, "labels."+labelUsed)
	require.NoError(t, err)
	require.NoError(t, s.Tend(ctx, []string{name}))
	assert.Len(t, kept(ctx, t, s), 1, "a container is made of it")
	_, err = s.client.ImageService().Update(ctx, core.Image{Name: name, Labels: map[string]string{labelUsed: long}}, "labels."+labelUsed)
	require.NoError(t, err)
	require.NoError(t, s.Tend(ctx, nil))
	assert.Empty(t, kept(ctx, t, s))
	_, err = s.client.ImageService().Get(ctx, image)
	assert.NoError(t, err)
}

// TestRelieve_DiskIsShort_GivesUpWhatIsKept: the oldest first, as many as it takes, and nothing that a function has gone back to.
func TestRelieve_DiskIsShort_GivesUpWhatIsKept(t *testing.T) {
	ctx, s := mustStore(t, Config{})
	name := func(of digest.Digest) string { return "127.0.0.1:5010/my/image@" + of.String() }
	back := mustImage(ctx, t, s, image)
	runs := replace(ctx, t, s, 1)
	oldest := replace(ctx, t, s, 2)
	replace(ctx, t, s, 3)
	_, err := s.Versions(ctx, []Query{{Image: image}})
	require.NoError(t, err)
	s.usage.note(name(back))
	s.usage.at[name(back)] = time.Now().Add(-2 * wantedFor)
	running := func(context.Context) ([]string, error) { return []string{name(runs)}, nil }
	all := []string{name(back), name(runs), name(oldest)}

	left := int64(keptRoom)
	s.free = func() (int64, error) { return left, nil }
	require.NoError(t, s.Relieve(ctx, running))
	assert.ElementsMatch(t, all, kept(ctx, t, s), "there is room")
	left--
	require.NoError(t, s.Relieve(ctx, running))
	assert.ElementsMatch(t, all, kept(ctx, t, s), "nobody has said for long enough which images functions name")
	s.usage.since = s.usage.since.Add(-wantedFor)
	require.NoError(t, s.Relieve(ctx, running))
	assert.ElementsMatch(t, []string{name(back), name(runs)}, kept(ctx, t, s))
	require.NoError(t, s.Relieve(ctx, running), "nothing can be given up any more")
	_, err = s.client.ImageService().Get(ctx, image)
	assert.NoError(t, err)

	replace(ctx, t, s, 4)
	newer := replace(ctx, t, s, 5)
	replace(ctx, t, s, 6)
	asked := 0
	s.free = func() (int64, error) { asked++; return int64(asked-1) * keptRoom, nil }
	require.NoError(t, s.Relieve(ctx, running))
	assert.Contains(t, kept(ctx, t, s), name(newer), "there is room after the first one")
}

func TestFreeOf(t *testing.T) {
	free, err := freeOf(t.TempDir())()
	require.NoError(t, err)
	assert.Positive(t, free)
	_, err = freeOf("/no/such/folder")()
	assert.Error(t, err)
}
