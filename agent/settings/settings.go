// Package settings reads the agent's settings from environment variables. The doc comment of each field of Settings is
// the manual of that setting.
package settings

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"net/url"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"time"
)

// DefaultRunRoot is the folder with the run folders of all stacks that do not set their own.
const DefaultRunRoot = "/run/esb"

// Settings of the agent.
type Settings struct {
	// Home (ESB_HOME, default /var/lib/esb) is the folder of everything that outlives a reboot: containerd's
	// content, image archives, function logs, function code. Address leases are in RunDir: they end with a reboot.
	Home string
	// RunDir (ESB_RUN_DIR, default /run/esb/<ESB_BRIDGE>) is the folder of what does not outlive a reboot: sockets and
	// the files of running containers. It must be short: unix sockets live in it, and their paths have 107 bytes.
	RunDir string
	// BinDir (ESB_BIN_DIR, default the folder of the agent's executable) holds containerd, containerd-shim-runc-v2, runc,
	// the CNI plugins and lambda-init.
	BinDir string
	// GRPCAddr (AGENT_GRPC_ADDR, default 127.0.0.1:50051) is where the agent serves, beside its socket. Every call needs the
	// token of AGENT_TOKEN_FILE. An address that is not loopback needs all three of AGENT_TLS_CERT, AGENT_TLS_KEY and
	// AGENT_TLS_CA, which take the token's place; the agent refuses to start without.
	GRPCAddr string
	// Socket (AGENT_SOCKET, a path or "off"; default agent.sock in ESB_RUN_DIR) is a unix socket on which the agent serves
	// root and GATEWAY_UID, without a token. Empty when off.
	Socket string
	// TokenFile (AGENT_TOKEN_FILE, default <ESB_HOME>/agent-token) has the token that calls over TCP bring. The agent makes it
	// when it is not there; it is GATEWAY_UID's, and closed to all others but root.
	TokenFile string
	// GatewayUID (GATEWAY_UID, default 0) is the user that the gateway runs as, by number. Beside root, that user alone may use
	// the agent's socket and token, and reach the functions' containers from this machine.
	GatewayUID int
	// TLSCert, TLSKey (AGENT_TLS_CERT, AGENT_TLS_KEY: PEM files) are the agent's certificate and key; TLSCA (AGENT_TLS_CA,
	// PEM file) is the authority whose certificates clients must show (mutual TLS).
	TLSCert, TLSKey, TLSCA string
	// ContainerdAddress (CONTAINERD_ADDRESS, default empty) is the socket of a containerd that somebody else runs.
	// Empty: the agent starts one of its own from ESB_BIN_DIR.
	ContainerdAddress string
	// Subnet (ESB_SUBNET, default 10.88.0.0/16) is the IPv4 network of function containers; its first address is the box.
	Subnet netip.Prefix
	// Bridge (ESB_BRIDGE, default esb0, at most 15 characters) is the bridge of that network; it also names the cgroup
	// and the folder of this stack, so two stacks on one machine need two.
	Bridge string
	// MTU (ESB_MTU, default 0) is that of function networks in bytes; 0 takes that of the link with the default route.
	MTU int
	// DNS (ESB_DNS, comma-separated IPv4 addresses; default the host's nameservers that are not loopback) are the
	// nameservers of function containers.
	DNS []netip.Addr
	// HostPorts (FUNCTION_HOST_PORTS, default 443,8000,9000,8001,9428) are the TCP ports of the box that functions may
	// reach: gateway, S3, DynamoDB API and logs.
	HostPorts []uint16
	// EgressDeny (FUNCTION_EGRESS_DENY, comma-separated IPv4 networks; default none) are networks that functions may not reach:
	// name the box's own other networks here, such as 192.168.1.0/24. 169.254.0.0/16, where clouds tell a machine its keys, is
	// never reachable. Nameservers (ESB_DNS) are, on port 53. What is sent there is dropped.
	EgressDeny []netip.Prefix
	// NetworkPoolSize (NETWORK_POOL_SIZE, default 2) is how many network namespaces are made ahead; 0 switches that off.
	NetworkPoolSize int
	// ArchivesDir (IMAGE_ARCHIVES_DIR, default <ESB_HOME>/images) holds image archives, *.tar as "docker save" or any OCI
	// tool makes them; new and changed ones are imported.
	ArchivesDir string
	// ImageMaxMB (IMAGE_MAX_MB, default 10240 as AWS's) bounds the layers of one image, unpacked; one that is larger is not used.
	ImageMaxMB int
	// ImagesUnusedFor (IMAGE_UNUSED_DAYS, default 30; 0 for never) is after how many days without a container of it, or a function that
	// names it, an image is removed. It comes again, from its archive or registry, when a function needs it.
	ImagesUnusedFor time.Duration
	// ImageStoreMaxMB (IMAGE_STORE_MAX_MB, default 0 for no bound) is how many MB all images may take: above that those that no function
	// uses are removed, the longest unused first.
	ImageStoreMaxMB int
	// ArchivesUnusedFor (IMAGE_ARCHIVES_UNUSED_DAYS, default 0 for never) is after how many days an archive is removed whose images
	// nothing has used. Those of base images for code stay. Of one whose images are not in containerd counts how long the agent has run.
	ArchivesUnusedFor time.Duration
	// Registry (ESB_REGISTRY, default 127.0.0.1:5010) is the registry of references without a host.
	Registry string
	// PlainHTTP (REGISTRY_PLAIN_HTTP, comma-separated hosts, default none) are the registries spoken to without TLS;
	// loopback ones always are.
	PlainHTTP []string
	// RegistryPoll (REGISTRY_POLL_SECONDS, default 60; 0 for never) is how often a registry elsewhere is asked, for functions with
	// pull_policy always, whether it has another image under a tag: those that are warm get new containers then. It is asked with HEAD,
	// with ever longer pauses while it does not answer. One on this machine is asked every IMAGE_POLL_SECONDS.
	RegistryPoll time.Duration
	// RegistryConfig (REGISTRY_CONFIG, default none) is a Docker config.json with credentials under "auths".
	RegistryConfig string
	// RegistryUser and RegistryPassword (ESB_REGISTRY_USER, ESB_REGISTRY_PASSWORD; default none) are the credentials for
	// ESB_REGISTRY, when there is a user, before those of REGISTRY_CONFIG. RegistryPasswordFile (ESB_REGISTRY_PASSWORD_FILE, default
	// none) is a file with the password, readable by its owner alone, for when ESB_REGISTRY_PASSWORD is not set.
	RegistryUser         string
	RegistryPassword     Secret
	RegistryPasswordFile string
	// S3Endpoint (S3_ENDPOINT, a URL or "off"; default http://127.0.0.1:9000) is the store that function code at s3://
	// locations is read from, empty when off, with S3AccessKey and S3SecretKey (S3_ACCESS_KEY, S3_SECRET_KEY; defaults those of the native stores).
	S3Endpoint, S3AccessKey, S3SecretKey string
	// FunctionS3Endpoint (FUNCTION_S3_ENDPOINT, a URL or "off"; default S3_ENDPOINT) and FunctionDynamoDBEndpoint
	// (FUNCTION_DYNAMODB_ENDPOINT, the same of DYNAMODB_ENDPOINT, which is http://127.0.0.1:8001 by default) are what functions
	// find in AWS_ENDPOINT_URL_S3, AWS_ENDPOINT_URL_DYNAMODB and AWS_ENDPOINT_URL_DYNAMODB_STREAMS, which AWS SDKs follow. In the defaults a loopback address is
	// replaced by the box's own on the function network. Off sets no variable. SDKs address buckets by path there, because
	// the host is an IP address.
	FunctionS3Endpoint, FunctionDynamoDBEndpoint string
	// S3PublicEndpoint (S3_PUBLIC_ENDPOINT, a URL; default none) is where clients outside reach S3. Functions find it in
	// ESB_S3_PUBLIC_ENDPOINT, to sign links for it.
	S3PublicEndpoint string
	// FunctionLambdaEndpoint (FUNCTION_LAMBDA_ENDPOINT, a URL or "off"; default http://<box>:8000, the gateway) is the same for
	// AWS_ENDPOINT_URL_LAMBDA.
	FunctionLambdaEndpoint string
	// FunctionAccessKey and FunctionSecretKey (FUNCTION_ACCESS_KEY, FUNCTION_SECRET_KEY; default S3_ACCESS_KEY and
	// S3_SECRET_KEY) are the credentials of functions, AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, to which the gateway gives
	// no keys of their own (its FUNCTION_KEYS is off). SDKs have one pair for all services: give the stores the same one.
	FunctionAccessKey string
	FunctionSecretKey Secret
	// CodeRoots (CODE_ROOTS, comma-separated absolute folders; default /etc/esb, natively the folder of FUNCTIONS_CONFIG_PATH) are
	// where function code and layers may lie on this machine. The agent reads nothing outside of them, also not by a symbolic
	// link in them.
	CodeRoots []string
	// CodeCacheMB (CODE_CACHE_MB, default 2048) bounds the unpacked code under <ESB_HOME>/code that no container uses; what
	// was not used the longest goes first.
	CodeCacheMB int
	// TmpSizeMB (FUNCTION_TMP_SIZE_MB, default 512 as AWS's) is the size of /tmp where a function does not say.
	TmpSizeMB int
	// TmpOnDisk (FUNCTION_TMP, disk or memory; default disk) is what /tmp of functions is. Disk: room on the disk of ESB_HOME,
	// in a file of its own for each container, which takes what is written and goes with the container; it needs loop devices,
	// ext4 and mkfs.ext4, and where one is missing the agent says so and takes memory. Memory counts towards the function's
	// memory_size as far as it is used. Containers that run keep what they have.
	TmpOnDisk bool
	// TmpReserveMB (FUNCTION_TMP_RESERVE_MB, default 256) is what stays free on the disk of ESB_HOME: with less than that and the
	// size of its /tmp, a container is not started. Files of several containers may grow at the same time: the disk should have
	// room for as many as run.
	TmpReserveMB int
	// CPUWeight (FUNCTION_CPU_WEIGHT, default 12; 1 to 10000) is what all functions together count against everything else that wants
	// the CPU, or the disk, at the same moment; any other process or group of the machine has 100. With the default the
	// gateway, the agent and the stores come first, and a box whose functions take all of the CPU still answers; other programs
	// on the machine come first too. Raise it where functions have to hold their own against those. Functions lose nothing while
	// there is enough for all. In a container it counts within the agent's container.
	CPUWeight int
	// MemoryBudget (FUNCTION_MEMORY_BUDGET, default 80%; a percentage of the machine's memory, or of the agent's container's if that has a
	// limit, a number of megabytes, or off) is what all functions together may hold. What counts is what their containers really hold, the
	// cache of files left out, not their memory_size: those may add up to much more than there is. A container is only started when 64 MB
	// of it, or its memory_size if that is less, are left, and 2 % of the machine besides; where they are not, idle workers of any
	// function are ended first, and a start that finds no memory even so is refused.
	MemoryBudget MemoryShare
	// PIDsLimit (FUNCTION_PIDS_LIMIT, default 1024 as AWS's) bounds the processes and threads of a container.
	PIDsLimit int
	// NoFile (FUNCTION_NOFILE, default 1024 as AWS's) bounds the open files of a process.
	NoFile int
	// UIDBase (FUNCTION_UID_BASE, default 1879048192) is the first of the 67 239 936 user and group ids that the box takes for its
	// own: those from 65536 above it are its services', and each container has 65536 further up. Nobody else on the machine may
	// have one of them: two boxes on one machine may share them, since containers see their own alone.
	UIDBase uint32
	// LogDir (ESB_LOG_DIR, default <ESB_HOME>/logs) is the folder of log files: the agent's own, agent.log; functions/ with
	// one file a container; and gateway.log, there or in the folder gateway, which is shipped with them.
	LogDir string
	// ServiceLogMaxMB (SERVICE_LOG_MAX_MB, default 64) bounds agent.log and its rotated files together.
	ServiceLogMaxMB int
	// OutputKBPerSecond (FUNCTION_OUTPUT_KB_PER_SECOND, default 4096) is how much log a container may write a second, after a burst
	// of twice as much; a function that writes more waits in its write call. It keeps FUNCTION_LOG_MAX_MB true. It does not apply to
	// images with runtime_interface: rie.
	OutputKBPerSecond int
	// LogMaxMB (FUNCTION_LOG_MAX_MB, default 256) bounds what the function logs take on disk together. With VICTORIALOGS_URL,
	// shipped lines make room from half of it on, the oldest first; lines that are not shipped are dropped only when the bound
	// itself is reached, and counted in the agent's log. Without it, the oldest lines make room.
	LogMaxMB int
	// VictoriaLogsURL (VICTORIALOGS_URL, such as http://127.0.0.1:9428; default empty, which is the same as off) is the VictoriaLogs that gets all log
	// lines of functions, gateway and agent. Empty: nothing is shipped, the files are kept within their bounds.
	VictoriaLogsURL string
	// VictoriaLogsUser and VictoriaLogsPassword (VICTORIALOGS_USER, VICTORIALOGS_PASSWORD; default none) are sent as basic
	// authentication when there is a user. VictoriaLogsPasswordFile (VICTORIALOGS_PASSWORD_FILE, default none) is a file with
	// the password, readable by its owner alone, for when VICTORIALOGS_PASSWORD is not set.
	VictoriaLogsUser         string
	VictoriaLogsPassword     Secret
	VictoriaLogsPasswordFile string
	// FunctionLogsAddr (FUNCTION_LOGS_ADDR, host:port or "off"; default port 9428 of the box) is where functions may post log
	// lines, as to VictoriaLogs' /insert/jsonline. They are stored under the function's own name. It is off without
	// VICTORIALOGS_URL.
	FunctionLogsAddr string
	// FunctionLogsKBPerSecond (FUNCTION_LOGS_KB_PER_SECOND, default 256) is how much one container may post there, and 1000 lines
	// a second; four times as much at once. What is above it is answered with 429.
	FunctionLogsKBPerSecond int
	// LogDayMB (FUNCTION_LOG_DAY_MB, default a quarter of VICTORIALOGS_MAX_MB, which is 2048; 0 for no bound) is how many megabytes of
	// lines of one function the log store gets in a day (UTC), so that one leaves room for the others. Its further lines stay in
	// the files alone, and are counted in the agent's log and metrics. It counts anew when the agent is started.
	LogDayMB int
	// LogShipBatchBytes (LOG_SHIP_BATCH_BYTES, default 1048576) is the size of a batch: this much is in memory at most, beside
	// one line, and this much is delivered twice at most when the agent is killed.
	LogShipBatchBytes int
	// LogShipInterval (LOG_SHIP_INTERVAL_MS, default 1000) is how long a line waits at most until it is sent.
	LogShipInterval time.Duration
	// ReadyTimeout (CONTAINER_READY_TIMEOUT_SECONDS, default 10) is how long a started container may take until its worker
	// endpoint answers; after it, the container is removed and the start has failed.
	ReadyTimeout time.Duration
	// MaxStarts (MAX_CONCURRENT_STARTS, default 0) bounds containers being made at once; 0 means twice the CPUs, because
	// starting is CPU-bound.
	MaxStarts int
	// Region (AWS_REGION, default us-east-1) and AccountID (AWS_ACCOUNT_ID, default 123456789012) are what functions see.
	Region, AccountID string
	// MetricsAddr (AGENT_METRICS_ADDR, default off) is where GET /metrics has the agent's counters of shipped and dropped log
	// lines, for Prometheus. It needs no credentials: it must be a loopback address.
	MetricsAddr string
	// LogLevel (LOG_LEVEL: DEBUG, INFO, WARN or ERROR; default INFO) is that of the agent's own log.
	LogLevel slog.Level
}

