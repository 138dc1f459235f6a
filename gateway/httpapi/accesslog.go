package httpapi

import (
	"log/slog"
	"net/http"
	"runtime/debug"
	"time"

	"github.com/edge-serverless-box/esb/gateway"
)

// finish answers a request whose handling panicked, and accounts for the request.
func (f *front) finish(x *exchange) {
	defer f.flights.end()
	defer x.claim.Release()
	if p := recover(); p != nil {
		f.log.Error("panic while answering a request", "request_id", x.ids.request, "panic", p, "stack", string(debug.Stack()))
		x.err = gateway.Errorf(gateway.CodeInternal, "panic: %v", p)
		if x.status == 0 {
			f.writeError(x)
		} else {
			x.broken = true
		}
	}
	duration := time.Since(x.start)
	f.metrics.observe(x, duration)
	level := slog.LevelInfo
	switch {
	case x.status >= http.StatusInternalServerError:
		level = slog.LevelWarn
	case x.path == HealthPath:
		level = slog.LevelDebug // asked every few seconds, and says nothing
	}
	ctx := x.r.Context()
	if !f.access.Enabled(ctx, level) {
		return
	}
	unlogged := 0
	if x.refused() {
		var line bool
		if line, unlogged = f.refusals.take(x.functionName(), x.start); !line {
			return
		}
	}
	attrs := [16]slog.Attr{
		slog.String("request_id", x.ids.request),
		slog.String("trace_id", x.trace),
		slog.String("method", x.r.Method),
		slog.String("path", x.path),
		slog.Int("status", x.status),
		slog.Float64("duration_ms", float64(duration.Microseconds())/1000),
		slog.String("source_ip", x.sourceIP),
		slog.Int("bytes_in", x.bytesIn),
		slog.Int("bytes_out", x.bytesOut),
	}
	n := 9
	add := func(a slog.Attr) { attrs[n] = a; n++ }
	if x.route != nil {
		add(slog.String("function", x.route.Function.Name))
		add(slog.String("route", x.route.Path))
	}
	if x.function != "" {
		add(slog.String("function", x.function))
	}
	if x.initDuration > 0 {
		add(slog.Float64("init_ms", float64(x.initDuration.Microseconds())/1000))
	}
	if x.err != nil {
		add(slog.String("code", string(gateway.ErrorCode(x.err))))
		add(slog.String("error", x.err.Error()))
	}
	if unlogged > 0 {
		add(slog.Int("refusals_not_logged", unlogged))
	}
	f.access.LogAttrs(ctx, level, "request", attrs[:n]...)
}

// refused says that x was refused because too many requests of its function wait, or all that it may have are at work.
func (x *exchange) refused() bool {
	return x.status == http.StatusTooManyRequests && gateway.ErrorCode(x.err) == gateway.CodeThrottled
}

// functionName is empty when no function was found.
func (x *exchange) functionName() string {
	if x.route != nil {
		return x.route.Function.Name
	}
	return x.function
}
