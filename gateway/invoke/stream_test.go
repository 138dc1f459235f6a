package invoke

import (
	"context"
	"encoding/base64"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/edge-serverless-box/esb/gateway"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// caller is a StreamWriter that remembers.
type caller struct {
	begins      []string
	got         strings.Builder
	pieces      int
	beginErr    error
	writeErr    error
	afterAPiece func(all string)
}

func (c *caller) Begin(contentType string) error {
	c.begins = append(c.begins, contentType)
	return c.beginErr
}

func (c *caller) Write(p []byte) (int, error) {
	if c.writeErr != nil {
		return 0, c.writeErr
	}
	c.pieces++
	c.got.Write(p)
	if c.afterAPiece != nil {
		c.afterAPiece(c.got.String())
	}
	return len(p), nil
}

const (
	streamHead = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nLambda-Runtime-Function-Response-Mode: streaming\r\n" +
		"Trailer: X\r\nTransfer-Encoding: chunked\r\n\r\n"
	streamEnd = "0\r\n\r\n"
)

func trailers(errorType, body, reset string) string {
	end := "0\r\nLambda-Runtime-Function-Error-Type: " + errorType + "\r\nLambda-Runtime-Function-Error-Body: " +
		base64.StdEncoding.EncodeToString([]byte(body)) + "\r\n"
	if reset != "" {
		end += "X-Esb-Sandbox-Reset: " + reset + "\r\n"
	}
	return end + "\r\n"
}

func TestInvokeStream_Answers(t *testing.T) {
	known := gateway.Errorf(gateway.CodeFunction, "a bad prelude")
	for name, tc := range map[string]struct {
		raw   string
		close bool
		pause time.Duration // before the connection is closed
		kind  gateway.RuntimeInterface
		tied  bool
		to    caller
		limit int64

		begins    []string
		got       string
		payload   string
		function  string
		timedOut  bool
		code      gateway.Code
		condemned bool
	}{
		"pieces":               {raw: streamHead + "2\r\nab\r\n1\r\nc\r\n" + streamEnd, begins: []string{"text/plain"}, got: "abc"},
		"nothing in it":        {raw: streamHead + streamEnd, begins: []string{"text/plain"}},
		"at the limit":         {raw: streamHead + "3\r\nabc\r\n" + streamEnd, limit: 3, begins: []string{"text/plain"}, got: "abc"},
		"over the limit":       {raw: streamHead + "4\r\nabcd\r\n" + streamEnd, limit: 3, begins: []string{"text/plain"}, function: "Unhandled", payload: `{"errorType":"Function.ResponseSizeTooLarge","errorMessage":"Response payload size exceeded maximum allowed payload size (3 bytes)."}`, condemned: true},
		"error in the middle":  {raw: streamHead + "1\r\na\r\n" + trailers("E", `{"errorType":"E"}`, ""), begins: []string{"text/plain"}, got: "a", function: "Unhandled", payload: `{"errorType":"E"}`},
		"error without a body": {raw: streamHead + trailers("E", "", ""), begins: []string{"text/plain"}, function: "Unhandled", payload: `{"errorType":"E","errorMessage":""}`},
		"process exits":        {raw: streamHead + "1\r\na\r\n" + trailers("Runtime.ExitError", "{}", "exit"), begins: []string{"text/plain"}, got: "a", function: "Unhandled", payload: "{}"},
		"timeout":              {raw: streamHead + "1\r\na\r\n" + trailers("Sandbox.Timedout", "{}", "timeout"), begins: []string{"text/plain"}, got: "a", function: "Unhandled", payload: "{}", timedOut: true},
		"timeout, not reset":   {raw: streamHead + "1\r\na\r\n" + trailers("Sandbox.Timedout", "{}", "timeout\r\nX-Esb-Sandbox-Spoilt: why"), begins: []string{"text/plain"}, got: "a", function: "Unhandled", payload: "{}", timedOut: true, condemned: true},

		"cut off":                            {raw: streamHead + "2\r\na", close: true, begins: []string{"text/plain"}, got: "a", code: gateway.CodeTransport, condemned: true},
		"cut off between pieces":             {raw: streamHead + "1\r\na\r\n", close: true, begins: []string{"text/plain"}, got: "a", code: gateway.CodeTransport, condemned: true},
		"cut off in the trailers":            {raw: streamHead + "1\r\na\r\n0\r\nX-A", close: true, begins: []string{"text/plain"}, got: "a", code: gateway.CodeTransport, condemned: true},
		"cut off after the timeout":          {raw: streamHead + "1\r\na\r\n", close: true, pause: 3 * time.Second, begins: []string{"text/plain"}, got: "a", function: "Unhandled", payload: `{"errorType":"Sandbox.Timedout","errorMessage":"RequestId: req-1 Error: Task timed out after 3.00 seconds"}`, timedOut: true, condemned: true},
		"not a chunk":                        {raw: streamHead + "zz\r\n", begins: []string{"text/plain"}, code: gateway.CodeTransport, condemned: true},
		"the caller refuses the start, ends": {tied: true, raw: streamHead + "1\r\na\r\n" + streamEnd, to: caller{beginErr: known}, begins: []string{"text/plain"}, code: gateway.CodeFunction, condemned: true},
		"the caller refuses the start":       {raw: streamHead + "1\r\na\r\n" + streamEnd, to: caller{beginErr: known}, begins: []string{"text/plain"}, code: gateway.CodeFunction},
		"the caller refuses a piece, ends":   {tied: true, raw: streamHead + "1\r\na\r\n" + streamEnd, to: caller{writeErr: errors.New("broken pipe")}, begins: []string{"text/plain"}, code: gateway.CodeCanceled, condemned: true},
		"the caller refuses a piece":         {raw: streamHead + "1\r\na\r\n" + streamEnd, to: caller{writeErr: errors.New("broken pipe")}, begins: []string{"text/plain"}, code: gateway.CodeCanceled},

		"whole answer":                       {raw: "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}", begins: []string{"application/json"}, got: "{}"},
		"whole answer that nobody takes":     {raw: "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}", to: caller{writeErr: errors.New("broken pipe")}, begins: []string{""}, code: gateway.CodeCanceled},
		"function error":                     {raw: "HTTP/1.1 200 OK\r\nX-Amz-Function-Error: Unhandled\r\nContent-Length: 2\r\n\r\n{}", function: "Unhandled", payload: "{}"},
		"whole answer of rie, with a marker": {kind: gateway.RIE, raw: "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}", begins: []string{""}, got: "{}"},
		"refused":                            {raw: "HTTP/1.1 413 No\r\nContent-Length: 0\r\n\r\n", code: gateway.CodeTooLarge},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b, fn := &box{kind: tc.kind}, function()
				i := mustNew(t, b, fn)
				i.opts.EndWithCaller = tc.tied
				if tc.limit > 0 {
					i.opts.StreamLimit = tc.limit
				}
				w := says(tc.raw, !tc.close)
				if tc.pause > 0 {
					w.handle = func(c net.Conn, _ int, _ *http.Request, _ []byte) bool {
						_, _ = io.WriteString(c, tc.raw)
						time.Sleep(tc.pause)
						return false
					}
				}
				w.pipe(i)
				to := tc.to
				res, err := i.InvokeStream(t.Context(), fn, event, &to)
				assert.Equal(t, tc.code, gateway.ErrorCode(err), "%v", err)
				assert.Equal(t, tc.begins, to.begins)
				assert.Equal(t, tc.got, to.got.String())
				assert.Equal(t, tc.payload, string(res.Payload))
				assert.Equal(t, tc.function, res.FunctionError)
				assert.Equal(t, tc.timedOut, res.TimedOut)
				synctest.Wait()
				_, stopped := b.seen()
				require.Equal(t, tc.condemned, len(stopped) > 0, stopped)
				if !tc.condemned {
					_, err := i.Invoke(t.Context(), fn, event)
					assert.Equal(t, tc.code == gateway.CodeTooLarge, err != nil)
					dials, _ := w.seen()
					assert.Equal(t, 1, dials, "the connection is used again")
				}
			})
		})
	}
}

