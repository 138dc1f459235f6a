package cni

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/edge-serverless-box/esb/guard/netstate"
)

// aliasPrefix starts the alias by which a bridge of ours is known.
const aliasPrefix = "esb function network "

// alias names the owner of a bridge, so that two stacks never share or remove each other's.
func (cfg Config) alias() string {
	sum := sha256.Sum256([]byte(cfg.StateDir))
	return aliasPrefix + hex.EncodeToString(sum[:8])
}

// hardwareAddr is fixed for a bridge and a state folder: a bridge without an address of its own takes its ports',
// and functions would lose their gateway each time one comes or goes.
func (cfg Config) hardwareAddr() net.HardwareAddr {
	sum := sha256.Sum256([]byte(cfg.Bridge + "\x00" + cfg.StateDir))
	// 02: locally administered, unicast.
	return append(net.HardwareAddr{0x02}, sum[:5]...)
}

// ownBridge returns the network's bridge, nil when there is none. Something else of that name is an error.
func (cfg Config) ownBridge() (*netlink.Bridge, error) {
	link, err := netlink.LinkByName(cfg.Bridge)
	var none netlink.LinkNotFoundError
	if errors.As(err, &none) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("look up interface %s: %w", cfg.Bridge, err)
	}
	bridge, ok := link.(*netlink.Bridge)
	switch alias := link.Attrs().Alias; {
	case !ok:
		return nil, &conflictError{fmt.Sprintf("interface %s exists and is a %s, not a bridge: set ESB_BRIDGE to another name", cfg.Bridge, link.Type())}
	case alias == cfg.alias():
		return bridge, nil
	case len(alias) > len(aliasPrefix) && alias[:len(aliasPrefix)] == aliasPrefix:
		return nil, &conflictError{fmt.Sprintf("bridge %s belongs to another esb stack on this machine (another ESB_HOME): set ESB_BRIDGE and ESB_SUBNET to values of this stack's own", cfg.Bridge)}
	default:
		return nil, &conflictError{fmt.Sprintf("bridge %s exists and was not made by esb: set ESB_BRIDGE to another name, or remove it with: ip link del %s", cfg.Bridge, cfg.Bridge)}
	}
}

// conflictError says that a name or an address is someone else's.
type conflictError struct{ message string }

func (e *conflictError) Error() string { return e.message }

// openBridge makes the bridge, or takes the one that an earlier run left; made says which. A bridge that it made is
// gone again when it fails.
func (cfg Config) openBridge() (made bool, err error) {
	bridge, err := cfg.ownBridge()
	if err != nil {
		return false, err
	}
	if bridge != nil {
		if bridge, err = cfg.dropOutdated(bridge); err != nil {
			return false, err
		}
	}
	if err := cfg.checkOverlap(); err != nil {
		return false, err
	}
	if bridge != nil {
		return false, cfg.setUp(bridge)
	}
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MTU, attrs.HardwareAddr = cfg.Bridge, cfg.MTU, cfg.hardwareAddr()
	snooping := false
	bridge = &netlink.Bridge{LinkAttrs: attrs, MulticastSnooping: &snooping}
	if err := netlink.LinkAdd(bridge); err != nil {
		return false, fmt.Errorf("make bridge %s: %w", cfg.Bridge, err)
	}
	if err := netlink.LinkSetAlias(bridge, cfg.alias()); err != nil {
		return false, errors.Join(fmt.Errorf("mark bridge %s as ours: %w", cfg.Bridge, err), removeLink(bridge))
	}
	if err := cfg.setUp(bridge); err != nil {
		return false, errors.Join(err, removeLink(bridge))
	}
	return true, nil
}

