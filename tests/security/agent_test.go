package security

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	reflectionpb "google.golang.org/grpc/reflection/grpc_reflection_v1"

	"github.com/edge-serverless-box/esb/api/codeversion"
	agentv1 "github.com/edge-serverless-box/esb/api/esb/agent/v1"
	"github.com/edge-serverless-box/esb/guard/bearer"
	"github.com/edge-serverless-box/esb/guard/ownthread"
	"github.com/edge-serverless-box/esb/tests/stack"
)

// denied is an address of the network that the box's functions may not reach.
const denied = "198.18.44.44"

// A /28 has 13 addresses for functions, so that one is used again after as many starts.
func TestFunctions_OneAnothersAddress_NeverAnswerForOneAnother(t *testing.T) {
	const others = 13
	home := t.TempDir()
	root, err := stack.RepositoryRoot()
	require.NoError(t, err)
	shell := os.DirFS(filepath.Join(root, "tests", "security", "testdata", "shell"))
	functions := "defaults: {scaling: {min_capacity: 0, max_capacity: 1, idle_timeout: 600, acquire_timeout: 20}}\nfunctions:\n"
	routes := "routes:\n"
	for n := range others + 1 {
		name := fmt.Sprintf("f%d", n)
		require.NoError(t, os.CopyFS(filepath.Join(home, name), shell))
		functions += fmt.Sprintf("  %s: {code: ./%[1]s, runtime: python3.11, handler: app.handler, timeout: 10}\n", name)
		routes += fmt.Sprintf("  - {path: /%s, method: POST, function: %[1]s, auth: none}\n", name)
	}
	for name, text := range map[string]string{"functions.yml": functions, "routing.yml": routes, "resources.yml": "{}\n"} {
		require.NoError(t, os.WriteFile(filepath.Join(home, name), []byte(text), 0o644))
	}
	small, err := stack.Prepare(home, stack.Options{
		FunctionsConfig: filepath.Join(home, "functions.yml"), RoutingConfig: filepath.Join(home, "routing.yml"),
		ResourcesConfig: filepath.Join(home, "resources.yml"), SubnetBits: 28,
		// The gateway is to find out by itself, not by its agent's list. Every address is a function's.
		Env: []string{"NETWORK_POOL_SIZE=0", "PARKED_SANDBOXES=0", "HEARTBEAT_INTERVAL=600", "ESB_STORES=off"},
	})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, small.Down()) })
	require.NoError(t, small.Up(t.Context()))

	// call returns which function answered, and the address of its container.
	call := func(n int) (function, address string) {
		answer := small.Post(t, fmt.Sprintf("/f%d", n), "", `result = [context.function_name, open("/etc/hosts").read()]`)
		require.Equal(t, http.StatusOK, answer.Status, "f%d: %s", n, answer.Body)
		var got struct{ Result []string }
		require.NoError(t, json.Unmarshal(answer.Body, &got), "%s", answer.Body)
		for line := range strings.Lines(got.Result[1]) {
			if fields := strings.Fields(line); len(fields) == 2 && strings.HasPrefix(fields[1], "lambda-") {
				address = fields[0]
			}
		}
		require.NotEmpty(t, address, "%s", answer.Body)
		return got.Result[0], address
	}
	_, address := call(0)
	kill(t, small.Containers(t, "f0")[0].GetContainerId())
	starts := 0
	for n := 1; n <= others; n++ {
		function, theirs := call(n)
		require.Equal(t, fmt.Sprintf("f%d", n), function)
		if starts++; theirs == address {
			break
		}
	}
	attempt(t, function, "get an address soon after another function has lost it", func(t *testing.T) {
		require.Equal(t, others, starts, "it was given out while there were others")
	})
	attempt(t, function, "get another function's requests together with its address", func(t *testing.T) {
		// Room for a new container.
		gone := small.Containers(t, "f1")[0].GetContainerId()
		_, err := small.Agent.DestroyContainer(t.Context(), &agentv1.DestroyContainerRequest{ContainerId: gone, Reason: "test"})
		require.NoError(t, err)
		function, _ := call(0)
		require.Equal(t, "f0", function)
		// The gateway believes that this one has a container too.
		function, _ = call(others)
		require.Equal(t, fmt.Sprintf("f%d", others), function)
	})
}

// outsider is a machine beside the box: a network namespace with addresses that the box has a route to.
type outsider struct{ path string }

