package containerd

import (
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestNodeHeap_FollowsMemory_UnlessNodeOptionsDo(t *testing.T) {
	ours := []string{"/usr/bin/node", "/var/runtime/bootstrap.js"}
	// AWS's start script: 5 % of the memory for a semi-space, 90 % for the old generation.
	assert.Equal(t, []string{"/usr/bin/node", "--max-semi-space-size=6", "--max-old-space-size=116", "/var/runtime/bootstrap.js"}, nodeHeap(ours, 128, ""))
	assert.Equal(t, []string{"/usr/bin/node", "--max-semi-space-size=88", "--max-old-space-size=1593", "/var/runtime/bootstrap.js"},
		nodeHeap(ours, 1769, "--enable-source-maps"))
	for _, options := range []string{"--max-old-space-size=64", "--max_old_space_size=64", "--trace-gc --max-semi-space-size=1", "--max_semi_space_size=1"} {
		assert.Equal(t, ours, nodeHeap(ours, 1769, options), options)
	}
	for _, others := range [][]string{nil, {"/usr/bin/node"}, {"/usr/bin/node", "/var/task/server.js"}, {"/usr/bin/python3", "/var/runtime/bootstrap.js"}} {
		assert.Equal(t, others, nodeHeap(others, 1769, ""))
	}
	assert.Equal(t, []string{"/usr/bin/node", "/var/runtime/bootstrap.js"}, ours, "the image's own list is not written to")
}
