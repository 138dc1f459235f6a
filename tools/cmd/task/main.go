// Command task is Task (https://taskfile.dev) of the version that tools/go.mod pins: it compiles it once, with the flags and the release of Go
// that native/build gives the programs of the box, and becomes it. The Go tool would compile Task, and a standard library for it alone,
// its own way: most of the library of the box's programs is compiled for this one. So it imports next to nothing.
package main

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// pkg is what is compiled.
const pkg = "github.com/go-task/task/v3/cmd/task"

func main() {
	if err := run(); err != nil {
		_, _ = os.Stderr.WriteString("task: " + err.Error() + "\n")
		os.Exit(1)
	}
}

func run() error {
	root, err := findRoot()
	if err != nil {
		return err
	}
	program := filepath.Join(root, ".esb", "tools", "task")
	if !current(root, program) {
		if err := compile(root, program); err != nil {
			return err
		}
	}
	return syscall.Exec(program, append([]string{"task"}, os.Args[1:]...), os.Environ())
}

// findRoot returns the folder of go.work, in or above the current one.
func findRoot() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for ; ; dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "tools", "cmd", "task")); err == nil {
			return dir, nil
		}
		if dir == filepath.Dir(dir) {
			return "", errors.New("this is no folder of the repository: there is no tools/cmd/task in it or above")
		}
	}
}

// current is false when what decides about the program is younger than it.
func current(root, program string) bool {
	made, err := os.Stat(program)
	if err != nil {
		return false
	}
	for _, name := range []string{"go.work", "tools/go.mod", "tools/go.sum", "tools/getter/getter.go", "tools/cmd/task/main.go"} {
		source, err := os.Stat(filepath.Join(root, name))
		if err != nil || !source.ModTime().Before(made.ModTime()) {
			return false
		}
	}
	return true
}

func compile(root, program string) error {
	work, err := os.ReadFile(filepath.Join(root, "go.work"))
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(program), 0o755); err != nil {
		return err
	}
	tmp := program + "." + strconv.Itoa(os.Getpid()) // whole when it is there, whoever else makes it
	defer func() { _ = os.Remove(tmp) }()
	cmd := exec.Command("go", "build", "-trimpath", "-buildvcs=false", "-ldflags", "-s -w", "-o", tmp, pkg)
	cmd.Dir = filepath.Join(root, "tools")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=", "GOOS=", "GOARCH=")
	for line := range strings.Lines(string(work)) {
		if release, ok := strings.CutPrefix(line, "toolchain "); ok {
			cmd.Env = append(cmd.Env, "GOTOOLCHAIN="+strings.TrimSpace(release))
		}
	}
	_, _ = os.Stderr.WriteString("==> compiling Task, which runs what Taskfile.yml says (half a minute, once)\n")
	if said, err := cmd.CombinedOutput(); err != nil {
		_, _ = os.Stderr.Write(said)
		return errors.New("compiling Task failed (" + err.Error() + "): cure what the last lines name (network and GOPROXY, for modules), and run the command again")
	}
	return os.Rename(tmp, program)
}
