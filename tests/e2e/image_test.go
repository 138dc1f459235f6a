package e2e

import (
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/edge-serverless-box/esb/tests/stack"
)

// swapped are two archives of one image name, whose functions answer in different ways: the first repeats what it is sent, the second
// answers what it is told to.
func swapped(t *testing.T) (first, second []byte) {
	t.Helper()
	root, err := stack.RepositoryRoot()
	require.NoError(t, err)
	var archives [][]byte
	for _, name := range []string{"echo", "respond"} {
		folder := t.TempDir()
		program, err := stack.BuildProgram(root, folder, "./functions/lambda-"+name, "-tags", "lambda.norpc")
		require.NoError(t, err)
		file, err := stack.BuildImage(root, folder, "my/swap:1", "-file", "/var/task/bootstrap="+program, "-entrypoint", "/var/task/bootstrap")
		require.NoError(t, err)
		data, err := os.ReadFile(file)
		require.NoError(t, err)
		archives = append(archives, data)
	}
	return archives[0], archives[1]
}

// TestImage_RebuiltUnderItsTag_ReachesWarmFunctions is the loop of the README: build an image again under the same tag, into the same
// archive, and call.
func TestImage_RebuiltUnderItsTag_ReachesWarmFunctions(t *testing.T) {
	if box.Way != stack.Native {
		t.Skip("the file is in a volume of Docker's")
	}
	const order, second = `{"statusCode":200,"body":"two"}`, "two"
	archive := filepath.Join(box.Home, "images", "swap.tar")
	one, two := swapped(t)
	require.NoError(t, os.WriteFile(archive, one, 0o644))
	call := func() stack.Answer { return box.Post(t, "/e2e/swap", "", order) }
	stack.Eventually(t, func() bool { return call().Status == http.StatusOK }, "the first image must be found")
	require.NotEqual(t, second, string(call().Body))

	// With steady callers, and an archive that is half written for longer than a look takes.
	stop := make(chan struct{})
	var callers sync.WaitGroup
	var calls, failures, back atomic.Int64
	for range 2 {
		callers.Go(func() {
			seen := false
			for {
				select {
				case <-stop:
					return
				default:
				}
				answer := call()
				calls.Add(1)
				switch {
				case answer.Status != http.StatusOK:
					failures.Add(1)
					t.Logf("status %d: %s", answer.Status, answer.Body)
				case string(answer.Body) == second:
					seen = true
				case seen:
					back.Add(1)
				}
			}
		})
	}
	file, err := os.Create(archive)
	require.NoError(t, err)
	_, err = file.Write(two[:len(two)/2])
	require.NoError(t, err)
	time.Sleep(5 * time.Second)
	_, err = file.Write(two[len(two)/2:])
	require.NoError(t, err)
	require.NoError(t, file.Close())
	written := time.Now()
	stack.Eventually(t, func() bool { return string(call().Body) == second }, "the second image must answer")
	t.Logf("the second image answered %s after it was written, %d calls in all", time.Since(written).Round(100*time.Millisecond), calls.Load())
	close(stop)
	callers.Wait()
	assert.Zero(t, failures.Load(), "no call fails, of %d", calls.Load())
	assert.Zero(t, back.Load(), "no old answer after a new one")

	// Without any caller: the warm containers of the old image go by themselves, and the next call has the new code.
	ids := map[string]bool{}
	for _, c := range box.Containers(t, "swap") {
		ids[c.GetContainerId()] = true
	}
	require.NotEmpty(t, ids)
	require.NoError(t, os.WriteFile(archive+".new", one, 0o644))
	require.NoError(t, os.Rename(archive+".new", archive))
	stack.Eventually(t, func() bool {
		for _, c := range box.Containers(t, "swap") {
			if ids[c.GetContainerId()] {
				return false
			}
		}
		return true
	}, "the containers of the old image must go")
	assert.NotEqual(t, second, string(call().Body))
}
