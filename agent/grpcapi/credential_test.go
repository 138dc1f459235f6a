package grpcapi

import (
	"context"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	reflectionpb "google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/grpc/status"

	"github.com/edge-serverless-box/esb/agent"
	agentv1 "github.com/edge-serverless-box/esb/api/esb/agent/v1"
	"github.com/edge-serverless-box/esb/guard/bearer"
)

func TestToken_EveryServiceAsksForIt(t *testing.T) {
	runtime := &fakeRuntime{destroy: func(context.Context, string, time.Duration, string) error { return nil }}
	conn, _ := mustServe(t, runtime, Options{Token: "right"})
	calls := map[string]func(...grpc.CallOption) error{
		"agent": func(o ...grpc.CallOption) error {
			_, err := agentv1.NewAgentServiceClient(conn).DestroyContainer(t.Context(), &agentv1.DestroyContainerRequest{ContainerId: "c"}, o...)
			return err
		},
		"health": func(o ...grpc.CallOption) error {
			_, err := healthpb.NewHealthClient(conn).Check(t.Context(), &healthpb.HealthCheckRequest{}, o...)
			return err
		},
		"health's stream": func(o ...grpc.CallOption) error {
			stream, err := healthpb.NewHealthClient(conn).Watch(t.Context(), &healthpb.HealthCheckRequest{}, o...)
			if err == nil {
				_, err = stream.Recv()
			}
			return err
		},
		"reflection": func(o ...grpc.CallOption) error {
			stream, err := reflectionpb.NewServerReflectionClient(conn).ServerReflectionInfo(t.Context(), o...)
			if err == nil {
				_ = stream.Send(&reflectionpb.ServerReflectionRequest{MessageRequest: &reflectionpb.ServerReflectionRequest_ListServices{}})
				_, err = stream.Recv()
			}
			return err
		},
	}
	for name, call := range calls {
		t.Run(name, func(t *testing.T) {
			assert.Equal(t, codes.Unauthenticated, status.Code(call()))
			for _, wrong := range []bearer.Token{"", "wrong", "right "} {
				assert.Equal(t, codes.Unauthenticated, status.Code(call(grpc.PerRPCCredentials(wrong))), wrong)
			}
			assert.NoError(t, call(grpc.PerRPCCredentials(bearer.Token("right"))))
		})
	}
	err := conn.Invoke(t.Context(), "/no.such.Service/Method", &healthpb.HealthCheckRequest{}, &healthpb.HealthCheckResponse{})
	assert.Equal(t, codes.Unauthenticated, status.Code(err), "what is not there asks for it too")
}

func TestListenUnix_IsForRootAndItsOwnerAlone(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("to be another user needs root")
	}
	const owner, other = 65533, 65534
	// t.TempDir is closed to others, who must be kept out by the socket alone.
	dir, err := os.MkdirTemp("", "esb-socket-")
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, os.RemoveAll(dir)) })
	require.NoError(t, os.Chmod(dir, 0o755))
	path := filepath.Join(dir, "agent.sock")
	require.NoError(t, os.WriteFile(path, nil, 0o666), "as an earlier process leaves something")
	listener, err := ListenUnix(path, owner, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	server := New(&fakeRuntime{Runtime: noContainers{}}, Options{Token: "right", Logger: slog.New(slog.DiscardHandler), Healthy: func(context.Context) error { return nil }})
	go func() { done <- server.Serve(ctx, listener) }()
	t.Cleanup(func() { cancel(); assert.NoError(t, <-done) })

	conn, err := grpc.NewClient("unix:"+path, grpc.WithTransportCredentials(insecure.NewCredentials()))
	require.NoError(t, err)
	defer func() { _ = conn.Close() }()
	_, err = agentv1.NewAgentServiceClient(conn).ListContainers(t.Context(), &agentv1.ListContainersRequest{})
	require.NoError(t, err, "no token")

	info, err := os.Stat(path)
	require.NoError(t, err)
	assert.Equal(t, os.FileMode(0o600), info.Mode().Perm())
	assert.Equal(t, uint32(owner), info.Sys().(*syscall.Stat_t).Uid)
	// Whoever gets past the mode of the file, here by another mode, does not get past the kernel's word.
	require.NoError(t, os.Chmod(path, 0o666))
	for uid, want := range map[int]bool{owner: true, other: false} {
		assert.Equal(t, want, staysOpen(t, path, uid), "user %d", uid)
	}
}

// staysOpen says whether a connection of that user's to the socket is kept: the server speaks first.
func staysOpen(t *testing.T, path string, uid int) bool {
	t.Helper()
	program, err := os.Executable()
	require.NoError(t, err)
	// /proc/self/exe of the child's own, because others cannot pass the folder of this program.
	f, err := os.Open(program)
	require.NoError(t, err)
	defer func() { _ = f.Close() }()
	cmd := exec.CommandContext(t.Context(), "/proc/self/fd/3")
	cmd.ExtraFiles = []*os.File{f}
	cmd.Env = []string{"ESB_TEST_DIAL=" + path}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(uid)}}
	out, err := cmd.CombinedOutput()
	t.Log(string(out), err)
	return err == nil
}

func TestMain(m *testing.M) {
	if path := os.Getenv("ESB_TEST_DIAL"); path != "" {
		conn, err := net.Dial("unix", path)
		if err == nil {
			_ = conn.SetDeadline(time.Now().Add(time.Minute))
			_, err = conn.Read(make([]byte, 1))
		}
		if err != nil {
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// noContainers has none.
type noContainers struct{ agent.Runtime }

func (noContainers) List(context.Context, string) ([]agent.Container, error) { return nil, nil }
