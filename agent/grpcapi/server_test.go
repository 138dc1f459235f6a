package grpcapi

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"github.com/edge-serverless-box/esb/agent"
	agentv1 "github.com/edge-serverless-box/esb/api/esb/agent/v1"
	"github.com/edge-serverless-box/esb/api/reason"
)

// fakeRuntime answers Ensure and Destroy with functions of the test; nothing else is called.
type fakeRuntime struct {
	agent.Runtime
	ensure  func(context.Context, agent.ContainerSpec) (agent.Container, error)
	destroy func(context.Context, string, time.Duration, string) error
}

func (f *fakeRuntime) Ensure(ctx context.Context, s agent.ContainerSpec) (agent.Container, error) {
	return f.ensure(ctx, s)
}

func (f *fakeRuntime) Destroy(ctx context.Context, id string, grace time.Duration, reason string) error {
	return f.destroy(ctx, id, grace, reason)
}

// mustServe serves runtime and returns a connection to it. stop ends the server and waits for it.
func mustServe(t *testing.T, runtime agent.Runtime, opts Options) (conn *grpc.ClientConn, stop func()) {
	t.Helper()
	opts.Logger = slog.New(slog.DiscardHandler)
	if opts.Healthy == nil {
		opts.Healthy = func(context.Context) error { return nil }
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- New(runtime, opts).Serve(ctx, listener) }()
	var stopped atomic.Bool
	stop = func() {
		if !stopped.Swap(true) {
			cancel()
			assert.NoError(t, <-done)
		}
	}
	t.Cleanup(stop)
	conn, err = grpc.NewClient(listener.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	return conn, stop
}

func good() *agentv1.EnsureContainerRequest {
	return &agentv1.EnsureContainerRequest{FunctionName: "f", Image: "i"}
}

func TestEnsure_MapsCodes(t *testing.T) {
	var answer error
	conn, _ := mustServe(t, &fakeRuntime{ensure: func(context.Context, agent.ContainerSpec) (agent.Container, error) {
		return agent.Container{}, answer
	}}, Options{})
	client := agentv1.NewAgentServiceClient(conn)
	for code, want := range map[agent.Code]codes.Code{
		agent.CodeInvalid: codes.InvalidArgument, agent.CodeNotFound: codes.NotFound, agent.CodeExhausted: codes.ResourceExhausted,
		agent.CodePrecondition: codes.FailedPrecondition, agent.CodeUnavailable: codes.Unavailable,
		agent.CodeDeadline: codes.DeadlineExceeded, agent.CodeCanceled: codes.Canceled, agent.CodeInternal: codes.Internal,
	} {
		answer = agent.Errorf(code, "the reason")
		_, err := client.EnsureContainer(t.Context(), good())
		assert.Equal(t, want, status.Code(err), code)
		assert.Equal(t, want != codes.Internal, status.Convert(err).Message() == "the reason", code)
	}
	answer = errors.New("a secret path")
	_, err := client.EnsureContainer(t.Context(), good())
	assert.Equal(t, codes.Internal, status.Code(err))
	assert.NotContains(t, err.Error(), "secret")
}

func TestEnsure_ChecksFields(t *testing.T) {
	conn, _ := mustServe(t, &fakeRuntime{}, Options{}) // a call that gets through panics on the nil function
	client := agentv1.NewAgentServiceClient(conn)
	for field, change := range map[string]func(*agentv1.EnsureContainerRequest){
		"function_name":        func(r *agentv1.EnsureContainerRequest) { r.FunctionName = "a/b" },
		"image":                func(r *agentv1.EnsureContainerRequest) { r.Image = "" },
		"env":                  func(r *agentv1.EnsureContainerRequest) { r.Env = map[string]string{"A=B": "c"} },
		"memory_size_mb":       func(r *agentv1.EnsureContainerRequest) { r.MemorySizeMb = 10241 },
		"timeout_seconds":      func(r *agentv1.EnsureContainerRequest) { r.TimeoutSeconds = 901 },
		"runtime_interface":    func(r *agentv1.EnsureContainerRequest) { r.RuntimeInterface = 9 },
		"pull_policy":          func(r *agentv1.EnsureContainerRequest) { r.PullPolicy = 9 },
		"ephemeral_storage_mb": func(r *agentv1.EnsureContainerRequest) { r.EphemeralStorageMb = 1 },
		"standby": func(r *agentv1.EnsureContainerRequest) {
			r.Standby, r.RuntimeInterface = true, agentv1.RuntimeInterface_RUNTIME_INTERFACE_RIE
		},
	} {
		t.Run(field, func(t *testing.T) {
			r := good()
			change(r)
			_, err := client.EnsureContainer(t.Context(), r)
			assert.Equal(t, codes.InvalidArgument, status.Code(err))
			assert.ErrorContains(t, err, field)
		})
	}
	_, err := client.DestroyContainer(t.Context(), &agentv1.DestroyContainerRequest{})
	assert.ErrorContains(t, err, "container_id")
}

func TestEnsure_AppliesAWSDefaults(t *testing.T) {
	var got agent.ContainerSpec
	conn, _ := mustServe(t, &fakeRuntime{ensure: func(_ context.Context, s agent.ContainerSpec) (agent.Container, error) {
		got = s
		return agent.Container{ID: "lambda-f-1", IP: "10.88.0.2", Port: 8080}, nil
	}}, Options{})
	w, err := agentv1.NewAgentServiceClient(conn).EnsureContainer(t.Context(), good())
	require.NoError(t, err)
	assert.EqualValues(t, 8080, w.GetPort())
	assert.Equal(t, 128, got.MemoryMB)
	assert.Equal(t, 3*time.Second, got.Timeout)
	assert.Equal(t, agent.Supervisor, got.Interface)
	assert.Equal(t, agent.PullIfNotPresent, got.PullPolicy)
}

func TestEnsure_Failure_TellsItsReason(t *testing.T) {
	var failure error
	conn, _ := mustServe(t, &fakeRuntime{ensure: func(context.Context, agent.ContainerSpec) (agent.Container, error) {
		return agent.Container{}, failure
	}}, Options{})
	client := agentv1.NewAgentServiceClient(conn)
	failure = fmt.Errorf("start: %w", agent.Because(reason.ImageMissing, agent.Errorf(agent.CodePrecondition, "image i cannot be had")))
	_, err := client.EnsureContainer(t.Context(), good())
	st := status.Convert(err)
	assert.Equal(t, codes.FailedPrecondition, st.Code())
	assert.Equal(t, "start: image i cannot be had", st.Message())
	require.Len(t, st.Details(), 1)
	info, ok := st.Details()[0].(*errdetails.ErrorInfo)
	require.True(t, ok)
	assert.Equal(t, "image_missing", info.GetReason())
	assert.Equal(t, "esb-runtime", info.GetDomain())
	failure = agent.Errorf(agent.CodeExhausted, "full")
	_, err = client.EnsureContainer(t.Context(), good())
	assert.Empty(t, status.Convert(err).Details())
}

func TestServer_Panic_FailsThatCallOnly(t *testing.T) {
	calls := 0
	conn, _ := mustServe(t, &fakeRuntime{ensure: func(context.Context, agent.ContainerSpec) (agent.Container, error) {
		if calls++; calls == 1 {
			panic("a bug")
		}
		return agent.Container{}, nil
	}}, Options{})
	client := agentv1.NewAgentServiceClient(conn)
	_, err := client.EnsureContainer(t.Context(), good())
	assert.Equal(t, codes.Internal, status.Code(err))
	assert.NotContains(t, err.Error(), "a bug")
	_, err = client.EnsureContainer(t.Context(), good())
	assert.NoError(t, err)
}

func TestServer_CallWithoutDeadline_GetsOne(t *testing.T) {
	conn, _ := mustServe(t, &fakeRuntime{ensure: func(ctx context.Context, _ agent.ContainerSpec) (agent.Container, error) {
		<-ctx.Done()
		return agent.Container{}, agent.Errorf(agent.CodeDeadline, "too slow: %w", ctx.Err())
	}}, Options{EnsureLimit: time.Millisecond})
	_, err := agentv1.NewAgentServiceClient(conn).EnsureContainer(t.Context(), good())
	assert.Equal(t, codes.DeadlineExceeded, status.Code(err))
}

func TestServer_Health_FollowsTheRuntime(t *testing.T) {
	var down atomic.Bool
	conn, _ := mustServe(t, &fakeRuntime{}, Options{Healthy: func(context.Context) error {
		if down.Load() {
			return errors.New("down")
		}
		return nil
	}})
	watch, err := healthpb.NewHealthClient(conn).Watch(t.Context(), &healthpb.HealthCheckRequest{Service: "esb.agent.v1.AgentService"})
	require.NoError(t, err)
	waitFor := func(want healthpb.HealthCheckResponse_ServingStatus) {
		for {
			r, err := watch.Recv()
			require.NoError(t, err)
			if r.GetStatus() == want {
				return
			}
		}
	}
	waitFor(healthpb.HealthCheckResponse_SERVING)
	down.Store(true)
	waitFor(healthpb.HealthCheckResponse_NOT_SERVING)
}

func TestServer_Stop_FinishesCallsInFlight(t *testing.T) {
	began, finish := make(chan struct{}), make(chan struct{})
	conn, stop := mustServe(t, &fakeRuntime{destroy: func(context.Context, string, time.Duration, string) error {
		close(began)
		<-finish
		return nil
	}}, Options{})
	result := make(chan error, 1)
	go func() {
		_, err := agentv1.NewAgentServiceClient(conn).DestroyContainer(context.Background(), &agentv1.DestroyContainerRequest{ContainerId: "c"})
		result <- err
	}()
	<-began
	stopped := make(chan struct{})
	go func() { stop(); close(stopped) }()
	select {
	case <-stopped:
		t.Fatal("the server stopped under a call")
	case <-time.After(50 * time.Millisecond):
	}
	close(finish)
	require.NoError(t, <-result)
	<-stopped
}
