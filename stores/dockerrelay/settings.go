package dockerrelay

import (
	"net"
	"net/netip"
	"strconv"

	"github.com/edge-serverless-box/esb/guard/setting"
	"github.com/edge-serverless-box/esb/sigv4"
	"github.com/edge-serverless-box/esb/stores/settings"
)

// Settings of the relay; their manual is the table in guard/setting. Each store is at the same port of 127.0.0.1 as the relay listens
// on.
type Settings struct {
	// Subnet is the function network; its first address is the box.
	Subnet netip.Prefix
	// S3Port and DynamoDBPort are the stores that functions use with keys of their own.
	S3Port, DynamoDBPort int
	// Ports are what else is offered there, with nothing checked.
	Ports []int
	// Extra are more listeners, "address:port", on which nothing is checked.
	Extra []string
	// ExtraFrom are the addresses whose connections to Extra are taken; none for all.
	ExtraFrom []netip.Addr
	// S3Addrs are more listeners, "address:port", at which S3 is offered as it is to functions.
	S3Addrs []string
	// S3PublicEndpoint is the URL at which clients outside reach S3.
	S3PublicEndpoint string
	// Region is the stores'.
	Region string
	// Account is the one of tables that are named by their ARNs.
	Account string
	// FunctionKeysFile is the master secret of the functions' keys.
	FunctionKeysFile string
	// FunctionAccessFile says which buckets and tables each function may use with its own keys.
	FunctionAccessFile string
	// S3 and DynamoDB are the keys that the stores know.
	S3, DynamoDB sigv4.Credentials
}

// Load reads and checks all settings; getenv is usually os.Getenv. The error names every variable that is wrong.
func Load(getenv func(string) string) (Settings, error) {
	r := setting.NewReader(setting.Relay, getenv)
	s := Settings{
		Subnet:             r.Subnet("ESB_SUBNET", 29),
		S3Port:             int(r.Port("ESB_RELAY_S3_PORT")),
		DynamoDBPort:       int(r.Port("ESB_RELAY_DYNAMODB_PORT")),
		FunctionKeysFile:   r.Text("FUNCTION_KEYS_FILE"),
		FunctionAccessFile: r.Text("FUNCTION_ACCESS_FILE"),
		S3:                 sigv4.Credentials{AccessKeyID: r.Text("S3_ACCESS_KEY"), SecretAccessKey: string(r.Secret("S3_SECRET_KEY"))},
		DynamoDB:           sigv4.Credentials{AccessKeyID: r.Text("DYNAMODB_ACCESS_KEY"), SecretAccessKey: string(r.Secret("DYNAMODB_SECRET_KEY"))},
		Extra:              addrs(r, "ESB_RELAY_EXTRA"),
		S3Addrs:            addrs(r, "ESB_RELAY_S3_ADDR"),
		S3PublicEndpoint:   settings.PublicEndpoint(r),
		Region:             r.Region("AWS_REGION"),
		Account:            r.Account("AWS_ACCOUNT_ID"),
	}
	for _, value := range r.Fields("ESB_RELAY_PORTS") {
		n, err := strconv.ParseUint(value, 10, 16)
		if err != nil || n == 0 {
			r.Fail("ESB_RELAY_PORTS", value, "must be ports from 1 to 65535, separated by blanks")
		}
		s.Ports = append(s.Ports, int(n))
	}
	for _, value := range r.Fields("ESB_RELAY_EXTRA_FROM") {
		addr, err := netip.ParseAddr(value)
		if err != nil {
			r.Fail("ESB_RELAY_EXTRA_FROM", value, "must be a list of addresses")
		}
		s.ExtraFrom = append(s.ExtraFrom, addr)
	}
	return s, r.Err()
}

// addrs reads addresses of listeners that are separated by blanks.
func addrs(r *setting.Reader, name string) []string {
	all := r.Fields(name)
	for _, addr := range all {
		if host, _, err := net.SplitHostPort(addr); err != nil || net.ParseIP(host) == nil {
			r.Fail(name, addr, "must be a list of address:port")
		}
	}
	return all
}

// Box is the box's own address on the function network.
func (s Settings) Box() netip.Addr { return setting.Box(s.Subnet) }
