package cni

import (
	"strconv"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/edge-serverless-box/esb/agent"
)

func TestIDRanges_EachIsTakenOnceAndRests(t *testing.T) {
	r := idRanges{taken: map[int]bool{1: true}} // of an earlier run
	cfg := Config{UIDBase: DefaultUIDBase}
	seen := map[uint32]string{}
	for range ranges - 1 {
		id, err := r.newID()
		require.NoError(t, err)
		require.Regexp(t, attachmentID, id)
		first := cfg.firstID(id)
		require.Empty(t, seen[first])
		seen[first] = id
		require.GreaterOrEqual(t, first, uint32(DefaultUIDBase+2*IDs))
		require.LessOrEqual(t, uint64(first)+IDs, uint64(DefaultUIDBase+AllIDs))
	}
	_, err := r.newID()
	assert.Equal(t, agent.CodeExhausted, agent.ErrorCode(err))
	r.release("of an agent without ranges")
	r.release("0123456789abcdef-7")
	id, err := r.newID()
	require.NoError(t, err)
	number, ok := rangeOf(id)
	assert.True(t, ok)
	assert.Equal(t, 7, number)
}

func TestRangeOf_TakesNothingElse(t *testing.T) {
	for _, id := range []string{"", "0123456789abcdef", "a-", "a--1", "a-x", "a-" + strconv.Itoa(ranges)} {
		_, ok := rangeOf(id)
		assert.False(t, ok, id)
	}
}
