package settingsdoc

import (
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/edge-serverless-box/esb/guard/setting"
)

func TestPage_HasAllSettings(t *testing.T) {
	page := Page()
	for _, name := range setting.Names() {
		assert.Contains(t, page, "`"+name+"`")
	}
	for _, row := range []string{
		"## esb up\n\nThe native way's own command,",
		"| `ESB_DATA_DIR` | &lt;ESB_HOME&gt;/data | Holds the data, a folder for each store: s3, db, logs, registry. |\n",
		"| `X_API_KEY`, `X_API_KEY_FILE` | one that the box makes at its first start and keeps in the file credentials in `GATEWAY_HOME` | What",
		"| `HEARTBEAT_INTERVAL` | 30 | How often the pools are compared with the agent's list of containers. (seconds) |\n",
	} {
		assert.Contains(t, page, row)
	}
	for line := range strings.SplitSeq(page, "\n") {
		if strings.HasPrefix(line, "|") {
			assert.Equal(t, 4, strings.Count(strings.ReplaceAll(line, `\|`, ""), "|"), line)
		}
	}
	kept, err := os.ReadFile("../../docs/settings.md")
	require.NoError(t, err)
	assert.Equal(t, page, string(kept), "go tool task docs writes it")
}

func TestCell_MarksNamesAndEscapes(t *testing.T) {
	names := []string{"ESB_HOME", "ESB_DNS"}
	for text, want := range map[string]string{
		"in ESB_HOME.":              "in `ESB_HOME`.",
		"(ESB_DNS), ESB_HOMES":      "(`ESB_DNS`), ESB_HOMES",
		"<ESB_HOME>/x|y":            `&lt;ESB_HOME&gt;/x\|y`,
		"ESB_HOME=/x or `ESB_HOME`": "ESB_HOME=/x or `ESB_HOME`",
		"":                          "",
	} {
		assert.Equal(t, want, cell(text, names))
	}
}
