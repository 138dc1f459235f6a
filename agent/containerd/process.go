package containerd

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// openProcess opens the folder in /proc of a container's process, and makes sure that it is in the container's group: containerd tells
// a number, which is another process's when that one has ended. What is opened in the folder is that process's or nobody's.
func (r *Runtime) openProcess(pid uint32, sandbox string) (*os.File, error) {
	dir, err := os.Open("/proc/" + strconv.FormatUint(uint64(pid), 10))
	if err != nil {
		return nil, fmt.Errorf("look at its process: %w", err)
	}
	groups, err := readAt(dir, "cgroup")
	if err == nil && !r.groups.Has(sandbox, groups) {
		err = fmt.Errorf("process %d is not its own any more", pid)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("look at its process: %w", err), dir.Close())
	}
	return dir, nil
}

// openMounts opens the mount namespace of a container's process.
func (r *Runtime) openMounts(pid uint32, sandbox string) (*os.File, error) {
	dir, err := r.openProcess(pid, sandbox)
	if err != nil {
		return nil, err
	}
	defer func() { _ = dir.Close() }()
	return openAt(dir, "ns/mnt")
}

func openAt(dir *os.File, name string) (*os.File, error) {
	fd, err := unix.Openat(int(dir.Fd()), name, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open %s/%s: %w", dir.Name(), name, err)
	}
	return os.NewFile(uintptr(fd), dir.Name()+"/"+name), nil
}

func readAt(dir *os.File, name string) (string, error) {
	f, err := openAt(dir, name)
	if err != nil {
		return "", err
	}
	defer func() { _ = f.Close() }() // only read
	text, err := io.ReadAll(f)
	return string(text), err
}
