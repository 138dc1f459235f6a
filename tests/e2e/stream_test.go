package e2e

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/edge-serverless-box/esb/tests/stack"
)

// openStream asks for a stream and returns its head; the body is the caller's to read.
func openStream(ctx context.Context, t *testing.T, base, path string) *http.Response {
	t.Helper()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, base+path, nil)
	require.NoError(t, err)
	req.Header.Set("Authorization", "Bearer "+token)
	client := http.Client{Transport: box.HTTP.Transport} // without a limit of time
	res, err := client.Do(req)
	require.NoError(t, err)
	t.Cleanup(func() { _ = res.Body.Close() })
	return res
}

// letGoOn puts the object that a function which was told wait=esb-files/key looks for before its line i+1.
func letGoOn(t *testing.T, key string, i int) {
	t.Helper()
	put := box.Post(t, "/api/s3", token, fmt.Sprintf(`{"action":"put","bucket":"esb-files","key":"%s-%d","body":"go"}`, key, i))
	require.Equal(t, http.StatusOK, put.Status, "%s", put.Body)
}

// TestStream_ChunksArriveWhileTheFunctionRuns: the function writes its next line only when this test, which has read the
// one before, has put an object into S3 for it.
func TestStream_ChunksArriveWhileTheFunctionRuns(t *testing.T) {
	for name, base := range map[string]string{"http": box.HTTPURL, "https": box.HTTPSURL} {
		t.Run(name, func(t *testing.T) {
			res := openStream(t.Context(), t, base, "/api/stream?chunks=3&wait=esb-files%2Fstream-"+name)
			require.Equal(t, http.StatusOK, res.StatusCode)
			assert.Equal(t, "text/plain; charset=utf-8", res.Header.Get("Content-Type"))
			assert.Equal(t, "yes", res.Header.Get("X-Stream"))
			assert.Equal(t, "stream=1", res.Header.Get("Set-Cookie"))
			assert.NotEmpty(t, res.Header.Get("x-amzn-RequestId"))
			lines := bufio.NewReader(res.Body)
			for i := 1; i <= 3; i++ {
				line, err := lines.ReadString('\n')
				require.NoError(t, err)
				assert.Equal(t, fmt.Sprintf("chunk %d of 3\n", i), line)
				if i < 3 {
					letGoOn(t, "stream-"+name, i)
				}
			}
			_, err := lines.ReadByte()
			assert.ErrorIs(t, err, io.EOF)
		})
	}
}

func TestStream_Node_StreamifyResponse(t *testing.T) {
	res := openStream(t.Context(), t, box.HTTPURL, "/api/stream-node?chunks=3&pause_ms=1")
	assert.Equal(t, http.StatusOK, res.StatusCode)
	body, err := io.ReadAll(res.Body)
	require.NoError(t, err)
	assert.Equal(t, "chunk 1 of 3\nchunk 2 of 3\nchunk 3 of 3\n", string(body))
}

func TestStream_WithoutPrelude_IsTheBodyOfA200(t *testing.T) {
	res := openStream(t.Context(), t, box.HTTPURL, "/api/stream?chunks=1&prelude=no")
	assert.Equal(t, http.StatusOK, res.StatusCode)
	assert.Equal(t, "text/plain; charset=utf-8", res.Header.Get("Content-Type"))
	body, err := io.ReadAll(res.Body)
	require.NoError(t, err)
	assert.Equal(t, "chunk 1 of 1\n", string(body))
}

// TestStream_RouteThatDoesNotStream: prelude and body together are no result of a proxy integration.
func TestStream_RouteThatDoesNotStream(t *testing.T) {
	res := openStream(t.Context(), t, box.HTTPURL, "/api/stream-whole?chunks=1")
	assert.Equal(t, http.StatusBadGateway, res.StatusCode)
}

func TestStream_FailureInTheMiddle_BreaksTheAnswer(t *testing.T) {
	for _, fail := range []string{"error", "exit", "panic"} {
		t.Run(fail, func(t *testing.T) {
			res := openStream(t.Context(), t, box.HTTPURL, "/api/stream?chunks=2&wait=esb-files%2Ffail-"+fail+"&fail="+fail)
			assert.Equal(t, http.StatusOK, res.StatusCode, "the failure came later")
			first := make([]byte, len("chunk 1 of 2\n"))
			_, err := io.ReadFull(res.Body, first)
			require.NoError(t, err)
			assert.Equal(t, "chunk 1 of 2\n", string(first))
			letGoOn(t, "fail-"+fail, 1)
			rest, err := io.ReadAll(res.Body)
			assert.Error(t, err, "an answer that is not whole must not look so")
			// A process that ends may take with it what its runtime has not sent yet.
			assert.Contains(t, []string{"", "chunk 2 of 2\n"}, string(rest))
		})
	}
	t.Run("timeout", func(t *testing.T) {
		res := openStream(t.Context(), t, box.HTTPURL, "/api/stream-short?chunks=1&fail=hang")
		body, err := io.ReadAll(res.Body)
		assert.Error(t, err)
		assert.Equal(t, "chunk 1 of 1\n", string(body))
		box.RequireLogged(t, "stream-short", "Task timed out after 2.00 seconds")
		before := box.Containers(t, "stream-short")
		require.Len(t, before, 1)
		again := openStream(t.Context(), t, box.HTTPURL, "/api/stream-short?chunks=1")
		body, err = io.ReadAll(again.Body)
		require.NoError(t, err)
		assert.Equal(t, "chunk 1 of 1\n", string(body))
		after := box.Containers(t, "stream-short")
		require.Len(t, after, 1)
		assert.Equal(t, before[0].GetContainerId(), after[0].GetContainerId(), "the one that timed out")
	})
	res := openStream(t.Context(), t, box.HTTPURL, "/api/stream?chunks=1")
	_, err := io.Copy(io.Discard, res.Body)
	assert.NoError(t, err, "the function lives on, in whatever process")
}

