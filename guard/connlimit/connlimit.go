// Package connlimit bounds the connections that a program holds: in all, from one address, and from networks that are
// trusted with less. A connection above a bound is closed at once and counted; it is never kept waiting, and no request
// of it is read. So a client that opens connections and says nothing takes its own share, and not the program's
// descriptors and memory.
package connlimit

import (
	"errors"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"

	"github.com/edge-serverless-box/esb/guard/rawconn"
)

// Bounds of a Limiter. 0 is no bound.
type Bounds struct {
	// Total is how many connections there may be.
	Total int
	// PerAddress is how many of them one address may have. The addresses of an IPv6 /64 count as one: a host gets a
	// whole /64, and may use any of it.
	PerAddress int
	// Networks have bounds of their own besides; the first that holds an address counts.
	Networks []Network
	// Evict closes the oldest connection in favour of a new one when Total is reached. It is for listeners that an
	// operator must always reach: whoever holds connections there loses them.
	Evict bool
}

// Network bounds what comes from one network.
type Network struct {
	// Name is for counters.
	Name   string
	Prefix netip.Prefix
	// Total and PerAddress are as in Bounds, which hold as well.
	Total, PerAddress int
}

// Reason says why a connection was refused.
type Reason int

// Reasons.
const (
	// Total: there are as many as there may be in all.
	Total Reason = iota
	// PerAddress: the address has as many as one may have.
	PerAddress
	// InNetwork: the network of the address has as many as it may have.
	InNetwork
	// Evicted is no refusal: an old connection was closed for a new one.
	Evicted
	reasons
)

// String returns the reason as a label of a metric.
func (r Reason) String() string {
	return [...]string{"total", "address", "network", "evicted"}[r]
}

// Reasons lists all reasons, for whoever counts them.
func Reasons() []Reason { return []Reason{Total, PerAddress, InNetwork, Evicted} }

// Limiter counts the connections of all listeners that it was given. It is safe for concurrent use.
type Limiter struct {
	bounds  Bounds
	refused [reasons]atomic.Uint64

	// mu guards what follows: open and byAddress count, networks too, in the order of bounds.Networks. oldest and newest
	// are the ends of the list of connections, which is kept for Evict alone.
	mu             sync.Mutex
	open           int
	byAddress      map[netip.Addr]int
	networks       []int
	oldest, newest *ticket
}

// New returns a Limiter.
func New(b Bounds) *Limiter {
	return &Limiter{bounds: b, byAddress: make(map[netip.Addr]int), networks: make([]int, len(b.Networks))}
}

// Listener returns l without the connections that are above the bounds. Closing a connection gives its place back.
func (l *Limiter) Listener(inner net.Listener) net.Listener {
	return &listener{Listener: inner, limiter: l}
}

// Open returns how many connections there are.
func (l *Limiter) Open() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.open
}

// Refused returns how many connections were closed for a reason.
func (l *Limiter) Refused(r Reason) uint64 { return l.refused[r].Load() }

// ticket is the place of one connection.
type ticket struct {
	limiter *Limiter
	addr    netip.Addr
	network int // index, -1 for none
	once    sync.Once
	// conn, previous and next are of the list, for Evict.
	conn           net.Conn
	previous, next *ticket
}

