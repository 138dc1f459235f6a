// Package settings reads the agent's settings from environment variables.
package settings

import (
	"fmt"
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

	"github.com/edge-serverless-box/esb/guard/setting"
)

// DefaultRunRoot is the folder with the run folders of all stacks that do not set their own.
const DefaultRunRoot = "/run/esb"

// Settings of the agent; their manual is the table in guard/setting.
type Settings struct {
	// Home is the folder of everything that outlives a reboot. Address leases are in RunDir: they end with a reboot.
	Home string
	// RunDir is the folder of what does not outlive a reboot: sockets and the files of running containers.
	RunDir string
	// BinDir holds containerd, its shim, runc, esb-runc, the CNI plugins and lambda-init.
	BinDir string
	// GRPCAddr is where the agent serves, beside its socket.
	GRPCAddr string
	// Socket is a unix socket on which the agent serves root and GatewayUID, without a token. Empty when off.
	Socket string
	// TokenFile has the token that calls over TCP bring.
	TokenFile string
	// GatewayUID is the user that the gateway runs as.
	GatewayUID int
	// TLSCert and TLSKey are the agent's certificate and key; TLSCA is the authority of clients' certificates. PEM files.
	TLSCert, TLSKey, TLSCA string
	// ContainerdAddress is the socket of a containerd that somebody else runs. Empty: the agent starts one of its own.
	ContainerdAddress string
	// Subnet is the IPv4 network of function containers; its first address is the box.
	Subnet netip.Prefix
	// Bridge is the bridge of that network; it also names the cgroup and the folder of this stack.
	Bridge string
	// MTU is that of function networks in bytes; 0 takes that of the link with the default route.
	MTU int
	// DNS are the nameservers of function containers; none takes the host's.
	DNS []netip.Addr
	// HostPorts are the TCP ports of the box that functions may reach.
	HostPorts []uint16
	// EgressDeny are networks that functions may not reach.
	EgressDeny []netip.Prefix
	// NetworkPoolSize is how many network namespaces are made ahead.
	NetworkPoolSize int
	// ArchivesDir holds image archives.
	ArchivesDir string
	// ImageMaxMB bounds the layers of one image, unpacked.
	ImageMaxMB int
	// ImagesUnusedFor is how long an image is kept that nothing uses; 0 is for ever.
	ImagesUnusedFor time.Duration
	// ImageStoreMaxMB is how many MB all images may take; 0 is no bound.
	ImageStoreMaxMB int
	// ArchivesUnusedFor is how long an archive is kept whose images nothing uses; 0 is for ever.
	ArchivesUnusedFor time.Duration
	// ArchivesMaxMB is how many MB all archives may take; 0 is no bound.
	ArchivesMaxMB int
	// Registry is the registry of references without a host.
	Registry string
	// PlainHTTP are the registries spoken to without TLS, besides those on loopback.
	PlainHTTP []string
	// RegistryPoll is how often a registry elsewhere is asked for another image under a tag; 0 is never.
	RegistryPoll time.Duration
	// RegistryConfig is a Docker config.json with credentials.
	RegistryConfig string
	// RegistryUser and RegistryPassword are the credentials for Registry; RegistryPasswordFile has the password where none is set.
	RegistryUser         string
	RegistryPassword     setting.Secret
	RegistryPasswordFile string
	// S3Endpoint is the store of function code at s3:// locations, empty when off, with S3AccessKey and S3SecretKey.
	S3Endpoint, S3AccessKey, S3SecretKey string
	// FunctionS3Endpoint and FunctionDynamoDBEndpoint are where functions find the stores; empty when off.
	FunctionS3Endpoint, FunctionDynamoDBEndpoint string
	// S3PublicEndpoint is where clients outside reach S3.
	S3PublicEndpoint string
	// FunctionLambdaEndpoint is where functions find Lambda's API; empty when off.
	FunctionLambdaEndpoint string
	// FunctionAccessKey and FunctionSecretKey are the credentials of functions to which the gateway gives none of their own.
	FunctionAccessKey string
	FunctionSecretKey setting.Secret
	// CodeRoots are where function code and layers may lie on this machine.
	CodeRoots []string
	// CodeCacheMB bounds the unpacked code that no container uses.
	CodeCacheMB int
	// TmpSizeMB is the size of /tmp where a function does not say.
	TmpSizeMB int
	// TmpOnDisk is whether /tmp of functions is on the disk of Home, else in memory.
	TmpOnDisk bool
	// TmpReserveMB is what stays free on the disk of Home.
	TmpReserveMB int
	// CPUWeight is what all functions together count against everything else that wants the CPU.
	CPUWeight int
	// MemoryBudget is what all functions together may hold.
	MemoryBudget MemoryShare
	// PIDsLimit bounds the processes and threads of a container.
	PIDsLimit int
	// NoFile bounds the open files of a process.
	NoFile int
	// UIDBase is the first of the user and group ids that the box takes for its own.
	UIDBase uint32
	// LogDir is the folder of log files.
	LogDir string
	// ServiceLogMaxMB bounds agent.log and its rotated files together.
	ServiceLogMaxMB int
	// OutputKBPerSecond is how much log a container may write a second.
	OutputKBPerSecond int
	// LogMaxMB bounds what the function logs take on disk together.
	LogMaxMB int
	// VictoriaLogsURL is the VictoriaLogs that gets all log lines. Empty: nothing is shipped.
	VictoriaLogsURL string
	// VictoriaLogsUser and VictoriaLogsPassword are sent to it when there is a user; VictoriaLogsPasswordFile has the password where
	// none is set.
	VictoriaLogsUser         string
	VictoriaLogsPassword     setting.Secret
	VictoriaLogsPasswordFile string
	// FunctionLogsAddr is where functions may post log lines; empty when they may not.
	FunctionLogsAddr string
	// FunctionLogsKBPerSecond is how much one container may post there.
	FunctionLogsKBPerSecond int
	// LogDayMB is how many megabytes of lines of one function the log store gets in a day; 0 is no bound.
	LogDayMB int
	// LogShipBatchBytes is the size of a batch.
	LogShipBatchBytes int
	// LogShipInterval is how long a line waits at most until it is sent.
	LogShipInterval time.Duration
	// ReadyTimeout is how long a started container may take until its worker endpoint answers.
	ReadyTimeout time.Duration
	// MaxStarts bounds containers being made at once.
	MaxStarts int
	// ParkedSandboxes is how many containers are kept that are nobody's yet, ParkedSandboxesMax up to how many that grows.
	ParkedSandboxes, ParkedSandboxesMax int
	// StemCells is how many of them have a runtime started ahead, of each kind that functions need.
	StemCells int
	// Region and AccountID are what functions see.
	Region, AccountID string
	// MetricsAddr is where the agent's counters are, without credentials; empty when off.
	MetricsAddr string
	// LogLevel is that of the agent's own log.
	LogLevel slog.Level
}

