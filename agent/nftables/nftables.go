// Package nftables writes the packet filter of the function network. It talks netlink to the kernel through
// google/nftables, so that the box needs no nft or iptables program.
//
// One table `inet esb_<bridge>` holds everything. It is replaced as a whole in one transaction: there is no moment
// with half a firewall, and applying it twice is the same as once. It holds no rule per function, so starting a
// container never touches it.
package nftables

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"

	"github.com/google/nftables"
	"github.com/google/nftables/userdata"
	"golang.org/x/sys/unix"
)

// tablePrefix starts the name of each table of this package.
const tablePrefix = "esb_"

// Config says what the firewall protects.
type Config struct {
	// Bridge is the name of the function network's bridge; the table is called after it.
	Bridge string
	// Subnet is the function network, IPv4.
	Subnet netip.Prefix
	// Gateway is the box's own address in Subnet, the only one of its addresses that functions may use.
	Gateway netip.Addr
	// HostPorts are the TCP ports of Gateway that functions may reach.
	HostPorts []uint16
	// DNS are the name servers of functions. One that is an address of the box itself is reachable on port 53;
	// IPv6 addresses do not matter, because functions have no IPv6.
	DNS []netip.Addr
	// Deny are networks outside of the box that functions may not reach, IPv4; LinkLocal always is one.
	Deny []netip.Prefix
	// Users of this machine, by number, beside root that may connect to functions.
	Users []uint32
	// Logger receives a warning when another firewall on the box stands in the way.
	Logger *slog.Logger
}

// LinkLocal has what no function needs and must not have: where clouds tell a machine its role's keys, for one (RFC 3927;
// nothing in it is to be forwarded).
var LinkLocal = netip.MustParsePrefix("169.254.0.0/16")

// TableName returns the name of the table that belongs to a bridge.
func TableName(bridge string) string { return tablePrefix + bridge }

// Apply writes the firewall, in place of the one that an earlier run left.
//
// An accept of ours cannot overrule another table's drop. So where iptables-nft, and with it Docker or ufw, drops
// forwarded or incoming packets by policy, Apply also puts one accept rule for the bridge in front there: what
// functions may do is decided by our own table before. Firewalls that Apply cannot change get a log line that says
// what to do.
func Apply(cfg Config) error {
	conn, err := nftables.New()
	if err != nil {
		return fmt.Errorf("open netlink to the packet filter: %w", err)
	}
	return apply(conn, cfg)
}

func apply(conn *nftables.Conn, cfg Config) error {
	table := &nftables.Table{Family: nftables.TableFamilyINet, Name: TableName(cfg.Bridge)}
	// Deleting a table that is not there is an error, so it is added first. All of this is one transaction.
	conn.AddTable(table)
	conn.DelTable(table)
	conn.AddTable(table)
	if _, err := writeRules(conn, table, cfg); err != nil {
		return err
	}
	if err := conn.Flush(); err != nil {
		return fmt.Errorf("write firewall table %q (does the kernel have nf_tables with nft_ct, nft_masq and nft_reject_inet?): %w", table.Name, err)
	}
	if err := passForeign(conn, cfg); err != nil {
		// Most boxes have no other firewall, or one that lets functions pass: no reason not to start.
		cfg.Logger.Warn("cannot open the other firewalls of this box for functions; if they are cut off, allow the bridge in its FORWARD and INPUT chains",
			"bridge", cfg.Bridge, "error", err)
	}
	return nil
}

// Remove deletes the firewall of a bridge and its rules in other tables. A firewall that is not there is no error.
func Remove(bridge string) error {
	conn, err := nftables.New()
	if err != nil {
		return fmt.Errorf("open netlink to the packet filter: %w", err)
	}
	return remove(conn, bridge)
}

