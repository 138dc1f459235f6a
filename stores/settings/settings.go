// Package settings reads the settings of the stores from environment variables.
package settings

import (
	"fmt"
	"log/slog"
	"net/netip"
	"net/url"
	"path/filepath"
	"strings"
	"time"

	"github.com/edge-serverless-box/esb/guard/setting"
	"github.com/edge-serverless-box/esb/stores"
)

// Settings of the stores; their manual is the table in guard/setting. Addresses are host:port, none where a store is off. One of the
// function network may be listened on before the network exists.
type Settings struct {
	// Home is the folder of the stack's state.
	Home string
	// DataDir holds the data, a folder for each store.
	DataDir string
	// Replaces is whether stores that run on the same DataDir hand their sockets over and end.
	Replaces bool
	// Sockets describes those that this process was started with (guard/handover), empty for none.
	Sockets string
	// LogDir takes the log of each store's process.
	LogDir string
	// BinDir holds the stores' programs.
	BinDir string
	// Subnet is the function network; its first address is the box.
	Subnet netip.Prefix
	// S3Addrs are where the S3 API is.
	S3Addrs []string
	// S3UIAddrs are where the S3 web UI is.
	S3UIAddrs []string
	// S3PublicEndpoint is the URL at which clients outside reach S3.
	S3PublicEndpoint string
	// S3EncryptedDisk is true where DataDir is on an encrypted disk.
	S3EncryptedDisk bool
	// LifecycleInterval is the pause between two searches for what has expired by the lifecycle rules of buckets.
	LifecycleInterval time.Duration
	// DynamoDBAddrs are where the DynamoDB API is.
	DynamoDBAddrs []string
	// LogsAddrs are where VictoriaLogs is.
	LogsAddrs []string
	// LogsUser and LogsPassword are the credentials of VictoriaLogs. LogsPasswordFile has the password where none is set.
	LogsUser         string
	LogsPassword     setting.Secret
	LogsPasswordFile string
	// RegistryAddrs are where the image registry is.
	RegistryAddrs []string
	// RegistryUser and RegistryPassword are the credentials of the registry. RegistryPasswordFile has the password where none is set.
	RegistryUser         string
	RegistryPassword     setting.Secret
	RegistryPasswordFile string
	// S3Keys are the keys of S3.
	S3Keys Keys
	// DynamoDBKeys are the keys of the DynamoDB API.
	DynamoDBKeys Keys
	// FunctionKeysFile is the master secret of the functions' own keys.
	FunctionKeysFile string
	// FunctionAccessFile says which buckets and tables each function may use with its own keys.
	FunctionAccessFile string
	// Region is the region of S3, and of the ARNs of DynamoDB.
	Region string
	// Account is the account in the ARNs of DynamoDB.
	Account string
	// LogsRetentionDays is how long log lines are kept.
	LogsRetentionDays int
	// LogsMaxMB bounds the disk that logs take.
	LogsMaxMB int
	// TTLInterval is the pause between two searches for expired items in the tables that have TTL switched on.
	TTLInterval time.Duration
	// LogLevel is that of this program's own log.
	LogLevel slog.Level
}

// Keys are the credentials of one store.
type Keys struct {
	Access string
	Secret setting.Secret
}

