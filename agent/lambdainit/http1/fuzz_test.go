package http1_test

import (
	"bufio"
	"bytes"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/edge-serverless-box/esb/agent/lambdainit/http1"
)

// seen is what a server has understood.
type seen struct{ method, path, query, container, body, trailer string }

// FuzzServer: what is taken for a request, net/http takes for the same request, and what comes behind it begins at the same byte.
func FuzzServer(f *testing.F) {
	for _, seed := range []string{
		"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
		"POST /2015-03-31/functions/function/invocations?a=b HTTP/1.1\r\nHost: x\r\nX-Esb-Container-Id: c\r\nContent-Length: 2\r\n\r\n{}GET / HTTP/1.1\r\nHost: x\r\n\r\n",
		"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3;a=b\r\nabc\r\n0\r\nT: u\r\n\r\nGET /b HTTP/1.1\r\nHost: x\r\n\r\n",
		"POST http://x/%41 HTTP/1.0\nContent-Length: 1\n\na",
		"POST / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\na",
		"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\na",
		"GET / HTTP/1.1\r\nHost: x\r\nA: b\r\n c\r\n\r\n",
		"GET * HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n\r\n",
		"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\na\r\nGET /b HTTP/1.1\r\nHost: x\r\n\r\n",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		if bytes.HasPrefix(text, []byte("\r\n")) {
			return // an empty line before a request, which net/http does not read (RFC 9112, 2.2)
		}
		reference := bufio.NewReaderSize(bytes.NewReader(text), 64<<10)
		for n, got := range understood(t, text) {
			if next, _ := reference.Peek(2); n > 0 && string(next) == "\r\n" {
				_, _ = reference.Discard(2)
			}
			r, err := http.ReadRequest(reference)
			if err != nil && strings.Contains(err.Error(), "bad trailer key") {
				return // the field Trailer is looked at by nobody here
			}
			require.NoError(t, err, "request %d: %+v", n, got)
			body, err := io.ReadAll(r.Body)
			require.NoError(t, err, "body of request %d: %+v", n, got)
			want := seen{r.Method, r.URL.Path, r.URL.RawQuery, r.Header.Get("X-Esb-Container-Id"), string(body), r.Trailer.Get("T")}
			if want.path == "" {
				want.path = "/"
			}
			require.Equal(t, want, got, "request %d", n)
		}
	})
}

// understood are the requests that a server finds in text, and can read to their end.
func understood(t *testing.T, text []byte) (list []seen) {
	s := &http1.Server{Fault: func(message string) { t.Error(message) }, Handler: func(x *http1.Exchange) {
		body, err := io.ReadAll(x)
		if err == nil {
			list = append(list, seen{x.Method, x.Path, x.Query, x.Header("X-Esb-Container-Id"), string(body), x.Trailer("T")})
		}
		x.Status(200)
		x.Send(nil)
	}}
	_ = s.Serve(&once{conn: &memory{Reader: bytes.NewReader(text)}})
	require.True(t, s.Shutdown(patience), "the connection has not ended")
	return list
}

// once is a listener of one connection.
type once struct{ conn net.Conn }

func (l *once) Accept() (net.Conn, error) {
	conn := l.conn
	if l.conn = nil; conn == nil {
		return nil, io.EOF
	}
	return conn, nil
}

func (l *once) Close() error   { return nil }
func (l *once) Addr() net.Addr { return nil }

// memory is a connection whose other end has sent all, and takes everything.
type memory struct{ *bytes.Reader }

func (*memory) Write(p []byte) (int, error)      { return len(p), nil }
func (*memory) Close() error                     { return nil }
func (*memory) LocalAddr() net.Addr              { return nil }
func (*memory) RemoteAddr() net.Addr             { return nil }
func (*memory) SetDeadline(time.Time) error      { return nil }
func (*memory) SetReadDeadline(time.Time) error  { return nil }
func (*memory) SetWriteDeadline(time.Time) error { return nil }
