// Package machine says what is measured on: what kind of machine it is, whether it has time to be measured, and what of its CPUs and
// memory single processes take.
package machine

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Machine is a machine and what runs on it.
type Machine struct {
	CPU          string `json:"cpu"`
	Cores        int    `json:"cores"`
	MemoryMB     int    `json:"memory_mb"`
	Kernel       string `json:"kernel"`
	Distribution string `json:"distribution"`
	// Cgroup is "v1" or "v2".
	Cgroup string `json:"cgroup"`
	// Versions of the programs that take part, "runc 1.5.2".
	Versions []string `json:"versions"`
}

// Describe reads what this machine is.
func Describe() Machine {
	m := Machine{CPU: field("/proc/cpuinfo", "model name"), Cores: runtime.NumCPU(), Distribution: field("/etc/os-release", "PRETTY_NAME"), Cgroup: "v1"}
	total, _, _ := strings.Cut(field("/proc/meminfo", "MemTotal"), " ")
	kilobytes, _ := strconv.Atoi(total)
	m.MemoryMB = kilobytes >> 10
	var name unix.Utsname
	if unix.Uname(&name) == nil {
		m.Kernel = unix.ByteSliceToString(name.Release[:])
	}
	if _, err := os.Stat("/sys/fs/cgroup/cgroup.controllers"); err == nil {
		m.Cgroup = "v2"
	}
	m.Versions = []string{runtime.Version()}
	return m
}

// field is the value of the first line "name: value" or "name=value" of a file; "unknown" without one.
func field(file, name string) string {
	f, err := os.Open(file)
	if err != nil {
		return "unknown"
	}
	defer func() { _ = f.Close() }()
	for scan := bufio.NewScanner(f); scan.Scan(); {
		rest, ok := strings.CutPrefix(scan.Text(), name)
		if ok = ok && strings.ContainsAny(rest, ":="); ok {
			return strings.Trim(strings.TrimSpace(rest), ":= \t\"")
		}
	}
	return "unknown"
}

// Line is the machine in one line.
func (m Machine) Line() string {
	return fmt.Sprintf("%s, %d CPUs, %d MB, Linux %s, %s, cgroup %s, %s", m.CPU, m.Cores, m.MemoryMB, m.Kernel, m.Distribution, m.Cgroup, strings.Join(m.Versions, ", "))
}

// CPUTime is for how long a process has had a CPU: all its threads, those that have ended included, to the nanosecond.
func CPUTime(pid int) (time.Duration, error) {
	// The clock of a process, as clock_getcpuclockid(3) makes its number (the kernel's CPUCLOCK_SCHED is 2).
	var at unix.Timespec
	if err := unix.ClockGettime(int32(^pid<<3|2), &at); err != nil {
		return 0, fmt.Errorf("read the CPU clock of process %d: %w", pid, err)
	}
	return time.Duration(at.Nano()), nil
}

// Proportional is the memory of a process with its share of what it has in common with others (PSS), in bytes.
func Proportional(pid int) (int64, error) {
	return kilobytes(filepath.Join("/proc", strconv.Itoa(pid), "smaps_rollup"), "Pss:")
}

// Resident is the memory of a process, all of what it shares included (RSS), in bytes.
func Resident(pid int) (int64, error) {
	return kilobytes(filepath.Join("/proc", strconv.Itoa(pid), "status"), "VmRSS:")
}

// Available is what the kernel thinks that programs could still have (MemAvailable), in bytes.
func Available() (int64, error) { return kilobytes("/proc/meminfo", "MemAvailable:") }

func kilobytes(file, name string) (int64, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, name); ok {
			n, err := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
			return n << 10, err
		}
	}
	return 0, fmt.Errorf("%s has no line %s", file, name)
}

// Children are the processes whose parent is one of these.
func Children(parents ...int) ([]int, error) {
	files, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return nil, err
	}
	var found []int
	for _, file := range files {
		parent, err := parentIn(file)
		if err != nil {
			continue // it has ended
		}
		for _, p := range parents {
			if p == parent {
				pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(file)))
				found = append(found, pid)
			}
		}
	}
	return found, nil
}

// Parent is the process that has started another one, or that looks after it since.
func Parent(pid int) (int, error) { return parentIn(filepath.Join("/proc", strconv.Itoa(pid), "stat")) }

func parentIn(file string) (int, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return 0, err
	}
	// The name of the program, in parentheses, may have anything in it.
	fields := strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:]))
	if len(fields) < 2 {
		return 0, fmt.Errorf("%s is cut off", file)
	}
	return strconv.Atoi(fields[1])
}
