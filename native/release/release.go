package release

import (
	"bytes"
	"crypto/sha256"
	"debug/elf"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/edge-serverless-box/esb/native"
)

// Files of a release, besides its programs.
const (
	// manifest says which release it is.
	manifest = "release.json"
	// checksums has the SHA-256 of all other files, as sha256sum writes and checks them.
	checksums = "SHA256SUMS"
	// Images is the folder of the image archives.
	Images = "images"
	// Samples is that of functions.yml, routing.yml, resources.yml and code for a box that has none yet.
	Samples = "etc"
	// Stamps is that of what tells one build of a service from another.
	Stamps = ".stamps"
)

// Release is one release, as its manifest says.
type Release struct {
	// Version is the name of its folder in an installation. Two releases with one version are the same.
	Version string `json:"version"`
	// Arch is the architecture of its programs, as Go calls it.
	Arch string `json:"arch"`
	// Made is when it was made.
	Made time.Time `json:"made"`
	// Programs are the names of its programs.
	Programs []string `json:"programs"`
	// Dir is where it lies now.
	Dir string `json:"-"`
	// Mended says that it has taken the place of a damaged one of the same version.
	Mended bool `json:"-"`
}

// Contents are what a release is made of.
type Contents struct {
	// Programs are the files of each target, by the target's name.
	Programs map[string][]string
	// Images is a folder of image archives, Samples the folder with functions.yml, routing.yml and resources.yml; Code are files and
	// folders in Samples that these name.
	Images, Samples string
	Code            []string
}

// Make makes a release in dir, which must not be there or be empty. Its version is a digest of what is in it, unless one is given.
func Make(dir, version string, c Contents) (Release, error) {
	if entries, err := os.ReadDir(dir); err == nil && len(entries) > 0 {
		return Release{}, &native.Problem{What: dir + " is not empty", Do: "Name a folder that is not there yet."}
	}
	if err := os.MkdirAll(filepath.Join(dir, Stamps), 0o755); err != nil {
		return Release{}, fmt.Errorf("make a release: %w", err)
	}
	r := Release{Version: version, Arch: runtime.GOARCH, Made: time.Now().UTC().Truncate(time.Second), Dir: dir}
	for target, programs := range c.Programs {
		h := sha256.New()
		for _, program := range programs {
			name := filepath.Base(program)
			r.Programs = append(r.Programs, name)
			sum, err := place(program, filepath.Join(dir, name), 0o755)
			if err != nil {
				return Release{}, fmt.Errorf("make a release: %w", err)
			}
			_, _ = fmt.Fprintf(h, "%s  %s\n", sum, name)
		}
		// By what a program is, and not by what it was made of: a box starts again what differs.
		if err := os.WriteFile(filepath.Join(dir, Stamps, target), []byte(hex.EncodeToString(h.Sum(nil))+"\n"), 0o644); err != nil {
			return Release{}, fmt.Errorf("make a release: %w", err)
		}
	}
	slices.Sort(r.Programs)
	if c.Images != "" {
		if err := CopyTree(c.Images, filepath.Join(dir, Images)); err != nil {
			return Release{}, fmt.Errorf("make a release: %w", err)
		}
	}
	for _, name := range append([]string{"functions.yml", "routing.yml", "resources.yml"}, c.Code...) {
		if err := CopyTree(filepath.Join(c.Samples, name), filepath.Join(dir, Samples, name)); err != nil {
			return Release{}, fmt.Errorf("make a release: %w", err)
		}
	}
	sums, err := sum(dir)
	if err != nil {
		return Release{}, fmt.Errorf("make a release: %w", err)
	}
	bill, err := materials(dir, r.Programs, sums)
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, SBOM), bill, 0o644)
	}
	if err != nil {
		return Release{}, fmt.Errorf("make a release: %w", err)
	}
	ofBill := sha256.Sum256(bill)
	sums[SBOM] = hex.EncodeToString(ofBill[:])
	if r.Version == "" {
		digest := sha256.Sum256(format(sums))
		r.Version = hex.EncodeToString(digest[:6])
	}
	if err := CheckVersion(r.Version); err != nil {
		return Release{}, err
	}
	data, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return Release{}, fmt.Errorf("make a release: %w", err)
	}
	data = append(data, '\n')
	digest := sha256.Sum256(data)
	sums[manifest] = hex.EncodeToString(digest[:])
	if err := errors.Join(os.WriteFile(filepath.Join(dir, manifest), data, 0o644), os.WriteFile(filepath.Join(dir, checksums), format(sums), 0o644)); err != nil {
		return Release{}, fmt.Errorf("make a release: %w", err)
	}
	return r, nil
}

// Open reads the manifest of the release in dir.
func Open(dir string) (Release, error) {
	data, err := os.ReadFile(filepath.Join(dir, manifest))
	if errors.Is(err, fs.ErrNotExist) {
		return Release{}, &native.Problem{What: dir + " is no release of esb: it has no " + manifest, Do: "Give the folder or the archive that `esb release` has made."}
	}
	if err != nil {
		return Release{}, fmt.Errorf("read a release: %w", err)
	}
	r := Release{}
	if err := json.Unmarshal(data, &r); err != nil {
		return Release{}, fmt.Errorf("read a release: %s: %w", filepath.Join(dir, manifest), err)
	}
	r.Dir = dir
	if err := CheckVersion(r.Version); err != nil {
		return Release{}, fmt.Errorf("read a release: %s: %w", filepath.Join(dir, manifest), err)
	}
	return r, nil
}

