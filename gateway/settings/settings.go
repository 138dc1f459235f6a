// Package settings reads the gateway's settings from environment variables, checks them, and refuses what is
// not safe. An empty variable counts as unset.
package settings

import (
	"log/slog"
	"net"
	"net/netip"
	"net/url"
	"path/filepath"
	"time"

	"github.com/edge-serverless-box/esb/guard/credentials"
	"github.com/edge-serverless-box/esb/guard/setting"
)

// Settings are the checked settings of one gateway process; their manual is the table in guard/setting. Printing them shows no
// secret.
type Settings struct {
	// HTTPSAddrs are the addresses of the HTTPS listeners, "host:port" each, none when off.
	HTTPSAddrs []string
	// HTTPAddrs are the addresses of the plain HTTP listeners, "host:port" each, none when off.
	HTTPAddrs []string
	// AdminAddr is the address of metrics, readiness, pool state and reloads, for who sends the token in the file admin-token in
	// Home ("Authorization: Bearer").
	AdminAddr string
	// MaxConnections bounds the connections of clients at HTTPSAddrs and HTTPAddrs together; one more is closed at once.
	MaxConnections int
	// MaxConnectionsPerAddress bounds those of one address, or of one IPv6 network /64.
	MaxConnectionsPerAddress int
	// MaxFunctionConnections bounds those of all functions (Subnet) together; one function's container may have an eighth of it.
	MaxFunctionConnections int
	// BufferMB is the memory in MB (1048576 bytes) for the bodies, events and answers of all requests together.
	BufferMB int
	// MaxWaiting bounds the requests that wait for a worker, of all functions together.
	MaxWaiting int

	// AgentAddr is the agent's gRPC address, "host:port".
	AgentAddr string
	// AgentSocket is the agent's unix socket, which takes the place of AgentAddr.
	AgentSocket string
	// AgentTokenFile has the token that the agent asks for on AgentAddr, unless there is mutual TLS.
	AgentTokenFile string
	// AgentTLS is the mutual TLS towards the agent; an agent that is not on loopback needs it.
	AgentTLS AgentTLS

	// FunctionsConfigPath is the file that says which functions there are.
	FunctionsConfigPath string
	// RoutingConfigPath is the file that says which route calls which function.
	RoutingConfigPath string
	// ResourcesConfigPath is the file that says which tables and buckets the box makes in its stores.
	ResourcesConfigPath string
	// ResourcesOptional is true when RESOURCES_CONFIG_PATH is not set.
	ResourcesOptional bool
	// Home is the folder of what the gateway keeps: the development CA, the key that signs tokens, and (jwks) the keys of issuers,
	// with which their tokens can be checked without a network.
	Home string

	// Replaces is whether a gateway that runs on the same Home hands its sockets over and ends.
	Replaces bool
	// Sockets describes those that this process was started with (guard/handover), empty for none.
	Sockets string

	// TLSCertFile and TLSKeyFile are the PEM certificate (with its chain) and key of the HTTPS listeners; a changed file is taken up
	// without a restart.
	TLSCertFile string
	TLSKeyFile  string

	// APIKey is what the header x-api-key must hold, at least 16 characters where other machines reach the gateway.
	APIKey setting.Secret
	// JWTSecret signs the tokens, at least 32 bytes.
	JWTSecret setting.Secret
	// JWTExpires is how long a token is good.
	JWTExpires time.Duration
	// AuthUser may log in at AuthEndpointPath.
	AuthUser string
	// AuthPass is the password of AuthUser, at least 12 characters where other machines reach the gateway.
	AuthPass setting.Secret
	// AuthEndpointPath is the path that hands out tokens.
	AuthEndpointPath string
	// LambdaAccessKeys are the secrets, by access key id, of those who may invoke every function through Lambda's API.
	LambdaAccessKeys map[string]setting.Secret
	// FunctionKeysFile holds the secret from which the functions' own access keys are made.
	FunctionKeysFile string
	// FunctionAccessFile is where the gateway writes, at start and with each change of functions.yml, which buckets and tables each
	// function may use with its own keys.
	FunctionAccessFile string
	// FunctionKeys says that functions get access keys of their own, in AWS_ACCESS_KEY_ID and its like, with which they use the
	// box's stores and Lambda's API.
	FunctionKeys bool
	// AllowInsecureDefaults permits secrets that everybody knows, and short ones, on any listener, and an admin listener that other
	// machines reach.
	AllowInsecureDefaults bool

	// IdleTimeout is when an idle worker is destroyed, for functions that do not set scaling.idle_timeout.
	IdleTimeout time.Duration
	// FunctionRuntimes are the runtimes that the box has base images of, by AWS's names: functions.yml may name them without more.
	FunctionRuntimes []string
	// CodePoll is how often function code in S3 is asked for changes, and local code looked through for such that the system did not
	// tell.
	CodePoll time.Duration
	// ImagePoll is how often the agent is asked whether it has another image under a function's name: an archive in its folder that
	// was replaced, or one that a start has pulled.
	ImagePoll time.Duration
	// HeartbeatInterval is how often the pools are compared with the agent's list of containers.
	HeartbeatInterval time.Duration
	// OrphanGracePeriod is how old a container that no pool knows must be before it is destroyed.
	OrphanGracePeriod time.Duration
	// MaxConcurrentStarts bounds the containers that start at the same time, over all functions.
	MaxConcurrentStarts int
	// CircuitBreakerFailures is how many failures in a row, of the infrastructure and not of the function itself, open a function's
	// circuit.
	CircuitBreakerFailures int
	// CircuitBreakerOpen is how long a circuit stays open before one request probes it.
	CircuitBreakerOpen time.Duration
	// StreamLimitMB is the most MB (1048576 bytes) of one streamed result; a longer one breaks off.
	StreamLimitMB int
	// InvocationOutlivesClient says that a function runs to its end when its client leaves, or its route's timeout passes, as on
	// AWS: its answer is dropped, and its container is busy until then, for at most the function's own timeout.
	InvocationOutlivesClient bool
	// CPUTurns says that invocations take turns while functions want more CPU than the machine has.
	CPUTurns bool
	// ShutdownGrace is how long a stop waits for the requests in flight, and for functions that outlive their clients.
	ShutdownGrace time.Duration

	// Async is for the queue of asynchronous invocations (docs/async.md).
	Async Async

	// S3 is the box's object store, which readiness asks and where buckets are made.
	S3 Store
	// DynamoDB is the box's DynamoDB store, which readiness asks and where tables are made.
	DynamoDB Store

	// Region is the AWS region that events and ARNs name, and requests to the stores are signed for.
	Region string
	// AccountID is the AWS account that events and ARNs name, 12 digits.
	AccountID string
	// Subnet is the function network.
	Subnet netip.Prefix
	// LogDir is the folder that takes gateway.log, from where the agent ships it when both have the same.
	LogDir string
	// ServiceLogMaxMB bounds gateway.log and its rotated files together.
	ServiceLogMaxMB int
	// LogLevel is the least level that is logged.
	LogLevel slog.Level
}

