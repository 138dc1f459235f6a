package agentclient_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	agentv1 "github.com/edge-serverless-box/esb/api/esb/agent/v1"
	"github.com/edge-serverless-box/esb/gateway"
)

// GetContainerMetrics knows all containers but "gone" and "broken".
func (a *fakeAgent) GetContainerMetrics(_ context.Context, r *agentv1.GetContainerMetricsRequest) (*agentv1.GetContainerMetricsResponse, error) {
	switch r.GetContainerId() {
	case "gone":
		return nil, status.Error(codes.NotFound, "no such container")
	case "broken":
		return nil, status.Error(codes.Internal, "cgroup: permission denied")
	}
	return &agentv1.GetContainerMetricsResponse{
		Status: agentv1.ContainerStatus_PAUSED, MemoryCurrentBytes: 1, MemoryPeakBytes: 2, MemoryLimitBytes: 3,
		CpuUsageNanoseconds: 4, OomKills: 5, CpuThrottledPeriods: 6, PidsCurrent: 7,
	}, nil
}

func TestClient_Containers_LeavesOutWhatIsGoneAndSortsTheRest(t *testing.T) {
	created := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	info := func(id, name string) *agentv1.ContainerInfo {
		return &agentv1.ContainerInfo{ContainerId: id, ContainerName: name, FunctionName: "f", CreatedAt: timestamppb.New(created)}
	}
	a := &fakeAgent{list: []*agentv1.ContainerInfo{info("2", "lambda-f-2"), info("gone", "lambda-f-0"), info("1", "lambda-f-1")}}
	c, _ := mustDial(t, a)
	got, err := c.Containers(t.Context())
	require.NoError(t, err)
	require.Len(t, got, 2)
	assert.Equal(t, gateway.Container{
		ID: "1", Name: "lambda-f-1", Function: "f", State: "PAUSED", CreatedAt: created,
		MemoryCurrent: 1, MemoryPeak: 2, MemoryLimit: 3, CPU: 4, OOMKills: 5, ThrottledPeriods: 6, Processes: 7,
	}, got[0])
	assert.Equal(t, "lambda-f-2", got[1].Name)

	a.list = append(a.list, info("broken", "lambda-f-3"))
	_, err = c.Containers(t.Context())
	require.ErrorContains(t, err, "reading the metrics of containers: ")
	require.ErrorContains(t, err, "cgroup: permission denied")
	assert.Equal(t, gateway.CodeUnavailable, gateway.ErrorCode(err))
}
