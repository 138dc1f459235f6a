package logship

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// Files of ended containers stay for people to read, up to a thousand: they must not be written down with each batch.
func TestShipper_ManyEndedFiles_ABatchWritesLittle(t *testing.T) {
	const ended, rounds = keepFiles - 3*endedSince, 10
	store := mustStore(t)
	cfg, containers := config(t, store.URL)
	cfg.BatchBytes = 1 << 20
	for i := range ended {
		name := fmt.Sprintf("lambda-f-%d", i)
		mustAppend(t, cfg, name, "a line\n")
		containers.end(name)
	}
	var written atomic.Int64
	s := mustOpen(t, cfg, func(s *Shipper) {
		s.keep = func(path string, o offsets) error {
			data, err := json.Marshal(o)
			written.Add(int64(len(data)))
			if err != nil {
				return err
			}
			return writeOffsets(path, o)
		}
	})
	shipped := func(n int64) {
		require.Eventually(t, func() bool { return s.Stats().Lines == n }, patience, time.Millisecond)
	}
	shipped(ended)
	before := written.Load()
	for i := range rounds {
		mustAppend(t, cfg, "lambda-g-1", "another line\n")
		shipped(ended + 1 + int64(i))
	}
	assert.Less(t, written.Load()-before, int64(rounds*5000), "bytes that %d batches wrote", rounds)

	// Containers end meanwhile: as many at once as are written with each batch, and more.
	for i := range 2 * endedSince {
		name := fmt.Sprintf("lambda-h-%d", i)
		mustAppend(t, cfg, name, "the only line\n")
		containers.end(name)
	}
	shipped(ended + rounds + 2*endedSince)
	mustAppend(t, cfg, "lambda-g-1", "last line\n")
	shipped(ended + rounds + 2*endedSince + 1)

	// One that finds what a killed one has left knows all of it.
	next, err := newShipper(cfg)
	require.NoError(t, err)
	require.NoError(t, s.Close())
	known := positions(next)
	require.Equal(t, ended+2*endedSince+1, len(known))
	assert.True(t, maps.Equal(positions(s), known))
	// And so does one after an end in order, also a program that knows the one file alone.
	assert.NoFileExists(t, filepath.Join(cfg.Dir, sinceFile))
	last, err := newShipper(cfg)
	require.NoError(t, err)
	assert.True(t, maps.Equal(known, positions(last)))
}

func positions(s *Shipper) map[string]position {
	found := map[string]position{}
	for _, f := range s.files {
		found[f.Name] = f.position
	}
	return found
}

// Its new lines may be longer than what was shipped of the old ones.
func TestShipper_FileIsCutAndTheAgentKilled_ShipsTheNewContent(t *testing.T) {
	store := mustStore(t)
	cfg, _ := config(t, store.URL)
	path := mustAppend(t, cfg, "lambda-f-1", "same head\none\n")
	mustAppend(t, cfg, "lambda-g-1", "beside\n")
	s := mustOpen(t, cfg)
	want := []string{"lambda-f-1 same head", "lambda-f-1 one", "lambda-g-1 beside"}
	store.once(t, want...)
	require.NoError(t, os.Truncate(path, 0))
	// The cut is seen with the next batch.
	mustAppend(t, cfg, "lambda-g-1", "again\n")
	store.once(t, append(want, "lambda-g-1 again")...)
	require.Eventually(t, func() bool { return s.Stats().Lines == 4 && s.Stats().BacklogBytes == 0 }, patience, time.Millisecond)
	next, err := newShipper(cfg)
	require.NoError(t, err)
	assert.NotContains(t, positions(next), "functions/lambda-f-1.log")
}

func TestShipper_DamagedSince_ShipsThoseLinesAgain(t *testing.T) {
	store := mustStore(t)
	cfg, _ := config(t, store.URL)
	mustAppend(t, cfg, "lambda-f-1", "one\n")
	s := mustOpen(t, cfg)
	store.once(t, "lambda-f-1 one")
	require.NoError(t, s.Close())
	require.NoError(t, os.WriteFile(filepath.Join(cfg.Dir, sinceFile), []byte("{"), 0o600))
	mustAppend(t, cfg, "lambda-f-1", "two\n")
	mustOpen(t, cfg)
	store.once(t, "lambda-f-1 one", "lambda-f-1 two")
	assert.FileExists(t, filepath.Join(cfg.Dir, sinceFile+".damaged"))
}

// TestShipper_OlderProgramRanBetween_ItsPositionsCount: it knows offsetsFile alone, and leaves sinceFile as it was.
func TestShipper_OlderProgramRanBetween_ItsPositionsCount(t *testing.T) {
	store := mustStore(t)
	cfg, _ := config(t, store.URL)
	mustAppend(t, cfg, "lambda-f-1", "one\n")
	s := mustOpen(t, cfg)
	store.once(t, "lambda-f-1 one")
	mustAppend(t, cfg, "lambda-f-1", "two\n")
	store.once(t, "lambda-f-1 one", "lambda-f-1 two")
	since := filepath.Join(cfg.Dir, sinceFile)
	require.Eventually(t, func() bool { _, err := os.Stat(since); return err == nil }, patience, time.Millisecond)
	left, err := os.ReadFile(since) // as a kill leaves it
	require.NoError(t, err)
	require.NoError(t, s.Close())

	// The older one has shipped more, and says so in its form.
	path := mustAppend(t, cfg, "lambda-f-1", "three\n")
	var older map[string]any
	text, err := os.ReadFile(filepath.Join(cfg.Dir, offsetsFile))
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(text, &older))
	delete(older, "series")
	info, err := os.Stat(path)
	require.NoError(t, err)
	older["files"].([]any)[0].(map[string]any)["offset"] = info.Size()
	text, err = json.Marshal(older)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(cfg.Dir, offsetsFile), text, 0o600))
	require.NoError(t, os.WriteFile(since, left, 0o600))

	mustAppend(t, cfg, "lambda-f-1", "four\n")
	mustOpen(t, cfg)
	store.once(t, "lambda-f-1 one", "lambda-f-1 two", "lambda-f-1 four")
}
