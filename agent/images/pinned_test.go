package images

import (
	"context"
	"sync"
	"testing"

	containerd "github.com/containerd/containerd/v2/client"
	core "github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/edge-serverless-box/esb/agent"
)

// moving gives a tag another image as soon as somebody looks it up.
type moving struct {
	core.Store
	tag  string
	move func()
}

func (m *moving) Get(ctx context.Context, name string) (core.Image, error) {
	if name == m.tag {
		m.move()
	}
	return m.Store.Get(ctx, name)
}

// TestGet_ByDigest_TagMovesMeanwhile_WhatIsPinnedRuns: a pinned image that is here under a tag is not what that means a moment later.
func TestGet_ByDigest_TagMovesMeanwhile_WhatIsPinnedRuns(t *testing.T) {
	ctx, s := mustStore(t, Config{Registry: "127.0.0.1:5010"})
	first := mustImage(ctx, t, s, image)
	know(ctx, t, s, first, "sha256:aa")
	real := s.client
	var once sync.Once
	store := &moving{Store: real.ImageService(), tag: image, move: func() {
		once.Do(func() {
			fake := s.client
			s.client = real
			know(ctx, t, s, replace(ctx, t, s, 1), "sha256:bb")
			s.client = fake
		})
	}}
	var err error
	s.client, err = containerd.New("", containerd.WithServices(containerd.WithImageStore(store), containerd.WithContentStore(real.ContentStore()),
		containerd.WithLeasesService(real.LeasesService()), containerd.WithSnapshotters(map[string]snapshots.Snapshotter{Snapshotter: real.SnapshotService(Snapshotter)})))
	require.NoError(t, err)

	img, err := s.Get(ctx, "my/image@"+first.String(), agent.PullNever)
	require.NoError(t, err)
	assert.Equal(t, "sha256:aa", img.Chain)
	assert.Equal(t, first, img.Target)
	img, err = s.Get(ctx, "my/image:1", agent.PullNever)
	require.NoError(t, err)
	assert.Equal(t, "sha256:bb", img.Chain, "the tag has moved")
}

// TestGet_ByDigest_NameLies_IsRefused: an archive may name anything by a digest.
func TestGet_ByDigest_NameLies_IsRefused(t *testing.T) {
	ctx, s := mustStore(t, Config{Registry: "127.0.0.1:5010"})
	other := mustImage(ctx, t, s, image)
	know(ctx, t, s, other, "sha256:aa")
	record, err := s.client.ImageService().Get(ctx, image)
	require.NoError(t, err)
	pinned := "127.0.0.1:5010/my/image@sha256:0000000000000000000000000000000000000000000000000000000000000001"
	_, err = s.client.ImageService().Create(ctx, core.Image{Name: pinned, Target: record.Target})
	require.NoError(t, err)

	_, err = s.Get(ctx, pinned, agent.PullNever)
	require.ErrorContains(t, err, "has the digest "+other.String())
	assert.Equal(t, agent.CodePrecondition, agent.ErrorCode(err))
}