// TestInvokeStream_Pieces_ArriveWhileTheFunctionRuns: the worker goes on only when its first piece has arrived.
func TestInvokeStream_Pieces_ArriveWhileTheFunctionRuns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		arrived := make(chan struct{})
		modes := make(chan string, 2)
		w := &worker{handle: func(c net.Conn, _ int, r *http.Request, _ []byte) bool {
			modes <- r.Header.Get("X-Esb-Invoke-Mode")
			_, _ = io.WriteString(c, streamHead+"6\r\nfirst;\r\n")
			<-arrived
			_, err := io.WriteString(c, "7\r\nsecond;\r\n0\r\nX-Amz-Log-Result: bG9n\r\n\r\n")
			return err == nil
		}}
		b, fn := &box{}, function()
		i := mustNew(t, b, fn)
		w.pipe(i)
		to := &caller{}
		to.afterAPiece = func(all string) {
			if all == "first;" {
				close(arrived)
			}
		}
		res, err := i.InvokeStream(t.Context(), fn, event, to)
		require.NoError(t, err)
		assert.Equal(t, "first;second;", to.got.String())
		assert.Equal(t, 2, to.pieces)
		assert.Equal(t, "bG9n", res.LogTail)
		assert.Equal(t, "stream", <-modes)

		res, err = i.Invoke(t.Context(), fn, event)
		require.NoError(t, err)
		assert.Equal(t, "first;second;", string(res.Payload), "an invocation that does not take pieces gets the whole")
		assert.Empty(t, <-modes)
	})
}

