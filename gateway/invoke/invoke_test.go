package invoke

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/edge-serverless-box/esb/gateway"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

var event = gateway.Invocation{RequestID: "req-1", TraceID: "Root=1-2-3;Parent=4;Sampled=1", Payload: []byte(`{"a":1}`)}

// Tests with pipes run in a bubble with a clock of its own; those about the end of a TCP connection use real ones.

// TestInvoke_Answers: what a worker may answer, what comes of it, and whether the worker may serve again.
func TestInvoke_Answers(t *testing.T) {
	const ok = "HTTP/1.1 200 OK\r\n"
	type want struct {
		payload       string
		code          gateway.Code
		functionError bool
		timedOut      bool
		condemned     bool
		dials         int // connections that two invocations need when the worker is kept; 0 when condemned
	}
	for name, tc := range map[string]struct {
		kind  gateway.RuntimeInterface
		raw   string
		close bool
		want  want
	}{
		"content length":         {raw: ok + "Content-Length: 4\r\n\r\ntrue", want: want{payload: "true", dials: 1}},
		"empty":                  {raw: ok + "Content-Length: 0\r\n\r\n", want: want{dials: 1}},
		"bare line feeds":        {raw: "HTTP/1.1 200\nContent-Length: 1\n\n1", want: want{payload: "1", dials: 1}},
		"chunked":                {raw: ok + "Transfer-Encoding: chunked\r\n\r\n2\r\ntr\r\n2\r\nue\r\n0\r\n\r\n", want: want{payload: "true", dials: 1}},
		"chunked with a trailer": {raw: ok + "Transfer-Encoding: chunked\r\n\r\n4\r\ntrue\r\n0\r\nX-T: 1\r\n\r\n", want: want{payload: "true", dials: 1}},
		"until the end":          {raw: ok + "\r\ntrue", close: true, want: want{payload: "true", dials: 2}},
		"connection: close":      {raw: ok + "Connection: close\r\nContent-Length: 4\r\n\r\ntrue", want: want{payload: "true", dials: 2}},
		"HTTP/1.0":               {raw: "HTTP/1.0 200 OK\r\nContent-Length: 4\r\n\r\ntrue", want: want{payload: "true", dials: 2}},
		"interim answers":        {raw: "HTTP/1.1 102 P\r\n\r\nHTTP/1.1 103 H\r\nLink: x\r\n\r\n" + ok + "Content-Length: 4\r\n\r\ntrue", want: want{payload: "true", dials: 1}},
		"bytes after the answer": {raw: ok + "Content-Length: 4\r\n\r\ntrueHTTP/1.1 200 OK\r\n", want: want{payload: "true", dials: 2}},
		"function error":         {raw: ok + "X-Amz-Function-Error: Unhandled\r\nContent-Length: 2\r\n\r\n{}", want: want{payload: "{}", functionError: true, dials: 1}},
		"process exited":         {raw: ok + "X-Amz-Function-Error: Unhandled\r\nX-Esb-Sandbox-Reset: exit\r\nContent-Length: 2\r\n\r\n{}", want: want{payload: "{}", functionError: true, dials: 1}},
		"function timeout":       {raw: ok + "X-Amz-Function-Error: Unhandled\r\nX-Esb-Sandbox-Reset: timeout\r\nContent-Length: 2\r\n\r\n{}", want: want{payload: "{}", functionError: true, timedOut: true, dials: 1}},
		"timeout, not reset":     {raw: ok + "X-Amz-Function-Error: Unhandled\r\nX-Esb-Sandbox-Reset: timeout\r\nX-Esb-Sandbox-Spoilt: why\r\nContent-Length: 2\r\n\r\n{}", want: want{payload: "{}", functionError: true, timedOut: true, condemned: true}},
		"exited, not reset":      {raw: ok + "X-Amz-Function-Error: Unhandled\r\nX-Esb-Sandbox-Reset: exit\r\nX-Esb-Sandbox-Spoilt: why\r\nContent-Length: 2\r\n\r\n{}", want: want{payload: "{}", functionError: true, condemned: true}},

		"busy":                         {raw: "HTTP/1.1 409 Conflict\r\nContent-Length: 0\r\n\r\n", want: want{code: gateway.CodeTransport, condemned: true}},
		"not the contract's":           {raw: "HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n", want: want{code: gateway.CodeTransport, condemned: true}},
		"no answer":                    {raw: "", close: true, want: want{code: gateway.CodeTransport, condemned: true}},
		"half a head":                  {raw: ok + "Content-Le", close: true, want: want{code: gateway.CodeTransport, condemned: true}},
		"half a body":                  {raw: ok + "Content-Length: 4\r\n\r\ntr", close: true, want: want{code: gateway.CodeTransport, condemned: true}},
		"half a chunk":                 {raw: ok + "Transfer-Encoding: chunked\r\n\r\n4\r\ntr", close: true, want: want{code: gateway.CodeTransport, condemned: true}},
		"no last chunk":                {raw: ok + "Transfer-Encoding: chunked\r\n\r\n4\r\ntrue\r\n", close: true, want: want{code: gateway.CodeTransport, condemned: true}},
		"bad chunk":                    {raw: ok + "Transfer-Encoding: chunked\r\n\r\nxyz\r\ntrue\r\n0\r\n\r\n", want: want{code: gateway.CodeTransport, condemned: true}},
		"not HTTP":                     {raw: "SSH-2.0-OpenSSH\r\n\r\n", want: want{code: gateway.CodeTransport, condemned: true}},
		"another HTTP":                 {raw: "HTTP/2.0 200 OK\r\n\r\n", want: want{code: gateway.CodeTransport, condemned: true}},
		"no status":                    {raw: "HTTP/1.1 2x0 OK\r\n\r\n", want: want{code: gateway.CodeTransport, condemned: true}},
		"long status":                  {raw: "HTTP/1.1 2000 OK\r\n\r\n", want: want{code: gateway.CodeTransport, condemned: true}},
		"upgrade":                      {raw: "HTTP/1.1 101 Switching Protocols\r\n\r\n", want: want{code: gateway.CodeTransport, condemned: true}},
		"interim answers without end":  {raw: strings.Repeat("HTTP/1.1 102 P\r\n\r\n", 20), want: want{code: gateway.CodeTransport, condemned: true}},
		"two lengths":                  {raw: ok + "Content-Length: 4\r\nContent-Length: 5\r\n\r\ntrue", want: want{code: gateway.CodeTransport, condemned: true}},
		"length below zero":            {raw: ok + "Content-Length: -1\r\n\r\n", want: want{code: gateway.CodeTransport, condemned: true}},
		"length and chunked":           {raw: ok + "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", want: want{code: gateway.CodeTransport, condemned: true}},
		"unknown coding":               {raw: ok + "Transfer-Encoding: gzip\r\n\r\n", want: want{code: gateway.CodeTransport, condemned: true}},
		"header without name":          {raw: ok + ": x\r\n\r\n", want: want{code: gateway.CodeTransport, condemned: true}},
		"folded header":                {raw: ok + "X-A: b\r\n c: d\r\n\r\n", want: want{code: gateway.CodeTransport, condemned: true}},
		"header with a control":        {raw: ok + "X-A: b\x00\r\n\r\n", want: want{code: gateway.CodeTransport, condemned: true}},
		"header line over the limit":   {raw: ok + "X-A: " + strings.Repeat("a", 20<<10) + "\r\n\r\n", want: want{code: gateway.CodeTransport, condemned: true}},
		"header over the limit":        {raw: ok + strings.Repeat("X-A: "+strings.Repeat("a", 8<<10)+"\r\n", 10) + "\r\n", want: want{code: gateway.CodeTransport, condemned: true}},
		"result at the limit":          {raw: ok + "Content-Length: " + strconv.Itoa(MaxResult) + "\r\n\r\n" + strings.Repeat("x", MaxResult), want: want{payload: strings.Repeat("x", MaxResult), dials: 1}},
		"result over the limit":        {raw: ok + "Content-Length: " + strconv.Itoa(MaxResult+1) + "\r\n\r\n", want: want{functionError: true, condemned: true}},
		"chunked result over it":       {raw: ok + "Transfer-Encoding: chunked\r\n\r\n" + fmt.Sprintf("%x\r\n", MaxResult+1) + strings.Repeat("x", MaxResult+1) + "\r\n0\r\n\r\n", want: want{functionError: true, condemned: true}},
		"result over it until the end": {raw: ok + "\r\n" + strings.Repeat("x", MaxResult+1), close: true, want: want{functionError: true, condemned: true}},

		"rie: result":                          {kind: gateway.RIE, raw: ok + "Content-Length: 4\r\n\r\ntrue", want: want{payload: "true", dials: 1}},
		"rie: handler error":                   {kind: gateway.RIE, raw: ok + "Content-Length: 40\r\n\r\n" + `{"errorMessage":"no","errorType":"Oops"}`, want: want{payload: `{"errorMessage":"no","errorType":"Oops"}`, functionError: true, dials: 1}},
		"rie: answer that only looks like one": {kind: gateway.RIE, raw: ok + "Content-Length: 57\r\n\r\n" + `{"statusCode":200,"errorMessage":"no","errorType":"Oops"}`, want: want{payload: `{"statusCode":200,"errorMessage":"no","errorType":"Oops"}`, dials: 1}},
		"rie: error header":                    {kind: gateway.RIE, raw: ok + "Error-Type: Oops\r\nContent-Length: 2\r\n\r\n{}", want: want{payload: "{}", functionError: true, dials: 1}},
		"rie: text of a timeout, too early":    {kind: gateway.RIE, raw: ok + "Content-Length: 33\r\n\r\nTask timed out after 3.00 seconds", want: want{payload: "Task timed out after 3.00 seconds", dials: 1}},
		"rie: exit":                            {kind: gateway.RIE, raw: "HTTP/1.1 502 Bad Gateway\r\nContent-Length: 33\r\n\r\n{\"errorType\":\"Runtime.ExitError\"}", want: want{payload: `{"errorType":"Runtime.ExitError"}`, functionError: true, condemned: true}},
		"rie: exit during init":                {kind: gateway.RIE, raw: "HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n", want: want{payload: `{"errorType":"Runtime.ExitError","errorMessage":"RequestId: req-1 Error: Runtime exited without providing a reason"}`, functionError: true, condemned: true}},
		"rie: other status":                    {kind: gateway.RIE, raw: "HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n", want: want{code: gateway.CodeTransport, condemned: true}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b, fn, w := &box{kind: tc.kind}, function(), says(tc.raw, !tc.close)
				i := mustNew(t, b, fn)
				w.pipe(i)
				res, err := i.Invoke(t.Context(), fn, event)
				assert.Equal(t, tc.want.code, gateway.ErrorCode(err), "%v", err)
				if tc.want.payload != "" {
					assert.Equal(t, tc.want.payload, string(res.Payload))
				}
				assert.Equal(t, tc.want.functionError, res.FunctionError != "")
				assert.Equal(t, tc.want.timedOut, res.TimedOut)
				synctest.Wait()
				_, stopped := b.seen()
				require.Equal(t, tc.want.condemned, len(stopped) > 0, stopped)
				_, requests := w.seen()
				assert.Equal(t, 1, requests, "an invocation is sent once")
				if !tc.want.condemned {
					_, err := i.Invoke(t.Context(), fn, event)
					require.NoError(t, err)
					starts, _ := b.seen()
					dials, _ := w.seen()
					assert.Equal(t, []int{1, tc.want.dials}, []int{starts, dials})
				}
			})
		})
	}
}

