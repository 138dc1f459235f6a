package containerd

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/edge-serverless-box/esb/agent"
)

// shimPoll is how often an orphaned shim is looked at until it has ended.
const shimPoll = 5 * time.Millisecond

// endOrphan ends the shim of a container that containerd has no task of: a containerd that is killed while it starts a
// shim forgets that one.
func (r *Runtime) endOrphan(ctx context.Context, id string) error {
	return r.endShims(ctx, id, "shim that containerd has lost was ended")
}

// endShims ends the shim of a container, all of this containerd's when id is empty, and says so.
func (r *Runtime) endShims(ctx context.Context, id, said string) error {
	lines, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		return err
	}
	for _, file := range lines {
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(file)))
		if err != nil {
			continue
		}
		is := func() bool {
			line, err := os.ReadFile(file)
			return err == nil && isShim(bytes.Split(line, []byte{0}), id, r.cfg.Address)
		}
		if !is() {
			continue
		}
		if err := endProcess(ctx, pid, is); err != nil {
			return fmt.Errorf("end its shim, process %d: %w", pid, err)
		}
		r.log.WarnContext(ctx, said, "container_id", id, "pid", pid)
	}
	return nil
}

// isShim tells the shim of a container, of any when id is empty, from everything else by its command line, which containerd writes.
func isShim(args [][]byte, id, address string) bool {
	if len(args) == 0 || filepath.Base(string(args[0])) != "containerd-shim-runc-v2" {
		return false
	}
	has := func(flag, value string) bool {
		for i := range len(args) - 1 {
			if string(args[i]) == flag && string(args[i+1]) == value {
				return true
			}
		}
		return false
	}
	return has("-namespace", agent.Namespace) && (id == "" || has("-id", id)) && has("-address", address)
}

// endProcess kills a process and waits until it is gone. It asks is once more when the number cannot go to another
// process any more.
func endProcess(ctx context.Context, pid int, is func() bool) error {
	fd, err := unix.PidfdOpen(pid, 0)
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(fd) }()
	if !is() {
		return nil
	}
	if err := unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
		return err
	}
	tick := time.NewTicker(shimPoll)
	defer tick.Stop()
	for {
		// A pidfd becomes readable at the end of its process.
		if n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0); n > 0 || err != nil && !errors.Is(err, unix.EINTR) {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}
