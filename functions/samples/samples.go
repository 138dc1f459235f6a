// Package samples builds the runtime base images (for functions whose code is no image) and those of the sample functions: those in Go from this module's sources on an empty base,
// those in Python and Node.js on the base images of package runtimes.
package samples

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/edge-serverless-box/esb/functions/gotool"
	"github.com/edge-serverless-box/esb/functions/imagebuild"
	"github.com/edge-serverless-box/esb/functions/runtimes"
)

// annotationInputs of an archive is a digest of what its image was made of.
const annotationInputs = "io.esb.inputs"

// recipe changes when this package makes other images of the same inputs.
const recipe = "1"

// golang stands for "no base image: a static binary", beside the names of base images.
const golang = "go"

// sample is one function: its folder is its name, its image is esb/<name>:latest. A bare one is a base image by itself,
// esb/<name>:<version of the runtime>.
type sample struct {
	name, base, handler string
	bare                bool
}

func all() []sample {
	return []sample{
		{name: "lambda-echo", base: golang},
		{name: "lambda-event", base: golang},
		{name: "lambda-respond", base: golang},
		{name: "lambda-authorizer", base: golang},
		{name: "lambda-chaos", base: golang},
		{name: "lambda-stream", base: golang},
		{name: "lambda-s3", base: golang},
		{name: "lambda-dynamodb", base: golang},
		{name: "lambda-invoke", base: golang},
		{name: "lambda-hello-python", base: runtimes.Python, handler: "handler.handler"},
		{name: "lambda-hello-node", base: runtimes.NodeJS, handler: "index.handler"},
		{name: "lambda-stream-node", base: runtimes.NodeJS, handler: "index.handler"},
		{name: "runtime-python", base: runtimes.Python, bare: true},
		{name: "runtime-nodejs", base: runtimes.NodeJS, bare: true},
		{name: "runtime-provided", base: runtimes.Provided, bare: true},
	}
}

// Builder builds the sample images.
type Builder struct {
	// Source is the folder of this module.
	Source string
	// Out is where the archives go, <name>.tar; it is made when needed.
	Out string
	// Bases makes the base images.
	Bases *runtimes.Builder
	Log   *slog.Logger
}

// Build builds the images whose archives are missing or were made of other inputs, all of them when names is empty.
func (b *Builder) Build(ctx context.Context, names ...string) error {
	selected, err := choose(names)
	if err != nil {
		return err
	}
	if _, err := os.Stat(filepath.Join(b.Source, "lambda-echo", "main.go")); err != nil {
		return fmt.Errorf("%s is not the folder of the sample functions: give it with -src: %w", b.Source, err)
	}
	if err := os.MkdirAll(b.Out, 0o755); err != nil {
		return fmt.Errorf("output folder: %w", err)
	}
	var compile []sample
	inputs := map[string]string{}
	stale := selected[:0:0]
	for _, s := range selected {
		digest, err := b.inputs(ctx, s)
		if err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
		inputs[s.name] = digest
		if b.upToDate(s, digest) {
			b.Log.Info("up to date", "archive", b.archive(s))
			continue
		}
		stale = append(stale, s)
		if s.base == golang {
			compile = append(compile, s)
		}
	}
	binaries, err := os.MkdirTemp("", "esb-samples-*")
	if err != nil {
		return fmt.Errorf("build folder: %w", err)
	}
	defer func() { _ = os.RemoveAll(binaries) }()
	if err := b.compile(ctx, binaries, compile); err != nil {
		return err
	}
	for _, s := range stale {
		start := time.Now()
		img, name, err := b.image(ctx, s, binaries)
		if err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
		if err := imagebuild.WriteArchive(b.archive(s), name, img, map[string]string{annotationInputs: inputs[s.name]}); err != nil {
			return err
		}
		info, err := os.Stat(b.archive(s))
		if err != nil {
			return err
		}
		b.Log.Info("built", "image", name, "archive", b.archive(s), "mb", info.Size()>>20, "ms", time.Since(start).Milliseconds())
	}
	return nil
}

func choose(names []string) ([]sample, error) {
	if len(names) == 0 {
		return all(), nil
	}
	var chosen []sample
	for _, name := range names {
		i := slices.IndexFunc(all(), func(s sample) bool { return s.name == name })
		if i < 0 {
			return nil, fmt.Errorf("no sample function %q", name)
		}
		chosen = append(chosen, all()[i])
	}
	return chosen, nil
}

func (s sample) image() string { return "esb/" + s.name + ":latest" }

func (b *Builder) archive(s sample) string { return filepath.Join(b.Out, s.name+".tar") }

