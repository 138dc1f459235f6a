package e2e

import (
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	agentv1 "github.com/edge-serverless-box/esb/api/esb/agent/v1"
	"github.com/edge-serverless-box/esb/tests/stack"
)

// swapped are the files of two archives of one image name, whose functions answer in different ways: the first repeats what it is
// sent, the second answers what it is told to.
func swapped(t *testing.T, image string) (first, second string) {
	t.Helper()
	root, err := stack.RepositoryRoot()
	require.NoError(t, err)
	var archives []string
	for _, name := range []string{"echo", "respond"} {
		folder := t.TempDir()
		program, err := stack.BuildProgram(root, folder, "./functions/lambda-"+name, "-tags", "lambda.norpc")
		require.NoError(t, err)
		file, err := stack.BuildImage(root, folder, image, "-file", "/var/task/bootstrap="+program, "-entrypoint", "/var/task/bootstrap")
		require.NoError(t, err)
		archives = append(archives, file)
	}
	return archives[0], archives[1]
}

func mustRead(t *testing.T, file string) []byte {
	t.Helper()
	data, err := os.ReadFile(file)
	require.NoError(t, err)
	return data
}

// TestImage_RebuiltUnderItsTag_ReachesWarmFunctions is the loop of the README: build an image again under the same tag, into the same
// archive, and call.
func TestImage_RebuiltUnderItsTag_ReachesWarmFunctions(t *testing.T) {
	if box.Way != stack.Native {
		t.Skip("the file is in a volume of Docker's")
	}
	const order, second = `{"statusCode":200,"body":"two"}`, "two"
	archive := filepath.Join(box.Home, "images", "swap.tar")
	first, last := swapped(t, "my/swap:1")
	one, two := mustRead(t, first), mustRead(t, last)
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
	// One more of that may be on its way still, and one of the image before on its way out.
	all := box.Containers(t, "swap")
	require.NotEmpty(t, all)
	old := slices.MaxFunc(all, func(a, b *agentv1.ContainerInfo) int {
		return a.GetCreatedAt().AsTime().Compare(b.GetCreatedAt().AsTime())
	}).GetImageDigest()
	require.NotEmpty(t, old)
	require.NoError(t, os.WriteFile(archive+".new", one, 0o644))
	require.NoError(t, os.Rename(archive+".new", archive))
	stack.Eventually(t, func() bool {
		all := box.Containers(t, "swap")
		return len(all) > 0 && !slices.ContainsFunc(all, func(c *agentv1.ContainerInfo) bool { return c.GetImageDigest() == old })
	}, "the containers of the old image must go")
	assert.NotEqual(t, second, string(call().Body))
}

// TestImage_PushedAnewToTheBoxsRegistry_ReachesWarmFunctions: with pull_policy always, a function is of what the tag is now, and not of
// what it was when a container started.
func TestImage_PushedAnewToTheBoxsRegistry_ReachesWarmFunctions(t *testing.T) {
	if box.Way != stack.Native {
		t.Skip("the file is in a volume of Docker's: the registry's password")
	}
	const order, second = `{"statusCode":200,"body":"two"}`, "two"
	image := box.Registry + "/my/pushed:1"
	one, two := swapped(t, "my/pushed:1")
	push := func(archive string) {
		cmd := exec.CommandContext(t.Context(), filepath.Join(box.BinDir, "esb-image"), "push", "-ref", image, archive)
		cmd.Env = append(os.Environ(), "ESB_HOME="+box.Home)
		out, err := cmd.CombinedOutput()
		require.NoError(t, err, "%s", out)
	}
	call := func() stack.Answer { return box.Post(t, "/e2e/pushed", "", order) }
	ids := func() map[string]bool {
		all := map[string]bool{}
		for _, c := range box.Containers(t, "pushed") {
			all[c.GetContainerId()] = true
		}
		return all
	}
	push(one)
	stack.Eventually(t, func() bool { return call().Status == http.StatusOK }, "the first image must be found")
	require.NotEqual(t, second, string(call().Body))
	warm := ids()
	require.NotEmpty(t, warm)

	// Nobody calls: the warm container goes by itself.
	push(two)
	pushed := time.Now()
	stack.Eventually(t, func() bool {
		for id := range ids() {
			if warm[id] {
				return false
			}
		}
		return true
	}, "the container of the old image must go")
	t.Logf("the container of the old image was gone %s after the push", time.Since(pushed).Round(100*time.Millisecond))
	answer := call()
	assert.Equal(t, http.StatusOK, answer.Status)
	assert.Equal(t, second, string(answer.Body))

	// Under calls: none fails.
	push(one)
	stack.Eventually(t, func() bool {
		answer := call()
		assert.Equal(t, http.StatusOK, answer.Status, "%s", answer.Body)
		return string(answer.Body) != second
	}, "the first image must answer again")
}
