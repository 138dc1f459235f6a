package app

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/edge-serverless-box/esb/agent/settings"
	"github.com/edge-serverless-box/esb/guard/bearer"
	"github.com/edge-serverless-box/esb/guard/hung"
)

// healthTimeout bounds one question for the health of an agent.
const healthTimeout = 5 * time.Second

// Health asks the agent that runs with these settings whether it serves; nil means yes. Container health checks call
// it as `agent health`. It uses the agent's socket; without one, and with mutual TLS, it only connects: the agent has
// no certificate that is good for a client.
func Health(ctx context.Context, s settings.Settings) error {
	ctx, cancel := context.WithTimeout(ctx, healthTimeout)
	defer cancel()
	addr := dialable(s.GRPCAddr)
	options := []grpc.DialOption{grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithNoProxy()}
	switch {
	case s.Socket != "":
		addr = "unix:" + s.Socket
	case !s.TLS():
		options = append(options, grpc.WithPerRPCCredentials(bearer.File(s.TokenFile)))
	default:
		conn, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
		if err != nil {
			return fmt.Errorf("connect to the agent at %s: %w (%w)", addr, err, hung.ErrSilent)
		}
		return conn.Close()
	}
	conn, err := grpc.NewClient(addr, options...)
	if err != nil {
		return fmt.Errorf("connect to the agent at %s: %w", addr, err)
	}
	defer func() { _ = conn.Close() }()
	answer, err := healthpb.NewHealthClient(conn).Check(ctx, &healthpb.HealthCheckRequest{})
	if err != nil {
		return fmt.Errorf("ask the agent at %s for its health: %w (%w)", addr, err, hung.ErrSilent)
	}
	if answer.GetStatus() != healthpb.HealthCheckResponse_SERVING {
		return fmt.Errorf("the agent at %s says it is %s", addr, answer.GetStatus())
	}
	return nil
}

// dialable turns a listener's address into one that can be dialled: no host, or an unspecified one, becomes
// 127.0.0.1.
func dialable(addr string) string {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return addr
	}
	if ip, err := netip.ParseAddr(host); host == "" || err == nil && ip.IsUnspecified() {
		host = "127.0.0.1"
	}
	return net.JoinHostPort(host, port)
}
