// Package lock keeps two commands from doing the same thing at once, by lock files. The kernel gives a lock back when
// its process ends, however it ends.
package lock

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// poll is how often a lock that somebody else has is asked for. flock(2) could wait, but not be cancelled.
const poll = 100 * time.Millisecond

// Lock is a lock that is held until Close.
type Lock struct{ file *os.File }

// Take takes the lock of path, whose folder is made when it is missing. When somebody else has it, waiting is called
// once, and Take waits until it is free or ctx ends.
func Take(ctx context.Context, path string, waiting func()) (*Lock, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, fmt.Errorf("take the lock %s: %w", path, err)
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("take the lock %s: %w", path, err)
	}
	ticker := time.NewTicker(poll)
	defer ticker.Stop()
	for {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		switch {
		case err == nil:
			return &Lock{file: f}, nil
		case errors.Is(err, syscall.EINTR):
			continue
		case !errors.Is(err, syscall.EWOULDBLOCK):
			_ = f.Close()
			return nil, fmt.Errorf("take the lock %s: %w", path, err)
		}
		if waiting != nil {
			waiting()
			waiting = nil
		}
		select {
		case <-ctx.Done():
			_ = f.Close()
			return nil, fmt.Errorf("wait for the lock %s: %w", path, ctx.Err())
		case <-ticker.C:
		}
	}
}

// Close gives the lock back. The file stays: removing it would let two holders have locks on different files.
func (l *Lock) Close() error { return l.file.Close() }
