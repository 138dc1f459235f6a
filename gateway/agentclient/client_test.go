package agentclient_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	agentv1 "github.com/edge-serverless-box/esb/api/esb/agent/v1"
	"github.com/edge-serverless-box/esb/api/reason"
	"github.com/edge-serverless-box/esb/gateway"
	"github.com/edge-serverless-box/esb/gateway/agentclient"
	"github.com/edge-serverless-box/esb/gateway/cpugate"
	"github.com/edge-serverless-box/esb/gateway/pool"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/health"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// fakeAgent answers as its fields say.
type fakeAgent struct {
	exits    []*agentv1.WatchContainersResponse
	asked    []*agentv1.ImageReference
	versions []*agentv1.ImageVersion
	agentv1.UnimplementedAgentServiceServer
	ensured   *agentv1.EnsureContainerRequest
	destroyed *agentv1.DestroyContainerRequest
	info      *agentv1.WorkerInfo
	list      []*agentv1.ContainerInfo
	err       error
	deadline  time.Duration
	paused    []string
	frozen    *agentv1.PauseContainerResponse
	owner     string
}

func (a *fakeAgent) seen(ctx context.Context) {
	if d, ok := ctx.Deadline(); ok {
		a.deadline = time.Until(d)
	}
}

func (a *fakeAgent) EnsureContainer(ctx context.Context, r *agentv1.EnsureContainerRequest) (*agentv1.WorkerInfo, error) {
	a.seen(ctx)
	a.ensured = r
	return a.info, a.err
}

func (a *fakeAgent) DestroyContainer(ctx context.Context, r *agentv1.DestroyContainerRequest) (*agentv1.DestroyContainerResponse, error) {
	a.seen(ctx)
	a.destroyed = r
	return &agentv1.DestroyContainerResponse{}, a.err
}

func (a *fakeAgent) ListContainers(ctx context.Context, r *agentv1.ListContainersRequest) (*agentv1.ListContainersResponse, error) {
	a.seen(ctx)
	a.owner = r.GetOwner()
	return &agentv1.ListContainersResponse{Containers: a.list}, a.err
}

func (a *fakeAgent) PauseContainer(ctx context.Context, r *agentv1.PauseContainerRequest) (*agentv1.PauseContainerResponse, error) {
	a.seen(ctx)
	a.paused = append(a.paused, "pause "+r.GetContainerId())
	if a.frozen != nil {
		return a.frozen, a.err
	}
	return &agentv1.PauseContainerResponse{}, a.err
}

func (a *fakeAgent) ResumeContainer(ctx context.Context, r *agentv1.ResumeContainerRequest) (*agentv1.ResumeContainerResponse, error) {
	a.seen(ctx)
	a.paused = append(a.paused, "resume "+r.GetContainerId())
	return &agentv1.ResumeContainerResponse{}, a.err
}

func (a *fakeAgent) WatchContainers(_ *agentv1.WatchContainersRequest, stream grpc.ServerStreamingServer[agentv1.WatchContainersResponse]) error {
	for _, x := range a.exits {
		if err := stream.Send(x); err != nil {
			return err
		}
	}
	return a.err
}

func (a *fakeAgent) GetImageVersions(_ context.Context, r *agentv1.GetImageVersionsRequest) (*agentv1.GetImageVersionsResponse, error) {
	a.asked = r.GetImages()
	return &agentv1.GetImageVersionsResponse{Versions: a.versions}, a.err
}

// serve starts a gRPC server of a on lis; its end is the test's, or stop's.
func serve(t *testing.T, a *fakeAgent, lis net.Listener, opts ...grpc.ServerOption) (h *health.Server, stop func()) {
	t.Helper()
	s := grpc.NewServer(opts...)
	agentv1.RegisterAgentServiceServer(s, a)
	h = health.NewServer()
	healthv1.RegisterHealthServer(s, h)
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = s.Serve(lis)
	}()
	stop = func() {
		s.Stop()
		<-done
	}
	t.Cleanup(stop)
	return h, stop
}

