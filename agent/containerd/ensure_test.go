package containerd

import (
	"context"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/edge-serverless-box/esb/agent"
	"github.com/edge-serverless-box/esb/guard/turns"
)

// TestAnotherTurn_WaitsForItsPlace: a container that was bound and did not become ready has given its place back, and the one that is
// started instead must not be beyond MAX_CONCURRENT_STARTS.
func TestAnotherTurn_WaitsForItsPlace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &Runtime{starts: turns.New(1, 0)}
		spec := agent.ContainerSpec{FunctionName: "f"}
		first, err := r.awaitTurn(t.Context(), spec)
		require.NoError(t, err)
		first.Done() // its process runs
		other, err := r.awaitTurn(t.Context(), agent.ContainerSpec{FunctionName: "g"})
		require.NoError(t, err)

		left, leave := context.WithCancel(t.Context())
		leave()
		_, err = r.anotherTurn(left, spec, first)
		require.ErrorIs(t, err, context.Canceled)

		again := make(chan *turns.Turn, 1)
		go func() {
			turn, err := r.anotherTurn(t.Context(), spec, first)
			assert.NoError(t, err)
			again <- turn
		}()
		synctest.Wait()
		assert.Empty(t, again, "another one has the place")
		other.Done()
		turn := <-again
		assert.False(t, r.starts.Waiting())
		turn.Done()

		// One that has its place still gives it up first, and does not wait for itself.
		first, err = r.awaitTurn(t.Context(), spec)
		require.NoError(t, err)
		turn, err = r.anotherTurn(t.Context(), spec, first)
		require.NoError(t, err)
		turn.Done()
	})
}
