// Package settings reads the gateway's settings from environment variables, checks them, and refuses what is
// not safe. An empty variable counts as unset.
package settings

import (
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// DefaultAuthUser is the user who may log in.
const DefaultAuthUser = "onpremise-user"

// Development defaults of the stores' credentials, which are the stores' own too. A store refuses them where other machines
// reach it.
const (
	DefaultStoreAccessKey = "esb-dev-access"
	DefaultStoreSecretKey = "esb-dev-secret-change-in-production"
)

// Off is the value of an address that switches its listener off, and of an endpoint that is not used.
const Off = "off"

// Settings are the checked settings of one gateway process. Printing them shows no secret.
type Settings struct {
	// HTTPSAddrs are the addresses of the HTTPS listeners, "host:port" each, none when off.
	// GATEWAY_HTTPS_ADDR, a comma separated list or "off"; default port 443 of 127.0.0.1 and of the box on the function
	// network, ":443" when X_API_KEY, AUTH_PASS and LAMBDA_ACCESS_KEYS are all set.
	HTTPSAddrs []string
	// HTTPAddrs are the addresses of the plain HTTP listeners, "host:port" each, none when off.
	// Secrets can be read on their way: other machines should use HTTPS.
	// GATEWAY_HTTP_ADDR, a comma separated list or "off"; default port 8000 of 127.0.0.1 and of the box on the function network.
	HTTPAddrs []string
	// AdminAddr is the address of metrics, readiness, pool state and reloads, for who sends the token in the file admin-token
	// in Home ("Authorization: Bearer"). It has no TLS: an address that is not loopback needs ESB_ALLOW_INSECURE_DEFAULTS.
	// Empty when off. GATEWAY_ADMIN_ADDR, an address or "off"; default "127.0.0.1:9443".
	AdminAddr string
	// MaxConnections bounds the connections of clients at HTTPSAddrs and HTTPAddrs together; one more is closed at once. The
	// admin listener has 64 of its own. GATEWAY_MAX_CONNECTIONS; default 0, which means 8192, or as many as fit into half of
	// the descriptors (ulimit -n) and an eighth of the memory that the gateway may use.
	MaxConnections int
	// MaxConnectionsPerAddress bounds those of one address, or of one IPv6 network /64. Set it to MaxConnections when all
	// clients come through one proxy. GATEWAY_MAX_CONNECTIONS_PER_ADDRESS; default 0, which means a quarter of
	// MaxConnections.
	MaxConnectionsPerAddress int
	// MaxFunctionConnections bounds those of all functions (Subnet) together; one function's container may have an eighth of
	// it. GATEWAY_MAX_FUNCTION_CONNECTIONS; default 0, which means a quarter of MaxConnections.
	MaxFunctionConnections int
	// BufferMB is the memory in MB (1048576 bytes) for the bodies, events and answers of all requests together. Who asks for
	// more than is left is told 503, or 429 by Lambda's API; one client gets at most half. GATEWAY_BUFFER_MB; default 0, which
	// means 40 % of the memory that the gateway may use (GOMEMLIMIT, else 80 % of its control group's limit or half of the
	// machine's memory), at most 1024.
	BufferMB int
	// MaxWaiting bounds the requests that wait for a worker, of all functions together. Where it is reached, functions have equal
	// shares: one that has fewer waiting gets the place of one that has more, whose request that came last is told 429, as is each
	// further one. The queue of each function (scaling.queue) holds besides. GATEWAY_MAX_WAITING; default 0, which means 1000, or one for
	// each 256 KB of the memory that the gateway may use if that is less.
	MaxWaiting int

	// AgentAddr is the agent's gRPC address, "host:port". AGENT_GRPC_ADDR; default "127.0.0.1:50051".
	AgentAddr string
	// AgentSocket is the agent's unix socket, which takes the place of AgentAddr. It is open to root and to the user that the
	// agent's GATEWAY_UID names. AGENT_SOCKET, a path or "off"; default "off".
	AgentSocket string
	// AgentTokenFile has the token that the agent asks for on AgentAddr, unless there is mutual TLS. The agent makes it.
	// AGENT_TOKEN_FILE; default agent-token in Home.
	AgentTokenFile string
	// AgentTLS is the mutual TLS towards the agent; an agent that is not on loopback needs it.
	AgentTLS AgentTLS

	// FunctionsConfigPath is the file that says which functions there are.
	// FUNCTIONS_CONFIG_PATH; default "/etc/esb/functions.yml".
	FunctionsConfigPath string
	// RoutingConfigPath is the file that says which route calls which function.
	// ROUTING_CONFIG_PATH; default "/etc/esb/routing.yml".
	RoutingConfigPath string
	// ResourcesConfigPath is the file that says which tables and buckets the box makes in its stores.
	// RESOURCES_CONFIG_PATH; default "/etc/esb/resources.yml", which need not be there. One that is set must be.
	ResourcesConfigPath string
	// ResourcesOptional is true when RESOURCES_CONFIG_PATH is not set.
	ResourcesOptional bool
	// Home is the folder of what the gateway keeps: the development CA, the key that signs tokens, and (jwks) the keys of issuers,
	// with which their tokens can be checked without a network.
	// GATEWAY_HOME; default ESB_HOME, whose default is "/var/lib/esb". Natively it is the folder gateway in ESB_HOME, the gateway's
	// user's alone.
	Home string

	// Replaces is whether a gateway that runs on the same Home hands its sockets over and ends. No setting of yours: `esb up` sets it for
	// the one gateway that it starts in the place of another. Any other second gateway of a Home is refused. GATEWAY_REPLACES, true or
	// false; default false.
	Replaces bool

	// TLSCertFile and TLSKeyFile are the PEM certificate (with its chain) and key of the HTTPS listeners; a
	// changed file is taken up without a restart. TLS_CERT_FILE and TLS_KEY_FILE, both or neither; without
	// them a development CA under Home signs a certificate.
	TLSCertFile string
	TLSKeyFile  string

	// APIKey is what the header x-api-key must hold, at least 16 characters where other machines reach the gateway.
	// X_API_KEY, X_API_KEY_FILE, the key or a file with it; default one that the box makes at its first start and keeps in the file
	// credentials in Home.
	APIKey Secret
	// JWTSecret signs the tokens, at least 32 bytes. JWT_SECRET_KEY, JWT_SECRET_KEY_FILE, the key or a file with it; without both a
	// random one is made once and kept in Home, so that tokens outlive a restart.
	JWTSecret Secret
	// JWTExpires is how long a token is good. JWT_EXPIRES_DELTA, whole seconds; default 3000.
	JWTExpires time.Duration
	// AuthUser may log in at AuthEndpointPath. AUTH_USER; default DefaultAuthUser.
	AuthUser string
	// AuthPass is the password of AuthUser, at least 12 characters where other machines reach the gateway.
	// AUTH_PASS, AUTH_PASS_FILE, the password or a file with it; default one that the box makes at its first start and keeps in the file
	// credentials in Home.
	AuthPass Secret
	// AuthEndpointPath is the path that hands out tokens. AUTH_ENDPOINT_PATH; default "/user/auth/ver1.0".
	AuthEndpointPath string
	// LambdaAccessKeys are the secrets, by access key id, of those who may invoke every function through Lambda's API.
	// LAMBDA_ACCESS_KEYS, LAMBDA_ACCESS_KEYS_FILE, a comma separated list of id:secret, or "off" for none, or a file with that;
	// default one that the box makes at its first start and keeps in the file credentials in Home. Each function's own keys work besides, for what its invoke allows.
	LambdaAccessKeys map[string]Secret
	// FunctionKeysFile holds the secret from which the functions' own access keys are made. It is made once, mode 0600;
	// the stores read it too. FUNCTION_KEYS_FILE; default function-keys in Home.
	FunctionKeysFile string
	// FunctionAccessFile is where the gateway writes, at start and with each change of functions.yml, which buckets and
	// tables each function may use with its own keys. The stores read it. FUNCTION_ACCESS_FILE; default
	// function-access.json in Home.
	FunctionAccessFile string
	// FunctionKeys says that functions get access keys of their own, in AWS_ACCESS_KEY_ID and its like, with which they use
	// the box's stores and Lambda's API. Stores elsewhere do not know these keys: without them functions get the agent's
	// FUNCTION_ACCESS_KEY, for which LAMBDA_ACCESS_KEYS has to have an entry if functions are to call functions.
	// FUNCTION_KEYS, on or off; default on, off where S3_ENDPOINT or DYNAMODB_ENDPOINT leads to another machine.
	FunctionKeys bool
	// AllowInsecureDefaults permits secrets that everybody knows, and short ones, on any listener, and an admin listener that
	// other machines reach.
	// ESB_ALLOW_INSECURE_DEFAULTS, true or false; default false.
	AllowInsecureDefaults bool

	// IdleTimeout is when an idle worker is destroyed, for functions that do not set scaling.idle_timeout.
	// IDLE_TIMEOUT_MINUTES; default 5.
	IdleTimeout time.Duration
	// FunctionRuntimes are the runtimes that the box has base images of, by AWS's names: functions.yml may name them without
	// more. FUNCTION_RUNTIMES, comma-separated; default nodejs24.x,provided.al2,provided.al2023,python3.11, natively those whose images are
	// in the image folder.
	FunctionRuntimes []string
	// CodePoll is how often function code in S3 is asked for changes, and local code looked through for such that the
	// system did not tell. CODE_POLL_SECONDS; default 10.
	CodePoll time.Duration
	// ImagePoll is how often the agent is asked whether it has another image under a function's name: an archive in its folder
	// that was replaced, or one that a start has pulled. Functions then get new containers. For functions with pull_policy always, the
	// agent also asks a registry on this machine as often, others every REGISTRY_POLL_SECONDS.
	// All the same the agent is told every 5 minutes at least which images functions have: it keeps those.
	// IMAGE_POLL_SECONDS; default 2; 0 for never: the next container that starts is the first with the new image then.
	ImagePoll time.Duration
	// HeartbeatInterval is how often the pools are compared with the agent's list of containers.
	// HEARTBEAT_INTERVAL, seconds; default 30.
	HeartbeatInterval time.Duration
	// OrphanGracePeriod is how old a container that no pool knows must be before it is destroyed.
	// ORPHAN_GRACE_PERIOD_SECONDS; default 60.
	OrphanGracePeriod time.Duration
	// MaxConcurrentStarts bounds the containers that start at the same time, over all functions.
	// MAX_CONCURRENT_STARTS; default 0, which means twice the number of CPUs.
	MaxConcurrentStarts int
	// CircuitBreakerFailures is how many failures in a row, of the infrastructure and not of the function itself, open a
	// function's circuit. CIRCUIT_BREAKER_FAILURES; default 5.
	CircuitBreakerFailures int
	// CircuitBreakerOpen is how long a circuit stays open before one request probes it.
	// CIRCUIT_BREAKER_OPEN_SECONDS; default 10.
	CircuitBreakerOpen time.Duration
	// StreamLimitMB is the most MB (1048576 bytes) of one streamed result; a longer one breaks off. It does not bound
	// results that come as a whole: 6 MB. GATEWAY_STREAM_LIMIT_MB; default 200 (AWS), at most 1048576.
	StreamLimitMB int
	// InvocationOutlivesClient says that a function runs to its end when its client leaves, or its route's timeout passes, as on
	// AWS: its answer is dropped, and its container is busy until then, for at most the function's own timeout. With false the
	// invocation ends there: its processes when the time is over, its container when the client leaves. Asynchronous events run to their end in any case.
	// INVOCATION_OUTLIVES_CLIENT, true or false; default true.
	InvocationOutlivesClient bool
	// ShutdownGrace is how long a stop waits for the requests in flight, and for functions that outlive their clients.
	// SHUTDOWN_GRACE_SECONDS; default 30.
	ShutdownGrace time.Duration

	// Async is for the queue of asynchronous invocations (docs/async.md).
	Async Async

	// S3 is the box's object store, which readiness asks and where buckets are made.
	S3 Store
	// DynamoDB is the box's DynamoDB store, which readiness asks and where tables are made.
	DynamoDB Store

	// Region is the AWS region that events and ARNs name, and requests to the stores are signed for.
	// AWS_REGION; default "us-east-1".
	Region string
	// AccountID is the AWS account that events and ARNs name, 12 digits.
	// AWS_ACCOUNT_ID; default "123456789012".
	AccountID string
	// Subnet is the function network. ESB_SUBNET, an IPv4 network; default "10.88.0.0/16". The box's own
	// address on it (BoxAddr) counts as local: the agent's firewall keeps other machines off it.
	Subnet netip.Prefix
	// LogDir is the folder that takes gateway.log, from where the agent ships it when both have the same.
	// ESB_LOG_DIR; default logs in Home.
	LogDir string
	// ServiceLogMaxMB bounds gateway.log and its rotated files together. SERVICE_LOG_MAX_MB; default 64.
	ServiceLogMaxMB int
	// LogLevel is the least level that is logged. LOG_LEVEL: DEBUG, INFO, WARN or ERROR; default INFO.
	LogLevel slog.Level
}

// Async says where the events of asynchronous invocations are kept, and for how long.
type Async struct {
	// NATSURL is a NATS cluster with JetStream that keeps the events, one or more URLs with commas between:
	// "nats://user:password@host:4222". Its max_payload must be at least 8 MB. ESB_NATS_URL; without it the gateway keeps
	// them itself, in the folder async of Home.
	NATSURL Secret
	// NATSCredentials is a credentials file (JWT and key) for NATSURL. ESB_NATS_CREDENTIALS; default none.
	NATSCredentials string
	// NATSTLS are the PEM files for tls:// URLs: the CA of the servers, and the gateway's own certificate and key where they
	// ask for one. ESB_NATS_CA; ESB_NATS_CERT and ESB_NATS_KEY, both or neither. Default: the system's CAs, no certificate.
	NATSTLS NATSTLS
	// NATSReplicas is how many servers of the cluster keep each event. ESB_NATS_REPLICAS, 1 to 5; default 1.
	NATSReplicas int
	// NATSPrefix begins the names of the streams and subjects. Two boxes on one cluster need one each, or both run each
	// event. ESB_NATS_PREFIX; default "esb-async".
	NATSPrefix string
	// MaxMB bounds the events in the queue, in MB (1048576 bytes); each counts 512 bytes besides its own. A full queue
	// refuses events. ASYNC_MAX_MB; default 1024.
	MaxMB int
	// DeadLetterMaxMB bounds the dead-letter queue likewise. A failed event that it has no room for stays in the queue.
	// ASYNC_DEAD_LETTER_MAX_MB; default 256.
	DeadLetterMaxMB int
	// DeadLetterRetention is when a dead letter is dropped; 0 is never. ASYNC_DEAD_LETTER_RETENTION_DAYS; default 14 (the
	// longest of an AWS SQS queue).
	DeadLetterRetention time.Duration
	// RetryBase is how long an event waits for its second try after the function failed; for the third it waits twice as
	// long. ASYNC_RETRY_BASE_SECONDS; default 60 (AWS).
	RetryBase time.Duration
}

// NATSTLS names PEM files; each is empty when not set.
type NATSTLS struct {
	CAFile, CertFile, KeyFile string
}

// AgentTLS names the PEM files of the mutual TLS between gateway and agent: all three or none.
type AgentTLS struct {
	// CertFile is the gateway's certificate. AGENT_TLS_CERT; default none.
	CertFile string
	// KeyFile is the key of CertFile. AGENT_TLS_KEY; default none.
	KeyFile string
	// CAFile is the CA that signed the agent's certificate. AGENT_TLS_CA; default none.
	CAFile string
}

// Store says how a store is reached.
type Store struct {
	// Endpoint is the store's URL, empty when the box does without the store. S3_ENDPOINT and DYNAMODB_ENDPOINT, a URL or
	// "off"; default "http://127.0.0.1:9000" and "http://127.0.0.1:8001".
	Endpoint string
	// AccessKey signs the requests. S3_ACCESS_KEY and DYNAMODB_ACCESS_KEY; default DefaultStoreAccessKey.
	AccessKey string
	// SecretKey belongs to AccessKey. S3_SECRET_KEY and DYNAMODB_SECRET_KEY; default DefaultStoreSecretKey.
	SecretKey Secret
}

// Enabled says whether mutual TLS is configured.
func (t AgentTLS) Enabled() bool { return t.CertFile != "" }

// Secret is a text that no log line and no error shows; string(s) reveals it.
type Secret string

const redacted = "[redacted]"

// Format implements fmt.Formatter: no verb shows a secret.
func (s Secret) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, redacted) }

