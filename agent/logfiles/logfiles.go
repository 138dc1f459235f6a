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
	// maxEnded bounds the files of containers that are gone. Each is small when containers come and go quickly, so that
	// the bound in bytes alone would let them use up the disk's inodes.
	maxEnded = 1000
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

// Prune brings the folder below its bound: empty logs and the oldest of containers that are gone are removed first. A
// running container whose log alone is over a quarter of the bound has it cut to nothing, because its shim keeps it open;
// so have the largest when the running ones together are over the bound.
func (d *Dir) Prune(running func(container string) bool) error {
	entries, err := os.ReadDir(d.path)
	if err != nil {
		return fmt.Errorf("prune function logs: %w", err)
	}
	var live, ended []fs.FileInfo
	var total int64
	var errs []error
	for _, e := range entries {
		name, ok := strings.CutSuffix(e.Name(), suffix)
		info, err := e.Info()
		if !ok || err != nil {
			continue // gone meanwhile, or not ours
		}
		total += info.Size()
		switch {
		case running(name):
			live = append(live, info)
		case info.Size() == 0:
			errs = append(errs, os.Remove(filepath.Join(d.path, e.Name())))
		default:
			ended = append(ended, info)
		}
	}
	slices.SortFunc(ended, func(a, b fs.FileInfo) int { return a.ModTime().Compare(b.ModTime()) })
	for i, f := range ended {
		if total <= d.max && len(ended)-i <= maxEnded {
			break
		}
		errs = append(errs, os.Remove(filepath.Join(d.path, f.Name())))
		total -= f.Size()
	}
	slices.SortFunc(live, func(a, b fs.FileInfo) int { return cmp.Compare(b.Size(), a.Size()) })
	for _, f := range live {
		if f.Size() <= d.max/4 && total <= d.max {
			break
		}
		// The shim appends (O_APPEND), so it goes on at the new end.
		errs = append(errs, os.Truncate(filepath.Join(d.path, f.Name()), 0))
		total -= f.Size()
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("prune function logs: %w", err)
	}
	return nil
}
