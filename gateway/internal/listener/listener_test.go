package listener_test

import (
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/edge-serverless-box/esb/gateway/internal/listener"
	"github.com/edge-serverless-box/esb/guard/connlimit"
)

// A set that lets go of its clients serves them, and has them make new connections; then nobody listens, and nothing is broken.
func TestSet_LetGo(t *testing.T) {
	bound := new(listener.Sockets)
	require.NoError(t, bound.Bind(t.Context(), "SETTING", []string{"127.0.0.1:0"}, func(string) net.Listener { return nil }))
	set := listener.NewSet("test", connlimit.Bounds{Total: 100}, prometheus.NewRegistry(), slog.New(slog.DiscardHandler), bound)
	l, err := set.Add(t.Context(), "SETTING", "127.0.0.1:0", "http")
	require.NoError(t, err)
	require.NoError(t, bound.Close(), "it is the set's")
	assert.Len(t, set.Bound(), 1)
	l.Server.Handler = http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})
	set.Serve()
	client := &http.Client{Transport: &http.Transport{}}
	defer client.CloseIdleConnections()
	ask := func() (*http.Response, error) {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+l.Addr().String(), nil)
		require.NoError(t, err)
		res, err := client.Do(r)
		if err == nil {
			_, _ = io.Copy(io.Discard, res.Body)
			_ = res.Body.Close()
		}
		return res, err
	}
	res, err := ask()
	require.NoError(t, err)
	assert.False(t, res.Close)

	ctx, end := context.WithCancel(t.Context())
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		set.LetGo(ctx, time.Hour)
	}()
	require.Eventually(t, func() bool {
		res, err := ask()
		return err == nil && res.Close
	}, time.Minute, time.Millisecond, "the answer must be the last one of its connection")
	end()
	<-gone
	_, err = ask()
	require.Error(t, err)
	require.NoError(t, set.Shutdown(t.Context()))
	assert.Empty(t, set.Failed())
}
