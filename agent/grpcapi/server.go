// Package grpcapi serves esb.agent.v1 with an agent.Runtime behind it. It checks what comes in, maps what goes out, and
// knows nothing of containerd.
package grpcapi

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/reflection"

	"github.com/edge-serverless-box/esb/agent"
	agentv1 "github.com/edge-serverless-box/esb/api/esb/agent/v1"
	"github.com/edge-serverless-box/esb/guard/bearer"
)

const (
	// healthInterval is how often the runtime is asked whether it is well, and healthTimeout how long it may take to say.
	healthInterval = 2 * time.Second
	healthTimeout  = time.Second
	// stopTimeout is how long calls in flight may take when the server stops.
	stopTimeout = 20 * time.Second
	// maxMessage bounds a request: a function's environment is the largest part (AWS: 4 KB; here more, for values from
	// files).
	maxMessage = 1 << 20
)

// Options of a Server.
type Options struct {
	// TLS are the transport credentials of TCP; nil serves in plain text, which only loopback listeners may.
	TLS credentials.TransportCredentials
	// Token is what each call over TCP must bring. Empty: it need not, because TLS asks for certificates.
	Token bearer.Token
	// Healthy says whether the runtime can work. While it cannot, the health service says NOT_SERVING.
	Healthy func(context.Context) error
	// Notes are what the operator should know though the agent works, one sentence each; nil for none.
	Notes func() []string
	// Limit bounds every call on the server's side; EnsureLimit bounds EnsureContainer, which may have to pull an image.
	// Zero means the defaults, 60 s and 15 min.
	Limit, EnsureLimit time.Duration
	Logger             *slog.Logger
}

// Server is the gRPC server.
type Server struct {
	server *grpc.Server
	health *health.Server
	opts   Options
	log    *slog.Logger
	// stopping is closed when Serve ends.
	stopping chan struct{}
}

// New makes a server of runtime.
func New(runtime agent.Runtime, opts Options) *Server {
	if opts.Logger == nil {
		opts.Logger = slog.Default()
	}
	if opts.Limit == 0 {
		opts.Limit = time.Minute
	}
	if opts.EnsureLimit == 0 {
		opts.EnsureLimit = 15 * time.Minute
	}
	s := &Server{health: health.NewServer(), opts: opts, log: opts.Logger, stopping: make(chan struct{})}
	options := []grpc.ServerOption{
		grpc.MaxRecvMsgSize(maxMessage),
		grpc.InTapHandle(s.admit),
		grpc.WaitForHandlers(true), // a start that is cut off undoes itself before the runtime is closed
		grpc.ChainUnaryInterceptor(s.report, s.limit, recoverPanic),
		grpc.ChainStreamInterceptor(s.reportStream),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 5 * time.Second, PermitWithoutStream: true}),
	}
	if opts.TLS != nil {
		options = append(options, grpc.Creds(plainUnix{opts.TLS}))
	}
	s.server = grpc.NewServer(options...)
	agentv1.RegisterAgentServiceServer(s.server, &service{runtime: runtime, notes: opts.Notes, stopping: s.stopping, owners: newOwners(), launches: newLaunches()})
	s.setHealth(healthpb.HealthCheckResponse_NOT_SERVING)
	healthpb.RegisterHealthServer(s.server, s.health)
	reflection.Register(s.server)
	return s
}

// Serve serves on listeners until ctx ends; then it lets calls in flight finish, for at most 20 s. It closes listeners.
func (s *Server) Serve(ctx context.Context, listeners ...net.Listener) error {
	watch, stop := context.WithCancel(context.WithoutCancel(ctx))
	var running sync.WaitGroup
	defer running.Wait()
	defer stop()
	running.Go(func() { s.watchHealth(watch) })

	served := make(chan error, len(listeners))
	for _, listener := range listeners {
		running.Go(func() { served <- s.server.Serve(listener) })
	}
	select {
	case err := <-served:
		s.server.Stop() // the others too
		return fmt.Errorf("serve gRPC: %w", err)
	case <-ctx.Done():
	}
	s.health.Shutdown()
	close(s.stopping)
	graceful := make(chan struct{})
	running.Go(func() { s.server.GracefulStop(); close(graceful) })
	timer := time.NewTimer(stopTimeout)
	defer timer.Stop()
	select {
	case <-graceful:
	case <-timer.C:
		s.log.Warn("calls in flight are cut off", "after_seconds", stopTimeout.Seconds())
		s.server.Stop()
	}
	for range listeners {
		if err := <-served; err != nil && !errors.Is(err, grpc.ErrServerStopped) {
			return fmt.Errorf("serve gRPC: %w", err)
		}
	}
	return nil
}

// setHealth speaks for the server as a whole ("") and for the agent's service.
func (s *Server) setHealth(status healthpb.HealthCheckResponse_ServingStatus) {
	s.health.SetServingStatus("", status)
	s.health.SetServingStatus(agentv1.AgentService_ServiceDesc.ServiceName, status)
}

// watchHealth keeps the health service true.
func (s *Server) watchHealth(ctx context.Context) {
	tick := time.NewTicker(healthInterval)
	defer tick.Stop()
	last := healthpb.HealthCheckResponse_UNKNOWN
	for {
		now := healthpb.HealthCheckResponse_SERVING
		check, cancel := context.WithTimeout(ctx, healthTimeout)
		err := s.opts.Healthy(check)
		cancel()
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			now = healthpb.HealthCheckResponse_NOT_SERVING
		}
		if now != last {
			s.setHealth(now)
			s.log.Info("health changed", "status", now.String(), "error", err)
			last = now
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}
