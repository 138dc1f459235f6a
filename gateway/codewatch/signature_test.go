package codewatch

import (
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// Two changes within one tick of a file system's clock look the same, so what has changed just now is read again the next time, and
// what the file system tells of it counts later.
func TestVersionOf_ChangedJustNow_IsReadAgain(t *testing.T) {
	path := filepath.Join(t.TempDir(), "app.zip")
	w := &Watcher{log: slog.New(slog.DiscardHandler), notify: &folders{}}
	s := &source{location: path}
	look := func() {
		t.Helper()
		version, err := w.versionOf(t.Context(), s)
		require.NoError(t, err)
		s.version = version
	}
	begin := time.Now()
	require.NoError(t, os.WriteFile(path, []byte("a"), 0o644))
	look()
	if seen := s.seen; time.Since(begin) < settling {
		assert.Empty(t, seen)
	}
	require.Eventually(t, func() bool { look(); return s.seen != "" }, time.Minute, 50*time.Millisecond)
	first, signature := s.version, s.seen
	look()
	assert.Equal(t, signature, s.seen)
	assert.Equal(t, first, s.version)

	begin = time.Now()
	require.NoError(t, os.WriteFile(path, []byte("b"), 0o644))
	look()
	assert.NotEqual(t, first, s.version)
	if seen := s.seen; time.Since(begin) < settling {
		assert.Empty(t, seen)
	}
}