// mustOutsider makes one, which ends with the test.
func mustOutsider(t *testing.T, addresses ...string) *outsider {
	t.Helper()
	name := "esbsec" + strconv.Itoa(os.Getpid()%100000)
	ip := func(args ...string) {
		out, err := exec.CommandContext(t.Context(), "ip", args...).CombinedOutput()
		require.NoError(t, err, "ip %s: %s", args, out)
	}
	ip("netns", "add", name)
	t.Cleanup(func() {
		// The box's end goes with the other one.
		out, err := exec.CommandContext(context.Background(), "ip", "netns", "del", name).CombinedOutput()
		require.NoError(t, err, "%s", out)
	})
	ip("link", "add", name, "type", "veth", "peer", "name", "eth0", "netns", name)
	ip("addr", "add", "198.19.45.1/30", "dev", name)
	ip("link", "set", name, "up")
	ip("-n", name, "addr", "add", "198.19.45.2/30", "dev", "eth0")
	ip("-n", name, "link", "set", "eth0", "up")
	ip("-n", name, "link", "set", "lo", "up")
	ip("-n", name, "route", "add", "default", "via", "198.19.45.1")
	for _, a := range addresses {
		ip("-n", name, "addr", "add", a+"/32", "dev", "lo")
		ip("route", "add", a+"/32", "via", "198.19.45.2", "dev", name)
	}
	return &outsider{"/run/netns/" + name}
}

// serve answers HTTP at an address of the machine with a secret, and returns its port.
func (o *outsider) serve(t *testing.T, address string) string {
	t.Helper()
	var l net.Listener
	require.NoError(t, ownthread.Do(func() error {
		fd, err := unix.Open(o.path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err == nil {
			err = unix.Setns(fd, unix.CLONE_NEWNET)
			_ = unix.Close(fd)
		}
		if err == nil {
			l, err = net.Listen("tcp4", address+":0")
		}
		return err
	}))
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "KEYS") }))
	_ = server.Listener.Close()
	server.Listener = l
	server.Start()
	t.Cleanup(server.Close)
	_, port, err := net.SplitHostPort(l.Addr().String())
	require.NoError(t, err)
	return port
}

func TestHostileFunction_ReachesNoMetadataAndNoDeniedNetwork(t *testing.T) {
	const metadata, office, internet = "169.254.44.44", denied, "198.19.46.1"
	o := mustOutsider(t, metadata, office, internet)
	get := func(address string) (url string, status float64) {
		url = "http://" + net.JoinHostPort(address, o.serve(t, address)) + "/"
		answer, err := box.Do(t.Context(), http.MethodGet, url, "", nil)
		require.NoError(t, err)
		require.Equal(t, "KEYS", string(answer.Body), "the box itself reaches it")
		return url, inside(t, "result = request('GET', "+strconv.Quote(url)+", timeout=2)[0]").(float64)
	}
	_, status := get(internet)
	require.Equal(t, float64(http.StatusOK), status, "a function reaches the outside")
	attempt(t, function, "ask a cloud's metadata service for the machine's keys", func(t *testing.T) {
		_, status := get(metadata)
		require.Zero(t, status)
	})
	attempt(t, function, "reach a network that FUNCTION_EGRESS_DENY names", func(t *testing.T) {
		_, status := get(office)
		require.Zero(t, status)
	})
	attempt(t, function, "reach the agent, on whatever address of the box", func(t *testing.T) {
		_, port, err := net.SplitHostPort(box.AgentAddr)
		require.NoError(t, err)
		require.Equal(t, []any{false, false, false}, inside(t, fmt.Sprintf("result = [connects(a, %s, 2) for a in (%q, '127.0.0.1', '198.19.45.1')]", port, box.Box)))
	})
}

// connect is a deed: it opens a TCP connection.
func connect(args []string, out io.Writer) error {
	conn, err := net.DialTimeout("tcp4", args[0], 3*time.Second)
	if err != nil {
		return err
	}
	_, _ = fmt.Fprintln(out, "connected")
	return conn.Close()
}

func TestLocalUser_ReachesNoFunction(t *testing.T) {
	address := inside(t, `
result = [l.split()[0] for l in open("/etc/hosts") if len(l.split()) == 2 and l.split()[1].startswith("lambda-")][0]
`).(string) + ":27182"
	attempt(t, localUser, "call a function past the gateway", func(t *testing.T) {
		out, ok := asNobody(t, "connect", address)
		require.False(t, ok, "%s", out)
		require.Contains(t, out, "refused")
	})
	attempt(t, localUser, "learn anything from a function's worker, as whoever reaches it", func(t *testing.T) {
		for _, path := range []string{"/health", "/2015-03-31/functions/function/invocations"} {
			answer, err := box.Do(t.Context(), http.MethodPost, "http://"+address+path, "", []byte("{}"))
			require.NoError(t, err)
			require.Equal(t, http.StatusMisdirectedRequest, answer.Status)
		}
	})
}