func mustDial(t *testing.T, a *fakeAgent, options ...agentclient.Option) (*agentclient.Client, *health.Server) {
	t.Helper()
	lis := bufconn.Listen(1 << 20)
	h, _ := serve(t, a, lis)
	options = append(options, agentclient.WithDialer(func(ctx context.Context, _ string) (net.Conn, error) { return lis.DialContext(ctx) }))
	c, err := agentclient.Dial("agent:50051", options...)
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, c.Close()) })
	return c, h
}

var echo = &gateway.Function{
	Name: "lambda-echo", Image: "esb/echo:latest", PullPolicy: "always", Environment: map[string]string{"TABLE": "items"},
	Timeout: 1500 * time.Millisecond, MemoryMB: 256, EphemeralStorageMB: 512, Interface: gateway.RIE,
	Entrypoint: []string{"/e"}, Command: []string{"c"}, WorkingDirectory: "/w", Generation: "g7",
}

func TestClient_Start_SendsTheFunctionAndReturnsTheWorker(t *testing.T) {
	a := &fakeAgent{info: &agentv1.WorkerInfo{Id: "c1", Name: "lambda-echo-1", IpAddress: "10.88.0.5", Port: 8080, ImageDigest: "sha256:1"}}
	c, _ := mustDial(t, a)
	w, err := c.Start(t.Context(), echo, true, "req-1")
	require.NoError(t, err)
	assert.WithinDuration(t, time.Now(), w.CreatedAt, time.Minute)
	w.CreatedAt = time.Time{}
	assert.Equal(t, gateway.Worker{
		ID: "c1", Name: "lambda-echo-1", Addr: "10.88.0.5:8080", Function: "lambda-echo", Generation: "g7",
		ImageDigest: "sha256:1", Interface: gateway.RIE, Standby: true,
	}, w)
	r := a.ensured
	assert.Equal(t, "esb/echo:latest", r.GetImage())
	assert.Equal(t, uint32(2), r.GetTimeoutSeconds(), "rounded up")
	assert.Equal(t, uint32(256), r.GetMemorySizeMb())
	assert.Equal(t, agentv1.RuntimeInterface_RUNTIME_INTERFACE_RIE, r.GetRuntimeInterface())
	assert.Equal(t, agentv1.PullPolicy_PULL_POLICY_ALWAYS, r.GetPullPolicy())
	assert.Equal(t, map[string]string{"TABLE": "items"}, r.GetEnv())
	assert.Equal(t, []string{"/e"}, r.GetEntrypoint())
	assert.Equal(t, "req-1", r.GetRequestId())
	assert.True(t, r.GetStandby())
	assert.Positive(t, a.deadline, "every call has a deadline")
}

func TestClient_Start_GivesTheFunctionsOwnVariables(t *testing.T) {
	a := &fakeAgent{info: &agentv1.WorkerInfo{Id: "c1", IpAddress: "10.88.0.5", Port: 8080}}
	c, _ := mustDial(t, a, agentclient.WithEnvironment(func(function string) map[string]string {
		return map[string]string{"AWS_ACCESS_KEY_ID": "of " + function}
	}))
	_, err := c.Start(t.Context(), echo, false, "req-1")
	require.NoError(t, err)
	assert.Equal(t, map[string]string{"TABLE": "items", "AWS_ACCESS_KEY_ID": "of lambda-echo"}, a.ensured.GetEnv())
	assert.Len(t, echo.Environment, 1, "the configuration stays as it is")
}

