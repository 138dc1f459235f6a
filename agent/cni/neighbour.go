package cni

import (
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// setNeighbour tells the box the hardware address of a new attachment. Nothing else does so reliably: an entry of the
// container that had the address before stays in the kernel's table, and the new one's own announcement may get lost
// while its port comes up (https://github.com/containernetworking/plugins/issues/756).
func (cfg Config) setNeighbour(ip netip.Addr, mac net.HardwareAddr) error {
	bridge, err := cfg.ownBridge()
	if err != nil {
		return err
	}
	if bridge == nil {
		return fmt.Errorf("bridge %s is gone", cfg.Bridge)
	}
	entry := &netlink.Neigh{
		LinkIndex: bridge.Attrs().Index, Family: netlink.FAMILY_V4, State: netlink.NUD_PERMANENT,
		IP: ip.AsSlice(), HardwareAddr: mac,
	}
	if err := netlink.NeighSet(entry); err != nil {
		return fmt.Errorf("set the neighbour entry of %s on bridge %s: %w", ip, cfg.Bridge, err)
	}
	return nil
}

// dropNeighbour forgets whoever has an address; nobody is no error.
func (cfg Config) dropNeighbour(ip netip.Addr) error {
	bridge, err := cfg.ownBridge()
	if err != nil || bridge == nil {
		return err
	}
	entry := &netlink.Neigh{LinkIndex: bridge.Attrs().Index, Family: netlink.FAMILY_V4, IP: ip.AsSlice()}
	if err := netlink.NeighDel(entry); err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("delete the neighbour entry of %s on bridge %s: %w", ip, cfg.Bridge, err)
	}
	return nil
}