func TestInvoke_SendsTheContract(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var header http.Header
		var body []byte
		w := &worker{handle: func(c net.Conn, _ int, r *http.Request, b []byte) bool {
			header, body = r.Header.Clone(), b
			header.Set("Path", r.Method+" "+r.URL.Path)
			_, err := io.WriteString(c, "HTTP/1.1 200 OK\r\nX-Esb-Init-Duration-Ms: 12.5\r\nX-Amz-Log-Result: bG9n\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}")
			return err == nil
		}}
		b, fn := &box{}, function()
		i := mustNew(t, b, fn)
		w.pipe(i)
		inv := event
		inv.LogTail, inv.ClientContext, inv.Qualifier = true, "e30=", "$LATEST"
		deadline := time.Now().Add(fn.Timeout).UnixMilli()
		res, err := i.Invoke(t.Context(), fn, inv)
		require.NoError(t, err)
		assert.Equal(t, http.Header{
			"Path":                       {"POST /2015-03-31/functions/function/invocations"},
			"Content-Type":               {"application/json"},
			"Content-Length":             {"7"},
			"Lambda-Runtime-Deadline-Ms": {strconv.FormatInt(deadline, 10)},
			"X-Esb-Container-Id":         {"w1"},
			"X-Amzn-Requestid":           {"req-1"},
			"X-Amzn-Trace-Id":            {"Root=1-2-3;Parent=4;Sampled=1"},
			"X-Amz-Client-Context":       {"e30="},
			"X-Amz-Log-Type":             {"Tail"},
			"X-Esb-Qualifier":            {"$LATEST"},
		}, header)
		assert.Equal(t, event.Payload, body)
		assert.Equal(t, "bG9n", res.LogTail)
		assert.Equal(t, 12500*time.Microsecond, res.InitDuration)
		assert.Equal(t, "application/json", res.ContentType)
	})
}

