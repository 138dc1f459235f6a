// Package build makes the binaries of the native way, and the project's build tools, from pinned sources: each once,
// and again only when its sources, the Go version or the way of building have changed.
package build

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/edge-serverless-box/esb/functions/gotool"
	"github.com/edge-serverless-box/esb/functions/runtimes/npm"
	"github.com/edge-serverless-box/esb/native"
	"github.com/edge-serverless-box/esb/native/apt"
	"github.com/edge-serverless-box/esb/native/console"
	"github.com/edge-serverless-box/esb/native/lock"
)

// Target is a set of binaries that one run of the Go tool makes, or that one package of npm brings.
type Target struct {
	// Name for people, and of the stamp file.
	Name string
	// Module is the folder of the module, relative to the repository.
	Module string
	// Packages to build, as the Go tool takes them.
	Packages []string
	// Outputs are the names of the binaries: the last elements of Packages.
	Outputs []string
	// Sources are files and folders, relative to the repository, whose content decides whether to build again.
	Sources []string
	// Workspace is true for modules of go.work; wrapper modules of tools stand alone.
	Workspace bool
	// CGO is true for a program that needs C. It is linked statically all the same.
	CGO bool
	// Tags are Go build tags.
	Tags []string
	// LDFlags are added to "-s -w".
	LDFlags []string
	// NPM is the package that has the Outputs as its files, for a program that is not built here; Packages is empty then.
	NPM *npm.Package
	// Commands and Libraries (file names, as the linker looks for them) that building needs, and the Debian
	// packages that bring them.
	Commands, Libraries, Debian []string
}

// Builder builds targets of one repository into one folder.
type Builder struct {
	root, dir string
	console   *console.Console
	apt       *apt.Installer
	// goVersion is what the Go tool says of itself.
	goVersion string
}

// New returns a Builder that makes binaries of the repository root in dir.
func New(root, dir string, c *console.Console, installer *apt.Installer) *Builder {
	return &Builder{root: root, dir: dir, console: c, apt: installer}
}

// Build makes those targets that are missing or out of date. Builders that share a folder take turns.
func (b *Builder) Build(ctx context.Context, targets []Target) error {
	if err := os.MkdirAll(filepath.Join(b.dir, ".stamps"), 0o755); err != nil {
		return fmt.Errorf("make the folder of the binaries: %w", err)
	}
	held, err := lock.Take(ctx, filepath.Join(b.dir, ".lock"), func() { b.console.Printf("    waiting for another build in %s", b.dir) })
	if err != nil {
		return err
	}
	defer func() { _ = held.Close() }()
	for _, t := range targets {
		if err := b.build(ctx, t); err != nil {
			return err
		}
	}
	return nil
}

func (b *Builder) build(ctx context.Context, t Target) error {
	stamp, err := b.stamp(ctx, t)
	if err != nil {
		return fmt.Errorf("build %s: %w", t.Name, err)
	}
	stampFile := filepath.Join(b.dir, ".stamps", t.Name)
	if old, err := os.ReadFile(stampFile); err == nil && string(old) == stamp && b.present(t) {
		return nil
	}
	if lacking(ctx, t) {
		err := b.console.Step("installing "+strings.Join(t.Debian, " ")+" (to build "+t.Name+")", func() error { return b.apt.Install(ctx, t.Debian) })
		if err != nil {
			return err
		}
	}
	return b.console.Step("building "+t.Name, func() error {
		if err := b.compile(ctx, t); err != nil {
			return err
		}
		if err := os.WriteFile(stampFile, []byte(stamp), 0o644); err != nil {
			return fmt.Errorf("build %s: %w", t.Name, err)
		}
		return nil
	})
}

// lacking is true where a command or C library is not there that the target needs. It asks the compiler and not
// the package manager, so that it is right on every distribution.
func lacking(ctx context.Context, t Target) bool {
	for _, command := range t.Commands {
		if _, err := exec.LookPath(command); err != nil {
			return true
		}
	}
	for _, lib := range t.Libraries {
		// gcc prints the bare name of a file that it does not find (gcc(1), -print-file-name).
		out, err := exec.CommandContext(ctx, "gcc", "-print-file-name="+lib).Output()
		if err != nil || strings.TrimSpace(string(out)) == lib {
			return true
		}
	}
	return false
}

