package httpapi_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/edge-serverless-box/esb/gateway"
	"github.com/edge-serverless-box/esb/gateway/httpapi"
	"github.com/edge-serverless-box/esb/gateway/lambdaapi"
	"github.com/edge-serverless-box/esb/guard/budget"
	"github.com/edge-serverless-box/esb/guard/connlimit"
)

// withTLS adds an HTTPS listener.
func withTLS(t *testing.T) func(*httpapi.Options) {
	t.Helper()
	certificate := httptest.NewTLSServer(http.NotFoundHandler())
	t.Cleanup(certificate.Close)
	return func(o *httpapi.Options) {
		o.HTTPSAddrs = []string{"127.0.0.1:0"}
		o.TLS = &tls.Config{Certificates: certificate.TLS.Certificates, MinVersion: tls.VersionTLS12}
	}
}

// half sends a request that announces a body of some bytes and sends none of it.
func (b *box) half(path string, size int) (net.Conn, *bufio.Reader) {
	b.t.Helper()
	conn, err := net.Dial("tcp", b.Addrs("http")[0].String())
	require.NoError(b.t, err)
	b.t.Cleanup(func() { _ = conn.Close() })
	require.NoError(b.t, conn.SetDeadline(time.Now().Add(patience)))
	_, err = io.WriteString(conn, "POST "+path+" HTTP/1.1\r\nHost: a\r\nContent-Length: "+strconv.Itoa(size)+"\r\n\r\n")
	require.NoError(b.t, err)
	return conn, bufio.NewReader(conn)
}

func TestServer_HalfRequest_IsRefusedAtOnceAndClosed(t *testing.T) {
	b := mustOpen(t, returning(`{}`), func(o *httpapi.Options) {
		o.Lambda = lambdaapi.New(lambdaapi.Options{AccessKeys: map[string]string{"AKID": "secret"}})
	})
	for name, c := range map[string]struct {
		path   string
		size   int
		status int
	}{
		"token route":     {"/jwt", 100000, 401},
		"key route":       {"/key", 100000, 403},
		"no route":        {"/nothing", 100000, 404},
		"Lambda's API":    {lambdaapi.PrefixInvoke + "f/invocations", 100000, 403},
		"no operation":    {lambdaapi.PrefixInvoke + "f/nothing", 100000, 404},
		"too large":       {"/open", 10485761, 413},
		"not for a body":  {"/health", 100000, 404},
		"small body":      {"/jwt", 100, 401},
		"container stats": {"/metrics/containers", 100000, 404},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			began := time.Now()
			_, in := b.half(c.path, c.size)
			res, err := http.ReadResponse(in, nil)
			require.NoError(t, err)
			assert.Equal(t, c.status, res.StatusCode)
			assert.True(t, res.Close)
			_, err = io.ReadAll(res.Body)
			require.NoError(t, err)
			assert.Less(t, time.Since(began), patience/4)
			_, err = in.ReadByte()
			assert.ErrorIs(t, err, io.EOF)
		})
	}
}

func TestServer_BudgetUsedUp_RefusesBodiesAndServesTheRest(t *testing.T) {
	memory := budget.New(4 << 20)
	b := mustOpen(t, returning(`{"statusCode":200,"body":"ok"}`), func(o *httpapi.Options) { o.Memory = memory })
	for range 50 {
		conn, _ := b.half("/open", 10<<20)
		// 65 KB of 6 MB have come: the buffer has its second step. Of those that are refused the connection may be closed by now.
		_, _ = conn.Write(make([]byte, 65<<10))
	}
	require.Eventually(t, func() bool { return memory.Refused() > 0 }, patience, time.Millisecond)
	assert.LessOrEqual(t, memory.Used(), memory.Limit()/2, "one address gets half")
	got := b.do("POST", "/open", nil, strings.NewReader(strings.Repeat("x", 3<<20)))
	assert.Equal(t, 503, got.status)
	assert.Equal(t, "1", got.header.Get("Retry-After"))
	assert.Equal(t, `{"message":"Service Unavailable"}`, got.body)
	assert.Equal(t, 200, b.do("GET", "/open", nil, nil).status)
}

