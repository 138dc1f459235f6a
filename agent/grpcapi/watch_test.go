package grpcapi

import (
	"context"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/edge-serverless-box/esb/agent"
	agentv1 "github.com/edge-serverless-box/esb/api/esb/agent/v1"
)

// watched is a runtime whose exits and images are the test's.
type watched struct {
	agent.Runtime
	events   chan agent.Event
	loads    chan agent.CPULoad
	versions map[agent.ImageReference]string
}

func (w *watched) Watch(context.Context) <-chan agent.Event { return w.events }

func (w *watched) ImageVersions(_ context.Context, images []agent.ImageReference) ([]string, error) {
	var out []string
	for _, i := range images {
		out = append(out, w.versions[i])
	}
	return out, nil
}

func TestWatchContainers_TellsOfExitsAndShortages_UntilTheWatcherIsCutOff(t *testing.T) {
	w := &watched{events: make(chan agent.Event, 1)}
	conn, _ := mustServe(t, w, Options{})
	stream, err := agentv1.NewAgentServiceClient(conn).WatchContainers(t.Context(), &agentv1.WatchContainersRequest{})
	require.NoError(t, err)
	first, err := stream.Recv()
	require.NoError(t, err)
	assert.Empty(t, first.GetContainerId(), "the watch has begun")
	w.events <- agent.Event{Exit: &agent.Exit{ID: "c1", FunctionName: "f", Code: 137, OOM: true}}
	exit, err := stream.Recv()
	require.NoError(t, err)
	assert.Equal(t, []any{"c1", "f", uint32(137), true}, []any{exit.GetContainerId(), exit.GetFunctionName(), exit.GetExitCode(), exit.GetOom()})
	w.events <- agent.Event{Shortage: agent.Shortage{Bytes: 5, Machine: true}}
	short, err := stream.Recv()
	require.NoError(t, err)
	assert.Empty(t, short.GetContainerId())
	assert.Equal(t, []any{uint64(5), true}, []any{short.GetMemoryShortage().GetBytes(), short.GetMemoryShortage().GetMachine()})
	w.events <- agent.Event{}
	over, err := stream.Recv()
	require.NoError(t, err)
	assert.NotNil(t, over.GetMemoryShortage(), "it is over")
	assert.Zero(t, over.GetMemoryShortage().GetBytes())
	close(w.events)
	_, err = stream.Recv()
	assert.Equal(t, codes.ResourceExhausted, status.Code(err), "%v", err)
}

func (w *watched) WatchCPU(ctx context.Context) <-chan agent.CPULoad {
	go func() { <-ctx.Done(); close(w.loads) }()
	return w.loads
}

func TestWatchCPU_TellsReadings_UntilTheCallerLeaves(t *testing.T) {
	w := &watched{loads: make(chan agent.CPULoad, 1)}
	conn, _ := mustServe(t, w, Options{})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	stream, err := agentv1.NewAgentServiceClient(conn).WatchCPU(ctx, &agentv1.WatchCPURequest{})
	require.NoError(t, err)
	w.loads <- agent.CPULoad{CPUs: 2, Functions: 0.5, Runnable: 12}
	l, err := stream.Recv()
	require.NoError(t, err)
	assert.Equal(t, []any{uint32(2), 0.5, 12.0}, []any{l.GetCpus(), l.GetFunctions(), l.GetRunnable()})
	cancel()
	_, err = stream.Recv()
	assert.Equal(t, codes.Canceled, status.Code(err), "%v", err)
	_, open := <-w.loads
	assert.False(t, open, "nobody measures for a caller that has left")
}

func TestWatchCPU_RuntimeThatDoesNotKnow_IsUnimplemented(t *testing.T) {
	conn, _ := mustServe(t, struct{ agent.Runtime }{&watched{}}, Options{})
	stream, err := agentv1.NewAgentServiceClient(conn).WatchCPU(t.Context(), &agentv1.WatchCPURequest{})
	require.NoError(t, err)
	_, err = stream.Recv()
	assert.Equal(t, codes.Unimplemented, status.Code(err), "%v", err)
}

// TestWatchContainers_AgentStops_EndsAtOnce: a call without an end would hold the stop up.
func TestWatchContainers_AgentStops_EndsAtOnce(t *testing.T) {
	conn, stop := mustServe(t, &watched{events: make(chan agent.Event)}, Options{})
	stream, err := agentv1.NewAgentServiceClient(conn).WatchContainers(t.Context(), &agentv1.WatchContainersRequest{})
	require.NoError(t, err)
	_, err = stream.Recv()
	require.NoError(t, err)
	stopped := make(chan struct{})
	go func() {
		stop()
		close(stopped)
	}()
	_, err = stream.Recv()
	assert.Equal(t, codes.Unavailable, status.Code(err), "%v", err)
	<-stopped
}

func TestGetImageVersions_AnswersInOrder(t *testing.T) {
	w := &watched{versions: map[agent.ImageReference]string{{Image: "a:1"}: "sha256:a", {Runtime: "python3.11"}: "sha256:p", {Image: "b:1", AskRegistry: true}: "sha256:b"}}
	conn, _ := mustServe(t, w, Options{})
	client := agentv1.NewAgentServiceClient(conn)
	got, err := client.GetImageVersions(t.Context(), &agentv1.GetImageVersionsRequest{Images: []*agentv1.ImageReference{
		{Runtime: "python3.11"}, {Image: "missing:1"}, {Image: "a:1"}, {Image: "b:1", AskRegistry: true},
	}})
	require.NoError(t, err)
	var digests []string
	for _, v := range got.GetVersions() {
		digests = append(digests, v.GetImage().GetImage()+v.GetImage().GetRuntime()+"="+v.GetDigest())
	}
	assert.Equal(t, []string{"python3.11=sha256:p", "missing:1=", "a:1=sha256:a", "b:1=sha256:b"}, digests)
	for _, bad := range []*agentv1.ImageReference{{}, {Image: "a", Runtime: "b"}} {
		_, err = client.GetImageVersions(t.Context(), &agentv1.GetImageVersionsRequest{Images: []*agentv1.ImageReference{bad}})
		assert.Equal(t, codes.InvalidArgument, status.Code(err))
	}
}
