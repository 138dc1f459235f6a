package lambdainit_test

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/edge-serverless-box/esb/agent/lambdainit"
)

func runExec(command []string) int {
	status, err := lambdainit.Exec(os.Environ(), command, os.Stdout)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return status
}

// execCommand is lambda-init as it runs a script of an image with RIE.
func execCommand(script string, env ...string) *exec.Cmd {
	c := exec.Command(os.Args[0], "@exec", "--", "/bin/sh", "-c", script)
	c.Env = append([]string{"PATH=" + os.Getenv("PATH"), "KEPT=1"}, env...)
	return c
}

func TestExec_Program_HasItsEnvironmentAndGivesItsStatus(t *testing.T) {
	log := filepath.Join(t.TempDir(), "log")
	require.NoError(t, os.WriteFile(log, nil, 0o600))
	c := execCommand(`env; echo words >&2; echo again > /dev/stdout; (sleep 600 &); exit 7`, "ESB_INIT_LOG="+log, "ESB_INIT_NOFILE=512", "ESB_INIT_LISTEN=nonsense", "HOME=/h", "ESB_INIT_HOME=none")
	out, err := c.CombinedOutput()
	var exit *exec.ExitError
	require.ErrorAs(t, err, &exit)
	assert.Equal(t, 7, exit.ExitCode())
	assert.Empty(t, string(out))
	written, err := os.ReadFile(log)
	require.NoError(t, err)
	for _, want := range []string{"KEPT=1\n", "\nwords\n", "\nagain\n"} {
		assert.Contains(t, string(written), want)
	}
	for _, without := range []string{"ESB_INIT", "HOME="} {
		assert.NotContains(t, string(written), without)
	}
}

func TestExec_Signals_AreTheProgramsAndItsEndIsLambdaInits(t *testing.T) {
	for name, c := range map[string]struct {
		script string
		signal syscall.Signal
		status int
	}{
		"ends in order":        {`trap 'echo bye; exit 5' TERM; echo ready; while :; do sleep 0.05; done`, syscall.SIGTERM, 5},
		"is ended by a signal": {`echo ready; exec sleep 600`, syscall.SIGTERM, 128 + int(syscall.SIGTERM)},
		"gets others, too":     {`trap 'exit 6' USR1; echo ready; while :; do sleep 0.05; done`, syscall.SIGUSR1, 6},
	} {
		t.Run(name, func(t *testing.T) {
			log := filepath.Join(t.TempDir(), "log")
			require.NoError(t, os.WriteFile(log, nil, 0o600))
			run := execCommand(c.script, "ESB_INIT_LOG="+log)
			require.NoError(t, run.Start())
			t.Cleanup(func() { _ = run.Process.Kill() })
			require.Eventually(t, func() bool {
				data, err := os.ReadFile(log)
				return err == nil && bytes.Contains(data, []byte("ready\n"))
			}, patience, time.Millisecond)
			require.NoError(t, run.Process.Signal(c.signal))
			var exit *exec.ExitError
			require.ErrorAs(t, run.Wait(), &exit)
			assert.Equal(t, c.status, exit.ExitCode())
		})
	}
}

func TestExec_NoSuchProgram_SaysSo(t *testing.T) {
	c := exec.Command(os.Args[0], "@exec", "--", "/no/such/program")
	out, err := c.CombinedOutput()
	require.Error(t, err)
	assert.Contains(t, string(out), "the entrypoint cannot be executed: fork/exec /no/such/program: no such file or directory")
}

// The program must not wait for a disk that is full, nor be silent when there is room again.
func TestExec_FullLogDisk_HoldsNobodyUp(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("mounting a disk needs root")
	}
	disk := t.TempDir()
	require.NoError(t, syscall.Mount("tmpfs", disk, "tmpfs", 0, "size=1m"))
	t.Cleanup(func() { assert.NoError(t, syscall.Unmount(disk, syscall.MNT_DETACH)) })
	log, filler := filepath.Join(disk, "log"), filepath.Join(disk, "filler")
	require.NoError(t, os.WriteFile(log, nil, 0o600))
	_ = os.WriteFile(filler, make([]byte, 2<<20), 0o600) // as much as there is room
	went, again := filepath.Join(t.TempDir(), "went"), filepath.Join(t.TempDir(), "again")
	c := execCommand(fmt.Sprintf(`i=0; while [ $i -lt 20000 ]; do echo "during $i of many lines"; i=$((i+1)); done; : > %s
		while [ ! -e %s ]; do sleep 0.05; done
		while :; do echo after; sleep 0.05; done`, went, again), "ESB_INIT_LOG="+log)
	require.NoError(t, c.Start())
	t.Cleanup(func() { _ = c.Process.Signal(syscall.SIGTERM); _ = c.Wait() })
	require.Eventually(t, func() bool { _, err := os.Stat(went); return err == nil }, patience, 10*time.Millisecond, "it goes on without its log")
	require.NoError(t, os.Remove(filler))
	require.NoError(t, os.WriteFile(again, nil, 0o600))
	require.Eventually(t, func() bool {
		data, err := os.ReadFile(log)
		text := string(data)
		return err == nil && strings.Contains(text, "\nafter\n") && strings.Contains(text, "log output was stuck: log lines lost: ")
	}, patience, 10*time.Millisecond)
}
