package stack

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/edge-serverless-box/esb/native"
	"github.com/edge-serverless-box/esb/native/apt"
	"github.com/edge-serverless-box/esb/native/build"
	"github.com/edge-serverless-box/esb/native/release"
)

// MakeRelease builds everything and makes a release of it in dir. The sample functions and their code come along, for a box that has no
// functions yet.
func (s *Stack) MakeRelease(ctx context.Context, dir, version string) (release.Release, error) {
	if err := s.Build(ctx, build.BoxGroups...); err != nil {
		return release.Release{}, err
	}
	// Not the esb of this working copy, which is built however somebody has built it.
	own := filepath.Join(s.settings.Root, ".esb", "cache", "release-bin")
	if err := build.New(s.settings.Root, own, s.console, &apt.Installer{}).Build(ctx, build.Targets(build.GroupCommand)); err != nil {
		return release.Release{}, err
	}
	c := release.Contents{Samples: filepath.Join(s.settings.Root, "functions"), Programs: map[string][]string{"esb": {filepath.Join(own, "esb")}}}
	for _, group := range build.BoxGroups {
		for _, t := range build.Targets(group) {
			if t.Name == "esb-relay" {
				continue // of the Docker ways
			}
			for _, name := range t.Outputs {
				c.Programs[t.Name] = append(c.Programs[t.Name], filepath.Join(s.settings.BinDir, name))
			}
		}
	}
	c.Images = filepath.Join(s.settings.Root, ".esb", "cache", "release-images")
	if err := s.console.Step("making the images", func() error { return s.makeImages(ctx, c.Images) }); err != nil {
		return release.Release{}, err
	}
	text, err := os.ReadFile(filepath.Join(c.Samples, "functions.yml"))
	if err != nil {
		return release.Release{}, fmt.Errorf("read the sample functions: %w", err)
	}
	c.Code = sampleCode(string(text))
	var made release.Release
	err = s.console.Step("making the release "+dir, func() error {
		made, err = release.Make(dir, version, c)
		return err
	})
	return made, err
}

// sampleCode are the folders that the sample functions name as code or layers, relative to functions.yml.
func sampleCode(functions string) []string {
	var code []string
	for line := range strings.Lines(functions) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), ":")
		if name != "code" && name != "layers" {
			continue
		}
		for part := range strings.SplitSeq(strings.Trim(strings.TrimSpace(value), "[]"), ",") {
			if part = strings.TrimSpace(part); strings.HasPrefix(part, "./") {
				code = append(code, filepath.Clean(part))
			}
		}
	}
	return code
}

// Fit says what keeps the programs of this release from taking the box over as it is now: settings, files and state that they cannot read,
// programs that do not run on this machine.
func (s *Stack) Fit(ctx context.Context) error {
	for _, program := range []string{"containerd", "runc"} {
		path := filepath.Join(s.settings.BinDir, program)
		if out, err := exec.CommandContext(ctx, path, "--version").CombinedOutput(); err != nil {
			return &native.Problem{What: fmt.Sprintf("%s does not run on this machine: %v: %s", path, err, bytes.TrimSpace(out)), Do: "Take a release that is made for this machine."}
		}
	}
	// As for a reload: code that is missing, or an archive that cannot be read, is waited for, and must not keep anybody from going back.
	return errors.Join(s.understood(), s.asked(ctx, func() error {
		_, files := s.readFiles(ctx, "-as-reload")
		_, _, settings := s.absent(ctx, "esb/none")
		return errors.Join(files, settings)
	}))
}

// makeImages makes the archives of the sample functions and base images; esb-image skips what is up to date.
func (s *Stack) makeImages(ctx context.Context, dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("make the image folder: %w", err)
	}
	args := []string{"build-samples", "-out", dir, "-cache", filepath.Join(s.settings.Root, ".esb", "cache", "images")}
	cmd := exec.CommandContext(ctx, filepath.Join(s.settings.BinDir, "esb-image"), args...)
	cmd.Dir, cmd.Env = s.settings.Root, s.environ
	var output io.Writer = &lines{print: func(line string) { s.console.Printf("    %s", line) }}
	cmd.Stdout, cmd.Stderr = output, output
	if err := cmd.Run(); err != nil {
		if ctx.Err() != nil {
			return fmt.Errorf("make the images of the sample functions: %w", ctx.Err())
		}
		return &native.Problem{
			What: fmt.Sprintf("making the images of the sample functions failed (%v)", err),
			Do:   "Cure what its last line above names, and run the command again.",
		}
	}
	return nil
}