// Verify makes sure that the release is whole, that nothing is in it besides, and that its programs are made for this machine.
func (r Release) Verify() error {
	broken := func(what string) error {
		return &native.Problem{What: fmt.Sprintf("the release in %s is damaged: %s", r.Dir, what), Do: "Copy it again, or make it again with `esb release`."}
	}
	want, err := Checksums(r.Dir)
	if err != nil {
		return broken(err.Error())
	}
	have, err := sum(r.Dir)
	if err != nil {
		return broken(err.Error())
	}
	for name, digest := range want {
		if have[name] != digest {
			return broken(name + " is missing or is not what " + checksums + " says")
		}
	}
	for name := range have {
		if want[name] == "" {
			return broken(name + " is not in " + checksums)
		}
	}
	if r.Arch != runtime.GOARCH {
		return &native.Problem{What: fmt.Sprintf("the release in %s is made for %s, and this machine is %s", r.Dir, r.Arch, runtime.GOARCH), Do: "Take the one that is made for this machine."}
	}
	for _, name := range r.Programs {
		if err := executable(filepath.Join(r.Dir, name)); err != nil {
			return &native.Problem{What: fmt.Sprintf("%s cannot run on this machine: %v", filepath.Join(r.Dir, name), err), Do: "Take a release that is made for this machine."}
		}
	}
	return nil
}

// Checksums are the SHA-256 of the files of the release in dir, by their paths in it, as its file of checksums says.
func Checksums(dir string) (map[string]string, error) {
	data, err := os.ReadFile(filepath.Join(dir, checksums))
	if err != nil {
		return nil, fmt.Errorf("read the checksums of a release: %w", err)
	}
	sums := map[string]string{}
	for line := range strings.Lines(string(data)) {
		digest, name, ok := strings.Cut(strings.TrimSuffix(line, "\n"), "  ")
		if !ok {
			return nil, fmt.Errorf("%s has a line that is none of sha256sum: %q", filepath.Join(dir, checksums), line)
		}
		sums[name] = digest
	}
	return sums, nil
}

// executable says why the kernel of this machine would not execute a program.
func executable(path string) error {
	f, err := elf.Open(path)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	if want := map[string]elf.Machine{"amd64": elf.EM_X86_64, "arm64": elf.EM_AARCH64}[runtime.GOARCH]; want != 0 && f.Machine != want {
		return fmt.Errorf("it is made for %s", f.Machine)
	}
	for _, p := range f.Progs {
		if p.Type != elf.PT_INTERP {
			continue
		}
		interpreter, err := io.ReadAll(io.LimitReader(p.Open(), 4096))
		if err != nil {
			return err
		}
		if _, err := os.Stat(strings.TrimRight(string(interpreter), "\x00")); err != nil {
			return fmt.Errorf("the dynamic linker that it needs is not here: %w", err)
		}
	}
	return nil
}

// sum digests all files of a release but checksums, by their paths in it.
func sum(dir string) (map[string]string, error) {
	sums := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		name, err := filepath.Rel(dir, path)
		if err != nil || name == checksums {
			return err
		}
		if !d.Type().IsRegular() {
			return fmt.Errorf("%s is no regular file", name)
		}
		sums[name], err = Digest(path)
		return err
	})
	return sums, err
}

// Digest is the SHA-256 of a file, in hexadecimal.
func Digest(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer func() { _ = f.Close() }()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

func format(sums map[string]string) []byte {
	var b bytes.Buffer
	for _, name := range sortedNames(sums) {
		_, _ = fmt.Fprintf(&b, "%s  %s\n", sums[name], name)
	}
	return b.Bytes()
}

func sortedNames(sums map[string]string) []string {
	names := make([]string, 0, len(sums))
	for name := range sums {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// place copies a file, and digests it on the way.
func place(from, to string, mode fs.FileMode) (digest string, err error) {
	in, err := os.Open(from)
	if err != nil {
		return "", err
	}
	defer func() { _ = in.Close() }()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, mode)
	if err != nil {
		return "", err
	}
	h := sha256.New()
	_, err = io.Copy(io.MultiWriter(out, h), in)
	if err := errors.Join(err, out.Chmod(mode), out.Sync(), out.Close()); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// Replace copies a file over another one, in one step.
func Replace(from, to string) (fs.FileInfo, error) {
	tmp := to + ".tmp"
	if err := os.Remove(tmp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	if _, err := place(from, tmp, 0o644); err != nil {
		return nil, errors.Join(err, os.Remove(tmp))
	}
	if err := os.Rename(tmp, to); err != nil {
		return nil, err
	}
	return os.Stat(to)
}

// CopyTree copies a file, or the folders and files below a folder, with the modes that everybody may read and the owner may write: what
// may be executed stays so. Nothing is there yet where it goes.
func CopyTree(from, to string) error {
	return filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		target := filepath.Join(to, rel)
		if d.IsDir() {
			return os.MkdirAll(target, 0o755)
		}
		if !d.Type().IsRegular() {
			return fmt.Errorf("%s is no regular file", path)
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		if err := os.MkdirAll(filepath.Dir(target), 0o755); err != nil {
			return err
		}
		mode := fs.FileMode(0o644)
		if info.Mode()&0o111 != 0 {
			mode = 0o755
		}
		_, err = place(path, target, mode)
		return err
	})
}
