// Package runtimes makes the base images that function code runs on: the system libraries and
// the Python of the machine's own Debian release, Node.js from npm, and a runtime client of our own (python/bootstrap.py,
// nodejs/bootstrap.js). No image registry is needed.
//
// Layout, as in AWS's base images: the client in /var/runtime, code in /var/task, layers below /opt; the entrypoint is
// the interpreter with the client, the command is the handler, "module.function".
package runtimes

import (
	"context"
	"crypto/sha256"
	_ "embed" // for the runtime clients
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"

	"github.com/edge-serverless-box/esb/functions/imagebuild"
	"github.com/edge-serverless-box/esb/functions/runtimes/debian"
)

// Names of base images.
const (
	// Python is the Python of this machine's Debian release.
	Python = "python"
	// NodeJS is Node.js, pinned in nodejs.go.
	NodeJS = "nodejs"
	// Provided has no interpreter: the code brings its own program, named bootstrap.
	Provided = "provided"
	// system is what all stand on: common programs, C and C++ libraries, CA certificates, time zones.
	system = "system"
	// interpreter, behind the name of a base, is what that base stands on: all but our client, which changes more often.
	interpreter = "-interpreter"
)

// TaskRoot is where function code lives in an image (AWS: LAMBDA_TASK_ROOT).
const TaskRoot = "/var/task"

// labelWaits of an image says that its client can be started before its function is known, and waits (docs/lambda-init.md).
const labelWaits = "io.esb.client.waits"

// recipe changes when this package makes other images of the same inputs.
const recipe = "2"

//go:embed python/bootstrap.py
var pythonClient []byte

//go:embed nodejs/bootstrap.js
var nodeClient []byte

// Which packages of the AWS SDK for JavaScript the base of Node.js has, and their pinned versions.
var (
	//go:embed nodejs/sdk/package.json
	sdkManifest []byte
	//go:embed nodejs/sdk/package-lock.json
	sdkLock []byte
)

var (
	//go:embed python/slim_models.py
	slimModels []byte
	//go:embed python/requests_errors.py
	requestsErrors []byte
)

// Builder makes base images and keeps them in a cache folder. They are made again when the recipe, the pinned versions
// or the machine's release change, not when Debian publishes a security update: remove the cache folder for that.
type Builder struct {
	cache string
	log   *slog.Logger
	apt   *debian.Apt
}

// NewBuilder returns a Builder with the given cache folder, which is made when needed.
func NewBuilder(cache string, log *slog.Logger) (*Builder, error) {
	absolute, err := filepath.Abs(cache)
	if err != nil {
		return nil, fmt.Errorf("cache folder %s: %w", cache, err)
	}
	return &Builder{cache: absolute, log: log}, nil
}

// Base is one base image and the files it was made of.
type Base struct {
	v1.Image
	name string
	// dir is the cache folder: image/ is an OCI layout, root/ holds the files of the top layer.
	dir    string
	parent *Base
	log    *slog.Logger
}

// buildFunc makes an image on top of parent; scratch/root becomes part of the cache, scratch/work is removed.
type buildFunc func(ctx context.Context, scratch string, parent *Base) (v1.Image, error)

// Base returns the named base image, from the cache or made now.
func (b *Builder) Base(ctx context.Context, name string) (*Base, error) {
	build, ok := map[string]buildFunc{
		system: b.buildSystem, Provided: b.buildProvided,
		Python + interpreter: b.buildPython, Python: b.addPythonClient,
		NodeJS + interpreter: b.buildNode, NodeJS: b.addNodeClient,
	}[name]
	if !ok {
		return nil, fmt.Errorf("no base image %q: must be %s, %s or %s", name, Python, NodeJS, Provided)
	}
	base := &Base{name: name, log: b.log}
	if name != system {
		parent, err := b.Base(ctx, standsOn(name))
		if err != nil {
			return nil, err
		}
		base.parent = parent
	}
	key, err := Key(name)
	if err != nil {
		return nil, err
	}
	base.dir = filepath.Join(b.cache, name+"-"+runtime.GOARCH+"-"+key)
	if _, err := os.Stat(base.dir); errors.Is(err, os.ErrNotExist) {
		b.log.Info("making a base image", "base", name)
		if err := b.fill(ctx, base, build); err != nil {
			return nil, fmt.Errorf("base image %s: %w", name, err)
		}
	}
	base.Image, err = load(filepath.Join(base.dir, "image"))
	if err != nil {
		return nil, fmt.Errorf("base image %s: %w: remove %s and try again", name, err, base.dir)
	}
	return base, nil
}

// standsOn returns the name of the base below another one.
func standsOn(name string) string {
	if name == Python || name == NodeJS {
		return name + interpreter
	}
	return system
}

