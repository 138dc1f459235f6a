package front_test

import (
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/edge-serverless-box/esb/sigv4"
	"github.com/edge-serverless-box/esb/sigv4/functionkeys"
	"github.com/edge-serverless-box/esb/stores/front"
)

const master = "0123456789abcdef0123456789abcdef"

func TestKeyFile_IsReadWhenItIsThere_AndAgainWhenItHasChanged(t *testing.T) {
	path := filepath.Join(t.TempDir(), "function-keys")
	file := front.NewKeyFile(path, slog.New(slog.DiscardHandler))
	of := func(master string) sigv4.Credentials {
		keys, err := functionkeys.New([]byte(master))
		require.NoError(t, err)
		return keys.Of("f")
	}
	has := func(c sigv4.Credentials) func() bool {
		return func() bool {
			secret, ok := file.Secret(c.AccessKeyID)
			return ok && secret == c.SecretAccessKey
		}
	}
	assert.False(t, has(of(master))())
	write := func(text string) {
		require.NoError(t, os.WriteFile(path+".new", []byte(text), 0o600))
		require.NoError(t, os.Rename(path+".new", path))
	}
	write(master + "\n")
	require.Eventually(t, has(of(master)), time.Minute, 10*time.Millisecond)
	other := strings.ToUpper(master)
	write(other)
	require.Eventually(t, has(of(other)), time.Minute, 10*time.Millisecond)
	assert.False(t, has(of(master))())
	require.NoError(t, os.WriteFile(path+".new", []byte(master), 0o644))
	require.NoError(t, os.Chmod(path+".new", 0o644))
	require.NoError(t, os.Rename(path+".new", path))
	require.Never(t, has(of(master)), 1500*time.Millisecond, 100*time.Millisecond, "everybody may have read it")
	require.NoError(t, os.Remove(path))
	assert.True(t, has(of(other))(), "what was read stays")
	_, ok := file.Secret("AKIAIOSFODNN7EXAMPLE")
	assert.False(t, ok)
}
