package dockerpasswords_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/crypto/bcrypt"

	"github.com/edge-serverless-box/esb/stores/dockerpasswords"
)

func TestKeep_MakesPasswordsOnce_AndTakesThoseThatAreSet(t *testing.T) {
	dir := t.TempDir()
	read := func(name string) string {
		t.Helper()
		info, err := os.Stat(filepath.Join(dir, name))
		require.NoError(t, err)
		assert.Equal(t, "-rw-------", info.Mode().String())
		text, err := os.ReadFile(filepath.Join(dir, name))
		require.NoError(t, err)
		return strings.TrimSpace(string(text))
	}
	opens := func(user, password string) {
		t.Helper()
		name, digest, _ := strings.Cut(read(dockerpasswords.Htpasswd), ":")
		assert.Equal(t, user, name)
		assert.NoError(t, bcrypt.CompareHashAndPassword([]byte(digest), []byte(password)))
	}
	vars := map[string]string{}
	keep := func() {
		t.Helper()
		require.NoError(t, dockerpasswords.Keep(dir, func(name string) string { return vars[name] }))
	}
	keep()
	first := []string{read(dockerpasswords.Logs), read(dockerpasswords.LogsAdmin), read(dockerpasswords.Registry), read(dockerpasswords.Htpasswd)}
	assert.NotEqual(t, first[0], first[1])
	opens("esb", first[2])
	keep()
	assert.Equal(t, first, []string{read(dockerpasswords.Logs), read(dockerpasswords.LogsAdmin), read(dockerpasswords.Registry), read(dockerpasswords.Htpasswd)})

	vars = map[string]string{"VICTORIALOGS_PASSWORD": "my logs", "ESB_REGISTRY_PASSWORD": "my images", "ESB_REGISTRY_USER": "me"}
	keep()
	assert.Equal(t, "my logs", read(dockerpasswords.Logs))
	assert.Equal(t, "my images", read(dockerpasswords.Registry))
	opens("me", "my images")
}