func remove(conn *nftables.Conn, bridge string) error {
	// Our own table goes also when this fails: the rules elsewhere are accepts for a bridge that is gone.
	foreignErr := removeForeign(conn, bridge)
	if foreignErr == nil {
		foreignErr = conn.Flush()
	}
	if foreignErr != nil {
		foreignErr = fmt.Errorf("remove the rules with comment %s from the iptables filter table: %w", TableName(bridge), foreignErr)
	}
	table := &nftables.Table{Family: nftables.TableFamilyINet, Name: TableName(bridge)}
	conn.AddTable(table)
	conn.DelTable(table)
	if err := conn.Flush(); err != nil {
		return errors.Join(foreignErr, fmt.Errorf("remove firewall table %q: %w", table.Name, err))
	}
	return foreignErr
}

// numbering is held while sets are added: the library numbers those of all connections together, and does not guard the number
// (google/nftables v0.3.0, set.go, allocSetID).
var numbering sync.Mutex

// content counts what a table has.
type content struct{ chains, rules, elements int }

// writeRules adds the chains of the function network to the transaction of conn, and returns what it has added.
//
//	from the bridge     to a function           dropped (also across layer 3; the bridge isolates its ports already)
//	                    to the box              HostPorts and ping of Gateway, DNS; everything else rejected
//	                    to the outside          accepted, masqueraded; Deny dropped, but for DNS
//	from the outside    to a function, Gateway  dropped, unless it is an answer
//	from the box        to a function           answers; from root and Users alone what is new, the rest refused
func writeRules(conn *nftables.Conn, table *nftables.Table, cfg Config) (written content, err error) {
	numbering.Lock()
	defer numbering.Unlock()
	ports := &nftables.Set{Table: table, Name: "host_ports", KeyType: nftables.TypeInetService}
	var elements []nftables.SetElement
	for _, port := range slices.Compact(slices.Sorted(slices.Values(cfg.HostPorts))) {
		elements = append(elements, nftables.SetElement{Key: []byte{byte(port >> 8), byte(port)}})
	}
	if err := conn.AddSet(ports, elements); err != nil {
		return content{}, fmt.Errorf("build the set of host ports: %w", err)
	}
	written.elements += len(elements)
	dns := &nftables.Set{Table: table, Name: "dns_servers", KeyType: nftables.TypeIPAddr}
	elements = nil
	servers := make([]netip.Addr, 0, len(cfg.DNS))
	for _, addr := range cfg.DNS {
		servers = append(servers, addr.Unmap())
	}
	slices.SortFunc(servers, netip.Addr.Compare)
	for _, addr := range slices.Compact(servers) {
		if addr.Is4() {
			elements = append(elements, nftables.SetElement{Key: addr.AsSlice()})
		}
	}
	if err := conn.AddSet(dns, elements); err != nil {
		return content{}, fmt.Errorf("build the set of DNS servers: %w", err)
	}
	written.elements += len(elements)

	accept := nftables.ChainPolicyAccept
	// Before the usual filter priority, so that the order of our and others' rules is known.
	priority := nftables.ChainPriorityRef(*nftables.ChainPriorityFilter - 5)
	base := func(name string, typ nftables.ChainType, hook *nftables.ChainHook, prio *nftables.ChainPriority) *nftables.Chain {
		written.chains++
		return conn.AddChain(&nftables.Chain{Table: table, Name: name, Type: typ, Hooknum: hook, Priority: prio, Policy: &accept})
	}
	input := base("input", nftables.ChainTypeFilter, nftables.ChainHookInput, priority)
	forward := base("forward", nftables.ChainTypeFilter, nftables.ChainHookForward, priority)
	output := base("output", nftables.ChainTypeFilter, nftables.ChainHookOutput, priority)
	postrouting := base("postrouting", nftables.ChainTypeNAT, nftables.ChainHookPostrouting, nftables.ChainPriorityNATSource)
	add := func(chain *nftables.Chain, rules ...rule) {
		written.rules += len(rules)
		for _, r := range rules {
			conn.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: r})
		}
	}
	br := cfg.Bridge

	add(input,
		// Function addresses mean something on the bridge only: from elsewhere they are spoofed or nosy.
		join(notInInterface(br), notInInterface("lo"), destinationIn(cfg.Subnet), drop()),
		join(notInInterface(br), notInInterface("lo"), sourceIn(cfg.Subnet), drop()),
		join(notInInterface(br), acceptPacket()),
		join(connection(stateEstablished), acceptPacket()),
		join(connection(stateInvalid), drop()),
		join(sourceNotIn(cfg.Subnet), drop()),
		join(destination(cfg.Gateway), protocol(unix.IPPROTO_TCP), destinationPortIn(ports), acceptPacket()),
		join(destination(cfg.Gateway), icmpEcho(), acceptPacket()),
		join(destinationInSet(dns), protocol(unix.IPPROTO_UDP), destinationPort(53), acceptPacket()),
		join(destinationInSet(dns), protocol(unix.IPPROTO_TCP), destinationPort(53), acceptPacket()),
		join(protocol(unix.IPPROTO_TCP), resetTCP()),
		join(reject()),
	)
	add(forward,
		join(inInterface(br), outInterface(br), drop()),
		join(outInterface(br), connection(stateEstablished), acceptPacket()),
		join(outInterface(br), drop()),
		join(notInInterface(br), acceptPacket()),
		join(connection(stateEstablished), acceptPacket()),
		join(connection(stateInvalid), drop()),
		join(ipv6(), drop()),
		join(sourceNotIn(cfg.Subnet), drop()),
		// A port of the box that Docker publishes is redirected before it is routed, so it arrives here and not at
		// input: the same ports are allowed, and no others.
		join(redirected(), protocol(unix.IPPROTO_TCP), originalPortIn(ports), acceptPacket()),
		join(redirected(), protocol(unix.IPPROTO_UDP), originalPort(53), acceptPacket()),
		join(redirected(), protocol(unix.IPPROTO_TCP), originalPort(53), acceptPacket()),
		join(redirected(), protocol(unix.IPPROTO_TCP), resetTCP()),
		join(redirected(), reject()),
		join(destinationInSet(dns), protocol(unix.IPPROTO_UDP), destinationPort(53), acceptPacket()),
		join(destinationInSet(dns), protocol(unix.IPPROTO_TCP), destinationPort(53), acceptPacket()),
	)
	for _, prefix := range append([]netip.Prefix{LinkLocal}, cfg.Deny...) {
		add(forward, join(destinationIn(prefix), drop()))
	}
	add(forward, join(acceptPacket()))
	add(output,
		join(notOutInterface(br), acceptPacket()),
		// Answers, those of the kernel too, which no user sends.
		join(connection(stateEstablished), acceptPacket()),
	)
	for _, user := range append([]uint32{0}, cfg.Users...) {
		add(output, join(sentBy(user), acceptPacket()))
	}
	add(output,
		join(destinationIn(cfg.Subnet), protocol(unix.IPPROTO_TCP), resetTCP()),
		join(destinationIn(cfg.Subnet), reject()),
	)
	add(postrouting,
		join(sourceIn(cfg.Subnet), notOutInterface(br), masquerade()),
	)
	return written, nil
}