func TestClient_Freeze_AsksTheWorkerFirst(t *testing.T) {
	a := &fakeAgent{}
	c, _ := mustDial(t, a)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	state := "busy"
	worker := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		assert.Equal(t, "/health?flush=1", r.URL.String())
		if r.Header.Get("X-Esb-Container-Id") != "c1" {
			w.WriteHeader(http.StatusMisdirectedRequest)
		}
		_, _ = io.WriteString(w, `{"state":"`+state+`"}`)
	}))
	defer worker.Close()
	w := gateway.Worker{ID: "c1", Addr: worker.Listener.Addr().String(), Interface: gateway.Supervisor}
	freeze := func(w gateway.Worker) error {
		thaw, err := c.Freeze(ctx, w)
		assert.Nil(t, thaw, "the agent has named no file")
		return err
	}
	for _, state = range []string{"busy", "init"} {
		require.ErrorIs(t, freeze(w), pool.ErrWorking, state)
	}
	assert.Empty(t, a.paused)
	for _, state = range []string{"standby", "idle"} {
		a.paused = nil
		require.NoError(t, freeze(w), state)
	}
	require.ErrorContains(t, freeze(gateway.Worker{ID: "c3", Addr: w.Addr, Interface: gateway.Supervisor}), "another container's")
	require.NoError(t, c.Thaw(ctx, "c1"))
	require.NoError(t, freeze(gateway.Worker{ID: "c2", Addr: "127.0.0.1:1", Interface: gateway.RIE}), "RIE has no state to tell")
	assert.Equal(t, []string{"pause c1", "resume c1", "pause c2"}, a.paused)
	a.err = status.Error(codes.NotFound, "gone")
	require.Error(t, c.Thaw(ctx, "c1"))
	w.Addr = "127.0.0.1:1"
	require.ErrorIs(t, freeze(w), pool.ErrNoAnswer)
}

// TestClient_Freeze_ThawsByTheFileThatTheAgentNames, when there is such a file for this process.
func TestClient_Freeze_ThawsByTheFileThatTheAgentNames(t *testing.T) {
	file := filepath.Join(t.TempDir(), "freezer.state")
	a := &fakeAgent{frozen: &agentv1.PauseContainerResponse{ThawFile: file, ThawText: "THAWED"}}
	c, _ := mustDial(t, a)
	w := gateway.Worker{ID: "c1", Interface: gateway.RIE}
	thaw, err := c.Freeze(t.Context(), w)
	require.NoError(t, err)
	assert.Nil(t, thaw, "the file is on another machine")
	require.NoError(t, os.WriteFile(file, []byte("FROZEN"), 0o600))
	thaw, err = c.Freeze(t.Context(), w)
	require.NoError(t, err)
	require.NoError(t, thaw())
	text, err := os.ReadFile(file)
	require.NoError(t, err)
	assert.Equal(t, "THAWED", string(text))
	require.NoError(t, os.Remove(file))
	require.Error(t, thaw(), "the container is gone")
	assert.NoFileExists(t, file)
}

// TestClient_AwaitInit_TellsAFunctionThatCannotServe: a worker without a process that was to have one.
func TestClient_AwaitInit_TellsAFunctionThatCannotServe(t *testing.T) {
	c, _ := mustDial(t, &fakeAgent{})
	for _, x := range []struct {
		states []string
		fails  bool
	}{
		{[]string{"init", "init", "idle"}, false},
		{[]string{"idle"}, false},
		{[]string{"busy"}, false},
		{[]string{"init", "standby"}, true},
		{[]string{"init", `standby","init":"timeout`}, false},
	} {
		n := 0
		worker := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			assert.Equal(t, "/health", r.URL.String())
			_, _ = io.WriteString(w, `{"state":"`+x.states[min(n, len(x.states)-1)]+`"}`)
			n++
		}))
		w := gateway.Worker{ID: "c1", Addr: worker.Listener.Addr().String(), Interface: gateway.Supervisor}
		err := c.AwaitInit(t.Context(), w)
		if x.fails {
			require.ErrorContains(t, err, "its init has failed", x.states)
		} else {
			require.NoError(t, err, x.states)
		}
		assert.Equal(t, len(x.states), n)
		worker.Close()
		require.Error(t, c.AwaitInit(t.Context(), w), "it is gone")
		w.Interface = gateway.RIE
		require.NoError(t, c.AwaitInit(t.Context(), w), "RIE has no state to tell")
	}
}

