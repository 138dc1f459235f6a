package cgroup

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// MemoryUsed returns the bytes that all containers together hold and would not give back: the kernel takes the cache of files away
// from them when it needs the memory, and that is not counted.
func (h *Hierarchy) MemoryUsed() (int64, error) {
	dir, name, prefix := h.dir("memory", ""), "memory.usage_in_bytes", "total_"
	if h.unified {
		name, prefix = "memory.current", ""
	}
	text, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		return 0, fmt.Errorf("read the memory of all functions: %w", err)
	}
	used, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("read the memory of all functions: %s: %w", name, err)
	}
	f, err := os.Open(filepath.Join(dir, "memory.stat"))
	if err != nil {
		return 0, fmt.Errorf("read the memory of all functions: %w", err)
	}
	defer func() { _ = f.Close() }() // only read
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		key, value, _ := strings.Cut(lines.Text(), " ")
		if key != prefix+"inactive_file" && key != prefix+"active_file" {
			continue
		}
		n, err := strconv.ParseInt(value, 10, 64)
		if err != nil {
			return 0, fmt.Errorf("read the memory of all functions: memory.stat: %w", err)
		}
		used -= n
	}
	if err := lines.Err(); err != nil {
		return 0, fmt.Errorf("read the memory of all functions: %w", err)
	}
	return max(used, 0), nil
}
