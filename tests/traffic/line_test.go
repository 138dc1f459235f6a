package traffic

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestLine_OneConnectionForAll(t *testing.T) {
	peers := map[string]bool{}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		peers[r.RemoteAddr] = true
		body, _ := io.ReadAll(r.Body)
		if string(body) == "no" {
			w.WriteHeader(http.StatusBadGateway)
		}
		if string(body) == "pieces" {
			w.(http.Flusher).Flush() // so that it comes in chunks
		}
		_, _ = fmt.Fprintf(w, "%s %s", r.Header.Get("X-Name"), body)
	}))
	defer server.Close()
	l, err := Open(t.Context(), (&net.Dialer{}).DialContext, strings.TrimPrefix(server.URL, "http://"))
	require.NoError(t, err)
	defer func() { assert.NoError(t, l.Close()) }()
	for _, c := range []struct {
		body   string
		status int
	}{{"yes", 200}, {"no", 502}, {"pieces", 200}, {"yes", 200}} {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, server.URL, bytes.NewReader([]byte(c.body)))
		require.NoError(t, err)
		r.Header.Set("X-Name", "ana")
		text, err := Write(r)
		require.NoError(t, err)
		for range 3 {
			status, body, err := l.Ask(text)
			require.NoError(t, err)
			assert.Equal(t, c.status, status)
			assert.Equal(t, "ana "+c.body, string(body))
		}
	}
	assert.Len(t, peers, 1)
	server.CloseClientConnections()
	_, _, err = l.Ask([]byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n"))
	assert.Error(t, err)
}

func TestRun_WrittenRequests_UseTheirConnectionsAgain(t *testing.T) {
	var mu sync.Mutex
	clients, paths := map[string]int{}, map[string]int{}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		clients[r.RemoteAddr]++
		paths[r.URL.Path]++
		if r.URL.Path == "/1" && paths["/1"] == 3 {
			w.Header().Set("Connection", "close")
		}
		w.WriteHeader(http.StatusAccepted)
	}))
	defer server.Close()
	s := Stream{Name: "s", Addr: server.Listener.Addr().String()}
	for n := range 2 {
		r, err := to(server.URL)(t.Context(), n)
		require.NoError(t, err)
		text, err := Write(r)
		require.NoError(t, err)
		s.Texts = append(s.Texts, text)
	}
	g := New()
	for n := range 20 {
		sample := g.Ask(t.Context(), s, n)
		require.NoError(t, sample.Err)
		assert.Equal(t, http.StatusAccepted, sample.Status)
	}
	g.Close()
	assert.Equal(t, map[string]int{"/0": 10, "/1": 10}, paths)
	assert.Len(t, clients, 2, "one until it was closed, and one")
	s.Addr = "192.0.2.1:80"
	assert.ErrorContains(t, g.Ask(t.Context(), s, 0).Err, "not this machine's loopback")
}