// passForeign opens the chains of other firewalls that drop by policy.
func passForeign(conn *nftables.Conn, cfg Config) error {
	if err := removeForeign(conn, cfg.Bridge); err != nil {
		return err
	}
	chains, err := conn.ListChains()
	if err != nil {
		return fmt.Errorf("list the chains of the packet filter: %w", err)
	}
	openings, unknown := foreign(chains, cfg.Bridge)
	for _, chain := range unknown {
		warnUnknown(cfg, chain)
	}
	for _, o := range openings {
		for _, r := range o.rules {
			conn.InsertRule(&nftables.Rule{Table: o.chain.Table, Chain: o.chain, Exprs: r, UserData: comment(cfg.Bridge)})
		}
	}
	if err := conn.Flush(); err != nil {
		return fmt.Errorf("write rules to the iptables filter table: %w", err)
	}
	if legacyTables, err := os.ReadFile("/proc/net/ip_tables_names"); err == nil && slices.Contains(strings.Fields(string(legacyTables)), "filter") {
		cfg.Logger.Warn("iptables-legacy has a filter table; if its FORWARD or INPUT policy is DROP, functions are cut off: "+
			"run iptables-legacy -I FORWARD -i BRIDGE -j ACCEPT, -I FORWARD -o BRIDGE -j ACCEPT and -I INPUT -i BRIDGE -j ACCEPT",
			"bridge", cfg.Bridge)
	}
	return nil
}

