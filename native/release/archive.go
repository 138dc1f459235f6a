package release

import (
	"archive/tar"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"strings"

	"github.com/klauspost/compress/zstd"
	"golang.org/x/sys/unix"

	"github.com/edge-serverless-box/esb/native"
)

// packing is how an archive is compressed, by the end of its name.
func packing(file string) (string, error) {
	for ending, kind := range map[string]string{".tar.gz": "gzip", ".tgz": "gzip", ".tar.zst": "zstd"} {
		if strings.HasSuffix(file, ending) {
			return kind, nil
		}
	}
	return "", fmt.Errorf("%s is no archive of a release: its name must end in .tar.gz or .tar.zst", file)
}

// IsArchive says whether a release of that name is an archive, by its end.
func IsArchive(file string) bool {
	_, err := packing(file)
	return err == nil
}

// Pack writes the release in dir as an archive.
func Pack(dir, file string) (err error) {
	kind, err := packing(file)
	if err != nil {
		return err
	}
	out, err := os.OpenFile(file+".tmp", os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o644)
	if err != nil {
		return fmt.Errorf("pack a release: %w", err)
	}
	defer func() {
		if err != nil {
			_ = os.Remove(out.Name())
		}
	}()
	var compressed io.WriteCloser
	if kind == "gzip" {
		compressed, err = gzip.NewWriterLevel(out, gzip.BestSpeed)
	} else {
		compressed, err = zstd.NewWriter(out)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("pack a release: %w", err), out.Close())
	}
	archive := tar.NewWriter(compressed)
	err = archive.AddFS(os.DirFS(dir))
	if err := errors.Join(err, archive.Close(), compressed.Close(), out.Sync(), out.Close()); err != nil {
		return fmt.Errorf("pack a release: %w", err)
	}
	if err := os.Rename(out.Name(), file); err != nil {
		return fmt.Errorf("pack a release: %w", err)
	}
	return nil
}

// unpack writes the files of an archive below dir.
func unpack(file, dir string) error {
	kind, err := packing(file)
	if err != nil {
		return err
	}
	in, err := os.Open(file)
	if err != nil {
		return err
	}
	defer func() { _ = in.Close() }()
	var plain io.Reader
	if kind == "gzip" {
		plain, err = gzip.NewReader(in)
	} else {
		var d *zstd.Decoder
		if d, err = zstd.NewReader(in); err == nil {
			defer d.Close()
			plain = d
		}
	}
	if err != nil {
		return err
	}
	root, err := os.OpenRoot(dir) // nothing gets out of it, whatever the names in the archive
	if err != nil {
		return err
	}
	defer func() { _ = root.Close() }()
	for archive := tar.NewReader(plain); ; {
		header, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		name := filepath.Clean(header.Name)
		switch header.Typeflag {
		case tar.TypeDir:
			err = root.MkdirAll(name, 0o755)
		case tar.TypeReg:
			err = extract(root, name, header.FileInfo().Mode(), archive)
		default:
			err = errors.New("it is neither a file nor a folder")
		}
		if err != nil {
			return fmt.Errorf("%s: %w", header.Name, err)
		}
	}
}

func extract(root *os.Root, name string, mode fs.FileMode, content io.Reader) error {
	if err := root.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return err
	}
	perm := fs.FileMode(0o644)
	if mode&0o111 != 0 {
		perm = 0o755
	}
	f, err := root.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, perm)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, content)
	return errors.Join(err, f.Chmod(perm), f.Sync(), f.Close())
}

