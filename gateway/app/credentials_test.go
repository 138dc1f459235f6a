package app

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestCredentials_PrintsWhatTheBoxHasMade(t *testing.T) {
	env := map[string]string{"ESB_HOME": t.TempDir(), "AUTH_PASS": "of-my-own-choice"}
	getenv := func(name string) string { return env[name] }
	var first, second strings.Builder
	require.NoError(t, Credentials(getenv, &first))
	require.NoError(t, Credentials(getenv, &second))
	assert.Regexp(t, `^LAMBDA_ACCESS_KEYS=ESB[A-Z0-9]{17}:[A-Z0-9]{40}\nX_API_KEY=[A-Z0-9]{26}\n$`, first.String())
	assert.Equal(t, first.String(), second.String())

	env["X_API_KEY"], env["LAMBDA_ACCESS_KEYS"], env["ESB_HOME"] = "mine-of-my-own-choice", "off", t.TempDir()
	first.Reset()
	require.NoError(t, Credentials(getenv, &first))
	assert.Empty(t, first.String())
}
