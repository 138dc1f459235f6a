package httpapi_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/edge-serverless-box/esb/gateway"
	"github.com/edge-serverless-box/esb/gateway/event"
	"github.com/edge-serverless-box/esb/gateway/httpapi"
)

// streamFunc is a function that streams.
type streamFunc func(ctx context.Context, w gateway.StreamWriter) (gateway.Result, error)

func (f streamFunc) Invoke(context.Context, *gateway.Function, gateway.Invocation) (gateway.Result, error) {
	return gateway.Result{}, errors.New("the route streams")
}

func (f streamFunc) InvokeStream(ctx context.Context, _ *gateway.Function, _ gateway.Invocation, w gateway.StreamWriter) (gateway.Result, error) {
	return f(ctx, w)
}

const prelude = `{"statusCode":201,"headers":{"Content-Type":"text/plain","Date":"x"},"cookies":["a=1","b=2"]}` + "\x00\x00\x00\x00\x00\x00\x00\x00"

// says streams pieces under a content type.
func says(contentType string, pieces ...string) streamFunc {
	return func(_ context.Context, w gateway.StreamWriter) (gateway.Result, error) {
		if err := w.Begin(contentType); err != nil {
			return gateway.Result{}, err
		}
		for _, p := range pieces {
			if _, err := w.Write([]byte(p)); err != nil {
				return gateway.Result{}, err
			}
		}
		return gateway.Result{}, nil
	}
}

// then ends the stream of f by a failure.
func (f streamFunc) then(result gateway.Result, failure error) streamFunc {
	return func(ctx context.Context, w gateway.StreamWriter) (gateway.Result, error) {
		if _, err := f(ctx, w); err != nil {
			return gateway.Result{}, err
		}
		return result, failure
	}
}

func TestStream_Answers(t *testing.T) {
	failed := gateway.Result{FunctionError: "Unhandled", Payload: []byte(`{"errorType":"E"}`)}
	transport := gateway.Errorf(gateway.CodeTransport, "10.88.0.5 broke off")
	for name, tc := range map[string]struct {
		method      string
		f           streamFunc
		status      int
		contentType string
		body        string
		broken      bool
	}{
		"prelude":                  {f: says(event.IntegrationResponse, prelude+"ab", "c"), status: 201, contentType: "text/plain", body: "abc"},
		"prelude with a parameter": {f: says(event.IntegrationResponse+"; v=1", prelude), status: 201, contentType: "text/plain"},
		"prelude in pieces":        {f: says(event.IntegrationResponse, prelude[:5], prelude[5:len(prelude)-3], prelude[len(prelude)-3:], "a"), status: 201, contentType: "text/plain", body: "a"},
		"prelude of a HEAD":        {method: http.MethodHead, f: says(event.IntegrationResponse, prelude, "abc"), status: 201, contentType: "text/plain"},
		"status without a body":    {f: says(event.IntegrationResponse, `{"statusCode":204}`+prelude[len(prelude)-8:]+"abc", "def"), status: 204, contentType: "application/json"},
		"no prelude":               {f: says("text/event-stream", "data: ", "1\n\n"), status: 200, contentType: "text/event-stream", body: "data: 1\n\n"},
		"no content type":          {f: says("", "abc"), status: 200, contentType: "application/octet-stream", body: "abc"},
		"nothing":                  {f: says("text/plain"), status: 200, contentType: "text/plain"},

		"prelude with more members": {f: says(event.IntegrationResponse, `{"status":201,"body":"x"}`+prelude[len(prelude)-8:], "abc"), status: 200, contentType: "application/json", body: "abc"},
		"bad prelude":               {f: says(event.IntegrationResponse, `{"statusCode":99}`+prelude[len(prelude)-8:], "abc"), status: 502},
		"no prelude at all":         {f: says(event.IntegrationResponse, strings.Repeat("x", event.MaxPreludeBytes)), status: 502},
		"half a prelude":            {f: says(event.IntegrationResponse, prelude[:20]), status: 502},
		"content type of two lines": {f: says("text/plain\r\nX: y", "abc"), status: 502},
		"failure before a byte":     {f: says("text/plain").then(failed, nil), status: 502},
		"failure in the prelude":    {f: says(event.IntegrationResponse, prelude[:20]).then(gateway.Result{}, transport), status: 502},
		"no worker": {f: func(context.Context, gateway.StreamWriter) (gateway.Result, error) {
			return gateway.Result{}, gateway.Errorf(gateway.CodeThrottled, "full")
		}, status: 429},

		"function fails in the middle": {f: says(event.IntegrationResponse, prelude+"ab").then(failed, nil), status: 201, contentType: "text/plain", body: "ab", broken: true},
		"fails behind the prelude":     {f: says(event.IntegrationResponse, prelude).then(failed, nil), status: 201, contentType: "text/plain", broken: true},
		"worker breaks off":            {f: says("text/plain", "ab").then(gateway.Result{}, transport), status: 200, contentType: "text/plain", body: "ab", broken: true},
		"panic in the middle": {f: func(ctx context.Context, w gateway.StreamWriter) (gateway.Result, error) {
			_, _ = says("text/plain", "ab")(ctx, w)
			panic("10.88.0.5")
		}, status: 200, contentType: "text/plain", body: "ab", broken: true},
	} {
		t.Run(name, func(t *testing.T) {
			b := mustOpen(t, tc.f)
			method := tc.method
			if method == "" {
				method = http.MethodGet
			}
			r, err := http.NewRequest(method, b.url("http", "/stream"), nil)
			require.NoError(t, err)
			resp, err := http.DefaultClient.Do(r)
			require.NoError(t, err)
			defer func() { _ = resp.Body.Close() }()
			body, err := io.ReadAll(resp.Body)
			assert.Equal(t, tc.broken, err != nil, "%v", err)
			assert.Equal(t, tc.status, resp.StatusCode)
			assert.NotEmpty(t, resp.Header.Get("x-amzn-RequestId"))
			if tc.contentType == "" {
				assert.Contains(t, string(body), `"message":`)
				return
			}
			assert.Equal(t, tc.contentType, resp.Header.Get("Content-Type"))
			assert.Equal(t, tc.body, string(body))
			if tc.status == 201 {
				assert.Equal(t, []string{"a=1", "b=2"}, resp.Header["Set-Cookie"])
				assert.Equal(t, "x", resp.Header.Get("x-amzn-Remapped-Date"))
			}
		})
	}
}

