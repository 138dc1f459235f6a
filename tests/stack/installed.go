package stack

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Install makes of a prepared native box, which must not run and whose home is var/lib/esb below prefix, the box of an installation there:
// of the release in a folder, by that one's own program, with the box's settings in esb.env and none in the environment. path is the PATH
// that its programs get.
func (s *Stack) Install(ctx context.Context, prefix, release, path string) error {
	n := s.driver.(*native)
	n.env, s.installed = []string{"PATH=" + path}, true
	if out, err := s.run(ctx, n.env, filepath.Join(release, "esb"), "install", "-prefix", prefix); err != nil {
		return fmt.Errorf("esb install: %w\n%s", err, out)
	}
	n.command = filepath.Join(prefix, "usr", "local", "bin", "esb")
	s.BinDir = filepath.Join(prefix, "opt", "esb", "current")
	settings := slices.DeleteFunc(slices.Clone(n.settings), func(v string) bool {
		name, _, _ := strings.Cut(v, "=")
		return name == "ESB_HOME" || name == "ESB_BIN_DIR" || strings.HasSuffix(name, "_CONFIG_PATH")
	})
	return os.WriteFile(filepath.Join(prefix, "etc", "esb", "esb.env"), []byte(strings.Join(settings, "\n")+"\n"), 0o600)
}
