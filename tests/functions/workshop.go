package functions

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/edge-serverless-box/esb/functions/runtimes/debian"
	"github.com/edge-serverless-box/esb/tests/packages"
	"github.com/edge-serverless-box/esb/tests/stack"
)

// workshop makes the folder that a user of the box has: configuration, and code with all that it needs.
type workshop struct {
	root, home, config string
	cache              *packages.Cache
	images             []string
}

func (w *workshop) prepare(ctx context.Context) error {
	if err := os.CopyFS(w.config, os.DirFS(w.source(""))); err != nil {
		return err
	}
	// Programs are programs, whatever the umask says.
	for _, name := range []string{"shell/bootstrap", "java/bootstrap"} {
		if err := os.Chmod(filepath.Join(w.config, name), 0o755); err != nil {
			return err
		}
	}
	for _, step := range []struct {
		what string
		do   func(context.Context) error
	}{
		{"web's packages", func(ctx context.Context) error { return w.npm(ctx, "web", false) }},
		{"media's packages", func(ctx context.Context) error { return w.npm(ctx, "media", false) }},
		{"AWS's runtime interface client", w.runtimeInterfaceClient},
		{"the function in Go", w.inGo},
		{"the function in C", w.inC},
		{"the function in Java", w.inJava},
		{"Debian's Flask", func(ctx context.Context) error {
			return w.debianLayer(ctx, "flask", "python3-flask", "python3-werkzeug", "python3-jinja2", "python3-markupsafe", "python3-itsdangerous", "python3-click")
		}},
		{"Debian's Sentry SDK", func(ctx context.Context) error {
			return w.debianLayer(ctx, "sentry", "python3-sentry-sdk", "python3-certifi")
		}},
		{"sentry's packages", func(ctx context.Context) error { return w.npm(ctx, "sentry", false) }},
	} {
		if err := step.do(ctx); err != nil {
			return fmt.Errorf("%s: %w", step.what, err)
		}
	}
	return nil
}

func (w *workshop) source(name string) string {
	return filepath.Join(w.root, "tests", "functions", "testdata", name)
}

func (w *workshop) npm(ctx context.Context, name string, scripts bool) error {
	return w.cache.NPM(ctx, w.source(name), filepath.Join(w.config, name), scripts)
}

// runtimeInterfaceClient compiles a part of itself when it is installed.
func (w *workshop) runtimeInterfaceClient(ctx context.Context) error {
	if err := packages.Install(ctx, packages.Need{Program: "cmake", Debian: []string{"cmake"}}, packages.Need{Program: "g++", Debian: []string{"g++"}},
		packages.Need{Program: "make", Debian: []string{"make"}}, packages.Need{Program: "autoreconf", Debian: []string{"autoconf"}},
		packages.Need{Program: "automake", Debian: []string{"automake"}}, packages.Need{Program: "libtoolize", Debian: []string{"libtool"}},
		packages.Need{Program: "python3", Debian: []string{"python3"}}); err != nil {
		return err
	}
	if err := w.npm(ctx, "ric", true); err != nil {
		return err
	}
	image, err := stack.BuildImage(w.root, w.home, "esb/tests-ric:latest", "-base", "nodejs", "-dir", filepath.Join(w.config, "ric"),
		"-entrypoint", `["/usr/bin/node","/var/task/node_modules/aws-lambda-ric/index.mjs"]`, "-cmd", `["index.handler"]`)
	w.images = append(w.images, image)
	return err
}

func (w *workshop) inGo(context.Context) error {
	program, err := stack.BuildProgram(w.root, w.home, "./functions/lambda-echo", "-tags", "lambda.norpc")
	if err != nil {
		return err
	}
	folder := filepath.Join(w.config, "go")
	return errors.Join(os.MkdirAll(folder, 0o755), os.Rename(program, filepath.Join(folder, "bootstrap")))
}

// inC links against the C library of the machine, which is that of the base image.
func (w *workshop) inC(ctx context.Context) error {
	if err := packages.Install(ctx, packages.Need{Program: "gcc", Debian: []string{"gcc", "libc6-dev"}}); err != nil {
		return err
	}
	return packages.Run(ctx, filepath.Join(w.config, "c"), nil, "gcc", "-O2", "-Wall", "-Werror", "-o", "bootstrap", "bootstrap.c")
}

func (w *workshop) inJava(ctx context.Context) error {
	if err := packages.Install(ctx, packages.Need{Program: "jlink", Debian: []string{"openjdk-17-jdk-headless"}}); err != nil {
		return err
	}
	if err := packages.Run(ctx, filepath.Join(w.config, "java"), nil, "javac", "Main.java"); err != nil {
		return err
	}
	return w.cache.Fill(ctx, "jre", filepath.Join(w.config, "jre"), []string{"/etc/debian_version"}, func(dir string) error {
		return packages.Run(ctx, dir, nil, "jlink", "--add-modules", "java.base,java.net.http", "--strip-debug", "--no-man-pages", "--no-header-files",
			"--compress=2", "--output", "java")
	})
}

// debianLayer makes the layer debian-<name> of Debian's packages: pure Python, and modules in C.
func (w *workshop) debianLayer(ctx context.Context, name string, packages ...string) error {
	tool, err := debian.New(slog.New(slog.DiscardHandler))
	if err != nil {
		return err
	}
	debs, unpacked, layer := filepath.Join(w.home, "debs-"+name), filepath.Join(w.home, "unpacked-"+name), filepath.Join(w.config, "debian-"+name)
	if err := errors.Join(os.MkdirAll(debs, 0o755), os.MkdirAll(unpacked, 0o755), os.MkdirAll(layer, 0o755)); err != nil {
		return err
	}
	files, err := tool.Download(ctx, debs, packages...)
	if err != nil {
		return err
	}
	for _, file := range files {
		if err := debian.Unpack(ctx, file, unpacked); err != nil {
			return err
		}
	}
	return os.Rename(filepath.Join(unpacked, "usr", "lib", "python3", "dist-packages"), filepath.Join(layer, "python"))
}
