package setting

import (
	"fmt"
	"net"
	"net/netip"
)

// Box is the box's own address on the function network, its first.
func Box(subnet netip.Prefix) netip.Addr { return subnet.Addr().Next() }

// LocalAddrs are the addresses of a port that this machine and its functions reach, as a list.
func LocalAddrs(subnet netip.Prefix, port uint16) string {
	addrs := fmt.Sprintf("127.0.0.1:%d", port)
	if subnet.IsValid() {
		addrs += "," + netip.AddrPortFrom(Box(subnet), port).String()
	}
	return addrs
}

// Loopback says whether only this machine's own programs reach host:port.
func Loopback(addr string) bool {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return false
	}
	ip, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && ip.Unmap().IsLoopback()
}

// Local says whether only this machine and its functions reach host:port: the agent's firewall keeps others off the box's address on
// the function network.
func Local(addr string, subnet netip.Prefix) bool {
	if Loopback(addr) {
		return true
	}
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return false
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && subnet.IsValid() && ip.Unmap() == Box(subnet)
}
