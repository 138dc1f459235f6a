// Package gotool says which release of Go everything in the repository is built with.
package gotool

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// Toolchain returns the release that the go.work of the repository in folder root names, as GOTOOLCHAIN has it, or "" where
// there is no such line: then the machine's own is as good as any.
func Toolchain(root string) (string, error) {
	text, err := os.ReadFile(filepath.Join(root, "go.work"))
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("read which Go release to build with: %w", err)
	}
	for line := range strings.Lines(string(text)) {
		if name, found := strings.CutPrefix(strings.TrimSpace(line), "toolchain "); found {
			return strings.TrimSpace(name), nil
		}
	}
	return "", nil
}

// Env returns what to add to the environment of a Go tool that builds something of the repository in folder root, in
// whatever module of it: a module that is built alone does not see go.work. The machine's own release may be older, and
// have faults that a client of the box can use; a GOTOOLCHAIN=local of the machine is about other projects.
func Env(root string) ([]string, error) {
	toolchain, err := Toolchain(root)
	if err != nil || toolchain == "" {
		return nil, err
	}
	return []string{"GOTOOLCHAIN=" + toolchain}, nil
}