// setUp gives the bridge its MTU and address and lets the box forward.
func (cfg Config) setUp(bridge *netlink.Bridge) error {
	if bridge.Attrs().MTU != cfg.MTU {
		if err := netlink.LinkSetMTU(bridge, cfg.MTU); err != nil {
			return fmt.Errorf("set the MTU of bridge %s to %d: %w", cfg.Bridge, cfg.MTU, err)
		}
	}
	// Before it is up, so that it never has an IPv6 address that functions could reach.
	if err := setSysctl("net/ipv6/conf/"+cfg.Bridge+"/disable_ipv6", "1"); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("turn IPv6 off on bridge %s: %w", cfg.Bridge, err)
	}
	address := &netlink.Addr{IPNet: &net.IPNet{IP: cfg.gateway().AsSlice(), Mask: net.CIDRMask(cfg.Subnet.Bits(), 32)}}
	if err := netlink.AddrReplace(bridge, address); err != nil {
		return fmt.Errorf("give bridge %s the address %s: %w", cfg.Bridge, address.IPNet, err)
	}
	if err := netlink.LinkSetUp(bridge); err != nil {
		return fmt.Errorf("set bridge %s up: %w", cfg.Bridge, err)
	}
	// Functions reach the outside through the box, so it forwards. Like Docker we leave it on: others may have come
	// to need it meanwhile.
	if err := setSysctl("net/ipv4/ip_forward", "1"); err != nil {
		return fmt.Errorf("switch IP forwarding on (sysctl net.ipv4.ip_forward=1): %w", err)
	}
	return nil
}

// dropOutdated removes a bridge of ours that has another subnet's address and no function on it; nil means removed.
func (cfg Config) dropOutdated(bridge *netlink.Bridge) (*netlink.Bridge, error) {
	addrs, err := netstate.Addresses(bridge)
	if err != nil {
		return nil, fmt.Errorf("list the addresses of bridge %s: %w", cfg.Bridge, err)
	}
	for _, addr := range addrs {
		have := netstate.Prefix(addr.IPNet)
		if have == netip.PrefixFrom(cfg.gateway(), cfg.Subnet.Bits()) {
			continue
		}
		ports, err := bridgePortsOf(bridge)
		if err != nil {
			return nil, err
		}
		if len(ports) > 0 {
			return nil, &conflictError{fmt.Sprintf("bridge %s has functions of the subnet %s, ESB_SUBNET is %s: stop the stack and its functions first (task down, or agent purge), or keep the old subnet", cfg.Bridge, have.Masked(), cfg.Subnet)}
		}
		if err := netlink.LinkDel(bridge); err != nil {
			return nil, fmt.Errorf("remove bridge %s of the former subnet %s: %w", cfg.Bridge, have.Masked(), err)
		}
		return nil, nil
	}
	return bridge, nil
}

// checkOverlap finds an address or route of another interface that the subnet would take away.
func (cfg Config) checkOverlap() error {
	found, err := netstate.Conflicts(cfg.Subnet, cfg.Bridge)
	if err != nil || len(found) == 0 {
		return err
	}
	return &conflictError{fmt.Sprintf("the function subnet %s overlaps %s: set ESB_SUBNET to a free network (and ESB_BRIDGE to a name of its own when another stack runs)", cfg.Subnet, found[0])}
}

// defaultMTU is the MTU of the interface that the default route uses, 1500 when there is none.
func defaultMTU() int {
	const ethernet = 1500
	routes, err := netstate.Routes()
	if err != nil {
		return ethernet
	}
	for _, route := range routes {
		if to := netstate.Prefix(route.Dst); to.IsValid() && to.Bits() != 0 {
			continue
		}
		if link, err := netlink.LinkByIndex(route.LinkIndex); err == nil && link.Attrs().MTU >= minMTU {
			return min(link.Attrs().MTU, maxMTU)
		}
	}
	return ethernet
}

// bridgePortsOf lists the interfaces that are plugged into the bridge.
func bridgePortsOf(bridge netlink.Link) ([]netlink.Link, error) {
	links, err := netstate.Links()
	if err != nil {
		return nil, err
	}
	var ports []netlink.Link
	for _, link := range links {
		if link.Attrs().MasterIndex == bridge.Attrs().Index {
			ports = append(ports, link)
		}
	}
	return ports, nil
}

// removeLink deletes an interface; one that is gone is no error.
func removeLink(link netlink.Link) error {
	if err := netlink.LinkDel(link); err != nil && !errors.Is(err, unix.ENODEV) {
		return fmt.Errorf("remove interface %s: %w", link.Attrs().Name, err)
	}
	return nil
}

// setSysctl writes a value that differs only: /proc/sys may be read-only with the right value in it.
func setSysctl(name, value string) error {
	path := "/proc/sys/" + name
	have, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if string(bytes.TrimSpace(have)) == value {
		return nil
	}
	return os.WriteFile(path, []byte(value), 0)
}
