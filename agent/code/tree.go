package code

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"unicode/utf8"

	"github.com/edge-serverless-box/esb/agent"
	"github.com/edge-serverless-box/esb/api/codeversion"
	"github.com/edge-serverless-box/esb/api/reason"
)

// maxLink is the longest target of a symbolic link, maxName the longest name of one file (Linux: PATH_MAX, NAME_MAX).
const (
	maxLink = 4095
	maxName = 255
)

// builder fills a folder by the rules of function code. Whoever fills it may be hostile: every name is checked, nothing is
// written outside of the folder, and files get modes that every user can read.
type builder struct {
	location string
	root     *os.Root
	info     info
	// entries has every name so far, and whether it was named itself or is only a folder above another one.
	entries map[string]entry
}

type entry struct {
	kind  fs.FileMode
	named bool
}

func newBuilder(location, dir string) (*builder, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("unpack %s: %w", location, err)
	}
	return &builder{location: location, root: root, info: info{Location: location}, entries: map[string]entry{}}, nil
}

func (b *builder) close() error { return b.root.Close() }

// refuse is the error for one entry that is not acceptable.
func (b *builder) refuse(name, format string, args ...any) error {
	return agent.Errorf(agent.CodePrecondition, "%s: entry %q: "+format, append([]any{b.location, name}, args...)...)
}

// failed is the error for an entry that cannot be written or read.
func (b *builder) failed(name string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: entry %q: %w", b.location, name, err)
}

// claim checks a name, makes the folders above it and counts it. given is the name for messages, clean the one to use.
func (b *builder) claim(given string, kind fs.FileMode) (clean string, err error) {
	clean, err = b.check(given)
	if err != nil {
		return "", err
	}
	if known, ok := b.entries[clean]; ok && (known.named || known.kind != kind) {
		return "", b.refuse(given, "is there twice")
	}
	if b.info.Entries++; b.info.Entries > codeversion.MaxEntries {
		return "", b.refuse(given, "is one too many: at most %d files and folders are allowed", codeversion.MaxEntries)
	}
	for i, c := range clean {
		if c != '/' {
			continue
		}
		if err := b.parent(given, clean[:i]); err != nil {
			return "", err
		}
	}
	return clean, nil
}

// check refuses names that do not stay inside.
func (b *builder) check(given string) (string, error) {
	name := strings.TrimSuffix(strings.TrimPrefix(given, "./"), "/")
	switch {
	case !utf8.ValidString(name) || strings.ContainsRune(name, 0):
		return "", b.refuse(given, "the name is not UTF-8 text")
	case strings.ContainsRune(name, '\\'):
		return "", b.refuse(given, `has a backslash in its name: zip it with "/" between folders`)
	case strings.HasPrefix(name, "/"):
		return "", b.refuse(given, "has an absolute path: names must be relative to the top of the code")
	case name == ".." || strings.HasPrefix(name, "../") || strings.HasSuffix(name, "/..") || strings.Contains(name, "/../"):
		return "", b.refuse(given, `leaves the folder of the code: ".." is not allowed in names`)
	case name == "" || path.Clean(name) != name || name == ".":
		return "", b.refuse(given, `is not a plain path: empty, "." and "//" are not allowed in names`)
	case len(name) > maxLink:
		return "", b.refuse(given[:60]+"...", "the name has %d bytes, at most %d are allowed", len(name), maxLink)
	}
	for part := range strings.SplitSeq(name, "/") {
		if len(part) > maxName {
			return "", b.refuse(given, "a part of the name has %d bytes, at most %d are allowed", len(part), maxName)
		}
	}
	return name, nil
}

// parent makes sure that name is a folder.
func (b *builder) parent(below, name string) error {
	switch known, ok := b.entries[name]; {
	case !ok:
		b.entries[name] = entry{kind: fs.ModeDir}
		return b.failed(below, b.mkdir(name))
	case known.kind != fs.ModeDir:
		return b.refuse(below, "lies below %q, which is no folder", name)
	}
	return nil
}

func (b *builder) mkdir(name string) error {
	if err := b.root.Mkdir(name, 0o755); err != nil {
		return err
	}
	return b.root.Chmod(name, 0o755) // whatever the umask
}

func (b *builder) folder(given string) error {
	name, err := b.claim(given, fs.ModeDir)
	if err != nil {
		return err
	}
	if _, above := b.entries[name]; !above {
		if err := b.mkdir(name); err != nil {
			return b.failed(given, err)
		}
	}
	b.entries[name] = entry{kind: fs.ModeDir, named: true}
	return nil
}

