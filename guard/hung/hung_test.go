package hung

import (
	"errors"
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// service is one whose checks a test makes.
type service struct {
	file  string
	now   time.Duration
	ended int
}

func mustOpen(t *testing.T) *service {
	t.Helper()
	return &service{file: filepath.Join(t.TempDir(), "health")}
}

// check makes a check after a time that has passed.
func (s *service) check(after time.Duration, asked error) error {
	s.now += after
	return note(s.file, asked, func() (time.Duration, error) { return s.now, nil }, func() error { s.ended++; return nil })
}

var (
	errHangs    = fmt.Errorf("ask it: %w", ErrSilent)
	errNotReady = errors.New("is not ready")
)

func TestNote_SilentForTheLimit_IsEnded(t *testing.T) {
	s := mustOpen(t)
	require.NoError(t, s.check(0, nil))
	require.ErrorIs(t, s.check(time.Second, errHangs), ErrSilent)
	require.ErrorIs(t, s.check(Limit-time.Second, errHangs), ErrSilent)
	assert.Zero(t, s.ended)
	require.ErrorIs(t, s.check(time.Second, errHangs), ErrSilent)
	assert.Equal(t, 1, s.ended)
}

func TestNote_NeverAnswered_IsLeftToStart(t *testing.T) {
	s := mustOpen(t)
	for range 10 {
		require.ErrorIs(t, s.check(Limit, errHangs), ErrSilent)
	}
	assert.Zero(t, s.ended)
}

func TestNote_SaysThatItIsNotReady_IsNoSilence(t *testing.T) {
	s := mustOpen(t)
	for range 10 {
		require.ErrorIs(t, s.check(Limit, errNotReady), errNotReady)
	}
	assert.Zero(t, s.ended)
}

func TestNote_AnswersBetween_BeginsAnew(t *testing.T) {
	s := mustOpen(t)
	require.NoError(t, s.check(0, nil))
	for range 10 {
		require.Error(t, s.check(Limit/2, errHangs))
		require.Error(t, s.check(Limit/3, errHangs))
		require.NoError(t, s.check(Limit/3, nil))
	}
	assert.Zero(t, s.ended)
}