// MarshalText implements encoding.TextMarshaler.
func (s Secret) MarshalText() ([]byte, error) { return []byte(redacted), nil }

// LogValue implements slog.LogValuer.
func (s Secret) LogValue() slog.Value { return slog.StringValue(redacted) }

// BoxAddr is the box's own address on the function network, the first one of Subnet.
func (s Settings) BoxAddr() netip.Addr { return s.Subnet.Addr().Next() }

// AdminTokenFile holds the token of the admin listener, which the gateway makes at its first start.
func (s Settings) AdminTokenFile() string { return filepath.Join(s.Home, "admin-token") }

// Load reads and checks all settings; getenv is os.Getenv, except in tests. Its error reports every problem,
// one a line, and never the value of a secret. When JWT_SECRET_KEY is unset and nothing else is wrong, Load
// reads the key kept in Home, or makes it.
func Load(getenv func(string) string) (Settings, error) {
	l := &loader{getenv: getenv}
	l.readFiles()
	subnet := l.subnet("ESB_SUBNET", "10.88.0.0/16")
	s := Settings{
		HTTPSAddrs:  l.addrs("GATEWAY_HTTPS_ADDR", l.defaultHTTPS(subnet)),
		HTTPAddrs:   l.addrs("GATEWAY_HTTP_ADDR", localAddrs(subnet, 8000)),
		AdminAddr:   l.addrOrOff("GATEWAY_ADMIN_ADDR", "127.0.0.1:9443"),
		AgentAddr:   l.addr("AGENT_GRPC_ADDR", "127.0.0.1:50051"),
		AgentSocket: l.text("AGENT_SOCKET", "off"),

		MaxConnections:           l.integer("GATEWAY_MAX_CONNECTIONS", 0, 0, 1<<20),
		MaxConnectionsPerAddress: l.integer("GATEWAY_MAX_CONNECTIONS_PER_ADDRESS", 0, 0, 1<<20),
		MaxFunctionConnections:   l.integer("GATEWAY_MAX_FUNCTION_CONNECTIONS", 0, 0, 1<<20),
		BufferMB:                 l.integer("GATEWAY_BUFFER_MB", 0, 0, 1<<20),
		MaxWaiting:               l.integer("GATEWAY_MAX_WAITING", 0, 0, 1<<20),

		AgentTLS: AgentTLS{
			CertFile: l.text("AGENT_TLS_CERT", ""),
			KeyFile:  l.text("AGENT_TLS_KEY", ""),
			CAFile:   l.text("AGENT_TLS_CA", ""),
		},

		FunctionsConfigPath: l.text("FUNCTIONS_CONFIG_PATH", "/etc/esb/functions.yml"),
		RoutingConfigPath:   l.text("ROUTING_CONFIG_PATH", "/etc/esb/routing.yml"),
		ResourcesConfigPath: l.text("RESOURCES_CONFIG_PATH", "/etc/esb/resources.yml"),
		ResourcesOptional:   getenv("RESOURCES_CONFIG_PATH") == "",
		Home:                l.text("GATEWAY_HOME", l.text("ESB_HOME", "/var/lib/esb")),

		Replaces: l.boolean("GATEWAY_REPLACES", false),

		TLSCertFile: l.text("TLS_CERT_FILE", ""),
		TLSKeyFile:  l.text("TLS_KEY_FILE", ""),

		APIKey:                Secret(l.text("X_API_KEY", "")),
		JWTSecret:             l.jwtSecret("JWT_SECRET_KEY"),
		JWTExpires:            time.Duration(l.integer("JWT_EXPIRES_DELTA", 3000, 1, 10*365*24*3600)) * time.Second,
		AuthUser:              l.text("AUTH_USER", DefaultAuthUser),
		AuthPass:              Secret(l.text("AUTH_PASS", "")),
		AuthEndpointPath:      l.urlPath("AUTH_ENDPOINT_PATH", "/user/auth/ver1.0"),
		LambdaAccessKeys:      l.accessKeys("LAMBDA_ACCESS_KEYS", l.text("LAMBDA_ACCESS_KEYS", Off)),
		AllowInsecureDefaults: l.boolean("ESB_ALLOW_INSECURE_DEFAULTS", false),

		IdleTimeout:              l.duration("IDLE_TIMEOUT_MINUTES", time.Minute, 5, 0.01, 7*24*60),
		FunctionRuntimes:         l.runtimes("FUNCTION_RUNTIMES"),
		CodePoll:                 l.duration("CODE_POLL_SECONDS", time.Second, 10, 0.1, 24*3600),
		ImagePoll:                l.duration("IMAGE_POLL_SECONDS", time.Second, 2, 0, 24*3600),
		HeartbeatInterval:        l.duration("HEARTBEAT_INTERVAL", time.Second, 30, 0.1, 3600),
		OrphanGracePeriod:        l.duration("ORPHAN_GRACE_PERIOD_SECONDS", time.Second, 60, 0, 24*3600),
		MaxConcurrentStarts:      l.integer("MAX_CONCURRENT_STARTS", 0, 0, 1000),
		CircuitBreakerFailures:   l.integer("CIRCUIT_BREAKER_FAILURES", 5, 1, 1000),
		CircuitBreakerOpen:       l.duration("CIRCUIT_BREAKER_OPEN_SECONDS", time.Second, 10, 0.1, 3600),
		StreamLimitMB:            l.integer("GATEWAY_STREAM_LIMIT_MB", 200, 1, 1<<20),
		InvocationOutlivesClient: l.boolean("INVOCATION_OUTLIVES_CLIENT", true),
		ShutdownGrace:            l.duration("SHUTDOWN_GRACE_SECONDS", time.Second, 30, 0, 3600),

		Async: Async{
			NATSURL:             l.natsURL("ESB_NATS_URL"),
			NATSCredentials:     l.text("ESB_NATS_CREDENTIALS", ""),
			NATSTLS:             NATSTLS{l.text("ESB_NATS_CA", ""), l.text("ESB_NATS_CERT", ""), l.text("ESB_NATS_KEY", "")},
			NATSReplicas:        l.integer("ESB_NATS_REPLICAS", 1, 1, 5),
			NATSPrefix:          l.matching("ESB_NATS_PREFIX", "esb-async", prefixPattern, "1 to 32 letters, digits, dashes and underscores"),
			MaxMB:               l.integer("ASYNC_MAX_MB", 1024, 16, 1<<20),
			DeadLetterMaxMB:     l.integer("ASYNC_DEAD_LETTER_MAX_MB", 256, 16, 1<<20),
			DeadLetterRetention: l.duration("ASYNC_DEAD_LETTER_RETENTION_DAYS", 24*time.Hour, 14, 0, 3650),
			RetryBase:           l.duration("ASYNC_RETRY_BASE_SECONDS", time.Second, 60, 0.01, 3600),
		},

		S3:       l.store("S3", "http://127.0.0.1:9000"),
		DynamoDB: l.store("DYNAMODB", "http://127.0.0.1:8001"),

		Region:    l.matching("AWS_REGION", "us-east-1", regionPattern, "a region name such as us-east-1"),
		AccountID: l.matching("AWS_ACCOUNT_ID", "123456789012", accountPattern, "12 digits"),
		Subnet:    subnet,
		LogLevel:  l.level("LOG_LEVEL", slog.LevelInfo),

		ServiceLogMaxMB: l.integer("SERVICE_LOG_MAX_MB", 64, 1, 1<<20),
	}
	s.FunctionKeysFile = l.text("FUNCTION_KEYS_FILE", filepath.Join(s.Home, "function-keys"))
	s.FunctionAccessFile = l.text("FUNCTION_ACCESS_FILE", filepath.Join(s.Home, "function-access.json"))
	s.FunctionKeys = l.onOff("FUNCTION_KEYS", s.ownStore(s.S3) && s.ownStore(s.DynamoDB))
	if s.AgentSocket == "off" {
		s.AgentSocket = ""
	} else if !filepath.IsAbs(s.AgentSocket) {
		l.problemf("AGENT_SOCKET: must be off or an absolute path, got %q", s.AgentSocket)
	}
	s.AgentTokenFile = l.text("AGENT_TOKEN_FILE", filepath.Join(s.Home, "agent-token"))
	s.LogDir = l.text("ESB_LOG_DIR", filepath.Join(s.Home, "logs"))
	l.checkTLSFiles(s)
	l.checkAgent(s)
	l.checkNATS(s.Async)
	l.checkSecretFiles(s)
	l.checkListeners(s)
	l.checkSecrets(s)
	if len(l.problems) > 0 {
		return Settings{}, &Error{Problems: l.problems}
	}
	if err := s.keepSecrets(l); err != nil {
		return Settings{}, &Error{Problems: []string{err.Error()}}
	}
	if l.checkSecrets(s); len(l.problems) > 0 {
		return Settings{}, &Error{Problems: l.problems}
	}
	if s.JWTSecret == "" {
		secret, err := keptSecret(filepath.Join(s.Home, jwtKeyFile))
		if err != nil {
			return Settings{}, &Error{Problems: []string{fmt.Sprintf("JWT_SECRET_KEY: is not set and %v", err)}}
		}
		s.JWTSecret = secret
	}
	return s, nil
}

