package loginsert

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// mustOpen starts a server on loopback; the address of the tests is container c1 of function f, when known.
func mustOpen(t *testing.T, known bool, bytesPerSecond int, send func([]byte) error) string {
	t.Helper()
	s := newServer(Config{
		Source: func(ip netip.Addr) (string, string, bool) {
			assert.Equal(t, "127.0.0.1", ip.String())
			return "lambda-f-1", "f", known
		},
		Send:           func(_ context.Context, records []byte) error { return send(records) },
		BytesPerSecond: bytesPerSecond, Logger: slog.New(slog.DiscardHandler),
	})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	go func() { s.ended <- s.server.Serve(l) }()
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	return "http://" + l.Addr().String()
}

func ask(t *testing.T, method, url, body string) (*http.Response, string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	require.NoError(t, err)
	res, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(r)
	require.NoError(t, err)
	defer func() { _ = res.Body.Close() }()
	text, err := io.ReadAll(res.Body)
	require.NoError(t, err)
	return res, string(text)
}

func TestServer_TakesLinesAndNothingElse(t *testing.T) {
	var sent []byte
	url := mustOpen(t, true, 1<<20, func(records []byte) error { sent = append(sent, records...); return nil })
	for _, c := range []struct {
		method, path, body string
		status             int
	}{
		{"GET", "/internal/partition/detach?name=20261129", "", 404},
		{"GET", "/select/logsql/query?query=*", "", 404},
		{"POST", "/select/logsql/query", "query=*", 404},
		{"POST", "/insert/jsonline/../../select/logsql/query", "query=*", 404},
		{"POST", "/insert/loki/api/v1/push", "{}", 404},
		{"GET", "/insert/jsonline", "", 405},
		{"GET", "/health", "", 200},
		{"POST", "/insert/jsonline", "no JSON", 400},
		{"POST", "/insert/jsonline", "[1]", 400},
		{"POST", "/insert/jsonline", "null", 400},
		{"POST", "/insert/jsonline?_time_field=a,b", "{}", 400},
		{"POST", "/insert/jsonline", strings.Repeat(" ", maxBody+1), 413},
		{"POST", "/insert/jsonline", `{"_msg":"` + strings.Repeat("x", maxLine) + `"}`, 400},
		{"POST", "/insert/jsonline", "\n\n", 200},
	} {
		res, _ := ask(t, c.method, url+c.path, c.body)
		assert.Equal(t, c.status, res.StatusCode, "%s %s", c.method, c.path)
	}
	assert.Empty(t, sent)
	res, _ := ask(t, "POST", url+"/insert/jsonline", "{\"_msg\":\"one\"}\r\n{\"_msg\":\"two\"}")
	assert.Equal(t, http.StatusOK, res.StatusCode)
	assert.Equal(t, 2, bytes.Count(sent, []byte("\n")))
}

func TestServer_StrangerIsRefused(t *testing.T) {
	url := mustOpen(t, false, 1<<20, func([]byte) error { return errors.New("must not be called") })
	res, _ := ask(t, "POST", url+Path, `{"_msg":"x"}`)
	assert.Equal(t, http.StatusForbidden, res.StatusCode)
}

func TestServer_StoreFails_SaysWhenToTryAgain(t *testing.T) {
	url := mustOpen(t, true, 1<<20, func([]byte) error { return errors.New("the store's own reason") })
	res, text := ask(t, "POST", url+Path, `{"_msg":"x"}`)
	assert.Equal(t, http.StatusServiceUnavailable, res.StatusCode)
	assert.NotEmpty(t, res.Header.Get("Retry-After"))
	assert.NotContains(t, text, "own reason")
}

func TestServer_Flood_IsSlowedDown(t *testing.T) {
	taken := 0
	url := mustOpen(t, true, 1024, func(records []byte) error { taken += len(records); return nil })
	body := `{"_msg":"` + strings.Repeat("x", 3000) + `"}`
	var statuses []int
	for range 6 {
		res, _ := ask(t, "POST", url+Path, body)
		statuses = append(statuses, res.StatusCode)
		if res.StatusCode == http.StatusTooManyRequests {
			assert.NotEmpty(t, res.Header.Get("Retry-After"))
		}
	}
	assert.Equal(t, http.StatusOK, statuses[0])
	assert.Contains(t, statuses, http.StatusTooManyRequests)
	assert.Less(t, taken, 5*4000)
}

