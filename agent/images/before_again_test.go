package images

import (
	"testing"
	"time"

	core "github.com/containerd/containerd/v2/core/images"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestKeepBefore_Again_IsAsIfItWereTheFirstTime: an image that its name has had before is not older than those between.
func TestKeepBefore_Again_IsAsIfItWereTheFirstTime(t *testing.T) {
	ctx, s := mustStore(t, Config{})
	first := mustImage(ctx, t, s, image)
	name := "127.0.0.1:5010/my/image@" + first.String()
	target, err := s.client.ImageService().Get(ctx, image)
	require.NoError(t, err)
	replace(ctx, t, s, 1)
	long := time.Now().Add(-keptFor - time.Hour).UTC().Format(time.RFC3339)
	_, err = s.client.ImageService().Update(ctx, core.Image{Name: name, Labels: map[string]string{labelUsed: long}}, "labels."+labelUsed)
	require.NoError(t, err)
	second := replace(ctx, t, s, 2)

	// The name goes back to the first one, and on.
	s.keepBefore(ctx, image, first)
	_, err = s.client.ImageService().Update(ctx, core.Image{Name: image, Target: target.Target}, "target")
	require.NoError(t, err)
	replace(ctx, t, s, 3)
	record, err := s.client.ImageService().Get(ctx, name)
	require.NoError(t, err)
	assert.Less(t, time.Since(s.describe(record, nil, time.Now()).UsedAt), time.Hour, "it is kept for a day from now on")
	replace(ctx, t, s, 4)
	names := kept(ctx, t, s)
	assert.Len(t, names, keptOf)
	assert.Contains(t, names, name)
	assert.Contains(t, names, "127.0.0.1:5010/my/image@"+second.String())
}

// TestKeepBefore_ImageInUse_Stays: a function that has gone back to it has nothing else, however many do not work after it.
func TestKeepBefore_ImageInUse_Stays(t *testing.T) {
	ctx, s := mustStore(t, Config{})
	name := "127.0.0.1:5010/my/image@" + mustImage(ctx, t, s, image).String()
	replace(ctx, t, s, 0)
	s.usage.at = map[string]time.Time{name: time.Now().Add(-2 * wantedFor)}
	for n := range 2 * keptOf {
		replace(ctx, t, s, n+1)
	}
	assert.Contains(t, kept(ctx, t, s), name)
}

// TestKeepBefore_PulledByItsDigest_IsNotOneThatIsKept.
func TestKeepBefore_PulledByItsDigest_IsNotOneThatIsKept(t *testing.T) {
	ctx, s := mustStore(t, Config{})
	first := mustImage(ctx, t, s, image)
	name := "127.0.0.1:5010/my/image@" + first.String()
	record, err := s.client.ImageService().Get(ctx, image)
	require.NoError(t, err)
	_, err = s.client.ImageService().Create(ctx, core.Image{Name: name, Target: record.Target})
	require.NoError(t, err)
	for n := range 10 {
		replace(ctx, t, s, n)
	}
	assert.Contains(t, kept(ctx, t, s), name)
}
