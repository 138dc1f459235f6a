package config_test

import (
	"bytes"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/edge-serverless-box/esb/gateway/config"
)

// safeBuffer is a log that a test reads while the watcher writes.
type safeBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *safeBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *safeBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// watched is a started watcher over files in a folder of its own.
type watched struct {
	*config.Watcher
	functions, routing string
	applied            chan *config.Config
	log                *safeBuffer
}

func mustWatch(t *testing.T, apply func(*config.Config) error) *watched {
	t.Helper()
	dir := t.TempDir()
	w := &watched{
		functions: filepath.Join(dir, "functions.yml"),
		routing:   filepath.Join(dir, "routing.yml"),
		applied:   make(chan *config.Config, 100),
		log:       &safeBuffer{},
	}
	w.write(t, w.functions, "functions: {a: {image: a}}\n")
	w.write(t, w.routing, noRoutes)
	watcher, first, err := config.Open(w.functions, w.routing, options(), slog.New(slog.NewJSONHandler(w.log, nil)))
	require.NoError(t, err)
	require.Len(t, first.Functions, 1)
	w.Watcher = watcher
	watcher.Start(func(c *config.Config) error {
		if apply != nil {
			if err := apply(c); err != nil {
				return err
			}
		}
		w.applied <- c
		return nil
	})
	t.Cleanup(func() { assert.NoError(t, watcher.Close()) })
	return w
}

func (w *watched) write(t *testing.T, path, content string) {
	t.Helper()
	// Whole at once: a machine that is busy may read a file that is still empty.
	require.NoError(t, os.WriteFile(path+".part", []byte(content), 0o600))
	require.NoError(t, os.Rename(path+".part", path))
}

func (w *watched) next(t *testing.T) *config.Config {
	t.Helper()
	select {
	case c := <-w.applied:
		return c
	case <-time.After(time.Minute):
		require.FailNow(t, "no configuration was applied", "log: %s", w.log.String())
		return nil
	}
}

func TestWatcher_FileWritten_AppliesTheNewConfiguration(t *testing.T) {
	w := mustWatch(t, nil)
	w.write(t, w.functions, "functions: {a: {image: a}, b: {image: b}}\n")
	assert.Len(t, w.next(t).Functions, 2)
}

func TestWatcher_FileReplacedByRename_AppliesTheNewConfiguration(t *testing.T) {
	w := mustWatch(t, nil)
	for i, content := range []string{
		"routes: [{path: /a, method: ANY, function: a}]\n",
		"routes: [{path: /a, method: ANY, function: a}, {path: /b, method: ANY, function: a}]\n",
	} {
		tmp := w.routing + ".new"
		w.write(t, tmp, content)
		require.NoError(t, os.Rename(tmp, w.routing))
		assert.Len(t, w.next(t).Routes, i+1)
	}
}

func TestWatcher_InvalidFile_IsLoggedAndTheNextValidOneApplied(t *testing.T) {
	w := mustWatch(t, nil)
	w.write(t, w.functions, "functions: {a: {image: a, timeout: 0}}\n")
	assert.Eventually(t, func() bool {
		return bytes.Contains([]byte(w.log.String()), []byte("functions.yml:1: functions.a.timeout: must be 1 to 900 seconds, got 0"))
	}, time.Minute, 10*time.Millisecond)
	w.write(t, w.functions, "functions: {a: {image: a, timeout: 9}}\n")
	assert.Equal(t, 9*time.Second, w.next(t).Functions["a"].Timeout)
	assert.Empty(t, w.applied, "the invalid configuration must not have been applied")
}

func TestWatcher_Reload_AppliesAtOnceEvenUnchangedFiles(t *testing.T) {
	w := mustWatch(t, nil)
	require.NoError(t, w.Reload())
	require.Len(t, w.applied, 1)
}

func TestWatcher_Reload_RefusedConfiguration_SaysWhy(t *testing.T) {
	refuse := errors.New("no room")
	w := mustWatch(t, func(*config.Config) error { return refuse })
	require.ErrorIs(t, w.Reload(), refuse)

	w.write(t, w.routing, "routes: 5\n")
	var e *config.Error
	require.ErrorAs(t, w.Reload(), &e)
	require.NoError(t, os.Remove(w.functions))
	require.ErrorIs(t, w.Reload(), os.ErrNotExist)
	assert.Empty(t, w.applied)
}

func TestWatcher_Refused_UntilTheFilesAreRight(t *testing.T) {
	w := mustWatch(t, nil)
	assert.Nil(t, w.Refused())
	assert.Empty(t, w.Notes())
	good, err := os.ReadFile(w.functions)
	require.NoError(t, err)
	for name, spoil := range map[string]func(){
		"wrong": func() { w.write(t, w.functions, "functions: {a: {image: a, timeout: 0, memory_size: 1}}\n") },
		"gone":  func() { require.NoError(t, os.Remove(w.functions)) },
	} {
		spoil()
		require.Error(t, w.Reload(), name)
		require.NotNil(t, w.Refused(), name)
		assert.NotEmpty(t, w.Refused().Problems)
		assert.Len(t, w.Notes(), 1+len(w.Refused().Problems))
		// As it was before, found by watching alone.
		w.write(t, w.functions, string(good))
		assert.Eventually(t, func() bool { return w.Refused() == nil }, time.Minute, 10*time.Millisecond, name)
	}
}

func TestWatcher_Close_EndsTheWatching(t *testing.T) {
	w := mustWatch(t, nil)
	require.NoError(t, w.Close())
	w.write(t, w.functions, noFunctions)
	require.NoError(t, w.Reload(), "Reload still works")
	assert.Len(t, w.applied, 1)
}

func TestOpen_InvalidFile_IsAnError(t *testing.T) {
	dir := t.TempDir()
	functions, routing := filepath.Join(dir, "functions.yml"), filepath.Join(dir, "routing.yml")
	require.NoError(t, os.WriteFile(functions, []byte("functions: 5\n"), 0o600))
	require.NoError(t, os.WriteFile(routing, []byte(noRoutes), 0o600))
	_, _, err := config.Open(functions, routing, options(), slog.New(slog.DiscardHandler))
	var e *config.Error
	require.ErrorAs(t, err, &e)
	assert.Len(t, e.Problems, 1)
}
