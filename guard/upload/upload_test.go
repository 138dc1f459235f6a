package upload_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/edge-serverless-box/esb/guard/upload"
)

const patience = 60 * time.Second

var refuse = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
	w.WriteHeader(http.StatusUnauthorized)
	_, _ = io.WriteString(w, "no")
})

func serve(t *testing.T, l upload.Limits, next http.Handler) *httptest.Server {
	t.Helper()
	s := httptest.NewUnstartedServer(upload.Handler(l, next))
	s.Start()
	t.Cleanup(s.Close)
	return s
}

// client is a connection on which a test writes what it likes.
type client struct {
	net.Conn
	in *bufio.Reader
}

func dial(t *testing.T, s *httptest.Server) *client {
	t.Helper()
	conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", s.Listener.Addr().String())
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	require.NoError(t, conn.SetDeadline(time.Now().Add(patience)))
	return &client{conn, bufio.NewReader(conn)}
}

func (c *client) send(t *testing.T, text string) {
	t.Helper()
	_, err := io.WriteString(c, text)
	require.NoError(t, err)
}

func (c *client) answer(t *testing.T) *http.Response {
	t.Helper()
	res, err := http.ReadResponse(c.in, nil)
	require.NoError(t, err)
	_, err = io.ReadAll(res.Body)
	require.NoError(t, err)
	return res
}

func TestHandler_HalfRequest_IsAnsweredAtOnceAndClosed(t *testing.T) {
	for name, head := range map[string]string{
		"nothing sent":   "Content-Length: 100000\r\n\r\n",
		"small, a half":  "Content-Length: 100\r\n\r\nhalf",
		"huge":           "Content-Length: 100000000\r\n\r\nhalf",
		"chunked":        "Transfer-Encoding: chunked\r\n\r\n",
		"half a chunk":   "Transfer-Encoding: chunked\r\n\r\n4000\r\nhalf",
		"waits for 100":  "Expect: 100-continue\r\nContent-Length: 100\r\n\r\n",
		"waits, chunked": "Expect: 100-continue\r\nTransfer-Encoding: chunked\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel() // each waits for its connection's end
			s := serve(t, upload.Limits{Within: time.Hour}, refuse)
			c := dial(t, s)
			c.send(t, "POST / HTTP/1.1\r\nHost: x\r\n"+head)
			res := c.answer(t)
			assert.Equal(t, http.StatusUnauthorized, res.StatusCode)
			assert.True(t, res.Close)
			_, err := c.in.ReadByte()
			assert.ErrorIs(t, err, io.EOF, "the connection is closed, and not reset")
		})
	}
}

func TestHandler_WholeSmallBody_KeepsTheConnection(t *testing.T) {
	for name, request := range map[string]string{
		"announced": "Content-Length: 60000\r\n\r\n" + strings.Repeat("x", 60000),
		"empty":     "Content-Length: 0\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			c := dial(t, serve(t, upload.Limits{Within: time.Hour}, refuse))
			for range 3 {
				c.send(t, "POST / HTTP/1.1\r\nHost: x\r\n"+request)
				res := c.answer(t)
				assert.Equal(t, http.StatusUnauthorized, res.StatusCode)
				assert.False(t, res.Close)
			}
		})
	}
}

func TestHandler_ChunkedBody_ClosesTheConnection(t *testing.T) {
	for name, length := range map[string]string{"with a length": "Content-Length: 4\r\n", "without": ""} {
		t.Run(name, func(t *testing.T) {
			s := serve(t, upload.Limits{Within: time.Hour}, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { _, _ = io.ReadAll(r.Body) }))
			c := dial(t, s)
			// Counted by the length, the rest is a request of its own.
			c.send(t, "POST / HTTP/1.1\r\nHost: x\r\n"+length+"Transfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n\r\nGET /second HTTP/1.1\r\nHost: x\r\n\r\n")
			res := c.answer(t)
			assert.Equal(t, http.StatusOK, res.StatusCode)
			assert.True(t, res.Close)
			_, err := c.in.ReadByte()
			assert.Error(t, err)
		})
	}
}

func TestHandler_SlowBody_EndsWithTheDeadline(t *testing.T) {
	s := serve(t, upload.Limits{Within: 50 * time.Millisecond}, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, err := io.ReadAll(r.Body)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			w.WriteHeader(http.StatusRequestTimeout)
		}
	}))
	c := dial(t, s)
	c.send(t, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nhalf")
	res := c.answer(t)
	assert.Equal(t, http.StatusRequestTimeout, res.StatusCode)
	assert.True(t, res.Close)
}

