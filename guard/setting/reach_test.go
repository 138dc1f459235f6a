package setting

import (
	"net/netip"
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestLocal_WhoReachesAnAddress(t *testing.T) {
	subnet := netip.MustParsePrefix("10.88.0.0/16")
	for addr, want := range map[string][2]bool{ // loopback, local
		"127.0.0.1:1": {true, true}, "localhost:1": {true, true}, "[::1]:1": {true, true}, "[::ffff:127.0.0.1]:1": {true, true},
		"10.88.0.1:1": {false, true}, "10.88.0.2:1": {}, ":1": {}, "0.0.0.0:1": {}, "box:1": {}, "nonsense": {}, "": {},
	} {
		assert.Equal(t, want, [2]bool{Loopback(addr), Local(addr, subnet)}, addr)
	}
	assert.False(t, Local("10.88.0.1:1", netip.Prefix{}))
	assert.Equal(t, "127.0.0.1:80,10.88.0.1:80", LocalAddrs(subnet, 80))
	assert.Equal(t, "127.0.0.1:80", LocalAddrs(netip.Prefix{}, 80))
}
