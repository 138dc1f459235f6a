// Package netstate lists what the IPv4 network of this machine has, its interfaces, their addresses and the routes, and finds
// what of it is in the way of a network of one's own.
package netstate

import (
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Use is an address or a route of an interface.
type Use struct {
	// Interface is its name, empty for a route through none (a blackhole, or one of several hops).
	Interface string
	Prefix    netip.Prefix
	// Route says that it is a route, not an address.
	Route bool
}

// String says what and where it is.
func (u Use) String() string {
	where := "interface " + u.Interface
	if u.Interface == "" {
		where = "no interface of its own"
	}
	if u.Route {
		return fmt.Sprintf("the route to %s through %s", u.Prefix, where)
	}
	return fmt.Sprintf("%s on %s", u.Prefix, where)
}

// Conflicts lists what other interfaces than bridge have of the IPv4 network, one use of each interface. A default route is
// no conflict, also when a VPN that takes all traffic has written it as two halves: everything more specific beats it.
func Conflicts(network netip.Prefix, bridge string) ([]Use, error) {
	uses, err := uses()
	if err != nil {
		return nil, err
	}
	return conflicts(network, bridge, uses), nil
}

func conflicts(network netip.Prefix, bridge string, uses []Use) []Use {
	var found []Use
	reported := map[string]bool{bridge: true}
	for _, u := range uses {
		if reported[u.Interface] || !u.Prefix.IsValid() || u.Route && u.Prefix.Bits() <= 1 || !u.Prefix.Overlaps(network) {
			continue
		}
		reported[u.Interface] = true
		found = append(found, u)
	}
	return found
}

// uses lists the addresses of all interfaces and the routes of the main table.
func uses() ([]Use, error) {
	links, err := Links()
	if err != nil {
		return nil, err
	}
	names := make(map[int]string, len(links))
	for _, link := range links {
		names[link.Attrs().Index] = link.Attrs().Name
	}
	addrs, err := Addresses(nil)
	if err != nil {
		return nil, err
	}
	var found []Use
	for _, addr := range addrs {
		found = append(found, Use{Interface: names[addr.LinkIndex], Prefix: Prefix(addr.IPNet)})
	}
	routes, err := Routes()
	if err != nil {
		return nil, err
	}
	for _, route := range routes {
		found = append(found, Use{Interface: names[route.LinkIndex], Prefix: Prefix(route.Dst), Route: true})
	}
	return found, nil
}

// Links lists the interfaces.
func Links() ([]netlink.Link, error) {
	links, err := whole(netlink.LinkList)
	if err != nil {
		return nil, fmt.Errorf("list interfaces: %w", err)
	}
	return links, nil
}

// Addresses lists the IPv4 addresses of an interface, of all interfaces when link is nil.
func Addresses(link netlink.Link) ([]netlink.Addr, error) {
	addrs, err := whole(func() ([]netlink.Addr, error) { return netlink.AddrList(link, netlink.FAMILY_V4) })
	if err != nil {
		return nil, fmt.Errorf("list addresses: %w", err)
	}
	return addrs, nil
}

// Routes lists the IPv4 routes of the main table. A default route may have no Dst.
func Routes() ([]netlink.Route, error) {
	routes, err := whole(func() ([]netlink.Route, error) {
		return netlink.RouteListFiltered(netlink.FAMILY_V4, &netlink.Route{Table: unix.RT_TABLE_MAIN}, netlink.RT_FILTER_TABLE)
	})
	if err != nil {
		return nil, fmt.Errorf("list routes: %w", err)
	}
	return routes, nil
}

// Prefix is n with the address as it stands there, the zero Prefix when n is none.
func Prefix(n *net.IPNet) netip.Prefix {
	if n == nil {
		return netip.Prefix{}
	}
	addr, ok := netip.AddrFromSlice(n.IP)
	if !ok {
		return netip.Prefix{}
	}
	bits, _ := n.Mask.Size()
	return netip.PrefixFrom(addr.Unmap(), bits)
}

// whole repeats a listing that the kernel reports as incomplete, because something changed in the middle of it.
func whole[T any](list func() ([]T, error)) ([]T, error) {
	const attempts = 10
	var items []T
	var err error
	for range attempts {
		if items, err = list(); !errors.Is(err, netlink.ErrDumpInterrupted) {
			break
		}
	}
	return items, err
}
