// Package settings reads the environment of the native way. Every other variable is passed on to the services as it
// is; the tables of guard/setting say what they understand.
package settings

import (
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
	"github.com/edge-serverless-box/esb/guard/setting"
	"github.com/edge-serverless-box/esb/native"
)

// Ports of the box's stores that functions may reach besides the gateway (docs/system-specification.md 4).
const (
	s3Port       = 9000
	dynamoDBPort = 8001
	logsPort     = 9428
)

// Settings of one stack; their manual is the table in guard/setting.
type Settings struct {
	// Root is the repository.
	Root string
	// Home is the folder of the stack's state.
	Home string
	// LogDir holds the log files of the services and, below functions, of the containers.
	LogDir string
	// BinDir holds the binaries; stacks share them.
	BinDir string
	// ImagesDir holds the archives of function images.
	ImagesDir string
	// HTTPSAddrs are the gateway's HTTPS listeners, none when off.
	HTTPSAddrs []string
	// HTTPAddrs are the same for plain HTTP.
	HTTPAddrs []string
	// AdminAddr is the gateway's admin listener.
	AdminAddr string
	// AgentAddr is the agent's listener.
	AgentAddr string
	// AgentSocket is the agent's unix socket, by which gateway and esb speak to it, or "off".
	AgentSocket string
	// AgentTokenFile has the token that the agent asks for at AgentAddr.
	AgentTokenFile string
	// CodeRoots are where function code and layers may lie, separated by commas.
	CodeRoots string
	// AgentTLS are the files of mutual TLS with the agent.
	AgentTLS TLSFiles
	// ContainerdAddress is the socket of a containerd that somebody else runs. Empty: the agent starts its own.
	ContainerdAddress string
	// Subnet is the function network.
	Subnet netip.Prefix
	// Bridge is the function network's bridge, and names the stack's cgroup, firewall table and run folder.
	Bridge string
	// AgentRunDir holds the agent's sockets, whose paths must be short.
	AgentRunDir string
	// FunctionsConfig is the file of the functions.
	FunctionsConfig string
	// RoutingConfig is the file of the routes.
	RoutingConfig string
	// ResourcesConfig is the file of tables and buckets.
	ResourcesConfig string
	// HostPorts are the ports of the box that functions may reach.
	HostPorts []uint16
	// DataDir holds the data of the native stores, which `down` keeps.
	DataDir string
	// S3Addrs, S3UIAddrs, DynamoDBAddrs, LogsAddrs and RegistryAddrs are where the native stores listen, none where one is off.
	S3Addrs, S3UIAddrs, DynamoDBAddrs, LogsAddrs, RegistryAddrs []string
	// NotAvailable are the native stores that would be on, were they made for this machine's processor. They are off.
	NotAvailable []Missing
	// S3Endpoint, DynamoDBEndpoint and LogsURL are where the services find the stores, a URL or "off". Registry is host:port of the
	// registry of images without a host in their names.
	S3Endpoint, DynamoDBEndpoint, LogsURL, Registry string
	// LogsUser and LogsPassword are the credentials of VictoriaLogs; LogsPasswordFile has the password where none is set.
	LogsUser, LogsPasswordFile string
	LogsPassword               setting.Secret
	// RegistryUser and RegistryPasswordFile are the credentials of the registry.
	RegistryUser, RegistryPasswordFile string
	// FunctionLogsAddr is where functions may post log lines, or "off".
	FunctionLogsAddr string
	// LambdaEndpoint is where functions find the gateway's Invoke API, a URL or "off".
	LambdaEndpoint string
	// ShutdownGrace is how long the gateway may finish requests in flight.
	ShutdownGrace time.Duration
	// StartTimeout is how long a service may take to become ready.
	StartTimeout time.Duration
	// Supervisor is whether `esb up` leaves a process behind that starts again what ends or hangs.
	Supervisor bool
	// User of the auth endpoint, for the printed example; AuthPath is where it is.
	User, AuthPath string
	// UIDBase is the first of the user and group ids that the box takes for its own.
	UIDBase uint32
	// MadeSecrets are the secrets, by their variables, that nobody has set: the box makes them at its first start and keeps them in
	// SecretsFile.
	MadeSecrets []string
	// WellKnown is true when a secret is set to one that everybody knows and nobody permits that: such a box serves this machine
	// alone.
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
	r := reader{setting.NewReader(setting.Native, getenv), arch}
	s := Settings{
		Root:              root,
		Home:              r.Path("ESB_HOME", filepath.Join(root, ".esb")),
		BinDir:            r.Path("ESB_BIN_DIR", filepath.Join(root, ".esb", "bin")),
		FunctionsConfig:   r.Path("FUNCTIONS_CONFIG_PATH", filepath.Join(root, "functions", "functions.yml")),
		RoutingConfig:     r.Path("ROUTING_CONFIG_PATH", filepath.Join(root, "functions", "routing.yml")),
		ResourcesConfig:   r.Path("RESOURCES_CONFIG_PATH", filepath.Join(root, "functions", "resources.yml")),
		ContainerdAddress: r.Text("CONTAINERD_ADDRESS"),
		Subnet:            r.Subnet("ESB_SUBNET", 28),
		Bridge:            r.Matching("ESB_BRIDGE", bridgeName, "must be 1 to 11 letters, digits or hyphens, and begin with a letter"),
		User:              r.Text("AUTH_USER"),
		AuthPath:          r.Text("AUTH_ENDPOINT_PATH"),
		AdminAddr:         r.Listener("GATEWAY_ADMIN_ADDR"),
		AgentAddr:         r.Listener("AGENT_GRPC_ADDR"),
		AgentTLS:          TLSFiles{Cert: r.Path("AGENT_TLS_CERT"), Key: r.Path("AGENT_TLS_KEY"), CA: r.Path("AGENT_TLS_CA")},
		UIDBase:           uint32(r.Int("FUNCTION_UID_BASE", 1<<16, 2080243711)),
		ShutdownGrace:     r.Duration("SHUTDOWN_GRACE_SECONDS", 1, 3600),
		StartTimeout:      r.Duration("ESB_START_TIMEOUT_SECONDS", 1, 3600),
		Supervisor:        r.OnOff("ESB_SUPERVISOR"),
	}
	s.LogDir = r.Path("ESB_LOG_DIR", filepath.Join(s.Home, "logs"))
	s.ImagesDir = r.Path("IMAGE_ARCHIVES_DIR", filepath.Join(s.Home, "images"))
	s.AgentRunDir = r.Path("ESB_RUN_DIR", filepath.Join("/run/esb", s.Bridge))
	s.AgentTokenFile = r.Path("AGENT_TOKEN_FILE", filepath.Join(s.Home, "agent-token"))
	s.CodeRoots = r.Text("CODE_ROOTS", filepath.Dir(s.FunctionsConfig))
	own := r.secrets(&s, credentials.APIKey, credentials.Password, credentials.LambdaKeys)
	s.HTTPSAddrs = r.Listeners("GATEWAY_HTTPS_ADDR", s.defaultHTTPSAddrs(own))
	s.HTTPAddrs = r.Listeners("GATEWAY_HTTP_ADDR", s.localAddrs(8000))
	if s.AgentSocket = r.Text("AGENT_SOCKET", filepath.Join(s.AgentRunDir, "agent.sock")); s.AgentSocket != setting.Off && !filepath.IsAbs(s.AgentSocket) {
		r.Fail("AGENT_SOCKET", s.AgentSocket, "must be off or an absolute path")
	}
	r.stores(&s)
	s.LambdaEndpoint = r.Text("FUNCTION_LAMBDA_ENDPOINT", s.defaultLambdaEndpoint())
	s.HostPorts = r.Ports("FUNCTION_HOST_PORTS", portList(s.defaultHostPorts()))
	r.check(s)
	if err := r.Err(); err != nil {
		return Settings{}, err
	}
	return s, nil
}

// BoxAddr is the box's own address on the function network, its first.
func (s Settings) BoxAddr() netip.Addr { return setting.Box(s.Subnet) }

// Env returns the settings as the services read them, NAME=value, sorted: what `up` has decided, also where the
// environment said nothing.
func (s Settings) Env() []string {
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
		"FUNCTION_HOST_PORTS=" + portList(s.HostPorts),
		"SHUTDOWN_GRACE_SECONDS=" + strconv.FormatFloat(s.ShutdownGrace.Seconds(), 'f', -1, 64),
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
		return setting.Off
	}
	return strings.Join(addrs, ",")
}

func portList(ports []uint16) string {
	texts := make([]string, len(ports))
	for i, p := range ports {
		texts[i] = strconv.Itoa(int(p))
	}
	return strings.Join(texts, ",")
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
func (s Settings) Outside(addr string) bool { return !setting.Local(addr, s.Subnet) }

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
	return setting.LocalAddrs(s.Subnet, port)
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
