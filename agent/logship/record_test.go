package logship

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

var noon = time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)

func TestAppendRecords_EveryKindOfLineBecomesARecord(t *testing.T) {
	container := origin{job: jobLambda, container: "lambda-f-1", function: "f", supervised: true}
	rie := origin{job: jobLambda, container: "lambda-f-1", function: "f"}
	const members = `,"function":"f","request_id":"r1","trace_id":"1-2-3","container_name":"lambda-f-1"`
	const tags = `,"job":"lambda","container_name":"lambda-f-1","container_id":"lambda-f-1"`
	for name, c := range map[string]struct {
		line    string
		origin  origin
		request string
		want    string
		next    string
	}{
		"lambda-init's": {
			line:   `{"time":"2026-01-02T03:04:05.123456789Z","level":"INFO","type":"function","message":"hi \"you\""` + members + `,"stream":"stdout"}`,
			origin: container,
			want:   `{"time":"2026-01-02T03:04:05.123456789Z","level":"INFO","type":"function","message":"hi \"you\"","function":"f","request_id":"r1","trace_id":"1-2-3","stream":"stdout"` + tags + `}`,
		},
		"an extension's": {
			line:   `{"time":"2026-01-02T03:04:05Z","level":"ERROR","type":"extension","message":"hi"` + members + `,"stream":"stdout","extension":"e"}`,
			origin: container,
			want:   `{"time":"2026-01-02T03:04:05Z","level":"ERROR","type":"extension","message":"hi","function":"f","request_id":"r1","trace_id":"1-2-3","stream":"stdout","extension":"e"` + tags + `}`,
		},
		"function's JSON stays a message, and lambda-init has its level": {
			line:   `{"time":"2026-01-02T03:04:05Z","level":"WARN","type":"function","message":"{\"level\":\"warning\",\"job\":\"x\"}"` + members + `}`,
			origin: container,
			want:   `{"time":"2026-01-02T03:04:05Z","level":"WARN","type":"function","message":"{\"level\":\"warning\",\"job\":\"x\"}","function":"f","request_id":"r1","trace_id":"1-2-3"` + tags + `}`,
		},
		"AWS's Python prefix behind RIE": {
			line: "[ERROR]\t2026\tr1\tno", origin: rie,
			want: `{"time":"2026-01-02T12:00:00Z","level":"ERROR","type":"function","message":"[ERROR]\t2026\tr1\tno","function":"f"` + tags + `}`,
		},
		"a report keeps its figures": {
			line:   `{"time":"2026-01-02T03:04:05Z","level":"INFO","type":"platform.report","message":"REPORT","duration_ms":1.5}`,
			origin: container,
			want:   `{"time":"2026-01-02T03:04:05Z","level":"INFO","type":"platform.report","message":"REPORT","duration_ms":1.5,"function":"f"` + tags + `}`,
		},
		"raw": {
			line: `plain`, origin: container, request: "r9", next: "r9",
			want: `{"time":"2026-01-02T12:00:00Z","level":"INFO","type":"function","message":"plain","function":"f","request_id":"r9"` + tags + `}`,
		},
		"raw START of RIE": {
			line: `START RequestId: r2 Version: $LATEST`, origin: container, next: "r2",
			want: `{"time":"2026-01-02T12:00:00Z","level":"INFO","type":"function","message":"START RequestId: r2 Version: $LATEST","function":"f","request_id":"r2"` + tags + `}`,
		},
		"raw REPORT of RIE": {
			line: "REPORT RequestId: r2\tDuration: 1 ms", origin: container, request: "r2",
			want: `{"time":"2026-01-02T12:00:00Z","level":"INFO","type":"function","message":"REPORT RequestId: r2\tDuration: 1 ms","function":"f","request_id":"r2"` + tags + `}`,
		},
		"raw JSON of a function behind RIE": {
			line: `{"level":"error","container_name":"other"}`, origin: container,
			want: `{"time":"2026-01-02T12:00:00Z","level":"ERROR","type":"function","message":"{\"level\":\"error\",\"container_name\":\"other\"}","function":"f"` + tags + `}`,
		},
		"forged container": {
			line: `{"time":"2026-01-02T03:04:05Z","type":"function","message":"m","container_name":"other"}`, origin: container,
			want: `{"time":"2026-01-02T12:00:00Z","level":"INFO","type":"function","message":"{\"time\":\"2026-01-02T03:04:05Z\",\"type\":\"function\",\"message\":\"m\",\"container_name\":\"other\"}","function":"f"` + tags + `}`,
		},
		"a line that names another function": {
			line:   `{"time":"2026-01-02T03:04:05Z","level":"INFO","type":"function","message":"m","function":"other","container_id":"other"}`,
			origin: container,
			want:   `{"time":"2026-01-02T03:04:05Z","level":"INFO","type":"function","message":"m","function":"f"` + tags + `}`,
		},
		"a report of a function behind RIE": {
			line: `{"time":"2026-01-02T03:04:05Z","type":"platform.report","message":"m","container_name":"lambda-f-1"}`, origin: rie,
			want: `{"time":"2026-01-02T12:00:00Z","level":"INFO","type":"function","message":"{\"time\":\"2026-01-02T03:04:05Z\",\"type\":\"platform.report\",\"message\":\"m\",\"container_name\":\"lambda-f-1\"}","function":"f"` + tags + `}`,
		},
		"empty": {
			line: ``, origin: container,
			want: `{"time":"2026-01-02T12:00:00Z","level":"INFO","type":"function","message":" ","function":"f"` + tags + `}`,
		},
		"not UTF-8": {
			line: "a\xffb", origin: container,
			want: `{"time":"2026-01-02T12:00:00Z","level":"INFO","type":"function","message":"a\ufffdb","function":"f"` + tags + `}`,
		},
		"gateway's": {
			line:   `{"time":"2026-01-02T03:04:05Z","level":"INFO","msg":"request","request_id":"r1","trace_id":"Root=1-2-3;Parent=4;Sampled=0","container_id":"lambda-f-1"}`,
			origin: origin{job: jobGateway, container: jobGateway},
			want:   `{"time":"2026-01-02T03:04:05Z","level":"INFO","message":"request","request_id":"r1","trace_id":"1-2-3","container_id":"lambda-f-1","job":"gateway","container_name":"gateway"}`,
		},
		"agent's panic": {
			line: `panic: no`, origin: origin{job: jobAgent, container: jobAgent},
			want: `{"time":"2026-01-02T12:00:00Z","level":"ERROR","message":"panic: no","job":"agent","container_name":"agent"}`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			b, n, next := appendRecords(nil, []byte(c.line), c.origin, noon, c.request)
			assert.Equal(t, 1, n)
			assert.JSONEq(t, c.want, string(b))
			assert.Equal(t, c.next, next)
			assert.Equal(t, 1, strings.Count(string(b), "\n"))
		})
	}
}

