// Package packages brings public packages into folders of tests, as their users do: what npm's lock file pins, and
// programs of Debian. What takes long is kept below .esb/cache, by what it was made of.
package packages

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/edge-serverless-box/esb/native/apt"
)

// Cache keeps what was made.
type Cache struct{ folder string }

// NewCache is the one of the repository at root.
func NewCache(root string) *Cache {
	return &Cache{folder: filepath.Join(root, ".esb", "cache", "packages")}
}

// Need is a program, and the Debian packages that bring it.
type Need struct {
	Program string
	Debian  []string
}

// Install installs those that are not there; it needs root and apt-get, and says so.
func Install(ctx context.Context, needs ...Need) error {
	var missing []string
	for _, n := range needs {
		if _, err := exec.LookPath(n.Program); errors.Is(err, exec.ErrNotFound) {
			missing = append(missing, n.Debian...)
		}
	}
	if len(missing) == 0 {
		return nil
	}
	return new(apt.Installer).Install(ctx, missing)
}

// InstallFiles is Install for needs whose program is the path of a file, which need not be one that runs.
func InstallFiles(ctx context.Context, needs ...Need) error {
	var missing []string
	for _, n := range needs {
		if _, err := os.Stat(n.Program); errors.Is(err, os.ErrNotExist) {
			missing = append(missing, n.Debian...)
		}
	}
	if len(missing) == 0 {
		return nil
	}
	return new(apt.Installer).Install(ctx, missing)
}

// Fill copies to target what create has put into a folder, now or in an earlier run with the same inputs, which are files.
func (c *Cache) Fill(ctx context.Context, name, target string, inputs []string, create func(dir string) error) error {
	hash := sha256.New()
	for _, input := range inputs {
		data, err := os.ReadFile(input)
		if err != nil {
			return err
		}
		_, _ = fmt.Fprintf(hash, "%s %d\n%s", filepath.Base(input), len(data), data)
	}
	kept := filepath.Join(c.folder, name+"-"+hex.EncodeToString(hash.Sum(nil))[:16])
	if _, err := os.Stat(kept); errors.Is(err, os.ErrNotExist) {
		if err := c.create(kept, create); err != nil {
			return fmt.Errorf("make %s: %w", name, err)
		}
	}
	return errors.Join(os.MkdirAll(target, 0o755), Run(ctx, "", nil, "cp", "-a", kept+"/.", target))
}

// create makes a folder whole or not at all.
func (c *Cache) create(kept string, create func(dir string) error) error {
	if err := os.MkdirAll(c.folder, 0o755); err != nil {
		return err
	}
	scratch, err := os.MkdirTemp(c.folder, ".new-*")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(scratch) }()
	if err := create(scratch); err != nil {
		return err
	}
	if err := os.Chmod(scratch, 0o755); err != nil {
		return err
	}
	// Another run may have made it meanwhile.
	if err := os.Rename(scratch, kept); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	return nil
}

// NPM installs what source/package-lock.json pins into target, and copies the files of source there too. Scripts of
// packages, such as those that compile them, are run only when that is asked for.
func (c *Cache) NPM(ctx context.Context, source, target string, scripts bool) error {
	if err := Install(ctx, Need{"npm", []string{"npm"}}); err != nil {
		return err
	}
	list, lock := filepath.Join(source, "package.json"), filepath.Join(source, "package-lock.json")
	err := c.Fill(ctx, "npm-"+filepath.Base(source), target, []string{list, lock}, func(dir string) error {
		if err := Run(ctx, "", nil, "cp", list, lock, dir); err != nil {
			return err
		}
		args := []string{"ci", "--no-audit", "--no-fund", "--loglevel=error"}
		if !scripts {
			args = append(args, "--ignore-scripts")
		}
		// What is compiled uses the headers of the Node.js that is there.
		return Run(ctx, dir, []string{"npm_config_nodedir=/usr"}, "npm", args...)
	})
	if err != nil {
		return err
	}
	return Run(ctx, "", nil, "cp", "-a", source+"/.", target)
}

// Run runs a command in a folder; what it printed is in the error.
func Run(ctx context.Context, dir string, env []string, name string, args ...string) error {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), env...)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w\n%s", name, err, out)
	}
	return nil
}