// Error lists everything that is wrong with the settings.
type Error struct {
	// Problems are one sentence each: the variable, its value unless it is secret, and what would be right.
	Problems []string
}

// Error implements error, one problem a line.
func (e *Error) Error() string { return strings.Join(e.Problems, "\n") }

func (l *loader) checkTLSFiles(s Settings) {
	switch {
	case s.TLSCertFile != "" && s.TLSKeyFile == "":
		l.problemf("TLS_KEY_FILE: is missing: TLS_CERT_FILE is set and needs its key; set both or neither")
	case s.TLSCertFile == "" && s.TLSKeyFile != "":
		l.problemf("TLS_CERT_FILE: is missing: TLS_KEY_FILE is set and needs its certificate; set both or neither")
	}
}

func (l *loader) checkAgent(s Settings) {
	files := []struct{ name, path string }{
		{"AGENT_TLS_CERT", s.AgentTLS.CertFile},
		{"AGENT_TLS_KEY", s.AgentTLS.KeyFile},
		{"AGENT_TLS_CA", s.AgentTLS.CAFile},
	}
	var set, missing []string
	for _, f := range files {
		if f.path != "" {
			set = append(set, f.name)
		} else {
			missing = append(missing, f.name)
		}
	}
	switch {
	case len(set) > 0 && len(missing) > 0:
		l.problemf("%s: missing beside %s: mutual TLS with the agent needs all three or none",
			strings.Join(missing, ", "), strings.Join(set, ", "))
	case len(set) == 0 && s.AgentAddr != "" && !loopback(s.AgentAddr):
		l.problemf("AGENT_GRPC_ADDR: %q is not on loopback and so needs mutual TLS: set AGENT_TLS_CERT, AGENT_TLS_KEY and AGENT_TLS_CA",
			s.AgentAddr)
	}
}

