package stack

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"

	agentv1 "github.com/edge-serverless-box/esb/api/esb/agent/v1"
	"github.com/edge-serverless-box/esb/guard/freeport"
	"github.com/edge-serverless-box/esb/guard/handover"
	"github.com/edge-serverless-box/esb/guard/listen"
	"github.com/edge-serverless-box/esb/guard/secretfile"
	"github.com/edge-serverless-box/esb/native"
	"github.com/edge-serverless-box/esb/native/console"
	"github.com/edge-serverless-box/esb/native/process"
	"github.com/edge-serverless-box/esb/native/settings"
)

// TestMain plays the services: copies of the test binary are called agent and gateway.
func TestMain(m *testing.M) {
	switch filepath.Base(os.Args[0]) {
	case native.Agent:
		playAgent()
	case native.Gateway:
		playGateway()
	default:
		os.Exit(m.Run())
	}
}

func playAgent() {
	if len(os.Args) > 1 && os.Args[1] == "purge" {
		check(os.WriteFile(filepath.Join(os.Getenv("ESB_HOME"), "purged"), nil, 0o644))
		return
	}
	if len(os.Args) > 1 && os.Args[1] == "absent-images" {
		switch os.Getenv("ESB_PLAY_GATEWAY") {
		case "no archive":
			fmt.Fprintln(os.Stderr, "image archive f.tar: not a whole tar file")
			os.Exit(3)
		case "older agent":
			fmt.Fprintf(os.Stderr, "agent: usage: agent [purge|health [-end]], got %q\n", os.Args[1:])
			os.Exit(1)
		case "agent refuses":
			fmt.Fprintln(os.Stderr, "agent: FUNCTION_CPU_WEIGHT: boom")
			os.Exit(1)
		}
		fmt.Println(os.Args[2])
		return
	}
	_ = os.Remove(os.Getenv("AGENT_SOCKET")) // an agent that was killed leaves it
	ln, err := net.Listen("unix", os.Getenv("AGENT_SOCKET"))
	check(err)
	server := grpc.NewServer()
	grpc_health_v1.RegisterHealthServer(server, health.NewServer())
	agentv1.RegisterAgentServiceServer(server, played{})
	check(server.Serve(ln))
}

// played is an agent with one container.
type played struct {
	agentv1.UnimplementedAgentServiceServer
}

func (played) ListContainers(context.Context, *agentv1.ListContainersRequest) (*agentv1.ListContainersResponse, error) {
	return &agentv1.ListContainersResponse{Containers: []*agentv1.ContainerInfo{{
		ContainerId: "c1", ContainerName: "lambda-x-1", FunctionName: "x", Status: agentv1.ContainerStatus_RUNNING, IpAddress: "10.88.0.2", Port: 8080,
	}}}, nil
}

func (played) GetContainerMetrics(context.Context, *agentv1.GetContainerMetricsRequest) (*agentv1.GetContainerMetricsResponse, error) {
	return &agentv1.GetContainerMetricsResponse{MemoryCurrentBytes: 4096}, nil
}

// refusedFile, in the stack's home, makes the played gateway refuse the configuration.
const refusedFile = "refused"

