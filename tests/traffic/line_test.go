package traffic

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
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
