package framelimit_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/edge-serverless-box/esb/gateway/framelimit"
)

const patience = 60 * time.Second

func serve(t testing.TB, h http.HandlerFunc) (*httptest.Server, *atomic.Int32) {
	t.Helper()
	ended := new(atomic.Int32)
	s := httptest.NewUnstartedServer(h)
	s.EnableHTTP2 = true
	s.TLS = &tls.Config{NextProtos: []string{"h2", "http/1.1"}} //nolint:gosec // a test
	s.Config.TLSConfig = s.TLS
	require.NoError(t, framelimit.Configure(s.Config, func() { ended.Add(1) }))
	s.StartTLS()
	t.Cleanup(s.Close)
	return s, ended
}

// dial opens a connection on which a test sends frames as it likes; what comes back is read and forgotten.
func dial(t *testing.T, s *httptest.Server) (*http2.Framer, <-chan error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	conn, err := (&tls.Dialer{Config: &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2"}}}).DialContext(ctx, "tcp", s.Listener.Addr().String()) //nolint:gosec // a test
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	require.NoError(t, conn.SetDeadline(time.Now().Add(patience)))
	_, err = io.WriteString(conn, http2.ClientPreface)
	require.NoError(t, err)
	f := http2.NewFramer(conn, conn)
	require.NoError(t, f.WriteSettings())
	closed := make(chan error, 1)
	go func() {
		for {
			got, err := f.ReadFrame()
			if err != nil {
				closed <- err
				return
			}
			if away, ok := got.(*http2.GoAwayFrame); ok && away.ErrCode != http2.ErrCodeEnhanceYourCalm {
				closed <- http2.ConnectionError(away.ErrCode)
				return
			}
		}
	}()
	return f, closed
}

func request(t *testing.T, f *http2.Framer, stream uint32, end bool) {
	t.Helper()
	var block bytes.Buffer
	e := hpack.NewEncoder(&block)
	for _, field := range [][2]string{{":method", "POST"}, {":scheme", "https"}, {":authority", "x"}, {":path", "/"}} {
		require.NoError(t, e.WriteField(hpack.HeaderField{Name: field[0], Value: field[1]}))
	}
	require.NoError(t, f.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: block.Bytes(), EndHeaders: true, EndStream: end}))
}

func TestConfigure_FramesThatBringNothing_EndTheConnection(t *testing.T) {
	for name, c := range map[string]struct {
		open bool
		send func(f *http2.Framer) error
	}{
		"SETTINGS":      {false, func(f *http2.Framer) error { return f.WriteSettings() }},
		"PRIORITY":      {false, func(f *http2.Framer) error { return f.WritePriority(3, http2.PriorityParam{Weight: 1}) }},
		"WINDOW_UPDATE": {false, func(f *http2.Framer) error { return f.WriteWindowUpdate(0, 1) }},
		"PING":          {false, func(f *http2.Framer) error { return f.WritePing(false, [8]byte{}) }},
		"unknown":       {false, func(f *http2.Framer) error { return f.WriteRawFrame(0xee, 0, 0, nil) }},
		"empty DATA":    {true, func(f *http2.Framer) error { return f.WriteData(1, false, nil) }},
		"padded DATA":   {true, func(f *http2.Framer) error { return f.WriteDataPadded(1, false, nil, make([]byte, 255)) }},
		"table sizes": {false, func(f *http2.Framer) error {
			return f.WriteSettings(http2.Setting{ID: http2.SettingHeaderTableSize, Val: 0}, http2.Setting{ID: http2.SettingHeaderTableSize, Val: 4096})
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, ended := serve(t, func(_ http.ResponseWriter, r *http.Request) { _, _ = io.Copy(io.Discard, r.Body) })
			f, closed := dial(t, s)
			if c.open {
				request(t, f, 1, false)
			}
			for range 100_000 {
				if err := c.send(f); err != nil {
					break
				}
			}
			select {
			case err := <-closed:
				assert.Error(t, err)
			case <-time.After(patience):
				t.Fatal("the connection goes on")
			}
			assert.Equal(t, int32(1), ended.Load())
		})
	}
}

func TestConfigure_HonestClients_AreServed(t *testing.T) {
	const large = 16 << 20
	s, ended := serve(t, func(w http.ResponseWriter, r *http.Request) {
		assert.Equal(t, 2, r.ProtoMajor)
		assert.NotNil(t, r.TLS)
		n, _ := io.Copy(io.Discard, r.Body)
		if n > 0 {
			_, _ = w.Write([]byte("got it"))
			return
		}
		piece := make([]byte, 64<<10)
		for range large / len(piece) {
			_, _ = w.Write(piece)
		}
	})
	get := func(body io.Reader) int {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.URL, body)
		require.NoError(t, err)
		res, err := s.Client().Do(req)
		require.NoError(t, err)
		got, err := io.ReadAll(res.Body)
		require.NoError(t, err)
		_ = res.Body.Close()
		return len(got)
	}
	for range 2 {
		assert.Equal(t, large, get(http.NoBody), "a download, which the client acknowledges often")
		assert.Equal(t, 6, get(bytes.NewReader(make([]byte, large))), "an upload")
	}
	for range 2000 {
		assert.Equal(t, 6, get(bytes.NewReader([]byte("x"))), "small requests")
	}
	assert.Zero(t, ended.Load())
}

func TestConfigure_ConnectionContext_ReachesHandlers(t *testing.T) {
	type key struct{}
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, r.Context().Value(key{}).(string)) //nolint:forcetypeassert // a test
	}))
	s.EnableHTTP2 = true
	s.Config.TLSConfig = &tls.Config{NextProtos: []string{"h2"}} //nolint:gosec // a test
	s.TLS = s.Config.TLSConfig
	s.Config.ConnContext = func(ctx context.Context, _ net.Conn) context.Context {
		return context.WithValue(ctx, key{}, "of the connection")
	}
	require.NoError(t, framelimit.Configure(s.Config, func() {}))
	s.StartTLS()
	defer s.Close()
	res, err := s.Client().Get(s.URL)
	require.NoError(t, err)
	defer func() { _ = res.Body.Close() }()
	got, err := io.ReadAll(res.Body)
	require.NoError(t, err)
	assert.Equal(t, "of the connection", string(got))
}