func playGateway() {
	if len(os.Args) > 1 && os.Args[1] == "check" {
		if os.Getenv("ESB_PLAY_GATEWAY") == "fail" {
			fmt.Fprintln(os.Stderr, "gateway: functions.yml:3: boom")
			os.Exit(1)
		}
		if os.Getenv("ESB_PLAY_GATEWAY") == "older gateway" {
			fmt.Fprintf(os.Stderr, "gateway: there is no command %q\n\nWhat an operator asks the gateway that runs here:\n", strings.Join(os.Args[1:], " "))
			os.Exit(2)
		}
		if os.Getenv("X_API_KEY") == "" {
			fmt.Fprintln(os.Stderr, "gateway: no X_API_KEY")
			os.Exit(1)
		}
		if slices.Contains(os.Args, "-json") {
			fmt.Println(`{"summary":"functions.yml is right","images":[{"place":"functions.yml:2: functions.f.image","image":"f:1"},{"place":"functions.yml:3: functions.g.image","image":"g:1"}]}`)
		}
		return
	}
	switch os.Getenv("ESB_PLAY_GATEWAY") {
	case "fail":
		fmt.Println("functions.yml:3: boom")
		os.Exit(7)
	case "never ready":
		terminated := make(chan os.Signal, 1)
		signal.Notify(terminated, syscall.SIGTERM)
		check(os.WriteFile(filepath.Join(os.Getenv("GATEWAY_HOME"), "waiting"), nil, 0o644))
		<-terminated
		return
	}
	token, err := secretfile.Open(filepath.Join(os.Getenv("GATEWAY_HOME"), "admin-token"))
	check(err)
	http.HandleFunc("/readyz", func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer "+token {
			w.WriteHeader(http.StatusUnauthorized)
		}
		if _, err := os.Stat(filepath.Join(os.Getenv("ESB_HOME"), "stores")); err != nil && os.Getenv("ESB_PLAY_GATEWAY") == "lacks stores" {
			w.WriteHeader(http.StatusServiceUnavailable)
			_, _ = io.WriteString(w, `{"dependencies":{"agent":{"status":"ok"},"s3":{"status":"down","error":"connection refused"}}}`)
			return
		}
		_, _ = io.WriteString(w, "ok")
	})
	refused := func() bool {
		_, err := os.Stat(filepath.Join(os.Getenv("ESB_HOME"), refusedFile))
		return err == nil
	}
	http.HandleFunc("/configuration", func(w http.ResponseWriter, _ *http.Request) {
		if refused() {
			_, _ = io.WriteString(w, `{"status":"refused","refused_at":"2026-11-22T12:00:00Z","problems":["functions.yml:3: boom","functions.yml:4: bang"]}`)
			return
		}
		_, _ = io.WriteString(w, `{"status":"ok"}`)
	})
	http.HandleFunc("/reload", func(w http.ResponseWriter, _ *http.Request) {
		if refused() {
			w.WriteHeader(http.StatusUnprocessableEntity)
			_, _ = io.WriteString(w, `{"status":"refused","problems":["functions.yml:3: boom"]}`)
			return
		}
		_, _ = io.WriteString(w, `{"status":"ok"}`)
	})
	http.HandleFunc("/pools", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, `{"pools":[{"function":"x","idle":1},{"function":"y","error":"its code at /srv/y cannot be looked at"}]}`)
	})
	if strings.HasPrefix(os.Getenv("ESB_PLAY_GATEWAY"), "offers") {
		playOffer()
		return
	}
	check(http.ListenAndServe(os.Getenv("GATEWAY_ADMIN_ADDR"), nil)) //nolint:gosec // a test's server
}

// playOffer serves and offers its sockets, as a gateway does.
func playOffer() {
	home := os.Getenv("GATEWAY_HOME")
	if os.Getenv("GATEWAY_REPLACES") != "" {
		check(errors.New("nobody is there to be replaced"))
	}
	before, err := handover.Inherited(os.Getenv("GATEWAY_SOCKETS"))
	check(err)
	sockets := map[string]net.Listener{}
	for _, setting := range []string{"GATEWAY_ADMIN_ADDR", "GATEWAY_HTTPS_ADDR"} {
		name := listen.Name(setting, os.Getenv(setting))
		if sockets[name] = before.Socket(name); sockets[name] == nil {
			sockets[name], err = listen.One(context.Background(), setting, os.Getenv(setting))
			check(err)
		}
	}
	check(before.Close())
	_, err = handover.Open(home, func() map[string]net.Listener { return sockets }, slog.New(slog.DiscardHandler))
	check(err)
	for _, l := range sockets {
		go func() { check(http.Serve(l, nil)) }() //nolint:gosec // a test's server
	}
	select {}
}

func check(err error) {
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
}

// box is a stack whose services are played by this test binary.
type box struct {
	*Stack
	out *bytes.Buffer
}

func mustOpen(t *testing.T) *box {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("listing network links and firewall tables needs root")
	}
	home := t.TempDir()
	bin := filepath.Join(home, "bin")
	require.NoError(t, os.MkdirAll(filepath.Join(bin, ".stamps"), 0o755))
	self, err := os.Executable()
	require.NoError(t, err)
	program, err := os.ReadFile(self)
	require.NoError(t, err)
	for _, name := range []string{native.Agent, native.Gateway} {
		require.NoError(t, os.WriteFile(filepath.Join(bin, name), program, 0o755))
	}
	for _, name := range []string{"agent", "gateway", "containerd", "runc", "cni-plugins"} {
		require.NoError(t, os.WriteFile(filepath.Join(bin, ".stamps", name), []byte("1"), 0o644))
	}
	suffix := make([]byte, 3)
	_, err = rand.Read(suffix)
	require.NoError(t, err)
	run, err := os.MkdirTemp("", "esb-run-") // short, as a socket's path has to be
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, os.RemoveAll(run)) })
	vars := map[string]string{
		"ESB_HOME": home, "ESB_RUN_DIR": run, "ESB_BIN_DIR": bin, "ESB_BRIDGE": "esbu" + hex.EncodeToString(suffix),
		"GATEWAY_HTTPS_ADDR": freeAddr(t), "GATEWAY_HTTP_ADDR": "off", "GATEWAY_ADMIN_ADDR": freeAddr(t), "AGENT_GRPC_ADDR": freeAddr(t),
	}
	vars["ESB_STORES"] = "off"
	s, err := settings.Load(func(name string) string { return vars[name] }, home)
	require.NoError(t, err)
	out := &bytes.Buffer{}
	b := &box{Stack: New(s, nil, console.New(out)), out: out}
	t.Cleanup(func() {
		for _, service := range b.services() {
			if r, alive, _ := b.running(service); alive {
				_ = r.Signal(syscall.SIGKILL)
			}
		}
	})
	return b
}