// VictoriaLogs drops what is longer than 256 KiB without an error.
func TestAppendRecords_OverLongLine_IsCutIntoPiecesThatAreTakenWhole(t *testing.T) {
	for name, text := range map[string]string{
		"plain": strings.Repeat("x", 600_000), "escaped": strings.Repeat("\x01é<", 100_000), "not UTF-8": strings.Repeat("\xff", 100_000),
	} {
		t.Run(name, func(t *testing.T) {
			message, err := json.Marshal(text)
			require.NoError(t, err)
			line := append([]byte(`{"time":"2026-01-02T03:04:05Z","type":"function","request_id":"r1","message":`), message...)
			b, n, _ := appendRecords(nil, append(line, '}'), origin{job: jobLambda, container: "c", supervised: true}, noon, "")
			var got strings.Builder
			for i, record := range bytes.Split(bytes.TrimSuffix(b, []byte("\n")), []byte("\n")) {
				assert.LessOrEqual(t, len(record), recordLimit)
				var fields struct {
					Message   string
					Part      int
					RequestID string `json:"request_id"`
				}
				require.NoError(t, json.Unmarshal(record, &fields))
				assert.Equal(t, i+1, fields.Part)
				assert.Equal(t, "r1", fields.RequestID)
				got.WriteString(fields.Message)
				n--
			}
			assert.Zero(t, n)
			assert.True(t, string([]rune(text)) == got.String(), "nothing is missing")
		})
	}
	huge := `{"time":"2026-01-02T03:04:05Z","msg":"m","error":"` + strings.Repeat("Q", 500_000) + `"}`
	b, n, _ := appendRecords(nil, []byte(huge), origin{job: jobAgent, container: jobAgent}, noon, "")
	assert.Equal(t, 3, n)
	assert.Equal(t, 500_000, strings.Count(string(b), "Q"))
}