func TestServer_BodyOfAWaitingRequest_IsFree(t *testing.T) {
	memory := budget.New(64 << 20)
	waiting, leave := make(chan struct{}), make(chan struct{})
	b := mustOpen(t, invokeFunc(func(context.Context, *gateway.Function, gateway.Invocation) (gateway.Result, error) {
		waiting <- struct{}{}
		<-leave
		return gateway.Result{Payload: []byte(`{"statusCode":200}`)}, nil
	}), func(o *httpapi.Options) { o.Memory = memory })
	done := make(chan int)
	const size = 3 << 20
	go func() { done <- b.do("POST", "/open", nil, strings.NewReader(strings.Repeat("x", size))).status }()
	<-waiting
	assert.Less(t, memory.Used(), int64(size*3/2), "the event alone is held")
	close(leave)
	assert.Equal(t, 200, <-done)
	require.Eventually(t, func() bool { return memory.Used() == 0 }, patience, time.Millisecond)
}

func TestServer_ConnectionsOfOneAddressUsedUp_OthersGetIn(t *testing.T) {
	b := mustOpen(t, returning(`{"statusCode":200}`), func(o *httpapi.Options) {
		o.Connections = connlimit.Bounds{Total: 100, PerAddress: 5}
	})
	for range 20 {
		// One that is refused may find out while it is still dialling.
		if conn, err := net.Dial("tcp", b.Addrs("http")[0].String()); err == nil {
			defer func() { _ = conn.Close() }()
		}
	}
	dialer := &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 2)}}
	client := &http.Client{Timeout: patience, Transport: &http.Transport{DialContext: dialer.DialContext}}
	defer client.CloseIdleConnections()
	res, err := client.Get("http://" + b.Addrs("http")[0].String() + "/open")
	require.NoError(t, err)
	_ = res.Body.Close()
	assert.Equal(t, 200, res.StatusCode)

	text := b.metrics()
	assert.Contains(t, text, `esb_connections_refused_total{listener="public",reason="address"} 15`)
	assert.Contains(t, text, `esb_connections_open{listener="public"}`)
}

func TestServer_LoginGuesses_AreToldToWait(t *testing.T) {
	b := mustOpen(t, returning(`{}`))
	wrong := strings.Replace(rightBody, "pass", "guess", 1)
	statuses := map[int]int{}
	for range 300 {
		got := b.do("POST", loginPath, http.Header{"X-Api-Key": {"key"}}, strings.NewReader(wrong))
		statuses[got.status]++
		if got.status == 429 {
			assert.NotEmpty(t, got.header.Get("Retry-After"))
			assert.Empty(t, got.header["Padma_user_authorized"])
		}
	}
	assert.LessOrEqual(t, statuses[401], 20)
	assert.Equal(t, 300, statuses[401]+statuses[429])
	require.Eventually(t, func() bool {
		return b.do("POST", loginPath, http.Header{"X-Api-Key": {"key"}}, strings.NewReader(rightBody)).status == 200
	}, 2*time.Minute, 100*time.Millisecond)
}

func TestServer_HTTP2_RefusedHalfRequest_EndsItsStreamAlone(t *testing.T) {
	b := mustOpen(t, returning(`{"statusCode":200}`), withTLS(t))
	transport := &http.Transport{ForceAttemptHTTP2: true, TLSClientConfig: &tls.Config{InsecureSkipVerify: true}} //nolint:gosec // a test
	defer transport.CloseIdleConnections()
	for range 3 {
		body, never := io.Pipe()
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "https://"+b.Addrs("https")[0].String()+"/jwt", body)
		require.NoError(t, err)
		res, err := transport.RoundTrip(req)
		require.NoError(t, err)
		assert.Equal(t, 2, res.ProtoMajor)
		assert.Equal(t, 401, res.StatusCode)
		_ = res.Body.Close()
		_ = never.Close()
	}
}