func freeAddr(t *testing.T) string {
	t.Helper()
	ports, err := freeport.Find(1)
	require.NoError(t, err)
	return fmt.Sprintf("127.0.0.1:%d", ports[0])
}

func (b *box) pids(t *testing.T) [2]int {
	t.Helper()
	var pids [2]int
	for i, service := range b.services() {
		r, alive, err := b.running(service)
		require.NoError(t, err)
		if alive {
			pids[i] = r.PID
		}
	}
	return pids
}

func (b *box) play(gateway string) { b.environ = []string{"ESB_PLAY_GATEWAY=" + gateway} }

func TestStart_SecondTime_LeavesTheServicesAlone(t *testing.T) {
	b := mustOpen(t)
	require.NoError(t, b.start(t.Context()), b.out)
	first := b.pids(t)
	status, err := b.Status(t.Context())
	require.NoError(t, err)
	assert.Equal(t, native.Healthy, status.State)
	assert.Equal(t, first, [2]int{status.Services[0].PID, status.Services[1].PID})
	require.Len(t, status.Containers, 1)
	assert.Equal(t, "10.88.0.2:8080", status.Containers[0].Address)
	assert.Equal(t, uint64(4096), status.Containers[0].MemoryBytes)
	require.NoError(t, b.start(t.Context()), b.out)
	assert.Equal(t, first, b.pids(t))
	assert.Contains(t, b.out.String(), "gateway is up already")
}

func TestStart_SettingOrProgramHasChanged_RestartsThatService(t *testing.T) {
	b := mustOpen(t)
	require.NoError(t, b.start(t.Context()), b.out)
	first := b.pids(t)
	require.NoError(t, os.WriteFile(filepath.Join(b.settings.BinDir, ".stamps", "gateway"), []byte("2"), 0o644))
	require.NoError(t, b.start(t.Context()), b.out)
	second := b.pids(t)
	assert.Equal(t, first[0], second[0], "the agent's program is the same")
	assert.NotEqual(t, first[1], second[1])
	b.environ = []string{"LOG_LEVEL=DEBUG", "TERM=dumb"}
	require.NoError(t, b.start(t.Context()), b.out)
	third := b.pids(t)
	assert.NotEqual(t, second[0], third[0])
	b.environ = []string{"LOG_LEVEL=DEBUG", "TERM=xterm"}
	require.NoError(t, b.start(t.Context()), b.out)
	assert.Equal(t, third, b.pids(t), "another terminal is no other setting")
	b.environ = append(b.environ, "CIRCUIT_BREAKER_FAILURES=7", "ASYNC_MAX_MB=8")
	require.NoError(t, b.start(t.Context()), b.out)
	fourth := b.pids(t)
	assert.Equal(t, third[0], fourth[0], "the agent does not read them")
	assert.NotEqual(t, third[1], fourth[1])
	b.environ = append(b.environ, "CODE_CACHE_MB=100", "S3_ENCRYPTED_DISK=true")
	require.NoError(t, b.start(t.Context()), b.out)
	assert.NotEqual(t, fourth[0], b.pids(t)[0])
	assert.Equal(t, fourth[1], b.pids(t)[1], "the gateway does not read them")
}

