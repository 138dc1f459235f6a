package bearer_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/edge-serverless-box/esb/guard/bearer"
)

func TestMatches_TheTokenAloneAndOnce(t *testing.T) {
	const token = bearer.Token("abc")
	for name, c := range map[string]struct {
		token  bearer.Token
		values []string
		want   bool
	}{
		"right":          {token, []string{"Bearer abc"}, true},
		"none":           {token, nil, false},
		"empty":          {token, []string{""}, false},
		"wrong":          {token, []string{"Bearer abd"}, false},
		"longer":         {token, []string{"Bearer abcd"}, false},
		"without scheme": {token, []string{"abc"}, false},
		"twice":          {token, []string{"Bearer abc", "Bearer abc"}, false},
		"no token set":   {"", []string{"Bearer "}, false},
	} {
		t.Run(name, func(t *testing.T) { assert.Equal(t, c.want, c.token.Matches(c.values)) })
	}
}

func TestFile_IsReadWithEachCall(t *testing.T) {
	path := filepath.Join(t.TempDir(), "token")
	f := bearer.File(path)
	_, err := f.GetRequestMetadata(t.Context())
	require.ErrorIs(t, err, os.ErrNotExist)
	for _, token := range []string{"one", "two"} {
		require.NoError(t, os.WriteFile(path, []byte(token+"\n"), 0o600))
		got, err := f.GetRequestMetadata(t.Context())
		require.NoError(t, err)
		assert.True(t, bearer.Token(token).Matches([]string{got[bearer.Header]}))
	}
	require.NoError(t, os.Chmod(path, 0o640))
	_, err = f.GetRequestMetadata(t.Context())
	assert.ErrorContains(t, err, "chmod 600")
}
