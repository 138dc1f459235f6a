package setting

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// open returns a reader of a table of its own.
func open(vars map[string]string) *Reader {
	r := &Reader{service: "test", declared: make(map[string]Setting), getenv: func(name string) string { return vars[name] }, files: make(map[string]string)}
	for _, s := range []Setting{
		{Names: []string{"P_TEXT"}, Default: "text"}, {Names: []string{"P_NONE"}}, {Names: []string{"P_DERIVED"}, Derived: "of others"},
		{Names: []string{"P_NUMBER"}, Default: "7"}, {Names: []string{"P_WAIT"}, Default: "2", Unit: Minutes}, {Names: []string{"P_YES"}, Default: "false"},
		{Names: []string{"P_SECRET"}, File: true}, {Names: []string{"P_LIST"}, Default: "a,b"}, {Names: []string{"P_PORTS"}, Default: "1,2"}, {Names: []string{"P_LEVEL"}, Default: "INFO"},
		{Names: []string{"P_NET"}, Default: "10.88.0.0/16"}, {Names: []string{"P_URL"}, Default: "http://127.0.0.1:9000"}, {Names: []string{"P_ADDR"}, Default: "127.0.0.1:80"},
	} {
		for _, name := range s.Variables() {
			r.declared[name] = s
		}
	}
	return r
}

func TestReader_NothingSet_TakesTheTablesDefaults(t *testing.T) {
	r := open(map[string]string{"P_TEXT": " ", "P_NUMBER": ""})
	assert.Equal(t, "text", r.Text("P_TEXT"))
	assert.Equal(t, 7, r.Int("P_NUMBER", 0, 10))
	assert.Equal(t, 2*time.Minute, r.Duration("P_WAIT", 0, 10))
	assert.False(t, r.Bool("P_YES"))
	assert.Empty(t, r.Secret("P_SECRET"))
	assert.Empty(t, r.Path("P_NONE"))
	assert.Equal(t, []string{"a", "b"}, r.List("P_LIST"))
	assert.Equal(t, slog.LevelInfo, r.Level("P_LEVEL"))
	assert.Equal(t, "10.88.0.0/16", r.Subnet("P_NET", 29).String())
	assert.Equal(t, "http://127.0.0.1:9000", r.URL("P_URL"))
	assert.Equal(t, []string{"127.0.0.1:80"}, r.Addrs("P_ADDR"))
	assert.Equal(t, "mine", r.Text("P_DERIVED", "mine"))
	assert.False(t, r.Set("P_TEXT"))
	require.NoError(t, r.Err())
}

func TestReader_ValuesSet_AreTaken(t *testing.T) {
	r := open(map[string]string{
		"P_TEXT": " x ", "P_NUMBER": " 9 ", "P_WAIT": "0.5", "P_YES": "TRUE", "P_SECRET": " s ", "P_LIST": "off", "P_LEVEL": "warning",
		"P_NET": "10.0.0.0/24", "P_URL": "https://a/", "P_ADDR": ":1, [::1]:2", "P_DERIVED": "set", "P_NONE": "rel",
	})
	assert.Equal(t, "x", r.Text("P_TEXT"))
	assert.Equal(t, 9, r.Int("P_NUMBER", 0, 10))
	assert.Equal(t, 30*time.Second, r.Duration("P_WAIT", 0, 10))
	assert.True(t, r.Bool("P_YES"))
	assert.Equal(t, " s ", string(r.Secret("P_SECRET")), "blanks belong to a secret")
	assert.Empty(t, r.Addrs("P_LIST"))
	assert.Equal(t, slog.LevelWarn, r.Level("P_LEVEL"))
	assert.Equal(t, "10.0.0.0/24", r.Subnet("P_NET", 29).String())
	assert.Equal(t, "https://a", r.URL("P_URL"))
	assert.Equal(t, []string{":1", "[::1]:2"}, r.Listeners("P_ADDR"))
	assert.Equal(t, "set", r.Text("P_DERIVED", "mine"))
	assert.True(t, filepath.IsAbs(r.Path("P_NONE")))
	require.NoError(t, r.Err())
}