func TestInvoke_LargePayload_ArrivesWhole(t *testing.T) {
	w := &worker{handle: func(c net.Conn, _ int, _ *http.Request, body []byte) bool {
		_, err := fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
		return err == nil
	}}
	b, fn := &box{addr: w.mustListen(t)}, function()
	fn.Timeout = time.Minute
	i := mustNew(t, b, fn)
	inv := event
	for _, size := range []int{gateway.MaxEvent, smallRequest, 1} {
		inv.Payload = bytes.Repeat([]byte("0123456789abcdef"), size/16+1)[:size]
		res, err := i.Invoke(t.Context(), fn, inv)
		require.NoError(t, err)
		assert.True(t, bytes.Equal(inv.Payload, res.Payload))
	}
	dials, _ := w.seen()
	assert.Equal(t, 1, dials)
}

func TestInvoke_RefusesWithoutAWorker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, fn := &box{}, function()
		i := mustNew(t, b, fn)
		_, err := i.Invoke(t.Context(), fn, gateway.Invocation{Payload: make([]byte, gateway.MaxEvent+1)})
		assert.Equal(t, gateway.CodeTooLarge, gateway.ErrorCode(err))
		for _, inv := range []gateway.Invocation{{RequestID: "a\r\nX: y"}, {TraceID: "a\n"}, {ClientContext: "\x00"}} {
			_, err = i.Invoke(t.Context(), fn, inv)
			assert.Equal(t, gateway.CodeInvalid, gateway.ErrorCode(err))
		}
		starts, _ := b.seen()
		assert.Zero(t, starts)
	})
}