// bridgeName is what the kernel takes as a link's name and what is harmless in the paths derived from it.
var bridgeName = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_.-]{0,14}$`)

// maxSocket is the longest path of a unix socket (Linux: sun_path).
const maxSocket = 107

// unmountable are characters with a meaning in the options of a mount.
const unmountable = `:,\`

// Load reads the settings through lookup (os.LookupEnv). An empty variable counts as unset. executable is the agent's
// own path. The error names every variable that is wrong.
func Load(lookup func(string) (string, bool), executable string) (Settings, error) {
	r := reader{lookup: lookup}
	s := Settings{
		Home:                    r.path("ESB_HOME", "/var/lib/esb"),
		BinDir:                  r.path("ESB_BIN_DIR", filepath.Dir(executable)),
		GRPCAddr:                r.text("AGENT_GRPC_ADDR", "127.0.0.1:50051"),
		GatewayUID:              r.number("GATEWAY_UID", 0, 0, 1<<31-1),
		TLSCert:                 r.path("AGENT_TLS_CERT", ""),
		TLSKey:                  r.path("AGENT_TLS_KEY", ""),
		TLSCA:                   r.path("AGENT_TLS_CA", ""),
		ContainerdAddress:       strings.TrimPrefix(r.text("CONTAINERD_ADDRESS", ""), "unix://"),
		Subnet:                  r.subnet("ESB_SUBNET", "10.88.0.0/16"),
		Bridge:                  r.text("ESB_BRIDGE", "esb0"),
		MTU:                     r.number("ESB_MTU", 0, 0, 65535),
		DNS:                     r.addrs("ESB_DNS"),
		HostPorts:               r.ports("FUNCTION_HOST_PORTS", "443,8000,9000,8001,9428"),
		EgressDeny:              r.networks("FUNCTION_EGRESS_DENY"),
		NetworkPoolSize:         r.number("NETWORK_POOL_SIZE", 2, 0, 256),
		ImageMaxMB:              r.number("IMAGE_MAX_MB", 10240, 1, 1<<20),
		ImagesUnusedFor:         time.Duration(r.number("IMAGE_UNUSED_DAYS", 30, 0, 3650)) * 24 * time.Hour,
		ImageStoreMaxMB:         r.number("IMAGE_STORE_MAX_MB", 0, 0, 1<<24),
		ArchivesUnusedFor:       time.Duration(r.number("IMAGE_ARCHIVES_UNUSED_DAYS", 0, 0, 3650)) * 24 * time.Hour,
		Registry:                r.text("ESB_REGISTRY", "127.0.0.1:5010"),
		RegistryPoll:            time.Duration(r.number("REGISTRY_POLL_SECONDS", 60, 0, 86400)) * time.Second,
		PlainHTTP:               r.list("REGISTRY_PLAIN_HTTP", ""),
		RegistryConfig:          r.path("REGISTRY_CONFIG", ""),
		S3Endpoint:              r.url("S3_ENDPOINT", "http://127.0.0.1:9000"),
		S3AccessKey:             r.text("S3_ACCESS_KEY", "esb-dev-access"),
		S3SecretKey:             r.text("S3_SECRET_KEY", "esb-dev-secret-change-in-production"),
		CodeRoots:               r.paths("CODE_ROOTS", "/etc/esb"),
		CodeCacheMB:             r.number("CODE_CACHE_MB", 2048, 1, 1<<20),
		TmpSizeMB:               r.number("FUNCTION_TMP_SIZE_MB", 512, 1, 10240),
		TmpOnDisk:               r.text("FUNCTION_TMP", "disk") == "disk",
		TmpReserveMB:            r.number("FUNCTION_TMP_RESERVE_MB", 256, 0, 1<<30),
		MemoryBudget:            r.memory("FUNCTION_MEMORY_BUDGET", "80%"),
		CPUWeight:               r.number("FUNCTION_CPU_WEIGHT", 12, 1, 10000),
		PIDsLimit:               r.number("FUNCTION_PIDS_LIMIT", 1024, 16, 1<<22),
		NoFile:                  r.number("FUNCTION_NOFILE", 1024, 64, 1<<20),
		UIDBase:                 uint32(r.number("FUNCTION_UID_BASE", 1879048192, 65536, 2080243711)),
		OutputKBPerSecond:       r.number("FUNCTION_OUTPUT_KB_PER_SECOND", 4096, 64, 1<<20),
		LogMaxMB:                r.number("FUNCTION_LOG_MAX_MB", 256, 1, 1<<20),
		MetricsAddr:             r.loopback("AGENT_METRICS_ADDR"),
		ServiceLogMaxMB:         r.number("SERVICE_LOG_MAX_MB", 64, 1, 1<<20),
		VictoriaLogsURL:         r.optionalURL("VICTORIALOGS_URL"),
		VictoriaLogsUser:        r.text("VICTORIALOGS_USER", ""),
		FunctionLogsKBPerSecond: r.number("FUNCTION_LOGS_KB_PER_SECOND", 256, 1, 1<<20),
		LogShipBatchBytes:       r.number("LOG_SHIP_BATCH_BYTES", 1<<20, 16<<10, 32<<20),
		LogShipInterval:         time.Duration(r.number("LOG_SHIP_INTERVAL_MS", 1000, 10, 60_000)) * time.Millisecond,
		ReadyTimeout:            time.Duration(r.number("CONTAINER_READY_TIMEOUT_SECONDS", 10, 1, 900)) * time.Second,
		MaxStarts:               r.number("MAX_CONCURRENT_STARTS", 0, 0, 1024),
		Region:                  r.text("AWS_REGION", "us-east-1"),
		AccountID:               r.text("AWS_ACCOUNT_ID", "123456789012"),
		LogLevel:                r.level("LOG_LEVEL", "INFO"),
	}
	if r.text("S3_PUBLIC_ENDPOINT", "") != "" {
		s.S3PublicEndpoint = r.url("S3_PUBLIC_ENDPOINT", "https://files.example.com")
	}
	s.FunctionS3Endpoint = r.url("FUNCTION_S3_ENDPOINT", r.fromFunctions(s, s.S3Endpoint))
	s.FunctionDynamoDBEndpoint = r.url("FUNCTION_DYNAMODB_ENDPOINT", r.fromFunctions(s, r.url("DYNAMODB_ENDPOINT", "http://127.0.0.1:8001")))
	s.FunctionLambdaEndpoint = r.url("FUNCTION_LAMBDA_ENDPOINT", r.fromFunctions(s, "http://127.0.0.1:8000"))
	s.FunctionAccessKey = r.text("FUNCTION_ACCESS_KEY", s.S3AccessKey)
	s.FunctionSecretKey = Secret(r.text("FUNCTION_SECRET_KEY", s.S3SecretKey))
	s.RunDir = r.path("ESB_RUN_DIR", filepath.Join(DefaultRunRoot, s.Bridge))
	if s.Socket = r.text("AGENT_SOCKET", filepath.Join(s.RunDir, "agent.sock")); s.Socket == "off" {
		s.Socket = ""
	} else if !filepath.IsAbs(s.Socket) || len(s.Socket) > maxSocket {
		r.fail("AGENT_SOCKET", s.Socket, fmt.Sprintf("must be off or an absolute path of at most %d bytes", maxSocket))
	}
	s.TokenFile = r.path("AGENT_TOKEN_FILE", filepath.Join(s.Home, "agent-token"))
	s.LogDir = r.path("ESB_LOG_DIR", filepath.Join(s.Home, "logs"))
	s.VictoriaLogsPassword = Secret(r.text("VICTORIALOGS_PASSWORD", ""))
	s.RegistryUser = r.text("ESB_REGISTRY_USER", "")
	s.RegistryPassword = Secret(r.text("ESB_REGISTRY_PASSWORD", ""))
	s.RegistryPasswordFile = r.path("ESB_REGISTRY_PASSWORD_FILE", "")
	s.VictoriaLogsPasswordFile = r.path("VICTORIALOGS_PASSWORD_FILE", "")
	s.FunctionLogsAddr = r.functionLogsAddr(s)
	if kind := r.text("FUNCTION_TMP", "disk"); kind != "disk" && kind != "memory" {
		r.fail("FUNCTION_TMP", kind, "must be disk or memory")
	}
	s.LogDayMB = r.number("FUNCTION_LOG_DAY_MB", max(r.number("VICTORIALOGS_MAX_MB", 2048, 16, 1<<30)/4, 1), 0, 1<<30)
	if s.VictoriaLogsUser == "" && s.VictoriaLogsPassword != "" {
		r.errs = append(r.errs, errors.New("VICTORIALOGS_USER: is missing beside VICTORIALOGS_PASSWORD: set both or neither"))
	}
	s.ArchivesDir = r.path("IMAGE_ARCHIVES_DIR", filepath.Join(s.Home, "images"))
	if s.MaxStarts == 0 {
		s.MaxStarts = 2 * runtime.NumCPU()
	}
	if !bridgeName.MatchString(s.Bridge) {
		r.fail("ESB_BRIDGE", s.Bridge, "must be 1 to 15 letters, digits, '_', '.' or '-'")
	}
	if strings.ContainsAny(s.Home, unmountable) {
		r.fail("ESB_HOME", s.Home, "must be a path without ':', ',' and '\\': overlayfs takes them for separators")
	}
	if strings.ContainsRune(s.BinDir, ':') {
		r.fail("ESB_BIN_DIR", s.BinDir, "must be a path without ':': containerd gets it in PATH")
	}
	if s.ContainerdAddress != "" && !filepath.IsAbs(s.ContainerdAddress) {
		r.fail("CONTAINERD_ADDRESS", s.ContainerdAddress, "must be the absolute path of containerd's socket")
	}
	r.checkAddr(s)
	return s, errors.Join(r.errs...)
}

// FunctionEnvironment are the variables that lead an AWS SDK in a function to the box's own services.
func (s Settings) FunctionEnvironment() map[string]string {
	env := map[string]string{
		"AWS_ACCESS_KEY_ID":     s.FunctionAccessKey,
		"AWS_SECRET_ACCESS_KEY": string(s.FunctionSecretKey),
	}
	for name, endpoint := range map[string]string{
		"AWS_ENDPOINT_URL_S3":       s.FunctionS3Endpoint,
		"AWS_ENDPOINT_URL_DYNAMODB": s.FunctionDynamoDBEndpoint,
		"AWS_ENDPOINT_URL_LAMBDA":   s.FunctionLambdaEndpoint,
		// The streams of tables are another service to SDKs, and the same one here.
		"AWS_ENDPOINT_URL_DYNAMODB_STREAMS": s.FunctionDynamoDBEndpoint,
		"ESB_S3_PUBLIC_ENDPOINT":            s.S3PublicEndpoint,
	} {
		if endpoint != "" {
			env[name] = endpoint
		}
	}
	return env
}

// Secret is a text that no log line shows; string(s) reveals it.
type Secret string

// Format implements fmt.Formatter: no verb shows a secret.
func (s Secret) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, "[redacted]") }

// LogValue implements slog.LogValuer.
func (s Secret) LogValue() slog.Value { return slog.StringValue("[redacted]") }

// MarshalText implements encoding.TextMarshaler.
func (s Secret) MarshalText() ([]byte, error) { return []byte("[redacted]"), nil }

// TLS says whether the agent serves with mutual TLS.
func (s Settings) TLS() bool { return s.TLSCert != "" && s.TLSKey != "" && s.TLSCA != "" }

// reader collects what is wrong, so that one start tells all of it.
type reader struct {
	lookup func(string) (string, bool)
	errs   []error
}

func (r *reader) fail(key, value, want string) {
	r.errs = append(r.errs, fmt.Errorf("%s: %s, got %q", key, want, value))
}

func (r *reader) text(key, fallback string) string {
	if v, ok := r.lookup(key); ok && strings.TrimSpace(v) != "" {
		return strings.TrimSpace(v)
	}
	return fallback
}

func (r *reader) path(key, fallback string) string {
	v := r.text(key, fallback)
	if v == "" {
		return ""
	}
	abs, err := filepath.Abs(v)
	if err != nil {
		r.fail(key, v, "must be a path")
	}
	return abs
}

// paths reads absolute paths, separated by commas.
func (r *reader) paths(key, fallback string) []string {
	paths := r.list(key, fallback)
	for i, p := range paths {
		if !filepath.IsAbs(p) {
			r.fail(key, p, "must be absolute paths, separated by commas")
		}
		paths[i] = filepath.Clean(p)
	}
	return paths
}

// url reads the address of a service, empty for "off".
func (r *reader) url(key, fallback string) string {
	v := strings.TrimRight(r.text(key, fallback), "/")
	if v == "off" {
		return ""
	}
	if u, err := url.Parse(v); err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		r.fail(key, v, "must be off or a URL such as "+fallback)
	}
	return v
}

// functionLogsAddr reads where functions post lines, empty when they may not.
func (r *reader) functionLogsAddr(s Settings) string {
	if !s.Subnet.IsValid() {
		return ""
	}
	box := s.Subnet.Addr().Next()
	v := r.text("FUNCTION_LOGS_ADDR", netip.AddrPortFrom(box, 9428).String())
	if v == "off" || s.VictoriaLogsURL == "" {
		return ""
	}
	if addr, err := netip.ParseAddrPort(v); err != nil || addr.Addr() != box || addr.Port() == 0 {
		r.fail("FUNCTION_LOGS_ADDR", v, "must be off or a port of the box's address on the function network, such as "+box.String()+":9428")
	}
	return v
}

// fromFunctions is an endpoint as functions reach it, "off" when there is none: loopback is the box's address for them.
func (r *reader) fromFunctions(s Settings, endpoint string) string {
	u, err := url.Parse(endpoint)
	if err != nil || endpoint == "" || !s.Subnet.IsValid() {
		return "off"
	}
	if ip, err := netip.ParseAddr(u.Hostname()); u.Hostname() == "localhost" || err == nil && (ip.IsLoopback() || ip.IsUnspecified()) {
		box := s.Subnet.Addr().Next().String()
		if port := u.Port(); port != "" {
			box = net.JoinHostPort(box, port)
		}
		u.Host = box
	}
	return u.String()
}

func (r *reader) number(key string, fallback, least, most int) int {
	v := r.text(key, strconv.Itoa(fallback))
	n, err := strconv.Atoi(v)
	if err != nil || n < least || n > most {
		r.fail(key, v, fmt.Sprintf("must be a number from %d to %d", least, most))
	}
	return n
}

// optionalURL reads the address of a service that need not be there, empty when unset or "off".
func (r *reader) optionalURL(key string) string {
	v := strings.TrimRight(r.text(key, ""), "/")
	if v == "off" {
		return ""
	}
	u, err := url.Parse(v)
	if v != "" && (err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "") {
		r.errs = append(r.errs, fmt.Errorf("%s: must be http://host:port or https://host:port, without credentials or query", key))
	}
	return v
}

func (r *reader) list(key, fallback string) []string {
	var out []string
	for v := range strings.SplitSeq(r.text(key, fallback), ",") {
		if v = strings.TrimSpace(v); v != "" {
			out = append(out, v)
		}
	}
	return out
}

func (r *reader) subnet(key, fallback string) netip.Prefix {
	v := r.text(key, fallback)
	p, err := netip.ParsePrefix(v)
	if err != nil || !p.Addr().Is4() || p.Bits() < 8 || p.Bits() > 29 || p.Masked() != p {
		r.fail(key, v, "must be an IPv4 network from /8 to /29, such as 10.88.0.0/16")
	}
	return p
}

func (r *reader) addrs(key string) []netip.Addr {
	var out []netip.Addr
	for _, v := range r.list(key, "") {
		a, err := netip.ParseAddr(v)
		if err != nil || !a.Is4() || a.IsLoopback() {
			r.fail(key, v, "must be IPv4 addresses that containers can reach, separated by commas")
			continue
		}
		out = append(out, a)
	}
	return out
}

func (r *reader) networks(key string) []netip.Prefix {
	var out []netip.Prefix
	for _, v := range r.list(key, "") {
		p, err := netip.ParsePrefix(v)
		if a, addrErr := netip.ParseAddr(v); addrErr == nil {
			p, err = netip.PrefixFrom(a, a.BitLen()), nil
		}
		if err != nil || !p.Addr().Is4() || p.Masked() != p {
			r.fail(key, v, "must be IPv4 networks such as 192.168.1.0/24, separated by commas")
			continue
		}
		out = append(out, p)
	}
	return out
}

func (r *reader) ports(key, fallback string) []uint16 {
	var out []uint16
	for _, v := range r.list(key, fallback) {
		n, err := strconv.ParseUint(v, 10, 16)
		if err != nil || n == 0 {
			r.fail(key, v, "must be port numbers, separated by commas")
			continue
		}
		out = append(out, uint16(n))
	}
	return out
}

func (r *reader) level(key, fallback string) slog.Level {
	v := r.text(key, fallback)
	var l slog.Level
	if err := l.UnmarshalText([]byte(v)); err != nil {
		r.fail(key, v, "must be DEBUG, INFO, WARN or ERROR")
	}
	return l
}

// loopback reads the address of a listener without credentials, empty when unset or "off".
func (r *reader) loopback(key string) string {
	v := r.text(key, "")
	if v == "" || v == "off" {
		return ""
	}
	host, _, err := net.SplitHostPort(v)
	ip, ipErr := netip.ParseAddr(host)
	if err != nil || (host != "localhost" && (ipErr != nil || !ip.IsLoopback())) {
		r.fail(key, v, "must be off or host:port on loopback, such as 127.0.0.1:9444")
	}
	return v
}

// checkAddr refuses an agent that strangers could reach.
func (r *reader) checkAddr(s Settings) {
	host, _, err := net.SplitHostPort(s.GRPCAddr)
	if err != nil {
		r.fail("AGENT_GRPC_ADDR", s.GRPCAddr, "must be host:port")
		return
	}
	some := s.TLSCert != "" || s.TLSKey != "" || s.TLSCA != ""
	if some && !s.TLS() {
		r.errs = append(r.errs, errors.New("AGENT_TLS_CERT, AGENT_TLS_KEY and AGENT_TLS_CA: set all three or none"))
	}
	ip, err := netip.ParseAddr(host)
	loopback := host == "localhost" || err == nil && ip.IsLoopback()
	if !loopback && !s.TLS() {
		r.fail("AGENT_GRPC_ADDR", s.GRPCAddr,
			"is not a loopback address, so clients must prove who they are: set AGENT_TLS_CERT, AGENT_TLS_KEY and AGENT_TLS_CA, or use 127.0.0.1")
	}
}
