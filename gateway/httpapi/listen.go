package httpapi

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// listener is one bound address and the server that answers on it.
type listener struct {
	net.Listener
	setting string // the environment variable that names the address
	scheme  string // https, http or admin
	server  *http.Server
}

// listen binds addr. An address of one interface may be bound before it exists, because the function network's
// bridge comes with the first container.
func listen(ctx context.Context, setting, addr, scheme string) (*listener, error) {
	var lc net.ListenConfig
	if host, _, err := net.SplitHostPort(addr); err == nil {
		if ip, err := netip.ParseAddr(host); err == nil && !ip.IsLoopback() && !ip.IsUnspecified() {
			lc.Control = freebind
		}
	}
	l, err := lc.Listen(ctx, "tcp", addr)
	switch {
	case err == nil:
		return &listener{Listener: l, setting: setting, scheme: scheme}, nil
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

func (l *listener) port() string {
	_, port, _ := net.SplitHostPort(l.Addr().String())
	return port
}

func (l *listener) serve() error {
	if l.server.TLSConfig != nil {
		return l.server.ServeTLS(l.Listener, "", "")
	}
	return l.server.Serve(l.Listener)
}
