package nftables

import (
	"bytes"
	"fmt"

	"github.com/google/nftables"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Keeper keeps the firewall that Apply has written, beside other programs that change theirs: Docker that is installed or started
// sets a policy of drop, and `nft flush ruleset` takes away everything, or `nft flush table` all but empty chains, which let everything
// pass. It is not safe for concurrent use.
type Keeper struct {
	cfg Config
	// unknown are the chains of other firewalls that somebody has been told of, nil until the first look.
	unknown map[string]bool
}

// NewKeeper returns a Keeper of a firewall that was applied.
func NewKeeper(cfg Config) *Keeper { return &Keeper{cfg: cfg} }

// Look looks whether all is as Apply has left it, and puts back what is not.
func (k *Keeper) Look() error {
	conn, err := nftables.New()
	if err != nil {
		return fmt.Errorf("open netlink to the packet filter: %w", err)
	}
	return k.look(conn)
}

func (k *Keeper) look(conn *nftables.Conn) error {
	chains, err := conn.ListChains()
	if err != nil {
		return fmt.Errorf("list the chains of the packet filter: %w", err)
	}
	openings, unknown := foreign(chains, k.cfg.Bridge)
	k.tell(unknown)
	want, err := k.whole()
	if err != nil {
		return err
	}
	has, err := k.has(conn, chains)
	if err != nil {
		return err
	}
	if has.chains < want.chains || has.rules < want.rules || has.elements < want.elements {
		if err := apply(conn, k.cfg); err != nil {
			return err
		}
		k.cfg.Logger.Error("the firewall of functions was gone, or a part of it, and they were neither bounded nor led outside; it is there again",
			"bridge", k.cfg.Bridge, "table", TableName(k.cfg.Bridge), "chains_missing", want.chains-has.chains,
			"rules_missing", want.rules-has.rules, "addresses_and_ports_missing", want.elements-has.elements)
		return nil
	}
	for _, o := range openings {
		rules, err := conn.GetRules(o.chain.Table, o.chain)
		if err != nil {
			return fmt.Errorf("list the rules of chain %s: %w", o.chain.Name, err)
		}
		found := 0
		for _, r := range rules {
			if bytes.Equal(r.UserData, comment(k.cfg.Bridge)) {
				found++
			}
		}
		if found >= len(o.rules) {
			continue
		}
		if err := passForeign(conn, k.cfg); err != nil {
			return err
		}
		k.cfg.Logger.Warn("another firewall began to drop the packets of functions; they pass again", "bridge", k.cfg.Bridge, "chain", o.chain.Name)
		return nil
	}
	return nil
}

// table is the one of Apply.
func (k *Keeper) table() *nftables.Table {
	return &nftables.Table{Family: nftables.TableFamilyINet, Name: TableName(k.cfg.Bridge)}
}

// whole is what the table is to have.
func (k *Keeper) whole() (content, error) {
	unsent, err := nftables.New() // a transaction that is only counted
	if err != nil {
		return content{}, fmt.Errorf("count the rules of the firewall: %w", err)
	}
	return writeRules(unsent, k.table(), k.cfg)
}

// has is what the table has; chains are those of all tables.
func (k *Keeper) has(conn *nftables.Conn, chains []*nftables.Chain) (found content, err error) {
	table := k.table()
	for _, chain := range chains {
		if chain.Table.Family == table.Family && chain.Table.Name == table.Name {
			found.chains++
		}
	}
	if found.chains == 0 {
		return found, nil
	}
	if found.rules, err = countRules(conn, table); err != nil {
		return content{}, err
	}
	sets, err := conn.GetSets(table)
	if err != nil {
		return content{}, fmt.Errorf("list the sets of firewall table %s: %w", table.Name, err)
	}
	for _, set := range sets {
		elements, err := conn.GetSetElements(set)
		if err != nil {
			return content{}, fmt.Errorf("list set %s of firewall table %s: %w", set.Name, table.Name, err)
		}
		found.elements += len(elements)
	}
	return found, nil
}

// countRules counts the rules of a table. nftables.Conn.GetRules cannot be used: v0.3.0 fails on rules with `ct original`.
func countRules(conn *nftables.Conn, table *nftables.Table) (n int, err error) {
	c, err := netlink.Dial(unix.NETLINK_NETFILTER, &netlink.Config{NetNS: conn.NetNS})
	if err != nil {
		return 0, fmt.Errorf("open netlink to the packet filter: %w", err)
	}
	defer func() { _ = c.Close() }() // only read
	name, err := netlink.MarshalAttributes([]netlink.Attribute{{Type: unix.NFTA_RULE_TABLE, Data: append([]byte(table.Name), 0)}})
	if err != nil {
		return 0, fmt.Errorf("ask for the rules of firewall table %s: %w", table.Name, err)
	}
	rules, err := c.Execute(netlink.Message{
		Header: netlink.Header{Type: unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_GETRULE, Flags: netlink.Request | netlink.Dump},
		Data:   append([]byte{byte(table.Family), unix.NFNETLINK_V0, 0, 0}, name...), // struct nfgenmsg
	})
	if err != nil {
		return 0, fmt.Errorf("list the rules of firewall table %s: %w", table.Name, err)
	}
	for _, r := range rules {
		// Those that were asked for, should a kernel not look at the name.
		if attributes, err := netlink.UnmarshalAttributes(r.Data[min(4, len(r.Data)):]); err == nil && len(attributes) > 0 &&
			attributes[0].Type == unix.NFTA_RULE_TABLE && string(bytes.TrimRight(attributes[0].Data, "\x00")) == table.Name {
			n++
		}
	}
	return n, nil
}

// tell warns of the firewalls that are new since the last look. Apply has warned of those before the first.
func (k *Keeper) tell(unknown []*nftables.Chain) {
	now := make(map[string]bool, len(unknown))
	for _, chain := range unknown {
		name := chain.Table.Name + " " + chain.Name
		if now[name] = true; k.unknown != nil && !k.unknown[name] {
			warnUnknown(k.cfg, chain)
		}
	}
	k.unknown = now
}
