// Package settings reads the settings of the stores from environment variables. The doc comment of each field of
// Settings is the manual of that setting.
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
	"strconv"
	"strings"
	"time"

	"github.com/edge-serverless-box/esb/stores"
)

// Development credentials of both S3 and the DynamoDB API. They are refused on listeners that other machines reach.
const (
	DefaultAccessKey = "esb-dev-access"
	DefaultSecretKey = "esb-dev-secret-change-in-production"
)

// Off is the value of an address that switches a store off.
const Off = "off"

// Settings of the stores. An address setting is a comma-separated list of host:port, or "off": that store is not
// started. An address of the function network may be listened on before the network exists.
type Settings struct {
	// Home (ESB_HOME, default /var/lib/esb) is the folder of the stack's state.
	Home string
	// DataDir (ESB_DATA_DIR, default <ESB_HOME>/data) holds the data, a folder for each store: s3, db, logs, registry.
	DataDir string
	// LogDir (ESB_LOG_DIR, default <ESB_HOME>/logs) takes the log of each store's process: store-s3.log, store-db.log,
	// store-logs.log, store-registry.log.
	LogDir string
	// BinDir (ESB_BIN_DIR, default the folder of this program) holds versitygw, dynoxide, victoria-logs and registry.
	BinDir string
	// Subnet (ESB_SUBNET, default 10.88.0.0/16) is the function network; its first address is the box.
	Subnet netip.Prefix
	// S3Addrs (S3_ADDR, default port 9000 of 127.0.0.1 and of the box) is the S3 API.
	S3Addrs []string
	// S3UIAddrs (S3_UI_ADDR, default 127.0.0.1:9001) is the S3 web UI; it asks for the S3 keys.
	S3UIAddrs []string
	// S3PublicEndpoint (S3_PUBLIC_ENDPOINT, default none) is the URL at which clients outside reach S3: http://<host>:9000, or what
	// a proxy in front offers, which must pass the header Host on. Links may be signed for it, also with a host for each bucket
	// (https://<bucket>.files.example.com). Functions find it in ESB_S3_PUBLIC_ENDPOINT.
	S3PublicEndpoint string
	// S3EncryptedDisk (S3_ENCRYPTED_DISK, default false) is to be true where ESB_DATA_DIR is on an encrypted disk: S3 then answers
	// x-amz-server-side-encryption: AES256, as AWS's does of every object. The store itself encrypts nothing.
	S3EncryptedDisk bool
	// LifecycleInterval (S3_LIFECYCLE_INTERVAL_SECONDS, default 3600) is the pause between two searches for what has expired by
	// the lifecycle rules of buckets. The first one is at the start.
	LifecycleInterval time.Duration
	// DynamoDBAddrs (DYNAMODB_ADDR, default port 8001 of 127.0.0.1 and of the box) is the DynamoDB API.
	DynamoDBAddrs []string
	// LogsAddrs (VICTORIALOGS_ADDR, default 127.0.0.1:9428) is VictoriaLogs: queries and inserts for who has its credentials.
	// They would cross a network in the clear, so addresses that other machines reach need ESB_ALLOW_INSECURE_DEFAULTS=true.
	// The box's address is the agent's, which takes the lines of functions there.
	LogsAddrs []string
	// LogsUser and LogsPassword (VICTORIALOGS_USER, VICTORIALOGS_PASSWORD; default esb and what is in the file) are the
	// credentials of VictoriaLogs, for the agent and the operator. LogsPasswordFile (VICTORIALOGS_PASSWORD_FILE, default
	// <ESB_DATA_DIR>/logs.password) is made at the first start, where no password is set.
	LogsUser         string
	LogsPassword     Secret
	LogsPasswordFile string
	// RegistryAddrs (REGISTRY_ADDR, default 127.0.0.1:5010) is the image registry. Its credentials would cross a network in the
	// clear, so addresses that other machines reach need ESB_ALLOW_INSECURE_DEFAULTS=true.
	RegistryAddrs []string
	// RegistryUser and RegistryPassword (ESB_REGISTRY_USER, ESB_REGISTRY_PASSWORD; default esb and what is in the file) are the
	// credentials of the registry, for the agent and for who pushes images. RegistryPasswordFile (ESB_REGISTRY_PASSWORD_FILE,
	// default <ESB_DATA_DIR>/registry.password) is made at the first start, where no password is set.
	RegistryUser         string
	RegistryPassword     Secret
	RegistryPasswordFile string
	// S3Keys (S3_ACCESS_KEY, S3_SECRET_KEY; default the development credentials) are the keys of S3.
	S3Keys Keys
	// DynamoDBKeys (DYNAMODB_ACCESS_KEY, DYNAMODB_SECRET_KEY; default the development credentials) are the keys of the
	// DynamoDB API.
	DynamoDBKeys Keys
	// FunctionKeysFile (FUNCTION_KEYS_FILE, default <ESB_HOME>/function-keys) is the master secret of the functions' own
	// keys, with which they may use S3 and the DynamoDB API. The gateway makes the file; it need not be there yet.
	FunctionKeysFile string
	// FunctionAccessFile (FUNCTION_ACCESS_FILE, default <ESB_HOME>/function-access.json) says which buckets and tables each
	// function may use with its own keys. The gateway writes the file; while it is not there, functions may use nothing.
	FunctionAccessFile string
	// Region (AWS_REGION, default us-east-1) is the region of S3, and of the ARNs of DynamoDB.
	Region string
	// Account (AWS_ACCOUNT_ID, default 123456789012) is the account in the ARNs of DynamoDB.
	Account string
	// LogsRetentionDays (VICTORIALOGS_RETENTION_DAYS, default 7) is how long log lines are kept.
	LogsRetentionDays int
	// LogsMaxMB (VICTORIALOGS_MAX_MB, default 2048) bounds the disk that logs take. Half of it is for lines, the other half for
	// VictoriaLogs, which writes files anew to merge them: at half, the oldest days go, and when the present one alone has so
	// much, no line is taken until it is over.
	LogsMaxMB int
	// TTLInterval (DYNAMODB_TTL_INTERVAL_SECONDS, default 60) is the pause between two searches for expired items in
	// the tables that have TTL switched on.
	TTLInterval time.Duration
	// LogLevel (LOG_LEVEL: DEBUG, INFO, WARN or ERROR; default INFO) is that of this program's own log.
	LogLevel slog.Level
}