func TestClient_Errors_AreTheGateways(t *testing.T) {
	for _, tc := range []struct {
		code      codes.Code
		want      gateway.Code
		permanent bool
	}{
		{codes.FailedPrecondition, gateway.CodeUnavailable, true},
		{codes.InvalidArgument, gateway.CodeUnavailable, true},
		{codes.Unavailable, gateway.CodeUnavailable, false},
		{codes.ResourceExhausted, gateway.CodeUnavailable, false},
		{codes.DeadlineExceeded, gateway.CodeUnavailable, false},
		{codes.Internal, gateway.CodeUnavailable, false},
		{codes.Canceled, gateway.CodeCanceled, false},
	} {
		t.Run(tc.code.String(), func(t *testing.T) {
			c, _ := mustDial(t, &fakeAgent{err: status.Error(tc.code, "image esb/echo:latest cannot be had")})
			_, err := c.Start(t.Context(), echo, false, "")
			var e *gateway.Error
			require.ErrorAs(t, err, &e)
			assert.Equal(t, tc.want, e.Code)
			assert.Equal(t, tc.permanent, e.Permanent)
			assert.Contains(t, e.Message, "image esb/echo:latest cannot be had")
			_, err = c.List(t.Context())
			assert.Equal(t, tc.want, gateway.ErrorCode(err))
			assert.Equal(t, tc.want, gateway.ErrorCode(c.Stop(t.Context(), "c1", 0, "test")))
		})
	}
}

func TestClient_Start_RefusesAnAnswerWithoutAddress(t *testing.T) {
	for _, info := range []*agentv1.WorkerInfo{{}, {Id: "c", IpAddress: "nowhere", Port: 1}, {Id: "c", IpAddress: "10.0.0.1"}, {Id: "c", IpAddress: "10.0.0.1", Port: 70000}} {
		c, _ := mustDial(t, &fakeAgent{info: info})
		_, err := c.Start(t.Context(), echo, false, "")
		assert.Equal(t, gateway.CodeUnavailable, gateway.ErrorCode(err))
	}
}

func TestClient_Stop_OfAContainerThatIsGoneIsNoError(t *testing.T) {
	a := &fakeAgent{}
	c, _ := mustDial(t, a)
	require.NoError(t, c.Stop(t.Context(), "c1", 1500*time.Millisecond, "idle"))
	assert.Equal(t, uint32(2), a.destroyed.GetGraceSeconds())
	assert.Equal(t, "idle", a.destroyed.GetReason())
	a.err = status.Error(codes.NotFound, "no such container")
	require.NoError(t, c.Stop(t.Context(), "c1", 0, "idle"))
}

func TestClient_List_ReturnsWhatIsObserved(t *testing.T) {
	made := time.Date(2026, 11, 22, 7, 0, 0, 0, time.UTC)
	a := &fakeAgent{list: []*agentv1.ContainerInfo{
		{ContainerId: "a", ContainerName: "lambda-f-a", FunctionName: "f", Status: agentv1.ContainerStatus_STOPPED, CreatedAt: timestamppb.New(made),
			IpAddress: "10.88.0.2", Port: 27182, Generation: "g", ImageDigest: "sha256:1", Owner: "me", OwnerSilentSeconds: 3,
			RuntimeInterface: agentv1.RuntimeInterface_RUNTIME_INTERFACE_SUPERVISOR, Standby: true},
		{ContainerId: "b", FunctionName: "f", Status: agentv1.ContainerStatus_PAUSED, CreatedAt: timestamppb.New(made), IpAddress: "10.88.0.3", Port: 8080,
			RuntimeInterface: agentv1.RuntimeInterface_RUNTIME_INTERFACE_RIE},
	}}
	c, _ := mustDial(t, a, agentclient.WithOwner("me"))
	list, err := c.List(t.Context())
	require.NoError(t, err)
	assert.Equal(t, "me", a.owner, "the call is a sign of life")
	assert.Equal(t, []pool.Observed{
		{ID: "a", Name: "lambda-f-a", Function: "f", CreatedAt: made, Stopped: true, Owner: "me", OwnerSilent: 3 * time.Second,
			Addr: "10.88.0.2:27182", Generation: "g", ImageDigest: "sha256:1", Interface: gateway.Supervisor, Standby: true},
		{ID: "b", Function: "f", CreatedAt: made, Frozen: true, Addr: "10.88.0.3:8080", Interface: gateway.RIE},
	}, list)
}