// checkNATS finds settings of a cluster that there is none for, and files that cannot be read.
func (l *loader) checkNATS(a Async) {
	for _, f := range []struct{ name, path string }{
		{"ESB_NATS_CREDENTIALS", a.NATSCredentials}, {"ESB_NATS_CA", a.NATSTLS.CAFile},
		{"ESB_NATS_CERT", a.NATSTLS.CertFile}, {"ESB_NATS_KEY", a.NATSTLS.KeyFile},
	} {
		if f.path == "" {
			continue
		}
		if a.NATSURL == "" && !l.failed("ESB_NATS_URL") {
			l.problemf("%s: is for a NATS cluster: set ESB_NATS_URL too", f.name)
			continue
		}
		if file, err := os.Open(f.path); err != nil {
			l.problemf("%s: %v", f.name, err)
		} else {
			_ = file.Close()
		}
	}
	if (a.NATSTLS.CertFile == "") != (a.NATSTLS.KeyFile == "") {
		l.problemf("ESB_NATS_CERT, ESB_NATS_KEY: set both or neither")
	}
	if a.NATSURL == "" && a.NATSReplicas > 1 && !l.failed("ESB_NATS_URL") {
		l.problemf("ESB_NATS_REPLICAS: is for a NATS cluster: set ESB_NATS_URL too")
	}
}

