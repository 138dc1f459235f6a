// Package npm fetches single packages from the npm registry that is configured on this machine, with npm itself.
package npm

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha512"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
)

// ErrNoNpm says what is missing.
var ErrNoNpm = errors.New("npm is needed: apt-get install npm, or install Node.js")

// Package is one pinned package.
type Package struct {
	Name, Version string
	// Integrity is "sha512-<base64>", as npm publishes it.
	Integrity string
}

// Available tells whether npm is installed.
func Available() bool {
	_, err := exec.LookPath("npm")
	return err == nil
}

// Extract downloads the package and writes the files that want names, paths in the package, to dir by their base name,
// executable. A download that is not what Integrity promises is an error.
func (p Package) Extract(ctx context.Context, dir string, want ...string) error {
	if !Available() {
		return ErrNoNpm
	}
	scratch, err := os.MkdirTemp(dir, ".npm-*")
	if err != nil {
		return fmt.Errorf("fetch %s: %w", p.Name, err)
	}
	defer func() { _ = os.RemoveAll(scratch) }()
	spec := p.Name + "@" + p.Version
	cmd := exec.CommandContext(ctx, "npm", "pack", "--silent", "--cache", filepath.Join(scratch, "cache"),
		"--pack-destination", scratch, spec)
	var complaints bytes.Buffer
	cmd.Stderr = &complaints
	if _, err := cmd.Output(); err != nil {
		return fmt.Errorf("npm pack %s: %w: %s", spec, err, bytes.TrimSpace(complaints.Bytes()))
	}
	files, err := filepath.Glob(filepath.Join(scratch, "*.tgz"))
	if err != nil || len(files) != 1 {
		return fmt.Errorf("npm pack %s: left %d archives, want one", spec, len(files))
	}
	if err := p.check(files[0]); err != nil {
		return err
	}
	return extract(files[0], dir, want)
}

// Install fetches the packages of a lock file into dir/node_modules, without running their scripts. npm refuses a download
// that is not what the lock file promises. Links to programs and npm's own notes are left out.
func Install(ctx context.Context, dir string, manifest, lock []byte) error {
	if !Available() {
		return ErrNoNpm
	}
	scratch, err := os.MkdirTemp(dir, ".npm-*")
	if err != nil {
		return fmt.Errorf("npm ci: %w", err)
	}
	defer func() { _ = os.RemoveAll(scratch) }()
	if err := errors.Join(
		os.WriteFile(filepath.Join(scratch, "package.json"), manifest, 0o600),
		os.WriteFile(filepath.Join(scratch, "package-lock.json"), lock, 0o600),
	); err != nil {
		return fmt.Errorf("npm ci: %w", err)
	}
	cmd := exec.CommandContext(ctx, "npm", "ci", "--loglevel=error", "--ignore-scripts", "--no-audit", "--no-fund", "--no-bin-links", "--omit=dev",
		"--install-strategy=hoisted", "--cache", filepath.Join(scratch, "cache"))
	cmd.Dir = scratch
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("npm ci: %w: %s", err, bytes.TrimSpace(out))
	}
	modules := filepath.Join(scratch, "node_modules")
	if err := os.Remove(filepath.Join(modules, ".package-lock.json")); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("npm ci: %w", err)
	}
	return os.Rename(modules, filepath.Join(dir, "node_modules"))
}

func (p Package) check(file string) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	hash := sha512.New()
	if _, err := io.Copy(hash, f); err != nil {
		return fmt.Errorf("read %s: %w", file, err)
	}
	if got := "sha512-" + base64.StdEncoding.EncodeToString(hash.Sum(nil)); got != p.Integrity {
		return fmt.Errorf("%s %s: the download's integrity is %s, pinned is %s", p.Name, p.Version, got, p.Integrity)
	}
	return nil
}

func extract(file, dir string, want []string) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	unzipped, err := gzip.NewReader(f)
	if err != nil {
		return fmt.Errorf("read %s: %w", file, err)
	}
	missing := map[string]bool{}
	for _, name := range want {
		missing["package/"+name] = true
	}
	archive := tar.NewReader(unzipped)
	for len(missing) > 0 {
		header, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return fmt.Errorf("%s has none of %v", file, missing)
		}
		if err != nil {
			return fmt.Errorf("read %s: %w", file, err)
		}
		if !missing[header.Name] {
			continue
		}
		delete(missing, header.Name)
		target, err := os.OpenFile(filepath.Join(dir, filepath.Base(header.Name)), os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o755)
		if err != nil {
			return err
		}
		_, err = io.Copy(target, archive)
		if err = errors.Join(err, target.Close()); err != nil {
			return fmt.Errorf("unpack %s of %s: %w", header.Name, file, err)
		}
	}
	return nil
}
