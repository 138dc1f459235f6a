package grpcapi

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/edge-serverless-box/esb/agent"
	agentv1 "github.com/edge-serverless-box/esb/api/esb/agent/v1"
)

// keeper is a runtime that keeps images.
type keeper struct {
	fakeRuntime
	list []agent.Image
	err  error
	// asked is what the last removal was asked for.
	names     []string
	unusedFor time.Duration
	archives  bool
}

func (k *keeper) Images(context.Context) ([]agent.Image, int64, error) { return k.list, 12345, k.err }

func (k *keeper) RemoveImages(_ context.Context, names []string, unusedFor time.Duration, archives bool) ([]string, error) {
	k.names, k.unusedFor, k.archives = names, unusedFor, archives
	return []string{"a:1", "/images/a.tar"}, k.err
}

func TestImages_AreListedAndRemoved(t *testing.T) {
	used := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	k := &keeper{list: []agent.Image{
		{Name: "a:1", Digest: "sha256:1", Bytes: 12, UsedAt: used, Archive: "/images/a.tar"}, {Name: "b:1", Digest: "sha256:2", Bytes: 13, UsedAt: used, InUse: true},
	}}
	conn, _ := mustServe(t, k, Options{})
	client := agentv1.NewAgentServiceClient(conn)
	list, err := client.ListImages(t.Context(), &agentv1.ListImagesRequest{})
	require.NoError(t, err)
	assert.EqualValues(t, 12345, list.GetBytes())
	var got []agent.Image
	for _, i := range list.GetImages() {
		got = append(got, agent.Image{
			Name: i.GetName(), Digest: i.GetDigest(), Bytes: i.GetBytes(), UsedAt: i.GetUsedAt().AsTime(), InUse: i.GetInUse(), Archive: i.GetArchive(),
		})
	}
	assert.Equal(t, k.list, got)

	removed, err := client.RemoveImages(t.Context(), &agentv1.RemoveImagesRequest{Names: []string{"a:1"}, UnusedFor: durationpb.New(time.Hour), Archives: true})
	require.NoError(t, err)
	assert.Equal(t, []string{"a:1", "/images/a.tar"}, removed.GetRemoved())
	assert.Equal(t, []string{"a:1"}, k.names)
	assert.Equal(t, time.Hour, k.unusedFor)
	assert.True(t, k.archives)
	_, err = client.RemoveImages(t.Context(), &agentv1.RemoveImagesRequest{UnusedFor: durationpb.New(-1)})
	assert.Equal(t, codes.InvalidArgument, status.Code(err))

	k.err = agent.Errorf(agent.CodePrecondition, "image a:1 is in use")
	_, err = client.RemoveImages(t.Context(), &agentv1.RemoveImagesRequest{})
	assert.Equal(t, codes.FailedPrecondition, status.Code(err))
	_, err = client.ListImages(t.Context(), &agentv1.ListImagesRequest{})
	assert.Equal(t, codes.FailedPrecondition, status.Code(err))
}

func TestImages_RuntimeKeepsNone_IsUnimplemented(t *testing.T) {
	conn, _ := mustServe(t, &fakeRuntime{}, Options{})
	client := agentv1.NewAgentServiceClient(conn)
	_, err := client.ListImages(t.Context(), &agentv1.ListImagesRequest{})
	assert.Equal(t, codes.Unimplemented, status.Code(err))
	_, err = client.RemoveImages(t.Context(), &agentv1.RemoveImagesRequest{})
	assert.Equal(t, codes.Unimplemented, status.Code(err))
}