// Keys are the credentials of one store.
type Keys struct {
	Access string
	Secret Secret
}

// Secret is a text that no log line and no error shows; string(s) reveals it.
type Secret string

const redacted = "[redacted]"

// Format implements fmt.Formatter: no verb shows a secret.
func (s Secret) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, redacted) }

// LogValue implements slog.LogValuer.
func (s Secret) LogValue() slog.Value { return slog.StringValue(redacted) }

var accountPattern = regexp.MustCompile(`^[0-9]{12}$`)

var regionPattern = regexp.MustCompile(`^[a-z]{2,}(-[a-z]+)+-[0-9]+$`)

// Load reads and checks all settings; getenv is usually os.Getenv, executable this program's own path. The error names
// every variable that is wrong.
func Load(getenv func(string) string, executable string) (Settings, error) {
	r := reader{getenv: getenv}
	s := Settings{
		Home:              r.path("ESB_HOME", "/var/lib/esb"),
		BinDir:            r.path("ESB_BIN_DIR", filepath.Dir(executable)),
		Subnet:            r.subnet("ESB_SUBNET", "10.88.0.0/16"),
		S3Keys:            r.keys("S3"),
		DynamoDBKeys:      r.keys("DYNAMODB"),
		Region:            r.text("AWS_REGION", "us-east-1"),
		Account:           r.text("AWS_ACCOUNT_ID", "123456789012"),
		LogsRetentionDays: r.number("VICTORIALOGS_RETENTION_DAYS", 7, 1, 3650),
		LogsMaxMB:         r.number("VICTORIALOGS_MAX_MB", 2048, 16, 1<<30),
		TTLInterval:       time.Duration(r.number("DYNAMODB_TTL_INTERVAL_SECONDS", 60, 1, 86400)) * time.Second,
		LogLevel:          r.level("LOG_LEVEL", "INFO"),
	}
	s.DataDir = r.path("ESB_DATA_DIR", filepath.Join(s.Home, "data"))
	s.FunctionKeysFile = r.path("FUNCTION_KEYS_FILE", filepath.Join(s.Home, "function-keys"))
	s.FunctionAccessFile = r.path("FUNCTION_ACCESS_FILE", filepath.Join(s.Home, "function-access.json"))
	s.LogDir = r.path("ESB_LOG_DIR", filepath.Join(s.Home, "logs"))
	s.S3Addrs = r.addrs("S3_ADDR", s.local(9000))
	s.S3UIAddrs = r.addrs("S3_UI_ADDR", "127.0.0.1:9001")
	s.S3PublicEndpoint = r.publicEndpoint("S3_PUBLIC_ENDPOINT")
	s.S3EncryptedDisk = r.yes("S3_ENCRYPTED_DISK")
	s.LifecycleInterval = time.Duration(r.number("S3_LIFECYCLE_INTERVAL_SECONDS", 3600, 1, 86400)) * time.Second
	s.DynamoDBAddrs = r.addrs("DYNAMODB_ADDR", s.local(8001))
	s.LogsAddrs = r.addrs("VICTORIALOGS_ADDR", "127.0.0.1:9428")
	s.LogsUser = r.text("VICTORIALOGS_USER", "esb")
	s.LogsPassword = Secret(r.text("VICTORIALOGS_PASSWORD", ""))
	s.LogsPasswordFile = r.path("VICTORIALOGS_PASSWORD_FILE", filepath.Join(s.DataDir, "logs.password"))
	s.RegistryUser = r.text("ESB_REGISTRY_USER", "esb")
	s.RegistryPassword = Secret(r.text("ESB_REGISTRY_PASSWORD", ""))
	s.RegistryPasswordFile = r.path("ESB_REGISTRY_PASSWORD_FILE", filepath.Join(s.DataDir, "registry.password"))
	for name, user := range map[string]string{"VICTORIALOGS_USER": s.LogsUser, "ESB_REGISTRY_USER": s.RegistryUser} {
		if strings.Contains(user, ":") {
			r.fail(name, user, "must have no colon, which separates it from the password")
		}
	}
	for _, addr := range s.LogsAddrs {
		if ip, err := netip.ParseAddrPort(addr); err == nil && s.Subnet.IsValid() && ip.Addr().Unmap() == s.BoxAddr() {
			r.fail("VICTORIALOGS_ADDR", addr, "must not be the box's address on the function network: there the agent takes the lines of functions (FUNCTION_LOGS_ADDR), and nobody reads logs")
		}
	}
	s.RegistryAddrs = r.addrs("REGISTRY_ADDR", "127.0.0.1:5010")
	if !accountPattern.MatchString(s.Account) {
		r.fail("AWS_ACCOUNT_ID", s.Account, "must have twelve digits")
	}
	if !regionPattern.MatchString(s.Region) {
		r.fail("AWS_REGION", s.Region, "must be a region name such as us-east-1")
	}
	if len(s.S3UIAddrs) > 0 && len(s.S3Addrs) == 0 {
		// The UI is of no use without the API that it calls.
		s.S3UIAddrs = nil
	}
	if errs := len(r.errs); !r.yes("ESB_ALLOW_INSECURE_DEFAULTS") && len(r.errs) == errs {
		r.checkExposure(s)
	}
	if err := errors.Join(r.errs...); err != nil {
		return Settings{}, err
	}
	return s, nil
}