// hangs reads the request and never answers.
func hangs() *worker {
	return &worker{handle: func(c net.Conn, _ int, _ *http.Request, _ []byte) bool {
		_, _ = c.Read(make([]byte, 1)) // until the other side closes
		return false
	}}
}

func TestInvoke_NoAnswer_EndsInTimeAndCondemnsTheWorker(t *testing.T) {
	for name, tc := range map[string]struct {
		kind  gateway.RuntimeInterface
		route time.Duration
		leave time.Duration
		after time.Duration
		code  gateway.Code
		tied  bool
	}{
		"guard":               {after: 20 * time.Second}, // 3 s timeout, 10 s init, 7 s margin
		"guard of a cold rie": {kind: gateway.RIE, after: 13 * time.Second},
		"route timeout":       {route: time.Second, after: time.Second, code: gateway.CodeIntegrationTimeout, tied: true},
		"client leaves":       {leave: time.Second, after: time.Second, code: gateway.CodeCanceled, tied: true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b, fn := &box{kind: tc.kind}, function()
				i := mustNew(t, b, fn)
				i.opts.EndWithCaller = tc.tied
				hangs().pipe(i)
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				if tc.route > 0 {
					ctx, cancel = context.WithTimeout(ctx, tc.route)
					defer cancel()
				}
				if tc.leave > 0 {
					time.AfterFunc(tc.leave, cancel)
				}
				began := time.Now()
				res, err := i.Invoke(ctx, fn, event)
				assert.Equal(t, tc.after, time.Since(began))
				assert.Equal(t, tc.code, gateway.ErrorCode(err))
				if tc.code == "" {
					assert.True(t, res.TimedOut)
					assert.Equal(t, "Unhandled", res.FunctionError)
					assert.JSONEq(t, `{"errorType":"Sandbox.Timedout","errorMessage":"RequestId: req-1 Error: Task timed out after 3.00 seconds"}`, string(res.Payload))
				}
				synctest.Wait()
				_, stopped := b.seen()
				assert.Len(t, stopped, 1)
			})
		})
	}
}

func TestInvoke_WarmRIE_HasNoAllowanceForInit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, fn := &box{kind: gateway.RIE}, function()
		i := mustNew(t, b, fn)
		w := &worker{handle: func(c net.Conn, n int, _ *http.Request, _ []byte) bool {
			if n > 0 {
				_, _ = c.Read(make([]byte, 1))
				return false
			}
			_, err := io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
			return err == nil
		}}
		w.pipe(i)
		_, err := i.Invoke(t.Context(), fn, event)
		require.NoError(t, err)
		began := time.Now()
		res, err := i.Invoke(t.Context(), fn, event)
		require.NoError(t, err)
		assert.True(t, res.TimedOut)
		assert.Equal(t, fn.Timeout, time.Since(began))
	})
}

