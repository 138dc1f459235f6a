package stack

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"

	"github.com/edge-serverless-box/esb/guard/secretfile"
)

// native drives a box by the esb command, as a user does.
type native struct {
	stack   *Stack
	command string
	env     []string
	// settings are those of env that are this box's.
	settings []string
	ownLogs  bool
}

func prepareNative(s *Stack, opts Options) (driver, error) {
	n := &native{stack: s, ownLogs: opts.OwnLogs, command: filepath.Join(s.Home, "esb-command")}
	if out, err := goBuild(s.root, n.command, "./native/cmd/esb"); err != nil {
		return nil, fmt.Errorf("build native/cmd/esb: %w\n%s", err, out)
	}
	own := func(port int) string { return fmt.Sprintf("127.0.0.1:%d", port) }
	// Functions reach the stores and the Invoke API at the box's address.
	shared := func(port int) string { return fmt.Sprintf("127.0.0.1:%d,%s:%d", port, s.Box, port) }
	n.settings = append(secrets(),
		"ESB_HOME="+s.Home,
		"ESB_BIN_DIR="+s.BinDir,
		"GATEWAY_HTTPS_ADDR="+own(s.ports.https),
		"GATEWAY_HTTP_ADDR="+shared(s.ports.http),
		"GATEWAY_ADMIN_ADDR="+own(s.ports.admin),
		"AGENT_GRPC_ADDR="+own(s.ports.agent),
		"S3_ADDR="+shared(s.ports.s3),
		"S3_UI_ADDR="+own(s.ports.s3UI),
		"DYNAMODB_ADDR="+shared(s.ports.dynamoDB),
		"VICTORIALOGS_ADDR="+own(s.ports.logs),
		"REGISTRY_ADDR="+own(s.ports.registry),
		"ESB_BRIDGE="+s.Bridge,
		"FUNCTION_CPU_WEIGHT=100", // tests run beside others: their functions' time must not be what those leave
		"ESB_SUBNET="+s.Subnet,
		"FUNCTIONS_CONFIG_PATH="+opts.FunctionsConfig,
		"ROUTING_CONFIG_PATH="+opts.RoutingConfig,
		"RESOURCES_CONFIG_PATH="+opts.ResourcesConfig,
	)
	if !opts.Supervised {
		n.settings = append(n.settings, "ESB_SUPERVISOR=off")
	}
	if opts.OwnLogs {
		n.settings = append(n.settings, "VICTORIALOGS_ADDR=off", "VICTORIALOGS_URL="+s.LogsURL)
	}
	n.settings = append(n.settings, opts.Env...)
	n.env = append(os.Environ(), n.settings...)
	return n, copyImages(filepath.Join(s.Home, "images"), opts.Images)
}

func (n *native) up(ctx context.Context) error {
	if out, err := n.esb(ctx, "up"); err != nil {
		return fmt.Errorf("esb up: %w\n%s", err, out)
	}
	return nil
}

func (n *native) down(ctx context.Context) error {
	if out, err := n.esb(ctx, "down"); err != nil {
		return fmt.Errorf("esb down: %w\n%s", err, out)
	}
	return nil
}

func (n *native) gatewayFile(_ context.Context, name string) ([]byte, error) {
	return os.ReadFile(filepath.Join(n.stack.Home, "gateway", name))
}

// logsPassword is none for a VictoriaLogs of the test's own.
func (n *native) logsPassword() (user, password string, err error) {
	if n.ownLogs {
		return "", "", nil
	}
	password, err = secretfile.Read(filepath.Join(n.stack.Home, "data", "logs.password"))
	return "esb", password, err
}

func (n *native) agentToken(context.Context) (string, error) {
	return secretfile.Read(filepath.Join(n.stack.Home, "agent-token"))
}

func (n *native) dial(ctx context.Context, addr string) (net.Conn, error) {
	var dialer net.Dialer
	return dialer.DialContext(ctx, "tcp", addr)
}

func (n *native) esb(ctx context.Context, args ...string) (string, error) {
	return n.stack.run(ctx, n.env, n.command, args...)
}

// Esb runs the esb command with the settings of a native box and returns what it printed.
func (s *Stack) Esb(ctx context.Context, args ...string) (string, error) {
	n, ok := s.driver.(*native)
	if !ok {
		return "", fmt.Errorf("esb %s: the esb command is of the native way, this box runs by %s", strings.Join(args, " "), s.Way)
	}
	return n.esb(ctx, args...)
}
