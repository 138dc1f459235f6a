package functionkeys_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/edge-serverless-box/esb/sigv4/functionkeys"
)

const master = "0123456789abcdef0123456789abcdef"

func TestKeys_OfAFunction_HaveAWSsFormAndFollowFromTheMaster(t *testing.T) {
	keys, err := functionkeys.New([]byte(master))
	require.NoError(t, err)
	again, err := functionkeys.New([]byte(master))
	require.NoError(t, err)
	other, err := functionkeys.New([]byte(strings.ToUpper(master)))
	require.NoError(t, err)

	c := keys.Of("lambda-echo")
	assert.Regexp(t, regexp.MustCompile(`^ASIAESB[A-Z2-7]{13}$`), c.AccessKeyID)
	assert.Len(t, c.SecretAccessKey, 40)
	assert.NotEmpty(t, c.SessionToken)
	assert.Equal(t, c, again.Of("lambda-echo"))
	assert.NotEqual(t, c.AccessKeyID, keys.Of("lambda-other").AccessKeyID)
	assert.NotEqual(t, c.SecretAccessKey, keys.Of("lambda-other").SecretAccessKey)
	assert.NotEqual(t, c.AccessKeyID, other.Of("lambda-echo").AccessKeyID)

	secret, ok := keys.Secret(c.AccessKeyID)
	assert.True(t, ok)
	assert.Equal(t, c.SecretAccessKey, secret)
	secret, _ = other.Secret(c.AccessKeyID)
	assert.NotEqual(t, c.SecretAccessKey, secret)
	for _, id := range []string{"", "ASIAESB", "AKIAIOSFODNN7EXAMPLE", c.AccessKeyID + "A"} {
		_, ok := keys.Secret(id)
		assert.False(t, ok, id)
	}
}

func TestOpen_ManyAtOnce_AgreeOnOneSecretThatOthersCannotRead(t *testing.T) {
	path := filepath.Join(t.TempDir(), "home", "function-keys")
	ids := make([]string, 8)
	var all sync.WaitGroup
	for i := range ids {
		all.Go(func() {
			if keys, err := functionkeys.Open(path); assert.NoError(t, err) {
				ids[i] = keys.Of("f").AccessKeyID
			}
		})
	}
	all.Wait()
	for _, id := range ids {
		assert.Equal(t, ids[0], id)
	}
	info, err := os.Stat(path)
	require.NoError(t, err)
	assert.Equal(t, os.FileMode(0o600), info.Mode().Perm())
	left, err := os.ReadDir(filepath.Dir(path))
	require.NoError(t, err)
	assert.Len(t, left, 1, "no temporary file stays")
}

func TestOpen_FileIsNoSecret_IsRefusedWithWhatToDo(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keys")
	require.NoError(t, os.WriteFile(path, []byte("short\n"), 0o600))
	_, err := functionkeys.Open(path)
	assert.ErrorContains(t, err, "at least 32 bytes, has 5; remove the file")
	require.NoError(t, os.WriteFile(path, []byte(master), 0o600))
	require.NoError(t, os.Chmod(path, 0o644))
	_, err = functionkeys.Open(path)
	assert.ErrorContains(t, err, "chmod 600 "+path)
}
