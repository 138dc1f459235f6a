package release

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/edge-serverless-box/esb/native"
)

var variable = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

// ReadEnv reads a file of settings as systemd does (EnvironmentFile): a line NAME=value each, comments from # or ; on, a value in quotes
// without them. What systemd would read in another way, lines that go on in the next one, is refused.
func ReadEnv(path string) ([]string, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read the settings: %w", err)
	}
	var env []string
	n := 0
	for line := range strings.Lines(string(data)) {
		n++
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' || line[0] == ';' {
			continue
		}
		name, value, ok := strings.Cut(line, "=")
		value = strings.TrimSpace(value)
		bad := ""
		switch quote := strings.IndexAny(value, `"'`); {
		case !ok || !variable.MatchString(name):
			bad = "must be NAME=value"
		case strings.Contains(value, `\`):
			bad = "must have no backslash"
		case quote == 0 && len(value) > 1 && strings.IndexByte(value[1:], value[0]) == len(value)-2:
			value = value[1 : len(value)-1]
		case quote >= 0:
			bad = "must have quotes around the whole value, or none"
		}
		if bad != "" {
			return nil, &native.Problem{What: fmt.Sprintf("%s:%d: %s %s", path, n, name, bad), Do: "Correct the line."}
		}
		env = append(env, name+"="+value)
	}
	return env, nil
}

// Environ is an environment with the settings of EnvFile where it says nothing itself.
func (l Layout) Environ(environ []string) ([]string, error) {
	own, err := ReadEnv(l.EnvFile())
	if errors.Is(err, fs.ErrNotExist) {
		return environ, nil
	}
	if err != nil {
		return nil, err
	}
	own = slices.DeleteFunc(own, func(v string) bool {
		name, _, _ := strings.Cut(v, "=")
		return slices.ContainsFunc(environ, func(e string) bool { return strings.HasPrefix(e, name+"=") })
	})
	return append(own, environ...), nil
}

// Defaults are the settings that an installation has others of than a working copy.
func (l Layout) Defaults() map[string]string {
	return map[string]string{
		"ESB_HOME":              l.State(),
		"ESB_BIN_DIR":           l.Current(),
		"FUNCTIONS_CONFIG_PATH": filepath.Join(l.Config(), "functions.yml"),
		"ROUTING_CONFIG_PATH":   filepath.Join(l.Config(), "routing.yml"),
		"RESOURCES_CONFIG_PATH": filepath.Join(l.Config(), "resources.yml"),
	}
}

// Getenv looks up settings in an environment, and in Defaults for those that are empty there.
func (l Layout) Getenv(environ []string) func(string) string {
	values := l.Defaults()
	for _, v := range environ {
		if name, value, ok := strings.Cut(v, "="); ok && (value != "" || values[name] == "") {
			values[name] = value
		}
	}
	return func(name string) string { return values[name] }
}
