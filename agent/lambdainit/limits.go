package lambdainit

import (
	"fmt"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

const (
	// lockedBytes is how much memory a function may lock (AWS: recorded, RLIMIT_MEMLOCK).
	lockedBytes = 64 << 10
	// coreBytes bounds a core file (AWS: recorded, RLIMIT_CORE).
	coreBytes = 10 << 30
	// coreFilterFile says what of a process's memory goes into a core file (core(5)); children inherit it.
	coreFilterFile = "/proc/self/coredump_filter"
)

// setLimits lowers the limits of this process and its children to come.
func setLimits(cfg Config) error {
	for _, l := range []struct {
		key      string
		resource int
		limit    int
	}{{"ESB_INIT_NOFILE", unix.RLIMIT_NOFILE, cfg.Files}, {"ESB_INIT_NPROC", unix.RLIMIT_NPROC, cfg.Processes}} {
		if l.limit == 0 {
			continue
		}
		if err := syscall.Setrlimit(l.resource, &syscall.Rlimit{Cur: uint64(l.limit), Max: uint64(l.limit)}); err != nil {
			return fmt.Errorf("set a limit (%s=%d): %w", l.key, l.limit, err)
		}
	}
	if cfg.Files == 0 {
		return nil // it is no container of the agent's
	}
	for _, l := range []struct {
		name     string
		resource int
		limit    uint64
	}{{"locked memory", unix.RLIMIT_MEMLOCK, lockedBytes}, {"core files", unix.RLIMIT_CORE, coreBytes}} {
		var had syscall.Rlimit
		if err := syscall.Getrlimit(l.resource, &had); err != nil {
			return fmt.Errorf("read the limit of %s: %w", l.name, err)
		}
		limit := min(l.limit, had.Max) // what the machine allows less of, stays less
		if err := syscall.Setrlimit(l.resource, &syscall.Rlimit{Cur: limit, Max: limit}); err != nil {
			return fmt.Errorf("set the limit of %s: %w", l.name, err)
		}
	}
	return nil
}

// dumpNoMemory keeps the memory of what this process starts out of core files, unless that sets a filter of its own: where the
// machine gives them to a program of its own (kernel.core_pattern), a crash would write the function's memory to the machine's
// disk, and wait for it. Kernels that have no filter have no core files.
func dumpNoMemory() { _ = os.WriteFile(coreFilterFile, []byte("0"), 0) }
