package lock

import (
	"context"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestTake_SomebodyElseHasIt_WaitsUntilItIsFree(t *testing.T) {
	path := filepath.Join(t.TempDir(), "made", "lock")
	first, err := Take(t.Context(), path, func() { t.Error("nobody else has it") })
	require.NoError(t, err)
	second, err := Take(t.Context(), path, func() { require.NoError(t, first.Close()) })
	require.NoError(t, err)
	assert.NoError(t, second.Close())
}

func TestTake_ContextEnds_GivesUp(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	first, err := Take(t.Context(), path, nil)
	require.NoError(t, err)
	defer func() { assert.NoError(t, first.Close()) }()
	ctx, cancel := context.WithCancel(t.Context())
	_, err = Take(ctx, path, cancel)
	assert.ErrorIs(t, err, context.Canceled)
}