func (b *Builder) upToDate(s sample, digest string) bool {
	annotations, err := imagebuild.Annotations(b.archive(s))
	return err == nil && annotations[annotationInputs] == digest && imagebuild.Whole(b.archive(s)) == nil
}

// inputs is a digest of everything that the image of a sample depends on.
func (b *Builder) inputs(ctx context.Context, s sample) (string, error) {
	hash := sha256.New()
	_, _ = fmt.Fprintln(hash, recipe, s.name, s.base, s.handler, runtime.GOARCH)
	var paths []string
	if !s.bare {
		paths = append(paths, s.name)
	}
	if s.base == golang {
		version, err := b.goTool(ctx, "env", "GOVERSION")
		if err != nil {
			return "", err
		}
		_, _ = fmt.Fprintln(hash, strings.TrimSpace(version))
		paths = append(paths, "internal", "go.mod", "go.sum")
	} else {
		key, err := runtimes.Key(s.base)
		if err != nil {
			return "", err
		}
		_, _ = fmt.Fprintln(hash, key)
	}
	for _, path := range paths {
		if err := addFiles(hash, b.Source, path); err != nil {
			return "", err
		}
	}
	return hex.EncodeToString(hash.Sum(nil)), nil
}

// addFiles adds names and contents of a file or of the files in a folder, in order; tests do not count.
func addFiles(w io.Writer, root, name string) error {
	return filepath.WalkDir(filepath.Join(root, name), func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		relative, err := filepath.Rel(root, path)
		if err != nil || strings.HasSuffix(path, "_test.go") {
			return err
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		_, err = fmt.Fprintf(w, "%s %d\n%s", relative, len(data), data)
		return err
	})
}

// compile builds the Go samples into dir, statically and reproducibly.
func (b *Builder) compile(ctx context.Context, dir string, samples []sample) error {
	if len(samples) == 0 {
		return nil
	}
	args := []string{"build", "-trimpath", "-buildvcs=false", "-tags", "lambda.norpc", "-ldflags", "-s -w -buildid=", "-o", dir + "/"}
	for _, s := range samples {
		args = append(args, "./"+s.name)
	}
	b.Log.Info("compiling the Go samples", "count", len(samples))
	_, err := b.goTool(ctx, args...)
	return err
}

func (b *Builder) goTool(ctx context.Context, args ...string) (string, error) {
	source, err := filepath.Abs(b.Source)
	if err != nil {
		return "", fmt.Errorf("the folder of the samples: %w", err)
	}
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir = source
	toolchain, err := gotool.Env(filepath.Dir(source))
	if err != nil {
		return "", err
	}
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOWORK=off", "GOFLAGS=-mod=readonly", "GOOS=linux", "GOARCH="+runtime.GOARCH)
	cmd.Env = append(cmd.Env, toolchain...)
	out, err := cmd.Output()
	if err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			err = fmt.Errorf("%w: %s", err, exit.Stderr)
		}
		return "", fmt.Errorf("go %s: %w", args[0], err)
	}
	return string(out), nil
}

// image makes the image of a sample and says its name.
func (b *Builder) image(ctx context.Context, s sample, binaries string) (img v1.Image, name string, err error) {
	if s.base == golang {
		img, err = goImage(s, filepath.Join(binaries, s.name))
		return img, s.image(), err
	}
	base, err := b.Bases.Base(ctx, s.base)
	if err != nil {
		return nil, "", err
	}
	if s.bare {
		tag, err := base.Tag()
		return base, "esb/" + s.name + ":" + tag, err
	}
	layer, err := base.CodeLayer(ctx, filepath.Join(b.Source, s.name))
	if err != nil {
		return nil, "", err
	}
	img, err = imagebuild.Build(base, imagebuild.Config{Cmd: []string{s.handler}}, layer)
	return img, s.image(), err
}

// goImage is FROM scratch: a binary, and the folders that a read-only root must have.
func goImage(s sample, binary string) (v1.Image, error) {
	base, err := imagebuild.Scratch()
	if err != nil {
		return nil, err
	}
	program := runtimes.TaskRoot + "/bootstrap"
	tree := imagebuild.NewTree()
	tree.AddFile(program, binary, true)
	tree.AddDir("/tmp", fs.ModeSticky|0o777)
	layer, err := imagebuild.NewLayer(tree)
	if err != nil {
		return nil, err
	}
	return imagebuild.Build(base, imagebuild.Config{Entrypoint: []string{program}, WorkingDir: runtimes.TaskRoot,
		Labels: map[string]string{"io.esb.sample": s.name}}, layer)
}
