package lifecycle

import (
	"bytes"
	"net/http"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/edge-serverless-box/esb/tests/stack"
)

// One store's damaged file does not take the box down: `up` names it, the rest serves, and it comes back by itself once the file is
// gone.
func TestUp_DataOfOneStoreIsDamaged_TheRestServes(t *testing.T) {
	box := mustPrepare(t, stack.Options{})
	t.Cleanup(func() { assert.NoError(t, box.Down()) })
	file := filepath.Join(box.Home, "data", "db", "dynamodb.sqlite")
	require.NoError(t, os.MkdirAll(filepath.Dir(file), 0o700))
	require.NoError(t, os.WriteFile(file, bytes.Repeat([]byte("noise"), 20_000), 0o600))

	out, err := box.Esb(t.Context(), "up")
	require.NoError(t, err, out)
	assert.Contains(t, out, "warning: the store db does not work")
	assert.Contains(t, out, filepath.Dir(file))
	assert.Contains(t, out, "not a valid SQLite database")
	token, err := box.Token(t.Context())
	require.NoError(t, err)
	assert.Equal(t, http.StatusOK, box.Post(t, "/api/echo", token, `{"message":"x"}`).Status)
	answer, err := box.Do(t.Context(), http.MethodGet, box.S3URL+"/_health", "", nil)
	require.NoError(t, err)
	assert.Equal(t, http.StatusOK, answer.Status, "the other stores serve")
	out, err = box.Esb(t.Context(), "status")
	require.Error(t, err, "what does not work is said")
	assert.Contains(t, out, filepath.Dir(file))

	require.NoError(t, os.Remove(file))
	stack.Eventually(t, func() bool {
		_, err := box.Esb(t.Context(), "status")
		return err == nil
	}, "the store must come back, and the box be healthy")
}
