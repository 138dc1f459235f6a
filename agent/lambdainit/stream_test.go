package lambdainit_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// openStream invokes as a gateway that takes the answer piece by piece.
func (b *box) openStream(ctx context.Context, id string, o order, headers ...string) *http.Response {
	b.t.Helper()
	payload, err := json.Marshal(o)
	require.NoError(b.t, err)
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, b.url+invocations, bytes.NewReader(payload))
	req.Header.Set("X-Esb-Container-Id", "lambda-test-1")
	require.NoError(b.t, err)
	req.Header.Set("X-Amzn-RequestId", id)
	req.Header.Set("X-Esb-Invoke-Mode", "stream")
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		req.Header.Set(name, value)
	}
	resp, err := b.client.Do(req)
	require.NoError(b.t, err)
	b.t.Cleanup(func() { _ = resp.Body.Close() })
	return resp
}

// mustRead reads the next n bytes, of whatever pieces.
func mustRead(t testing.TB, r io.Reader, n int) string {
	t.Helper()
	piece := make([]byte, n)
	_, err := io.ReadFull(r, piece)
	require.NoError(t, err)
	return string(piece)
}

func mustCreate(t testing.TB, file string) {
	t.Helper()
	require.NoError(t, os.WriteFile(file, nil, 0o600))
}

func trailerError(t testing.TB, resp *http.Response) (errorType, body string) {
	t.Helper()
	text, err := base64.StdEncoding.DecodeString(resp.Trailer.Get("Lambda-Runtime-Function-Error-Body"))
	require.NoError(t, err)
	return resp.Trailer.Get("Lambda-Runtime-Function-Error-Type"), string(text)
}

func TestStream_Pieces_ArriveBeforeTheFunctionEnds(t *testing.T) {
	for _, mode := range []string{"", "no-mode"} {
		t.Run("then "+mode, func(t *testing.T) {
			b := mustOpenBox(t)
			file := filepath.Join(t.TempDir(), "go")
			resp := b.openStream(t.Context(), "req-1", order{Do: "pieces", Text: file, Then: mode}, "X-Amz-Log-Type: Tail")
			assert.Equal(t, "streaming", resp.Header.Get("Lambda-Runtime-Function-Response-Mode"))
			assert.Equal(t, "text/event-stream", resp.Header.Get("Content-Type"))
			assert.NotEmpty(t, resp.Header.Get("X-Esb-Init-Duration-Ms"))
			assert.Equal(t, "first;", mustRead(t, resp.Body, 6), "the function waits for the file")
			assert.Equal(t, `{"state":"busy"}`, b.health())
			mustCreate(t, file)
			rest, err := io.ReadAll(resp.Body)
			require.NoError(t, err)
			assert.Equal(t, "second;", string(rest))
			assert.Empty(t, resp.Trailer.Get("Lambda-Runtime-Function-Error-Type"))
			assert.Empty(t, resp.Trailer.Get("X-Esb-Sandbox-Reset"))
			tail, err := base64.StdEncoding.DecodeString(resp.Trailer.Get("X-Amz-Log-Result"))
			require.NoError(t, err)
			assert.Contains(t, string(tail), "REPORT RequestId: req-1\t", "the report comes after the stream")
			assert.Contains(t, b.waitLine("function", "streamed:").Message, "202")
			assert.Equal(t, 2, b.invoke("req-2", order{Do: "echo"}).reply(t).Count, "the process lives on")
		})
	}
}

func TestStream_BufferedAnswer_IsNoStream(t *testing.T) {
	b := mustOpenBox(t)
	resp := b.openStream(t.Context(), "req-1", order{Do: "echo"})
	assert.Empty(t, resp.Header.Get("Lambda-Runtime-Function-Response-Mode"))
	assert.Positive(t, resp.ContentLength)
	resp = b.openStream(t.Context(), "req-2", order{Do: "error"})
	assert.Equal(t, "Unhandled", resp.Header.Get("X-Amz-Function-Error"))
}

