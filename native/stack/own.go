package stack

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/edge-serverless-box/esb/native"
	"github.com/edge-serverless-box/esb/native/build"
	"github.com/edge-serverless-box/esb/native/process"
)

// own are settings that one service alone reads, by name or, with a final "_", by the beginning of the name: a change of one is no
// reason to start another service again. Settings that are not here are taken to be everybody's.
var own = map[string][]string{
	native.Gateway: {
		"ASYNC_", "AUTH_ENDPOINT_PATH", "AUTH_USER", "CIRCUIT_BREAKER_", "CODE_POLL_SECONDS", "FUNCTIONS_CONFIG_PATH", "GATEWAY_ADMIN_ADDR", "GATEWAY_BUFFER_MB",
		"GATEWAY_HTTPS_ADDR", "GATEWAY_HTTP_ADDR", "GATEWAY_MAX_", "GATEWAY_STREAM_LIMIT_MB", "HEARTBEAT_INTERVAL", "IDLE_TIMEOUT_MINUTES", "IMAGE_POLL_SECONDS",
		"INVOCATION_OUTLIVES_CLIENT", "JWT_EXPIRES_DELTA", "ORPHAN_GRACE_PERIOD_SECONDS", "RESOURCES_CONFIG_PATH", "ROUTING_CONFIG_PATH",
		"SHUTDOWN_GRACE_SECONDS", "TLS_CERT_FILE", "TLS_KEY_FILE",
	},
	native.Agent: {
		"AGENT_METRICS_ADDR", "CODE_CACHE_MB", "CONTAINERD_ADDRESS", "CONTAINER_READY_TIMEOUT_SECONDS", "ESB_DNS", "ESB_MTU", "FUNCTION_CPU_WEIGHT",
		"FUNCTION_EGRESS_DENY", "FUNCTION_LOGS_KB_PER_SECOND", "FUNCTION_LOG_", "FUNCTION_NOFILE", "FUNCTION_OUTPUT_KB_PER_SECOND", "FUNCTION_PIDS_LIMIT",
		"FUNCTION_TMP", "FUNCTION_TMP_", "LOG_SHIP_", "NETWORK_POOL_SIZE", "REGISTRY_CONFIG", "REGISTRY_PLAIN_HTTP", "REGISTRY_POLL_SECONDS",
	},
	native.Stores: {
		"DYNAMODB_TTL_INTERVAL_SECONDS", "S3_ENCRYPTED_DISK", "S3_LIFECYCLE_INTERVAL_SECONDS", "S3_UI_ADDR", "VICTORIALOGS_RETENTION_DAYS",
	},
	// This command's.
	"": {"ESB_START_TIMEOUT_SECONDS", "ESB_STORES", "ESB_SUPERVISOR"},
}

// anothers is true for a setting that a service does not read.
func anothers(service, name string) bool {
	for whose, names := range own {
		if whose != service && slices.ContainsFunc(names, func(n string) bool { return name == n || strings.HasSuffix(n, "_") && strings.HasPrefix(name, n) }) {
			return true
		}
	}
	return false
}

// concern are the beginnings of the names of variables that change what a service does.
var concern = []string{
	"AGENT_", "ASYNC_", "AUTH_", "AWS_", "CIRCUIT_BREAKER_", "CODE_", "CONTAINERD_", "CONTAINER_", "DYNAMODB_", "ESB_", "FUNCTION", "GATEWAY_", "HEARTBEAT_",
	"IDLE_", "IMAGE_", "INVOCATION_", "JWT_", "LAMBDA_", "LOG_", "MAX_CONCURRENT_", "NETWORK_", "ORPHAN_", "REGISTRY_", "RESOURCES_", "ROUTING_", "S3_", "SERVICE_LOG_",
	"SHUTDOWN_", "TLS_", "VICTORIALOGS_", "X_API_KEY",
}

var reference = regexp.MustCompile(`\$\{([A-Za-z_][A-Za-z0-9_]*)\}`)

// fingerprint digests what a service runs with: its user, its binaries and its settings, those included that functions.yml takes
// from the environment. The rest of the environment differs from one terminal to the next and means nothing.
func (s *Stack) fingerprint(service string, user *process.User) (string, error) {
	h := sha256.New()
	if user != nil {
		_, _ = fmt.Fprintf(h, "%d %d %v\x00", user.UID, user.GID, user.Capabilities)
	}
	targets := []string{service}
	switch service {
	case native.Agent:
		for _, t := range build.Targets(build.GroupRuntime) {
			targets = append(targets, t.Name)
		}
	case native.Stores:
		targets = s.settings.StorePrograms()
	}
	for _, t := range targets {
		stamp, err := os.ReadFile(filepath.Join(s.settings.BinDir, ".stamps", t))
		if err != nil {
			return "", fmt.Errorf("read the stamp of %s: %w", t, err)
		}
		_, _ = h.Write(stamp)
	}
	var named []string
	if service == native.Gateway {
		// A file that cannot be read is the gateway's to complain about.
		for _, file := range []string{s.settings.FunctionsConfig, s.settings.RoutingConfig} {
			data, _ := os.ReadFile(file)
			for _, m := range reference.FindAllSubmatch(data, -1) {
				named = append(named, string(m[1]))
			}
		}
	}
	env := s.env(service)
	slices.Sort(env)
	for _, v := range env {
		name, _, _ := strings.Cut(v, "=")
		if slices.Contains(named, name) || !anothers(service, name) && slices.ContainsFunc(concern, func(prefix string) bool { return strings.HasPrefix(name, prefix) }) {
			_, _ = fmt.Fprintf(h, "%s\x00", v)
		}
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}