// initLine and accessLine are the kinds of lines that a box under load writes most.
const (
	initLine   = `{"time":"2026-01-02T03:04:05.123456789Z","level":"INFO","type":"platform.report","message":"REPORT RequestId: 8f7d5c1e\tDuration: 1.52 ms","function":"f","request_id":"8f7d5c1e","trace_id":"1-2-3","container_name":"lambda-f-1"}`
	accessLine = `{"time":"2026-01-02T03:04:05.123456789Z","level":"INFO","msg":"request","request_id":"8f7d5c1e","trace_id":"Root=1-67a2e0a1-8e4c4a359e3acd27e8ba07c5;Sampled=0","method":"POST","path":"/api/echo","status":200,"duration_ms":1.23,"function":"f"}`
)

func TestAppendRecords_OfUsualLines_AllocatesLittle(t *testing.T) {
	var b []byte
	for line, o := range map[string]origin{
		initLine:   {job: jobLambda, container: "lambda-f-1", function: "f", supervised: true},
		accessLine: {job: jobGateway, container: jobGateway},
	} {
		text := []byte(line)
		assert.LessOrEqual(t, testing.AllocsPerRun(200, func() { b, _, _ = appendRecords(b[:0], text, o, noon, "") }), 15.0, line) // the race detector has pools forget
	}
}

func TestAppendRecords_WhatIsNoObjectOfOurs_IsRaw(t *testing.T) {
	o := origin{job: jobLambda, container: "c", function: "f", supervised: true}
	for name, line := range map[string]string{
		"two objects":       initLine + initLine,
		"cut off":           initLine[:len(initLine)-1],
		"an escaped name":   `{"time":"2026-01-02T03:04:05Z","type":"function","message":"m","j\u006fb":"gateway"}`,
		"another container": strings.Replace(initLine, "lambda-f-1", "lambda-g-1", 1),
	} {
		b, n, _ := appendRecords(nil, []byte(line), o, noon, "")
		require.Equal(t, 1, n, name)
		var got map[string]any
		require.NoError(t, json.Unmarshal(b, &got), name)
		assert.Equal(t, line, got["message"], name)
		assert.Equal(t, "function", got["type"], name)
		assert.Equal(t, "lambda", got["job"], name)
	}
	twice := strings.Replace(initLine, `{"time"`, `{"level":"DEBUG","job":"gateway","time"`, 1)
	b, _, _ := appendRecords(nil, []byte(twice), origin{job: jobLambda, container: "lambda-f-1", function: "f", supervised: true}, noon, "")
	assert.Equal(t, 1, bytes.Count(b, []byte(`"job"`)), "%s", b)
	assert.Equal(t, 1, bytes.Count(b, []byte(`"level"`)), "%s", b)
	assert.Contains(t, string(b), `"level":"INFO"`)
}

func BenchmarkAppendRecords(b *testing.B) {
	var buf []byte
	line, o := []byte(accessLine), origin{job: jobGateway, container: jobGateway}
	b.ReportAllocs()
	for b.Loop() {
		buf, _, _ = appendRecords(buf[:0], line, o, noon, "")
	}
}
