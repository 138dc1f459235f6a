package stack

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// docker drives a box by Docker Compose, as a user does: with the repository's own compose files. What lets it live
// beside another box (ports, network, names, folders) is in one further file, compose.test.yml in its home.
//
// Images are those that the compose files name, or that ESB_GATEWAY_IMAGE, ESB_AGENT_IMAGE, ESB_DIND_IMAGE,
// ESB_S3_IMAGE, ESB_DB_IMAGE, ESB_LOGS_IMAGE and ESB_REGISTRY_IMAGE name instead.
type docker struct {
	stack  *Stack
	images []string
	// functions is the folder with functions.yml, routing.yml, resources.yml and code.
	functions string
	// copying is held while a file comes out of the gateway's container. The gateway makes such files once.
	copying sync.Mutex
}

// dockerLogsPassword is that of VictoriaLogs: a box in Docker makes one in a volume, which tests would have to look into.
const dockerLogsPassword = "password-of-the-tests-logs"

// Listeners of a box in a box that are on loopback only: the tests reach them in its network namespace.
const (
	innerAdmin = "127.0.0.1:9443"
	innerAgent = "127.0.0.1:50051"
)

func prepareDocker(s *Stack, opts Options) (driver, error) {
	if opts.OwnLogs {
		return nil, errors.New("a VictoriaLogs of the test's own goes with a native box only")
	}
	d := &docker{stack: s, images: opts.Images, functions: filepath.Dir(opts.FunctionsConfig)}
	for name, path := range map[string]string{
		"functions.yml": opts.FunctionsConfig, "routing.yml": opts.RoutingConfig, "resources.yml": opts.ResourcesConfig,
	} {
		if want := filepath.Join(d.functions, name); path != want {
			return nil, fmt.Errorf("a box in Docker gets one folder of configuration: %s must be %s", path, want)
		}
	}
	// The gateway is not root in its container.
	if err := os.Chmod(s.Home, 0o755); err != nil {
		return nil, err
	}
	override, err := d.override(opts.Env)
	if err != nil {
		return nil, err
	}
	if s.Way == DinD {
		s.AdminURL, s.AgentAddr = "http://"+innerAdmin, innerAgent
		if err := copyImages(filepath.Join(s.Home, "data", "agent", "images"), opts.Images); err != nil {
			return nil, err
		}
	}
	return d, os.WriteFile(d.overrideFile(), []byte(override), 0o644)
}

func (d *docker) overrideFile() string { return filepath.Join(d.stack.Home, "compose.test.yml") }

// override is the file that tells this box from others. Compose appends the lists of its files but for those with the
// tag !override.
func (d *docker) override(env []string) (string, error) {
	p := d.stack.ports
	if d.stack.Way == DinD {
		settings, err := json.Marshal(environment(env)) // JSON is YAML
		if err != nil {
			return "", err
		}
		return fmt.Sprintf(`services:
  esb-root:
    container_name: %[1]s
    environment: %[2]s
    ports: !override ["127.0.0.1:%[3]d:443", "127.0.0.1:%[4]d:8000", "127.0.0.1:%[5]d:9000", "127.0.0.1:%[6]d:9001", "127.0.0.1:%[7]d:8001", "127.0.0.1:%[8]d:9428", "127.0.0.1:%[9]d:5010"]
    volumes: !override ["%[10]s/data:/app/data", "%[10]s/logs:/logs", "%[11]s:/app/functions:ro", "docker_data:/var/lib/docker"]
`, d.root(), settings, p.https, p.http, p.s3, p.s3UI, p.dynamoDB, p.logs, p.registry, d.stack.Home, d.functions), nil
	}
	settings, err := json.Marshal(d.settings(env))
	if err != nil {
		return "", err
	}
	return fmt.Sprintf(`services:
  gateway: {environment: %[1]s}
  agent: {environment: %[1]s}
  relay: {environment: {ESB_SUBNET: %[2]q, ESB_RELAY_S3_PORT: "%[3]d", ESB_RELAY_DYNAMODB_PORT: "%[5]d"}}
  s3: {ports: !override ["127.0.0.1:%[3]d:9000", "127.0.0.1:%[4]d:9001"]}
  db: {ports: !override ["127.0.0.1:%[5]d:8000"]}
  logs: {ports: !override ["127.0.0.1:%[6]d:9428"]}
  registry: {ports: !override ["127.0.0.1:%[7]d:5010"]}
`, settings, d.stack.Subnet, p.s3, p.s3UI, p.dynamoDB, p.logs, p.registry), nil
}

