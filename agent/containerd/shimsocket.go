package containerd

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// socketAge is how old a socket is at least that is judged: a younger one may be about to be opened by its shim.
const socketAge = time.Minute

// boundSockets is where the kernel lists the unix sockets that are open, by path.
const boundSockets = "/proc/net/unix"

// sweepSockets removes the sockets of shims that were killed, one each: a shim takes its own away when it ends in order, and
// nobody does it for another.
func (r *Runtime) sweepSockets() error {
	if r.cfg.ShimSockets == "" {
		return nil
	}
	removed, err := removeDeadSockets(r.cfg.ShimSockets, time.Now().Add(-socketAge))
	if removed > 0 {
		r.log.Info("sockets of shims that were killed were removed", "sockets", removed)
	}
	return err
}

// removeDeadSockets removes the sockets in a folder that were made before some time and that no process has open.
func removeDeadSockets(dir string, before time.Time) (removed int, err error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return 0, nil
		}
		return 0, fmt.Errorf("look for sockets of shims that were killed: %w", err)
	}
	var old []string
	for _, e := range entries {
		if info, err := e.Info(); err == nil && info.Mode().Type() == fs.ModeSocket && info.ModTime().Before(before) {
			old = append(old, filepath.Join(dir, e.Name()))
		}
	}
	if len(old) == 0 {
		return 0, nil
	}
	open, err := os.ReadFile(boundSockets)
	if err != nil {
		return 0, fmt.Errorf("look for sockets of shims that were killed: %w", err)
	}
	var errs []error
	for _, path := range old {
		// Those of living shims are in the kernel's list, and are not disturbed. To connect settles the rest.
		if strings.Contains(string(open), path) || !refused(path) {
			continue
		}
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
			continue
		}
		removed++
	}
	return removed, errors.Join(errs...)
}

// refused says whether nobody listens on a socket.
func refused(path string) bool {
	conn, err := net.DialTimeout("unix", path, time.Second)
	if err == nil {
		_ = conn.Close()
	}
	return errors.Is(err, syscall.ECONNREFUSED)
}
