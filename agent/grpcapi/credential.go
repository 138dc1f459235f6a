package grpcapi

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"slices"
	"syscall"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/tap"

	"github.com/edge-serverless-box/esb/guard/bearer"
)

const unixNetwork = "unix"

// admit lets a call in, of whatever service, before anything of it is read: one that comes by the unix socket, where
// ListenUnix has looked at the caller, or that brings the token.
func (s *Server) admit(ctx context.Context, info *tap.Info) (context.Context, error) {
	if s.opts.Token == "" {
		return ctx, nil // mutual TLS has looked at the caller
	}
	if p, ok := peer.FromContext(ctx); ok && p.Addr.Network() == unixNetwork {
		return ctx, nil
	}
	if !s.opts.Token.Matches(info.Header.Get(bearer.Header)) {
		return ctx, status.Error(codes.Unauthenticated, "a call needs the agent's token (AGENT_TOKEN_FILE), or to come by its unix socket (AGENT_SOCKET)")
	}
	return ctx, nil
}

// plainUnix are transport credentials that do not ask for TLS on the unix socket.
type plainUnix struct {
	credentials.TransportCredentials
}

// ServerHandshake implements credentials.TransportCredentials.
func (c plainUnix) ServerHandshake(conn net.Conn) (net.Conn, credentials.AuthInfo, error) {
	if conn.LocalAddr().Network() == unixNetwork {
		return insecure.NewCredentials().ServerHandshake(conn)
	}
	return c.TransportCredentials.ServerHandshake(conn)
}

// Clone implements credentials.TransportCredentials.
func (c plainUnix) Clone() credentials.TransportCredentials {
	return plainUnix{c.TransportCredentials.Clone()}
}

// ListenUnix listens on a unix socket that root and the user owner alone may use: the file is the owner's with mode 0600,
// and the kernel is asked for the user of each connection besides. A socket that an earlier process left is replaced.
func ListenUnix(path string, owner int, log *slog.Logger) (net.Listener, error) {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("remove the socket of an earlier agent: %w", err)
	}
	listener, err := net.ListenUnix(unixNetwork, &net.UnixAddr{Name: path, Net: unixNetwork})
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", path, err)
	}
	if err := errors.Join(os.Chmod(path, 0o600), os.Chown(path, owner, -1)); err != nil {
		return nil, errors.Join(fmt.Errorf("close the socket to others: %w", err), listener.Close())
	}
	return &userListener{UnixListener: listener, users: []uint32{0, uint32(owner)}, log: log}, nil
}

// userListener accepts connections of some users alone.
type userListener struct {
	*net.UnixListener
	users []uint32
	log   *slog.Logger
}

// Accept implements net.Listener.
func (l *userListener) Accept() (net.Conn, error) {
	for {
		conn, err := l.AcceptUnix()
		if err != nil {
			return nil, err
		}
		uid, err := userOf(conn)
		if err == nil && slices.Contains(l.users, uid) {
			return conn, nil
		}
		l.log.Warn("connection to the agent's socket refused", "uid", uid, "error", err)
		_ = conn.Close()
	}
}

// userOf asks the kernel who has made a connection.
func userOf(conn syscall.Conn) (uint32, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return 0, err
	}
	var who *unix.Ucred
	var optErr error
	if err := raw.Control(func(fd uintptr) { who, optErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) }); err != nil {
		return 0, err
	}
	if optErr != nil {
		return 0, fmt.Errorf("ask for the user of a connection: %w", optErr)
	}
	return who.Uid, nil
}
