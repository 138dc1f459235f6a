package preflight

import (
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink"

	"github.com/edge-serverless-box/esb/native"
)

// Network is the function network.
type Network struct {
	Subnet netip.Prefix
	Bridge string
}

// inUse is a subnet that a link of this machine has.
type inUse struct {
	link   string
	prefix netip.Prefix
}

// checkNetwork finds links that have the function network's addresses already, by an address or a route.
func checkNetwork(n Network) []error {
	links, err := netlink.LinkList()
	if err != nil {
		return []error{fmt.Errorf("list network links: %w", err)}
	}
	var used []inUse
	for _, link := range links {
		name := link.Attrs().Name
		if name == n.Bridge && link.Type() != "bridge" {
			return []error{&native.Problem{
				What: fmt.Sprintf("a network link %s exists and is no bridge (%s)", name, link.Type()),
				Do:   "Set ESB_BRIDGE to another name.",
			}}
		}
		addrs, err := netlink.AddrList(link, netlink.FAMILY_V4)
		if err != nil {
			return []error{fmt.Errorf("list the addresses of %s: %w", name, err)}
		}
		for _, a := range addrs {
			if p, ok := prefix(a.IP, a.Mask); ok {
				used = append(used, inUse{name, p})
			}
		}
		routes, err := netlink.RouteList(link, netlink.FAMILY_V4)
		if err != nil {
			return []error{fmt.Errorf("list the routes of %s: %w", name, err)}
		}
		for _, r := range routes {
			if r.Dst == nil {
				continue
			}
			if p, ok := prefix(r.Dst.IP, r.Dst.Mask); ok {
				used = append(used, inUse{name, p})
			}
		}
	}
	return conflicts(n, used)
}

func prefix(ip []byte, mask []byte) (netip.Prefix, bool) {
	addr, ok := netip.AddrFromSlice(ip)
	if !ok {
		return netip.Prefix{}, false
	}
	bits := 0
	for _, b := range mask {
		for ; b&0x80 != 0; b <<= 1 {
			bits++
		}
	}
	return netip.PrefixFrom(addr.Unmap(), bits).Masked(), true
}

// conflicts reports each other link once. A default route is no conflict: everything more specific beats it.
func conflicts(n Network, used []inUse) []error {
	var errs []error
	reported := map[string]bool{}
	for _, u := range used {
		if u.link == n.Bridge || u.prefix.Bits() == 0 || reported[u.link] || !u.prefix.Overlaps(n.Subnet) {
			continue
		}
		reported[u.link] = true
		errs = append(errs, &native.Problem{
			What: fmt.Sprintf("the function network %s overlaps %s, which %s has", n.Subnet, u.prefix, u.link),
			Do:   "Set ESB_SUBNET to a subnet that is free here, for example 10.99.0.0/16 (and ESB_BRIDGE, when another stack runs).",
		})
	}
	return errs
}
