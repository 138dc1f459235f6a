package containerd

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/containerd/containerd/api/types/task"
	"golang.org/x/sys/unix"
)

// alonePoll is how often, in milliseconds, a look at the process of a container without a shim is given up to see whether the agent stops.
const alonePoll = 1000

// outlives says whether a container that containerd takes for ended runs on: its shim has ended, and its process has not. It serves as before, and is
// removed as others are; the agent watches its process in the shim's place.
func (r *Runtime) outlives(sandbox string) bool {
	s := r.state(sandbox)
	if s == nil {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.alone && !s.ended {
		return true
	}
	if s.starting || s.dying || s.ended || s.pid == 0 {
		return false
	}
	fd, err := unix.PidfdOpen(int(s.pid), 0)
	if err != nil {
		return false
	}
	// The number may be another process's by now, but not from here on.
	if !r.holds(sandbox, s.pid) || hasEnded(fd, 0) {
		_ = unix.Close(fd)
		return false
	}
	s.alone = true
	r.log.Warn("the shim of a container has ended; the container serves on", "container_id", s.record.ID, "function", s.record.FunctionName)
	r.background.Go(func() {
		defer func() { _ = unix.Close(fd) }()
		for !hasEnded(fd, alonePoll) {
			if r.life.Err() != nil {
				return
			}
		}
		r.ended(sandbox, lostExit)
	})
	return true
}

// findAlone is outlives for a container of an earlier agent.
func (r *Runtime) findAlone(s *state) bool {
	pids, err := r.groups.PIDs(s.record.sandbox)
	if err != nil {
		return false
	}
	i := slices.IndexFunc(pids, isFirst)
	if i < 0 {
		return false
	}
	s.mu.Lock()
	s.pid = uint32(pids[i])
	s.mu.Unlock()
	return r.outlives(s.record.sandbox)
}

// isFirst says whether a process is process 1 of a container, and one that has been started: before that it is runc's.
func isFirst(pid int) bool {
	line, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	if err != nil || !strings.HasPrefix(string(line), initPath+"\x00") {
		return false
	}
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return false
	}
	for line := range strings.Lines(string(text)) {
		if fields := strings.Fields(line); len(fields) > 2 && fields[0] == "NSpid:" {
			return fields[len(fields)-1] == "1"
		}
	}
	return false
}

// holds says whether a process is in a container's cgroup.
func (r *Runtime) holds(sandbox string, pid uint32) bool {
	pids, err := r.groups.PIDs(sandbox)
	return err == nil && slices.Contains(pids, int(pid))
}

// hasEnded waits for the end of the process that a descriptor is of, for so many milliseconds.
func hasEnded(pidfd, limit int) bool {
	n, err := unix.Poll([]unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}, limit)
	return n > 0 || err != nil && !errors.Is(err, unix.EINTR)
}

// lonely is the process of a container whose shim has ended, nil for all others.
func (r *Runtime) lonely(sandbox string) *task.Process {
	s := r.state(sandbox)
	if s == nil {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.alone || s.ended {
		return nil
	}
	return &task.Process{ContainerID: sandbox, ID: sandbox, Pid: s.pid, Status: task.Status_RUNNING}
}
