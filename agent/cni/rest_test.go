package cni

import (
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"github.com/vishvananda/netlink"

	"github.com/edge-serverless-box/esb/agent"
)

// smallest gives cfg a subnet of 13 addresses for functions.
func smallest(cfg Config) Config {
	cfg.Subnet = netip.PrefixFrom(cfg.Subnet.Addr(), 28)
	return cfg
}

func TestAddress_Released_RestsWhileThereAreOthers(t *testing.T) {
	n := mustOpen(t, smallest(mustConfig(t)))
	first := mustAttach(t, n)
	require.NoError(t, n.Detach(t.Context(), first.ID))
	for range 12 {
		a := mustAttach(t, n)
		assert.NotEqual(t, first.IP, a.IP)
	}
	again := mustAttach(t, n)
	assert.Equal(t, first.IP, again.IP, "the last one of the subnet")
	_, err := n.Attach(t.Context())
	assert.Equal(t, agent.CodeExhausted, agent.ErrorCode(err))
}

func TestAddress_AllRest_TheOneReleasedFirstIsGivenOut(t *testing.T) {
	n := mustOpen(t, smallest(mustConfig(t)))
	var released []netip.Addr
	for range 13 {
		a := mustAttach(t, n)
		released = append(released, a.IP)
		require.NoError(t, n.Detach(t.Context(), a.ID))
		// The order is told apart by milliseconds.
		now := time.Now().UnixMilli()
		require.Eventually(t, func() bool { return time.Now().UnixMilli() > now }, limit, time.Millisecond/4)
	}
	for i := range 5 {
		assert.Equal(t, released[i], mustAttach(t, n).IP)
	}
}

func TestAddress_HasRestedLongEnough_IsFree(t *testing.T) {
	cfg := mustConfig(t)
	n := mustOpen(t, cfg)
	a := mustAttach(t, n)
	require.NoError(t, n.Detach(t.Context(), a.ID))
	file := n.cfg.leaseFile(a.IP)
	require.FileExists(t, file)
	for name, age := range map[string]time.Duration{"long ago": -addressRest, "in the future": time.Hour} {
		since := time.Now().Add(age).UnixMilli()
		require.NoError(t, os.WriteFile(file, []byte(restingOwner+strconv.FormatInt(since, 10)), 0o600))
		n.woke = time.Time{}
		mustAttach(t, n)
		assert.NoFileExists(t, file, name)
	}
}

func TestReconcile_LeavesRestingAddressesAlone(t *testing.T) {
	cfg := mustConfig(t)
	n := mustOpen(t, cfg)
	a := mustAttach(t, n)
	require.NoError(t, n.Detach(t.Context(), a.ID))
	require.NoError(t, n.Reconcile(t.Context(), nil))
	assert.FileExists(t, filepath.Join(n.cfg.leaseDir(), a.IP.String()))
}

// An address that is used again must answer at once: no entry of the container before may be in the way.
func TestAddress_UsedAgain_IsReachedByTheBoxAtOnce(t *testing.T) {
	n := mustOpen(t, smallest(mustConfig(t)))
	seen := map[netip.Addr]int{}
	for range 27 {
		a := mustAttach(t, n)
		worker := mustServe(t, a.NetnsPath, netip.AddrPortFrom(a.IP, agent.SupervisorPort).String())
		begin := time.Now()
		_, err := dial(t, "", worker, limit)
		require.NoError(t, err, "%s, used %d times before", a.IP, seen[a.IP])
		// The kernel believes in an old entry for 5 s and more (delay_first_probe_time).
		assert.Less(t, time.Since(begin), 5*time.Second, "%s, used %d times before", a.IP, seen[a.IP])
		seen[a.IP]++
		require.NoError(t, n.Detach(t.Context(), a.ID))
		assert.NotContains(t, mustNeighbours(t, n), a.IP)
	}
	assert.Len(t, seen, 13)
}

func TestNeighbour_OfAnAttachment_IsPermanent(t *testing.T) {
	n := mustOpen(t, mustConfig(t))
	a := mustAttach(t, n)
	entry, ok := mustNeighbours(t, n)[a.IP]
	require.True(t, ok)
	assert.Equal(t, netlink.NUD_PERMANENT, entry.State)
	in(t, a.NetnsPath, func() error {
		link, err := netlink.LinkByName(interfaceName)
		if err == nil {
			assert.Equal(t, link.Attrs().HardwareAddr, entry.HardwareAddr)
		}
		return err
	})
}

func mustNeighbours(t *testing.T, n *Network) map[netip.Addr]netlink.Neigh {
	t.Helper()
	bridge, err := n.cfg.ownBridge()
	require.NoError(t, err)
	require.NotNil(t, bridge)
	list, err := netlink.NeighList(bridge.Attrs().Index, netlink.FAMILY_V4)
	require.NoError(t, err)
	entries := map[netip.Addr]netlink.Neigh{}
	for _, e := range list {
		if addr, ok := netip.AddrFromSlice(e.IP); ok {
			entries[addr.Unmap()] = e
		}
	}
	return entries
}
