package app

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	agentv1 "github.com/edge-serverless-box/esb/api/esb/agent/v1"
)

// waitingIn returns the runtimes of a stack that wait for their function.
func waitingIn(t *testing.T, bridge string) (pids []int) {
	t.Helper()
	files, err := filepath.Glob("/proc/[0-9]*/environ")
	require.NoError(t, err)
	for _, file := range files {
		environment, err := os.ReadFile(file)
		if err != nil || !bytes.Contains(environment, []byte("_ESB_ROOM= ")) {
			continue
		}
		command, _ := os.ReadFile(filepath.Join(filepath.Dir(file), "cmdline"))
		groups, _ := os.ReadFile(filepath.Join(filepath.Dir(file), "cgroup"))
		if strings.HasPrefix(string(command), "/fn\x00") && strings.Contains(string(groups), "esb-"+bridge+"/") {
			var pid int
			_, err := fmt.Sscan(filepath.Base(filepath.Dir(file)), &pid)
			require.NoError(t, err)
			pids = append(pids, pid)
		}
	}
	return pids
}

const (
	stemStart  = `"stem":true`
	stemReady  = "runtime started ahead"
	stemFailed = "a runtime cannot be started ahead of its function"
)

func TestAgent_StemCells(t *testing.T) {
	s := mustSettings(t)
	s.ParkedSandboxes, s.StemCells = 2, 1
	dir := t.TempDir()
	fn := filepath.Join(dir, "fn")
	mustBuild(t, "./testdata/fn", fn)
	mustArchive(t, filepath.Join(s.ArchivesDir, "waits.tar"), "esb/runtime-python:3.11", fn, "base", "/fn", "/var/runtime/bootstrap.py")
	mustArchive(t, filepath.Join(s.ArchivesDir, "deaf.tar"), "esb/runtime-python:3.12", fn, "base", "/fn", "/var/runtime/bootstrap.py", "deaf")
	mine, other := filepath.Join(dir, "mine"), filepath.Join(dir, "other")
	for _, folder := range []string{mine, other} {
		require.NoError(t, os.Mkdir(folder, 0o755))
		require.NoError(t, os.WriteFile(filepath.Join(folder, "data"), []byte("of "+filepath.Base(folder)), 0o600))
	}
	b := mustStart(t, s)
	want := func(folder string, env map[string]string) *agentv1.EnsureContainerRequest {
		r := request(supervised, env)
		r.Image, r.Runtime, r.Handler = "", "python3.11", "app.handler"
		r.Code = local(t, folder)
		return r
	}
	// serve starts and ends a container, and says whether its runtime was there already.
	serve := func(t *testing.T, r *agentv1.EnsureContainerRequest) (answer map[string]any, ahead bool) {
		t.Helper()
		before := b.log.times(stemStart)
		w := b.ensure(t, r)
		answer = invoke(t, w)
		b.destroy(t, w.GetId())
		return answer, b.log.times(stemStart) > before
	}
	waits := func(t *testing.T, n int) {
		t.Helper()
		require.Eventually(t, func() bool { return b.log.times(stemReady) >= n && len(waitingIn(t, s.Bridge)) == 1 }, patience, 10*time.Millisecond)
	}

	b.eventuallyParked(t, 2)
	_, ahead := serve(t, want(mine, nil))
	require.False(t, ahead, "nobody has asked for one before")
	waits(t, 1)

	t.Run("each serves one function, whichever of its kind", func(t *testing.T) {
		got, ahead := serve(t, want(mine, map[string]string{"MINE": "1"}))
		require.True(t, ahead)
		env := got["env"].(map[string]any)
		for k, v := range map[string]string{"MINE": "1", "FROM_IMAGE": "1", "_HANDLER": "app.handler", "AWS_EXECUTION_ENV": "AWS_Lambda_python3.11"} {
			assert.Equal(t, v, env[k], k)
		}
		for _, name := range []string{"_ESB_WAIT_FD", "_ESB_ROOM"} {
			assert.NotContains(t, env, name)
		}
		assert.Equal(t, "of mine", got["task"])
		waits(t, 2)
		got, ahead = serve(t, want(other, nil))
		require.True(t, ahead)
		assert.NotContains(t, got["env"], "MINE")
		assert.Equal(t, "of other", got["task"])
		waits(t, 3)
	})

	t.Run("none is for a function that has its runtime start otherwise", func(t *testing.T) {
		for _, env := range []map[string]string{{"PYTHONDEVMODE": "1"}, {"TZ": "Asia/Tokyo"}, {"LC_ALL": "C"}, {"LD_PRELOAD": ""}, {"AWS_LAMBDA_EXEC_WRAPPER": ""}} {
			_, ahead := serve(t, want(mine, env))
			assert.False(t, ahead, env)
		}
		r := want(mine, nil)
		r.Standby = true
		_, ahead := serve(t, r)
		assert.False(t, ahead, "it waits without a process")
	})

	t.Run("one that is killed is replaced", func(t *testing.T) {
		was := waitingIn(t, s.Bridge)
		require.Len(t, was, 1)
		require.NoError(t, syscall.Kill(was[0], syscall.SIGKILL))
		require.Eventually(t, func() bool {
			now := waitingIn(t, s.Bridge)
			return len(now) == 1 && now[0] != was[0]
		}, patience, 10*time.Millisecond)
		waits(t, b.log.times(stemReady))
	})

	t.Run("a client that does not wait is given up, and its function starts", func(t *testing.T) {
		r := want(mine, nil)
		r.Runtime = "python3.12"
		_, ahead := serve(t, r)
		assert.False(t, ahead)
		require.Eventually(t, func() bool { return b.log.times(stemFailed) == 3 }, patience, 10*time.Millisecond)
		assert.True(t, b.log.contains("does not wait"), "its last words are there")
		_, ahead = serve(t, r)
		assert.False(t, ahead)
		_, ahead = serve(t, want(mine, nil))
		assert.True(t, ahead, "others are none the worse")
	})

	t.Run("they end with the agent", func(t *testing.T) {
		waits(t, b.log.times(stemReady))
		b.stop()
		require.Eventually(t, func() bool { return len(waitingIn(t, s.Bridge)) == 0 }, patience, 10*time.Millisecond)
	})
}