func TestClient_Health(t *testing.T) {
	c, h := mustDial(t, &fakeAgent{})
	require.NoError(t, c.Health(t.Context()))
	h.SetServingStatus("", healthv1.HealthCheckResponse_NOT_SERVING)
	assert.Equal(t, gateway.CodeUnavailable, gateway.ErrorCode(c.Health(t.Context())))
}

func TestClient_AgentRestarts_TheNextStartWorks(t *testing.T) {
	a := &fakeAgent{info: &agentv1.WorkerInfo{Id: "c1", IpAddress: "10.88.0.5", Port: 8080}}
	var lis atomic.Pointer[bufconn.Listener]
	lis.Store(bufconn.Listen(1 << 20))
	_, stop := serve(t, a, lis.Load())
	c, err := agentclient.Dial("agent:50051", agentclient.WithDialer(func(ctx context.Context, _ string) (net.Conn, error) { return lis.Load().DialContext(ctx) }))
	require.NoError(t, err)
	defer func() { assert.NoError(t, c.Close()) }()
	_, err = c.Start(t.Context(), echo, false, "")
	require.NoError(t, err)

	stop()
	began := time.Now()
	_, err = c.Start(t.Context(), echo, false, "")
	assert.Equal(t, gateway.CodeUnavailable, gateway.ErrorCode(err))
	assert.Less(t, time.Since(began), 30*time.Second, "an agent that is down is told of soon")

	lis.Store(bufconn.Listen(1 << 20))
	serve(t, a, lis.Load())
	require.Eventually(t, func() bool {
		_, err := c.Start(t.Context(), echo, false, "")
		return err == nil
	}, 30*time.Second, 10*time.Millisecond)
}

func TestDial_RefusesWhatCannotWork(t *testing.T) {
	dir := t.TempDir()
	bad := filepath.Join(dir, "bad.pem")
	require.NoError(t, os.WriteFile(bad, []byte("no PEM"), 0o600))
	cert, key := writeCert(t, dir)
	for name, tc := range map[string]struct {
		addr string
		opts []agentclient.Option
		want string
	}{
		"no port":             {"127.0.0.1", nil, "host:port"},
		"plain text over LAN": {"192.0.2.1:50051", nil, "not loopback"},
		"certificate missing": {"192.0.2.1:50051", []agentclient.Option{agentclient.WithMutualTLS(filepath.Join(dir, "none.pem"), key, cert)}, "none.pem"},
		"CA missing":          {"192.0.2.1:50051", []agentclient.Option{agentclient.WithMutualTLS(cert, key, filepath.Join(dir, "none.pem"))}, "none.pem"},
		"CA is no PEM":        {"192.0.2.1:50051", []agentclient.Option{agentclient.WithMutualTLS(cert, key, bad)}, "bad.pem"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := agentclient.Dial(tc.addr, tc.opts...)
			assert.ErrorContains(t, err, tc.want)
		})
	}
}

func TestDial_MutualTLS_BothSidesProveThemselves(t *testing.T) {
	cert, key := writeCert(t, t.TempDir())
	pair, err := tls.LoadX509KeyPair(cert, key)
	require.NoError(t, err)
	ca := x509.NewCertPool()
	pemBytes, err := os.ReadFile(cert)
	require.NoError(t, err)
	require.True(t, ca.AppendCertsFromPEM(pemBytes))
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	serve(t, &fakeAgent{}, lis, grpc.Creds(credentials.NewTLS(&tls.Config{
		Certificates: []tls.Certificate{pair}, ClientCAs: ca, ClientAuth: tls.RequireAndVerifyClientCert, MinVersion: tls.VersionTLS13,
	})))

	c, err := agentclient.Dial(lis.Addr().String(), agentclient.WithMutualTLS(cert, key, cert))
	require.NoError(t, err)
	defer func() { assert.NoError(t, c.Close()) }()
	require.NoError(t, c.Health(t.Context()))

	plain, err := agentclient.Dial(lis.Addr().String())
	require.NoError(t, err)
	defer func() { assert.NoError(t, plain.Close()) }()
	assert.Error(t, plain.Health(t.Context()))
}

