// Package debian fetches packages of the machine's own Debian or Ubuntu release with apt-get, and unpacks them with
// dpkg-deb, without installing anything.
package debian

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// ErrNoApt says that this machine has no Debian packages.
var ErrNoApt = errors.New("apt-get, apt-cache and dpkg-deb are needed: run this on Debian or Ubuntu, " +
	"or build the images there and copy the archives")

// Graph is the dependencies between packages: name to the names it needs, alternatives included.
type Graph map[string][]string

// Apt runs apt's tools. When the package lists are missing or old, it runs `apt-get update` once.
type Apt struct {
	log     *slog.Logger
	updated bool
}

// New checks that the tools exist.
func New(log *slog.Logger) (*Apt, error) {
	for _, tool := range []string{"apt-get", "apt-cache", "dpkg-deb"} {
		if _, err := exec.LookPath(tool); err != nil {
			return nil, fmt.Errorf("%s not found: %w", tool, ErrNoApt)
		}
	}
	return &Apt{log: log}, nil
}

// Dependencies returns the graph below the named packages.
func (a *Apt) Dependencies(ctx context.Context, names ...string) (Graph, error) {
	args := append([]string{"depends", "--recurse", "--no-recommends", "--no-suggests", "--no-conflicts", "--no-breaks",
		"--no-replaces", "--no-enhances"}, names...)
	var graph Graph
	err := a.retry(ctx, func() error {
		out, err := run(ctx, "", "apt-cache", args...)
		if err != nil {
			return err
		}
		graph = parseGraph(out)
		for _, name := range names {
			if len(graph[name]) == 0 {
				return fmt.Errorf("no package %s", name)
			}
		}
		return nil
	})
	return graph, err
}

// dependency matches "  Depends: x", " |Depends: x" and "  PreDepends: x:any"; virtual packages stand in <>.
var dependency = regexp.MustCompile(`^[ |]+(?:Pre)?Depends: ([a-z0-9][a-z0-9+.-]*)(?::any)?$`)

func parseGraph(out []byte) Graph {
	graph := Graph{}
	current := ""
	lines := bufio.NewScanner(bytes.NewReader(out))
	for lines.Scan() {
		line := lines.Text()
		if line != "" && line[0] != ' ' {
			current = line
		} else if m := dependency.FindStringSubmatch(line); m != nil {
			graph[current] = append(graph[current], m[1])
		}
	}
	return graph
}

