package security

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/edge-serverless-box/esb/tests/stack"
)

// A box whose logs are on a small disk of their own, which something else has filled.
func TestFullLogDisk_HoldsNobodyUp(t *testing.T) {
	root, err := stack.RepositoryRoot()
	require.NoError(t, err)
	home := t.TempDir()
	require.NoError(t, os.Chmod(home, 0o755))
	disk := t.TempDir() // not below home: what is mounted there is the box's to remove
	require.NoError(t, syscall.Mount("tmpfs", disk, "tmpfs", 0, "size=16m,mode=755"))
	t.Cleanup(func() { assert.NoError(t, syscall.Unmount(disk, syscall.MNT_DETACH)) })
	require.NoError(t, os.CopyFS(filepath.Join(home, "shell"), os.DirFS(filepath.Join(root, "tests", "security", "testdata", "shell"))))
	for name, text := range map[string]string{
		"functions.yml": "functions:\n  shell: {code: ./shell, runtime: python3.11, handler: app.handler, timeout: 10, memory_size: 512}\n",
		"routing.yml":   "routes:\n  - {path: /shell, method: POST, function: shell, auth: none}\n", "resources.yml": "{}\n",
	} {
		require.NoError(t, os.WriteFile(filepath.Join(home, name), []byte(text), 0o644))
	}
	b, err := stack.Prepare(home, stack.Options{
		FunctionsConfig: filepath.Join(home, "functions.yml"), RoutingConfig: filepath.Join(home, "routing.yml"),
		ResourcesConfig: filepath.Join(home, "resources.yml"), Env: []string{"ESB_STORES=off", "ESB_LOG_DIR=" + filepath.Join(disk, "logs")},
	})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, b.Down()) })
	require.NoError(t, b.Up(t.Context()))
	ask := func(word string) stack.Answer {
		return b.Post(t, "/shell", "", `print("\n".join(["`+word+`" + "x" * 100] * 2000))`)
	}
	// What hangs is over its function's timeout, and no 200.
	say := func(t *testing.T, word string) {
		t.Helper()
		answer := ask(word)
		require.Equal(t, 200, answer.Status, "%s", answer.Body)
	}
	written := func(pattern, text string) bool {
		files, _ := filepath.Glob(filepath.Join(disk, "logs", pattern))
		for _, file := range files {
			if data, err := os.ReadFile(file); err == nil && strings.Contains(string(data), text) {
				return true
			}
		}
		return false
	}
	stack.Eventually(t, func() bool { return ask("before").Status == 200 }, "the base image is unpacked")
	attempt(t, function, "silence a container, or hang, on a full log disk", func(t *testing.T) {
		filler := filepath.Join(disk, "filler")
		_ = os.WriteFile(filler, make([]byte, 32<<20), 0o600) // as much as there is room
		for range 5 {
			say(t, "during")
		}
		require.NoError(t, os.Remove(filler))
		stack.Eventually(t, func() bool { say(t, "after"); return written("functions/*.log", "after") }, "lines flow again")
		stack.Eventually(t, func() bool { return written("functions/*.log", "log lines lost: ") }, "the log says what was lost")
		stack.Eventually(t, func() bool { return written("agent.log", "log lines of a container were lost") }, "the agent's log says so")
	})
}
