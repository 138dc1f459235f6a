package stack

import (
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/edge-serverless-box/esb/native"
	"github.com/edge-serverless-box/esb/native/console"
	"github.com/edge-serverless-box/esb/native/settings"
)

// damagedBox is a box that is down, with these files below its home.
func damagedBox(t *testing.T, files map[string]string) *Stack {
	t.Helper()
	home := t.TempDir()
	for name, text := range files {
		file := filepath.Join(home, name)
		require.NoError(t, os.MkdirAll(filepath.Dir(file), 0o700))
		require.NoError(t, os.WriteFile(file, []byte(text), 0o600))
	}
	s := settings.Settings{Home: home, BinDir: filepath.Join(home, "bin"), LogDir: filepath.Join(home, "logs")}
	return New(s, nil, console.New(io.Discard))
}

func TestLookFiles_NamesDamageAndItsCure(t *testing.T) {
	for name, c := range map[string]struct {
		file, text, what, do string
		fixed                bool
	}{
		"schedules of noise":       {"gateway/schedules.json", "noise", "no JSON", "Set it aside", true},
		"shipped logs, empty":      {"logs/shipped.json", "", "no JSON", "Set it aside", true},
		"record of the stack, cut": {"run/stack.json", `{"ESB_BRIDGE": "es`, "no JSON", "Set it aside", true},
		"pid file of noise":        {"run/agent.pid", "noise", "damaged", "Set it aside", true},
		"supervisor, cut":          {"run/supervisor.json", `{"version": 1,`, "damaged", "Set it aside", true},
		"issuer's keys of noise":   {"gateway/jwks/a.json", "noise", "no JSON", "Set it aside", true},
		"newer record of a stack":  {"run/stack.json", `{"version": "2"}`, "version 2", "Use the newer esb again", false},
		"newer pid file":           {"run/agent.pid", `{"version": 7, "pid": 4711}`, "version 7", "Use the newer esb again", false},
		"owner, empty":             {"gateway/owner", "", "it is empty", "Remove it", false},
		"a newer version":          {"gateway/schedules.json", `{"version": 99}`, "which a newer esb has written", "Use the newer esb again", false},
		"key of tokens, empty":     {"gateway/jwt.key", "\n", "it is empty", "Restore it from a backup", false},
		"certificate, cut":         {"gateway/tls/ca.crt", "-----BEGIN CERTIF", "no PEM", "Restore it from a backup", false},
	} {
		t.Run(name, func(t *testing.T) {
			s := damagedBox(t, map[string]string{c.file: c.text})
			found, err := s.lookFiles(t.Context())
			require.NoError(t, err)
			require.Len(t, found, 1)
			file := filepath.Join(s.settings.Home, c.file)
			assert.Contains(t, found[0].What, file)
			assert.Contains(t, found[0].What, c.what)
			assert.Contains(t, found[0].Do, c.do)
			require.Equal(t, c.fixed, found[0].fix != nil)
			if !c.fixed {
				return
			}
			require.NoError(t, found[0].fix(t.Context()))
			assert.NoFileExists(t, file)
			kept, err := filepath.Glob(filepath.Join(s.settings.Home, "damaged", "*", filepath.Base(file)))
			require.NoError(t, err)
			require.Len(t, kept, 1)
			data, err := os.ReadFile(kept[0])
			require.NoError(t, err)
			assert.Equal(t, c.text, string(data), "set aside, not removed")
			found, err = s.lookFiles(t.Context())
			require.NoError(t, err)
			assert.Empty(t, found)
		})
	}
}

func TestLookFiles_WholeOnes_AreNoFindings(t *testing.T) {
	s := damagedBox(t, map[string]string{
		"gateway/schedules.json": `{"version": 1, "handed_over": {}}`, "run/stack.json": `{"ESB_BRIDGE": "esb0"}`, "gateway/jwt.key": "secret",
		"run/agent.pid": `{"pid": 4711, "start_ticks": 1, "boot_id": "x"}`, "gateway/tls/ca.crt": "-----BEGIN CERTIFICATE-----\naGVsbG8=\n-----END CERTIFICATE-----\n",
	})
	found, err := s.lookFiles(t.Context())
	require.NoError(t, err)
	assert.Empty(t, found)
}

// mustRun runs /bin/sleep as a program of the box until the test ends.
func mustRun(t *testing.T, bin, program string, env ...string) {
	t.Helper()
	require.NoError(t, os.MkdirAll(bin, 0o700))
	sleep, err := exec.LookPath("sleep")
	require.NoError(t, err)
	data, err := os.ReadFile(sleep)
	require.NoError(t, err)
	file := filepath.Join(bin, program)
	require.NoError(t, os.WriteFile(file, data, 0o700))
	cmd := exec.Command(file, "300")
	cmd.Env = env
	require.NoError(t, cmd.Start())
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
}

func TestLookLeaks_WithoutARecord_CuresNothing(t *testing.T) {
	s := damagedBox(t, nil)
	mustRun(t, s.settings.BinDir, native.Containerd, "ESB_HOME="+s.settings.Home)
	found, err := s.lookLeaks(t.Context())
	require.NoError(t, err)
	require.Len(t, found, 1)
	assert.Contains(t, found[0].What, native.Containerd)
	assert.Nil(t, found[0].fix, "what it would purge may be another stack's")
	require.NoError(t, os.MkdirAll(s.settings.RunDir(), 0o700))
	require.NoError(t, os.WriteFile(recordFile(s.settings.Home), []byte("{}"), 0o600))
	found, err = s.lookLeaks(t.Context())
	require.NoError(t, err)
	require.Len(t, found, 1)
	assert.NotNil(t, found[0].fix)
}

func TestOthers_StackWithTheSameSockets_IsNotRemoved(t *testing.T) {
	s := damagedBox(t, nil)
	s.settings.AgentRunDir = filepath.Join(s.settings.Home, "sockets")
	require.NoError(t, s.others())
	mustRun(t, s.settings.BinDir, native.Agent, "ESB_HOME="+s.settings.Home, "ESB_RUN_DIR="+s.settings.AgentRunDir)
	require.NoError(t, s.others(), "its own")
	mustRun(t, filepath.Join(s.settings.Home, "other"), native.Agent, "ESB_HOME=/other", "ESB_RUN_DIR="+s.settings.AgentRunDir)
	var problem *native.Problem
	require.ErrorAs(t, s.others(), &problem)
	assert.Contains(t, problem.What, "/other")
}

func TestRestartAgent_WithASupervisor_IsLeftToIt(t *testing.T) {
	b := mustOpen(t)
	mustKeep(t, b)
	before := b.pids(t)
	require.NoError(t, b.restartAgent(t.Context()), b.out)
	now := b.pids(t)
	assert.NotEqual(t, before[0], now[0])
	assert.Equal(t, before[1], now[1])
	agents, err := b.strays(native.Agent)
	require.NoError(t, err)
	require.Len(t, agents, 1, "no second one beside it")
	assert.Equal(t, now[0], agents[0].PID, "the pid file names it")
}

func TestRestartAgent_WithoutASupervisor_HasTheSecretsAsBefore(t *testing.T) {
	b := mustOpen(t)
	require.NoError(t, b.start(t.Context()), b.out)
	before := b.pids(t)
	doctor := New(b.settings, b.environ, b.console)
	require.NoError(t, doctor.restartAgent(t.Context()), b.out)
	now := b.pids(t)
	assert.NotEqual(t, before[0], now[0])
	require.NoError(t, b.start(t.Context()), b.out)
	assert.Equal(t, now, b.pids(t), "the next `up` takes it as it is")
}
