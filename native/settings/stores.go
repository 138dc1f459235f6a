package settings

import (
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"slices"

	"github.com/edge-serverless-box/esb/guard/credentials"
	"github.com/edge-serverless-box/esb/guard/setting"
)

// Store is one native store as this machine reaches it.
type Store struct {
	// Name of the store, as `stores` calls it.
	Name string
	// Health is a URL that answers 200 when the store works.
	Health string
}

// Missing is a native store that does not exist for this machine.
type Missing struct {
	// Name of the store, as `stores` calls it.
	Name string
	// Why says what is missing and what to do about it.
	Why string
}

// DynoxideArch is the only architecture that there is a dynoxide for, the program of the native DynamoDB API.
const DynoxideArch = "amd64"

// Stores are the native stores that are switched on.
func (s Settings) Stores() []Store {
	var on []Store
	for _, store := range []struct {
		name, path string
		addrs      []string
	}{
		{"logs", "/health", s.LogsAddrs}, {"s3", "/_health", s.S3Addrs}, {"db", "/", s.DynamoDBAddrs}, {"registry", "/health", s.RegistryAddrs},
	} {
		if len(store.addrs) > 0 {
			on = append(on, Store{Name: store.name, Health: "http://" + Reachable(store.addrs[0]) + store.path})
		}
	}
	return on
}

// stores reads the settings of the native stores.
func (r reader) stores(s *Settings) {
	s.DataDir = r.Path("ESB_DATA_DIR", filepath.Join(s.Home, "data"))
	wanted := r.OnOff("ESB_STORES")
	for _, store := range []struct {
		addrSetting, addr string
		addrs             *[]string
		endpointSetting   string
		endpoint          *string
		// scheme of the endpoint; none is its default when there is no store.
		scheme, none string
	}{
		{"S3_ADDR", setting.LocalAddrs(s.Subnet, s3Port), &s.S3Addrs, "S3_ENDPOINT", &s.S3Endpoint, "http://", setting.Off},
		{"DYNAMODB_ADDR", setting.LocalAddrs(s.Subnet, dynamoDBPort), &s.DynamoDBAddrs, "DYNAMODB_ENDPOINT", &s.DynamoDBEndpoint, "http://", setting.Off},
		{"VICTORIALOGS_ADDR", fmt.Sprintf("127.0.0.1:%d", logsPort), &s.LogsAddrs, "VICTORIALOGS_URL", &s.LogsURL, "http://", setting.Off},
		{"REGISTRY_ADDR", "127.0.0.1:5010", &s.RegistryAddrs, "ESB_REGISTRY", &s.Registry, "", "127.0.0.1:5010"},
	} {
		if r.Set(store.endpointSetting) {
			store.addr = setting.Off
		}
		lacking := store.addrSetting == "DYNAMODB_ADDR" && r.arch != DynoxideArch
		if lacking {
			store.addr = setting.Off
		}
		*store.addrs = r.Listeners(store.addrSetting, store.addr)
		if !wanted {
			*store.addrs = nil
		}
		if lacking && len(*store.addrs) > 0 {
			r.Fail(store.addrSetting, join(*store.addrs), "must be off on this machine ("+r.arch+"): dynoxide is made for "+DynoxideArch+" only")
			*store.addrs = nil
		}
		if len(*store.addrs) > 0 {
			store.none = store.scheme + Reachable((*store.addrs)[0])
		}
		*store.endpoint = r.Text(store.endpointSetting, store.none)
		if lacking && wanted && *store.endpoint == setting.Off {
			s.NotAvailable = append(s.NotAvailable, Missing{Name: "db", Why: fmt.Sprintf(
				"the native DynamoDB API, dynoxide, is made for %s only, and this machine is %s: set DYNAMODB_ENDPOINT to one elsewhere", DynoxideArch, r.arch)})
		}
	}
	user, file, logs := "", "", uint16(logsPort)
	if len(s.LogsAddrs) > 0 {
		user, file, logs = "esb", filepath.Join(s.DataDir, "logs.password"), port(s.LogsAddrs[0])
	}
	s.LogsPassword = r.Secret("VICTORIALOGS_PASSWORD")
	s.LogsUser, s.LogsPasswordFile = r.Text("VICTORIALOGS_USER", user), r.Path("VICTORIALOGS_PASSWORD_FILE", file)
	user, file = "", ""
	if len(s.RegistryAddrs) > 0 {
		user, file = "esb", filepath.Join(s.DataDir, "registry.password")
	}
	s.RegistryUser, s.RegistryPasswordFile = r.Text("ESB_REGISTRY_USER", user), r.Path("ESB_REGISTRY_PASSWORD_FILE", file)
	posted := setting.Off
	if s.LogsURL != setting.Off && s.Subnet.IsValid() {
		posted = netip.AddrPortFrom(s.BoxAddr(), logs).String()
	}
	s.FunctionLogsAddr = r.Text("FUNCTION_LOGS_ADDR", posted)
	ui := "127.0.0.1:9001"
	if len(s.S3Addrs) == 0 {
		ui = setting.Off
	}
	s.S3UIAddrs = r.Listeners("S3_UI_ADDR", ui)
	if len(s.S3Addrs) == 0 {
		s.S3UIAddrs = nil
	}
	// Keys of stores elsewhere are not this box's to make.
	if len(s.S3Addrs) > 0 {
		r.madeKeys(s, credentials.S3AccessKey, credentials.S3SecretKey)
	}
	if len(s.DynamoDBAddrs) > 0 {
		r.madeKeys(s, credentials.DynamoDBAccessKey, credentials.DynamoDBSecretKey)
	}
}

// madeKeys notes which keys of a native store nobody has set.
func (r reader) madeKeys(s *Settings, names ...string) {
	for _, name := range names {
		if !r.Set(name) {
			s.MadeSecrets = append(s.MadeSecrets, name)
		}
	}
}

func (s Settings) defaultLambdaEndpoint() string {
	for _, addr := range s.HTTPAddrs {
		host, p, err := net.SplitHostPort(addr)
		if err != nil || !s.Subnet.IsValid() {
			continue
		}
		ip, err := netip.ParseAddr(host)
		if host == "" || err == nil && (ip.IsUnspecified() || ip == s.BoxAddr()) {
			return "http://" + net.JoinHostPort(s.BoxAddr().String(), p)
		}
	}
	return setting.Off
}

// StorePrograms are the programs of the native stores that are switched on, which are also the names of their build
// targets.
func (s Settings) StorePrograms() []string {
	var programs []string
	for _, store := range s.Stores() {
		programs = append(programs, map[string]string{"logs": "victoria-logs", "s3": "versitygw", "db": "dynoxide", "registry": "registry"}[store.Name])
	}
	if len(programs) > 0 {
		programs = append(programs, "stores")
	}
	slices.Sort(programs)
	return programs
}

func onOff(on bool) string {
	if on {
		return "on"
	}
	return setting.Off
}
