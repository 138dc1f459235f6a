package httpapi

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/edge-serverless-box/esb/gateway"
	"github.com/edge-serverless-box/esb/gateway/auth"
	"github.com/edge-serverless-box/esb/gateway/event"
	"github.com/edge-serverless-box/esb/gateway/response"
	"github.com/edge-serverless-box/esb/gateway/route"
)

// endedClient is what net/http gives to a handler whose client takes nothing for too long, or has left: the write fails with
// cause, and the request's context ends.
type endedClient struct {
	http.ResponseWriter
	cause error
	leave context.CancelFunc
}

func (c *endedClient) Write([]byte) (int, error) {
	c.leave()
	return 0, fmt.Errorf("write tcp: %w", c.cause)
}

type writesOnce struct{ Invoker }

func (writesOnce) InvokeStream(_ context.Context, _ *gateway.Function, _ gateway.Invocation, w gateway.StreamWriter) (gateway.Result, error) {
	if err := w.Begin("text/plain"); err != nil {
		return gateway.Result{}, err
	}
	_, err := w.Write([]byte("text"))
	return gateway.Result{}, err
}

// TestStream_StuckClient_IsNotOneThatLeft: both end the request's context, and only the error of the write tells them apart.
func TestStream_StuckClient_IsNotOneThatLeft(t *testing.T) {
	for code, cause := range map[string]error{
		`"code":"integration_timeout"`: os.ErrDeadlineExceeded,
		`"code":"canceled"`:            os.ErrClosed,
	} {
		a, err := auth.New(auth.Options{APIKey: "key", User: "u", Password: "p", Secret: bytes.Repeat([]byte("s"), 32), Expires: time.Hour})
		require.NoError(t, err)
		var log bytes.Buffer
		logger := slog.New(slog.NewJSONHandler(&log, nil))
		f := newFront(Options{LoginPath: "/login", Auth: a, Events: event.NewBuilder("123456789012"), Invoker: writesOnce{}, Registry: prometheus.NewRegistry(), Logger: logger, AccessLog: &log})
		m, err := route.New([]gateway.Route{{Path: "/s", Auth: gateway.AuthNone, Stream: true, Timeout: time.Hour, Payload: gateway.PayloadV1, Function: &gateway.Function{Name: "f"}}})
		require.NoError(t, err)
		f.routing.Store(&Routing{Matcher: m, API: &gateway.API{}, Replies: response.Default(), Auth: &auth.Rules{Authenticator: a}})
		ctx, leave := context.WithCancel(t.Context())
		r := httptest.NewRequestWithContext(ctx, http.MethodGet, "/s", nil)
		w := &endedClient{httptest.NewRecorder(), cause, leave}
		assert.Panics(t, func() { f.on("http", "80").ServeHTTP(w, r) }, "the answer has begun and is not whole")
		assert.Contains(t, log.String(), code)
	}
}
