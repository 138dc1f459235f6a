package credentials_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/edge-serverless-box/esb/guard/credentials"
)

func TestKeep_MakesEachSecretOnce(t *testing.T) {
	path := filepath.Join(t.TempDir(), "home", credentials.File)
	first, made, err := credentials.Keep(path, credentials.APIKey, credentials.LambdaKeys)
	require.NoError(t, err)
	assert.ElementsMatch(t, []string{credentials.APIKey, credentials.LambdaKeys}, made)
	assert.GreaterOrEqual(t, len(first[credentials.APIKey]), 26)
	assert.Regexp(t, regexp.MustCompile(`^[A-Z0-9]{20}:[A-Z0-9]{40}$`), first[credentials.LambdaKeys])

	again, made, err := credentials.Keep(path, credentials.LambdaKeys)
	require.NoError(t, err)
	assert.Empty(t, made)
	assert.Equal(t, map[string]string{credentials.LambdaKeys: first[credentials.LambdaKeys]}, again, "only what is asked for")

	// A later version needs one more.
	more, made, err := credentials.Keep(path, credentials.APIKey, credentials.S3SecretKey)
	require.NoError(t, err)
	assert.Equal(t, []string{credentials.S3SecretKey}, made)
	assert.Equal(t, first[credentials.APIKey], more[credentials.APIKey])
	assert.Len(t, more[credentials.S3SecretKey], 40)
	info, err := os.Stat(path)
	require.NoError(t, err)
	assert.Equal(t, fs.FileMode(0o600), info.Mode().Perm())
	entries, err := os.ReadDir(filepath.Dir(path))
	require.NoError(t, err)
	assert.Len(t, entries, 1, "nothing temporary is left")
}

func TestKeep_ManyPrograms_GetTheSame(t *testing.T) {
	path := filepath.Join(t.TempDir(), credentials.File)
	var wg sync.WaitGroup
	keys := make([]string, 20)
	for i := range keys {
		wg.Go(func() {
			kept, _, err := credentials.Keep(path, credentials.APIKey)
			assert.NoError(t, err)
			keys[i] = kept[credentials.APIKey]
		})
	}
	wg.Wait()
	for _, key := range keys {
		assert.NotEmpty(t, key)
		assert.Equal(t, keys[0], key)
	}
}

func TestKeep_WhatAPersonWrote_Stays(t *testing.T) {
	path := filepath.Join(t.TempDir(), credentials.File)
	require.NoError(t, os.WriteFile(path, []byte("# mine\n\nX_API_KEY=a=b \n"), 0o600))
	kept, _, err := credentials.Keep(path, credentials.APIKey, credentials.Password)
	require.NoError(t, err)
	assert.Equal(t, "a=b", kept[credentials.APIKey])
}

func TestKeep_RefusesWhatCannotBeTrusted(t *testing.T) {
	for name, c := range map[string]struct {
		text string
		mode fs.FileMode
		want string
	}{
		"others may read it": {"X_API_KEY=hush\n", 0o644, "chmod 600"},
		"a damaged line":     {"X_API_KEY=hush\nhush\n", 0o600, ":2: must be NAME=value"},
		"an empty secret":    {"AUTH_PASS=\n", 0o600, ":1: must be NAME=value"},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), credentials.File)
			require.NoError(t, os.WriteFile(path, []byte(c.text), 0o600))
			require.NoError(t, os.Chmod(path, c.mode))
			_, _, err := credentials.Keep(path, credentials.Password)
			require.ErrorContains(t, err, c.want)
			assert.NotContains(t, err.Error(), "hush")
		})
	}
}

func TestWellKnown(t *testing.T) {
	assert.True(t, credentials.WellKnown("onpremise-pass"))
	assert.False(t, credentials.WellKnown(""))
	kept, _, err := credentials.Keep(filepath.Join(t.TempDir(), credentials.File), credentials.Password)
	require.NoError(t, err)
	assert.False(t, credentials.WellKnown(strings.ToLower(kept[credentials.Password])))
}
