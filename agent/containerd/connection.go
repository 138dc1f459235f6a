package containerd

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/containerd/containerd/v2/client"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/status"
)

const (
	// redialLimit is the longest pause between two attempts to reach a containerd that is away: its socket is here, and an attempt
	// costs next to nothing (gRPC's default begins with a second).
	redialLimit = 50 * time.Millisecond
	// comeback is how long a call waits for a containerd that is away: a restart takes about a quarter of that.
	comeback = 3 * time.Second
)

// link is the connection to containerd: it is there again as soon as containerd is, and calls ride out a restart.
type link struct {
	// lostAt is when a call has found containerd away last, in Unix nanoseconds.
	lostAt atomic.Int64
}

// options are those of the client that has the link.
func (l *link) options() client.Opt {
	return client.WithExtraDialOpts([]grpc.DialOption{
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 5 * time.Millisecond, Multiplier: 1.5, Jitter: 0.2, MaxDelay: redialLimit},
			MinConnectTimeout: connectTimeout,
		}),
		grpc.WithChainUnaryInterceptor(l.unary),
		grpc.WithChainStreamInterceptor(l.stream),
	})
}

// lostSince says whether a call has found containerd away since then.
func (l *link) lostSince(t time.Time) bool { return l.lostAt.Load() >= t.UnixNano() }

func (l *link) unary(ctx context.Context, method string, request, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	awaitReady(ctx, cc)
	err := invoke(ctx, method, request, reply, cc, opts...)
	if status.Code(err) == codes.Unavailable {
		l.lostAt.Store(time.Now().UnixNano())
	}
	return err
}

func (l *link) stream(ctx context.Context, desc *grpc.StreamDesc, cc *grpc.ClientConn, method string, open grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	awaitReady(ctx, cc)
	s, err := open(ctx, desc, cc, method, opts...)
	if status.Code(err) == codes.Unavailable {
		l.lostAt.Store(time.Now().UnixNano())
	}
	return s, err
}

// awaitReady waits for a connection that is away, for at most comeback. The call that follows says what is wrong when it does not come.
func awaitReady(ctx context.Context, cc *grpc.ClientConn) {
	state := cc.GetState()
	if state == connectivity.Ready {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, comeback)
	defer cancel()
	for ; state != connectivity.Ready && state != connectivity.Shutdown; state = cc.GetState() {
		cc.Connect()
		if !cc.WaitForStateChange(ctx, state) {
			return
		}
	}
}
