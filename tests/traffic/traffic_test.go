package traffic

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func to(url string) func(context.Context, int) (*http.Request, error) {
	return func(ctx context.Context, n int) (*http.Request, error) {
		return http.NewRequestWithContext(ctx, http.MethodPost, fmt.Sprint(url, "/", n), nil)
	}
}

// A server that answers nobody is asked all the same.
func TestRun_DoesNotWaitForAnswers(t *testing.T) {
	release := make(chan struct{})
	var waiting atomic.Int64
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		waiting.Add(1)
		<-release
		if r.URL.Path == "/0" {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
		_, _ = fmt.Fprint(w, r.URL.Path)
	}))
	defer server.Close()
	g := New()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	began := time.Now()
	go func() {
		defer close(done)
		g.Run(ctx, Stream{Name: "s", Rate: 1000, Request: to(server.URL), Said: func(_ http.Header, body []byte) string { return string(body) }})
	}()
	require.Eventually(t, func() bool { return waiting.Load() >= 20 }, time.Minute, time.Millisecond)
	assert.False(t, g.Settled(time.Now()))
	assert.True(t, g.Settled(began))
	cancel()
	<-done
	close(release)
	g.Close()
	ended := time.Now()
	assert.True(t, g.Settled(ended))
	samples := g.Samples("s", began, ended)
	assert.Len(t, samples, int(waiting.Load()))
	assert.Len(t, g.Samples("", began, ended), len(samples))
	assert.Empty(t, g.Samples("other", began, ended))
	assert.Empty(t, g.Samples("s", ended, ended.Add(time.Hour)))
	require.Len(t, Failed(samples), 1)
	assert.Equal(t, "/0", Failed(samples)[0].Said)
	assert.Equal(t, map[string]int{"200": len(samples) - 1, "503": 1}, Causes(samples))
	assert.Positive(t, Quantile(samples, 0.5))
	assert.Positive(t, QuantileOf(samples, http.StatusServiceUnavailable, 0.99))
}

// A client that comes on time and is not heard has waited, too.
func TestRun_LatencyCountsFromTheSchedule(t *testing.T) {
	server := httptest.NewServer(http.NotFoundHandler())
	defer server.Close()
	g := New()
	ctx, cancel := context.WithCancel(t.Context())
	began := time.Now()
	done := make(chan struct{})
	go func() {
		defer close(done)
		g.Run(ctx, Stream{Name: "s", Rate: 1000, Request: to(server.URL)})
	}()
	require.Eventually(t, func() bool { return len(g.Samples("s", began, time.Now())) >= 20 }, time.Minute, time.Millisecond)
	cancel()
	<-done
	g.Close()
	samples := g.Samples("s", began, time.Now())
	for _, s := range samples {
		require.False(t, s.Due.IsZero())
		assert.False(t, s.Sent.Before(s.Due), "request %d was sent before it was due", s.N)
		assert.Equal(t, s.Answered().Sub(s.Due), s.Latency())
		assert.Equal(t, time.Duration(s.N)*time.Millisecond, s.Due.Sub(samples[0].Due)+time.Duration(samples[0].N)*time.Millisecond)
	}
	asked := g.Ask(t.Context(), Stream{Request: to(server.URL)}, 0)
	assert.Zero(t, asked.Late())
	assert.Equal(t, asked.Took, asked.Latency())
}

func TestSample_LateOneHasWaited(t *testing.T) {
	due := time.Now()
	s := Sample{Due: due, Sent: due.Add(3 * time.Second), Took: time.Second}
	assert.Equal(t, 3*time.Second, s.Late())
	assert.Equal(t, 4*time.Second, s.Latency())
}

func TestAsk_NobodyListens(t *testing.T) {
	server := httptest.NewServer(http.NotFoundHandler())
	server.Close()
	g := New()
	defer g.Close()
	s := g.Ask(t.Context(), Stream{Request: to(server.URL)}, 0)
	assert.ErrorIs(t, s.Err, syscall.ECONNREFUSED)
	assert.Equal(t, "refused", s.Cause())
	assert.False(t, s.OK())
}

func TestAsk_NotElsewhere(t *testing.T) {
	g := New()
	defer g.Close()
	s := g.Ask(t.Context(), Stream{Request: to("http://192.0.2.1:80")}, 0)
	assert.ErrorContains(t, s.Err, "loopback")
}

func TestClosed_EachClientWaits(t *testing.T) {
	var now, most atomic.Int64
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		n := now.Add(1)
		for old := most.Load(); n > old && !most.CompareAndSwap(old, n); old = most.Load() {
			continue
		}
		now.Add(-1)
	}))
	defer server.Close()
	g := New()
	defer g.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	assert.NotEmpty(t, g.Closed(ctx, 3, Stream{Request: to(server.URL)}))
	assert.LessOrEqual(t, most.Load(), int64(3))
}

func TestCausesText(t *testing.T) {
	assert.Equal(t, "3 x 503, 1 x 429, 1 x refused", CausesText(map[string]int{"429": 1, "refused": 1, "503": 3}))
	assert.Empty(t, CausesText(nil))
}
