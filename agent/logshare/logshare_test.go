package logshare

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
)

func TestShares_OneThatIsUsedUp_LeavesTheOthersAndTomorrow(t *testing.T) {
	var log bytes.Buffer
	now := time.Date(2026, 11, 29, 23, 59, 0, 0, time.UTC)
	s := New(100, slog.New(slog.NewTextHandler(&log, nil)))
	s.now = func() time.Time { return now }
	assert.True(t, s.Take("loud", 60, 1))
	assert.False(t, s.Take("loud", 60, 2))
	assert.False(t, s.Take("loud", 60, 3))
	assert.True(t, s.Take("loud", 40, 1), "what is left is its own")
	assert.True(t, s.Take("quiet", 60, 1))
	assert.EqualValues(t, 5, s.Refused())
	assert.Equal(t, 1, strings.Count(log.String(), "\n"), log.String())
	now = now.Add(2 * time.Minute)
	assert.True(t, s.Take("loud", 60, 1))
	assert.Contains(t, log.String(), "lines=5")
	assert.NotContains(t, log.String(), "function=quiet")
}

func TestShares_NoBound(t *testing.T) {
	s := New(0, slog.New(slog.DiscardHandler))
	assert.True(t, s.Take("loud", 1<<40, 1))
	assert.Zero(t, s.Refused())
}
