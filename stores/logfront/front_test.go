package logfront_test

import (
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/edge-serverless-box/esb/guard/connlimit"
	"github.com/edge-serverless-box/esb/stores/basicauth"
	"github.com/edge-serverless-box/esb/stores/logfront"
	"github.com/edge-serverless-box/esb/stores/server"
)

// mustOpen starts a front with a VictoriaLogs behind it that echoes what it is asked.
func mustOpen(t *testing.T, full *string) string {
	t.Helper()
	store := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		user, password, _ := r.BasicAuth()
		body, _ := io.ReadAll(r.Body)
		_, _ = io.WriteString(w, strings.Join([]string{r.Method, r.URL.RequestURI(), user, password, string(body)}, " "))
	}))
	t.Cleanup(store.Close)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	front := server.Start([]net.Listener{l}, logfront.Handler(logfront.Options{
		Credentials: basicauth.Credentials{User: "esb", Password: "right"}, Store: basicauth.Credentials{User: "inner", Password: "secret"},
		Dial: func(ctx context.Context) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "tcp", store.Listener.Addr().String())
		},
		Take: func(int64) string { return *full }, Logger: slog.New(slog.DiscardHandler),
	}), connlimit.Bounds{}, slog.New(slog.DiscardHandler))
	t.Cleanup(func() { require.NoError(t, front.Close()) })
	return "http://" + l.Addr().String()
}

func ask(t *testing.T, method, url, body string, change func(*http.Request)) (status int, text string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	require.NoError(t, err)
	if change != nil {
		change(r)
	}
	res, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(r)
	require.NoError(t, err)
	defer func() { _ = res.Body.Close() }()
	answer, err := io.ReadAll(res.Body)
	require.NoError(t, err)
	return res.StatusCode, string(answer)
}

func right(r *http.Request) { r.SetBasicAuth("esb", "right") }

func TestFront_LetsThroughWhatIsAskedForWithCredentials(t *testing.T) {
	full := ""
	url := mustOpen(t, &full)
	for _, c := range []struct {
		method, path, body string
		change             func(*http.Request)
		status             int
		want               string
	}{
		{"GET", "/health", "", nil, 200, "GET /health inner secret "},
		{"POST", "/select/logsql/query?limit=1", "query=x", right, 200, "POST /select/logsql/query?limit=1 inner secret query=x"},
		{"GET", "/select/vmui/", "", right, 200, "GET /select/vmui/ inner secret "},
		{"POST", "/insert/jsonline", "{}", right, 200, "POST /insert/jsonline inner secret {}"},
		{"POST", "/select/logsql/query", "query=x", nil, 401, "VICTORIALOGS_PASSWORD"},
		{"POST", "/insert/jsonline", "{}", nil, 401, "VICTORIALOGS_PASSWORD"},
		{"POST", "/insert/jsonline", "{}", func(r *http.Request) { r.SetBasicAuth("esb", "wrong") }, 401, ""},
		{"POST", "/insert/jsonline", "{}", func(r *http.Request) { r.SetBasicAuth("other", "right") }, 401, ""},
		{"GET", "/internal/partition/detach?name=20261129", "", right, 404, ""},
		{"POST", "/internal/partition/detach?name=20261129", "", right, 404, ""},
		{"GET", "/select/../internal/partition/list", "", right, 404, ""},
		{"GET", "/select/%2e%2e/internal/partition/list", "", right, 404, ""},
		{"GET", "/select//internal/partition/list", "", right, 404, ""},
		{"POST", "/delete/run_task?filter=*", "", right, 404, ""},
		{"POST", "/health", "", nil, 404, ""},
		{"GET", "/metrics", "", right, 404, ""},
		{"GET", "/flags", "", right, 404, ""},
		{"GET", "/debug/pprof/heap", "", right, 404, ""},
		{"GET", "/", "", right, 404, ""},
	} {
		status, text := ask(t, c.method, url+c.path, c.body, c.change)
		assert.Equal(t, c.status, status, "%s %s", c.method, c.path)
		assert.Contains(t, text, c.want, "%s %s", c.method, c.path)
	}
}

func TestFront_RefusesPagesOfOthers(t *testing.T) {
	full := ""
	url := mustOpen(t, &full)
	for name, change := range map[string]func(*http.Request){
		"rebinding":     func(r *http.Request) { right(r); r.Host = "evil.example" },
		"another page":  func(r *http.Request) { right(r); r.Header.Set("Origin", "https://evil.example") },
		"an image":      func(r *http.Request) { right(r); r.Header.Set("Sec-Fetch-Site", "cross-site") },
		"health, still": func(r *http.Request) { r.Host = "evil.example"; r.URL.Path = "/health" },
	} {
		status, _ := ask(t, "GET", url+"/select/logsql/query?query=x", "", change)
		assert.Equal(t, http.StatusForbidden, status, name)
	}
}

func TestFront_FullStore_IsReadAndTakesNoLine(t *testing.T) {
	full := "full of logs"
	url := mustOpen(t, &full)
	status, text := ask(t, "POST", url+"/insert/jsonline", "{}", right)
	assert.Equal(t, http.StatusInsufficientStorage, status)
	assert.Contains(t, text, full)
	status, _ = ask(t, "POST", url+"/select/logsql/query", "query=x", right)
	assert.Equal(t, http.StatusOK, status)
	full = ""
	status, _ = ask(t, "POST", url+"/insert/jsonline", "{}", right)
	assert.Equal(t, http.StatusOK, status)
}

// A refusal must not wait for a body that may never come.
func TestFront_HalfRequest_IsRefusedAtOnce(t *testing.T) {
	full := ""
	url := mustOpen(t, &full)
	conn, err := net.Dial("tcp", strings.TrimPrefix(url, "http://"))
	require.NoError(t, err)
	defer func() { _ = conn.Close() }()
	_, err = io.WriteString(conn, "POST /insert/jsonline HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 100000\r\n\r\n")
	require.NoError(t, err)
	answer, err := io.ReadAll(conn) // until the front closes it
	require.NoError(t, err)
	assert.Contains(t, string(answer), "401")
}
