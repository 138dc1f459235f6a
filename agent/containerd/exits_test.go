package containerd

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/edge-serverless-box/esb/agent"
)

func TestExits_ReachEachWatcher_UntilItLeavesOrFallsBehind(t *testing.T) {
	var e exits
	e.tell(agent.Exit{ID: "nobody listens"})
	leaving, leave := context.WithCancel(t.Context())
	first, second := e.watch(leaving), e.watch(t.Context())
	e.tell(agent.Exit{ID: "a", FunctionName: "f", Code: 137})
	assert.Equal(t, agent.Exit{ID: "a", FunctionName: "f", Code: 137}, <-first)
	leave()
	_, open := <-first
	assert.False(t, open)
	for range 2 * exitsHeld {
		e.tell(agent.Exit{ID: "b"})
	}
	n := 0
	for range second {
		n++
	}
	assert.Equal(t, exitsHeld, n, "what is held is there, and then it must look for itself")
	e.tell(agent.Exit{ID: "c"})
}

// TestArchives_WrittenJustNow_AreLeftAlone: an archive is written in steps, and each step looks like a new one.
func TestArchives_WrittenJustNow_AreLeftAlone(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "a.tar")
	mustTar(t, file, "manifest.json", `[{"RepoTags":["a:1"]}]`)
	a := newArchives(dir, "r.test", slog.New(slog.DiscardHandler))
	files, err := a.changed("", time.Minute)
	require.NoError(t, err)
	assert.Empty(t, files)
	for _, at := range []time.Time{time.Now().Add(-time.Hour), time.Now().Add(time.Hour)} {
		require.NoError(t, os.Chtimes(file, at, at))
		files, err = a.changed("", time.Minute)
		require.NoError(t, err)
		assert.Len(t, files, 1, "old, or of a clock that was set")
	}
	assert.True(t, a.tryOnce(file, "1"))
	assert.False(t, a.tryOnce(file, "1"), "one that cannot be imported is not tried at each look")
	assert.True(t, a.tryOnce(file, "2"))
}
