// Package memlimit finds out how much memory a process may use, and keeps Go's runtime below it: a program that does
// not know its limit is killed at it, when it could have refused work.
package memlimit

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"strings"
)

// Limit is how much memory there is, and who says so.
type Limit struct {
	Bytes int64
	// Source is "GOMEMLIMIT", the file of a control group, or "/proc/meminfo".
	Source string
}

// Shares of the memory that a process uses for its Go heap.
const (
	// groupShare of its control group's limit: the rest is for what Go does not count.
	groupShare = 0.8
	// machineShare of the whole machine, on which a process is not alone.
	machineShare = 0.5
)

// Apply tells Go's runtime the limit of this process and returns it. GOMEMLIMIT counts when it is set, else the least
// limit of its control groups, else the machine's memory, each with some left for others. The runtime's limit is a soft
// one: it collects garbage more often, and ends nothing.
func Apply(getenv func(string) string) (Limit, error) {
	if getenv("GOMEMLIMIT") != "" {
		if n := debug.SetMemoryLimit(-1); n != math.MaxInt64 {
			return Limit{Bytes: n, Source: "GOMEMLIMIT"}, nil
		}
	}
	l, err := find("/")
	if err != nil {
		return Limit{}, err
	}
	debug.SetMemoryLimit(l.Bytes)
	return l, nil
}

// Whole returns all the memory that this process and its children may use: the machine's, or the least limit of its control groups.
func Whole() (Limit, error) { return least("/", 1, 1) }

// Budget is the share of the limit for bytes that are held for others, between 16 MB and most.
func (l Limit) Budget(share float64, most int64) int64 {
	return max(16<<20, min(int64(float64(l.Bytes)*share), most))
}

// find looks below root, which is "/" but for tests, for what a process uses for itself.
func find(root string) (Limit, error) { return least(root, machineShare, groupShare) }

// least is the least of the shares of the machine's memory and of the limits of the process's control groups.
func least(root string, ofMachine, ofGroup float64) (Limit, error) {
	machine, err := machineMemory(filepath.Join(root, "proc/meminfo"))
	if err != nil {
		return Limit{}, err
	}
	least := Limit{Bytes: int64(float64(machine) * ofMachine), Source: "/proc/meminfo"}
	mounts, err := groupMounts(filepath.Join(root, "proc/self/mountinfo"))
	if err != nil {
		return Limit{}, err
	}
	groups, err := os.ReadFile(filepath.Join(root, "proc/self/cgroup"))
	if err != nil {
		return Limit{}, fmt.Errorf("find the memory limit of this process: %w", err)
	}
	for line := range strings.Lines(string(groups)) {
		// "4:memory:/path", or "0::/path" of the unified hierarchy.
		fields := strings.SplitN(strings.TrimSuffix(line, "\n"), ":", 3)
		if len(fields) != 3 {
			continue
		}
		for _, m := range mounts {
			if m.unified != (fields[0] == "0") || !m.unified && !contains(fields[1], "memory") {
				continue
			}
			for _, file := range m.files(fields[2]) {
				n, ok, err := readLimit(filepath.Join(root, file))
				if err != nil {
					return Limit{}, err
				}
				if !ok || n >= machine {
					continue
				}
				if n = int64(float64(n) * ofGroup); n < least.Bytes {
					least = Limit{Bytes: n, Source: file}
				}
			}
		}
	}
	return least, nil
}

// mount is one of a hierarchy that bounds memory.
type mount struct {
	// root is the group that is seen at point.
	root, point string
	unified     bool
}

// files are those that hold the limits of a group and of all above it that can be seen.
func (m mount) files(group string) []string {
	name := "memory.limit_in_bytes"
	if m.unified {
		name = "memory.max"
	}
	below, ok := strings.CutPrefix(group, strings.TrimSuffix(m.root, "/"))
	if !ok || below != "" && below[0] != '/' {
		// The process sees its own group at the mount, and the name that it has elsewhere.
		below = ""
	}
	var files []string
	for p := filepath.Clean("/" + below); ; p = filepath.Dir(p) {
		files = append(files, filepath.Join(m.point, p, name))
		if p == "/" {
			return files
		}
	}
}

// readLimit reads a limit; ok is false where there is none.
func readLimit(file string) (n int64, ok bool, err error) {
	text, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
		return 0, false, nil
	}
	if err != nil {
		return 0, false, fmt.Errorf("read a memory limit: %w", err)
	}
	text = bytes.TrimSpace(text)
	if string(text) == "max" {
		return 0, false, nil
	}
	u, err := strconv.ParseUint(string(text), 10, 64)
	if err != nil {
		return 0, false, fmt.Errorf("read the memory limit in %s: %w", file, err)
	}
	if u == 0 || u > math.MaxInt64 {
		return 0, false, nil
	}
	return int64(u), true, nil
}

// groupMounts lists the mounts of cgroup2 and of cgroup v1's memory controller (proc(5), mountinfo).
func groupMounts(file string) ([]mount, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("find the memory limit of this process: %w", err)
	}
	var mounts []mount
	for line := range strings.Lines(string(text)) {
		own, of, ok := strings.Cut(strings.TrimSuffix(line, "\n"), " - ")
		fields, kind := strings.Fields(own), strings.Fields(of)
		if !ok || len(fields) < 5 || len(kind) < 3 {
			continue
		}
		m := mount{root: fields[3], point: fields[4], unified: kind[0] == "cgroup2"}
		if m.unified || kind[0] == "cgroup" && contains(kind[2], "memory") {
			mounts = append(mounts, m)
		}
	}
	return mounts, nil
}

// contains says whether a comma separated list has name.
func contains(list, name string) bool {
	for part := range strings.SplitSeq(list, ",") {
		if part == name {
			return true
		}
	}
	return false
}

func machineMemory(file string) (int64, error) {
	f, err := os.Open(file)
	if err != nil {
		return 0, fmt.Errorf("find the machine's memory: %w", err)
	}
	defer func() { _ = f.Close() }() // only read
	for s := bufio.NewScanner(f); s.Scan(); {
		rest, ok := strings.CutPrefix(s.Text(), "MemTotal:")
		if !ok {
			continue
		}
		kb, err := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(rest, "kB")), 10, 64)
		if err != nil {
			return 0, fmt.Errorf("find the machine's memory: %s: %w", file, err)
		}
		return kb << 10, nil
	}
	return 0, fmt.Errorf("find the machine's memory: %s has no line MemTotal", file)
}