// Load reads and checks all settings; getenv is usually os.Getenv, executable this program's own path. The error names
// every variable that is wrong.
func Load(getenv func(string) string, executable string) (Settings, error) {
	r := reader{setting.NewReader(setting.Stores, getenv)}
	s := Settings{
		Home:              r.Path("ESB_HOME"),
		Replaces:          r.Bool("STORES_REPLACES"),
		Sockets:           r.Text("STORES_SOCKETS"),
		BinDir:            r.Path("ESB_BIN_DIR", filepath.Dir(executable)),
		Subnet:            r.Subnet("ESB_SUBNET", 29),
		S3Keys:            r.keys("S3"),
		DynamoDBKeys:      r.keys("DYNAMODB"),
		Region:            r.Region("AWS_REGION"),
		Account:           r.Account("AWS_ACCOUNT_ID"),
		LogsRetentionDays: r.Int("VICTORIALOGS_RETENTION_DAYS", 1, 3650),
		LogsMaxMB:         r.Int("VICTORIALOGS_MAX_MB", 16, 1<<30),
		TTLInterval:       r.Duration("DYNAMODB_TTL_INTERVAL_SECONDS", 1, 86400),
		LifecycleInterval: r.Duration("S3_LIFECYCLE_INTERVAL_SECONDS", 1, 86400),
		LogLevel:          r.Level("LOG_LEVEL"),
		S3UIAddrs:         r.Listeners("S3_UI_ADDR"),
		S3PublicEndpoint:  PublicEndpoint(r.Reader),
		S3EncryptedDisk:   r.Bool("S3_ENCRYPTED_DISK"),
		LogsAddrs:         r.Listeners("VICTORIALOGS_ADDR"),
		LogsUser:          r.Text("VICTORIALOGS_USER"),
		LogsPassword:      r.Secret("VICTORIALOGS_PASSWORD"),
		RegistryAddrs:     r.Listeners("REGISTRY_ADDR"),
		RegistryUser:      r.Text("ESB_REGISTRY_USER"),
		RegistryPassword:  r.Secret("ESB_REGISTRY_PASSWORD"),
	}
	s.DataDir = r.Path("ESB_DATA_DIR", filepath.Join(s.Home, "data"))
	s.FunctionKeysFile = r.Path("FUNCTION_KEYS_FILE", filepath.Join(s.Home, "function-keys"))
	s.FunctionAccessFile = r.Path("FUNCTION_ACCESS_FILE", filepath.Join(s.Home, "function-access.json"))
	s.LogDir = r.Path("ESB_LOG_DIR", filepath.Join(s.Home, "logs"))
	s.S3Addrs = r.Listeners("S3_ADDR", setting.LocalAddrs(s.Subnet, 9000))
	s.DynamoDBAddrs = r.Listeners("DYNAMODB_ADDR", setting.LocalAddrs(s.Subnet, 8001))
	s.LogsPasswordFile = r.Path("VICTORIALOGS_PASSWORD_FILE", filepath.Join(s.DataDir, "logs.password"))
	s.RegistryPasswordFile = r.Path("ESB_REGISTRY_PASSWORD_FILE", filepath.Join(s.DataDir, "registry.password"))
	for name, user := range map[string]string{"VICTORIALOGS_USER": s.LogsUser, "ESB_REGISTRY_USER": s.RegistryUser} {
		if strings.Contains(user, ":") {
			r.Fail(name, user, "must have no colon, which separates it from the password")
		}
	}
	for _, addr := range s.LogsAddrs {
		if ip, err := netip.ParseAddrPort(addr); err == nil && s.Subnet.IsValid() && ip.Addr().Unmap() == s.BoxAddr() {
			r.Fail("VICTORIALOGS_ADDR", addr, "must not be the box's address on the function network: there the agent takes the lines of functions (FUNCTION_LOGS_ADDR), and nobody reads logs")
		}
	}
	if len(s.S3UIAddrs) > 0 && len(s.S3Addrs) == 0 {
		// The UI is of no use without the API that it calls.
		s.S3UIAddrs = nil
	}
	if !r.Bool("ESB_ALLOW_INSECURE_DEFAULTS") && !r.Failed("ESB_ALLOW_INSECURE_DEFAULTS") {
		r.checkExposure(s)
	}
	if err := r.Err(); err != nil {
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

// PublicEndpoint reads S3_PUBLIC_ENDPOINT, the URL at which clients outside reach S3; empty for none.
func PublicEndpoint(r *setting.Reader) string {
	v := strings.TrimRight(r.Text("S3_PUBLIC_ENDPOINT"), "/")
	if v == "" {
		return ""
	}
	u, err := url.Parse(v)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" || u.User != nil || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "" {
		r.Fail("S3_PUBLIC_ENDPOINT", v, "must be http://host:port or https://host without a path")
	}
	return v
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
func (s Settings) BoxAddr() netip.Addr { return setting.Box(s.Subnet) }

// reader reads what is the stores' alone, too.
type reader struct{ *setting.Reader }

// keys reads <prefix>_ACCESS_KEY and <prefix>_SECRET_KEY.
func (r reader) keys(prefix string) Keys {
	k := Keys{Access: r.Text(prefix + "_ACCESS_KEY"), Secret: r.Secret(prefix + "_SECRET_KEY")}
	if strings.ContainsAny(k.Access, "/,= \t") {
		r.Fail(prefix+"_ACCESS_KEY", k.Access, "must have no blank and none of / , = (they are separators in signed requests)")
	}
	if len(k.Secret) < 8 {
		r.Problemf("%s_SECRET_KEY: must have at least 8 characters, has %d", prefix, len(k.Secret))
	}
	return k
}

// minSecretOutside is the least length of a store's secret where other machines can try it.
const minSecretOutside = 16

// checkExposure refuses what needs no secret, one that everybody knows, or a short one, where other machines can reach it.
func (r reader) checkExposure(s Settings) {
	for _, store := range []struct {
		setting string
		addrs   []string
		keys    string // prefix of the variables of its credentials
		secret  setting.Secret
	}{
		{"S3_ADDR", s.S3Addrs, "S3", s.S3Keys.Secret},
		{"S3_UI_ADDR", s.S3UIAddrs, "S3", s.S3Keys.Secret},
		{"DYNAMODB_ADDR", s.DynamoDBAddrs, "DYNAMODB", s.DynamoDBKeys.Secret},
		{"VICTORIALOGS_ADDR", s.LogsAddrs, "VICTORIALOGS", ""},
		{"REGISTRY_ADDR", s.RegistryAddrs, "ESB_REGISTRY", ""},
	} {
		for _, addr := range store.addrs {
			switch {
			case setting.Local(addr, s.Subnet):
			case store.keys == "VICTORIALOGS", store.keys == "ESB_REGISTRY":
				r.Fail(store.setting, addr, "can be reached by other machines, and its credentials would cross the network in the clear: listen on 127.0.0.1 and put a proxy with TLS in front, or set ESB_ALLOW_INSECURE_DEFAULTS=true")
			case store.secret == setting.StoreSecretKey:
				r.Fail(store.setting, addr, fmt.Sprintf("can be reached by other machines, and %s_SECRET_KEY is the development default: set a secret of your own, listen on 127.0.0.1 only, or set ESB_ALLOW_INSECURE_DEFAULTS=true", store.keys))
			case len(store.secret) < minSecretOutside:
				r.Fail(store.setting, addr, fmt.Sprintf("can be reached by other machines, and %s_SECRET_KEY has less than %d characters: set a longer one, listen on 127.0.0.1 only, or set ESB_ALLOW_INSECURE_DEFAULTS=true", store.keys, minSecretOutside))
			}
		}
	}
}