// file writes a file of exactly size bytes.
func (b *builder) file(given string, executable bool, size int64, r io.Reader) (err error) {
	name, err := b.claim(given, 0)
	if err != nil {
		return err
	}
	b.entries[name] = entry{named: true}
	if b.info.Bytes += size; b.info.Bytes > codeversion.MaxBytes || size < 0 {
		return b.refuse(given, "makes the code larger than %d bytes unpacked", codeversion.MaxBytes)
	}
	mode := fs.FileMode(0o644)
	if executable {
		mode = 0o755
	}
	out, err := b.root.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, mode)
	if err != nil {
		return b.failed(given, err)
	}
	defer func() { err = errors.Join(err, b.failed(given, out.Close())) }()
	// One byte more than it may have, so that a file that lies about its size is found out.
	written, err := io.Copy(out, io.LimitReader(r, size+1))
	if err != nil {
		return b.failed(given, err)
	}
	if written != size {
		return b.refuse(given, "is not as large as it says, %d bytes", size)
	}
	return b.failed(given, out.Chmod(mode))
}

// link makes a symbolic link, wherever it leads: it is looked up in the container, as on AWS ("node_modules" may lead to
// "/opt/nodejs/node_modules"). On this machine nothing follows it: no entry may lie below one (see parent).
func (b *builder) link(given, target string) error {
	name, err := b.claim(given, fs.ModeSymlink)
	if err != nil {
		return err
	}
	b.entries[name] = entry{kind: fs.ModeSymlink, named: true}
	if target == "" || strings.ContainsRune(target, 0) || len(target) > maxLink {
		return b.refuse(given, "is a link to no valid path")
	}
	return b.failed(given, b.root.Symlink(target, name))
}

// copyFolder copies a local folder, which may change meanwhile; from is its name in messages.
func copyFolder(ctx context.Context, from string, folder *os.Root, dir string) (_ info, err error) {
	b, err := newBuilder(from, dir)
	if err != nil {
		return info{}, err
	}
	defer func() { err = errors.Join(err, b.close()) }()
	err = fs.WalkDir(folder.FS(), ".", func(name string, d fs.DirEntry, err error) error {
		if err == nil {
			err = ctx.Err()
		}
		if err != nil || name == "." {
			return err
		}
		return b.copyEntry(folder, name, d)
	})
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, errChanging):
		return info{}, agent.Because(reason.CodeChanging, agent.Errorf(agent.CodeUnavailable, "%s: changes while it is read: %w", from, err))
	case err != nil:
		return info{}, fmt.Errorf("read the code: %w", err)
	}
	return b.info, nil
}

// errChanging is a file that changed its size while it was copied.
var errChanging = errors.New("the file changes")

// copyEntry copies one entry. What has become of it since it was listed makes no difference: the folder is not left.
func (b *builder) copyEntry(folder *os.Root, name string, d fs.DirEntry) error {
	switch d.Type() {
	case fs.ModeDir:
		return b.folder(name)
	case fs.ModeSymlink:
		target, err := folder.Readlink(name)
		if err != nil {
			return err
		}
		return b.link(name, target)
	case 0:
		in, err := openFile(folder, name)
		if err != nil {
			return err
		}
		defer func() { _ = in.Close() }()
		found, err := in.Stat()
		if err != nil {
			return err
		}
		if !found.Mode().IsRegular() {
			return fmt.Errorf("%s: %w", name, errChanging)
		}
		if found.Mode()&(fs.ModeSetuid|fs.ModeSetgid) != 0 {
			return b.refuse(name, "has the mode %s: setuid and setgid are not allowed", found.Mode())
		}
		err = b.file(name, found.Mode()&0o111 != 0, found.Size(), in)
		if now, statErr := in.Stat(); err != nil && statErr == nil && now.Size() != found.Size() {
			return fmt.Errorf("%s: %w", name, errChanging)
		}
		return err
	}
	return b.refuse(name, "is neither a file nor a folder nor a link (%s)", d.Type())
}

// merge makes one tree of several in the empty folder dir. Of two files with one name the later tree's counts (AWS). The
// trees have been checked, and share their files with the result.
func merge(ctx context.Context, dir string, roots []string) error {
	for _, root := range roots {
		err := filepath.WalkDir(root, func(file string, d fs.DirEntry, err error) error {
			if err == nil {
				err = ctx.Err()
			}
			if err != nil || file == root {
				return err
			}
			name, err := filepath.Rel(root, file)
			if err != nil {
				return err
			}
			return mergeEntry(file, filepath.Join(dir, name), d)
		})
		if err != nil {
			return fmt.Errorf("merge layers: %w", err)
		}
	}
	return nil
}

// mergeEntry puts one entry of a tree in its place. The folders above are real ones: they came before it, this way.
func mergeEntry(from, to string, d fs.DirEntry) error {
	there, err := os.Lstat(to)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return err
	case there.IsDir() && d.IsDir():
		return nil
	default:
		if err := os.RemoveAll(to); err != nil {
			return err
		}
	}
	switch d.Type() {
	case fs.ModeDir:
		if err := os.Mkdir(to, 0o755); err != nil {
			return err
		}
		return os.Chmod(to, 0o755)
	case fs.ModeSymlink:
		target, err := os.Readlink(from)
		if err != nil {
			return err
		}
		return os.Symlink(target, to)
	}
	return os.Link(from, to)
}
