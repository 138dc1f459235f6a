package nftables

import (
	"bytes"
	"slices"
	"strings"
	"testing"

	"github.com/google/nftables"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// mustDrop sets a policy of drop in a forward chain, as another program does.
func mustDrop(t *testing.T, conn *nftables.Conn, family nftables.TableFamily, table, chain string) {
	t.Helper()
	drop := nftables.ChainPolicyDrop
	to := conn.AddTable(&nftables.Table{Family: family, Name: table})
	conn.AddChain(&nftables.Chain{
		Table: to, Name: chain, Type: nftables.ChainTypeFilter, Hooknum: nftables.ChainHookForward,
		Priority: nftables.ChainPriorityFilter, Policy: &drop,
	})
	require.NoError(t, conn.Flush())
}

// without leaves out of a list what begins so.
func without(list []string, prefix string) []string {
	return slices.DeleteFunc(slices.Clone(list), func(s string) bool { return strings.HasPrefix(s, prefix) })
}

func TestKeeper_IptablesBeginsToDrop_LetsTheBridgePass(t *testing.T) {
	conn := mustNetns(t)
	log := new(bytes.Buffer)
	cfg := config(log)
	require.NoError(t, apply(conn(), cfg))
	keeper := NewKeeper(cfg)
	require.NoError(t, keeper.look(conn()))
	assert.Empty(t, log.String(), "nothing to do, nothing to say")

	forward := func() int {
		rules, err := conn().GetRules(&nftables.Table{Family: nftables.TableFamilyIPv4, Name: "filter"}, &nftables.Chain{Name: "FORWARD"})
		require.NoError(t, err)
		return len(rules)
	}
	mustDrop(t, conn(), nftables.TableFamilyIPv4, "filter", "FORWARD")
	for range 2 {
		require.NoError(t, keeper.look(conn()))
		assert.Equal(t, 2, forward())
	}
	assert.Equal(t, 1, strings.Count(log.String(), "they pass again"))

	// Docker makes its chain, and what was in the other is not needed any more.
	docker := conn()
	docker.AddChain(&nftables.Chain{Table: &nftables.Table{Family: nftables.TableFamilyIPv4, Name: "filter"}, Name: "DOCKER-USER"})
	require.NoError(t, docker.Flush())
	for range 2 {
		require.NoError(t, keeper.look(conn()))
		assert.Zero(t, forward())
		assert.Contains(t, mustList(t, conn()), "filter DOCKER-USER: 2")
	}
	assert.Equal(t, 2, strings.Count(log.String(), "they pass again"))

	// Flushed, as by a restart of that firewall.
	require.NoError(t, removeForeign(docker, cfg.Bridge))
	require.NoError(t, docker.Flush())
	require.NoError(t, keeper.look(conn()))
	assert.Contains(t, mustList(t, conn()), "filter DOCKER-USER: 2")
}

func TestKeeper_RulesetFlushed_IsWrittenAgain(t *testing.T) {
	conn := mustNetns(t)
	log := new(bytes.Buffer)
	cfg := config(log)
	require.NoError(t, apply(conn(), cfg))
	before := mustList(t, conn())
	keeper := NewKeeper(cfg)
	flush := conn()
	flush.FlushRuleset()
	require.NoError(t, flush.Flush())
	require.Empty(t, mustList(t, conn()))
	for range 2 {
		require.NoError(t, keeper.look(conn()))
		assert.Equal(t, before, mustList(t, conn()))
	}
	assert.Equal(t, 1, strings.Count(log.String(), "level=ERROR"))
}

// TestKeeper_OwnTableLosesAPart_IsWrittenAgain: chains that are there say nothing, empty ones let everything pass.
func TestKeeper_OwnTableLosesAPart_IsWrittenAgain(t *testing.T) {
	for name, lose := range map[string]func(*testing.T, *nftables.Conn, *nftables.Table){
		"all rules": func(_ *testing.T, conn *nftables.Conn, table *nftables.Table) { conn.FlushTable(table) },
		"the rules of one chain": func(_ *testing.T, conn *nftables.Conn, table *nftables.Table) {
			conn.FlushChain(&nftables.Chain{Table: table, Name: "forward"})
		},
		"one rule": func(t *testing.T, conn *nftables.Conn, table *nftables.Table) {
			rules, err := conn.GetRules(table, &nftables.Chain{Table: table, Name: "postrouting"})
			require.NoError(t, err)
			require.NotEmpty(t, rules)
			require.NoError(t, conn.DelRule(rules[0]))
		},
		"a set": func(t *testing.T, conn *nftables.Conn, table *nftables.Table) {
			set, err := conn.GetSetByName(table, "host_ports")
			require.NoError(t, err)
			conn.FlushSet(set)
		},
	} {
		t.Run(name, func(t *testing.T) {
			conn := mustNetns(t)
			log := new(bytes.Buffer)
			cfg := config(log)
			require.NoError(t, apply(conn(), cfg))
			keeper := NewKeeper(cfg)
			whole, err := keeper.whole()
			require.NoError(t, err)
			has := func() content {
				chains, err := conn().ListChains()
				require.NoError(t, err)
				found, err := keeper.has(conn(), chains)
				require.NoError(t, err)
				return found
			}
			require.Equal(t, whole, has())
			require.NoError(t, keeper.look(conn()))
			require.Empty(t, log.String())

			cut := conn()
			lose(t, cut, &nftables.Table{Family: nftables.TableFamilyINet, Name: TableName(cfg.Bridge)})
			require.NoError(t, cut.Flush())
			require.NotEqual(t, whole, has())
			for range 2 {
				require.NoError(t, keeper.look(conn()))
				assert.Equal(t, whole, has())
			}
			assert.Equal(t, 1, strings.Count(log.String(), "level=ERROR"), log.String())
		})
	}
}

func TestKeeper_UnknownFirewallBeginsToDrop_IsSaidOnce(t *testing.T) {
	conn := mustNetns(t)
	log := new(bytes.Buffer)
	cfg := config(log)
	mustDrop(t, conn(), nftables.TableFamilyINet, "first", "routed")
	require.NoError(t, apply(conn(), cfg))
	keeper := NewKeeper(cfg)
	require.NoError(t, keeper.look(conn()))
	mustDrop(t, conn(), nftables.TableFamilyINet, "second", "routed")
	for range 3 {
		require.NoError(t, keeper.look(conn()))
	}
	assert.Equal(t, 1, strings.Count(log.String(), "table=first"))
	assert.Equal(t, 1, strings.Count(log.String(), "table=second"))
	assert.Subset(t, without(mustList(t, conn()), "esb_"), []string{"first routed: 0", "second routed: 0"})
}