// writeCert writes a self-signed certificate for 127.0.0.1 and its key.
func writeCert(t *testing.T, dir string) (certFile, keyFile string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	require.NoError(t, err)
	keyDER, err := x509.MarshalECPrivateKey(key)
	require.NoError(t, err)
	certFile, keyFile = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	require.NoError(t, os.WriteFile(certFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600))
	require.NoError(t, os.WriteFile(keyFile, pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: keyDER}), 0o600))
	return certFile, keyFile
}

func TestClient_Start_KnowsTheAgentsReason(t *testing.T) {
	detailed, err := status.New(codes.FailedPrecondition, "image i cannot be had").WithDetails(
		&errdetails.ErrorInfo{Reason: "image_missing", Domain: "esb-runtime"})
	require.NoError(t, err)
	for want, failure := range map[reason.Reason]error{reason.ImageMissing: detailed.Err(), "": status.Error(codes.Internal, "x")} {
		c, _ := mustDial(t, &fakeAgent{err: failure})
		_, err = c.Start(t.Context(), echo, false, "req-1")
		var known *gateway.Error
		require.ErrorAs(t, err, &known)
		assert.Equal(t, want, known.Reason)
		assert.Equal(t, want != "", known.Permanent)
	}
}

func TestClient_Watch_TellsOfExitsAndShortages(t *testing.T) {
	a := &fakeAgent{
		exits: []*agentv1.WatchContainersResponse{
			{}, {ContainerId: "c1", FunctionName: "f"}, {ContainerId: "c2", FunctionName: "g", Oom: true},
			{MemoryShortage: &agentv1.MemoryShortage{Bytes: 5, Machine: true}}, {MemoryShortage: &agentv1.MemoryShortage{}},
		},
		err: status.Error(codes.ResourceExhausted, "too slow"),
	}
	c, _ := mustDial(t, a)
	var told []string
	err := c.Watch(t.Context(), func() { told = append(told, "begun") }, func(function, id string, oom bool) {
		told = append(told, fmt.Sprint(function, " ", id, " ", oom))
	}, func(s pool.Shortage) { told = append(told, fmt.Sprint("short ", s.Bytes, s.Machine)) })
	require.ErrorContains(t, err, "too slow")
	assert.Equal(t, []string{"begun", "f c1 false", "g c2 true", "short 5 true", "short 0 false"}, told)
}

func (a *fakeAgent) WatchCPU(_ *agentv1.WatchCPURequest, stream grpc.ServerStreamingServer[agentv1.WatchCPUResponse]) error {
	if err := stream.Send(&agentv1.WatchCPUResponse{Cpus: 4, Functions: 0.75, Runnable: 9.5}); err != nil {
		return err
	}
	return a.err
}

func TestClient_WatchCPU_TellsReadings(t *testing.T) {
	c, _ := mustDial(t, &fakeAgent{err: status.Error(codes.FailedPrecondition, "no figures")})
	var told []cpugate.Load
	err := c.WatchCPU(t.Context(), func(l cpugate.Load) { told = append(told, l) })
	require.ErrorContains(t, err, "no figures")
	assert.Equal(t, []cpugate.Load{{CPUs: 4, Functions: 0.75, Runnable: 9.5}}, told)
}

