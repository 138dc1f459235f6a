package settings

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/edge-serverless-box/esb/guard/setting"
)

func mustWrite(t *testing.T, text string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "secret")
	require.NoError(t, os.WriteFile(file, []byte(text), 0o600))
	return file
}

func TestLoad_SecretsInFiles_AreReadAsTheyAre(t *testing.T) {
	const awkward = `a "$b" 'c' #d \e=`
	env := map[string]string{
		"ESB_HOME":                t.TempDir(),
		"X_API_KEY_FILE":          mustWrite(t, "key-of-a-file-that-is-long\n"),
		"AUTH_PASS_FILE":          mustWrite(t, awkward+"\r\n"),
		"JWT_SECRET_KEY_FILE":     mustWrite(t, "0123456789abcdef0123456789abcdef"),
		"LAMBDA_ACCESS_KEYS_FILE": mustWrite(t, "mine:0123456789abcdef\n"),
	}
	s, err := Load(func(name string) string { return env[name] })
	require.NoError(t, err)
	assert.Equal(t, setting.Secret("key-of-a-file-that-is-long"), s.APIKey)
	assert.Equal(t, setting.Secret(awkward), s.AuthPass)
	assert.Equal(t, setting.Secret("0123456789abcdef0123456789abcdef"), s.JWTSecret)
	assert.Equal(t, setting.Secret("0123456789abcdef"), s.LambdaAccessKeys["mine"])
	assert.Equal(t, []string{":443"}, s.HTTPSAddrs, "all secrets are somebody's own")

	env["AUTH_PASS"] = "of-the-variable"
	s, err = Load(func(name string) string { return env[name] })
	require.NoError(t, err)
	assert.Equal(t, setting.Secret("of-the-variable"), s.AuthPass)
}

func TestLoad_FileOfASecret_ThatHasNone_IsAnError(t *testing.T) {
	env := map[string]string{"ESB_HOME": t.TempDir(), "X_API_KEY_FILE": filepath.Join(t.TempDir(), "nowhere"), "AUTH_PASS_FILE": mustWrite(t, "\n")}
	_, err := Load(func(name string) string { return env[name] })
	require.ErrorContains(t, err, "X_API_KEY_FILE: open ")
	require.ErrorContains(t, err, "AUTH_PASS_FILE: there is nothing in ")
}