// Fetch brings a release, a folder or an archive, into the installation, beside those that are there, and makes sure that it is whole.
// One whose version is there already is left as it is, when that is whole; else it takes its place.
func (l Layout) Fetch(source string) (Release, error) {
	if err := os.MkdirAll(l.Base(), 0o755); err != nil {
		return Release{}, fmt.Errorf("make the folder of releases: %w", err)
	}
	if !IsArchive(source) { // what is damaged, or there already, is not copied first
		r, err := Open(source)
		if err != nil {
			return Release{}, err
		}
		if err := r.Verify(); err != nil {
			return Release{}, err
		}
		if is, err := l.have(r); is == whole || err != nil {
			r.Dir = l.Dir(r.Version)
			return r, err
		}
	}
	tmp, err := os.MkdirTemp(l.Base(), ".new-")
	if err != nil {
		return Release{}, fmt.Errorf("bring a release: %w", err)
	}
	defer func() { _ = os.RemoveAll(tmp) }()
	if IsArchive(source) {
		err = unpack(source, tmp)
	} else {
		err = CopyTree(source, tmp)
	}
	if err != nil {
		return Release{}, &native.Problem{What: fmt.Sprintf("the release %s cannot be brought to %s: %v", source, l.Base(), err), Do: "Make sure that it is whole and that there is room, and try again: nothing has changed."}
	}
	r, err := Open(tmp)
	if err != nil {
		return Release{}, err
	}
	if err := r.Verify(); err != nil {
		return Release{}, err
	}
	is, err := l.have(r)
	if is == whole || err != nil {
		r.Dir = l.Dir(r.Version)
		return r, err
	}
	if err := errors.Join(os.Chmod(tmp, 0o755), syncDirs(tmp)); err != nil {
		return Release{}, fmt.Errorf("bring a release: %w", err)
	}
	r.Dir = l.Dir(r.Version)
	if r.Mended = is == damaged; r.Mended {
		// In one step, because it may be the present release. What runs keeps the files that it has open.
		err = unix.Renameat2(unix.AT_FDCWD, tmp, unix.AT_FDCWD, r.Dir, unix.RENAME_EXCHANGE)
	} else {
		err = os.Rename(tmp, r.Dir)
	}
	if err := errors.Join(err, syncDir(l.Base())); err != nil {
		return Release{}, fmt.Errorf("bring a release: %w", err)
	}
	return r, nil
}

// state is that of a release in an installation.
type state int

const (
	absent state = iota
	whole
	damaged
)

// have says whether a release is there. One of the same version with other files is an error.
func (l Layout) have(r Release) (state, error) {
	dir := l.Dir(r.Version)
	if _, err := os.Lstat(dir); errors.Is(err, fs.ErrNotExist) {
		return absent, nil
	}
	is := whole
	there, err := Open(dir)
	if err == nil {
		err = there.Verify()
	}
	if err != nil {
		is = damaged
		if current, err := l.CurrentVersion(); err != nil || current != r.Version {
			return is, err // nothing depends on what it was
		}
	}
	same, err := sameFiles(dir, r.Dir)
	if is == damaged { // its checksums, perhaps
		same, err = same || err != nil || sameContent(dir, r.Dir), nil
	}
	if err != nil || same {
		return is, err
	}
	return is, &native.Problem{What: fmt.Sprintf("%s has another release %s already, with other files", l.Base(), r.Version), Do: "Make the new one with a version of its own (`esb release -version`)."}
}

// sameFiles says whether two releases have the same files, whenever they were made.
func sameFiles(one, other string) (bool, error) {
	var sums [2]string
	for i, dir := range []string{one, other} {
		data, err := os.ReadFile(filepath.Join(dir, checksums))
		if err != nil {
			return false, fmt.Errorf("compare releases: %w", err)
		}
		for line := range strings.Lines(string(data)) {
			if !strings.HasSuffix(strings.TrimSpace(line), "  "+manifest) {
				sums[i] += line
			}
		}
	}
	return sums[0] == sums[1], nil
}

// sameContent says whether the files of a release are those that another one's checksums say.
func sameContent(dir, other string) bool {
	have, haveErr := sum(dir)
	want, wantErr := Checksums(other)
	delete(have, manifest)
	delete(want, manifest)
	return haveErr == nil && wantErr == nil && maps.Equal(have, want)
}
