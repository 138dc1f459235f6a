package app

import (
	"runtime"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestShare_IsOfTheMachineWithinBounds(t *testing.T) {
	assert.Equal(t, int64(64<<20), logsCaches.of(256<<20))
	assert.Equal(t, int64(1<<30/100*15), logsCaches.of(1<<30))
	assert.Equal(t, int64(512<<20), logsCaches.of(64<<30))
}

func TestBounds_EachStoreHasSome(t *testing.T) {
	env, args, err := bounds(false)
	require.NoError(t, err)
	assert.Empty(t, args)
	require.Len(t, env, 1)
	assert.True(t, strings.HasPrefix(env[0], "GOMEMLIMIT="), env[0])
	env, args, err = bounds(true)
	require.NoError(t, err)
	require.Len(t, args, 1)
	number, ok := strings.CutPrefix(args[0], "-memory.allowedBytes=")
	require.True(t, ok, args[0])
	n, err := strconv.ParseInt(number, 10, 64)
	require.NoError(t, err)
	assert.LessOrEqual(t, n, int64(512<<20))
	assert.Contains(t, env, "GOMEMLIMIT="+strconv.FormatInt(2*n, 10))
	assert.Contains(t, env, "GOMAXPROCS="+strconv.Itoa(max(runtime.NumCPU()/2, 1)))
}
