package runtimes

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/edge-serverless-box/esb/functions/imagebuild"
	"github.com/edge-serverless-box/esb/functions/runtimes/debian"
)

// What a function has no use for, by path below the standard library; "*" as in filepath.Match.
func unusedPython() []string {
	return []string{"test", "*/test", "*/tests", "idlelib", "tkinter", "lib2to3", "turtledemo", "turtle.py", "ensurepip", "venv",
		"pydoc_data", "distutils", "curses", "dbm/gnu.py", "dbm/ndbm.py", "config-*", "__phello__", "EXTERNALLY-MANAGED",
		"sitecustomize.py",
		// They need libraries that nothing else needs, or belong to Python's own tests.
		"lib-dynload/_test*", "lib-dynload/_xx*", "lib-dynload/xx*", "lib-dynload/_ctypes_test*", "lib-dynload/_curses*",
		"lib-dynload/_dbm*", "lib-dynload/_gdbm*", "lib-dynload/nis*", "lib-dynload/ossaudiodev*", "lib-dynload/readline*",
		"lib-dynload/_tkinter*"}
}

// packageName matches Debian's package of one Python version, "python3.11-minimal".
var packageName = regexp.MustCompile(`^(python3\.\d+)-minimal$`)

// buildPython makes the Python layer and the client's.
func (b *Builder) buildPython(ctx context.Context, scratch string, parent *Base) (v1.Image, error) {
	version, names, err := b.pythonPackages(ctx)
	if err != nil {
		return nil, err
	}
	unpacked, versions, err := b.download(ctx, scratch, names)
	if err != nil {
		return nil, err
	}
	root := filepath.Join(scratch, "root")
	library := filepath.Join(root, "usr/lib", version)
	if err := errors.Join(
		copyFile(filepath.Join(unpacked, "usr/bin", version), filepath.Join(root, "usr/bin", version)),
		link(root, "usr/bin/python3", version),
		link(root, "usr/bin/python", version),
		os.MkdirAll(filepath.Dir(library), 0o755),
		os.Rename(filepath.Join(unpacked, "usr/lib", version), library),
		removeUnused(library, unusedPython()),
	); err != nil {
		return nil, err
	}
	if err := copyPythonLibraries(unpacked, root, version); err != nil {
		return nil, err
	}
	b.log.Info("compiling the standard library", "python", version)
	base := &Base{name: Python, dir: scratch, parent: parent, log: b.log}
	client := filepath.Join(scratch, "work", "client")
	if err := errors.Join(
		removeCompiled(library),
		base.compile(ctx, library, "/usr/lib/"+version),
		writeFile(client, "bootstrap.py", pythonClient),
		// A script is compiled at each start, a .pyc file given as script is not.
		base.compile(ctx, client, "/var/runtime", "-b"),
	); err != nil {
		return nil, err
	}
	tree := imagebuild.NewTree()
	if err := tree.AddTree("/var/runtime", client); err != nil {
		return nil, err
	}
	return layered(parent, scratch, imagebuild.Config{
		Entrypoint: []string{"/usr/bin/" + version, "-S", "/var/runtime/bootstrap.pyc"},
		Env:        map[string]string{"AWS_EXECUTION_ENV": "AWS_Lambda_" + version},
		Labels:     map[string]string{"io.esb.packages.python": versions},
	}, tree)
}

// pythonPackages returns the release's Python, "python3.11", and the packages of its interpreter and standard library.
func (b *Builder) pythonPackages(ctx context.Context) (version string, names []string, err error) {
	apt, err := b.aptTools()
	if err != nil {
		return "", nil, err
	}
	graph, err := apt.Dependencies(ctx, "python3-minimal", "libpython3-stdlib")
	if err != nil {
		return "", nil, err
	}
	for _, name := range graph["python3-minimal"] {
		if m := packageName.FindStringSubmatch(name); m != nil {
			version = m[1]
		}
	}
	if version == "" {
		return "", nil, fmt.Errorf("python3-minimal depends on no python3.N-minimal, but on %v", graph["python3-minimal"])
	}
	// Libraries of the modules in unusedPython, and what the system layer has.
	skip := regexp.MustCompile(`^lib(c6|gcc|stdc|ncurses|tinfo|readline|db5|gdbm|nsl|tirpc)`)
	names = graph.Closure(func(name string) bool {
		return (strings.HasPrefix(name, "lib") || strings.HasPrefix(name, "zlib")) && !skip.MatchString(name)
	}, version+"-minimal", "lib"+version+"-stdlib")
	return version, names, nil
}

