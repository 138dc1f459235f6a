package settingsdoc_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/edge-serverless-box/esb/guard/setting"
	"github.com/edge-serverless-box/esb/native/settingsdoc"
)

// compose makes a file's blocks, of a stack with ${ESB_IMAGE} and ${ESB_PROJECT}.
func compose(t *testing.T, text string) (string, error) {
	t.Helper()
	root := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(root, "box.yml"), []byte(text), 0o600))
	require.NoError(t, os.WriteFile(filepath.Join(root, "stack.yml"), []byte("image: ${ESB_IMAGE:-x}\nname: ${ESB_PROJECT}\n"), 0o600))
	return settingsdoc.Compose(root, "box.yml", "stack.yml")
}

// block are lines of settings of the relay, and of others, without some.
func block(indent string, others []string, without ...string) string {
	names := slices.Clone(others)
	for _, s := range setting.Of(setting.Relay) {
		names = append(names, s.Names...)
	}
	slices.Sort(names)
	var b strings.Builder
	for _, name := range names {
		if !slices.Contains(without, name) {
			b.WriteString(indent + name + ":\n")
		}
	}
	return b.String()
}

func TestCompose_BlocksAreMadeAnew(t *testing.T) {
	got, err := compose(t, `services:
  other:
    environment:
      AWS_REGION: "2"
  relay:
    environment:
      ESB_SUBNET: "1"
      # settings of relay: why
      ESB_OLD:
      # end of settings
  root:
    environment:
      # settings of stack, relay: why
      # end of settings
    ports: [1]
`)
	require.NoError(t, err)
	assert.Equal(t, `services:
  other:
    environment:
      AWS_REGION: "2"
  relay:
    environment:
      ESB_SUBNET: "1"
      # settings of relay: why
`+block("      ", nil, "ESB_SUBNET")+`      # end of settings
  root:
    environment:
      # settings of stack, relay: why
`+block("      ", []string{"ESB_IMAGE"})+`      # end of settings
    ports: [1]
`, got)
}

func TestCompose_Mistakes(t *testing.T) {
	_, err := compose(t, "    # settings of gateway: why\n")
	require.ErrorContains(t, err, `box.yml: a block of settings has no line "# end of settings"`)
	_, err = compose(t, "\n    # settings of nobody: why\n")
	require.ErrorContains(t, err, `box.yml:2: there is no service "nobody" with settings`)
}
