package stack

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/edge-serverless-box/esb/native"
	"github.com/edge-serverless-box/esb/native/console"
	"github.com/edge-serverless-box/esb/native/process"
)

// A box in the field comes up after an upgrade: its files say no version.
func TestStateFiles_OfBeforeVersions_AreReadAndListed(t *testing.T) {
	files := map[string]string{}
	for file, name := range map[string]string{
		"stack.json": "run/stack.json", "supervisor.json": "run/supervisor.json", "agent.pid": "run/agent.pid", "schedules.json": "gateway/schedules.json",
		"function-access.json": "gateway/function-access.json", "shipped.json": "logs/shipped.json",
	} {
		text, err := os.ReadFile(filepath.Join("..", "..", "guard", "statefile", "testdata", file))
		require.NoError(t, err)
		files[name] = string(text)
	}
	s := damagedBox(t, files)
	var out bytes.Buffer
	s.console = console.New(&out)
	found, err := s.lookFiles(t.Context())
	require.NoError(t, err)
	assert.Empty(t, found)
	for name := range files {
		assert.Contains(t, out.String(), filepath.Join(s.settings.Home, name)+": version 1\n")
	}
	require.NoError(t, s.understood())
	s.heal(t.Context())
	record, err := Recorded(s.settings.Home)
	require.NoError(t, err)
	assert.Equal(t, "esbte8b3b1", record["ESB_BRIDGE"])
	pid, err := process.Read(s.pidFile(native.Agent))
	require.NoError(t, err)
	assert.Equal(t, 10525, pid.PID)
}

func TestUnderstood_NewerFile_IsRefusedByUpAndDown(t *testing.T) {
	s := damagedBox(t, map[string]string{"gateway/schedules.json": `{"version": 2}`, "run/supervisor.json": `{"version": 3}`, "run/stack.json": "{"})
	for name, refused := range map[string]error{"up": s.bring(t.Context()), "down": s.Down(t.Context())} {
		if os.Geteuid() != 0 && name == "down" {
			continue // it says so instead
		}
		problems := native.Problems(refused)
		require.Len(t, problems, 2, name)
		assert.Contains(t, problems[0].What, filepath.Join(s.settings.Home, "run/supervisor.json")+" is of version 3")
		assert.Contains(t, problems[1].What, filepath.Join(s.settings.Home, "gateway/schedules.json")+" is of version 2")
		assert.Contains(t, problems[1].What, "version 1 at most")
		assert.Contains(t, problems[1].Do, "Use the newer esb again, or move the file away. Lost are the ticks")
	}
	assert.FileExists(t, recordFile(s.settings.Home), "nothing was touched")
}

func TestHeal_DamagedFiles_AreSetAside_AndOthersKept(t *testing.T) {
	s := damagedBox(t, map[string]string{"run/stack.json": "", "gateway/schedules.json": "noise", "gateway/jwt.key": "\n", "run/gateway.pid": `{"pid": 4711}`})
	var out bytes.Buffer
	s.console = console.New(&out)
	s.heal(t.Context())
	assert.Contains(t, out.String(), recordFile(s.settings.Home)+" is damaged")
	assert.NoFileExists(t, recordFile(s.settings.Home))
	assert.NoFileExists(t, filepath.Join(s.settings.Home, "gateway", "schedules.json"))
	assert.FileExists(t, filepath.Join(s.settings.Home, "gateway", "jwt.key"), "nobody but a person replaces a key")
	assert.FileExists(t, filepath.Join(s.settings.Home, "run", "gateway.pid"))
	kept, err := filepath.Glob(filepath.Join(s.settings.Home, "damaged", "*", "*"))
	require.NoError(t, err)
	assert.Len(t, kept, 2)

	require.NoError(t, s.unhealed(nil))
	boom := errors.New("boom")
	err = s.unhealed(boom)
	require.ErrorIs(t, err, boom)
	problems := native.Problems(err)
	require.Len(t, problems, 1)
	assert.Contains(t, problems[0].What, filepath.Join("gateway", "jwt.key")+" is damaged: it is empty")
	assert.Contains(t, problems[0].Do, "Restore it from a backup, or remove it")
}

// On a full disk there may be no room for the folder of what was damaged.
func TestHeal_NoFolderForDamaged_RenamesInPlace(t *testing.T) {
	s := damagedBox(t, map[string]string{"gateway/schedules.json": "noise", "damaged": "a file in the way"})
	s.heal(t.Context())
	file := filepath.Join(s.settings.Home, "gateway", "schedules.json")
	assert.NoFileExists(t, file)
	assert.FileExists(t, file+".damaged")
}

// The gateway's folder is the gateway's user's, and root looks into it.
func TestUnderstood_WhatIsNoFile_IsNotRead(t *testing.T) {
	s := damagedBox(t, nil)
	jwks := filepath.Join(s.settings.ServiceHome(native.Gateway), "jwks")
	require.NoError(t, os.MkdirAll(jwks, 0o700))
	require.NoError(t, syscall.Mkfifo(filepath.Join(jwks, "x.json"), 0o600))
	require.NoError(t, os.Symlink("/dev/zero", filepath.Join(filepath.Dir(jwks), "schedules.json")))
	require.NoError(t, s.understood())
	s.heal(t.Context())
	assert.Len(t, s.damagedFiles(), 2)
}

// What cannot be read for a moment may be whole: a disk that fails, a file system that is not there yet.
func TestHeal_UnreadFile_StaysWhereItIs(t *testing.T) {
	s := damagedBox(t, nil)
	file := filepath.Join(s.settings.LogsDir(), "shipped.json")
	require.NoError(t, os.MkdirAll(file, 0o700)) // reading a folder fails for root, too
	var out bytes.Buffer
	s.console = console.New(&out)
	s.heal(t.Context())
	assert.DirExists(t, file)
	found, err := s.lookFiles(t.Context())
	require.NoError(t, err)
	require.Len(t, found, 1)
	assert.Contains(t, found[0].What, file)
	assert.Contains(t, found[0].Do, "See to it that the file can be read")
	assert.Nil(t, found[0].fix)
	assert.Contains(t, out.String(), file+": cannot be read\n")
}

// The agent's program may end for want of memory, or be killed: that says nothing of the databases.
func TestLookStore_TellsDamageFromALookThatFailed(t *testing.T) {
	for name, c := range map[string]struct{ script, what string }{
		"whole":         {"exit 0", ""},
		"damaged":       {"echo 'meta.db: no database' >&2; exit 3", "is damaged: meta.db: no database"},
		"in use":        {"echo 'meta.db: timeout' >&2; exit 1", "could not be looked at: meta.db: timeout"},
		"crash":         {"echo 'fatal error: runtime: out of memory' >&2; exit 2", "could not be looked at: fatal error"},
		"killed":        {"kill -9 $$", "could not be looked at: signal: killed"},
		"asks to judge": {`[ "$1" = judge-database ] && [ -f "$2" ]`, ""},
	} {
		t.Run(name, func(t *testing.T) {
			s := damagedBox(t, map[string]string{"containerd/io.containerd.metadata.v1.bolt/meta.db": "x", "bin/agent": "#!/bin/sh\n" + c.script + "\n"})
			require.NoError(t, os.Chmod(filepath.Join(s.settings.BinDir, native.Agent), 0o700))
			found, err := s.lookStore(t.Context())
			require.NoError(t, err)
			if c.what == "" {
				assert.Empty(t, found)
				return
			}
			require.Len(t, found, 1)
			assert.Contains(t, found[0].What, c.what)
		})
	}
}
