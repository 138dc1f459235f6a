package httpapi

import (
	"log/slog"
	"net/http"
	"runtime/debug"
	"strconv"
	"sync"
	"time"

	"github.com/edge-serverless-box/esb/gateway"
	"github.com/edge-serverless-box/esb/gateway/event"
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
	if level < f.accessLevel {
		return
	}
	unlogged := 0
	if x.refused() {
		var line bool
		if line, unlogged = f.refusals.take(x.functionName(), x.start); !line {
			return
		}
	}
	buf := lines.Get().(*[]byte)
	*buf = x.appendLine((*buf)[:0], level, duration, unlogged)
	_, _ = f.access.Write(*buf) // there is nowhere to say that it failed
	lines.Put(buf)
}

// lines are buffers for lines of the access log. They stay small: a request's head is, and so are errors.
var lines = sync.Pool{New: func() any { return new([]byte) }}

// appendLine appends the line of x, as log/slog's JSON handler writes lines, but without its cost (BenchmarkAccessLine).
func (x *exchange) appendLine(b []byte, level slog.Level, duration time.Duration, unlogged int) []byte {
	b = append(b, `{"time":"`...)
	b = time.Now().AppendFormat(b, time.RFC3339Nano)
	b = append(append(b, `","level":"`...), level.String()...)
	b = event.AppendString(append(b, `","msg":"request","request_id":`...), x.ids.request)
	b = event.AppendString(append(b, `,"trace_id":`...), x.trace)
	b = event.AppendString(append(b, `,"method":`...), x.r.Method)
	b = event.AppendString(append(b, `,"path":`...), x.path)
	b = strconv.AppendInt(append(b, `,"status":`...), int64(x.status), 10)
	b = appendMS(append(b, `,"duration_ms":`...), duration)
	b = event.AppendString(append(b, `,"source_ip":`...), x.sourceIP)
	b = strconv.AppendInt(append(b, `,"bytes_in":`...), int64(x.bytesIn), 10)
	b = strconv.AppendInt(append(b, `,"bytes_out":`...), int64(x.bytesOut), 10)
	if x.route != nil {
		b = event.AppendString(append(b, `,"function":`...), x.route.Function.Name)
		b = event.AppendString(append(b, `,"route":`...), x.route.Path)
	}
	if x.function != "" {
		b = event.AppendString(append(b, `,"function":`...), x.function)
	}
	if x.initDuration > 0 {
		b = appendMS(append(b, `,"init_ms":`...), x.initDuration)
	}
	if x.err != nil {
		b = event.AppendString(append(b, `,"code":`...), string(gateway.ErrorCode(x.err)))
		b = event.AppendString(append(b, `,"error":`...), x.err.Error())
	}
	if unlogged > 0 {
		b = strconv.AppendInt(append(b, `,"refusals_not_logged":`...), int64(unlogged), 10)
	}
	return append(b, "}\n"...)
}

// appendMS appends d in milliseconds, to the microsecond.
func appendMS(b []byte, d time.Duration) []byte {
	return strconv.AppendFloat(b, float64(d.Microseconds())/1000, 'f', -1, 64)
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
