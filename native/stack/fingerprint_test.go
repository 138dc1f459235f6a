package stack

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/edge-serverless-box/esb/native"
)

func TestFingerprint_ChangesWithTheSettingsThatTheServiceReads(t *testing.T) {
	b := mustOpen(t)
	b.settings.FunctionsConfig = filepath.Join(t.TempDir(), "functions.yml")
	require.NoError(t, os.WriteFile(b.settings.FunctionsConfig, []byte("functions:\n  x: {environment: {A: \"${CODE_CACHE_MB}${TABLE}\"}}\n"), 0o600))
	of := func(environ ...string) map[string]string {
		b.environ = environ
		prints := make(map[string]string)
		for _, service := range []string{native.Gateway, native.Agent} {
			print, err := b.fingerprint(service, nil)
			require.NoError(t, err)
			prints[service] = print
		}
		return prints
	}
	before := of()
	for variable, concerned := range map[string][]string{
		"IDLE_TIMEOUT_MINUTES=7":       {native.Gateway},
		"AUTH_PASS_FILE=/x":            {native.Gateway},
		"IMAGE_UNUSED_DAYS=7":          {native.Agent},
		"VICTORIALOGS_MAX_MB=100":      {native.Agent},
		"LOG_LEVEL=DEBUG":              {native.Gateway, native.Agent},
		"CODE_CACHE_MB=100":            {native.Gateway, native.Agent}, // functions.yml names it
		"TABLE=items":                  {native.Gateway},
		"S3_ENCRYPTED_DISK=true":       nil,
		"ESB_START_TIMEOUT_SECONDS=61": nil,
		"ESB_SOMETHING=1":              nil,
		"TERM=dumb":                    nil,
	} {
		var changed []string
		now := of(variable)
		for _, service := range []string{native.Gateway, native.Agent} {
			if now[service] != before[service] {
				changed = append(changed, service)
			}
		}
		assert.Equal(t, concerned, changed, variable)
	}
}