// A killed gateway leaves the socket of its offer, and one of before there were offers does not take it away.
func TestStart_StaleOffer_TheGatewayIsStoppedAndStarted(t *testing.T) {
	b := mustOpen(t)
	require.NoError(t, b.start(t.Context()), b.out)
	left, err := net.ListenUnix("unixpacket", &net.UnixAddr{Net: "unixpacket", Name: filepath.Join(b.settings.ServiceHome(native.Gateway), "handover")})
	require.NoError(t, err)
	left.SetUnlinkOnClose(false)
	require.NoError(t, left.Close())
	before := b.pids(t)[1]
	b.play("offers") // which refuses to take the place of nobody
	b.environ = append(b.environ, "CIRCUIT_BREAKER_FAILURES=7")
	require.NoError(t, b.start(t.Context()), b.out)
	assert.NotEqual(t, before, b.pids(t)[1])
}

func TestStart_GatewayDies_StopsWhatItStartedAndShowsTheLog(t *testing.T) {
	b := mustOpen(t)
	b.play("fail")
	err := b.start(t.Context())
	require.Len(t, native.Problems(err), 1)
	assert.ErrorContains(t, err, "exit status 7")
	assert.ErrorContains(t, err, "functions.yml:3: boom")
	assert.Equal(t, [2]int{}, b.pids(t))
	assert.FileExists(t, filepath.Join(b.settings.Home, "purged"), "the agent's network must go too")
	record, err := Recorded(b.settings.Home)
	require.NoError(t, err)
	assert.Nil(t, record)
}

func TestStart_GatewayDies_LeavesAnAgentAloneThatWasUp(t *testing.T) {
	b := mustOpen(t)
	require.NoError(t, b.start(t.Context()), b.out)
	agent := b.pids(t)[0]
	b.play("fail")
	b.environ = append(b.environ, "CIRCUIT_BREAKER_FAILURES=7")
	gateway := b.pids(t)[1]
	require.ErrorContains(t, b.start(t.Context()), "functions.yml:3: boom")
	assert.Equal(t, [2]int{agent, gateway}, b.pids(t), "nor is a gateway that serves given up for one that would not start")
	assert.NoFileExists(t, filepath.Join(b.settings.Home, "purged"))
}

func TestStart_ContextEndsWhileItWaits_LeavesNothing(t *testing.T) {
	b := mustOpen(t)
	b.play("never ready")
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- b.start(ctx) }()
	require.Eventually(t, func() bool {
		_, err := os.Stat(filepath.Join(b.settings.ServiceHome(native.Gateway), "waiting"))
		return err == nil
	}, time.Minute, 10*time.Millisecond)
	cancel()
	require.ErrorIs(t, <-done, context.Canceled)
	assert.Equal(t, [2]int{}, b.pids(t))
	assert.FileExists(t, filepath.Join(b.settings.Home, "purged"))
}

// A second `up` says that the files are not what the box serves.
func TestUp_RefusedConfiguration_SaysSo(t *testing.T) {
	b := mustOpen(t)
	require.NoError(t, b.start(t.Context()), b.out)
	require.NoError(t, b.served(t.Context()))
	require.NoError(t, os.WriteFile(filepath.Join(b.settings.Home, refusedFile), nil, 0o600))
	require.ErrorContains(t, b.served(t.Context()), "functions.yml:3: boom", "a gateway that was just started may serve what was kept")
	require.NoError(t, b.start(t.Context()), b.out)
	err := b.served(t.Context())
	require.Len(t, native.Problems(err), 1)
	assert.ErrorContains(t, err, "functions.yml:3: boom")
	status, err := b.Status(t.Context())
	require.NoError(t, err)
	assert.Equal(t, native.Healthy, status.State, "it serves")
	assert.True(t, status.Configuration.Refused)
	assert.Equal(t, []string{"functions.yml:3: boom", "functions.yml:4: bang"}, status.Configuration.Problems)
	assert.Equal(t, []native.Function{{Name: "x", Idle: 1}, {Name: "y", Error: "its code at /srv/y cannot be looked at"}}, status.Functions)

	require.NoError(t, os.Remove(filepath.Join(b.settings.Home, refusedFile)))
	require.NoError(t, b.served(t.Context()))
	status, err = b.Status(t.Context())
	require.NoError(t, err)
	assert.Equal(t, native.Configuration{}, status.Configuration)
}