// S3Domains are the hosts below which each bucket has a host of its own.
func (s Settings) S3Domains() []string { return Domains(s.S3PublicEndpoint) }

// Domains are those of a public endpoint, none when it is empty or an address.
func Domains(endpoint string) []string {
	u, err := url.Parse(endpoint)
	if err != nil || u.Hostname() == "" {
		return nil
	}
	if _, err := netip.ParseAddr(u.Hostname()); err == nil {
		return nil
	}
	return []string{strings.ToLower(u.Hostname())}
}

// CheckPublicEndpoint says what is wrong with the URL at which clients outside reach S3; empty is right.
func CheckPublicEndpoint(endpoint string) string {
	if endpoint == "" {
		return ""
	}
	u, err := url.Parse(endpoint)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" || u.User != nil || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "" {
		return "must be http://host:port or https://host without a path"
	}
	return ""
}

// Addrs are the addresses of a store's API; none means that it is switched off.
func (s Settings) Addrs(store stores.Store) []string {
	switch store {
	case stores.S3:
		return s.S3Addrs
	case stores.DB:
		return s.DynamoDBAddrs
	case stores.Logs:
		return s.LogsAddrs
	case stores.Registry:
		return s.RegistryAddrs
	}
	return nil
}

// BoxAddr is the box's own address on the function network, its first.
func (s Settings) BoxAddr() netip.Addr { return s.Subnet.Addr().Next() }

