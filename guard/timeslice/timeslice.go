// Package timeslice has a process ask the kernel for short turns on the CPU.
package timeslice

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// Short is the length of a turn of a process that is to answer soon: well below the kernel's own, which is 1.4 to 2.8 ms by the number of
// CPUs (kernel/sched/fair.c, sysctl_sched_base_slice).
const Short = 400 * time.Microsecond

// maxScans bounds the looks for threads that were made while others were changed.
const maxScans = 4

// Shorten has all threads of this process, those that they make from now on, and the processes that they start, take turns of d on the CPU.
// They get no more of it than before, and no less. But one that wakes up need not wait until a process of longer turns that runs just
// now has had the rest of its own (Linux 6.12, Documentation/scheduler/sched-eevdf.rst); kernels before take no notice.
func Shorten(d time.Duration) error {
	done := map[int]bool{}
	for range maxScans {
		tasks, err := os.ReadDir("/proc/self/task")
		if err != nil {
			return fmt.Errorf("list the threads of this process: %w", err)
		}
		fresh := false
		for _, task := range tasks {
			id, err := strconv.Atoi(task.Name())
			if err != nil || done[id] {
				continue
			}
			done[id], fresh = true, true
			if err := shorten(id, d); err != nil && !errors.Is(err, unix.ESRCH) {
				return fmt.Errorf("shorten the turns of a thread on the CPU: %w", err)
			}
		}
		if !fresh {
			return nil
		}
	}
	return nil
}

func shorten(thread int, d time.Duration) error {
	attr, err := unix.SchedGetAttr(thread, 0)
	if err != nil {
		return err
	}
	if attr.Policy != unix.SCHED_NORMAL && attr.Policy != unix.SCHED_BATCH {
		return nil // somebody has decided otherwise
	}
	attr.Runtime = uint64(d)
	return unix.SchedSetAttr(thread, attr, 0)
}
