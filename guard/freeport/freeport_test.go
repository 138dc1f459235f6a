package freeport_test

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/edge-serverless-box/esb/guard/freeport"
)

func TestFind_PortsDifferAndAreNoneOfOutgoingConnections(t *testing.T) {
	ports, err := freeport.Find(50)
	require.NoError(t, err)
	seen := map[int]bool{}
	for _, port := range ports {
		assert.False(t, seen[port])
		assert.Less(t, port, 32768)
		seen[port] = true
	}
	assert.Len(t, seen, 50)
}