func (s Settings) local(port uint16) string {
	addrs := fmt.Sprintf("127.0.0.1:%d", port)
	if s.Subnet.IsValid() {
		addrs += "," + netip.AddrPortFrom(s.BoxAddr(), port).String()
	}
	return addrs
}

// reader collects what is wrong, so that one start tells all of it.
type reader struct {
	getenv func(string) string
	errs   []error
}

func (r *reader) fail(name, value, want string) {
	r.errs = append(r.errs, fmt.Errorf("%s: %s, got %q", name, want, value))
}

func (r *reader) text(name, fallback string) string {
	if v := strings.TrimSpace(r.getenv(name)); v != "" {
		return v
	}
	return fallback
}

func (r *reader) path(name, fallback string) string {
	v := r.text(name, fallback)
	abs, err := filepath.Abs(v)
	if err != nil {
		r.fail(name, v, "must be a path")
	}
	return abs
}

func (r *reader) number(name string, fallback, least, most int) int {
	v := r.text(name, strconv.Itoa(fallback))
	n, err := strconv.Atoi(v)
	if err != nil || n < least || n > most {
		r.fail(name, v, fmt.Sprintf("must be a whole number from %d to %d", least, most))
	}
	return n
}

// yes reads a setting that is false by default.
func (r *reader) yes(name string) bool {
	switch value := r.text(name, "false"); value {
	case "false", "0":
	case "true", "1":
		return true
	default:
		r.fail(name, value, "must be true or false")
	}
	return false
}

func (r *reader) level(name, fallback string) slog.Level {
	v := r.text(name, fallback)
	var l slog.Level
	if err := l.UnmarshalText([]byte(v)); err != nil {
		r.fail(name, v, "must be DEBUG, INFO, WARN or ERROR")
	}
	return l
}

func (r *reader) subnet(name, fallback string) netip.Prefix {
	v := r.text(name, fallback)
	p, err := netip.ParsePrefix(v)
	if err != nil || !p.Addr().Is4() || p.Bits() < 8 || p.Bits() > 29 || p.Masked() != p {
		r.fail(name, v, "must be an IPv4 network from /8 to /29, such as 10.88.0.0/16")
		return netip.Prefix{}
	}
	return p
}

func (r *reader) publicEndpoint(name string) string {
	v := strings.TrimRight(r.text(name, ""), "/")
	if wrong := CheckPublicEndpoint(v); wrong != "" {
		r.fail(name, v, wrong)
	}
	return v
}

