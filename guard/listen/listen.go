// Package listen binds the addresses that settings name, and says what to do where one cannot be had.
package listen

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// All listens on every address; setting is the environment variable that names them. When one of them cannot be had, none
// is open.
func All(ctx context.Context, setting string, addrs []string) ([]net.Listener, error) {
	return Given(ctx, setting, addrs, func(string) net.Listener { return nil })
}

// Name is what a socket is known by to the next process that listens there: the same address may be named by two settings.
func Name(setting, addr string) string { return setting + "=" + addr }

// Given is All with sockets that are there already: given returns that of a name, nil for none.
func Given(ctx context.Context, setting string, addrs []string, given func(name string) net.Listener) ([]net.Listener, error) {
	var listeners []net.Listener
	for _, addr := range addrs {
		l := given(Name(setting, addr))
		if l == nil {
			var err error
			if l, err = One(ctx, setting, addr); err != nil {
				for _, other := range listeners {
					_ = other.Close()
				}
				return nil, err
			}
		}
		listeners = append(listeners, l)
	}
	return listeners, nil
}

// One listens on one address. That of one interface may be listened on before it exists, because the function network's bridge comes
// with the agent.
func One(ctx context.Context, setting, addr string) (net.Listener, error) {
	var lc net.ListenConfig
	if host, _, err := net.SplitHostPort(addr); err == nil {
		if ip, err := netip.ParseAddr(host); err == nil && !ip.IsLoopback() && !ip.IsUnspecified() {
			lc.Control = freebind
		}
	}
	l, err := lc.Listen(ctx, "tcp", addr)
	switch {
	case err == nil:
		return l, nil
	case errors.Is(err, syscall.EADDRINUSE):
		return nil, fmt.Errorf("%s: %s is in use: stop the program that listens there (ss -ltnp shows it) or choose another address: %w", setting, addr, err)
	case errors.Is(err, syscall.EACCES):
		return nil, fmt.Errorf("%s: not allowed to listen on %s: run as root, give CAP_NET_BIND_SERVICE, or choose a port above 1023: %w", setting, addr, err)
	}
	return nil, fmt.Errorf("%s: cannot listen on %q: want host:port of this machine: %w", setting, addr, err)
}

// freebind lets the socket be bound to an address that no interface has yet.
func freebind(network, _ string, c syscall.RawConn) error {
	var err error
	control := c.Control(func(fd uintptr) {
		if strings.HasSuffix(network, "6") {
			err = unix.SetsockoptInt(int(fd), unix.IPPROTO_IPV6, unix.IPV6_FREEBIND, 1)
			return
		}
		err = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_FREEBIND, 1)
	})
	return errors.Join(control, err)
}