func TestClient_ImageVersions_LeavesOutWhatIsNotThere(t *testing.T) {
	a := &fakeAgent{versions: []*agentv1.ImageVersion{
		{Image: &agentv1.ImageReference{Image: "a:1"}, Digest: "sha256:a"}, {Image: &agentv1.ImageReference{Image: "b:1"}},
		{Image: &agentv1.ImageReference{Runtime: "python3.11"}, Digest: "sha256:p"},
		{Image: &agentv1.ImageReference{Image: "c:1", AskRegistry: true}, Digest: "sha256:c"},
	}}
	c, _ := mustDial(t, a)
	asked := []gateway.ImageReference{{Image: "a:1"}, {Image: "b:1"}, {Runtime: "python3.11"}, {Image: "c:1", AskRegistry: true}}
	got, err := c.ImageVersions(t.Context(), asked)
	require.NoError(t, err)
	assert.Equal(t, map[gateway.ImageReference]string{{Image: "a:1"}: "sha256:a", {Runtime: "python3.11"}: "sha256:p", {Image: "c:1", AskRegistry: true}: "sha256:c"}, got)
	require.Len(t, a.asked, len(asked))
	for i, ref := range a.asked {
		assert.Equal(t, asked[i].AskRegistry, ref.GetAskRegistry())
	}
}

// TestClient_Freeze_AsksTheWorkerWithoutAProxy: the environment's proxy is for the outside, and would keep every function from
// being frozen.
func TestClient_Freeze_AsksTheWorkerWithoutAProxy(t *testing.T) {
	c, _ := mustDial(t, &fakeAgent{})
	ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	// Of TEST-NET-1: nothing answers there, and no proxy is needed to find that out.
	_, err := c.Freeze(ctx, gateway.Worker{ID: "c1", Addr: "192.0.2.1:8080", Interface: gateway.Supervisor})
	require.Error(t, err)
	assert.Zero(t, proxied.Load(), "the environment's proxy was asked")
}

// TestClient_Start_TellsTheKindOfReason: the agent's, when it says one that is known, else that of the status.
func TestClient_Start_TellsTheKindOfReason(t *testing.T) {
	with := func(code codes.Code, domain, reason string) error {
		st, err := status.New(code, "x").WithDetails(&errdetails.ErrorInfo{Domain: domain, Reason: reason})
		require.NoError(t, err)
		return st.Err()
	}
	const domain = "esb-runtime"
	for name, c := range map[string]struct {
		err       error
		want      reason.Reason
		permanent bool
	}{
		"registry away":    {with(codes.FailedPrecondition, domain, "registry_away"), reason.RegistryAway, false},
		"code changing":    {with(codes.Unavailable, domain, "code_changing"), reason.CodeChanging, false},
		"runtime invalid":  {with(codes.InvalidArgument, domain, "runtime_invalid"), reason.RuntimeInvalid, true},
		"nobody's reason":  {with(codes.FailedPrecondition, domain, "weather"), "", true},
		"another's reason": {with(codes.Unavailable, "other", "image_missing"), reason.AgentAway, false},
		"no room":          {status.Error(codes.ResourceExhausted, "x"), reason.Exhausted, false},
		"not in time":      {status.Error(codes.DeadlineExceeded, "x"), reason.Slow, false},
		"bad field":        {status.Error(codes.InvalidArgument, "x"), reason.Configuration, true},
		"internal":         {status.Error(codes.Internal, "x"), "", false},
	} {
		t.Run(name, func(t *testing.T) {
			client, _ := mustDial(t, &fakeAgent{err: c.err})
			_, err := client.Start(t.Context(), echo, false, "r")
			var known *gateway.Error
			require.ErrorAs(t, err, &known)
			assert.Equal(t, c.want, known.Reason)
			assert.Equal(t, c.permanent, known.Permanent)
		})
	}
	unseen := *echo
	unseen.Image, unseen.Code = "", &gateway.FunctionCode{Source: gateway.CodeSource{Location: "s3://b/k", Problem: reason.CodeMissing}}
	client, _ := mustDial(t, &fakeAgent{})
	_, err := client.Start(t.Context(), &unseen, false, "r")
	var known *gateway.Error
	require.ErrorAs(t, err, &known)
	assert.Equal(t, reason.CodeMissing, known.Reason)
	assert.True(t, known.Permanent)
}