// callAgent is a deed: it calls the agent at a gRPC target (the first argument), with a token unless that is empty (the
// second). What it does (the third) is list, reflect, destroy a container (the fourth) or start one with a folder (the
// fourth) as its code.
func callAgent(args []string, out io.Writer) error {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	options := []grpc.DialOption{grpc.WithTransportCredentials(insecure.NewCredentials())}
	if args[1] != "" {
		options = append(options, grpc.WithPerRPCCredentials(bearer.Token(args[1])))
	}
	conn, err := grpc.NewClient(args[0], options...)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	agent := agentv1.NewAgentServiceClient(conn)
	switch args[2] {
	case "list":
		_, err = agent.ListContainers(ctx, &agentv1.ListContainersRequest{})
	case "destroy":
		_, err = agent.DestroyContainer(ctx, &agentv1.DestroyContainerRequest{ContainerId: args[3]})
	case "start":
		_, err = agent.EnsureContainer(ctx, &agentv1.EnsureContainerRequest{
			FunctionName: "shell", MemorySizeMb: 128, TimeoutSeconds: 3, Runtime: "python3.11", Handler: "app.handler",
			RuntimeInterface: agentv1.RuntimeInterface_RUNTIME_INTERFACE_SUPERVISOR,
			Code:             &agentv1.CodeSource{Location: args[3], Version: codeversion.Content + strings.Repeat("0", 64)},
		})
	case "reflect":
		var stream reflectionpb.ServerReflection_ServerReflectionInfoClient
		if stream, err = reflectionpb.NewServerReflectionClient(conn).ServerReflectionInfo(ctx); err == nil {
			_ = stream.Send(&reflectionpb.ServerReflectionRequest{MessageRequest: &reflectionpb.ServerReflectionRequest_ListServices{}})
			_, err = stream.Recv()
		}
	}
	_, _ = fmt.Fprintln(out, err)
	return err
}

func TestLocalUser_TheAgentIsNotTheirs(t *testing.T) {
	socket := filepath.Join("/run/esb", box.Bridge, "agent.sock")
	box.Post(t, "/victim", "", "{}")
	victim := box.Containers(t, "victim")[0].GetContainerId()
	secret := t.TempDir()
	require.NoError(t, os.Chmod(secret, 0o700))
	require.NoError(t, os.WriteFile(filepath.Join(secret, "id_rsa"), []byte("PRIVATE"), 0o600))
	for _, try := range []struct{ what, target, token, call, argument, refused string }{
		{"list the containers by the agent's port", box.AgentAddr, "", "list", "", "Unauthenticated"},
		{"list the containers with a made-up token", box.AgentAddr, strings.Repeat("0", 64), "list", "", "Unauthenticated"},
		{"ask the agent's port for its services", box.AgentAddr, "", "reflect", "", "Unauthenticated"},
		{"destroy a container by the agent's port", box.AgentAddr, "", "destroy", victim, "Unauthenticated"},
		{"start a container with a folder that root alone may read, by the agent's port", box.AgentAddr, "", "start", secret, "Unauthenticated"},
		{"list the containers by the agent's socket", "unix:" + socket, "", "list", "", "permission denied"},
		{"start a container by the agent's socket", "unix:" + socket, "", "start", secret, "permission denied"},
	} {
		attempt(t, localUser, try.what, func(t *testing.T) {
			out, ok := asNobody(t, "agent", try.target, try.token, try.call, try.argument)
			require.False(t, ok, "%s", out)
			require.Contains(t, out, try.refused)
			require.NotRegexp(t, "[0-9a-f]{32}", out, "a digest")
		})
	}
	attempt(t, localUser, "read the agent's token", func(t *testing.T) {
		requireClosed(t, filepath.Join(box.Home, "agent-token"))
	})
	require.Equal(t, victim, box.Containers(t, "victim")[0].GetContainerId())
	attempt(t, operator, "have a folder outside of the configuration taken for code, and its digest told", func(t *testing.T) {
		err := callAgent([]string{"unix:" + socket, "", "start", secret}, io.Discard)
		require.ErrorContains(t, err, "CODE_ROOTS")
		require.NotRegexp(t, "[0-9a-f]{32}", err.Error())
	})
}

// kill ends process 1 of a container, as a fault of the machine would.
func kill(t *testing.T, container string) {
	t.Helper()
	entries, err := os.ReadDir("/proc")
	require.NoError(t, err)
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		environ, err := os.ReadFile(filepath.Join("/proc", e.Name(), "environ"))
		if err == nil && strings.Contains("\x00"+string(environ), "\x00ESB_INIT_CONTAINER="+container+"\x00") {
			require.NoError(t, syscall.Kill(pid, syscall.SIGKILL))
			return
		}
	}
	t.Fatalf("no process 1 of %s", container)
}