// opening is what lets functions pass in another firewall.
type opening struct {
	chain *nftables.Chain
	rules []rule
}

// foreign finds the other firewalls that drop by policy among all chains: what opens those of iptables, and the chains of others.
func foreign(chains []*nftables.Chain, bridge string) (openings []opening, unknown []*nftables.Chain) {
	for _, chain := range chains {
		if !dropsByPolicy(chain) || strings.HasPrefix(chain.Table.Name, tablePrefix) {
			continue
		}
		if !isIPTables(chain.Table) {
			unknown = append(unknown, chain)
			continue
		}
		o := opening{chain, []rule{join(inInterface(bridge), acceptPacket())}}
		if *chain.Hooknum == *nftables.ChainHookForward {
			o.rules = append(o.rules, join(outInterface(bridge), acceptPacket()))
			// Docker keeps this chain in front of its own, also when it starts again.
			if i := slices.IndexFunc(chains, func(c *nftables.Chain) bool {
				return isIPTables(c.Table) && c.Name == "DOCKER-USER"
			}); i >= 0 {
				o.chain = chains[i]
			}
		}
		openings = append(openings, o)
	}
	return openings, unknown
}

func warnUnknown(cfg Config, chain *nftables.Chain) {
	cfg.Logger.Warn("another firewall drops packets by policy and may cut functions off: allow the bridge in it",
		"bridge", cfg.Bridge, "table", chain.Table.Name, "chain", chain.Name)
}

// removeForeign adds the removal of the rules of passForeign to the transaction of conn.
func removeForeign(conn *nftables.Conn, bridge string) error {
	chains, err := conn.ListChainsOfTableFamily(nftables.TableFamilyIPv4)
	if err != nil {
		return fmt.Errorf("list the chains of the packet filter: %w", err)
	}
	for _, chain := range chains {
		if !isIPTables(chain.Table) {
			continue
		}
		rules, err := conn.GetRules(chain.Table, chain)
		if err != nil {
			return fmt.Errorf("list the rules of chain %s: %w", chain.Name, err)
		}
		for _, r := range rules {
			if !bytes.Equal(r.UserData, comment(bridge)) {
				continue
			}
			if err := conn.DelRule(r); err != nil {
				return fmt.Errorf("delete a rule of chain %s: %w", chain.Name, err)
			}
		}
	}
	return nil
}

func dropsByPolicy(c *nftables.Chain) bool {
	if c.Table.Family != nftables.TableFamilyIPv4 && c.Table.Family != nftables.TableFamilyINet {
		return false
	}
	if c.Hooknum == nil || c.Policy == nil || *c.Policy != nftables.ChainPolicyDrop || c.Type != nftables.ChainTypeFilter {
		return false
	}
	return *c.Hooknum == *nftables.ChainHookForward || *c.Hooknum == *nftables.ChainHookInput
}

// isIPTables tells the table that iptables-nft keeps its filter in.
func isIPTables(t *nftables.Table) bool {
	return t.Family == nftables.TableFamilyIPv4 && t.Name == "filter"
}

// comment marks our rules in foreign tables; iptables shows it as a comment.
func comment(bridge string) []byte {
	return userdata.AppendString(nil, userdata.TypeComment, TableName(bridge))
}
