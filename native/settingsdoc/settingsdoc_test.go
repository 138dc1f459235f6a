package settingsdoc_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/edge-serverless-box/esb/native/settingsdoc"
)

func page(t *testing.T, code string) (string, error) {
	t.Helper()
	root := t.TempDir()
	require.NoError(t, os.Mkdir(filepath.Join(root, "p"), 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(root, "p", "settings.go"), []byte("package p\n"+code), 0o600))
	return settingsdoc.Page(root, []settingsdoc.Source{{Dir: "p", Title: "p"}})
}

func TestPage_BothFormsOfComments_BecomeRows(t *testing.T) {
	got, err := page(t, `
const DefaultUser = "somebody"

type S struct {
	// Home (P_HOME, default /var/p) is the folder <of> everything.
	Home string
	// AuthUser may log in. AUTH_USER; default DefaultUser, see there.
	AuthUser string
	// CertFile and KeyFile are PEM files in Home. P_CERT and P_KEY, both or neither; default none. A changed file is taken up.
	CertFile, KeyFile string
	// Wait (P_WAIT) is how long. Default: 30 s.
	Wait int
	// One (P_ONE, a number; default 1) and Two (P_TWO, default 2) are for AuthUser.
	One, Two int
	// Derived is no setting of its own, but of P_HOME.
	Derived string
}

func load(l loader) { l.text("P_HOME", ""); l.text("AUTH_USER", ""); l.problemf("P_OTHER", "no") }
`)
	require.NoError(t, err)
	for _, row := range []string{
		"| `P_HOME` | /var/p | The folder &lt;of&gt; everything. |\n",
		"| `AUTH_USER` | \"somebody\" | May log in. |\n",
		"| `P_CERT`, `P_KEY` | none | PEM files in `P_HOME`. A changed file is taken up. (both or neither) |\n",
		"| `P_WAIT` | 30 s | How long. |\n",
		"| `P_ONE`, `P_TWO` | 1; 2 | `P_ONE` and `P_TWO` are for `AUTH_USER`. (a number) |\n",
	} {
		assert.Contains(t, got, row)
	}
	assert.NotContains(t, got, "Derived")
}

func TestPage_SettingWithoutComment_IsAnError(t *testing.T) {
	_, err := page(t, "type S struct {\n// A (P_A, default 1) is one.\nA int\n}\nfunc load() { text(\"P_A\", \"\"); text(\"P_B\", \"\") }\n")
	require.ErrorContains(t, err, "settings.go:6:32: P_B is read and no doc comment of a field explains it")
	require.NotContains(t, err.Error(), "P_A is read")
}

// The page in the repository; go tool task docs writes it.
func TestPage_OfTheRepository_HasAllSettings(t *testing.T) {
	got, err := settingsdoc.Page("../..", settingsdoc.Sources())
	require.NoError(t, err)
	names, err := settingsdoc.Names("../..", settingsdoc.Sources())
	require.NoError(t, err)
	kept, err := os.ReadFile("../../guard/settingnames/names.txt")
	require.NoError(t, err)
	assert.Equal(t, names, string(kept), "go tool task docs writes it")
	for _, want := range []string{"`GATEWAY_HTTPS_ADDR`", "`FUNCTION_KEYS_FILE`", "`ESB_DATA_DIR`", "`ESB_RELAY_PORTS`", "`X_API_KEY`"} {
		assert.Contains(t, got, want)
	}
}
