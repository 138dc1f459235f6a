package logfile

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// segments is how many files a log is made of: the current one and full ones.
	segments = 4
	// retry is the pause after a rotation that failed.
	retry = time.Minute
)

// Rotating is a log of bounded size that is written by this process: a full file gets the time as a further suffix, and
// the oldest one is removed. A file is renamed once in its life, so that whoever reads it can follow. Write may be
// called concurrently; each call gives whole lines.
type Rotating struct {
	path string
	max  int64 // of one file
	mode os.FileMode
	std  []*os.File

	// mu guards the following.
	mu   sync.Mutex
	file *os.File
	size int64
	next time.Time // no rotation before
}

// OpenRotating opens the log at path, whose folder it makes; all its files together take at most maxBytes, and have mode. Those of
// std (standard output and error) that are this very file follow its rotations, so that a panic goes to the current file.
func OpenRotating(path string, maxBytes int64, mode os.FileMode, std ...*os.File) (*Rotating, error) {
	// Who may read the files may enter their folder.
	if err := os.MkdirAll(filepath.Dir(path), mode|mode&0o444>>2); err != nil {
		return nil, fmt.Errorf("make the log folder: %w", err)
	}
	r := &Rotating{path: path, max: max(maxBytes/segments, 1), mode: mode, std: std}
	if err := r.open(); err != nil {
		return nil, fmt.Errorf("open the log: %w", err)
	}
	return r, nil
}

// Is says whether f is the very file that is written now.
func (r *Rotating) Is(f *os.File) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.is(f)
}

func (r *Rotating) is(f *os.File) bool {
	if r.file == nil || f == nil {
		return false
	}
	a, err := r.file.Stat()
	if err != nil {
		return false
	}
	b, err := f.Stat()
	return err == nil && os.SameFile(a, b)
}

func (r *Rotating) open() error {
	file, err := os.OpenFile(r.path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, r.mode)
	if err != nil {
		return err
	}
	info, err := file.Stat()
	if err != nil {
		return errors.Join(err, file.Close())
	}
	r.file, r.size = file, info.Size()
	return nil
}

// Write implements io.Writer. When a rotation fails, the lines go on into the full file.
func (r *Rotating) Write(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.file == nil {
		return 0, os.ErrClosed
	}
	if r.size > 0 && r.size+int64(len(p)) > r.max && time.Now().After(r.next) {
		if err := r.rotate(); err != nil {
			r.next = time.Now().Add(retry)
		}
	}
	n, err := r.file.Write(p)
	r.size += int64(n)
	return n, err
}

func (r *Rotating) rotate() error {
	// A fixed width, so that names sort by time.
	full := r.path + "." + time.Now().UTC().Format("20060102T150405.000000000")
	if err := os.Rename(r.path, full); err != nil {
		return err
	}
	old := r.file
	if err := r.open(); err != nil {
		r.file = old
		return errors.Join(err, os.Rename(full, r.path))
	}
	for _, f := range r.std {
		a, errA := old.Stat()
		b, errB := f.Stat()
		if errA == nil && errB == nil && os.SameFile(a, b) {
			_ = unix.Dup3(int(r.file.Fd()), int(f.Fd()), 0)
		}
	}
	files, err := filepath.Glob(r.path + ".*")
	if err != nil {
		return errors.Join(err, old.Close())
	}
	slices.Sort(files)
	errs := []error{old.Close()}
	for i := range len(files) - (segments - 1) {
		errs = append(errs, os.Remove(files[i]))
	}
	return errors.Join(errs...)
}

// Close closes the file.
func (r *Rotating) Close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.file == nil {
		return nil
	}
	err := r.file.Close()
	r.file = nil
	if err != nil {
		return fmt.Errorf("close the log: %w", err)
	}
	return nil
}