// TestStream_Pieces_ReachTheClientWhileTheFunctionRuns: the function goes on when the client has its first piece.
func TestStream_Pieces_ReachTheClientWhileTheFunctionRuns(t *testing.T) {
	for name, client := range map[string]*http.Client{
		"HTTP/1.1": http.DefaultClient,
		"HTTP/2":   {Transport: &http.Transport{ForceAttemptHTTP2: true, TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}}, //nolint:gosec // a certificate made here
	} {
		t.Run(name, func(t *testing.T) {
			arrived := make(chan struct{})
			f := streamFunc(func(ctx context.Context, w gateway.StreamWriter) (gateway.Result, error) {
				if _, err := says(event.IntegrationResponse, prelude, "first;")(ctx, w); err != nil {
					return gateway.Result{}, err
				}
				select {
				case <-arrived:
				case <-ctx.Done():
					return gateway.Result{}, ctx.Err()
				}
				_, err := w.Write([]byte("second;"))
				return gateway.Result{}, err
			})
			b := mustOpen(t, f, func(o *httpapi.Options) { o.HTTPSAddrs = []string{"127.0.0.1:0"}; o.TLS = mustTLS(t) })
			scheme := "http"
			if name == "HTTP/2" {
				scheme = "https"
				defer client.CloseIdleConnections()
			}
			resp, err := client.Get(b.url(scheme, "/stream"))
			require.NoError(t, err)
			defer func() { _ = resp.Body.Close() }()
			assert.Equal(t, name == "HTTP/2", resp.ProtoMajor == 2)
			piece := make([]byte, len("first;"))
			_, err = io.ReadFull(resp.Body, piece)
			require.NoError(t, err)
			assert.Equal(t, "first;", string(piece))
			close(arrived)
			rest, err := io.ReadAll(resp.Body)
			require.NoError(t, err)
			assert.Equal(t, "second;", string(rest))
		})
	}
}

