// Package wholefile is for files that are replaced as a whole, so that a crash or a power cut leaves the old content or the new one, and
// that another program may read again when they have changed.
package wholefile

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// Write puts data into the file at path: the old content is there, or the new one, and never a part, also after a power cut. The
// folder must exist.
func Write(path string, data []byte, mode os.FileMode) error {
	if err := write(path, data, mode); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}

func write(path string, data []byte, mode os.FileMode) error {
	Sweep(path)
	f, err := os.CreateTemp(filepath.Dir(path), temporary(path)) // CreateTemp makes it 0600
	if err != nil {
		return err
	}
	_ = lock(f) // where a file system knows none, nothing is swept
	_, err = f.Write(data)
	if err == nil {
		err = f.Chmod(mode)
	}
	if err == nil {
		err = f.Sync() // else a power cut may leave an empty file under the final name
	}
	if err == nil {
		err = os.Rename(f.Name(), path) // still locked: it is nobody's to sweep
	}
	if err != nil {
		return errors.Join(err, f.Close(), os.Remove(f.Name()))
	}
	if err := f.Close(); err != nil {
		return err
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

// Reader reads a file that others than its owner's group must not read, and nobody but its owner may change. It is not safe for
// concurrent use.
type Reader struct {
	path string
	read os.FileInfo
}

// NewReader returns a Reader of the file at path, which need not be there yet.
func NewReader(path string) *Reader { return &Reader{path: path} }

// Refresh gives the content to take when it is another file than take was given before. One that take refuses comes again. open
// says what to do about a file that others may read or change; the error has it.
func (r *Reader) Refresh(open string, take func(data []byte) error) error {
	info, err := os.Stat(r.path)
	if err != nil {
		return err
	}
	if r.read != nil && os.SameFile(r.read, info) && r.read.ModTime().Equal(info.ModTime()) && r.read.Size() == info.Size() {
		return nil
	}
	if info.Mode().Perm()&0o027 != 0 {
		return fmt.Errorf("%s: %s (mode %04o)", r.path, open, info.Mode().Perm())
	}
	data, err := os.ReadFile(r.path)
	if err != nil {
		return err
	}
	if err := take(data); err != nil {
		return fmt.Errorf("%s: %w", r.path, err)
	}
	r.read = info
	return nil
}