func TestInvoke_RefusedByTheWorker_ReleasesIt(t *testing.T) {
	for status, code := range map[int]gateway.Code{400: gateway.CodeInvalid, 413: gateway.CodeTooLarge} {
		synctest.Test(t, func(t *testing.T) {
			b, fn := &box{}, function()
			i := mustNew(t, b, fn)
			says(fmt.Sprintf("HTTP/1.1 %d No\r\nContent-Length: 0\r\n\r\n", status), true).pipe(i)
			for range 2 * DefaultBreakerFailures {
				_, err := i.Invoke(t.Context(), fn, event)
				require.Equal(t, code, gateway.ErrorCode(err))
			}
			starts, stopped := b.seen()
			assert.Equal(t, 1, starts)
			assert.Empty(t, stopped)
		})
	}
}

func TestInvoke_WorkerShutsDown_AnotherOneServes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, fn := &box{}, function()
		i := mustNew(t, b, fn)
		w := &worker{handle: func(c net.Conn, n int, _ *http.Request, _ []byte) bool {
			raw := "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
			if n == 0 {
				raw = "HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n"
			}
			_, err := io.WriteString(c, raw)
			return err == nil
		}}
		w.pipe(i)
		_, err := i.Invoke(t.Context(), fn, event)
		require.NoError(t, err)
		synctest.Wait()
		starts, stopped := b.seen()
		assert.Equal(t, 2, starts)
		assert.Len(t, stopped, 1)
	})
}

// The address of a container that has gone may be another's by now.
func TestInvoke_AddressIsAnotherContainers_AnotherWorkerServes(t *testing.T) {
	for name, size := range map[string]int{"small event": 7, "event that is not read to its end": gateway.MaxEvent} {
		t.Run(name, func(t *testing.T) {
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.Header.Get("X-Esb-Container-Id") != "w2" {
					w.Header().Set("Connection", "close")
					w.WriteHeader(http.StatusMisdirectedRequest)
					return
				}
				body, err := io.ReadAll(r.Body)
				assert.NoError(t, err)
				_, _ = fmt.Fprintf(w, "%d", len(body))
			}))
			defer server.Close()
			b, fn := &box{addr: server.Listener.Addr().String()}, function()
			i := mustNew(t, b, fn)
			res, err := i.Invoke(t.Context(), fn, gateway.Invocation{RequestID: "r", Payload: bytes.Repeat([]byte(" "), size)})
			require.NoError(t, err)
			assert.Equal(t, strconv.Itoa(size), string(res.Payload))
			require.Eventually(t, func() bool { _, stopped := b.seen(); return len(stopped) == 1 }, time.Minute, time.Millisecond)
			_, stopped := b.seen()
			assert.Contains(t, stopped[0], "w1: ")
			assert.Contains(t, stopped[0], "another container's")
		})
	}
}

func TestInvoke_RIETimeout_IsRecognisedByTheClock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, fn := &box{kind: gateway.RIE}, function()
		i := mustNew(t, b, fn)
		w := &worker{handle: func(c net.Conn, _ int, _ *http.Request, _ []byte) bool {
			time.Sleep(3100 * time.Millisecond)
			_, err := io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 33\r\n\r\nTask timed out after 3.00 seconds")
			return err == nil
		}}
		w.pipe(i)
		res, err := i.Invoke(t.Context(), fn, event)
		require.NoError(t, err)
		assert.True(t, res.TimedOut)
		synctest.Wait()
		_, stopped := b.seen()
		assert.Len(t, stopped, 1)
	})
}

func TestInvoke_WorkerUnreachable_TriesAnother(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, fn, w := &box{}, function(), says("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", true)
		i := mustNew(t, b, fn)
		w.pipe(i)
		dial, refused := i.dial, 2
		i.dial = func(ctx context.Context, network, addr string) (net.Conn, error) {
			if refused--; refused >= 0 {
				return nil, errors.New("connection refused")
			}
			return dial(ctx, network, addr)
		}
		_, err := i.Invoke(t.Context(), fn, event)
		require.NoError(t, err)
		synctest.Wait()
		starts, stopped := b.seen()
		assert.Equal(t, 3, starts)
		assert.Len(t, stopped, 2)

		refused = 100
		_, err = i.Invoke(t.Context(), fn, event)
		assert.NoError(t, err, "a connection that exists is used")
		i2 := *function()
		i2.Name, i2.Generation = "g", "g1"
		i.pool.Apply(map[string]*gateway.Function{"g": &i2})
		_, err = i.Invoke(t.Context(), &i2, event)
		assert.Equal(t, gateway.CodeTransport, gateway.ErrorCode(err), "but not without end")
	})
}