func TestCheck_SaysWhatIsWrong_BeforeTheFirstUp(t *testing.T) {
	b := mustOpen(t)
	b.environ = append(b.environ, "GATWAY_HTTP_ADDR=:1")
	require.NoError(t, os.MkdirAll(b.settings.ImagesDir, 0o755))
	require.NoError(t, b.Check(t.Context()))
	assert.Contains(t, b.out.String(), "functions.yml is right")
	assert.Contains(t, b.out.String(), "note: GATWAY_HTTP_ADDR is set and is no setting: did you mean GATEWAY_HTTP_ADDR?")
	assert.Contains(t, b.out.String(), "note: functions.yml:2: functions.f.image: no archive in "+b.settings.ImagesDir+" has f:1")
	assert.NotContains(t, b.out.String(), "g:1")
	assert.NoFileExists(t, b.settings.SecretsFile(), "it makes nothing")
	b.play("no archive")
	assert.ErrorContains(t, b.Check(t.Context()), "not a whole tar file")
	b.play("agent refuses")
	refused := native.Problems(b.Check(t.Context()))
	require.Len(t, refused, 1)
	assert.Contains(t, refused[0].What, "the settings of the agent have mistakes:\n      FUNCTION_CPU_WEIGHT: boom")
	assert.NotContains(t, refused[0].Do, b.settings.ImagesDir, "no archive is to blame")
	for _, program := range []string{native.Agent, native.Gateway} { // after `git pull`, for example
		b.play("older " + program)
		problems := native.Problems(b.Check(t.Context()))
		require.Len(t, problems, 1)
		assert.Contains(t, problems[0].What, filepath.Join(b.settings.BinDir, program)+" is older than this esb")
		assert.Contains(t, problems[0].Do, "esb build services")
	}
	b.play("fail")
	err := b.Check(t.Context())
	require.Len(t, native.Problems(err), 1)
	assert.ErrorContains(t, err, "functions.yml:3: boom")
	require.NoError(t, os.Remove(filepath.Join(b.settings.BinDir, native.Gateway)))
	assert.ErrorContains(t, b.Check(t.Context()), "there is no ")
}

func TestDown_PidFilesAreLost_FindsTheProcesses(t *testing.T) {
	b := mustOpen(t)
	require.NoError(t, b.start(t.Context()), b.out)
	var records []process.Record
	for _, service := range b.services() {
		r, err := process.Read(b.pidFile(service))
		require.NoError(t, err)
		records = append(records, r)
		require.NoError(t, os.Remove(b.pidFile(service)))
	}
	require.NoError(t, b.Down(t.Context()), b.out)
	for _, r := range records {
		assert.False(t, r.Alive())
	}
	assert.FileExists(t, filepath.Join(b.settings.Home, "purged"))
	b.out.Reset()
	require.NoError(t, b.Down(t.Context()))
	assert.Contains(t, b.out.String(), "nothing is up")
}

func TestStart_PidFileDamaged_FindsTheProcessAndStartsItAgain(t *testing.T) {
	b := mustOpen(t)
	require.NoError(t, b.start(t.Context()), b.out)
	before := b.pids(t)
	require.NoError(t, os.WriteFile(b.pidFile(native.Agent), nil, 0o644))
	require.NoError(t, b.start(t.Context()), b.out)
	after := b.pids(t)
	assert.NotContains(t, after, before[0])
	assert.NotContains(t, after, 0)
	assert.Equal(t, before[1], after[1], "the gateway has nothing to do with it")
}

func TestUp_SettingsThatMeanNothing_AreNamed(t *testing.T) {
	var out bytes.Buffer
	New(settings.Settings{}, []string{"GATWAY_HTTP_ADDR=:1", "DOCKER_NETWORK=lambda", "GATEWAY_HTTP_ADDR=:2"}, console.New(&out)).sayStrange()
	assert.Contains(t, out.String(), "GATWAY_HTTP_ADDR is set and is no setting: did you mean GATEWAY_HTTP_ADDR?")
	assert.Contains(t, out.String(), "DOCKER_NETWORK is set and means nothing here")
	assert.Equal(t, 2, strings.Count(out.String(), "note:"))
}

func TestUp_AnotherNetworkWhileTheOldOneIsUp_IsRefused(t *testing.T) {
	b := mustOpen(t)
	require.NoError(t, os.MkdirAll(b.settings.RunDir(), 0o700))
	require.NoError(t, b.writeRecord())
	require.NoError(t, b.sameNetwork())
	b.settings.Bridge = "esbother"
	assert.ErrorContains(t, b.sameNetwork(), "ESB_BRIDGE")
}

