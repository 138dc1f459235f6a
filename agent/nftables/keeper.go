package nftables

import (
	"bytes"
	"fmt"

	"github.com/google/nftables"
)

// ownChains is how many chains writeRules makes.
const ownChains = 4

// Keeper keeps the firewall that Apply has written, beside other programs that change theirs: Docker that is installed or started
// sets a policy of drop, and `nft flush ruleset` takes away everything. It is not safe for concurrent use.
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
	own := 0
	for _, chain := range chains {
		if chain.Table.Family == nftables.TableFamilyINet && chain.Table.Name == TableName(k.cfg.Bridge) {
			own++
		}
	}
	if own < ownChains {
		if err := apply(conn, k.cfg); err != nil {
			return err
		}
		k.cfg.Logger.Error("the firewall of functions was gone, and they were neither bounded nor led outside; it is there again",
			"bridge", k.cfg.Bridge, "table", TableName(k.cfg.Bridge))
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