func TestHandler_LongWorkAfterTheBody_IsNotCut(t *testing.T) {
	const within = 20 * time.Millisecond
	s := serve(t, upload.Limits{Within: within}, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.ReadAll(r.Body)
		select {
		case <-r.Context().Done():
			w.WriteHeader(http.StatusInternalServerError)
		case <-time.After(5 * within):
		}
	}))
	c := dial(t, s)
	for range 2 {
		c.send(t, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nbody")
		res := c.answer(t)
		assert.Equal(t, http.StatusOK, res.StatusCode)
		assert.False(t, res.Close)
	}
}

func TestHandler_LongUpload_KeepsToItsRate(t *testing.T) {
	// 1 s, and 8 s more for each MB: the first MB is there at once, the second comes in pieces that take 1.5 s.
	s := serve(t, upload.Limits{Within: time.Second, BytesPerSecond: 128 << 10}, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n, err := io.Copy(io.Discard, r.Body)
		_, _ = fmt.Fprint(w, n, err)
	}))
	r, w := io.Pipe()
	go func() {
		_, _ = w.Write(make([]byte, 1<<20))
		tick := time.NewTicker(150 * time.Millisecond)
		defer tick.Stop()
		for range 10 {
			<-tick.C
			_, _ = w.Write(make([]byte, 100))
		}
		_ = w.Close()
	}()
	res, err := http.Post(s.URL, "text/plain", r) //nolint:noctx // a test
	require.NoError(t, err)
	defer func() { _ = res.Body.Close() }()
	got, err := io.ReadAll(res.Body)
	require.NoError(t, err)
	assert.Equal(t, fmt.Sprint(1<<20+1000, error(nil)), string(got))
}

// TestHandler_LargeBodyUnread_AnswerIsNotLost: a connection that is closed with bytes unread is reset, and a client that still sends
// then loses the answer. The server must say that it is done, and wait, before it closes.
func TestHandler_LargeBodyUnread_AnswerIsNotLost(t *testing.T) {
	sent := make(chan struct{})
	s := serve(t, upload.Limits{Within: patience}, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		<-sent
		refuse(w, r)
	}))
	c := dial(t, s)
	c.send(t, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10485760\r\n\r\n"+strings.Repeat("x", 64<<10))
	close(sent)
	answer, err := io.ReadAll(c.in)
	require.NoError(t, err, "the end of the answer, and no reset")
	assert.Contains(t, string(answer), "HTTP/1.1 401 ")
	assert.True(t, strings.HasSuffix(string(answer), "no"))
}

func TestHandler_ProxyStillReads_AnswerComesThrough(t *testing.T) {
	upstream := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Connection", "close")
		w.WriteHeader(http.StatusForbidden)
	}))
	defer upstream.Close()
	to, err := url.Parse(upstream.URL)
	require.NoError(t, err)
	s := serve(t, upload.Limits{Within: time.Hour}, &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(to) }})
	c := dial(t, s)
	c.send(t, "PUT / HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\nhalf")
	res := c.answer(t)
	assert.Equal(t, http.StatusForbidden, res.StatusCode)
	assert.True(t, res.Close)
}

func TestHandler_HTTP2_EndsTheStreamAndKeepsTheConnection(t *testing.T) {
	s := httptest.NewUnstartedServer(upload.Handler(upload.Limits{Within: time.Hour}, refuse))
	s.EnableHTTP2 = true
	s.StartTLS()
	defer s.Close()
	dials := 0
	transport := &http.Transport{
		ForceAttemptHTTP2: true,
		DialTLSContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			dials++
			return (&tls.Dialer{Config: &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2"}}}).DialContext(ctx, network, addr) //nolint:gosec // a test
		},
	}
	defer transport.CloseIdleConnections()
	for range 3 {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		body, never := io.Pipe()
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.URL, body)
		require.NoError(t, err)
		res, err := transport.RoundTrip(req)
		require.NoError(t, err)
		assert.Equal(t, 2, res.ProtoMajor)
		assert.Equal(t, http.StatusUnauthorized, res.StatusCode)
		_ = res.Body.Close()
		_ = never.Close()
		cancel()
	}
	assert.Equal(t, 1, dials)
}

func BenchmarkHandler(b *testing.B) {
	h := upload.Handler(upload.Limits{Within: time.Minute}, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
	}))
	for name, body := range map[string]io.Reader{"no body": http.NoBody, "body": strings.NewReader("body")} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			w := httptest.NewRecorder()
			for b.Loop() {
				h.ServeHTTP(w, &http.Request{Body: io.NopCloser(body), Header: http.Header{}})
			}
		})
	}
}
