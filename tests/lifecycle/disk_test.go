package lifecycle

import (
	"os"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/edge-serverless-box/esb/tests/hoststate"
	"github.com/edge-serverless-box/esb/tests/smalldisk"
	"github.com/edge-serverless-box/esb/tests/stack"
)

// A power cut on a disk that is full is followed by a start on that disk. What is left is far below what events (64 MB), a new
// container and a warning need; the queue needs nothing (gateway/async), but pid files and containerd's databases some KB.
func TestUp_FullDisk_StartsWithAWarning(t *testing.T) {
	home := smalldisk.Mount(t, 6<<30)
	require.NoError(t, os.Mkdir(home, 0o700))
	box, err := stack.Prepare(home, stack.Options{})
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, box.Down()) })
	require.NoError(t, box.Up(t.Context()))
	invokeSome(t, box)
	killAll(t, box)
	filler := smalldisk.Fill(t, home, 24<<20)

	out, err := box.Esb(t.Context(), "up")
	require.NoError(t, err, out)
	assert.Contains(t, out, "warning: "+home+" has ")
	status, err := box.Esb(t.Context(), "status")
	require.Error(t, err, "a full disk is said")
	assert.Contains(t, status+err.Error(), "the disk of")
	_, err = box.Token(t.Context())
	require.NoError(t, err, "who has a key gets a token")

	require.NoError(t, os.Remove(filler))
	stack.Eventually(t, func() bool {
		_, err := box.Esb(t.Context(), "status")
		return err == nil
	}, "the box is healthy once the disk has room")
	invokeSome(t, box)
}

// killAll ends every process of the box as a power cut does.
func killAll(t *testing.T, box *stack.Stack) {
	t.Helper()
	killed, err := hoststate.KillAll(box.Home, box.Bridge)
	require.NoError(t, err)
	require.Positive(t, killed)
}