// checkListeners finds two listeners on one address; port 0 means any free port and never clashes.
func (l *loader) checkListeners(s Settings) {
	if len(s.HTTPSAddrs)+len(s.HTTPAddrs) == 0 && !l.failed("GATEWAY_HTTPS_ADDR", "GATEWAY_HTTP_ADDR") {
		l.problemf("GATEWAY_HTTPS_ADDR, GATEWAY_HTTP_ADDR: both are off: clients need one of them")
	}
	owner := make(map[string]string)
	claim := func(name, addr string) {
		if _, port, err := net.SplitHostPort(addr); err != nil || port == "0" {
			return
		}
		if other, taken := owner[addr]; taken {
			l.problemf("%s: %q is listed already by %s: give each listener an address of its own", name, addr, other)
			return
		}
		owner[addr] = name
	}
	for _, addr := range s.HTTPSAddrs {
		claim("GATEWAY_HTTPS_ADDR", addr)
	}
	for _, addr := range s.HTTPAddrs {
		claim("GATEWAY_HTTP_ADDR", addr)
	}
	if s.AdminAddr != "" {
		claim("GATEWAY_ADMIN_ADDR", s.AdminAddr)
	}
}

// local says whether only this box and its functions can reach addr.
func (s Settings) local(addr string) bool {
	if loopback(addr) {
		return true
	}
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return false
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && s.Subnet.IsValid() && ip.Unmap() == s.BoxAddr()
}

// ownStore says whether a store is on this box, or there is none.
func (s Settings) ownStore(store Store) bool {
	u, err := url.Parse(store.Endpoint)
	return store.Endpoint == "" || err == nil && s.local(net.JoinHostPort(u.Hostname(), "0"))
}

func loopback(addr string) bool {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return false
	}
	if host == "localhost" {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.Unmap().IsLoopback()
}