// TestInvokeStream_SlowCaller_HoldsTheWorkerUp: what the caller has not taken stays in the worker.
func TestInvokeStream_SlowCaller_HoldsTheWorkerUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sent := make(chan int, 1000)
		w := &worker{handle: func(c net.Conn, _ int, _ *http.Request, _ []byte) bool {
			_, _ = io.WriteString(c, streamHead)
			for n := range 100 {
				_, _ = io.WriteString(c, "1000\r\n"+strings.Repeat("x", 0x1000)+"\r\n")
				sent <- n
			}
			_, err := io.WriteString(c, streamEnd)
			return err == nil
		}}
		b, fn := &box{}, function()
		i := mustNew(t, b, fn)
		w.pipe(i)
		to := &caller{}
		held := false
		to.afterAPiece = func(string) {
			if held {
				return
			}
			held = true
			time.Sleep(time.Second) // of the bubble: everybody else waits for this
			assert.Less(t, len(sent), 10, "more than the buffers hold has left the worker")
		}
		_, err := i.InvokeStream(t.Context(), fn, event, to)
		require.NoError(t, err)
		assert.Equal(t, 100*0x1000, to.got.Len())
	})
}

func TestInvokeStream_ContextEndsWithTheInvocation_CondemnsTheWorker(t *testing.T) {
	for name, tc := range map[string]struct {
		timeout time.Duration
		code    gateway.Code
	}{
		"client leaves": {code: gateway.CodeCanceled},
		"route timeout": {timeout: time.Second, code: gateway.CodeIntegrationTimeout},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := &worker{handle: func(c net.Conn, _ int, _ *http.Request, _ []byte) bool {
					_, _ = io.WriteString(c, streamHead+"1\r\na\r\n")
					_, _ = c.Read(make([]byte, 1)) // until the other side closes
					return false
				}}
				b, fn := &box{}, function()
				i := mustNew(t, b, fn)
				i.opts.EndWithCaller = true
				w.pipe(i)
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				to := &caller{}
				if tc.timeout > 0 {
					ctx, cancel = context.WithTimeout(ctx, tc.timeout)
					defer cancel()
				} else {
					to.afterAPiece = func(string) { time.AfterFunc(time.Second, cancel) }
				}
				began := time.Now()
				_, err := i.InvokeStream(ctx, fn, event, to)
				assert.Equal(t, tc.code, gateway.ErrorCode(err))
				assert.Equal(t, time.Second, time.Since(began))
				assert.Equal(t, "a", to.got.String())
				synctest.Wait()
				_, stopped := b.seen()
				assert.Len(t, stopped, 1)
			})
		})
	}
}

// panicking is a caller whose code is broken.
type panicking struct{ caller }

func (*panicking) Write([]byte) (int, error) { panic("broken") }

func TestInvokeStream_CallerPanics_TheStreamEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, fn := &box{}, function()
		i := mustNew(t, b, fn)
		w := says(streamHead+"1\r\na\r\n"+streamEnd, true)
		w.pipe(i)
		assert.PanicsWithValue(t, "broken", func() { _, _ = i.InvokeStream(t.Context(), fn, event, &panicking{}) })
		i.Wait()
		synctest.Wait()
		// Given up for the panic, or given back because the stream has come to its end: whichever is first.
		_, busy, _ := states(i)
		assert.Zero(t, busy, "its worker is nobody's any more")
	})
}