// admit takes a place for a connection, or says why there is none. evicted is a connection to be closed instead.
func (l *Limiter) admit(conn net.Conn) (t *ticket, evicted net.Conn, reason Reason) {
	addr := addressOf(conn.RemoteAddr())
	t = &ticket{limiter: l, addr: addr, network: -1}
	for i := range l.bounds.Networks {
		if l.bounds.Networks[i].Prefix.Contains(addr) {
			t.network = i
			break
		}
	}
	t.addr = grouped(addr)
	l.mu.Lock()
	defer l.mu.Unlock()
	held := l.byAddress[t.addr]
	if above(held, l.bounds.PerAddress) {
		return nil, nil, PerAddress
	}
	if t.network >= 0 {
		n := &l.bounds.Networks[t.network]
		if above(held, n.PerAddress) {
			return nil, nil, PerAddress
		}
		if above(l.networks[t.network], n.Total) {
			return nil, nil, InNetwork
		}
	}
	if above(l.open, l.bounds.Total) {
		if !l.bounds.Evict || l.oldest == nil {
			return nil, nil, Total
		}
		// Its own Close comes later and finds the place given back already.
		old := l.oldest
		evicted = old.conn
		old.once.Do(func() { l.forget(old) })
	}
	l.open++
	l.byAddress[t.addr]++
	if t.network >= 0 {
		l.networks[t.network]++
	}
	if l.bounds.Evict {
		t.conn = conn
		t.previous = l.newest
		if l.newest != nil {
			l.newest.next = t
		} else {
			l.oldest = t
		}
		l.newest = t
	}
	return t, evicted, 0
}

// above says whether one more than held is above a bound.
func above(held, bound int) bool { return bound > 0 && held >= bound }

// release gives the place back, once.
func (t *ticket) release() {
	t.once.Do(func() {
		t.limiter.mu.Lock()
		defer t.limiter.mu.Unlock()
		t.limiter.forget(t)
	})
}

// forget is release with mu held.
func (l *Limiter) forget(t *ticket) {
	l.open--
	if l.byAddress[t.addr]--; l.byAddress[t.addr] == 0 {
		delete(l.byAddress, t.addr)
	}
	if t.network >= 0 {
		l.networks[t.network]--
	}
	if t.conn == nil {
		return
	}
	if t.previous != nil {
		t.previous.next = t.next
	} else {
		l.oldest = t.next
	}
	if t.next != nil {
		t.next.previous = t.previous
	} else {
		l.newest = t.previous
	}
	t.conn, t.previous, t.next = nil, nil, nil
}

// addressOf is the address of a peer, the zero Addr for one that has none (a unix socket).
func addressOf(a net.Addr) netip.Addr {
	if tcp, ok := a.(*net.TCPAddr); ok {
		return tcp.AddrPort().Addr().Unmap().WithZone("")
	}
	if a == nil {
		return netip.Addr{}
	}
	ap, err := netip.ParseAddrPort(a.String())
	if err != nil {
		return netip.Addr{}
	}
	return ap.Addr().Unmap().WithZone("")
}

// grouped is what counts as one address.
func grouped(a netip.Addr) netip.Addr {
	if !a.Is6() {
		return a
	}
	p, err := a.Prefix(64)
	if err != nil {
		return a
	}
	return p.Addr()
}

type listener struct {
	net.Listener
	limiter *Limiter
}

// Accept implements net.Listener.
func (l *listener) Accept() (net.Conn, error) {
	for {
		conn, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		t, evicted, reason := l.limiter.admit(conn)
		if evicted != nil {
			l.limiter.refused[Evicted].Add(1)
			end(evicted)
		}
		if t == nil {
			l.limiter.refused[reason].Add(1)
			end(conn)
			continue
		}
		if tcp, ok := conn.(*net.TCPConn); ok {
			return &tcpConn{Conn: rawconn.Of(tcp), ticket: t}, nil
		}
		return &plainConn{Conn: conn, ticket: t}, nil
	}
}

// end closes a connection with a reset, which leaves nothing behind in the kernel.
func end(conn net.Conn) {
	if tcp, ok := conn.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0) // closed in any case
	}
	_ = conn.Close() // nobody is told
}

// tcpConn keeps what else a TCP connection can: net/http half closes it, and copies files to it.
type tcpConn struct {
	*rawconn.Conn
	ticket *ticket
}

// Close implements net.Conn.
func (c *tcpConn) Close() error {
	defer c.ticket.release()
	return c.Conn.Close()
}

type plainConn struct {
	net.Conn
	ticket *ticket
}

// Close implements net.Conn.
func (c *plainConn) Close() error {
	defer c.ticket.release()
	return c.Conn.Close()
}

// CloseWrite ends the sending half, as net/http does before it closes a connection that still sends.
func (c *plainConn) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return errors.ErrUnsupported
}