// Closure returns, sorted, the packages that roots lead to, themselves included, over packages that keep accepts.
func (g Graph) Closure(keep func(name string) bool, roots ...string) []string {
	seen := map[string]bool{}
	for queue := slices.Clone(roots); len(queue) > 0; queue = queue[1:] {
		name := queue[0]
		if seen[name] {
			continue
		}
		seen[name] = true
		for _, needed := range g[name] {
			if keep(needed) {
				queue = append(queue, needed)
			}
		}
	}
	names := make([]string, 0, len(seen))
	for name := range seen {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// Download fetches the packages into dir and returns the paths of the .deb files. apt checks signatures and hashes.
func (a *Apt) Download(ctx context.Context, dir string, names ...string) ([]string, error) {
	err := a.retry(ctx, func() error {
		// "Sandbox::User=root": apt's own user can hardly read a private folder, and warns about each file.
		_, err := run(ctx, dir, "apt-get", append([]string{"-q", "-o", "APT::Sandbox::User=root", "download"}, names...)...)
		return err
	})
	if err != nil {
		return nil, err
	}
	files, err := filepath.Glob(filepath.Join(dir, "*.deb"))
	if err == nil && len(files) < len(names) {
		err = fmt.Errorf("apt-get download left %d files for %d packages in %s", len(files), len(names), dir)
	}
	return files, err
}

// Has tells whether the machine's release has the package.
func (a *Apt) Has(ctx context.Context, name string) bool {
	_, err := a.Version(ctx, name)
	return err == nil
}

// Version returns the version of a package that Download would fetch, "1:1.26.27+dfsg-1".
func (a *Apt) Version(ctx context.Context, name string) (string, error) {
	var version string
	err := a.retry(ctx, func() error {
		out, err := run(ctx, "", "apt-cache", "policy", name)
		if err != nil {
			return err
		}
		m := candidate.FindSubmatch(out)
		if m == nil {
			return fmt.Errorf("no package %s", name)
		}
		version = string(m[1])
		return nil
	})
	return version, err
}

var candidate = regexp.MustCompile(`(?m)^ *Candidate: ([^ (]+)$`)

// Pinned is a package of another release than the machine's, in the pool of the same mirror.
type Pinned struct {
	// Path is that of the .deb file, below the mirror's address: "pool/main/...".
	Path, SHA256 string
}

// DownloadPinned fetches packages into dir, from the mirror that has like, a package of this machine's release, and returns
// the paths of the .deb files. apt's own helper does it, with apt's proxies and certificates; the digest is checked.
func (a *Apt) DownloadPinned(ctx context.Context, dir, like string, packages ...Pinned) ([]string, error) {
	var mirror string
	err := a.retry(ctx, func() error {
		out, err := run(ctx, "", "apt-get", "-q", "download", "--print-uris", like)
		if err != nil {
			return err
		}
		var found bool
		if mirror, _, found = strings.Cut(strings.TrimPrefix(string(out), "'"), "/pool/"); !found {
			return fmt.Errorf("apt-get does not say where %s is, but %q", like, out)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	var files []string
	for _, p := range packages {
		file := filepath.Join(dir, path.Base(p.Path))
		if _, err := run(ctx, dir, aptHelper, "-o", "APT::Sandbox::User=root", "download-file", mirror+"/"+p.Path, file, "SHA256:"+p.SHA256); err != nil {
			return nil, fmt.Errorf("fetch %s from the mirror of %s: %w", p.Path, like, err)
		}
		files = append(files, file)
	}
	return files, nil
}

// aptHelper comes with apt.
const aptHelper = "/usr/lib/apt/apt-helper"

// retry runs do; when that fails, it updates the package lists, once in the life of an Apt, and runs it again.
func (a *Apt) retry(ctx context.Context, do func() error) error {
	err := do()
	if err == nil || a.updated || ctx.Err() != nil {
		return err
	}
	a.updated = true
	a.log.Info("updating the package lists: apt-get update", "because", err.Error())
	if _, updateErr := run(ctx, "", "apt-get", "-q", "update"); updateErr != nil {
		return errors.Join(err, fmt.Errorf("updating the package lists (needs root and the network): %w", updateErr))
	}
	return do()
}

// Unpack unpacks a .deb file into root, and moves what older releases ship in /bin, /sbin, /lib and /lib64 below /usr.
func Unpack(ctx context.Context, file, root string) error {
	for _, dir := range []string{"bin", "sbin", "lib", "lib64"} {
		if err := os.MkdirAll(filepath.Join(root, "usr", dir), 0o755); err != nil {
			return fmt.Errorf("unpack %s: %w", file, err)
		}
		if err := os.Symlink("usr/"+dir, filepath.Join(root, dir)); err != nil && !errors.Is(err, os.ErrExist) {
			return fmt.Errorf("unpack %s: %w", file, err)
		}
	}
	data := exec.CommandContext(ctx, "dpkg-deb", "--fsys-tarfile", file)
	unpack := exec.CommandContext(ctx, "tar", "-x", "--keep-directory-symlink", "--no-same-owner", "-C", root)
	pipe, err := data.StdoutPipe()
	if err != nil {
		return fmt.Errorf("unpack %s: %w", file, err)
	}
	var dataSaid, unpackSaid bytes.Buffer
	unpack.Stdin, unpack.Stderr, data.Stderr = pipe, &unpackSaid, &dataSaid
	if err := data.Start(); err != nil {
		return fmt.Errorf("unpack %s: %w", file, err)
	}
	err = unpack.Run()
	// As long as this end is open, a dpkg-deb that nobody reads from would wait for ever.
	_ = pipe.Close()
	if err = errors.Join(err, data.Wait()); err != nil {
		return fmt.Errorf("unpack %s: %w: %s %s", file, err, bytes.TrimSpace(dataSaid.Bytes()), bytes.TrimSpace(unpackSaid.Bytes()))
	}
	return nil
}

// Install installs packages on this machine; it needs root.
func (a *Apt) Install(ctx context.Context, names ...string) error {
	return a.retry(ctx, func() error {
		_, err := run(ctx, "", "apt-get", append([]string{"-q", "-y", "install", "--no-install-recommends"}, names...)...)
		return err
	})
}

// run runs a tool and returns its output; its complaints become part of the error.
func run(ctx context.Context, dir, name string, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "LC_ALL=C", "DEBIAN_FRONTEND=noninteractive")
	var complaints bytes.Buffer
	cmd.Stderr = &complaints
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, bytes.TrimSpace(complaints.Bytes()))
	}
	return out, nil
}
