// Package cni owns the function network: the bridge, its firewall, and one attachment a container. An attachment is
// a network namespace pinned as a file, a veth pair into the bridge and a leased address. Namespaces are made here;
// veth and address come from the stock CNI plugins bridge and host-local, which are separate programs.
//
// The plugins cost two process starts an attachment, so a few attachments are prepared ahead and handed out at once.
//
// What exists is read from the kernel and from the state folder, never from memory alone, so that a new process can
// go on with what an earlier one left (Reconcile) or remove it (Purge).
package cni

import (
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"

	"github.com/edge-serverless-box/esb/agent/nftables"
)

// Config says how the function network is made.
type Config struct {
	// StateDir is a folder of this network alone. It holds netns/<id> and userns/<id> (pins), leases/ (addresses) and cache/ (CNI
	// results), and has to survive for as long as the attachments do.
	StateDir string
	// PluginDir is the folder with the CNI plugins bridge and host-local.
	PluginDir string
	// Bridge is the bridge's interface name, 1 to 15 characters.
	Bridge string
	// Subnet is the network of the functions, IPv4 and /29 or larger. Its first address is the box.
	Subnet netip.Prefix
	// MTU of the bridge and of the functions' interfaces in bytes; 0 takes that of the default route's interface.
	MTU int
	// UIDBase is the first of the box's AllIDs user and group ids, of which each attachment gets IDs; 0 means DefaultUIDBase.
	UIDBase uint32
	// DNS are the functions' name servers; the firewall lets through those that are addresses of the box.
	DNS []netip.Addr
	// HostPorts are the TCP ports of the box that functions reach at the gateway address.
	HostPorts []uint16
	// Deny are networks outside of the box that functions may not reach, beside 169.254.0.0/16.
	Deny []netip.Prefix
	// Users of this machine, by number, may connect to functions, beside root.
	Users []uint32
	// PoolSize is how many attachments are kept ready; 0 makes each on demand.
	PoolSize int
	// Logger is where background work reports; nil means slog.Default().
	Logger *slog.Logger
}

// Limits of Config.
const (
	// maxPrefixBits leaves five addresses for functions in the smallest subnet.
	maxPrefixBits = 29
	minMTU        = 576 // RFC 791: what every IPv4 host takes.
	maxMTU        = 65535
	// bridgePorts is the kernel's limit of ports a bridge (BR_MAX_PORTS).
	bridgePorts = 1023
)

var bridgeName = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_.-]{0,14}$`)

// check returns cfg with absolute paths and defaults, or an error that names the setting.
func (cfg Config) check() (Config, error) {
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	if cfg.StateDir == "" {
		return cfg, errors.New("network: no state folder is set")
	}
	var err error
	if cfg.StateDir, err = filepath.Abs(cfg.StateDir); err != nil {
		return cfg, fmt.Errorf("network: state folder: %w", err)
	}
	if !bridgeName.MatchString(cfg.Bridge) {
		return cfg, fmt.Errorf("ESB_BRIDGE: %q is not an interface name: use 1 to 15 letters, digits, '_', '.' or '-'", cfg.Bridge)
	}
	switch {
	case !cfg.Subnet.IsValid():
		return cfg, errors.New("ESB_SUBNET: not set, or not a network such as 10.88.0.0/16")
	case !cfg.Subnet.Addr().Is4():
		return cfg, fmt.Errorf("ESB_SUBNET: %s is not IPv4: functions have IPv4 only", cfg.Subnet)
	case cfg.Subnet.Bits() > maxPrefixBits:
		return cfg, fmt.Errorf("ESB_SUBNET: %s is too small: use /%d or larger", cfg.Subnet, maxPrefixBits)
	case cfg.Subnet.Bits() < 8:
		return cfg, fmt.Errorf("ESB_SUBNET: %s is too large: use /8 or smaller", cfg.Subnet)
	case cfg.Subnet != cfg.Subnet.Masked():
		return cfg, fmt.Errorf("ESB_SUBNET: %s is an address in a network; the network is %s", cfg.Subnet, cfg.Subnet.Masked())
	case cfg.Subnet.Addr().IsLoopback() || cfg.Subnet.Addr().IsMulticast() || cfg.Subnet.Addr().IsLinkLocalUnicast() || cfg.Subnet.Addr().IsUnspecified():
		return cfg, fmt.Errorf("ESB_SUBNET: %s is reserved by IPv4: use a private network such as 10.88.0.0/16", cfg.Subnet)
	}
	if cfg.MTU != 0 && (cfg.MTU < minMTU || cfg.MTU > maxMTU) {
		return cfg, fmt.Errorf("ESB_MTU: must be 0 or %d to %d bytes, got %d", minMTU, maxMTU, cfg.MTU)
	}
	if cfg.UIDBase == 0 {
		cfg.UIDBase = DefaultUIDBase
	}
	if cfg.UIDBase < IDs || cfg.UIDBase > math.MaxInt32-AllIDs {
		return cfg, fmt.Errorf("FUNCTION_UID_BASE: must be %d to %d, got %d", IDs, math.MaxInt32-AllIDs, cfg.UIDBase)
	}
	if cfg.PoolSize < 0 {
		return cfg, fmt.Errorf("NETWORK_POOL_SIZE: must not be negative, got %d", cfg.PoolSize)
	}
	return cfg, nil
}

// checkPlugins says which plugin is missing before the first container needs it.
func (cfg Config) checkPlugins() error {
	for _, name := range []string{"bridge", "host-local"} {
		info, err := os.Stat(filepath.Join(cfg.PluginDir, name))
		if err != nil {
			return fmt.Errorf("CNI plugin %q is not in %s (ESB_BIN_DIR): %w", name, cfg.PluginDir, err)
		}
		if info.IsDir() || info.Mode()&0o111 == 0 {
			return fmt.Errorf("CNI plugin %s is not an executable file", filepath.Join(cfg.PluginDir, name))
		}
	}
	return nil
}

// gateway is the first address of the subnet.
func (cfg Config) gateway() netip.Addr { return cfg.Subnet.Masked().Addr().Next() }

func (cfg Config) firewall() nftables.Config {
	return nftables.Config{
		Bridge: cfg.Bridge, Subnet: cfg.Subnet, Gateway: cfg.gateway(),
		HostPorts: cfg.HostPorts, DNS: cfg.DNS, Deny: cfg.Deny, Users: cfg.Users, Logger: cfg.Logger,
	}
}

// Folders below StateDir.
func (cfg Config) netnsDir() string            { return filepath.Join(cfg.StateDir, "netns") }
func (cfg Config) netnsPath(id string) string  { return filepath.Join(cfg.netnsDir(), id) }
func (cfg Config) usernsDir() string           { return filepath.Join(cfg.StateDir, "userns") }
func (cfg Config) usernsPath(id string) string { return filepath.Join(cfg.usernsDir(), id) }
func (cfg Config) leaseRoot() string           { return filepath.Join(cfg.StateDir, "leases") }
func (cfg Config) leaseDir() string            { return filepath.Join(cfg.leaseRoot(), cfg.networkName()) }
func (cfg Config) cacheDir() string            { return filepath.Join(cfg.StateDir, "cache") }

// networkName is the name of the CNI network.
func (cfg Config) networkName() string { return "esb-" + cfg.Bridge }