// Async says where the events of asynchronous invocations are kept, and for how long.
type Async struct {
	// NATSURL is a NATS cluster with JetStream that keeps the events, one or more URLs with commas between:
	// "nats://user:password@host:4222".
	NATSURL setting.Secret
	// NATSCredentials is a credentials file (JWT and key) for NATSURL.
	NATSCredentials string
	// NATSTLS are the PEM files for tls:// URLs: the CA of the servers, and the gateway's own certificate and key where they ask for
	// one.
	NATSTLS NATSTLS
	// NATSReplicas is how many servers of the cluster keep each event.
	NATSReplicas int
	// NATSPrefix begins the names of the streams and subjects.
	NATSPrefix string
	// MaxMB bounds the events in the queue, in MB (1048576 bytes); each counts 512 bytes besides its own.
	MaxMB int
	// DeadLetterMaxMB bounds the dead-letter queue likewise.
	DeadLetterMaxMB int
	// DeadLetterRetention is when a dead letter is dropped; 0 is never.
	DeadLetterRetention time.Duration
	// RetryBase is how long an event waits for its second try after the function failed; for the third it waits twice as long.
	RetryBase time.Duration
}

// NATSTLS names PEM files; each is empty when not set.
type NATSTLS struct {
	CAFile, CertFile, KeyFile string
}

// AgentTLS names the PEM files of the mutual TLS between gateway and agent: all three or none.
type AgentTLS struct {
	// CertFile is the gateway's certificate.
	CertFile string
	// KeyFile is the key of CertFile.
	KeyFile string
	// CAFile is the CA that signed the agent's certificate.
	CAFile string
}

// Store says how a store is reached.
type Store struct {
	// Endpoint is the store's URL, empty when the box does without the store.
	Endpoint string
	// AccessKey signs the requests.
	AccessKey string
	// SecretKey belongs to AccessKey.
	SecretKey setting.Secret
}

