package logfile

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
)

// Rotate moves a log file that has outgrown limit bytes to <file>.1, in the place of an older one.
func Rotate(file string, limit int64) error {
	info, err := os.Stat(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("rotate log: %w", err)
	}
	if info.Size() <= limit {
		return nil
	}
	if err := os.Rename(file, file+".1"); err != nil {
		return fmt.Errorf("rotate log: %w", err)
	}
	return nil
}

// Tail returns at most n bytes from the end of a file, from a line's start and not from before offset from. It returns
// "" when the file cannot be read.
func Tail(file string, from, n int64) string {
	f, err := os.Open(file)
	if err != nil {
		return ""
	}
	defer func() { _ = f.Close() }()
	size, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return ""
	}
	start := max(from, size-n, 0)
	data, err := io.ReadAll(io.NewSectionReader(f, start, size-start))
	if err != nil {
		return ""
	}
	text := string(data)
	if start > from {
		if i := strings.IndexByte(text, '\n'); i >= 0 {
			text = text[i+1:]
		}
	}
	return text
}