func TestStream_Failures_StandInTheTrailers(t *testing.T) {
	for name, c := range map[string]struct {
		then      string
		n         int
		deadline  time.Duration
		errorType string
		body      string
		reset     string
		count     int // of the next invocation: 1 in a fresh process
	}{
		"trailers of the runtime": {then: "fail", n: 3, errorType: "Stream.Broken", body: `"errorMessage":"mmm"`, count: 2},
		"trailers over the limit": {then: "fail", n: 6000, errorType: "Runtime.TruncatedResponse", body: "longer than 4096 bytes", count: 2},
		"process exits":           {then: "exit", errorType: "Runtime.ExitError", body: "exit status 7", reset: "exit", count: 1},
		"process exits slowly":    {then: "break and exit", errorType: "Runtime.ExitError", body: "exit status 7", reset: "exit", count: 1},
		"runtime breaks off":      {then: "break", errorType: "Runtime.TruncatedResponse", body: "broke off", count: 2},
		"timeout":                 {then: "never", deadline: soon, errorType: "Sandbox.Timedout", body: "Task timed out", reset: "timeout", count: 1},
	} {
		t.Run(name, func(t *testing.T) {
			b := mustOpenBox(t)
			file := filepath.Join(t.TempDir(), "go")
			var headers []string
			if c.deadline > 0 {
				headers = append(headers, deadlineIn(c.deadline))
			}
			resp := b.openStream(t.Context(), "req-1", order{Do: "pieces", Text: file, Then: c.then, N: c.n}, headers...)
			assert.Equal(t, "first;", mustRead(t, resp.Body, 6))
			if c.then != "never" {
				mustCreate(t, file)
			}
			rest, err := io.ReadAll(resp.Body)
			require.NoError(t, err, "the trailers say what happened")
			assert.Empty(t, rest)
			errorType, body := trailerError(t, resp)
			assert.Equal(t, c.errorType, errorType)
			assert.Contains(t, body, c.body)
			assert.Equal(t, c.reset, resp.Trailer.Get("X-Esb-Sandbox-Reset"))
			lines := b.waitReport("req-1")
			assert.Contains(t, lines[len(lines)-1].Message, "Status: ")
			assert.Equal(t, c.count, b.invoke("req-2", order{Do: "echo"}).reply(t).Count)
		})
	}
}

func TestStream_CallerLeaves_EndsTheProcess(t *testing.T) {
	b := mustOpenBox(t)
	pid := b.invoke("req-0", order{Do: "echo"}).reply(t).PID
	for n, c := range []order{
		{Do: "pieces", Text: filepath.Join(t.TempDir(), "never")}, // between two pieces
		{Do: "pieces", Then: "bytes", N: 1 << 30},                 // while it writes
	} {
		ctx, cancel := context.WithCancel(t.Context())
		id := "stream-" + strconv.Itoa(n)
		resp := b.openStream(ctx, id, c)
		mustRead(t, resp.Body, 6)
		cancel()
		waitGone(t, pid)
		b.waitLine("platform.fault", "The caller left in the middle of the response stream")
		b.waitReport(id)
		// The REPORT comes a moment before the worker is free.
		require.Eventually(t, func() bool { return b.health() != `{"state":"busy"}` }, patience, time.Millisecond)
		pid = b.invoke("req-2", order{Do: "echo"}).reply(t).PID
	}
}

func TestStream_CallerTakesNothing_TimeoutStillEndsIt(t *testing.T) {
	b := mustOpenBox(t)
	pid := b.invoke("req-0", order{Do: "echo"}).reply(t).PID
	resp := b.openStream(t.Context(), "req-1", order{Do: "pieces", Then: "bytes", N: 1 << 30}, deadlineIn(soon))
	waitGone(t, pid)
	b.waitLine("platform.fault", "Task timed out")
	n, err := io.Copy(io.Discard, resp.Body)
	assert.Error(t, err, "no clean end of a stream that is not whole")
	assert.Less(t, n, int64(64<<20), "what the connection holds, and no more")
	assert.Equal(t, 1, b.invoke("req-2", order{Do: "echo"}).reply(t).Count)
}

func TestStream_LongStream_NeedsNoMemory(t *testing.T) {
	const size = 256 << 20
	b := mustOpenBox(t)
	b.invoke("req-0", order{Do: "echo"}).reply(t)
	before := peakMemory(t, b.cmd.Process.Pid)
	resp := b.openStream(t.Context(), "req-1", order{Do: "pieces", Then: "bytes", N: size})
	n, err := io.Copy(io.Discard, resp.Body)
	require.NoError(t, err)
	assert.EqualValues(t, size+len("first;"), n)
	assert.Less(t, peakMemory(t, b.cmd.Process.Pid)-before, 16<<20)
}

// peakMemory is VmHWM of a process, in bytes.
func peakMemory(t testing.TB, pid int) int {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	require.NoError(t, err)
	_, rest, ok := strings.Cut(string(status), "VmHWM:")
	require.True(t, ok)
	kb, err := strconv.Atoi(strings.Fields(rest)[0])
	require.NoError(t, err)
	return kb << 10
}
