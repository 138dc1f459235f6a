package nftables

import (
	"bytes"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"slices"
	"testing"

	"github.com/google/nftables"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/edge-serverless-box/esb/guard/ownthread"
)

// mustNetns returns connections to the packet filter of a network namespace of the test's own.
func mustNetns(t *testing.T) func() *nftables.Conn {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("a network namespace needs root")
	}
	var fd int
	require.NoError(t, ownthread.Do(func() error {
		err := unix.Unshare(unix.CLONE_NEWNET)
		if err == nil {
			fd, err = unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
		}
		return err
	}))
	t.Cleanup(func() { _ = unix.Close(fd) })
	return func() *nftables.Conn {
		conn, err := nftables.New(nftables.WithNetNSFd(fd))
		require.NoError(t, err)
		return conn
	}
}

// mustList describes all chains and the number of rules in each; of our own forward chain only its name, because
// google/nftables v0.3.0 cannot read its `ct original` conditions back.
func mustList(t *testing.T, conn *nftables.Conn) []string {
	t.Helper()
	chains, err := conn.ListChains()
	require.NoError(t, err)
	list := []string{}
	for _, c := range chains {
		if c.Name == "forward" {
			list = append(list, c.Table.Name+" "+c.Name)
			continue
		}
		rules, err := conn.GetRules(c.Table, c)
		require.NoError(t, err)
		list = append(list, fmt.Sprintf("%s %s: %d", c.Table.Name, c.Name, len(rules)))
	}
	slices.Sort(list)
	return list
}

func config(log *bytes.Buffer) Config {
	return Config{
		Bridge:    "esbtest",
		Subnet:    netip.MustParsePrefix("10.88.0.0/16"),
		Gateway:   netip.MustParseAddr("10.88.0.1"),
		HostPorts: []uint16{8000, 443, 8000},
		DNS:       []netip.Addr{netip.MustParseAddr("192.0.2.53"), netip.MustParseAddr("::ffff:192.0.2.53"), netip.MustParseAddr("2001:db8::53")},
		Logger:    slog.New(slog.NewTextHandler(log, nil)),
	}
}

func TestApply_Twice_IsTheSameAsOnce(t *testing.T) {
	conn := mustNetns(t)
	cfg := config(new(bytes.Buffer))
	require.NoError(t, apply(conn(), cfg))
	once := mustList(t, conn())
	require.NotEmpty(t, once)
	require.NoError(t, apply(conn(), cfg))
	assert.Equal(t, once, mustList(t, conn()))

	sets, err := conn().GetSets(&nftables.Table{Family: nftables.TableFamilyINet, Name: TableName(cfg.Bridge)})
	require.NoError(t, err)
	sizes := map[string]int{}
	for _, set := range sets {
		elements, err := conn().GetSetElements(set)
		require.NoError(t, err)
		sizes[set.Name] = len(elements)
	}
	assert.Equal(t, map[string]int{"host_ports": 2, "dns_servers": 1}, sizes)
}

func TestApply_NoPortsAndNoNameServers_Works(t *testing.T) {
	conn := mustNetns(t)
	cfg := config(new(bytes.Buffer))
	cfg.HostPorts, cfg.DNS = nil, nil
	assert.NoError(t, apply(conn(), cfg))
}

func TestApply_IptablesDropsByPolicy_LetsTheBridgePassAndRemoveRestores(t *testing.T) {
	for name, c := range map[string]struct {
		docker bool
		want   []string
	}{
		"plain":  {false, []string{"filter FORWARD: 2", "filter INPUT: 1"}},
		"Docker": {true, []string{"filter DOCKER-USER: 2", "filter FORWARD: 0", "filter INPUT: 1"}},
	} {
		t.Run(name, func(t *testing.T) {
			conn := mustNetns(t)
			setup, drop := conn(), nftables.ChainPolicyDrop
			filter := setup.AddTable(&nftables.Table{Family: nftables.TableFamilyIPv4, Name: "filter"})
			for _, chain := range []*nftables.Chain{
				{Name: "FORWARD", Hooknum: nftables.ChainHookForward},
				{Name: "INPUT", Hooknum: nftables.ChainHookInput},
			} {
				chain.Table, chain.Type, chain.Priority, chain.Policy = filter, nftables.ChainTypeFilter, nftables.ChainPriorityFilter, &drop
				setup.AddChain(chain)
			}
			if c.docker {
				setup.AddChain(&nftables.Chain{Table: filter, Name: "DOCKER-USER"})
			}
			require.NoError(t, setup.Flush())
			before := mustList(t, conn())
			cfg, other := config(new(bytes.Buffer)), config(new(bytes.Buffer))
			other.Bridge = "esbother"

			for range 2 {
				require.NoError(t, apply(conn(), cfg))
			}
			have := slices.DeleteFunc(mustList(t, conn()), func(s string) bool { return s[:4] == "esb_" })
			assert.Equal(t, c.want, have)

			// Each stack removes its own rules alone.
			require.NoError(t, apply(conn(), other))
			require.NoError(t, remove(conn(), other.Bridge))
			have = slices.DeleteFunc(mustList(t, conn()), func(s string) bool { return s[:4] == "esb_" })
			assert.Equal(t, c.want, have)

			for range 2 {
				require.NoError(t, remove(conn(), cfg.Bridge))
				assert.Equal(t, before, mustList(t, conn()))
			}
		})
	}
}

func TestApply_UnknownFirewallDropsByPolicy_SaysWhichChain(t *testing.T) {
	conn := mustNetns(t)
	setup, drop := conn(), nftables.ChainPolicyDrop
	table := setup.AddTable(&nftables.Table{Family: nftables.TableFamilyINet, Name: "strict"})
	setup.AddChain(&nftables.Chain{Table: table, Name: "routed", Type: nftables.ChainTypeFilter, Hooknum: nftables.ChainHookForward, Priority: nftables.ChainPriorityFilter, Policy: &drop})
	require.NoError(t, setup.Flush())
	log := new(bytes.Buffer)

	require.NoError(t, apply(conn(), config(log)))

	assert.Contains(t, log.String(), "strict")
	assert.Contains(t, log.String(), "routed")
	assert.Contains(t, mustList(t, conn()), "strict routed: 0")
}