// settings of the gateway and the agent, which share the machine's network.
func (d *docker) settings(env []string) map[string]string {
	s, p := d.stack, d.stack.ports
	all := environment(env)
	for name, value := range map[string]string{
		"GATEWAY_HTTPS_ADDR":       fmt.Sprintf("127.0.0.1:%d", p.https),
		"GATEWAY_HTTP_ADDR":        fmt.Sprintf("127.0.0.1:%d", p.http),
		"GATEWAY_ADMIN_ADDR":       fmt.Sprintf("127.0.0.1:%d", p.admin),
		"AGENT_GRPC_ADDR":          fmt.Sprintf("127.0.0.1:%d", p.agent),
		"ESB_BRIDGE":               s.Bridge,
		"ESB_SUBNET":               s.Subnet,
		"S3_ENDPOINT":              s.S3URL,
		"DYNAMODB_ENDPOINT":        s.DynamoDBURL,
		"VICTORIALOGS_URL":         s.LogsURL,
		"FUNCTION_LOGS_ADDR":       fmt.Sprintf("%s:%d", s.Box, p.logs),
		"ESB_REGISTRY":             fmt.Sprintf("127.0.0.1:%d", p.registry),
		"FUNCTION_LAMBDA_ENDPOINT": "off", // the gateway does not listen at the box's address
		"FUNCTION_HOST_PORTS":      fmt.Sprintf("%d,%d,%d,%d,%d", p.https, p.http, p.s3, p.dynamoDB, p.logs),
	} {
		if _, set := all[name]; !set {
			all[name] = value
		}
	}
	return all
}

// environment puts the tests' credentials beside env: those of this machine's .env are not theirs.
func environment(env []string) map[string]string {
	all := map[string]string{"VICTORIALOGS_PASSWORD": dockerLogsPassword}
	for _, variable := range append(secrets(), env...) {
		name, value, _ := strings.Cut(variable, "=")
		all[name] = value
	}
	return all
}

// root is the name of the container of a box in a box.
func (d *docker) root() string { return d.stack.Bridge + "-root" }

// run runs a compose command on the box.
func (d *docker) run(ctx context.Context, args ...string) (string, error) {
	file := "docker-compose.yml"
	if d.stack.Way == DinD {
		file = "docker-compose.dind.yml"
	}
	command := append([]string{"compose", "--project-directory", d.stack.root, "-p", d.stack.Bridge,
		"-f", filepath.Join(d.stack.root, file), "-f", d.overrideFile()}, args...)
	return d.command(ctx, command...)
}

// command runs docker, with the Compose of the repository where the machine's has none.
func (d *docker) command(ctx context.Context, args ...string) (string, error) {
	// Compose puts the keys of the stores into its files.
	env := append(append(os.Environ(), secrets()...), "ESB_STORES_SUBNET=10.99."+strings.Split(d.stack.Subnet, ".")[2]+".0/24", "ESB_PROJECT="+d.stack.Bridge, "ESB_ROOT_NAME="+d.root(), "ESB_FUNCTIONS_DIR="+d.functions)
	return d.stack.run(ctx, env, filepath.Join(d.stack.root, "docker", "cli"), args...)
}