// bridgeName is what the kernel takes as a link's name and what is harmless in the paths derived from it.
var bridgeName = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_.-]{0,14}$`)

// maxSocket is the longest path of a unix socket (Linux: sun_path).
const maxSocket = 107

// unmountable are characters with a meaning in the options of a mount.
const unmountable = `:,\`

// Load reads the settings; getenv is usually os.Getenv, executable the agent's own path. The error names every variable that is
// wrong.
func Load(getenv func(string) string, executable string) (Settings, error) {
	r := reader{setting.NewReader(setting.Agent, getenv)}
	s := Settings{
		Home:                     r.Path("ESB_HOME"),
		BinDir:                   r.Path("ESB_BIN_DIR", filepath.Dir(executable)),
		GRPCAddr:                 r.Addr("AGENT_GRPC_ADDR"),
		GatewayUID:               r.Int("GATEWAY_UID", 0, 1<<31-1),
		TLSCert:                  r.Path("AGENT_TLS_CERT"),
		TLSKey:                   r.Path("AGENT_TLS_KEY"),
		TLSCA:                    r.Path("AGENT_TLS_CA"),
		ContainerdAddress:        strings.TrimPrefix(r.Text("CONTAINERD_ADDRESS"), "unix://"),
		Subnet:                   r.Subnet("ESB_SUBNET", 29),
		Bridge:                   r.Matching("ESB_BRIDGE", bridgeName, "must be 1 to 15 letters, digits, '_', '.' or '-'"),
		MTU:                      r.Int("ESB_MTU", 0, 65535),
		DNS:                      r.nameservers("ESB_DNS"),
		HostPorts:                r.Ports("FUNCTION_HOST_PORTS"),
		EgressDeny:               r.networks("FUNCTION_EGRESS_DENY"),
		NetworkPoolSize:          r.Int("NETWORK_POOL_SIZE", 0, 256),
		ImageMaxMB:               r.Int("IMAGE_MAX_MB", 1, 1<<20),
		ImagesUnusedFor:          r.Duration("IMAGE_UNUSED_DAYS", 0, 3650),
		ImageStoreMaxMB:          r.Int("IMAGE_STORE_MAX_MB", 0, 1<<24),
		ArchivesUnusedFor:        r.Duration("IMAGE_ARCHIVES_UNUSED_DAYS", 0, 3650),
		ArchivesMaxMB:            r.Int("IMAGE_ARCHIVES_MAX_MB", 0, 1<<24),
		Registry:                 r.Text("ESB_REGISTRY"),
		RegistryPoll:             r.Duration("REGISTRY_POLL_SECONDS", 0, 86400),
		PlainHTTP:                r.List("REGISTRY_PLAIN_HTTP"),
		RegistryConfig:           r.Path("REGISTRY_CONFIG"),
		RegistryUser:             r.Text("ESB_REGISTRY_USER"),
		RegistryPassword:         r.Secret("ESB_REGISTRY_PASSWORD"),
		RegistryPasswordFile:     r.Path("ESB_REGISTRY_PASSWORD_FILE"),
		S3Endpoint:               r.URL("S3_ENDPOINT"),
		S3AccessKey:              r.Text("S3_ACCESS_KEY"),
		S3SecretKey:              string(r.Secret("S3_SECRET_KEY")),
		S3PublicEndpoint:         r.URL("S3_PUBLIC_ENDPOINT"),
		CodeRoots:                r.folders("CODE_ROOTS"),
		CodeCacheMB:              r.Int("CODE_CACHE_MB", 1, 1<<20),
		TmpSizeMB:                r.Int("FUNCTION_TMP_SIZE_MB", 1, 10240),
		TmpOnDisk:                r.Choice("FUNCTION_TMP", []string{"disk", "memory"}) == "disk",
		TmpReserveMB:             r.Int("FUNCTION_TMP_RESERVE_MB", 0, 1<<30),
		MemoryBudget:             r.memory("FUNCTION_MEMORY_BUDGET"),
		CPUWeight:                r.Int("FUNCTION_CPU_WEIGHT", 1, 10000),
		PIDsLimit:                r.Int("FUNCTION_PIDS_LIMIT", 16, 1<<22),
		NoFile:                   r.Int("FUNCTION_NOFILE", 64, 1<<20),
		UIDBase:                  uint32(r.Int("FUNCTION_UID_BASE", 65536, 2080243711)),
		OutputKBPerSecond:        r.Int("FUNCTION_OUTPUT_KB_PER_SECOND", 64, 1<<20),
		LogMaxMB:                 r.Int("FUNCTION_LOG_MAX_MB", 1, 1<<20),
		MetricsAddr:              r.loopback("AGENT_METRICS_ADDR"),
		ServiceLogMaxMB:          r.Int("SERVICE_LOG_MAX_MB", 1, 1<<20),
		VictoriaLogsURL:          r.URL("VICTORIALOGS_URL"),
		VictoriaLogsUser:         r.Text("VICTORIALOGS_USER"),
		VictoriaLogsPassword:     r.Secret("VICTORIALOGS_PASSWORD"),
		VictoriaLogsPasswordFile: r.Path("VICTORIALOGS_PASSWORD_FILE"),
		FunctionLogsKBPerSecond:  r.Int("FUNCTION_LOGS_KB_PER_SECOND", 1, 1<<20),
		LogShipBatchBytes:        r.Int("LOG_SHIP_BATCH_BYTES", 16<<10, 32<<20),
		LogShipInterval:          r.Duration("LOG_SHIP_INTERVAL_MS", 10, 60_000),
		ReadyTimeout:             r.Duration("CONTAINER_READY_TIMEOUT_SECONDS", 1, 900),
		MaxStarts:                r.Int("MAX_CONCURRENT_STARTS", 0, 1024),
		ParkedSandboxes:          r.Int("PARKED_SANDBOXES", 0, 256, strconv.Itoa(min(2*runtime.NumCPU(), 256))),
		ParkedSandboxesMax:       r.Int("PARKED_SANDBOXES_MAX", 0, 1024, strconv.Itoa(min(8*runtime.NumCPU(), 1024))),
		StemCells:                r.Int("STEM_CELLS", 0, 16),
		Region:                   r.Region("AWS_REGION"),
		AccountID:                r.Account("AWS_ACCOUNT_ID"),
		LogLevel:                 r.Level("LOG_LEVEL"),
	}
	s.FunctionS3Endpoint = r.URL("FUNCTION_S3_ENDPOINT", s.fromFunctions(s.S3Endpoint))
	s.FunctionDynamoDBEndpoint = r.URL("FUNCTION_DYNAMODB_ENDPOINT", s.fromFunctions(r.URL("DYNAMODB_ENDPOINT")))
	s.FunctionLambdaEndpoint = r.URL("FUNCTION_LAMBDA_ENDPOINT", s.fromFunctions("http://127.0.0.1:8000"))
	s.FunctionAccessKey = r.Text("FUNCTION_ACCESS_KEY", s.S3AccessKey)
	s.FunctionSecretKey = r.Secret("FUNCTION_SECRET_KEY", s.S3SecretKey)
	s.RunDir = r.Path("ESB_RUN_DIR", filepath.Join(DefaultRunRoot, s.Bridge))
	if s.Socket = r.Text("AGENT_SOCKET", filepath.Join(s.RunDir, "agent.sock")); s.Socket == setting.Off {
		s.Socket = ""
	} else if !filepath.IsAbs(s.Socket) || len(s.Socket) > maxSocket {
		r.Fail("AGENT_SOCKET", s.Socket, fmt.Sprintf("must be off or an absolute path of at most %d bytes", maxSocket))
	}
	s.TokenFile = r.Path("AGENT_TOKEN_FILE", filepath.Join(s.Home, "agent-token"))
	s.LogDir = r.Path("ESB_LOG_DIR", filepath.Join(s.Home, "logs"))
	s.ArchivesDir = r.Path("IMAGE_ARCHIVES_DIR", filepath.Join(s.Home, "images"))
	s.FunctionLogsAddr = r.functionLogsAddr(s)
	s.LogDayMB = r.Int("FUNCTION_LOG_DAY_MB", 0, 1<<30, strconv.Itoa(max(r.Int("VICTORIALOGS_MAX_MB", 16, 1<<30)/4, 1)))
	if s.MaxStarts == 0 {
		s.MaxStarts = 2 * runtime.NumCPU()
	}
	r.check(s)
	return s, r.Err()
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

// TLS says whether the agent serves with mutual TLS.
func (s Settings) TLS() bool { return s.TLSCert != "" && s.TLSKey != "" && s.TLSCA != "" }

// fromFunctions is an endpoint as functions reach it, "off" when there is none: loopback is the box's address for them.
func (s Settings) fromFunctions(endpoint string) string {
	u, err := url.Parse(endpoint)
	if err != nil || endpoint == "" || !s.Subnet.IsValid() {
		return setting.Off
	}
	if ip, err := netip.ParseAddr(u.Hostname()); u.Hostname() == "localhost" || err == nil && (ip.IsLoopback() || ip.IsUnspecified()) {
		box := setting.Box(s.Subnet).String()
		if port := u.Port(); port != "" {
			box = net.JoinHostPort(box, port)
		}
		u.Host = box
	}
	return u.String()
}