// TestStream_ClientLeaves_TheFunctionRunsToItsEnd: AWS does not stop a stream whose client has gone. The function writes its last
// lines for nobody, and its one worker serves the next.
func TestStream_ClientLeaves_TheFunctionRunsToItsEnd(t *testing.T) {
	ctx, leave := context.WithCancel(t.Context())
	res := openStream(ctx, t, box.HTTPURL, "/api/stream-single?chunks=2&wait=esb-files%2Fleaves")
	_, err := io.ReadFull(res.Body, make([]byte, len("chunk 1 of 2\n")))
	require.NoError(t, err)
	before := box.Containers(t, "stream-single")
	require.Len(t, before, 1)
	leave()
	letGoOn(t, "leaves", 1)
	again := openStream(t.Context(), t, box.HTTPURL, "/api/stream-single?chunks=1")
	body, err := io.ReadAll(again.Body)
	require.NoError(t, err)
	assert.Equal(t, "chunk 1 of 1\n", string(body))
	after := box.Containers(t, "stream-single")
	require.Len(t, after, 1)
	assert.Equal(t, before[0].GetContainerId(), after[0].GetContainerId())
}

// TestStream_OneGigabyte_NeedsNoMemory counts and hashes a stream of 1 GB, and looks at the most memory that gateway and
// lambda-init ever had.
func TestStream_OneGigabyte_NeedsNoMemory(t *testing.T) {
	if box.Way != stack.Native {
		t.Skip("the processes of a box in Docker are not this machine's to look at")
	}
	const size, room = 1 << 30, 32 << 20
	expected := make(chan []byte, 1)
	go func() {
		sum, piece := sha256.New(), bytes.Repeat([]byte("0123456789abcdef"), 1<<16)
		for range size / len(piece) {
			_, _ = sum.Write(piece)
		}
		expected <- sum.Sum(nil)
	}()
	warm := openStream(t.Context(), t, box.HTTPURL, "/api/stream-big?bytes=1000000")
	_, err := io.Copy(io.Discard, warm.Body)
	require.NoError(t, err)
	pids := map[string]int{
		"gateway":     findProcess(t, filepath.Join(box.BinDir, "gateway"), "ESB_HOME="+box.Home),
		"lambda-init": findLambdaInit(t, "stream-big"),
	}
	before := make(map[string]int)
	for name, pid := range pids {
		before[name] = peakMemory(t, pid)
	}
	sum := sha256.New()
	res := openStream(t.Context(), t, box.HTTPURL, "/api/stream-big?bytes="+strconv.Itoa(size))
	n, err := io.Copy(sum, res.Body)
	require.NoError(t, err)
	assert.EqualValues(t, size, n)
	assert.Equal(t, <-expected, sum.Sum(nil))
	for name, pid := range pids {
		peak := peakMemory(t, pid)
		t.Logf("%s: at most %d MiB before the stream, %d MiB after it", name, before[name]>>20, peak>>20)
		assert.Less(t, peak-before[name], room, name)
	}
}

// findProcess returns the one process that runs program with variable in its environment.
func findProcess(t *testing.T, program, variable string) int {
	t.Helper()
	found := processesWith(t, func(first string) bool { return first == program }, variable)
	require.Len(t, found, 1, "%s with %s", program, variable)
	return found[0]
}

// findLambdaInit returns the pid of process 1 of a function's only container: the parent of the function's own, because one that
// was parked has the environment that it was parked with.
func findLambdaInit(t *testing.T, function string) int {
	t.Helper()
	var found []int
	for _, pid := range processesWith(t, func(first string) bool { return first != "/run/esb/lambda-init" }, "AWS_LAMBDA_FUNCTION_NAME="+function) {
		status, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
		var parent int
		if _, rest, ok := strings.Cut(string(status), "PPid:"); ok {
			_, err := fmt.Sscan(rest, &parent)
			require.NoError(t, err)
		}
		command, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", parent))
		if strings.HasPrefix(string(command), "/run/esb/lambda-init\x00") && !slices.Contains(found, parent) {
			found = append(found, parent)
		}
	}
	require.Len(t, found, 1, "lambda-init of %s", function)
	return found[0]
}

// processesWith lists the processes whose program is wanted and that have a variable.
func processesWith(t *testing.T, program func(first string) bool, variable string) (found []int) {
	t.Helper()
	entries, err := os.ReadDir("/proc")
	require.NoError(t, err)
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		command, _ := os.ReadFile(filepath.Join("/proc", e.Name(), "cmdline"))
		env, _ := os.ReadFile(filepath.Join("/proc", e.Name(), "environ"))
		first, _, _ := strings.Cut(string(command), "\x00")
		if program(first) && strings.Contains("\x00"+string(env), "\x00"+variable+"\x00") {
			found = append(found, pid)
		}
	}
	return found
}

// peakMemory is VmHWM of a process, in bytes.
func peakMemory(t *testing.T, pid int) int {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	require.NoError(t, err)
	_, rest, ok := strings.Cut(string(status), "VmHWM:")
	require.True(t, ok)
	kb, err := strconv.Atoi(strings.Fields(rest)[0])
	require.NoError(t, err)
	return kb << 10
}