// copyPythonLibraries copies the libraries that the interpreter and its extension modules need.
func copyPythonLibraries(unpacked, root, version string) error {
	files, err := filepath.Glob(filepath.Join(root, "usr/lib", version, "lib-dynload/*.so"))
	if err != nil {
		return err
	}
	interpreter := filepath.Join(root, "usr/bin", version)
	loader, err := debian.Loader(interpreter)
	if err != nil {
		return err
	}
	have := map[string]bool{filepath.Base(loader): true}
	for _, name := range systemLibraries() {
		have[name] = true
	}
	libraries, err := debian.Libraries(unpacked, have, append(files, interpreter)...)
	if err != nil {
		return err
	}
	for name, file := range libraries {
		relative, err := filepath.Rel(unpacked, filepath.Dir(file))
		if err != nil {
			return err
		}
		if err := copyFile(file, filepath.Join(root, relative, name)); err != nil {
			return err
		}
	}
	return nil
}

// compile compiles the Python files below dir, which will be at the path at in the image, with the base's own
// interpreter. The results do not depend on times, nor are they checked against the sources at run time.
func (b *Base) compile(ctx context.Context, dir, at string, options ...string) error {
	systemRoot, pythonRoot := filepath.Join(b.parent.dir, "root"), filepath.Join(b.dir, "root")
	loaders, _ := filepath.Glob(filepath.Join(systemRoot, "usr/lib/*-linux-gnu*/ld-linux*"))
	interpreters, _ := filepath.Glob(filepath.Join(pythonRoot, "usr/bin/python3.*"))
	if len(loaders) != 1 || len(interpreters) != 1 {
		return fmt.Errorf("the base image in %s has %d loaders and %d interpreters, want one of each: remove it and try again",
			b.dir, len(loaders), len(interpreters))
	}
	libraries := filepath.Dir(loaders[0])
	args := []string{"--library-path", libraries + ":" + filepath.Join(pythonRoot, "usr/lib", filepath.Base(libraries)),
		interpreters[0], "-S", "-m", "compileall", "-q", "-f", "-j1", "--invalidation-mode", "unchecked-hash", "-s", dir, "-p", at}
	cmd := exec.CommandContext(ctx, loaders[0], append(append(args, options...), dir)...)
	// Hashes of strings decide the order of sets in compiled code. Without DONTWRITEBYTECODE the compiler would leave
	// compiled files of its own imports that are bound to the sources' times, which a layer does not keep.
	cmd.Env = []string{"PYTHONHOME=" + filepath.Join(pythonRoot, "usr"), "PYTHONHASHSEED=0", "PYTHONDONTWRITEBYTECODE=1",
		"LC_ALL=C.UTF-8"}
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("compile the Python files: %w: %s", err, bytes.TrimSpace(said.Bytes()))
	}
	return nil
}

// removeUnused removes the paths below dir that match a pattern.
func removeUnused(dir string, patterns []string) error {
	for _, pattern := range patterns {
		paths, err := filepath.Glob(filepath.Join(dir, pattern))
		if err != nil {
			return fmt.Errorf("%s: %w", pattern, err)
		}
		for _, path := range paths {
			if err := os.RemoveAll(path); err != nil {
				return err
			}
		}
	}
	return nil
}

// removeCompiled removes the __pycache__ folders below dir: they are of another Python, or of other times.
func removeCompiled(dir string) error {
	var found []string
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() && d.Name() == "__pycache__" {
			found = append(found, path)
			return filepath.SkipDir
		}
		return err
	})
	for _, path := range slices.Backward(found) {
		err = errors.Join(err, os.RemoveAll(path))
	}
	return err
}
