package dockerrelay

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"

	"github.com/edge-serverless-box/esb/sigv4"
	"github.com/edge-serverless-box/esb/stores/settings"
)

// Settings of the relay. Each store is at the same port of 127.0.0.1 as the relay listens on.
type Settings struct {
	// Subnet (ESB_SUBNET, default 10.88.0.0/16) is the function network; its first address is the box.
	Subnet netip.Prefix
	// S3Port (ESB_RELAY_S3_PORT, default 9000) and DynamoDBPort (ESB_RELAY_DYNAMODB_PORT, default 8001) are the stores that
	// functions use with keys of their own.
	S3Port, DynamoDBPort int
	// Ports (ESB_RELAY_PORTS, separated by spaces, default none) are what else is offered there, with nothing checked.
	Ports []int
	// Extra (ESB_RELAY_EXTRA, separated by spaces) are more listeners, "address:port", on which nothing is checked.
	Extra []string
	// ExtraFrom (ESB_RELAY_EXTRA_FROM, separated by spaces) are the addresses whose connections to Extra are taken; others are
	// closed at once. Default: all.
	ExtraFrom []netip.Addr
	// S3Addrs (ESB_RELAY_S3_ADDR, separated by spaces, default none) are more listeners, "address:port", at which S3 is offered as it
	// is to functions: for clients outside, whose links functions have signed.
	S3Addrs []string
	// S3PublicEndpoint (S3_PUBLIC_ENDPOINT, default none) is the URL at which clients outside reach S3. Links may be signed for it,
	// also with a host for each bucket.
	S3PublicEndpoint string
	// Region (AWS_REGION, default us-east-1) is the stores'.
	Region string
	// Account (AWS_ACCOUNT_ID, default 123456789012) is the one of tables that are named by their ARNs.
	Account string
	// FunctionKeysFile (FUNCTION_KEYS_FILE, default /var/lib/esb/function-keys) is the master secret of the functions' keys.
	FunctionKeysFile string
	// FunctionAccessFile (FUNCTION_ACCESS_FILE, default /var/lib/esb/function-access.json) says which buckets and tables each
	// function may use with its own keys. The gateway writes the file; while it is not there, functions may use nothing.
	FunctionAccessFile string
	// S3 and DynamoDB (S3_ACCESS_KEY, S3_SECRET_KEY, DYNAMODB_ACCESS_KEY, DYNAMODB_SECRET_KEY; default the development
	// credentials) are the keys that the stores know.
	S3, DynamoDB sigv4.Credentials
}

// Load reads and checks all settings; getenv is usually os.Getenv. The error names every variable that is wrong.
func Load(getenv func(string) string) (Settings, error) {
	var errs []error
	text := func(name, fallback string) string {
		if v := strings.TrimSpace(getenv(name)); v != "" {
			return v
		}
		return fallback
	}
	port := func(name, value string) int {
		n, err := strconv.ParseUint(value, 10, 16)
		if err != nil || n == 0 {
			errs = append(errs, fmt.Errorf("%s: must be a port, got %q", name, value))
		}
		return int(n)
	}
	s := Settings{
		S3Port:             port("ESB_RELAY_S3_PORT", text("ESB_RELAY_S3_PORT", "9000")),
		DynamoDBPort:       port("ESB_RELAY_DYNAMODB_PORT", text("ESB_RELAY_DYNAMODB_PORT", "8001")),
		FunctionKeysFile:   text("FUNCTION_KEYS_FILE", "/var/lib/esb/function-keys"),
		FunctionAccessFile: text("FUNCTION_ACCESS_FILE", "/var/lib/esb/function-access.json"),
		S3: sigv4.Credentials{
			AccessKeyID:     text("S3_ACCESS_KEY", settings.DefaultAccessKey),
			SecretAccessKey: text("S3_SECRET_KEY", settings.DefaultSecretKey),
		},
		DynamoDB: sigv4.Credentials{
			AccessKeyID:     text("DYNAMODB_ACCESS_KEY", settings.DefaultAccessKey),
			SecretAccessKey: text("DYNAMODB_SECRET_KEY", settings.DefaultSecretKey),
		},
		Extra:            strings.Fields(getenv("ESB_RELAY_EXTRA")),
		S3Addrs:          strings.Fields(getenv("ESB_RELAY_S3_ADDR")),
		S3PublicEndpoint: strings.TrimRight(text("S3_PUBLIC_ENDPOINT", ""), "/"),
		Region:           text("AWS_REGION", "us-east-1"),
		Account:          text("AWS_ACCOUNT_ID", "123456789012"),
	}
	for _, value := range strings.Fields(getenv("ESB_RELAY_PORTS")) {
		s.Ports = append(s.Ports, port("ESB_RELAY_PORTS", value))
	}
	for name, addrs := range map[string][]string{"ESB_RELAY_EXTRA": s.Extra, "ESB_RELAY_S3_ADDR": s.S3Addrs} {
		for _, addr := range addrs {
			if host, _, err := net.SplitHostPort(addr); err != nil || net.ParseIP(host) == nil {
				errs = append(errs, fmt.Errorf("%s: must be a list of address:port, got %q", name, addr))
			}
		}
	}
	if wrong := settings.CheckPublicEndpoint(s.S3PublicEndpoint); wrong != "" {
		errs = append(errs, fmt.Errorf("S3_PUBLIC_ENDPOINT: %s, got %q", wrong, s.S3PublicEndpoint))
	}
	for _, value := range strings.Fields(getenv("ESB_RELAY_EXTRA_FROM")) {
		addr, err := netip.ParseAddr(value)
		if err != nil {
			errs = append(errs, fmt.Errorf("ESB_RELAY_EXTRA_FROM: must be a list of addresses, got %q", value))
		}
		s.ExtraFrom = append(s.ExtraFrom, addr)
	}
	subnet := text("ESB_SUBNET", "10.88.0.0/16")
	prefix, err := netip.ParsePrefix(subnet)
	if err != nil || prefix.Masked() != prefix {
		errs = append(errs, fmt.Errorf("ESB_SUBNET: must be a network such as 10.88.0.0/16, got %q", subnet))
	}
	s.Subnet = prefix
	return s, errors.Join(errs...)
}

// Box is the box's own address on the function network.
func (s Settings) Box() netip.Addr { return s.Subnet.Addr().Next() }
