package settingsdoc_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/edge-serverless-box/esb/native/settingsdoc"
)

// compose makes a file's blocks of a package with the settings P_A, P_B and ESB_HOME.
func compose(t *testing.T, text string) (string, error) {
	t.Helper()
	root := t.TempDir()
	code := "package p\ntype S struct {\n// A (P_A) is one.\nA int\n// B (P_B) is two.\nB int\n// Home (ESB_HOME) is a folder.\nHome string\n}\n"
	require.NoError(t, os.WriteFile(filepath.Join(root, "settings.go"), []byte(code), 0o600))
	require.NoError(t, os.WriteFile(filepath.Join(root, "box.yml"), []byte(text), 0o600))
	require.NoError(t, os.WriteFile(filepath.Join(root, "stack.yml"), []byte("image: ${ESB_IMAGE:-x}\nname: ${ESB_PROJECT}\n"), 0o600))
	return settingsdoc.Compose(root, "box.yml", "stack.yml", []settingsdoc.Source{{Dir: ".", Title: "gateway"}})
}

func TestCompose_BlocksAreMadeAnew(t *testing.T) {
	got, err := compose(t, `services:
  other:
    environment:
      P_B: "2"
  gateway:
    environment:
      P_A: "1"
      # settings of gateway: why
      P_OLD:
      # end of settings
  root:
    environment:
      # settings of stack, gateway: why
      # end of settings
    ports: [1]
`)
	require.NoError(t, err)
	assert.Equal(t, `services:
  other:
    environment:
      P_B: "2"
  gateway:
    environment:
      P_A: "1"
      # settings of gateway: why
      P_B:
      # end of settings
  root:
    environment:
      # settings of stack, gateway: why
      ESB_IMAGE:
      P_A:
      P_B:
      # end of settings
    ports: [1]
`, got)
}

func TestCompose_Mistakes(t *testing.T) {
	_, err := compose(t, "    # settings of gateway: why\n")
	require.ErrorContains(t, err, `box.yml: a block of settings has no line "# end of settings"`)
	_, err = compose(t, "\n    # settings of nobody: why\n")
	require.ErrorContains(t, err, `box.yml:2: there is no service "nobody" with settings`)
}