func (d *docker) up(ctx context.Context) error {
	if out, err := d.run(ctx, "up", "-d", "--wait", "--no-build"); err != nil {
		logs, _ := d.run(context.WithoutCancel(ctx), "logs", "--tail", "30")
		return fmt.Errorf("compose up: %w\n%s\n%s", err, out, logs)
	}
	if d.stack.Way == DinD {
		return nil // they lie in the agent's folder already
	}
	for _, image := range d.images {
		if out, err := d.run(ctx, "cp", image, "agent:/var/lib/esb/images/"+filepath.Base(image)); err != nil {
			return fmt.Errorf("put %s into the agent's container: %w\n%s", image, err, out)
		}
	}
	return nil
}

// down removes the volumes too: they are the test's own.
func (d *docker) down(ctx context.Context) error {
	if out, err := d.run(ctx, "down", "--volumes", "--remove-orphans"); err != nil {
		return fmt.Errorf("compose down: %w\n%s", err, out)
	}
	return nil
}

func (d *docker) gatewayFile(ctx context.Context, name string) ([]byte, error) {
	copied := filepath.Join(d.stack.Home, "data", "gateway", name) // where a box in a box has it
	if d.stack.Way == Compose {
		d.copying.Lock()
		defer d.copying.Unlock()
		copied = filepath.Join(d.stack.Home, filepath.Base(name))
		if data, err := os.ReadFile(copied); err == nil {
			return data, nil
		}
		if out, err := d.run(ctx, "cp", "gateway:/var/lib/esb/"+name, copied); err != nil {
			return nil, fmt.Errorf("fetch %s from the gateway's container: %w\n%s", name, err, out)
		}
	}
	return os.ReadFile(copied)
}

func (d *docker) logsPassword() (user, password string, err error) {
	return "esb", dockerLogsPassword, nil
}

func (d *docker) agentToken(ctx context.Context) (token string, err error) {
	if d.stack.Way == Compose {
		token, err = d.run(ctx, "exec", "-T", "agent", "cat", "/var/lib/esb-agent/token")
	} else {
		token, err = d.command(ctx, "exec", d.root(), "sh", "-c", "cat /var/lib/docker/volumes/*_agent_token/_data/token")
	}
	if err != nil {
		return "", fmt.Errorf("fetch the agent's token: %w\n%s", err, token)
	}
	return strings.TrimSpace(token), nil
}

func (d *docker) dial(ctx context.Context, addr string) (net.Conn, error) {
	var dialer net.Dialer
	if d.stack.Way == Compose || (addr != innerAdmin && addr != innerAgent) {
		return dialer.DialContext(ctx, "tcp", addr)
	}
	pid, err := d.command(ctx, "inspect", "-f", "{{.State.Pid}}", d.root())
	if err != nil {
		return nil, fmt.Errorf("find the process of %s: %w\n%s", d.root(), err, pid)
	}
	return DialInside(ctx, filepath.Join("/proc", strings.TrimSpace(pid), "ns", "net"), addr)
}

// DialInside connects from a network namespace, which is the path of its file. The connection stays in it; the thread comes back.
func DialInside(ctx context.Context, namespace, addr string) (net.Conn, error) {
	runtime.LockOSThread()
	own, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		runtime.UnlockOSThread()
		return nil, err
	}
	defer func() { _ = own.Close() }()
	inside, err := os.Open(namespace)
	if err != nil {
		runtime.UnlockOSThread()
		return nil, err
	}
	defer func() { _ = inside.Close() }()
	if err := unix.Setns(int(inside.Fd()), unix.CLONE_NEWNET); err != nil {
		runtime.UnlockOSThread()
		return nil, fmt.Errorf("enter %s: %w", namespace, err)
	}
	var dialer net.Dialer
	connection, dialErr := dialer.DialContext(ctx, "tcp", addr) // one literal address: the socket is made on this thread
	if err := unix.Setns(int(own.Fd()), unix.CLONE_NEWNET); err != nil {
		// The thread is not given back: it ends with its goroutine, which must not go on.
		return nil, errors.Join(fmt.Errorf("leave %s: %w", namespace, err), dialErr)
	}
	runtime.UnlockOSThread()
	return connection, dialErr
}