func TestStream_HTTP2_FailureInTheMiddleIsSeen(t *testing.T) {
	b := mustOpen(t, says("text/plain", "ab").then(gateway.Result{FunctionError: "Unhandled"}, nil),
		func(o *httpapi.Options) { o.HTTPSAddrs = []string{"127.0.0.1:0"}; o.TLS = mustTLS(t) })
	client := &http.Client{Transport: &http.Transport{ForceAttemptHTTP2: true, TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}} //nolint:gosec // as above
	defer client.CloseIdleConnections()
	resp, err := client.Get(b.url("https", "/stream"))
	require.NoError(t, err)
	defer func() { _ = resp.Body.Close() }()
	_, err = io.ReadAll(resp.Body)
	assert.Error(t, err)
}

func TestStream_ClientLeaves_EndsTheInvocation(t *testing.T) {
	ended := make(chan error, 1)
	f := streamFunc(func(ctx context.Context, w gateway.StreamWriter) (gateway.Result, error) {
		_, _ = says("text/plain", "first;")(ctx, w)
		<-ctx.Done()
		ended <- ctx.Err()
		return gateway.Result{}, gateway.Errorf(gateway.CodeCanceled, "left")
	})
	b := mustOpen(t, f)
	ctx, cancel := context.WithCancel(t.Context())
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, b.url("http", "/stream"), nil)
	require.NoError(t, err)
	resp, err := http.DefaultClient.Do(r)
	require.NoError(t, err)
	_, err = io.ReadFull(resp.Body, make([]byte, 6))
	require.NoError(t, err)
	cancel()
	_ = resp.Body.Close()
	select {
	case err := <-ended:
		assert.ErrorIs(t, err, context.Canceled)
	case <-time.After(patience):
		t.Fatal("the function was not told")
	}
}

// TestStream_Times: what ends a stream that does not end by itself. A client that reads nothing is a raw connection.
func TestStream_Times(t *testing.T) {
	hangs := streamFunc(func(ctx context.Context, w gateway.StreamWriter) (gateway.Result, error) {
		_, _ = says("text/plain", "first;")(ctx, w)
		<-ctx.Done()
		return gateway.Result{}, ctx.Err()
	})
	silent := streamFunc(func(ctx context.Context, _ gateway.StreamWriter) (gateway.Result, error) {
		<-ctx.Done()
		return gateway.Result{}, ctx.Err()
	})
	floods := streamFunc(func(_ context.Context, w gateway.StreamWriter) (gateway.Result, error) {
		_ = w.Begin("text/plain")
		for {
			if _, err := w.Write(make([]byte, 1<<20)); err != nil {
				return gateway.Result{}, err
			}
		}
	})
	short := func(o *httpapi.Options) { o.StreamIdle = time.Second }
	for name, tc := range map[string]struct {
		path   string
		f      streamFunc
		change func(*httpapi.Options)
		status string
		read   bool
	}{
		"route's timeout":                 {path: "/stream/fast", f: hangs, status: "200 ", read: true},
		"route's timeout before the head": {path: "/stream/fast", f: silent, status: "504 ", read: true},
		"function writes nothing":         {path: "/stream", f: hangs, change: short, status: "200 ", read: true},
		"function writes nothing at all":  {path: "/stream", f: silent, change: short, status: "504 ", read: true},
		"client reads nothing":            {path: "/stream", f: floods, change: short},
	} {
		t.Run(name, func(t *testing.T) {
			var changes []func(*httpapi.Options)
			if tc.change != nil {
				changes = append(changes, tc.change)
			}
			b := mustOpen(t, tc.f, changes...)
			conn, err := net.Dial("tcp", b.Addrs("http")[0].String())
			require.NoError(t, err)
			defer func() { _ = conn.Close() }()
			_, err = io.WriteString(conn, "GET "+tc.path+" HTTP/1.1\r\nHost: x\r\n\r\n")
			require.NoError(t, err)
			if tc.read {
				require.NoError(t, conn.SetReadDeadline(time.Now().Add(patience)))
				line, err := bufio.NewReader(conn).ReadString('\n')
				require.NoError(t, err)
				assert.Contains(t, line, tc.status)
			}
			require.Eventually(t, func() bool { return strings.Contains(b.log.String(), `"msg":"request"`) }, patience, time.Millisecond)
			assert.Contains(t, b.log.String(), `"code":"integration_timeout"`)
		})
	}
}

func mustTLS(t *testing.T) *tls.Config {
	t.Helper()
	certificate := httptest.NewTLSServer(nil)
	t.Cleanup(certificate.Close)
	return &tls.Config{Certificates: certificate.TLS.Certificates, MinVersion: tls.VersionTLS12}
}
