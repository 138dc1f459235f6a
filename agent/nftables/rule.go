package nftables

import (
	"net"
	"net/netip"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// rule is the list of expressions of one rule: conditions, and at its end what to do.
type rule []expr.Any

// Bits of `ct state` and `ct status` (linux/netfilter/nf_conntrack_common.h).
const (
	stateEstablished = expr.CtStateBitESTABLISHED | expr.CtStateBitRELATED
	stateInvalid     = expr.CtStateBitINVALID
	statusDNAT       = 1 << 5
)

// register is where each condition puts the value that it compares.
const register = 1

func join(parts ...rule) rule { return slices.Concat(parts...) }

func equal(data []byte) expr.Any {
	return &expr.Cmp{Op: expr.CmpOpEq, Register: register, Data: data}
}

func interfaceIs(key expr.MetaKey, op expr.CmpOp, name string) rule {
	padded := make([]byte, unix.IFNAMSIZ)
	copy(padded, name)
	return rule{
		&expr.Meta{Key: key, Register: register},
		&expr.Cmp{Op: op, Register: register, Data: padded},
	}
}

func inInterface(name string) rule  { return interfaceIs(expr.MetaKeyIIFNAME, expr.CmpOpEq, name) }
func outInterface(name string) rule { return interfaceIs(expr.MetaKeyOIFNAME, expr.CmpOpEq, name) }
func notInInterface(name string) rule {
	return interfaceIs(expr.MetaKeyIIFNAME, expr.CmpOpNeq, name)
}
func notOutInterface(name string) rule {
	return interfaceIs(expr.MetaKeyOIFNAME, expr.CmpOpNeq, name)
}

func family(f byte) rule {
	return rule{&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: register}, equal([]byte{f})}
}

// sentBy tells the packets of sockets that a user of this machine has opened.
func sentBy(user uint32) rule {
	return rule{&expr.Meta{Key: expr.MetaKeySKUID, Register: register}, equal(binaryutil.NativeEndian.PutUint32(user))}
}

func ipv4() rule { return family(unix.NFPROTO_IPV4) }
func ipv6() rule { return family(unix.NFPROTO_IPV6) }

func protocol(p byte) rule {
	return rule{&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: register}, equal([]byte{p})}
}

// Offsets in the IPv4 header.
const (
	offsetSource      = 12
	offsetDestination = 16
)

func addressField(offset uint32) expr.Any {
	return &expr.Payload{DestRegister: register, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: 4}
}

func addressIn(offset uint32, op expr.CmpOp, subnet netip.Prefix) rule {
	mask := net.CIDRMask(subnet.Bits(), 32)
	return join(ipv4(), rule{
		addressField(offset),
		&expr.Bitwise{SourceRegister: register, DestRegister: register, Len: 4, Mask: mask, Xor: make([]byte, 4)},
		&expr.Cmp{Op: op, Register: register, Data: subnet.Masked().Addr().AsSlice()},
	})
}

func sourceIn(p netip.Prefix) rule      { return addressIn(offsetSource, expr.CmpOpEq, p) }
func sourceNotIn(p netip.Prefix) rule   { return addressIn(offsetSource, expr.CmpOpNeq, p) }
func destinationIn(p netip.Prefix) rule { return addressIn(offsetDestination, expr.CmpOpEq, p) }

func destination(a netip.Addr) rule {
	return join(ipv4(), rule{addressField(offsetDestination), equal(a.AsSlice())})
}

func destinationInSet(set *nftables.Set) rule {
	return join(ipv4(), rule{addressField(offsetDestination), in(set)})
}

func in(set *nftables.Set) expr.Any {
	return &expr.Lookup{SourceRegister: register, SetName: set.Name, SetID: set.ID}
}

// portField is the destination port; TCP and UDP have it at the same place.
func portField() expr.Any {
	return &expr.Payload{DestRegister: register, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2}
}

func destinationPortIn(set *nftables.Set) rule { return rule{portField(), in(set)} }
func destinationPort(port uint16) rule {
	return rule{portField(), equal(binaryutil.BigEndian.PutUint16(port))}
}

func icmpEcho() rule {
	const echoRequest = 8
	return join(protocol(unix.IPPROTO_ICMP), rule{
		&expr.Payload{DestRegister: register, Base: expr.PayloadBaseTransportHeader, Offset: 0, Len: 1},
		equal([]byte{echoRequest}),
	})
}

func bitsSet(bits uint32) []expr.Any {
	return []expr.Any{
		&expr.Bitwise{SourceRegister: register, DestRegister: register, Len: 4, Mask: binaryutil.NativeEndian.PutUint32(bits), Xor: make([]byte, 4)},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: register, Data: make([]byte, 4)},
	}
}

func connection(states uint32) rule {
	return append(rule{&expr.Ct{Register: register, Key: expr.CtKeySTATE}}, bitsSet(states)...)
}

// redirected tells connections whose destination was rewritten, as for a port that Docker publishes.
func redirected() rule {
	return append(rule{&expr.Ct{Register: register, Key: expr.CtKeySTATUS}}, bitsSet(statusDNAT)...)
}

// originalPortIn looks at the port before it was rewritten. Direction 0, the default, is the original one. (There is
// no such condition on the address: nft aborts on what google/nftables v0.3.0 can write for it in an inet table.)
func originalPortIn(set *nftables.Set) rule {
	return rule{&expr.Ct{Register: register, Key: expr.CtKeyPROTODST}, in(set)}
}

func originalPort(port uint16) rule {
	return rule{&expr.Ct{Register: register, Key: expr.CtKeyPROTODST}, equal(binaryutil.BigEndian.PutUint16(port))}
}

func drop() rule         { return rule{&expr.Verdict{Kind: expr.VerdictDrop}} }
func acceptPacket() rule { return rule{&expr.Verdict{Kind: expr.VerdictAccept}} }
func masquerade() rule   { return rule{&expr.Masq{}} }

// resetTCP makes a refused port answer like a closed one.
func resetTCP() rule {
	return rule{&expr.Reject{Type: unix.NFT_REJECT_TCP_RST}}
}

func reject() rule {
	return rule{&expr.Reject{Type: unix.NFT_REJECT_ICMPX_UNREACH, Code: unix.NFT_REJECT_ICMPX_ADMIN_PROHIBITED}}
}
