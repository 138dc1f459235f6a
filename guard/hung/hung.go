// Package hung has a container's health check end what no longer answers. Docker starts again what has ended, but what stands
// still it only calls unhealthy. A process that stands still cannot end itself, and a check that Docker starts anew each time can.
package hung

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// ErrSilent is in the tree of the error of a question that nothing has answered. An answer that says no is not silence.
var ErrSilent = errors.New("no answer")

// File is where a container's checks keep what they have seen. Docker gives each container a /dev/shm of its own, also one
// whose file system is read-only, and a fresh one with each start.
const File = "/dev/shm/esb-health"

// Limit is how long a service may be silent. It is no shorter than what a service that stops has for its last requests.
const Limit = time.Minute

// Container notes the outcome of a check that a program makes of itself, and ends this program's other processes when they have
// been silent for Limit. It returns asked, and what went wrong besides. Only a container's health check is to call it.
func Container(asked error) error { return note(File, asked, uptime, endOthers) }

// endOthers kills the processes of this one's name, which in a container are the service and checks that stand still like it. A
// process 1 cannot be killed from inside: the container needs an init.
func endOthers() error {
	own, err := os.ReadFile("/proc/self/comm")
	if err != nil {
		return fmt.Errorf("find out what this program is called: %w", err)
	}
	names, err := filepath.Glob("/proc/[0-9]*/comm")
	if err != nil {
		return fmt.Errorf("find the processes: %w", err)
	}
	var errs []error
	for _, file := range names {
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(file)))
		if err != nil || pid == os.Getpid() {
			continue
		}
		if name, err := os.ReadFile(file); err != nil || !bytes.Equal(name, own) {
			continue
		}
		if err := unix.Kill(pid, unix.SIGKILL); err != nil && !errors.Is(err, unix.ESRCH) {
			errs = append(errs, fmt.Errorf("kill process %d: %w", pid, err))
		}
	}
	return errors.Join(errs...)
}

// note keeps in file that the service has answered once (it is there) and since when it has been silent (the machine's uptime).
func note(file string, asked error, now func() (time.Duration, error), end func() error) error {
	if !errors.Is(asked, ErrSilent) {
		if err := os.WriteFile(file, nil, 0o600); err != nil {
			return errors.Join(asked, fmt.Errorf("note that the service answers: %w", err))
		}
		return asked
	}
	noted, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return asked // it is starting
	}
	if err != nil {
		return errors.Join(asked, fmt.Errorf("read since when the service is silent: %w", err))
	}
	uptime, err := now()
	if err != nil {
		return errors.Join(asked, err)
	}
	if len(noted) != 8 {
		if err := os.WriteFile(file, binary.BigEndian.AppendUint64(nil, uint64(uptime)), 0o600); err != nil {
			return errors.Join(asked, fmt.Errorf("note since when the service is silent: %w", err))
		}
		return asked
	}
	if silent := uptime - time.Duration(binary.BigEndian.Uint64(noted)); silent >= Limit {
		if err := end(); err != nil {
			return errors.Join(asked, fmt.Errorf("end what has not answered for %s: %w", silent.Round(time.Second), err))
		}
		return fmt.Errorf("has not answered for %s, and is ended so that Docker starts it again: %w", silent.Round(time.Second), asked)
	}
	return asked
}

// uptime is no clock that somebody sets.
func uptime() (time.Duration, error) {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &now); err != nil {
		return 0, fmt.Errorf("ask for the uptime: %w", err)
	}
	return time.Duration(now.Nano()), nil
}
