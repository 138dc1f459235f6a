package netstate

import (
	"errors"
	"net/netip"
	"os"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/edge-serverless-box/esb/guard/ownthread"
)

func TestConflicts_OtherInterfacesWithTheAddresses_AreNamedOnce(t *testing.T) {
	network := netip.MustParsePrefix("10.88.0.0/16")
	for name, tt := range map[string]struct {
		uses []Use
		want []string
	}{
		"nothing of it": {uses: []Use{{Interface: "lo", Prefix: netip.MustParsePrefix("127.0.0.1/8")}, {Interface: "eth0", Prefix: netip.MustParsePrefix("10.89.0.7/16")}}},
		"its own bridge": {uses: []Use{
			{Interface: "esb0", Prefix: netip.MustParsePrefix("10.88.0.1/16")}, {Interface: "esb0", Prefix: netip.MustParsePrefix("10.88.0.0/16"), Route: true},
		}},
		"a VPN that takes all traffic": {uses: []Use{
			{Interface: "tun9", Prefix: netip.MustParsePrefix("0.0.0.0/1"), Route: true}, {Interface: "tun9", Prefix: netip.MustParsePrefix("128.0.0.0/1"), Route: true},
			{Interface: "eth0", Prefix: netip.MustParsePrefix("0.0.0.0/0"), Route: true},
		}},
		"a VPN of private addresses": {
			uses: []Use{{Interface: "vpn0", Prefix: netip.MustParsePrefix("10.0.0.0/8"), Route: true}, {Interface: "vpn0", Prefix: netip.MustParsePrefix("10.88.3.0/24"), Route: true}},
			want: []string{"the route to 10.0.0.0/8 through interface vpn0"},
		},
		"an address": {
			uses: []Use{{Interface: "eth1", Prefix: netip.MustParsePrefix("10.88.7.1/24")}, {Interface: "eth1", Prefix: netip.MustParsePrefix("10.88.7.0/24"), Route: true}},
			want: []string{"10.88.7.1/24 on interface eth1"},
		},
		"a route to nowhere": {
			uses: []Use{{Prefix: netip.MustParsePrefix("10.88.0.0/13"), Route: true}},
			want: []string{"the route to 10.88.0.0/13 through no interface of its own"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			var got []string
			for _, u := range conflicts(network, "esb0", tt.uses) {
				got = append(got, u.String())
			}
			assert.Equal(t, tt.want, got)
		})
	}
}

// OpenVPN's redirect-gateway writes the two halves.
func TestConflicts_FullTunnelVPN_LeavesTheNetworkFree(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root gets a network namespace of its own")
	}
	assert.NoError(t, ownthread.Do(func() error { // the thread ends, and its network with it
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return err
		}
		tunnel := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "tun9"}}
		if err := errors.Join(netlink.LinkAdd(tunnel), netlink.LinkSetUp(tunnel)); err != nil {
			return err
		}
		for _, half := range []string{"0.0.0.0/1", "128.0.0.0/1"} {
			dst, err := netlink.ParseIPNet(half)
			assert.NoError(t, err)
			assert.NoError(t, netlink.RouteAdd(&netlink.Route{LinkIndex: tunnel.Attrs().Index, Dst: dst}))
		}
		found, err := Conflicts(netip.MustParsePrefix("10.88.0.0/16"), "esb0")
		assert.NoError(t, err)
		assert.Empty(t, found)
		dst, err := netlink.ParseIPNet("10.88.3.0/24")
		assert.NoError(t, err)
		assert.NoError(t, netlink.RouteAdd(&netlink.Route{LinkIndex: tunnel.Attrs().Index, Dst: dst}))
		found, err = Conflicts(netip.MustParsePrefix("10.88.0.0/16"), "esb0")
		assert.NoError(t, err)
		assert.Equal(t, []Use{{Interface: "tun9", Prefix: netip.MustParsePrefix("10.88.3.0/24"), Route: true}}, found)
		return nil
	}))
}