// find returns the only file of a pattern in the base's own layers or those below it.
func (b *Base) find(pattern string) (string, error) {
	var found []string
	for base := b; base != nil && len(found) == 0; base = base.parent {
		var err error
		if found, err = filepath.Glob(filepath.Join(base.dir, "root", pattern)); err != nil {
			return "", err
		}
	}
	if len(found) != 1 {
		return "", fmt.Errorf("the base image in %s has %d files %s, want one: remove %s and try again", b.dir, len(found), pattern, filepath.Dir(b.dir))
	}
	return found[0], nil
}

// fill makes the cache folder of a base image, whole or not at all.
func (b *Builder) fill(ctx context.Context, base *Base, build buildFunc) error {
	if err := os.MkdirAll(b.cache, 0o755); err != nil {
		return err
	}
	scratch, err := os.MkdirTemp(b.cache, "."+base.name+"-*.tmp")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(scratch) }()
	if err := os.Mkdir(filepath.Join(scratch, "root"), 0o755); err != nil {
		return err
	}
	img, err := build(ctx, scratch, base.parent)
	if err != nil {
		return err
	}
	path, err := layout.Write(filepath.Join(scratch, "image"), empty.Index)
	if err != nil {
		return fmt.Errorf("keep the image: %w", err)
	}
	if base.parent != nil {
		linkBlobs(filepath.Join(base.parent.dir, "image"), filepath.Join(scratch, "image"))
	}
	if err := path.AppendImage(img); err != nil {
		return fmt.Errorf("keep the image: %w", err)
	}
	if err := os.RemoveAll(filepath.Join(scratch, "work")); err != nil {
		return err
	}
	err = os.Rename(scratch, base.dir)
	if errors.Is(err, os.ErrExist) {
		return nil // another process was faster, with the same inputs
	}
	return err
}

// linkBlobs gives the layers of one layout to another, which then need not be written again. What cannot be linked will be.
func linkBlobs(from, to string) {
	blobs := filepath.Join("blobs", "sha256")
	files, _ := os.ReadDir(filepath.Join(from, blobs))
	if err := os.MkdirAll(filepath.Join(to, blobs), 0o755); err != nil {
		return
	}
	for _, file := range files {
		_ = os.Link(filepath.Join(from, blobs, file.Name()), filepath.Join(to, blobs, file.Name()))
	}
}

func load(dir string) (v1.Image, error) {
	index, err := layout.ImageIndexFromPath(dir)
	if err != nil {
		return nil, err
	}
	manifest, err := index.IndexManifest()
	if err != nil {
		return nil, err
	}
	if len(manifest.Manifests) != 1 {
		return nil, fmt.Errorf("%s: %d images, want one", dir, len(manifest.Manifests))
	}
	return index.Image(manifest.Manifests[0].Digest)
}

// Key is a digest of what a base image is made of, as far as it is known without making it.
func Key(name string) (string, error) {
	release, err := os.ReadFile("/etc/os-release")
	if err != nil {
		return "", fmt.Errorf("which release is this machine: %w", err)
	}
	inputs := sha256.New()
	for _, input := range [][]byte{[]byte(recipe), release} {
		_, _ = inputs.Write(append(input, 0))
	}
	switch name {
	case Python, NodeJS:
		below, err := Key(standsOn(name))
		if err != nil {
			return "", err
		}
		_, _ = inputs.Write([]byte(below))
		_, _ = inputs.Write(map[string][]byte{Python: pythonClient, NodeJS: nodeClient}[name])
	case Python + interpreter:
		for _, input := range [][]byte{slimModels, requestsErrors, []byte(pythonLocale)} {
			_, _ = inputs.Write(input)
		}
		for _, p := range pinnedBoto3() {
			_, _ = inputs.Write([]byte(p.SHA256))
		}
	case NodeJS + interpreter:
		for _, input := range [][]byte{[]byte(nodeVersion), sdkManifest, sdkLock} {
			_, _ = inputs.Write(input)
		}
	}
	return hex.EncodeToString(inputs.Sum(nil))[:16], nil
}

// Tag is the version of the base's runtime, as AWS's names of runtimes have it: "3.11" of python3.11, "24" of nodejs24.x,
// "latest" for programs that bring their own.
func (b *Base) Tag() (string, error) {
	switch b.name {
	case NodeJS:
		major, _, _ := strings.Cut(nodeVersion, ".")
		return major, nil
	case Python:
		program, err := b.find(pythonPrograms)
		return strings.TrimPrefix(filepath.Base(program), "python"), err
	}
	return "latest", nil
}

// buildProvided makes what AWS's provided.al2023 is to programs: a C library, CA certificates and time zones.
func (b *Builder) buildProvided(_ context.Context, _ string, parent *Base) (v1.Image, error) {
	return imagebuild.Build(parent, imagebuild.Config{Labels: map[string]string{"io.esb.runtime": Provided}})
}

