// Package logfile has logs of bounded size: a File for what a child process writes, and a Rotating for a program's own lines, which others
// follow.
package logfile

import (
	"fmt"
	"os"
	"sync"
)

// File is a log of bounded size: a full file becomes <path>.1, in place of the one before. It never fails its
// writer, because a service must not stop for a full disk.
type File struct {
	path string
	max  int64
	keep int

	// mu guards everything below.
	mu   sync.Mutex
	file *os.File // nil when it could not be opened; the next write tries again
	size int64
	last []byte // the end of what was written since Mark
}

// Open opens path for appending; max is its size limit and keep the length of Tail, both in bytes.
func Open(path string, max int64, keep int) (*File, error) {
	l := &File{path: path, max: max, keep: keep}
	if err := l.open(); err != nil {
		return nil, fmt.Errorf("open the log: %w", err)
	}
	return l, nil
}

func (l *File) open() error {
	file, err := os.OpenFile(l.path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	info, err := file.Stat()
	if err != nil {
		_ = file.Close()
		return err
	}
	l.file, l.size = file, info.Size()
	return nil
}

// Path of the file.
func (l *File) Path() string { return l.path }

// Write implements io.Writer.
func (l *File) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.last = append(l.last, p...)
	if extra := len(l.last) - l.keep; extra > 0 {
		l.last = append(l.last[:0], l.last[extra:]...)
	}
	if l.file != nil && l.size > 0 && l.size+int64(len(p)) > l.max {
		_ = l.file.Close()
		l.file = nil
		_ = os.Rename(l.path, l.path+".1")
	}
	if l.file == nil && l.open() != nil {
		return len(p), nil
	}
	n, _ := l.file.Write(p)
	l.size += int64(n)
	return len(p), nil
}

// Mark forgets the tail: another process begins.
func (l *File) Mark() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.last = nil
}

// Tail returns the end of what was written since Mark.
func (l *File) Tail() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return string(l.last)
}

// Close closes the file. It may be called twice.
func (l *File) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.file == nil {
		return nil
	}
	err := l.file.Close()
	l.file = nil
	if err != nil {
		return fmt.Errorf("close the log: %w", err)
	}
	return nil
}
