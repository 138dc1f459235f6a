package lifecycle

import (
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/edge-serverless-box/esb/tests/stack"
)

// checkImages lists the images of a box that serves, and tries to remove those of its functions.
func checkImages(t *testing.T, box *stack.Stack) {
	t.Helper()
	said, err := box.Esb(t.Context(), "images", "-json")
	require.NoError(t, err, said)
	var list struct {
		Images []struct {
			Name  string `json:"name"`
			InUse bool   `json:"in_use"`
			Bytes int64  `json:"bytes"`
		} `json:"images"`
		Bytes int64 `json:"bytes"`
	}
	require.NoError(t, json.Unmarshal([]byte(said), &list), said)
	assert.Positive(t, list.Bytes)
	inUse := ""
	for _, i := range list.Images {
		if i.InUse {
			inUse = i.Name
			assert.Positive(t, i.Bytes, i.Name)
		}
	}
	require.NotEmpty(t, inUse, said)
	said, err = box.Esb(t.Context(), "images")
	require.NoError(t, err, said)
	assert.Contains(t, said, inUse)
	said, err = box.Esb(t.Context(), "images", "rm", inUse)
	require.Error(t, err)
	assert.Contains(t, said, "image "+inUse+" is in use")
	said, err = box.Esb(t.Context(), "images", "rm", "nobody/has:1")
	require.Error(t, err)
	assert.Contains(t, said, "there is no image")
	said, err = box.Esb(t.Context(), "images", "prune", "-days", "1")
	require.NoError(t, err, said)
	assert.Contains(t, said, "nothing is unused")
}
