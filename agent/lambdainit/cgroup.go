package lambdainit

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
)

// memoryCgroup reads the container's memory cgroup, version 2 or 1. Its files stay open: one reading is one
// system call. The zero value and nil read nothing.
type memoryCgroup struct {
	peakFile   *os.File
	eventsFile *os.File
	limitPath  string
}

// openMemoryCgroup opens the figures in folder; a figure that the kernel does not have stays 0.
func openMemoryCgroup(folder string) (*memoryCgroup, error) {
	if folder == "" {
		return nil, nil
	}
	m := &memoryCgroup{limitPath: filepath.Join(folder, "memory.max")}
	var err error
	// memory.peak is in kernels from 5.19 on; before that the present usage is the best there is.
	if m.peakFile, err = openFirst(folder, "memory.peak", "memory.max_usage_in_bytes", "memory.current"); err != nil {
		return nil, err
	}
	if m.eventsFile, err = openFirst(folder, "memory.events", "memory.oom_control"); err != nil {
		return nil, errors.Join(err, m.close())
	}
	if filepath.Base(m.eventsFile.Name()) == "memory.oom_control" {
		m.limitPath = filepath.Join(folder, "memory.limit_in_bytes")
	}
	return m, nil
}

func openFirst(folder string, names ...string) (*os.File, error) {
	for _, name := range names {
		f, err := os.Open(filepath.Join(folder, name))
		if err == nil {
			return f, nil
		}
		if !errors.Is(err, os.ErrNotExist) {
			return nil, fmt.Errorf("memory cgroup (ESB_INIT_CGROUP): %w", err)
		}
	}
	return nil, fmt.Errorf("memory cgroup (ESB_INIT_CGROUP): %s has none of %v", folder, names)
}

func (m *memoryCgroup) close() error {
	if m == nil {
		return nil
	}
	var errs []error
	for _, f := range []*os.File{m.peakFile, m.eventsFile} {
		if f != nil {
			errs = append(errs, f.Close())
		}
	}
	return errors.Join(errs...)
}

// readOnce reads the beginning of a file of the kernel, which one call gives whole: os.File.ReadAt would make a second
// one to see the end.
func readOnce(f *os.File, buf []byte) (n int) {
	raw, err := f.SyscallConn()
	if err != nil {
		return 0
	}
	_ = raw.Control(func(fd uintptr) {
		for {
			if n, err = syscall.Pread(int(fd), buf, 0); !errors.Is(err, syscall.EINTR) {
				return
			}
		}
	})
	return max(n, 0)
}

// peak returns the largest memory use of the container since its start, in bytes; 0 when unknown. AWS's "Max
// Memory Used" has the same meaning: it is a figure of the sandbox, not of one invocation.
func (m *memoryCgroup) peak() uint64 {
	if m == nil {
		return 0
	}
	var buf [64]byte
	n := readOnce(m.peakFile, buf[:])
	v, _ := strconv.ParseUint(string(bytes.TrimSpace(buf[:n])), 10, 64)
	return v
}

// oomKills returns how many processes of the container the kernel has killed for memory.
func (m *memoryCgroup) oomKills() uint64 {
	if m == nil {
		return 0
	}
	var buf [512]byte
	n := readOnce(m.eventsFile, buf[:])
	for line := range bytes.Lines(buf[:n]) {
		if value, ok := bytes.CutPrefix(line, []byte("oom_kill ")); ok {
			v, _ := strconv.ParseUint(string(bytes.TrimSpace(value)), 10, 64)
			return v
		}
	}
	return 0
}

// limit returns the memory limit in bytes, 0 when there is none.
func (m *memoryCgroup) limit() uint64 {
	if m == nil {
		return 0
	}
	b, err := os.ReadFile(m.limitPath)
	if err != nil {
		return 0
	}
	v, _ := strconv.ParseUint(string(bytes.TrimSpace(b)), 10, 64)
	return v
}