func TestLogin_PrintsTheBoxsOwnSecretsOnly(t *testing.T) {
	load := func(vars map[string]string) *Stack {
		vars["ESB_HOME"] = t.TempDir()
		s, err := settings.Load(func(name string) string { return vars[name] }, "/src")
		require.NoError(t, err)
		b := New(s, nil, console.New(io.Discard))
		require.NoError(t, b.keepSecrets())
		return b
	}
	made := load(map[string]string{})
	assert.Equal(t, `curl -k -X POST https://localhost/user/auth/ver1.0 -H "x-api-key: `+made.secrets["X_API_KEY"]+`" `+
		`-d '{"AuthParameters":{"USERNAME":"onpremise-user","PASSWORD":"`+made.secrets["AUTH_PASS"]+`"}}'`, made.login("-k"))
	line := load(map[string]string{"X_API_KEY": "k3y", "AUTH_PASS": "pa55"}).login("-k")
	assert.NotContains(t, line, "k3y")
	assert.NotContains(t, line, "pa55")
	assert.Contains(t, line, `-H "x-api-key: $X_API_KEY"`)
	assert.Contains(t, line, `\"PASSWORD\":\"$AUTH_PASS\"`)
}

func TestEnv_ServicesGetTheirSecretsAlone(t *testing.T) {
	vars := map[string]string{"ESB_HOME": t.TempDir(), "AUTH_PASS": "pa55"}
	s, err := settings.Load(func(name string) string { return vars[name] }, "/src")
	require.NoError(t, err)
	b := New(s, []string{"AUTH_PASS=pa55", "X_API_KEY=", "PATH=/bin"}, console.New(io.Discard))
	require.NoError(t, b.keepSecrets())
	for _, c := range []struct {
		service    string
		has, lacks []string
	}{
		{native.Gateway, []string{"AUTH_PASS=pa55", "X_API_KEY=" + b.secrets["X_API_KEY"], "S3_SECRET_KEY=" + b.secrets["S3_SECRET_KEY"]}, []string{"X_API_KEY="}},
		{native.Agent, []string{"S3_SECRET_KEY=" + b.secrets["S3_SECRET_KEY"], "PATH=/bin"}, []string{"AUTH_PASS=pa55", "X_API_KEY=" + b.secrets["X_API_KEY"], "DYNAMODB_SECRET_KEY=" + b.secrets["DYNAMODB_SECRET_KEY"]}},
		{native.Stores, []string{"DYNAMODB_SECRET_KEY=" + b.secrets["DYNAMODB_SECRET_KEY"]}, []string{"AUTH_PASS=pa55", "LAMBDA_ACCESS_KEYS=" + b.secrets["LAMBDA_ACCESS_KEYS"]}},
	} {
		env := b.env(c.service)
		for _, v := range c.has {
			assert.Contains(t, env, v, c.service)
		}
		for _, v := range c.lacks {
			assert.NotContains(t, env, v, c.service)
		}
	}
	require.NoError(t, os.MkdirAll(s.RunDir(), 0o700))
	require.NoError(t, b.writeRecord())
	record, err := os.ReadFile(recordFile(s.Home))
	require.NoError(t, err)
	for name, secret := range b.secrets {
		assert.NotContains(t, string(record), secret, name)
	}
}

func TestPrintStatus_ShowsServicesAndContainers(t *testing.T) {
	now := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	var out strings.Builder
	require.NoError(t, PrintStatus(&out, native.Status{
		State: native.Unhealthy, URLs: []string{"https://localhost"},
		Services: []native.Service{
			{Name: "agent", State: native.Healthy, PID: 12, Since: now.Add(-90 * time.Second)},
			{Name: "gateway", State: native.Unhealthy, PID: 13, Since: now.Add(-3 * time.Hour), Reason: "no agent"},
			{Name: "db", State: native.NotAvailable, Reason: "made for amd64 only"},
		},
		Containers: []native.Container{{
			Name: "lambda-x-1", Function: "x", Address: "10.88.0.2:8080", State: "RUNNING", Created: now.Add(-50 * time.Hour), MemoryBytes: 3 << 20,
		}},
		Functions:     []native.Function{{Name: "x", Idle: 1}, {Name: "y", Error: "no image\nof that name"}, {Name: "z", Idle: 1, Outdated: 1, Error: "its init has failed"}},
		Configuration: native.Configuration{Refused: true, RefusedAt: now, Problems: []string{"functions.yml:3: boom"}},
	}, now))
	for _, want := range []string{"warm", "failing", "outdated", "its init has failed", "no image of that name", "REFUSED: ", "  functions.yml:3: boom\n", "1m30s", "3h00m", "no agent", "https://localhost", "10.88.0.2:8080", "2d02h", "3.0 MiB", "not available", "made for amd64 only"} {
		assert.Contains(t, out.String(), want)
	}
}
