package child

import (
	"fmt"
	"os"
	"sync"
)

// logFile is a log of bounded size: a full file becomes <path>.1, in place of the one before. It never fails its
// writer, because a store must not stop for a full disk.
type logFile struct {
	path string
	max  int64
	keep int

	// mu guards everything below.
	mu   sync.Mutex
	file *os.File // nil when it could not be opened; the next write tries again
	size int64
	last []byte // the end of what was written since mark
}

// openLog opens path for appending; max is its size limit and keep the length of tail, both in bytes.
func openLog(path string, max int64, keep int) (*logFile, error) {
	l := &logFile{path: path, max: max, keep: keep}
	if err := l.open(); err != nil {
		return nil, fmt.Errorf("open the log: %w", err)
	}
	return l, nil
}

func (l *logFile) open() error {
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

// Write implements io.Writer.
func (l *logFile) Write(p []byte) (int, error) {
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

// mark forgets the tail: another process begins.
func (l *logFile) mark() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.last = nil
}

// tail returns the end of what was written since mark.
func (l *logFile) tail() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return string(l.last)
}

// Close closes the file.
func (l *logFile) Close() error {
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
