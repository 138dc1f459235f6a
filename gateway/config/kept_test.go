package config_test

import (
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/edge-serverless-box/esb/gateway/config"
)

// keeper is a folder with files and what is kept of them.
type keeper struct {
	functions, routing string
	opts               config.Options
	log                *safeBuffer
}

func mustKeep(t *testing.T) *keeper {
	t.Helper()
	dir := t.TempDir()
	k := &keeper{functions: filepath.Join(dir, "etc", "functions.yml"), routing: filepath.Join(dir, "etc", "routing.yml"), opts: options(), log: &safeBuffer{}}
	require.NoError(t, os.Mkdir(filepath.Dir(k.functions), 0o755))
	k.opts.KeptPath = filepath.Join(dir, "configuration.json")
	k.write(t, "a")
	require.NoError(t, os.WriteFile(k.routing, []byte(noRoutes), 0o600))
	return k
}

// write puts one function into the file, or a mistake.
func (k *keeper) write(t *testing.T, name string) {
	t.Helper()
	text := "functions: {" + name + ": {image: a}}\n"
	if name == "" {
		text = "functions: {a: {image: a, imagee: a}}\n"
	}
	require.NoError(t, os.WriteFile(k.functions+".new", []byte(text), 0o600))
	require.NoError(t, os.Rename(k.functions+".new", k.functions))
}

// open opens a watcher as a gateway does, which has that applied, and returns the function of each configuration.
func (k *keeper) open(t *testing.T) (*config.Watcher, string, chan string, error) {
	t.Helper()
	w, cfg, err := config.Open(k.functions, k.routing, k.opts, slog.New(slog.NewJSONHandler(k.log, nil)))
	if err != nil {
		return nil, "", nil, err
	}
	applied := make(chan string, 100)
	w.Start(func(c *config.Config) error {
		applied <- nameIn(c)
		return nil
	})
	t.Cleanup(func() { _ = w.Close() })
	return w, nameIn(cfg), applied, nil
}

func nameIn(c *config.Config) string {
	for name := range c.Functions {
		return name
	}
	return ""
}

// TestKept_FilesHaveMistakesAtTheStart_WhatWasTakenBeforeHolds: after a power cut nobody may be there to correct them.
func TestKept_FilesHaveMistakesAtTheStart_WhatWasTakenBeforeHolds(t *testing.T) {
	k := mustKeep(t)
	k.write(t, "")
	_, _, _, err := k.open(t)
	require.ErrorContains(t, err, "did you mean image?", "nothing is kept yet")
	k.write(t, "a")
	w, name, applied, err := k.open(t)
	require.NoError(t, err)
	assert.Equal(t, "a", name)
	k.write(t, "b")
	assert.Equal(t, "b", <-applied)
	k.write(t, "")
	require.Error(t, w.Reload())
	require.NoError(t, w.Close())
	info, err := os.Stat(k.opts.KeptPath)
	require.NoError(t, err)
	assert.Equal(t, os.FileMode(0o600), info.Mode().Perm(), "environments may have secrets")

	w, name, applied, err = k.open(t)
	require.NoError(t, err)
	assert.Equal(t, "b", name, "the last that was right")
	require.NotNil(t, w.Refused())
	assert.Contains(t, w.Refused().Problems[0], "functions.yml:1: functions.a.imagee: is not a known key; did you mean image?")
	assert.NotEmpty(t, w.Notes())
	assert.Contains(t, k.log.String(), "the configuration is refused, the one that was taken before is served")
	k.write(t, "c")
	assert.Equal(t, "c", <-applied, "the files are taken up as soon as they are right")
	require.NoError(t, w.Close())
	assert.Nil(t, w.Refused())

	require.NoError(t, os.Remove(k.functions))
	w, name, _, err = k.open(t)
	require.NoError(t, err)
	assert.Equal(t, "c", name, "nor are they missed")
	require.NoError(t, w.Close())
}

// TestKept_FilesComeLater_AreTaken: nothing tells of a disk that is mounted over their folder.
func TestKept_FilesComeLater_AreTaken(t *testing.T) {
	k := mustKeep(t)
	w, _, _, err := k.open(t)
	require.NoError(t, err)
	require.NoError(t, w.Close())
	folder := filepath.Dir(k.functions)
	require.NoError(t, os.Rename(folder, folder+".away"))
	w, name, applied, err := k.open(t)
	require.NoError(t, err)
	assert.Equal(t, "a", name)
	require.NoError(t, os.Rename(folder+".away", folder))
	assert.Equal(t, "a", <-applied)
	require.Eventually(t, func() bool { return w.Refused() == nil }, time.Minute, time.Millisecond)
	k.write(t, "b")
	assert.Equal(t, "b", <-applied, "and they are watched")
}

func TestKept_WhatIsOfNoUse_IsNoReasonToServeIt(t *testing.T) {
	for name, spoil := range map[string]func(t *testing.T, k *keeper){
		"another path": func(t *testing.T, k *keeper) {
			other := filepath.Join(filepath.Dir(k.functions), "other.yml")
			require.NoError(t, os.Rename(k.functions, other))
			k.functions = other
		},
		"damaged": func(t *testing.T, k *keeper) { require.NoError(t, os.WriteFile(k.opts.KeptPath, []byte("{"), 0o600)) },
		"a newer version": func(t *testing.T, k *keeper) {
			require.NoError(t, os.WriteFile(k.opts.KeptPath, []byte(`{"version":2}`), 0o600))
		},
		"refused by now": func(_ *testing.T, k *keeper) { k.opts.ReservedPaths = nil; k.opts.Runtimes = []string{"none"} },
	} {
		t.Run(name, func(t *testing.T) {
			k := mustKeep(t)
			if name == "refused by now" {
				require.NoError(t, os.WriteFile(k.functions, []byte("functions: {a: {code: ./a, runtime: python3.11, handler: a.b}}\n"), 0o600))
			}
			w, _, _, err := k.open(t)
			require.NoError(t, err)
			require.NoError(t, w.Close())
			k.write(t, "")
			spoil(t, k)
			_, _, _, err = k.open(t)
			assert.ErrorContains(t, err, "did you mean image?")
		})
	}
}

func TestKept_WhatCannotBeApplied_IsAsBad(t *testing.T) {
	k := mustKeep(t)
	w, _, _, err := k.open(t)
	require.NoError(t, err)
	cause := errors.New("no room")
	_, err = w.FallBack(cause)
	require.ErrorIs(t, err, cause, "what was kept is the same")
	assert.Nil(t, w.Refused())
	require.NoError(t, w.Close())
	k.write(t, "b")
	w, cfg, err := config.Open(k.functions, k.routing, k.opts, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	assert.Equal(t, "b", nameIn(cfg))
	cfg, err = w.FallBack(cause)
	require.NoError(t, err)
	assert.Equal(t, "a", nameIn(cfg))
	assert.Equal(t, []string{"no room"}, w.Refused().Problems)
	_, err = w.FallBack(cause)
	require.ErrorIs(t, err, cause, "there is but one to fall back to")
	require.NoError(t, w.Close())
}

func TestKept_CannotBeWritten_IsSaidAndNoMore(t *testing.T) {
	k := mustKeep(t)
	k.opts.KeptPath = filepath.Join(filepath.Dir(k.functions), "no folder", "configuration.json")
	_, name, applied, err := k.open(t)
	require.NoError(t, err)
	assert.Equal(t, "a", name)
	k.write(t, "b")
	assert.Equal(t, "b", <-applied)
	assert.Contains(t, k.log.String(), "the configuration cannot be kept")
}
