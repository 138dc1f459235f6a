//go:build race

package rawconn

import "syscall"

// The race detector knows from package syscall that what was written to a connection comes before what was read from it.

func read(fd uintptr, p []byte) (int, syscall.Errno) { return told(syscall.Read(int(fd), p)) }

func write(fd uintptr, p []byte) (int, syscall.Errno) { return told(syscall.Write(int(fd), p)) }

func told(n int, err error) (int, syscall.Errno) {
	if err == nil {
		return n, 0
	}
	errno, ok := err.(syscall.Errno) // not by errors.As, which allocates
	if !ok {
		errno = syscall.EIO
	}
	return 0, errno
}
