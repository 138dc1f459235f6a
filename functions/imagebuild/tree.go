// Package imagebuild makes container images without Docker: layers from files, images from layers and settings, OCI
// archives that containerd and `docker load` read, and pushes to a registry.
//
// Everything is reproducible: files belong to 0:0, are world-readable and carry one fixed time, entries are sorted, so
// that the same input gives the same digests on every machine.
package imagebuild

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Modes of everything in a layer; Tree adds a file's own execute bits.
const (
	dirMode  = 0o755
	fileMode = 0o644
	execMode = 0o755
)

// epoch is the time of every entry and image: a build time would change digests.
var epoch = time.Unix(0, 0).UTC()

// Tree is the content of one layer.
type Tree struct {
	entries map[string]entry // by cleaned path without a leading slash
}

// entry is a folder, a link, or a file whose content is data or that of a file of this machine.
type entry struct {
	mode fs.FileMode
	link string
	host string
	data []byte
}

// NewTree returns an empty Tree.
func NewTree() *Tree { return &Tree{entries: map[string]entry{}} }

// AddDir adds an empty folder. Folders above an entry need not be added. mode 0 means 0755.
func (t *Tree) AddDir(name string, mode fs.FileMode) {
	if mode == 0 {
		mode = dirMode
	}
	t.entries[clean(name)] = entry{mode: fs.ModeDir | mode&fs.ModeSticky | mode.Perm()}
}

// AddData adds a file.
func (t *Tree) AddData(name string, data []byte, executable bool) {
	t.entries[clean(name)] = entry{mode: regular(executable), data: data}
}

// AddFile adds the file at host, a path on this machine. Its content is read when the layer is made.
func (t *Tree) AddFile(name, host string, executable bool) {
	t.entries[clean(name)] = entry{mode: regular(executable), host: host}
}

// AddLink adds a symbolic link.
func (t *Tree) AddLink(name, target string) {
	t.entries[clean(name)] = entry{mode: fs.ModeSymlink, link: target}
}

// AddTree adds everything below the folder host at the path name. Executable files stay executable; symbolic links stay
// links; sockets and devices are an error.
func (t *Tree) AddTree(name, host string) error {
	return filepath.WalkDir(host, func(file string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		relative, err := filepath.Rel(host, file)
		if err != nil {
			return err
		}
		target := path.Join(name, filepath.ToSlash(relative))
		info, err := d.Info()
		if err != nil {
			return err
		}
		switch {
		case d.IsDir():
			// Modes beyond 0755 depend on the umask of whoever made the folder.
			if clean(target) != "" {
				t.AddDir(target, 0)
			}
		case info.Mode().IsRegular():
			t.AddFile(target, file, info.Mode()&0o111 != 0)
		case info.Mode()&fs.ModeSymlink != 0:
			link, err := os.Readlink(file)
			if err != nil {
				return err
			}
			t.AddLink(target, link)
		default:
			return fmt.Errorf("%s: an image holds only files, folders and symbolic links", file)
		}
		return nil
	})
}

// write writes the tree as a tar stream.
func (t *Tree) write(w io.Writer) error {
	names := make([]string, 0, len(t.entries))
	seen := map[string]bool{}
	for name := range t.entries {
		names = append(names, name)
		// Unpackers may not make the folders above an entry, or give them other modes.
		for dir := path.Dir(name); dir != "." && !seen[dir]; dir = path.Dir(dir) {
			seen[dir] = true
			if _, ok := t.entries[dir]; !ok {
				names = append(names, dir)
			}
		}
	}
	slices.Sort(names)
	archive := tar.NewWriter(w)
	for _, name := range names {
		e, ok := t.entries[name]
		if !ok {
			e = entry{mode: fs.ModeDir | dirMode}
		}
		if err := e.write(archive, name); err != nil {
			return fmt.Errorf("layer: %s: %w", name, err)
		}
	}
	return archive.Close()
}

func (e entry) write(archive *tar.Writer, name string) error {
	header := &tar.Header{Name: name, Mode: int64(e.mode.Perm()), ModTime: epoch, Format: tar.FormatPAX}
	switch {
	case e.mode.IsDir():
		header.Typeflag, header.Name = tar.TypeDir, name+"/"
		if e.mode&fs.ModeSticky != 0 {
			header.Mode |= 0o1000
		}
		return archive.WriteHeader(header)
	case e.mode&fs.ModeSymlink != 0:
		header.Typeflag, header.Linkname, header.Mode = tar.TypeSymlink, e.link, 0o777
		return archive.WriteHeader(header)
	case e.host == "":
		header.Typeflag, header.Size = tar.TypeReg, int64(len(e.data))
		if err := archive.WriteHeader(header); err != nil {
			return err
		}
		_, err := io.Copy(archive, bytes.NewReader(e.data))
		return err
	}
	file, err := os.Open(e.host)
	if err != nil {
		return err
	}
	defer func() { _ = file.Close() }()
	info, err := file.Stat()
	if err != nil {
		return err
	}
	header.Typeflag, header.Size = tar.TypeReg, info.Size()
	if err := archive.WriteHeader(header); err != nil {
		return err
	}
	_, err = io.Copy(archive, file)
	return err
}

func regular(executable bool) fs.FileMode {
	if executable {
		return execMode
	}
	return fileMode
}

// clean makes a path relative to the image's root; ".." cannot leave it.
func clean(name string) string { return strings.TrimPrefix(path.Clean("/"+name), "/") }
