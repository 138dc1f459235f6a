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
	return []string{"test", "*/test", "*/tests", "idlelib", "tkinter", "turtledemo", "turtle.py", "ensurepip", "venv",
		"pydoc_data", "dbm/gnu.py", "dbm/ndbm.py", "config-*", "__phello__", "EXTERNALLY-MANAGED",
		"sitecustomize.py",
		// They need libraries that nothing else needs, or belong to Python's own tests.
		"lib-dynload/_test*", "lib-dynload/_xx*", "lib-dynload/xx*", "lib-dynload/_ctypes_test*", "lib-dynload/_dbm*",
		"lib-dynload/_gdbm*", "lib-dynload/nis*", "lib-dynload/ossaudiodev*", "lib-dynload/_tkinter*"}
}

// packageName matches Debian's package of one Python version, "python3.11-minimal".
var packageName = regexp.MustCompile(`^(python3\.\d+)-minimal$`)

// buildPython makes the Python layer and that of the AWS SDK.
func (b *Builder) buildPython(ctx context.Context, scratch string, parent *Base) (v1.Image, error) {
	version, names, err := b.pythonPackages(ctx)
	if err != nil {
		return nil, err
	}
	unpacked, versions, err := b.download(ctx, scratch, append(names, "locales"))
	if err != nil {
		return nil, err
	}
	root := filepath.Join(scratch, "root")
	if err := addLocale(ctx, unpacked, root); err != nil {
		return nil, err
	}
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
	base := &Base{name: Python, dir: scratch, parent: parent, log: b.log}
	if err := base.checkPythonLibraries(version); err != nil {
		return nil, err
	}
	b.log.Info("compiling the standard library", "python", version)
	if err := errors.Join(removeCompiled(library), base.compile(ctx, library, "/usr/lib/"+version)); err != nil {
		return nil, err
	}
	sdk, sdkVersions, err := b.buildBoto3(ctx, scratch, base)
	if err != nil {
		return nil, fmt.Errorf("boto3: %w", err)
	}
	return layered(parent, scratch, imagebuild.Config{
		Labels: map[string]string{"io.esb.packages.python": versions, "io.esb.packages.boto3": sdkVersions},
	}, sdk)
}

// pythonLocale is the locale that functions find in LANG.
const pythonLocale = "en_US.UTF-8"

// addLocale makes pythonLocale of the sources that are unpacked. On AWS, setlocale finds it up to python3.11, on Amazon Linux 2, and
// programs count on it (aws-lambda-base-images issue 229). The other bases are Amazon Linux 2023's, which has C.UTF-8 alone, as
// the C library has it by itself.
func addLocale(ctx context.Context, unpacked, root string) error {
	language, charset, _ := strings.Cut(pythonLocale, ".")
	to := filepath.Join(root, "usr/lib/locale", language+".utf8")
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, "localedef", "--no-archive", "-i", language, "-f", charset, to)
	cmd.Env = append(os.Environ(), "LC_ALL=C", "I18NPATH="+filepath.Join(unpacked, "usr/share/i18n"))
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("make the locale %s: %w: %s", pythonLocale, err, bytes.TrimSpace(out))
	}
	return nil
}

// pythonPrograms is where the interpreter is.
const pythonPrograms = "usr/bin/python3.*"

// addPythonClient adds the layer of the client.
func (b *Builder) addPythonClient(ctx context.Context, scratch string, parent *Base) (v1.Image, error) {
	base := &Base{name: Python, dir: scratch, parent: parent, log: b.log}
	version, err := base.Tag()
	if err != nil {
		return nil, err
	}
	client := filepath.Join(scratch, "work", "client")
	if err := errors.Join(
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
	layer, err := imagebuild.NewLayer(tree)
	if err != nil {
		return nil, err
	}
	return imagebuild.Build(parent, imagebuild.Config{
		Entrypoint: []string{"/usr/bin/python" + version, "-S", "/var/runtime/bootstrap.pyc"},
		Env:        map[string]string{"AWS_EXECUTION_ENV": "AWS_Lambda_python" + version},
		Labels:     map[string]string{labelWaits: "1"},
	}, layer)
}

// pythonPackages returns the release's Python, "python3.11", and the packages of its interpreter and standard library.
func (b *Builder) pythonPackages(ctx context.Context) (version string, names []string, err error) {
	apt, err := b.aptTools()
	if err != nil {
		return "", nil, err
	}
	// Parts of the standard library that Debian keeps apart, until Python itself dropped them (3.12, 3.13).
	var apart []string
	for _, name := range []string{"python3-distutils", "python3-lib2to3"} {
		if apt.Has(ctx, name) {
			apart = append(apart, name)
		}
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
	// The libraries are the system layer's.
	names = graph.Closure(func(name string) bool { return strings.HasPrefix(name, "libpython3") },
		version+"-minimal", "lib"+version+"-stdlib")
	return version, append(names, apart...), nil
}

// checkPythonLibraries makes sure that the system layer has what the interpreter and its extension modules need.
func (b *Base) checkPythonLibraries(version string) error {
	files, err := filepath.Glob(filepath.Join(b.dir, "root/usr/lib", version, "lib-dynload/*.so"))
	if err != nil {
		return err
	}
	_, err = debian.Libraries(filepath.Join(b.parent.dir, "root"), nil, append(files, filepath.Join(b.dir, "root/usr/bin", version))...)
	return err
}

// compile compiles the Python files below dir, which will be at the path at in the image, with the base's own
// interpreter. The results do not depend on times, nor are they checked against the sources at run time.
func (b *Base) compile(ctx context.Context, dir, at string, options ...string) error {
	args := append([]string{"-m", "compileall", "-q", "-f", "-j1", "--invalidation-mode", "unchecked-hash", "-s", dir, "-p", at}, options...)
	if err := b.python(ctx, append(args, dir)...); err != nil {
		return fmt.Errorf("compile the Python files: %w", err)
	}
	return nil
}

// python runs the base's own interpreter on this machine.
func (b *Base) python(ctx context.Context, args ...string) error {
	loader, err := b.find("usr/lib/*-linux-gnu*/ld-linux*")
	if err != nil {
		return err
	}
	program, err := b.find(pythonPrograms)
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, loader, append([]string{"--library-path", filepath.Dir(loader), program, "-S"}, args...)...)
	// Hashes of strings decide the order of sets in compiled code. Without DONTWRITEBYTECODE the interpreter would leave
	// compiled files of its own imports that are bound to the sources' times, which a layer does not keep.
	cmd.Env = []string{"PYTHONHOME=" + filepath.Dir(filepath.Dir(program)), "PYTHONHASHSEED=0", "PYTHONDONTWRITEBYTECODE=1",
		"LC_ALL=C.UTF-8"}
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%w: %s", err, bytes.TrimSpace(said.Bytes()))
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
