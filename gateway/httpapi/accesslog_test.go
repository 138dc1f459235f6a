package httpapi

import (
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/edge-serverless-box/esb/gateway"
)

func logged() *exchange {
	return &exchange{
		r: httptest.NewRequest(http.MethodPost, "/a", nil), ids: ids{request: "8c5bd9e2-32a5-4d1e-9d0b-0b0f1e4c5a77"}, trace: "Root=1-5759e988-bd862e3fe1be46a994272793",
		path: "/a\"\n\xff", sourceIP: "127.0.0.1", status: 200, bytesIn: 17, bytesOut: 16,
		route: &gateway.Route{Path: "/{p}", Function: &gateway.Function{Name: "f"}},
	}
}

func TestAccessLine_IsWhatReadersOfTheLogExpect(t *testing.T) {
	x := logged()
	x.initDuration, x.err = 1500*time.Microsecond, gateway.Errorf(gateway.CodeThrottled, "too much: %w", errors.New(`"q"`))
	line := x.appendLine(nil, slog.LevelWarn, 12345678*time.Nanosecond, 3)
	require.Equal(t, byte('\n'), line[len(line)-1])
	var got map[string]any
	require.NoError(t, json.Unmarshal(line, &got))
	at, err := time.Parse(time.RFC3339Nano, got["time"].(string))
	require.NoError(t, err)
	assert.WithinDuration(t, time.Now(), at, time.Minute)
	delete(got, "time")
	assert.Equal(t, map[string]any{
		"level": "WARN", "msg": "request", "request_id": x.ids.request, "trace_id": x.trace, "method": "POST", "path": "/a\"\n\ufffd",
		"status": 200.0, "duration_ms": 12.345, "source_ip": "127.0.0.1", "bytes_in": 17.0, "bytes_out": 16.0, "function": "f", "route": "/{p}",
		"init_ms": 1.5, "code": "throttled", "error": x.err.Error(), "refusals_not_logged": 3.0,
	}, got)
}

func TestAccessLine_AllocatesNothing(t *testing.T) {
	x, b := logged(), make([]byte, 0, 1024)
	assert.Zero(t, testing.AllocsPerRun(100, func() { b = x.appendLine(b[:0], slog.LevelInfo, time.Millisecond, 0) }))
}

func BenchmarkAccessLine(b *testing.B) {
	x, line := logged(), make([]byte, 0, 1024)
	b.ReportAllocs()
	for b.Loop() {
		line = x.appendLine(line[:0], slog.LevelInfo, time.Millisecond, 0)
	}
}