// TestServer_TooMany_IsSaidToAClientThatStillSends: in pieces, as a client sends that has less of the processor than the server.
func TestServer_TooMany_IsSaidToAClientThatStillSends(t *testing.T) {
	url := mustOpen(t, true, 1024, func([]byte) error { return nil })
	res, _ := ask(t, "POST", url+Path, `{"_msg":"`+strings.Repeat("x", 20_000)+`"}`)
	require.Equal(t, http.StatusOK, res.StatusCode)
	body, w := io.Pipe()
	sent := make(chan int, 1)
	go func() {
		total := 0
		defer func() { _ = w.Close(); sent <- total }()
		for range 8 {
			time.Sleep(100 * time.Millisecond) // the client's own pace
			n, err := w.Write(bytes.Repeat([]byte(" "), 100<<10))
			if total += n; err != nil {
				return
			}
		}
	}()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url+Path, body)
	require.NoError(t, err)
	r.ContentLength = 800 << 10
	res, err = http.DefaultClient.Do(r)
	require.NoError(t, err)
	defer func() { _ = res.Body.Close() }()
	assert.Equal(t, http.StatusTooManyRequests, res.StatusCode)
	assert.Equal(t, 800<<10, <-sent, "all of the body was taken")
}

func TestRates_DebtIsPaidWithTime(t *testing.T) {
	now := time.Unix(1000, 0)
	r := newRates(100)
	r.now = func() time.Time { return now }
	assert.Zero(t, r.wait("a"))
	r.spend("a", 500, 1)
	assert.Equal(t, time.Second, r.wait("a"))
	assert.Zero(t, r.wait("b"), "another container has a share of its own")
	now = now.Add(2 * time.Second)
	assert.Zero(t, r.wait("a"))
	r.spend("b", 0, burst*linesPerSecond+linesPerSecond)
	assert.Equal(t, time.Second, r.wait("b"))
	now = now.Add(2 * forgetAfter)
	r.wait("c")
	assert.Len(t, r.of, 1, "who posts nothing is forgotten")
}

func TestRewrite_WhoseLinesTheyAre_IsNotTheirsToSay(t *testing.T) {
	now := time.Date(2026, 11, 29, 12, 0, 0, 0, time.UTC)
	line := `{"ts":"2026-11-29T11:59:58.5Z","text":"hello","level":"WARN","order":7,"job":"gateway","function":"victim","type":"platform.report",
		"container_name":"agent","container_id":"other","_stream":"{job=\"agent\"}","_stream_id":"1","":{"function":"victim"},"_msg":"m","_time":"t"}`
	records, lines, err := rewrite([]byte(strings.ReplaceAll(line, "\n", " ")), names{"ts", "text"}, "lambda-f-1", "f", now)
	require.NoError(t, err)
	assert.Equal(t, 1, lines)
	var got map[string]any
	require.NoError(t, json.Unmarshal(records, &got))
	assert.Equal(t, map[string]any{
		"time": "2026-11-29T11:59:58.5Z", "message": "hello", "level": "WARN", "order": 7.0, "type": "posted",
		"job": "lambda", "function": "f", "container_name": "lambda-f-1", "container_id": "lambda-f-1",
	}, got)
}

func TestTimeOf(t *testing.T) {
	now := time.Date(2026, 11, 29, 12, 0, 0, 0, time.UTC)
	hourAgo := now.Add(-time.Hour)
	for value, want := range map[string]time.Time{
		`"2026-11-29T11:00:00Z"`: hourAgo, fmt.Sprint(hourAgo.Unix()): hourAgo, fmt.Sprintf("%q", fmt.Sprint(hourAgo.UnixMilli())): hourAgo,
		fmt.Sprint(hourAgo.UnixNano()): hourAgo,
		`"2026-11-27T11:00:00Z"`:       now, `"2026-12-29T11:00:00Z"`: now, `"soon"`: now, ``: now, `"0"`: now, `1e400`: now, `"NaN"`: now, `"-1e30"`: now,
	} {
		assert.WithinDuration(t, want, timeOf(json.RawMessage(value), now), time.Microsecond, value)
	}
}