// CodeLayer makes the layer that puts the code in the folder dir into an image, at TaskRoot. Python code is compiled:
// the root of a function's container is read-only, so that it would be compiled anew by every cold start.
func (b *Base) CodeLayer(ctx context.Context, dir string) (v1.Layer, error) {
	tree := imagebuild.NewTree()
	if b.name == Python {
		scratch, err := os.MkdirTemp("", "esb-image-*")
		if err != nil {
			return nil, fmt.Errorf("compile %s: %w", dir, err)
		}
		defer func() { _ = os.RemoveAll(scratch) }()
		if err := os.CopyFS(scratch, os.DirFS(dir)); err != nil {
			return nil, fmt.Errorf("copy %s: %w", dir, err)
		}
		if err := removeCompiled(scratch); err != nil {
			return nil, fmt.Errorf("copy %s: %w", dir, err)
		}
		if err := b.compile(ctx, scratch, TaskRoot); err != nil {
			// A file with a syntax error may be one that is never imported; the rest has been compiled.
			b.log.Warn("not all files could be compiled", "dir", dir, "error", err.Error())
		}
		dir = scratch
	}
	if err := tree.AddTree(TaskRoot, dir); err != nil {
		return nil, fmt.Errorf("code folder %s: %w", dir, err)
	}
	return imagebuild.NewLayer(tree)
}

// HandlerFiles returns the files in which the client of a base looks for the module of a handler, by their paths in the code
// folder, as patterns of filepath.Glob. A handler that is not module.function is an error.
func HandlerFiles(base, handler string) ([]string, error) {
	dir, last := path.Split(handler)
	switch base {
	case Python: // the function follows the last dot; dots and slashes part packages
		dot := strings.LastIndexByte(handler, '.')
		if dot < 1 || dot == len(handler)-1 {
			return nil, errNoHandler
		}
		module := strings.ReplaceAll(handler[:dot], ".", "/")
		return []string{module + ".py", module + "/__init__.py", module + ".pyc", module + ".so", module + ".*.so"}, nil
	case NodeJS: // the function follows the first dot of the file's name
		module, function, ok := strings.Cut(last, ".")
		if !ok || module == "" || function == "" {
			return nil, errNoHandler
		}
		module = dir + module
		return []string{module + ".js", module + ".mjs", module + ".cjs", module + "/index.js", module}, nil
	}
	return nil, nil
}

var errNoHandler = errors.New("must be module.function, such as app.handler")

// download fetches packages into work/debs and unpacks them into work/unpacked, which it returns with a list
// "name=version" for the image's labels.
func (b *Builder) download(ctx context.Context, scratch string, names []string) (root, versions string, err error) {
	apt, err := b.aptTools()
	if err != nil {
		return "", "", err
	}
	debs, root := filepath.Join(scratch, "work", "debs"), filepath.Join(scratch, "work", "unpacked")
	if err := errors.Join(os.MkdirAll(debs, 0o755), os.MkdirAll(root, 0o755)); err != nil {
		return "", "", err
	}
	b.log.Info("downloading Debian packages", "packages", strings.Join(names, " "))
	files, err := apt.Download(ctx, debs, names...)
	if err != nil {
		return "", "", err
	}
	versions, err = unpack(ctx, root, files)
	return root, versions, err
}

// unpack unpacks .deb files into root and returns the list "name=version" of them.
func unpack(ctx context.Context, root string, files []string) (versions string, err error) {
	var list []string
	for _, file := range files {
		// name_version_arch.deb, with a colon of the version written as %3a
		parts := strings.Split(filepath.Base(file), "_")
		if len(parts) == 3 {
			list = append(list, parts[0]+"="+strings.ReplaceAll(parts[1], "%3a", ":"))
		}
		if err := debian.Unpack(ctx, file, root); err != nil {
			return "", err
		}
	}
	return strings.Join(list, " "), nil
}

func (b *Builder) aptTools() (*debian.Apt, error) {
	if b.apt != nil {
		return b.apt, nil
	}
	apt, err := debian.New(b.log)
	b.apt = apt
	return apt, err
}

// layered makes the image of scratch/root on top of parent.
func layered(parent v1.Image, scratch string, config imagebuild.Config, trees ...*imagebuild.Tree) (v1.Image, error) {
	root := imagebuild.NewTree()
	if err := root.AddTree("/", filepath.Join(scratch, "root")); err != nil {
		return nil, err
	}
	var layers []v1.Layer
	for _, tree := range append([]*imagebuild.Tree{root}, trees...) {
		layer, err := imagebuild.NewLayer(tree)
		if err != nil {
			return nil, err
		}
		layers = append(layers, layer)
	}
	return imagebuild.Build(parent, config, layers...)
}