func TestReader_WrongValues_AreNamedAllAtOnce(t *testing.T) {
	r := open(map[string]string{
		"P_NUMBER": "11", "P_WAIT": "NaN", "P_YES": "yes", "P_LEVEL": "loud", "P_NET": "10.0.0.1/24", "P_URL": "http://u:hush@h", "P_ADDR": "host", "P_LIST": "0", "P_TEXT": "x",
	})
	r.Int("P_NUMBER", 0, 10)
	r.Duration("P_WAIT", 0.5, 10)
	r.Bool("P_YES")
	r.Level("P_LEVEL")
	r.Subnet("P_NET", 29)
	r.URL("P_URL")
	r.Addr("P_ADDR")
	r.AddrOrOff("P_ADDR")
	r.Addrs("P_ADDR")
	r.Listener("P_ADDR")
	r.Ports("P_LIST")
	r.Port("P_TEXT")
	r.OnOff("P_TEXT")
	r.Choice("P_TEXT", []string{"a", "b", "c"})
	r.Matching("P_TEXT", regexp.MustCompile("^y"), "must be y")
	r.Region("P_TEXT")
	r.Account("P_TEXT")
	var e *Error
	require.ErrorAs(t, r.Err(), &e)
	assert.Equal(t, []string{
		`P_NUMBER: must be a whole number from 0 to 10, got "11"`,
		`P_WAIT: must be a number of minutes from 0.5 to 10, got "NaN"`,
		`P_YES: must be true or false, got "yes"`,
		`P_LEVEL: must be DEBUG, INFO, WARN or ERROR, got "loud"`,
		`P_NET: "10.0.0.1/24" has host bits set; the network is 10.0.0.0/24`,
		`P_URL: must be an http or https URL without credentials and query, such as http://127.0.0.1:9000, or off`,
		`P_ADDR: must be host:port, such as 127.0.0.1:80, got "host"`,
		`P_ADDR: must be host:port, such as 127.0.0.1:80, or off, got "host"`,
		`P_ADDR: must be a comma separated list of host:port, such as 127.0.0.1:80, or off, got "host"`,
		`P_ADDR: must be host:port with an IP address, localhost, or no host for all addresses, and a port from 1 to 65535, got "host"`,
		`P_LIST: must be ports from 1 to 65535, separated by commas, got "0"`,
		`P_TEXT: must be a port from 1 to 65535, got "x"`,
		`P_TEXT: must be on or off, got "x"`,
		`P_TEXT: must be a, b or c, got "x"`,
		`P_TEXT: must be y, got "x"`,
		`P_TEXT: must be a region name such as us-east-1, got "x"`,
		`P_TEXT: must be 12 digits, got "x"`,
	}, e.Problems)
	assert.True(t, r.Failed("P_NONE", "P_ADDR"))
	assert.False(t, r.Failed("P_NONE", "P_ADD"))
}

// TestReader_Lists_Blank: blanks alone are unset, whoever reads; commas alone say nothing, and could mean anything.
func TestReader_Lists_Blank(t *testing.T) {
	for value, wrong := range map[string]bool{" ": false, "\t": false, ",": true, " , ,": true} {
		for what, read := range map[string]func(r *Reader) any{
			"list":      func(r *Reader) any { return r.List("P_LIST") },
			"ports":     func(r *Reader) any { return r.Ports("P_PORTS") },
			"addresses": func(r *Reader) any { return r.Addrs("P_ADDR") },
			"listeners": func(r *Reader) any { return r.Listeners("P_ADDR") },
		} {
			t.Run(fmt.Sprintf("%q as %s", value, what), func(t *testing.T) {
				r := open(map[string]string{"P_LIST": value, "P_ADDR": value, "P_PORTS": value})
				got := read(r)
				if wrong {
					require.Error(t, r.Err())
					return
				}
				require.NoError(t, r.Err())
				assert.Equal(t, read(open(nil)), got)
			})
		}
	}
	r := open(map[string]string{"P_LIST": ","})
	assert.Empty(t, r.List("P_LIST"))
	require.EqualError(t, r.Err(), `P_LIST: must be a list separated by commas, or empty for the default, got ","`)
	r = open(map[string]string{"P_SECRET_FILE": " "})
	assert.Empty(t, r.Secret("P_SECRET"))
	require.NoError(t, r.Err())
}

func TestReader_MistakesOfTheProgram_ArePanics(t *testing.T) {
	assert.PanicsWithValue(t, "setting: test reads P_OTHER, which its table does not declare", func() { open(map[string]string{"P_OTHER": "x"}).Text("P_OTHER") })
	assert.PanicsWithValue(t, "setting: test derives a default of P_TEXT, whose table has one", func() { open(nil).Text("P_TEXT", "mine") })
	assert.PanicsWithValue(t, "setting: test reads P_NUMBER as a duration, whose table has no unit", func() { open(nil).Duration("P_NUMBER", 0, 1) })
}

func TestReader_SecretInAFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "secret")
	require.NoError(t, os.WriteFile(file, []byte(" a \"b\" \r\n"), 0o600))
	r := open(map[string]string{"P_SECRET_FILE": file})
	assert.Equal(t, ` a "b" `, string(r.Secret("P_SECRET")))
	assert.True(t, r.Set("P_SECRET"))
	require.NoError(t, r.Err())

	r = open(map[string]string{"P_SECRET_FILE": file, "P_SECRET": "of the variable"})
	assert.Equal(t, "of the variable", string(r.Secret("P_SECRET")))

	require.NoError(t, os.WriteFile(file, []byte("\n"), 0o600))
	r = open(map[string]string{"P_SECRET_FILE": file})
	assert.Empty(t, r.Secret("P_SECRET"))
	assert.Empty(t, r.Secret("P_SECRET"))
	require.EqualError(t, r.Err(), "P_SECRET_FILE: there is nothing in "+file, "said once")

	r = open(map[string]string{"P_SECRET_FILE": file + "x"})
	r.Secret("P_SECRET")
	require.ErrorContains(t, r.Err(), "P_SECRET_FILE: open "+file+"x: no such file")
}

func TestSecret_ShowsNothing(t *testing.T) {
	s := Secret("hush")
	text, err := s.MarshalText()
	require.NoError(t, err)
	for _, shown := range []string{fmt.Sprint(s), fmt.Sprintf("%x %q %#v", s, s, s), string(text), s.LogValue().String()} {
		assert.NotContains(t, shown, "hush")
		assert.NotContains(t, shown, fmt.Sprintf("%x", "hush"))
		assert.Contains(t, shown, "redacted")
	}
}
