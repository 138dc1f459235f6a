// Package settings reads the environment of the native way. Every other variable is passed on to the services as it
// is; their own settings packages say what they understand.
package settings

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/edge-serverless-box/esb/guard/credentials"
	"github.com/edge-serverless-box/esb/native"
)

// DefaultUser is the gateway's default for AUTH_USER.
const DefaultUser = "onpremise-user"

// Off is the value of an address that switches a listener off.
const Off = "off"

// Ports of the box's stores that functions may reach besides the gateway (docs/system-specification.md 4).
const (
	s3Port       = 9000
	dynamoDBPort = 8001
	logsPort     = 9428
)

// Settings of one stack.
type Settings struct {
	// Root is the repository.
	Root string
	// Home (ESB_HOME) is the folder of the stack's state: images, containers, certificates, logs. Two stacks on
	// one machine need different ones. Default: .esb in the repository.
	Home string
	// LogDir (ESB_LOG_DIR) holds the log files of the services and, below functions, of the containers. Default: logs in
	// Home.
	LogDir string
	// BinDir (ESB_BIN_DIR) holds the binaries; stacks share them. Default: .esb/bin in the repository.
	BinDir string
	// ImagesDir (IMAGE_ARCHIVES_DIR) holds the archives of function images. Default: images in Home.
	ImagesDir string
	// HTTPSAddrs (GATEWAY_HTTPS_ADDR) is a comma-separated list of host:port. Default: port 443 of 127.0.0.1 and of the
	// box's own address on the function network; with X_API_KEY, AUTH_PASS and LAMBDA_ACCESS_KEYS of one's own, ":443".
	HTTPSAddrs []string
	// HTTPAddrs (GATEWAY_HTTP_ADDR) is the same for plain HTTP, where secrets can be read on the way. One of the two may be
	// "off". Default: port 8000 of 127.0.0.1 and of the box's own address on the function network.
	HTTPAddrs []string
	// AdminAddr (GATEWAY_ADMIN_ADDR) is the gateway's admin listener. Default: 127.0.0.1:9443.
	AdminAddr string
	// AgentAddr (AGENT_GRPC_ADDR) is the agent's listener. Default: 127.0.0.1:50051.
	AgentAddr string
	// AgentSocket (AGENT_SOCKET, a path or "off") is the agent's unix socket, by which gateway and esb speak to it. Default:
	// agent.sock in ESB_RUN_DIR.
	AgentSocket string
	// AgentTokenFile (AGENT_TOKEN_FILE) has the token that the agent asks for at AGENT_GRPC_ADDR. Default: agent-token in
	// ESB_HOME.
	AgentTokenFile string
	// CodeRoots (CODE_ROOTS, comma-separated folders) are where function code and layers may lie, besides in S3. Default: the
	// folder of FUNCTIONS_CONFIG_PATH.
	CodeRoots string
	// AgentTLS (AGENT_TLS_CERT, AGENT_TLS_KEY, AGENT_TLS_CA) are the files of mutual TLS with the agent, for an
	// AgentAddr that is not loopback. Default: none.
	AgentTLS TLSFiles
	// ContainerdAddress (CONTAINERD_ADDRESS) is the socket of a containerd that somebody else runs. Default: none, the
	// agent starts its own.
	ContainerdAddress string
	// Subnet (ESB_SUBNET) is the function network. Default: 10.88.0.0/16.
	Subnet netip.Prefix
	// Bridge (ESB_BRIDGE) is the function network's bridge, and names the stack's cgroup, firewall table and run
	// folder: two stacks on one machine need different ones. Default: esb0.
	Bridge string
	// AgentRunDir (ESB_RUN_DIR) holds the agent's sockets, whose paths must be short. Default: /run/esb/<bridge>.
	AgentRunDir string
	// FunctionsConfig (FUNCTIONS_CONFIG_PATH) is the file of the functions. Default: functions/functions.yml in the repository.
	FunctionsConfig string
	// RoutingConfig (ROUTING_CONFIG_PATH) is the file of the routes. Default: functions/routing.yml in the repository.
	RoutingConfig string
	// ResourcesConfig (RESOURCES_CONFIG_PATH) is the file of tables and buckets. Default: functions/resources.yml in the repository.
	ResourcesConfig string
	// HostPorts (FUNCTION_HOST_PORTS) are the ports of the box that functions may reach. Default: the real ports of the
	// gateway and of the stores; 9000, 8001 and 9428 for stores that are not the native ones.
	HostPorts []uint16
	// DataDir (ESB_DATA_DIR) holds the data of the native stores, which `down` keeps. Default: data in Home.
	DataDir string
	// S3Addrs (S3_ADDR), S3UIAddrs (S3_UI_ADDR), DynamoDBAddrs (DYNAMODB_ADDR), LogsAddrs (VICTORIALOGS_ADDR) and RegistryAddrs
	// (REGISTRY_ADDR) are where the native stores listen, comma-separated lists of host:port; "off" does without that
	// one, and is the default where an endpoint of another store is given. ESB_STORES, on or off; off does without all of them.
	// Defaults: on; ports 9000 and 8001 of 127.0.0.1 and of the box's own address on the function network; 127.0.0.1:9001,
	// 127.0.0.1:9428 and 127.0.0.1:5010.
	S3Addrs, S3UIAddrs, DynamoDBAddrs, LogsAddrs, RegistryAddrs []string
	// NotAvailable are the native stores that would be on, were they made for this machine's processor. They are off.
	NotAvailable []Missing
	// S3Endpoint (S3_ENDPOINT), DynamoDBEndpoint (DYNAMODB_ENDPOINT) and LogsURL (VICTORIALOGS_URL) are where the services
	// find the stores, a URL or "off". Defaults: the native stores; "off" where there is none. Registry (ESB_REGISTRY) is
	// host:port of the registry of images without a host in their names. Default: the native one.
	S3Endpoint, DynamoDBEndpoint, LogsURL, Registry string
	// LogsUser (VICTORIALOGS_USER) and LogsPasswordFile (VICTORIALOGS_PASSWORD_FILE) are the credentials of VictoriaLogs, which
	// also `esb logs` uses; VICTORIALOGS_PASSWORD goes before the file. Default: esb and logs.password in ESB_DATA_DIR, which the
	// native VictoriaLogs makes at its first start; none with another one.
	LogsUser, LogsPasswordFile string
	// RegistryUser (ESB_REGISTRY_USER) and RegistryPasswordFile (ESB_REGISTRY_PASSWORD_FILE) are the credentials of the registry;
	// ESB_REGISTRY_PASSWORD goes before the file. Default: esb and registry.password in ESB_DATA_DIR, which the native registry
	// makes at its first start; none with another one.
	RegistryUser, RegistryPasswordFile string
	// FunctionLogsAddr (FUNCTION_LOGS_ADDR) is where functions may post log lines, or "off". Default: the box's own address on
	// the function network, with the port of VictoriaLogs.
	FunctionLogsAddr string
	// LambdaEndpoint (FUNCTION_LAMBDA_ENDPOINT) is where functions find the gateway's Invoke API, a URL or "off". Default: the
	// gateway's HTTP listener at the box's own address; "off" when it does not listen there.
	LambdaEndpoint string
	// ShutdownGrace (SHUTDOWN_GRACE_SECONDS) is how long the gateway may finish requests in flight. Default: 30 s.
	ShutdownGrace time.Duration
	// StartTimeout (ESB_START_TIMEOUT_SECONDS) is how long a service may take to become ready. Default: 60 s.
	StartTimeout time.Duration
	// Supervisor (ESB_SUPERVISOR), on or off: whether `esb up` leaves a process behind that starts again what ends or hangs. Default: on.
	Supervisor bool
	// User (AUTH_USER) of the auth endpoint, for the printed example; AuthPath (AUTH_ENDPOINT_PATH) is where it is. Defaults:
	// the gateway's.
	User, AuthPath string
	// UIDBase (FUNCTION_UID_BASE) is the first of the user and group ids that the box takes for its own, of which natively the
	// gateway has the one 65537 above it, the stores have the next, and both the group 65536 above it. Nobody else on the machine
	// may have one of these. Default: 1879048192.
	UIDBase uint32
	// MadeSecrets are the secrets, by their variables (X_API_KEY, AUTH_PASS, LAMBDA_ACCESS_KEYS, and of the native stores
	// S3_ACCESS_KEY, S3_SECRET_KEY, DYNAMODB_ACCESS_KEY, DYNAMODB_SECRET_KEY), that nobody has set: the box makes them at its
	// first start and keeps them in SecretsFile.
	MadeSecrets []string
	// WellKnown is true when a secret is set to one that everybody knows and nobody has said
	// ESB_ALLOW_INSECURE_DEFAULTS=true: such a box serves this machine alone.
	WellKnown bool
}

