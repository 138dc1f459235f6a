package gotool

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestEnv(t *testing.T) {
	for name, c := range map[string]struct {
		work string
		want []string
	}{
		"named":          {"go 1.26.6\n\n// What everything\ntoolchain go1.26.11\n\nuse ./agent\n", []string{"GOTOOLCHAIN=go1.26.11"}},
		"no such line":   {"go 1.26.6\n", nil},
		"only a comment": {"go 1.26.6\n// toolchain go1.26.11\n", nil},
		"no go.work":     {"", nil},
	} {
		t.Run(name, func(t *testing.T) {
			root := t.TempDir()
			if c.work != "" {
				require.NoError(t, os.WriteFile(filepath.Join(root, "go.work"), []byte(c.work), 0o644))
			}
			env, err := Env(root)
			require.NoError(t, err)
			assert.Equal(t, c.want, env)
		})
	}
}