// keys reads <prefix>_ACCESS_KEY and <prefix>_SECRET_KEY.
func (r *reader) keys(prefix string) Keys {
	k := Keys{Access: r.text(prefix+"_ACCESS_KEY", DefaultAccessKey), Secret: Secret(r.text(prefix+"_SECRET_KEY", DefaultSecretKey))}
	if strings.ContainsAny(k.Access, "/,= \t") {
		r.fail(prefix+"_ACCESS_KEY", k.Access, "must have no blank and none of / , = (they are separators in signed requests)")
	}
	if len(k.Secret) < 8 {
		r.errs = append(r.errs, fmt.Errorf("%s_SECRET_KEY: must have at least 8 characters, has %d", prefix, len(k.Secret)))
	}
	return k
}

func (r *reader) addrs(name, fallback string) []string {
	v := r.text(name, fallback)
	if v == Off {
		return nil
	}
	var addrs []string
	for part := range strings.SplitSeq(v, ",") {
		part = strings.TrimSpace(part)
		host, portText, err := net.SplitHostPort(part)
		port, portErr := strconv.ParseUint(portText, 10, 16)
		if err == nil && host != "" && host != "localhost" {
			_, err = netip.ParseAddr(host)
		}
		if err != nil || portErr != nil || port == 0 {
			r.fail(name, part, "must be host:port with an IP address or no host, a comma-separated list of these, or off")
			continue
		}
		addrs = append(addrs, part)
	}
	return addrs
}

// minSecretOutside is the least length of a store's secret where other machines can try it.
const minSecretOutside = 16

// checkExposure refuses what needs no secret, one that everybody knows, or a short one, where other machines can reach it.
func (r *reader) checkExposure(s Settings) {
	for _, store := range []struct {
		setting string
		addrs   []string
		keys    string // prefix of the variables of its credentials
		secret  Secret
	}{
		{"S3_ADDR", s.S3Addrs, "S3", s.S3Keys.Secret},
		{"S3_UI_ADDR", s.S3UIAddrs, "S3", s.S3Keys.Secret},
		{"DYNAMODB_ADDR", s.DynamoDBAddrs, "DYNAMODB", s.DynamoDBKeys.Secret},
		{"VICTORIALOGS_ADDR", s.LogsAddrs, "VICTORIALOGS", ""},
		{"REGISTRY_ADDR", s.RegistryAddrs, "ESB_REGISTRY", ""},
	} {
		for _, addr := range store.addrs {
			switch {
			case s.isLocal(addr):
			case store.keys == "VICTORIALOGS", store.keys == "ESB_REGISTRY":
				r.fail(store.setting, addr, "can be reached by other machines, and its credentials would cross the network in the clear: listen on 127.0.0.1 and put a proxy with TLS in front, or set ESB_ALLOW_INSECURE_DEFAULTS=true")
			case store.secret == DefaultSecretKey:
				r.fail(store.setting, addr, fmt.Sprintf("can be reached by other machines, and %s_SECRET_KEY is the development default: set a secret of your own, listen on 127.0.0.1 only, or set ESB_ALLOW_INSECURE_DEFAULTS=true", store.keys))
			case len(store.secret) < minSecretOutside:
				r.fail(store.setting, addr, fmt.Sprintf("can be reached by other machines, and %s_SECRET_KEY has less than %d characters: set a longer one, listen on 127.0.0.1 only, or set ESB_ALLOW_INSECURE_DEFAULTS=true", store.keys, minSecretOutside))
			}
		}
	}
}

// isLocal says whether only this box and its functions can reach addr.
func (s Settings) isLocal(addr string) bool {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return false
	}
	if host == "localhost" {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && (ip.Unmap().IsLoopback() || s.Subnet.IsValid() && ip.Unmap() == s.BoxAddr())
}
