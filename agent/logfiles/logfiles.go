// Package logfiles keeps log files on a disk of bounded size: those of function containers, one a container, written by
// its shim so that nothing is lost while the agent restarts, and kept after the container is gone; and a service's own,
// which rotates.
package logfiles

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

const (
	suffix = ".log"
	// waiting is the suffix of what is no log yet.
	waiting = ".parked"
	// tailBytes bounds what Tail reads.
	tailBytes = 4096
	// Block is what holes are aligned to. The first block of a file is never freed: its bytes identify the file.
	Block = 4096
)

// ErrNoHoles says that the file system cannot free a part of a file.
var ErrNoHoles = errors.New("the file system cannot punch holes")

// Dir is the folder of the containers' log files.
type Dir struct {
	path string
}

// Open makes the folder.
func Open(path string) (*Dir, error) {
	// Lines have what functions got and answered: they are for the box's owner alone, those of an earlier agent too.
	if err := errors.Join(os.MkdirAll(path, 0o700), os.Chmod(path, 0o700)); err != nil {
		return nil, fmt.Errorf("make the folder of function logs: %w", err)
	}
	return &Dir{path: path}, nil
}

// File returns the path of a container's log.
func (d *Dir) File(container string) string { return filepath.Join(d.path, container+suffix) }

// Waiting returns the path of what is to be the log of a container that is nobody's yet, and no log until then.
func (d *Dir) Waiting(container string) string { return filepath.Join(d.path, container+waiting) }

// Create makes a container's log, which root and the user owner may write; -1: root alone.
func (d *Dir) Create(container string, owner int) error {
	return create(d.File(container), container, owner)
}

// CreateWaiting makes what Assign makes a log of.
func (d *Dir) CreateWaiting(container string, owner int) error {
	return create(d.Waiting(container), container, owner)
}

// Assign makes the file that waits under the name of a container the log of another one; who has opened it writes there.
func (d *Dir) Assign(container, to string) error {
	if err := os.Rename(d.Waiting(container), d.File(to)); err != nil {
		return fmt.Errorf("name the log of a container: %w", err)
	}
	return nil
}

// RemoveWaiting removes files that wait, all when no container is named.
func (d *Dir) RemoveWaiting(containers ...string) error {
	var files []string
	for _, c := range containers {
		files = append(files, d.Waiting(c))
	}
	if len(containers) == 0 {
		entries, err := os.ReadDir(d.path)
		if err != nil {
			return fmt.Errorf("look for logs of nobody: %w", err)
		}
		for _, e := range entries {
			if strings.HasSuffix(e.Name(), waiting) {
				files = append(files, filepath.Join(d.path, e.Name()))
			}
		}
	}
	var errs []error
	for _, f := range files {
		if err := os.Remove(f); err != nil && !errors.Is(err, os.ErrNotExist) {
			errs = append(errs, fmt.Errorf("remove a log of nobody: %w", err))
		}
	}
	return errors.Join(errs...)
}

func create(file, container string, owner int) error {
	f, err := os.OpenFile(file, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return fmt.Errorf("make the log of a container: %w", err)
	}
	if owner >= 0 {
		err = f.Chown(owner, -1)
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("make the log of container %s: %w", container, err)
	}
	return nil
}

// Container returns the container whose log a file of the folder is, false for other files.
func Container(file string) (string, bool) { return strings.CutSuffix(filepath.Base(file), suffix) }

// Tail returns the last lines of a container's log, "" when there are none.
func (d *Dir) Tail(container string, lines int) string {
	f, err := os.Open(d.File(container))
	if err != nil {
		return ""
	}
	defer func() { _ = f.Close() }()
	if size, err := f.Seek(0, io.SeekEnd); err == nil {
		_, err = f.Seek(max(0, size-tailBytes), io.SeekStart)
		if err != nil {
			return ""
		}
	}
	b, err := io.ReadAll(io.LimitReader(f, tailBytes))
	if err != nil {
		return ""
	}
	// What has been freed reads as zeros.
	all := bytes.Split(bytes.TrimSpace(bytes.ReplaceAll(b, []byte{0}, nil)), []byte("\n"))
	return string(bytes.Join(all[max(0, len(all)-lines):], []byte("\n")))
}

// Free gives the blocks that lie wholly in bytes from to to of a file back to the disk, without its first block. The
// size of the file and all offsets in it stay; the freed bytes read as zeros. It returns ErrNoHoles where the file
// system cannot do that.
func Free(path string, from, to int64) error {
	from = max((from+Block-1)/Block*Block, Block)
	to = to / Block * Block
	if from >= to {
		return nil
	}
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return fmt.Errorf("free a part of a log: %w", err)
	}
	defer func() { _ = f.Close() }()
	err = unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, from, to-from)
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOSYS) {
		return ErrNoHoles
	}
	if err != nil {
		return fmt.Errorf("free bytes %d to %d of %s: %w", from, to, path, err)
	}
	return nil
}