// TLSFiles are PEM files; all empty means no TLS.
type TLSFiles struct{ Cert, Key, CA string }

var bridgeName = regexp.MustCompile(`^[a-zA-Z][a-zA-Z0-9-]{0,10}$`)

// FindRoot returns the repository around dir: the nearest parent with a go.work file and the native way's
// own source in it.
func FindRoot(dir string) (string, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return "", fmt.Errorf("find the repository: %w", err)
	}
	for d := dir; ; d = filepath.Dir(d) {
		if isFile(filepath.Join(d, "go.work")) && isFile(filepath.Join(d, "native", "native.go")) {
			return d, nil
		}
		if d == filepath.Dir(d) {
			return "", fmt.Errorf("no esb repository at or above %s: run esb inside the repository, or give -root", dir)
		}
	}
}

func isFile(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular()
}

// Load reads the settings of the stack; getenv is usually os.Getenv. The error names every bad variable.
func Load(getenv func(string) string, root string) (Settings, error) {
	return load(getenv, root, runtime.GOARCH)
}

// load reads the settings of a stack on a machine of an architecture, as Go calls it.
func load(getenv func(string) string, root, arch string) (Settings, error) {
	l := loader{getenv: getenv, arch: arch}
	s := Settings{Root: root}
	s.Home = l.path("ESB_HOME", filepath.Join(root, ".esb"))
	s.LogDir = l.path("ESB_LOG_DIR", filepath.Join(s.Home, "logs"))
	s.BinDir = l.path("ESB_BIN_DIR", filepath.Join(root, ".esb", "bin"))
	s.ImagesDir = l.path("IMAGE_ARCHIVES_DIR", filepath.Join(s.Home, "images"))
	s.FunctionsConfig = l.path("FUNCTIONS_CONFIG_PATH", filepath.Join(root, "functions", "functions.yml"))
	s.RoutingConfig = l.path("ROUTING_CONFIG_PATH", filepath.Join(root, "functions", "routing.yml"))
	s.ResourcesConfig = l.path("RESOURCES_CONFIG_PATH", filepath.Join(root, "functions", "resources.yml"))
	s.ContainerdAddress = l.text("CONTAINERD_ADDRESS", "")
	s.Subnet = l.subnet("ESB_SUBNET", "10.88.0.0/16")
	s.Bridge = l.text("ESB_BRIDGE", "esb0")
	if !bridgeName.MatchString(s.Bridge) {
		l.bad("ESB_BRIDGE", s.Bridge, "1 to 11 letters, digits or hyphens, and begin with a letter")
	}
	if strings.ContainsAny(s.Home, `:,\`) {
		l.bad("ESB_HOME", s.Home, "a path without ':', ',' and '\\': layers of images cannot be mounted below such a one")
	}
	if strings.ContainsRune(s.BinDir, ':') {
		l.bad("ESB_BIN_DIR", s.BinDir, "a path without ':', because it goes into PATH")
	}
	s.AgentRunDir = l.path("ESB_RUN_DIR", filepath.Join("/run/esb", s.Bridge))
	s.User = l.text("AUTH_USER", DefaultUser)
	s.AuthPath = l.text("AUTH_ENDPOINT_PATH", "/user/auth/ver1.0")
	own := l.secrets(&s, credentials.APIKey, credentials.Password, credentials.LambdaKeys)
	s.HTTPSAddrs = l.addrs("GATEWAY_HTTPS_ADDR", s.defaultHTTPSAddrs(own))
	s.HTTPAddrs = l.addrs("GATEWAY_HTTP_ADDR", s.localAddrs(8000))
	if len(s.HTTPSAddrs)+len(s.HTTPAddrs) == 0 {
		l.errs = append(l.errs, errors.New("GATEWAY_HTTPS_ADDR, GATEWAY_HTTP_ADDR: only one of them may be off"))
	}
	s.AdminAddr = l.addr("GATEWAY_ADMIN_ADDR", "127.0.0.1:9443")
	s.AgentAddr = l.addr("AGENT_GRPC_ADDR", "127.0.0.1:50051")
	if s.AgentSocket = l.text("AGENT_SOCKET", filepath.Join(s.AgentRunDir, "agent.sock")); s.AgentSocket != Off && !filepath.IsAbs(s.AgentSocket) {
		l.bad("AGENT_SOCKET", s.AgentSocket, "off or an absolute path")
	}
	s.AgentTokenFile = l.path("AGENT_TOKEN_FILE", filepath.Join(s.Home, "agent-token"))
	s.CodeRoots = l.text("CODE_ROOTS", filepath.Dir(s.FunctionsConfig))
	s.AgentTLS = TLSFiles{Cert: l.path("AGENT_TLS_CERT", ""), Key: l.path("AGENT_TLS_KEY", ""), CA: l.path("AGENT_TLS_CA", "")}
	if n := count(s.AgentTLS.Cert, s.AgentTLS.Key, s.AgentTLS.CA); n != 0 && n != 3 {
		l.errs = append(l.errs, errors.New("AGENT_TLS_CERT, AGENT_TLS_KEY, AGENT_TLS_CA: set all three or none"))
	}
	l.stores(&s)
	s.UIDBase = l.uidBase("FUNCTION_UID_BASE", 1879048192)
	s.LambdaEndpoint = l.text("FUNCTION_LAMBDA_ENDPOINT", s.defaultLambdaEndpoint())
	s.HostPorts = l.ports("FUNCTION_HOST_PORTS", s.defaultHostPorts())
	s.ShutdownGrace = l.seconds("SHUTDOWN_GRACE_SECONDS", 30)
	s.StartTimeout = l.seconds("ESB_START_TIMEOUT_SECONDS", 60)
	supervisor := l.text("ESB_SUPERVISOR", "on")
	if s.Supervisor = supervisor == "on"; !s.Supervisor && supervisor != Off {
		l.bad("ESB_SUPERVISOR", supervisor, "on or off")
	}
	if err := errors.Join(l.errs...); err != nil {
		return Settings{}, err
	}
	return s, nil
}

// BoxAddr is the box's own address on the function network, its first.
func (s Settings) BoxAddr() netip.Addr { return s.Subnet.Addr().Next() }

// Env returns the settings as the services read them, NAME=value, sorted: what `up` has decided, also where the
// environment said nothing.
func (s Settings) Env() []string {
	ports := make([]string, len(s.HostPorts))
	for i, p := range s.HostPorts {
		ports[i] = strconv.Itoa(int(p))
	}
	env := []string{
		"ESB_HOME=" + s.Home,
		"ESB_LOG_DIR=" + s.LogDir,
		"ESB_BIN_DIR=" + s.BinDir,
		"IMAGE_ARCHIVES_DIR=" + s.ImagesDir,
		"GATEWAY_HTTPS_ADDR=" + join(s.HTTPSAddrs),
		"GATEWAY_HTTP_ADDR=" + join(s.HTTPAddrs),
		"GATEWAY_ADMIN_ADDR=" + s.AdminAddr,
		"AGENT_GRPC_ADDR=" + s.AgentAddr,
		"AGENT_SOCKET=" + s.AgentSocket,
		"AGENT_TOKEN_FILE=" + s.AgentTokenFile,
		"CODE_ROOTS=" + s.CodeRoots,
		"ESB_SUBNET=" + s.Subnet.String(),
		"ESB_BRIDGE=" + s.Bridge,
		"ESB_RUN_DIR=" + s.AgentRunDir,
		"FUNCTIONS_CONFIG_PATH=" + s.FunctionsConfig,
		"ROUTING_CONFIG_PATH=" + s.RoutingConfig,
		"RESOURCES_CONFIG_PATH=" + s.ResourcesConfig,
		"ESB_DATA_DIR=" + s.DataDir,
		"ESB_STORES=" + onOff(len(s.Stores()) > 0),
		"S3_ADDR=" + join(s.S3Addrs),
		"S3_UI_ADDR=" + join(s.S3UIAddrs),
		"DYNAMODB_ADDR=" + join(s.DynamoDBAddrs),
		"VICTORIALOGS_ADDR=" + join(s.LogsAddrs),
		"REGISTRY_ADDR=" + join(s.RegistryAddrs),
		"S3_ENDPOINT=" + s.S3Endpoint,
		"DYNAMODB_ENDPOINT=" + s.DynamoDBEndpoint,
		"VICTORIALOGS_URL=" + s.LogsURL,
		"ESB_REGISTRY=" + s.Registry,
		"FUNCTION_LAMBDA_ENDPOINT=" + s.LambdaEndpoint,
		"FUNCTION_LOGS_ADDR=" + s.FunctionLogsAddr,
		"FUNCTION_HOST_PORTS=" + strings.Join(ports, ","),
		"SHUTDOWN_GRACE_SECONDS=" + strconv.Itoa(int(s.ShutdownGrace/time.Second)),
	}
	if s.ContainerdAddress != "" {
		env = append(env, "CONTAINERD_ADDRESS="+s.ContainerdAddress)
	}
	if s.AgentTLS.CA != "" {
		env = append(env, "AGENT_TLS_CERT="+s.AgentTLS.Cert, "AGENT_TLS_KEY="+s.AgentTLS.Key, "AGENT_TLS_CA="+s.AgentTLS.CA)
	}
	for name, value := range map[string]string{
		"VICTORIALOGS_USER": s.LogsUser, "VICTORIALOGS_PASSWORD_FILE": s.LogsPasswordFile,
		"ESB_REGISTRY_USER": s.RegistryUser, "ESB_REGISTRY_PASSWORD_FILE": s.RegistryPasswordFile,
	} {
		if value != "" {
			env = append(env, name+"="+value)
		}
	}
	slices.Sort(env)
	return env
}

func join(addrs []string) string {
	if len(addrs) == 0 {
		return Off
	}
	return strings.Join(addrs, ",")
}

// LogsDir holds the log files of the services and, below functions, of the containers.
func (s Settings) LogsDir() string { return s.LogDir }

// RunDir holds pid files and the record of the running stack.
func (s Settings) RunDir() string { return filepath.Join(s.Home, "run") }

// ServiceLogDir is where a service writes its log files: those of users of their own have a folder each.
func (s Settings) ServiceLogDir(service string) string {
	if service == native.Agent {
		return s.LogsDir()
	}
	return filepath.Join(s.LogsDir(), service)
}

// LogFile is the log file of a service.
func (s Settings) LogFile(service string) string {
	return filepath.Join(s.ServiceLogDir(service), service+".log")
}

// ServiceHome is the folder of the state of a service that runs as a user of its own.
func (s Settings) ServiceHome(service string) string { return filepath.Join(s.Home, service) }

// ServiceGID is the group of the gateway and the stores, which may enter the folders in which theirs are.
func (s Settings) ServiceGID() uint32 { return s.UIDBase + 1<<16 }

// ServiceUID is the user of the gateway, or of the stores.
func (s Settings) ServiceUID(service string) uint32 {
	if service == native.Gateway {
		return s.ServiceGID() + 1
	}
	return s.ServiceGID() + 2
}

// Outside says whether more than this machine and its functions reach a listener.
func (s Settings) Outside(addr string) bool {
	host, _, err := net.SplitHostPort(addr)
	if err != nil || host == "localhost" {
		return err != nil
	}
	ip, err := netip.ParseAddr(host)
	return err != nil || !ip.Unmap().IsLoopback() && ip.Unmap() != s.BoxAddr()
}

// Reachable turns a listener into an address that a client on this machine can dial: an unspecified host becomes
// 127.0.0.1.
func Reachable(addr string) string {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return addr
	}
	if ip, err := netip.ParseAddr(host); host == "" || (err == nil && ip.IsUnspecified()) {
		host = "127.0.0.1"
	}
	return net.JoinHostPort(host, port)
}

// URL is where a client on this machine reaches a listener: "https://localhost", "http://localhost:8000".
func URL(scheme, addr string) string {
	host, port, err := net.SplitHostPort(Reachable(addr))
	if err != nil {
		return scheme + "://" + addr
	}
	if ip, err := netip.ParseAddr(host); err == nil && ip.IsLoopback() {
		host = "localhost"
	}
	if (scheme == "https" && port == "443") || (scheme == "http" && port == "80") {
		if strings.Contains(host, ":") {
			host = "[" + host + "]"
		}
		return scheme + "://" + host
	}
	return scheme + "://" + net.JoinHostPort(host, port)
}

// defaultHTTPSAddrs offers the box to the network when somebody has set all of its secrets: who does that means to.
func (s Settings) defaultHTTPSAddrs(ownSecrets bool) string {
	if ownSecrets && !s.WellKnown {
		return ":443"
	}
	return s.localAddrs(443)
}

// localAddrs are the addresses of what this machine and its functions use. Functions do not get to a box whose secrets
// everybody knows: they would be its operator.
func (s Settings) localAddrs(port uint16) string {
	if s.WellKnown {
		return fmt.Sprintf("127.0.0.1:%d", port)
	}
	return s.shared(port)
}

// AdminTokenFile is where the gateway keeps the token of its admin listener.
func (s Settings) AdminTokenFile() string {
	return filepath.Join(s.ServiceHome(native.Gateway), "admin-token")
}

// SecretsFile is where the box keeps the secrets that it has made.
func (s Settings) SecretsFile() string { return filepath.Join(s.Home, credentials.File) }

func (s Settings) defaultHostPorts() []uint16 {
	var ports []uint16
	for _, addr := range slices.Concat(s.HTTPSAddrs, s.HTTPAddrs) {
		if p := port(addr); p != 0 && !slices.Contains(ports, p) {
			ports = append(ports, p)
		}
	}
	for _, store := range []struct {
		addrs []string
		port  uint16
	}{{s.S3Addrs, s3Port}, {s.DynamoDBAddrs, dynamoDBPort}, {s.LogsAddrs, logsPort}} {
		p := store.port
		if len(store.addrs) > 0 {
			p = port(store.addrs[0])
		}
		if !slices.Contains(ports, p) {
			ports = append(ports, p)
		}
	}
	return ports
}

func port(addr string) uint16 {
	_, p, err := net.SplitHostPort(addr)
	if err != nil {
		return 0
	}
	n, err := strconv.ParseUint(p, 10, 16)
	if err != nil {
		return 0
	}
	return uint16(n)
}

func count(texts ...string) int {
	n := 0
	for _, t := range texts {
		if t != "" {
			n++
		}
	}
	return n
}

// secrets notes which of the variables nobody has set, and says whether all of them are.
func (l *loader) secrets(s *Settings, names ...string) (own bool) {
	own = true
	for _, name := range names {
		value := l.text(name, "")
		if value == "" && l.text(name+"_FILE", "") != "" {
			continue // the gateway reads it
		}
		if value == "" {
			s.MadeSecrets = append(s.MadeSecrets, name)
			own = false
		}
		for part := range strings.SplitSeq(value, ",") {
			_, secret, _ := strings.Cut(part, ":") // of an access key
			known := credentials.WellKnown(value) || credentials.WellKnown(secret)
			s.WellKnown = s.WellKnown || known && l.getenv("ESB_ALLOW_INSECURE_DEFAULTS") != "true"
		}
	}
	return own
}

// loader collects the errors of all variables, so that one run shows them all.
type loader struct {
	getenv func(string) string
	// arch is the machine's architecture.
	arch string
	errs []error
}

func (l *loader) bad(name, value, want string) {
	l.errs = append(l.errs, fmt.Errorf("%s: must be %s, got %q", name, want, value))
}

func (l *loader) text(name, fallback string) string {
	if v := strings.TrimSpace(l.getenv(name)); v != "" {
		return v
	}
	return fallback
}

func (l *loader) path(name, fallback string) string {
	v := l.text(name, fallback)
	if v == "" {
		return ""
	}
	abs, err := filepath.Abs(v)
	if err != nil {
		l.bad(name, v, "a path: "+err.Error())
	}
	return abs
}

// uidBase leaves room for the ids of containers: the agent checks its upper bound.
func (l *loader) uidBase(name string, fallback uint32) uint32 {
	v := l.text(name, "")
	if v == "" {
		return fallback
	}
	n, err := strconv.ParseUint(v, 10, 32)
	if err != nil || n < 1<<16 || n > 2080243711 {
		l.bad(name, v, "a number from 65536 to 2080243711")
		return fallback
	}
	return uint32(n)
}

func (l *loader) subnet(name, fallback string) netip.Prefix {
	v := l.text(name, fallback)
	p, err := netip.ParsePrefix(v)
	if err != nil || !p.Addr().Is4() || p.Bits() < 8 || p.Bits() > 28 || p.Masked() != p {
		l.bad(name, v, "an IPv4 network from /8 to /28, such as 10.88.0.0/16")
		return netip.Prefix{}
	}
	return p
}

func (l *loader) addr(name, fallback string) string {
	v := l.text(name, fallback)
	host, _, err := net.SplitHostPort(v)
	if err != nil || port(v) == 0 {
		l.bad(name, v, "host:port with a port from 1 to 65535")
		return v
	}
	if host != "" && host != "localhost" {
		if _, err := netip.ParseAddr(host); err != nil {
			l.bad(name, v, "host:port with an IP address, localhost, or no host for all addresses")
		}
	}
	return v
}

func (l *loader) addrs(name, fallback string) []string {
	var addrs []string
	if l.text(name, fallback) == Off {
		return nil
	}
	for part := range strings.SplitSeq(l.text(name, fallback), ",") {
		part = strings.TrimSpace(part)
		sub := loader{getenv: func(string) string { return part }}
		addrs = append(addrs, sub.addr(name, part))
		l.errs = append(l.errs, sub.errs...)
	}
	return addrs
}

func (l *loader) ports(name string, fallback []uint16) []uint16 {
	v := l.text(name, "")
	if v == "" {
		return fallback
	}
	var ports []uint16
	for part := range strings.SplitSeq(v, ",") {
		n, err := strconv.ParseUint(strings.TrimSpace(part), 10, 16)
		if err != nil || n == 0 {
			l.bad(name, v, "a comma-separated list of ports from 1 to 65535")
			return nil
		}
		ports = append(ports, uint16(n))
	}
	return ports
}

func (l *loader) seconds(name string, fallback int) time.Duration {
	n, err := strconv.Atoi(l.text(name, strconv.Itoa(fallback)))
	if err != nil || n < 1 || n > 3600 {
		l.bad(name, l.getenv(name), "whole seconds from 1 to 3600")
		return 0
	}
	return time.Duration(n) * time.Second
}
