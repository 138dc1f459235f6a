package process

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

type stat struct {
	state      byte
	startTicks uint64
}

func readStat(pid int) (stat, error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return stat{}, fmt.Errorf("read the state of process %d: %w", pid, err)
	}
	return parseStat(string(data))
}

// parseStat reads fields 3 (state) and 22 (start time) of /proc/<pid>/stat (proc(5)). The command in field 2 may
// hold blanks and brackets, so fields are counted from its last bracket.
func parseStat(line string) (stat, error) {
	end := strings.LastIndexByte(line, ')')
	if end < 0 {
		return stat{}, fmt.Errorf("unexpected /proc stat line %q", line)
	}
	fields := strings.Fields(line[end+1:])
	if len(fields) < 20 || len(fields[0]) != 1 {
		return stat{}, fmt.Errorf("unexpected /proc stat line %q", line)
	}
	ticks, err := strconv.ParseUint(fields[19], 10, 64)
	if err != nil {
		return stat{}, fmt.Errorf("unexpected start time in /proc stat line %q: %w", line, err)
	}
	return stat{state: fields[0][0], startTicks: ticks}, nil
}

func bootID() (string, error) {
	data, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "", fmt.Errorf("read the boot id: %w", err)
	}
	return strings.TrimSpace(string(data)), nil
}

// Info is one process of the machine, as far as this user may see it.
type Info struct {
	PID int
	// Exe is the path of its program, without the mark of a file that was replaced.
	Exe string
	// Args is its command line.
	Args []string
	// Env is its environment at its start.
	Env []string
}

// All lists the processes of the machine that are not zombies or kernel threads.
func All() ([]Info, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, fmt.Errorf("list processes: %w", err)
	}
	var all []Info
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		dir := filepath.Join("/proc", e.Name())
		// A process may end at any point; one without a program is a kernel thread or a zombie.
		exe, err := os.Readlink(filepath.Join(dir, "exe"))
		if err != nil {
			continue
		}
		args, err := os.ReadFile(filepath.Join(dir, "cmdline"))
		if err != nil {
			continue
		}
		env, err := os.ReadFile(filepath.Join(dir, "environ"))
		if err != nil {
			continue
		}
		all = append(all, Info{PID: pid, Exe: strings.TrimSuffix(exe, " (deleted)"), Args: split(args), Env: split(env)})
	}
	return all, nil
}

func split(data []byte) []string {
	data = bytes.TrimRight(data, "\x00")
	if len(data) == 0 {
		return nil
	}
	return strings.Split(string(data), "\x00")
}
