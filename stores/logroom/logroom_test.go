package logroom

import (
	"context"
	"crypto/rand"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const megabyte = 1 << 20

// mustWrite gives a day so many bytes.
func mustWrite(t *testing.T, dir, day string, bytes int) {
	t.Helper()
	path := filepath.Join(dir, partitions, day, "datadb")
	require.NoError(t, os.MkdirAll(path, 0o700))
	data := make([]byte, bytes)
	_, _ = rand.Read(data)
	require.NoError(t, os.WriteFile(filepath.Join(path, "values.bin"), data, 0o600))
}

func mustOpen(t *testing.T, now *time.Time, fail *error) (room *Room, detached *[]string) {
	t.Helper()
	detached = new([]string)
	r := newRoom(Config{Dir: t.TempDir(), MaxBytes: 30 * megabyte, Logger: slog.New(slog.DiscardHandler), Detach: func(_ context.Context, day string) error {
		*detached = append(*detached, day)
		return *fail
	}})
	r.now = func() time.Time { return *now }
	require.NoError(t, os.MkdirAll(filepath.Join(r.cfg.Dir, partitions), 0o700))
	return r, detached
}

func TestRoom_OldDaysGoFirst(t *testing.T) {
	now, fail := time.Date(2026, 11, 29, 23, 0, 0, 0, time.UTC), error(nil)
	r, detached := mustOpen(t, &now, &fail)
	for _, day := range []string{"20261127", "20261128", "20261129"} {
		mustWrite(t, r.cfg.Dir, day, 4*megabyte)
	}
	mustWrite(t, r.cfg.Dir, "no-day", 1)
	r.look(t.Context())
	assert.Empty(t, *detached)
	assert.Empty(t, r.Take(megabyte))

	mustWrite(t, r.cfg.Dir, "20261129", 8*megabyte)
	r.look(t.Context())
	assert.Equal(t, []string{"20261127"}, *detached)
	assert.NoDirExists(t, filepath.Join(r.cfg.Dir, partitions, "20261127"))
	assert.DirExists(t, filepath.Join(r.cfg.Dir, partitions, "20261128"))
	left, err := filepath.Glob(filepath.Join(r.cfg.Dir, droppedPrefix+"*"))
	require.NoError(t, err)
	assert.Empty(t, left)
	assert.Empty(t, r.Take(megabyte))
}

func TestRoom_PresentDayAlone_TakesNothingUntilItIsOver(t *testing.T) {
	now, fail := time.Date(2026, 11, 29, 23, 0, 0, 0, time.UTC), error(nil)
	r, detached := mustOpen(t, &now, &fail)
	mustWrite(t, r.cfg.Dir, "20261129", 16*megabyte)
	r.look(t.Context())
	assert.Contains(t, r.Take(1), "VICTORIALOGS_MAX_MB")
	assert.Empty(t, *detached)
	now = now.Add(2 * time.Hour)
	r.look(t.Context())
	assert.Equal(t, []string{"20261129"}, *detached)
	assert.Empty(t, r.Take(1))
}

func TestRoom_WhatIsLetInCountsBeforeItIsSeen(t *testing.T) {
	now, fail := time.Date(2026, 11, 29, 23, 0, 0, 0, time.UTC), error(nil)
	r, _ := mustOpen(t, &now, &fail)
	r.look(t.Context())
	taken := 0
	for r.Take(megabyte) == "" {
		taken++
		require.Less(t, taken, 20)
	}
	assert.InDelta(t, 15, taken, 1)
	r.look(t.Context())
	assert.Empty(t, r.Take(megabyte), "nothing of it is on the disk")
}

func TestRoom_VictoriaLogsDoesNotLetGo_NothingIsRemoved(t *testing.T) {
	now, fail := time.Date(2026, 11, 29, 23, 0, 0, 0, time.UTC), errors.New("not now")
	r, _ := mustOpen(t, &now, &fail)
	mustWrite(t, r.cfg.Dir, "20261128", 16*megabyte)
	r.look(t.Context())
	assert.DirExists(t, filepath.Join(r.cfg.Dir, partitions, "20261128"))
	assert.NotEmpty(t, r.Take(1))
}

func TestOpen_RemovesWhatAKillHasLeft(t *testing.T) {
	dir := t.TempDir()
	left := filepath.Join(dir, droppedPrefix+"20261127", "datadb")
	require.NoError(t, os.MkdirAll(left, 0o700))
	r, err := Open(Config{Dir: dir, MaxBytes: megabyte, Logger: slog.New(slog.DiscardHandler)})
	require.NoError(t, err)
	require.NoError(t, r.Close())
	assert.NoDirExists(t, filepath.Dir(left))
}
