package stack

import (
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

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
		"a newer version":          {"gateway/schedules.json", `{"version": 99}`, "made by a newer esb", "Use that esb again", false},
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
