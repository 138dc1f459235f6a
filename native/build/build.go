// Package build makes the binaries of the native way, and the project's build tools, from pinned sources: each once,
// and again only when its sources, the Go version or the way of building have changed.
package build

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
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
	// Seconds of CPU time that compiling takes with an empty cache, after the targets before it. How long is left is reckoned with it.
	Seconds int
	// Commands and Libraries (file names, as the linker looks for them) that building needs, and the Debian
	// packages that bring them.
	Commands, Libraries, Debian []string
}

// scratch begins the names of folders in that of the binaries that a build has for itself.
const scratch = ".build-"

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
	p, err := b.Open(ctx, targets)
	if err != nil {
		return err
	}
	return errors.Join(p.Build(ctx, targets), p.Close())
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

// compile builds targets, which join, into a folder of its own and then moves the binaries to their places, so that a binary is whole
// whenever it is there, and one that runs is not written to.
func (b *Builder) compile(ctx context.Context, targets []Target) error {
	first := targets[0]
	tmp, err := os.MkdirTemp(b.dir, scratch)
	if err != nil {
		return fmt.Errorf("build %s: %w", names(targets), err)
	}
	defer func() { _ = os.RemoveAll(tmp) }()
	cmd := exec.CommandContext(ctx, "go", b.args(first, tmp+string(filepath.Separator), b.packages(targets)...)...)
	cmd.Dir = b.folder(first)
	if cmd.Env, err = Env(b.root, first); err != nil {
		return fmt.Errorf("build %s: %w", names(targets), err)
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		if ctx.Err() != nil {
			return fmt.Errorf("build %s: %w", names(targets), ctx.Err())
		}
		log := filepath.Join(b.dir, ".logs", first.Name+".log")
		if err := errors.Join(os.MkdirAll(filepath.Dir(log), 0o755), os.WriteFile(log, out, 0o644)); err != nil {
			log = "not kept: " + err.Error()
		}
		return &native.Problem{
			What: fmt.Sprintf("building %s failed (%v): go %s\n%s", names(targets), err, strings.Join(cmd.Args[1:], " "), native.Indent(last(out, 8<<10), "      ")),
			Do: "Cure what the last lines name (module download: check the network and GOPROXY; C compiler: see the message), and run the command again. " +
				"All that Go said: " + log,
		}
	}
	return b.install(targets, tmp)
}

// names are the targets as a person reads them.
func names(targets []Target) string {
	var all []string
	for _, t := range targets {
		all = append(all, t.Name)
	}
	return strings.Join(all, ", ")
}

// folder is where the Go tool builds a target: programs of several modules of go.work are built at once, from the folder of that.
func (b *Builder) folder(t Target) string {
	if t.Workspace {
		return b.root
	}
	return filepath.Join(b.root, t.Module)
}

// packages are those of the targets as the Go tool takes them in their folder.
func (b *Builder) packages(targets []Target) []string {
	var all []string
	for _, t := range targets {
		for _, pkg := range t.Packages {
			if t.Workspace {
				pkg = "./" + filepath.ToSlash(filepath.Join(t.Module, pkg))
			}
			all = append(all, pkg)
		}
	}
	return all
}

// install moves the binaries to their places.
func (b *Builder) install(targets []Target, tmp string) error {
	for _, t := range targets {
		for _, name := range t.Outputs {
			if err := os.Rename(filepath.Join(tmp, name), filepath.Join(b.dir, name)); err != nil {
				return fmt.Errorf("build %s: %w", t.Name, err)
			}
		}
	}
	return nil
}

// last returns at most n bytes from the end of text.
func last(text []byte, n int) string {
	return string(text[max(0, len(text)-n):])
}

// args are those of the Go tool for what t and targets that join it have in common, and packages.
func (b *Builder) args(t Target, out string, packages ...string) []string {
	ldflags := slices.Concat([]string{"-s", "-w"}, t.LDFlags)
	if t.CGO {
		ldflags = append(ldflags, "-extldflags", "-static")
	}
	// Whatever is compiled with other flags than these (docker/Dockerfile, Taskfile.yml, .ci/arm64) is compiled again for them.
	args := []string{"build", "-trimpath", "-buildvcs=false", "-ldflags", strings.Join(ldflags, " ")}
	if len(t.Tags) > 0 {
		args = append(args, "-tags", strings.Join(t.Tags, ","))
	}
	return append(append(args, "-o", out), packages...)
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
	_, _ = fmt.Fprintf(h, "%s\n%v\n%v\n%v\n%v\n", b.goVersion, b.args(t, "", t.Packages...), t.CGO, t.Workspace, t.Outputs)
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
