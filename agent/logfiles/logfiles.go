// Package logfiles keeps the log files of function containers: one a container, written by its shim so that nothing is
// lost while the agent restarts, kept after the container is gone, bounded in total.
package logfiles

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

const (
	suffix = ".log"
	// tailBytes bounds what Tail reads.
	tailBytes = 4096
)

// Dir is the folder of the log files.
type Dir struct {
	path string
	max  int64
}

// Open makes the folder. maxBytes bounds all files together.
func Open(path string, maxBytes int64) (*Dir, error) {
	if err := os.MkdirAll(path, 0o755); err != nil {
		return nil, fmt.Errorf("make the folder of function logs: %w", err)
	}
	return &Dir{path: path, max: maxBytes}, nil
}

// File returns the path of a container's log.
func (d *Dir) File(container string) string { return filepath.Join(d.path, container+suffix) }

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
	all := bytes.Split(bytes.TrimSpace(b), []byte("\n"))
	return string(bytes.Join(all[max(0, len(all)-lines):], []byte("\n")))
}

// Prune brings the folder below its bound: the oldest logs of containers that are gone are removed first. A running
// container whose log alone is over a quarter of the bound has it cut to nothing, because its shim keeps it open.
func (d *Dir) Prune(running func(container string) bool) error {
	entries, err := os.ReadDir(d.path)
	if err != nil {
		return fmt.Errorf("prune function logs: %w", err)
	}
	type file struct {
		fs.FileInfo
		running bool
	}
	var files []file
	var total int64
	for _, e := range entries {
		name, ok := strings.CutSuffix(e.Name(), suffix)
		info, err := e.Info()
		if !ok || err != nil {
			continue // gone meanwhile, or not ours
		}
		files = append(files, file{info, running(name)})
		total += info.Size()
	}
	slices.SortFunc(files, func(a, b file) int { return cmp.Compare(a.ModTime().UnixNano(), b.ModTime().UnixNano()) })
	var errs []error
	for _, f := range files {
		path := filepath.Join(d.path, f.Name())
		switch {
		case f.running && f.Size() > d.max/4:
			// The shim appends (O_APPEND), so it goes on at the new end.
			errs = append(errs, os.Truncate(path, 0))
			total -= f.Size()
		case !f.running && total > d.max:
			errs = append(errs, os.Remove(path))
			total -= f.Size()
		}
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("prune function logs: %w", err)
	}
	return nil
}