// compile builds into a folder of its own and then moves the binaries to their places, so that a binary is whole
// whenever it is there, and one that runs is not written to.
func (b *Builder) compile(ctx context.Context, t Target) error {
	tmp, err := os.MkdirTemp(b.dir, ".build-")
	if err != nil {
		return fmt.Errorf("build %s: %w", t.Name, err)
	}
	defer func() { _ = os.RemoveAll(tmp) }()
	if t.NPM != nil {
		if err := t.NPM.Extract(ctx, tmp, t.Outputs...); err != nil {
			return &native.Problem{
				What: fmt.Sprintf("fetching %s %s from npm failed: %v", t.NPM.Name, t.NPM.Version, err),
				Do:   "Check the network and npm's registry setting, and run the command again.",
			}
		}
		return b.install(t, tmp)
	}
	cmd := exec.CommandContext(ctx, "go", b.args(t, tmp+string(filepath.Separator))...)
	cmd.Dir = filepath.Join(b.root, t.Module)
	if cmd.Env, err = Env(b.root, t); err != nil {
		return fmt.Errorf("build %s: %w", t.Name, err)
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		if ctx.Err() != nil {
			return fmt.Errorf("build %s: %w", t.Name, ctx.Err())
		}
		return &native.Problem{
			What: fmt.Sprintf("building %s failed (%v): go %s\n%s", t.Name, err, strings.Join(cmd.Args[1:], " "), native.Indent(last(out, 8<<10), "      ")),
			Do:   "Cure what the last lines name (module download: check the network and GOPROXY; C compiler: see the message), and run the command again.",
		}
	}
	return b.install(t, tmp)
}

// install moves the binaries to their places.
func (b *Builder) install(t Target, tmp string) error {
	for _, name := range t.Outputs {
		if err := os.Rename(filepath.Join(tmp, name), filepath.Join(b.dir, name)); err != nil {
			return fmt.Errorf("build %s: %w", t.Name, err)
		}
	}
	return nil
}

// last returns at most n bytes from the end of text.
func last(text []byte, n int) string {
	return string(text[max(0, len(text)-n):])
}

func (b *Builder) args(t Target, out string) []string {
	ldflags := slices.Concat([]string{"-s", "-w"}, t.LDFlags)
	if t.CGO {
		ldflags = append(ldflags, "-extldflags", "-static")
	}
	args := []string{"build", "-trimpath", "-buildvcs=false", "-ldflags", strings.Join(ldflags, " ")}
	if len(t.Tags) > 0 {
		args = append(args, "-tags", strings.Join(t.Tags, ","))
	}
	return append(append(args, "-o", out), t.Packages...)
}

// Env returns the environment that the Go tool builds a target of the repository in.
func Env(root string, t Target) ([]string, error) {
	toolchain, err := gotool.Env(root)
	if err != nil {
		return nil, err
	}
	env := append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=", "GOOS=", "GOARCH=")
	env = append(env, toolchain...)
	if t.CGO {
		env = append(env, "CGO_ENABLED=1")
	}
	if !t.Workspace {
		env = append(env, "GOWORK=off")
	}
	return env, nil
}

func (b *Builder) present(t Target) bool {
	for _, name := range t.Outputs {
		if info, err := os.Stat(filepath.Join(b.dir, name)); err != nil || !info.Mode().IsRegular() {
			return false
		}
	}
	return true
}

// stamp digests everything that decides what a build makes.
func (b *Builder) stamp(ctx context.Context, t Target) (string, error) {
	if b.goVersion == "" {
		env, err := Env(b.root, Target{Workspace: true})
		if err != nil {
			return "", err
		}
		cmd := exec.CommandContext(ctx, "go", "env", "GOVERSION", "GOARCH")
		cmd.Dir = b.root
		cmd.Env = env
		out, err := cmd.Output()
		if err != nil {
			return "", fmt.Errorf("ask Go for its version: %w", err)
		}
		b.goVersion = string(out)
	}
	h := sha256.New()
	_, _ = fmt.Fprintf(h, "%s\n%v\n%v\n%v\n%v\n", b.goVersion, b.args(t, ""), t.CGO, t.Workspace, t.Outputs)
	if t.NPM != nil {
		_, _ = fmt.Fprintf(h, "%v\n", *t.NPM)
	}
	for _, source := range t.Sources {
		if err := digest(h, b.root, source); err != nil {
			return "", fmt.Errorf("digest the sources: %w", err)
		}
	}
	return hex.EncodeToString(h.Sum(nil)) + "\n", nil
}

// digest adds the names and contents of a file, or of the files below a folder, to h. Tests and their data do not
// end up in a binary.
func digest(h io.Writer, root, source string) error {
	return filepath.WalkDir(filepath.Join(root, source), func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if d.Name() == "testdata" {
				return fs.SkipDir
			}
			return nil
		}
		if !d.Type().IsRegular() || strings.HasSuffix(path, "_test.go") {
			return nil
		}
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		defer func() { _ = f.Close() }()
		rel, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		info, err := f.Stat()
		if err != nil {
			return err
		}
		_, _ = fmt.Fprintf(h, "%s %d\n", rel, info.Size())
		_, err = io.Copy(h, f)
		return err
	})
}
