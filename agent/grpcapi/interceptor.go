package grpcapi

import (
	"context"
	"errors"
	"fmt"
	"path"
	"runtime/debug"
	"strings"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/edge-serverless-box/esb/agent"
	agentv1 "github.com/edge-serverless-box/esb/api/esb/agent/v1"
	"github.com/edge-serverless-box/esb/api/reason"
)

// panicError is a panic of a handler.
type panicError struct {
	value any
	stack []byte
}

// Error implements error.
func (p *panicError) Error() string { return fmt.Sprintf("panic: %v\n%s", p.value, p.stack) }

// recoverPanic turns a panic of one call into an error of that call.
func recoverPanic(ctx context.Context, req any, _ *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (resp any, err error) {
	defer func() {
		if v := recover(); v != nil {
			err = &panicError{value: v, stack: debug.Stack()}
		}
	}()
	return handler(ctx, req)
}

// limit gives a call a deadline of the server's own, so that no client can wait, or hold things, for ever.
func (s *Server) limit(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	d := s.opts.Limit
	if info.FullMethod == agentv1.AgentService_EnsureContainer_FullMethodName {
		d = s.opts.EnsureLimit
	}
	if r, ok := req.(*agentv1.DestroyContainerRequest); ok {
		d += time.Duration(r.GetGraceSeconds()) * time.Second
	}
	ctx, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	return handler(ctx, req)
}

// report writes one log line a call that changes something, or that fails, and maps its error.
func (s *Server) report(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	begin := time.Now()
	resp, err := handler(ctx, req)
	st := statusOf(err)
	attrs := []any{"method", path.Base(info.FullMethod), "code", st.Code().String(), "duration_ms", time.Since(begin).Milliseconds()}
	switch r := req.(type) {
	case *agentv1.EnsureContainerRequest:
		attrs = append(attrs, "request_id", r.GetRequestId(), "function", r.GetFunctionName())
		if w, ok := resp.(*agentv1.WorkerInfo); ok && err == nil {
			attrs = append(attrs, "container_id", w.GetId())
		}
	case interface{ GetContainerId() string }:
		attrs = append(attrs, "container_id", r.GetContainerId())
	}
	switch {
	case !strings.HasPrefix(info.FullMethod, "/"+agentv1.AgentService_ServiceDesc.ServiceName+"/"):
	case err != nil:
		s.log.WarnContext(ctx, "call failed", append(attrs, "error", err)...)
	case mutates(info.FullMethod):
		s.log.InfoContext(ctx, "call", attrs...)
	}
	return resp, st.Err()
}

// reportStream maps the error of a stream. A panic ends that call alone.
func (s *Server) reportStream(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = statusOf(&panicError{value: v, stack: debug.Stack()}).Err()
			s.log.Error("call failed", "method", path.Base(info.FullMethod), "error", fmt.Sprint(v))
		}
	}()
	if !strings.HasPrefix(info.FullMethod, "/"+agentv1.AgentService_ServiceDesc.ServiceName+"/") {
		return handler(srv, stream)
	}
	return statusOf(handler(srv, stream)).Err()
}

func mutates(method string) bool {
	switch method {
	case agentv1.AgentService_EnsureContainer_FullMethodName, agentv1.AgentService_DestroyContainer_FullMethodName,
		agentv1.AgentService_PauseContainer_FullMethodName, agentv1.AgentService_ResumeContainer_FullMethodName:
		return true
	}
	return false
}

// statusOf is the one place where errors become gRPC statuses. The message of an internal error stays in the log.
func statusOf(err error) *status.Status {
	if err == nil {
		return nil
	}
	var known *agent.Error
	if st, ok := status.FromError(err); ok && !errors.As(err, &known) {
		return st // gRPC's own: a method that is not implemented
	}
	code, ok := map[agent.Code]codes.Code{
		agent.CodeInvalid:      codes.InvalidArgument,
		agent.CodeNotFound:     codes.NotFound,
		agent.CodeExhausted:    codes.ResourceExhausted,
		agent.CodePrecondition: codes.FailedPrecondition,
		agent.CodeUnavailable:  codes.Unavailable,
		agent.CodeDeadline:     codes.DeadlineExceeded,
		agent.CodeCanceled:     codes.Canceled,
	}[agent.ErrorCode(err)]
	if !ok {
		return status.New(codes.Internal, "internal error of the agent; its log says more")
	}
	return withReason(status.New(code, err.Error()), agent.ErrorReason(err))
}

// withReason adds the reason of a start that failed, in gRPC's own form for one (google.rpc.ErrorInfo).
func withReason(st *status.Status, why reason.Reason) *status.Status {
	if why == "" {
		return st
	}
	detailed, err := st.WithDetails(&errdetails.ErrorInfo{Reason: string(why), Domain: reason.Domain})
	if err != nil {
		return st // the message says it too
	}
	return detailed
}
