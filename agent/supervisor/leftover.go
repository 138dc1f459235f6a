package supervisor

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// stopLeftover ends the containerd that an agent which was killed has left: it holds the lock of the metadata
// database. The pid file is believed only as far as that process runs with our configuration file.
func stopLeftover(ctx context.Context, p paths, log *slog.Logger) error {
	text, err := os.ReadFile(p.pid)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read containerd's pid file: %w", err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil || pid <= 1 {
		return nil // Cut short by a crash; it is written anew.
	}
	// The descriptor stays with this process, also when its number goes to another one meanwhile.
	fd, err := unix.PidfdOpen(pid, 0)
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("open process %d, of containerd's pid file %s: %w", pid, p.pid, err)
	}
	defer func() { _ = unix.Close(fd) }()
	if !runsWith(pid, p.config) {
		return nil
	}
	log.Warn("stopping the containerd of an agent that was killed", "pid", pid)
	for _, signal := range []unix.Signal{unix.SIGTERM, unix.SIGKILL} {
		if err := unix.PidfdSendSignal(fd, signal, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("stop the former containerd, process %d: %w", pid, err)
		}
		ended, err := waitEnded(ctx, fd, stopTimeout)
		if err != nil {
			return fmt.Errorf("wait for the former containerd, process %d, to end: %w", pid, err)
		}
		if ended {
			return nil
		}
	}
	return fmt.Errorf("the former containerd, process %d, does not end after SIGKILL: it hangs in the kernel, most likely on its disk", pid)
}

// runsWith tells whether a process has the argument in its command line.
func runsWith(pid int, argument string) bool {
	line, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/cmdline")
	return err == nil && slices.ContainsFunc(bytes.Split(line, []byte{0}), func(a []byte) bool { return string(a) == argument })
}

// waitEnded waits for the process of a pidfd, which becomes readable at its end.
func waitEnded(ctx context.Context, fd int, limit time.Duration) (bool, error) {
	const step = 100 * time.Millisecond // how late ctx is noticed
	for deadline := time.Now().Add(limit); time.Now().Before(deadline); {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, int(step.Milliseconds()))
		if err != nil && !errors.Is(err, unix.EINTR) {
			return false, err
		}
		if n > 0 {
			return true, nil
		}
		if ctx.Err() != nil {
			return false, ctx.Err()
		}
	}
	return false, nil
}