// Enabled says whether mutual TLS is configured.
func (t AgentTLS) Enabled() bool { return t.CertFile != "" }

// BoxAddr is the box's own address on the function network, the first one of Subnet.
func (s Settings) BoxAddr() netip.Addr { return setting.Box(s.Subnet) }

// AdminTokenFile holds the token of the admin listener, which the gateway makes at its first start.
func (s Settings) AdminTokenFile() string { return filepath.Join(s.Home, "admin-token") }

// Load reads and checks all settings; getenv is os.Getenv, except in tests. Its error is a setting.Error: every problem,
// one a line, and never the value of a secret. When JWT_SECRET_KEY is unset and nothing else is wrong, Load
// reads the key kept in Home, or makes it.
func Load(getenv func(string) string) (Settings, error) {
	r := reader{setting.NewReader(setting.Gateway, getenv)}
	s := Settings{
		AdminAddr: r.AddrOrOff("GATEWAY_ADMIN_ADDR"),
		AgentAddr: r.Addr("AGENT_GRPC_ADDR"),

		MaxConnections:           r.Int("GATEWAY_MAX_CONNECTIONS", 0, 1<<20),
		MaxConnectionsPerAddress: r.Int("GATEWAY_MAX_CONNECTIONS_PER_ADDRESS", 0, 1<<20),
		MaxFunctionConnections:   r.Int("GATEWAY_MAX_FUNCTION_CONNECTIONS", 0, 1<<20),
		BufferMB:                 r.Int("GATEWAY_BUFFER_MB", 0, 1<<20),
		MaxWaiting:               r.Int("GATEWAY_MAX_WAITING", 0, 1<<20),

		AgentTLS: AgentTLS{CertFile: r.Text("AGENT_TLS_CERT"), KeyFile: r.Text("AGENT_TLS_KEY"), CAFile: r.Text("AGENT_TLS_CA")},

		FunctionsConfigPath: r.Text("FUNCTIONS_CONFIG_PATH"),
		RoutingConfigPath:   r.Text("ROUTING_CONFIG_PATH"),
		ResourcesConfigPath: r.Text("RESOURCES_CONFIG_PATH"),
		ResourcesOptional:   !r.Set("RESOURCES_CONFIG_PATH"),
		Home:                r.Text("GATEWAY_HOME", r.Text("ESB_HOME")),

		Replaces: r.Bool("GATEWAY_REPLACES"),
		Sockets:  r.Text("GATEWAY_SOCKETS"),

		TLSCertFile: r.Text("TLS_CERT_FILE"),
		TLSKeyFile:  r.Text("TLS_KEY_FILE"),

		APIKey:                r.Secret(credentials.APIKey),
		JWTSecret:             r.jwtSecret("JWT_SECRET_KEY"),
		JWTExpires:            time.Duration(r.Int("JWT_EXPIRES_DELTA", 1, 10*365*24*3600)) * time.Second,
		AuthUser:              r.Text("AUTH_USER"),
		AuthPass:              r.Secret(credentials.Password),
		AuthEndpointPath:      r.Matching("AUTH_ENDPOINT_PATH", pathPattern, "must be a URL path such as /user/auth/ver1.0, without a slash at its end"),
		LambdaAccessKeys:      r.accessKeys(credentials.LambdaKeys, string(r.Secret(credentials.LambdaKeys))),
		AllowInsecureDefaults: r.Bool("ESB_ALLOW_INSECURE_DEFAULTS"),

		IdleTimeout:              r.Duration("IDLE_TIMEOUT_MINUTES", 0.01, 7*24*60),
		FunctionRuntimes:         r.runtimes("FUNCTION_RUNTIMES"),
		CodePoll:                 r.Duration("CODE_POLL_SECONDS", 0.1, 24*3600),
		ImagePoll:                r.Duration("IMAGE_POLL_SECONDS", 0, 24*3600),
		HeartbeatInterval:        r.Duration("HEARTBEAT_INTERVAL", 0.1, 3600),
		OrphanGracePeriod:        r.Duration("ORPHAN_GRACE_PERIOD_SECONDS", 0, 24*3600),
		MaxConcurrentStarts:      r.Int("MAX_CONCURRENT_STARTS", 0, 1000),
		CircuitBreakerFailures:   r.Int("CIRCUIT_BREAKER_FAILURES", 1, 1000),
		CircuitBreakerOpen:       r.Duration("CIRCUIT_BREAKER_OPEN_SECONDS", 0.1, 3600),
		StreamLimitMB:            r.Int("GATEWAY_STREAM_LIMIT_MB", 1, 1<<20),
		InvocationOutlivesClient: r.Bool("INVOCATION_OUTLIVES_CLIENT"),
		CPUTurns:                 r.Bool("INVOCATION_CPU_TURNS"),
		ShutdownGrace:            r.Duration("SHUTDOWN_GRACE_SECONDS", 0, 3600),

		Async: Async{
			NATSURL:             r.natsURL("ESB_NATS_URL"),
			NATSCredentials:     r.Text("ESB_NATS_CREDENTIALS"),
			NATSTLS:             NATSTLS{r.Text("ESB_NATS_CA"), r.Text("ESB_NATS_CERT"), r.Text("ESB_NATS_KEY")},
			NATSReplicas:        r.Int("ESB_NATS_REPLICAS", 1, 5),
			NATSPrefix:          r.Matching("ESB_NATS_PREFIX", prefixPattern, "must be 1 to 32 letters, digits, dashes and underscores"),
			MaxMB:               r.Int("ASYNC_MAX_MB", 16, 1<<20),
			DeadLetterMaxMB:     r.Int("ASYNC_DEAD_LETTER_MAX_MB", 16, 1<<20),
			DeadLetterRetention: r.Duration("ASYNC_DEAD_LETTER_RETENTION_DAYS", 0, 3650),
			RetryBase:           r.Duration("ASYNC_RETRY_BASE_SECONDS", 0.01, 3600),
		},

		S3:       r.store("S3"),
		DynamoDB: r.store("DYNAMODB"),

		Region:    r.Region("AWS_REGION"),
		AccountID: r.Account("AWS_ACCOUNT_ID"),
		Subnet:    r.Subnet("ESB_SUBNET", 29),
		LogLevel:  r.Level("LOG_LEVEL"),

		ServiceLogMaxMB: r.Int("SERVICE_LOG_MAX_MB", 1, 1<<20),
	}
	s.HTTPSAddrs = r.Addrs("GATEWAY_HTTPS_ADDR", r.defaultHTTPS(s.Subnet))
	s.HTTPAddrs = r.Addrs("GATEWAY_HTTP_ADDR", setting.LocalAddrs(s.Subnet, 8000))
	s.FunctionKeysFile = r.Text("FUNCTION_KEYS_FILE", filepath.Join(s.Home, "function-keys"))
	s.FunctionAccessFile = r.Text("FUNCTION_ACCESS_FILE", filepath.Join(s.Home, "function-access.json"))
	keys := setting.Off
	if s.ownStore(s.S3) && s.ownStore(s.DynamoDB) {
		keys = "on"
	}
	s.FunctionKeys = r.OnOff("FUNCTION_KEYS", keys)
	if s.AgentSocket = r.Text("AGENT_SOCKET"); s.AgentSocket == setting.Off {
		s.AgentSocket = ""
	} else if !filepath.IsAbs(s.AgentSocket) {
		r.Fail("AGENT_SOCKET", s.AgentSocket, "must be off or an absolute path")
	}
	s.AgentTokenFile = r.Text("AGENT_TOKEN_FILE", filepath.Join(s.Home, "agent-token"))
	s.LogDir = r.Text("ESB_LOG_DIR", filepath.Join(s.Home, "logs"))
	r.checkTLSFiles(s)
	r.checkAgent(s)
	r.checkNATS(s.Async)
	r.checkSecretFiles(s)
	r.checkListeners(s)
	r.checkSecrets(s)
	if err := r.Err(); err != nil {
		return Settings{}, err
	}
	s.keepSecrets(r)
	if r.checkSecrets(s); s.JWTSecret == "" && r.Err() == nil {
		secret, err := keptSecret(filepath.Join(s.Home, jwtKeyFile))
		if err != nil {
			r.Problemf("JWT_SECRET_KEY: is not set and %v", err)
		}
		s.JWTSecret = secret
	}
	if err := r.Err(); err != nil {
		return Settings{}, err
	}
	return s, nil
}

// ownStore says whether a store is on this box, or there is none.
func (s Settings) ownStore(store Store) bool {
	u, err := url.Parse(store.Endpoint)
	return store.Endpoint == "" || err == nil && setting.Local(net.JoinHostPort(u.Hostname(), "0"), s.Subnet)
}