func TestInvoke_ConnectionClosedBetweenRequests_IsRenewed(t *testing.T) {
	closed := make(chan struct{}, 10)
	w := &worker{handle: func(c net.Conn, _ int, _ *http.Request, _ []byte) bool {
		_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
		_ = c.Close()
		closed <- struct{}{}
		return false
	}}
	b, fn := &box{addr: w.mustListen(t)}, function()
	i := mustNew(t, b, fn)
	for range 5 {
		_, err := i.Invoke(t.Context(), fn, event)
		require.NoError(t, err)
		<-closed // on loopback its FIN is here when close returns
	}
	starts, stopped := b.seen()
	assert.Equal(t, 1, starts)
	assert.Empty(t, stopped)
	dials, requests := w.seen()
	assert.Equal(t, []int{5, 5}, []int{dials, requests})
}

func TestInvoke_ConnectionBrokenInsideARequest_IsNotRepeated(t *testing.T) {
	w := &worker{handle: func(c net.Conn, n int, _ *http.Request, _ []byte) bool {
		if n == 1 {
			return false
		}
		_, err := io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
		return err == nil
	}}
	b, fn := &box{addr: w.mustListen(t)}, function()
	i := mustNew(t, b, fn)
	_, err := i.Invoke(t.Context(), fn, event)
	require.NoError(t, err)
	_, err = i.Invoke(t.Context(), fn, event)
	assert.Equal(t, gateway.CodeTransport, gateway.ErrorCode(err))
	_, requests := w.seen()
	assert.Equal(t, 2, requests, "the worker may have run it: it is not sent again")
}

// hookedConn calls hook when the answer has been read.
type hookedConn struct {
	net.Conn
	hook func()
}

func (c *hookedConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.hook()
	return n, err
}

func TestInvoke_ClientLeavesAsTheAnswerComes_TheWorkerServesAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, fn, w := &box{}, function(), says("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", true)
		i := mustNew(t, b, fn)
		w.pipe(i)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		dial := i.dial
		i.dial = func(ctx context.Context, network, addr string) (net.Conn, error) {
			c, err := dial(ctx, network, addr)
			return &hookedConn{c, cancel}, err
		}
		// Which of the two is seen first is left to chance.
		if _, err := i.Invoke(ctx, fn, event); err != nil {
			assert.Equal(t, gateway.CodeCanceled, gateway.ErrorCode(err))
		}
		synctest.Wait()
		_, err := i.Invoke(t.Context(), fn, event)
		require.NoError(t, err)
		dials, _ := w.seen()
		assert.Equal(t, 1, dials)
		_, stopped := b.seen()
		assert.Empty(t, stopped)
	})
}

func TestInvoke_CancelledOverTCP_EndsAtOnceForItsCaller(t *testing.T) {
	for _, tied := range []bool{false, true} {
		t.Run(fmt.Sprintf("ends with its caller: %t", tied), func(t *testing.T) { cancelOverTCP(t, tied) })
	}
}

func cancelOverTCP(t *testing.T, tied bool) {
	arrived := make(chan struct{})
	w := &worker{handle: func(c net.Conn, _ int, _ *http.Request, _ []byte) bool {
		close(arrived)
		_, _ = c.Read(make([]byte, 1))
		return false
	}}
	b, fn := &box{addr: w.mustListen(t)}, function()
	fn.Timeout = 10 * time.Minute
	i := mustNew(t, b, fn)
	i.opts.EndWithCaller = tied
	t.Cleanup(func() { // before the pool's: it need not wait for the function
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		_ = i.pool.Close(ctx)
	})
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		<-arrived
		cancel()
	}()
	_, err := i.Invoke(ctx, fn, event)
	assert.Equal(t, gateway.CodeCanceled, gateway.ErrorCode(err))
	_, busy, _ := states(i)
	assert.Equal(t, !tied, busy == 1)
}
