package images

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestReadCredentials(t *testing.T) {
	file := filepath.Join(t.TempDir(), "config.json")
	write := func(text string) { require.NoError(t, os.WriteFile(file, []byte(text), 0o600)) }

	write(`{"auths":{"r.test:5000":{"auth":"dTpw"},"https://index.docker.io/v1/":{"username":"x","password":"y"},"t.test":{"identitytoken":"tok"}}}`)
	creds, err := readCredentials(file)
	require.NoError(t, err)
	for host, want := range map[string][2]string{"r.test:5000": {"u", "p"}, "registry-1.docker.io": {"x", "y"}, "t.test": {"", "tok"}, "other": {}} {
		user, password, err := creds.find(host)
		require.NoError(t, err)
		assert.Equal(t, want, [2]string{user, password}, host)
	}
	for _, bad := range []string{"{", `{"auths":{"r.test":{"auth":"%%"}}}`, `{"auths":{"r.test":{}},"credsStore":"desktop"}`} {
		write(bad)
		_, err := readCredentials(file)
		assert.ErrorContains(t, err, "REGISTRY_CONFIG", bad)
	}
	creds, err = readCredentials("")
	require.NoError(t, err)
	assert.Empty(t, creds)
}
