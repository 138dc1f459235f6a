package cgroup

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// What counts as held by all containers, in memory.stat: what is anonymous, and what files in memory have (tmpfs). What version 2 has of
// the kernel's own for a process, version 1 does not tell apart from caches.
var (
	heldV1 = []string{"total_rss", "total_shmem"}
	heldV2 = []string{"anon", "shmem", "kernel_stack", "pagetables", "slab_unreclaimable", "sock"}
)

// MemoryUsed returns the bytes that all containers together hold and would not give back: the kernel takes the caches of files, and of
// their names, away from them when it needs the memory, and those are not counted.
func (h *Hierarchy) MemoryUsed() (int64, error) {
	held, found, used := heldV1, 0, int64(0)
	if h.unified {
		held = heldV2
	}
	f, err := os.Open(filepath.Join(h.dir("memory", ""), "memory.stat"))
	if err != nil {
		return 0, fmt.Errorf("read the memory of all functions: %w", err)
	}
	defer func() { _ = f.Close() }() // only read
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		key, value, _ := strings.Cut(lines.Text(), " ")
		if !slices.Contains(held, key) {
			continue
		}
		n, err := strconv.ParseInt(value, 10, 64)
		if err != nil {
			return 0, fmt.Errorf("read the memory of all functions: memory.stat: %w", err)
		}
		used += n
		found++
	}
	if err := lines.Err(); err != nil {
		return 0, fmt.Errorf("read the memory of all functions: %w", err)
	}
	if found < 2 {
		return 0, fmt.Errorf("read the memory of all functions: memory.stat has no %s", strings.Join(held[:2], " and "))
	}
	return used, nil
}
