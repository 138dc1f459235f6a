// Package hoststate reads what a box could leave behind on its host, so that a test can compare before and after.
package hoststate

import (
	"bufio"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"strconv"
	"strings"

	"github.com/google/nftables"

	"github.com/edge-serverless-box/esb/guard/netstate"
)

// State is a sorted list of lines for each kind of thing.
type State map[string][]string

// Read takes a snapshot of the host. Processes are those that belong to the box of home: by program, argument,
// environment or cgroup; a machine runs others, which come and go.
func Read(home, binDir, bridge string) (State, error) {
	state := State{}
	readers := map[string]func() ([]string, error){
		"processes":          func() ([]string, error) { return processes(home, binDir, bridge) },
		"mounts":             mounts,
		"network namespaces": namespaces,
		"disks":              func() ([]string, error) { return disks(home) },
		"links":              links,
		"cgroups":            cgroups,
		"nftables":           rules,
		"iptables":           iptables,
		"leases":             func() ([]string, error) { return leases(home, "/run/esb/"+bridge) },
		"sockets":            runFiles,
	}
	for kind, read := range readers {
		lines, err := read()
		if err != nil {
			return nil, fmt.Errorf("read %s of the host: %w", kind, err)
		}
		sort.Strings(lines)
		state[kind] = lines
	}
	return state, nil
}

// Process is a running process of a box.
type Process struct {
	PID int
	// Program is the path of its executable, Command its command line.
	Program, Command string
}

// Processes are those that run a program of binDir for the box of home.
func Processes(home, binDir, bridge string) ([]Process, error) {
	lines, err := processes(home, binDir, bridge)
	if err != nil {
		return nil, err
	}
	var found []Process
	for _, line := range lines {
		pid, command, _ := strings.Cut(line, " ")
		number, err := strconv.Atoi(pid)
		if err != nil {
			return nil, err
		}
		program, err := os.Readlink(filepath.Join("/proc", pid, "exe"))
		ours := strings.Contains(command, home) || strings.Contains(command, bridge) || inEnvironment(pid, "ESB_HOME="+home)
		if err == nil && ours && filepath.Dir(program) == binDir { // one without a program has ended meanwhile
			found = append(found, Process{PID: number, Program: program, Command: command})
		}
	}
	return found, nil
}

func inEnvironment(pid, variable string) bool {
	data, _ := os.ReadFile(filepath.Join("/proc", pid, "environ")) // the process may be gone
	return slices.Contains(strings.Split(string(data), "\x00"), variable)
}

func processes(home, binDir, bridge string) ([]string, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	var found []string
	for _, e := range entries {
		pid := e.Name()
		if pid[0] < '0' || pid[0] > '9' || pid == fmt.Sprint(os.Getpid()) {
			continue
		}
		read := func(name string) string {
			data, _ := os.ReadFile(filepath.Join("/proc", pid, name)) // the process may be gone
			return string(data)
		}
		exe, _ := os.Readlink(filepath.Join("/proc", pid, "exe"))
		command := strings.ReplaceAll(read("cmdline"), "\x00", " ")
		ours := strings.HasPrefix(exe, binDir) || strings.Contains(command, home) ||
			strings.Contains(read("environ"), "ESB_HOME="+home+"\x00") || strings.Contains(read("cgroup"), bridge)
		if ours && exe != "" {
			found = append(found, pid+" "+command)
		}
	}
	return found, nil
}

func mounts() ([]string, error) {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	var found []string
	for scan := bufio.NewScanner(f); scan.Scan(); {
		fields := strings.Fields(scan.Text())
		found = append(found, fields[4]+" "+fields[3])
	}
	return found, nil
}

// disks are the loop devices of files in the box's home.
func disks(home string) ([]string, error) {
	files, err := filepath.Glob("/sys/block/loop*/loop/backing_file")
	var found []string
	for _, file := range files {
		// One that was given up meanwhile has no such file.
		if text, err := os.ReadFile(file); err == nil && strings.HasPrefix(string(text), home+"/") {
			found = append(found, file+" "+strings.TrimSpace(string(text)))
		}
	}
	return found, err
}

func namespaces() ([]string, error) {
	paths, err := filepath.Glob("/proc/[0-9]*/ns/net")
	if err != nil {
		return nil, err
	}
	seen := map[string]bool{}
	for _, path := range paths {
		if target, err := os.Readlink(path); err == nil {
			seen[target] = true
		}
	}
	found := make([]string, 0, len(seen))
	for namespace := range seen {
		found = append(found, namespace)
	}
	return found, nil
}

func links() ([]string, error) {
	list, err := netstate.Links()
	if err != nil {
		return nil, err
	}
	var found []string
	for _, link := range list {
		addresses, err := netstate.Addresses(link)
		if err != nil {
			return nil, err
		}
		found = append(found, fmt.Sprintf("%s %s %v", link.Type(), link.Attrs().Name, addresses))
	}
	return found, nil
}

func cgroups() ([]string, error) {
	var found []string
	err := filepath.WalkDir("/sys/fs/cgroup", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			if os.IsNotExist(err) { // another program's cgroup went away while we looked
				return nil
			}
			return err
		}
		if d.IsDir() {
			found = append(found, path)
		}
		return nil
	})
	return found, err
}

func rules() ([]string, error) {
	conn, err := nftables.New()
	if err != nil {
		return nil, err
	}
	tables, err := conn.ListTables()
	if err != nil {
		return nil, err
	}
	var found []string
	for _, table := range tables {
		found = append(found, fmt.Sprintf("table %d %s", table.Family, table.Name))
	}
	chains, err := conn.ListChains()
	if err != nil {
		return nil, err
	}
	for _, chain := range chains {
		// The library cannot read back every expression of a running box's own chains; what it says instead is
		// a line that must be gone afterwards too.
		count := "unreadable"
		if list, err := conn.GetRules(chain.Table, chain); err == nil {
			count = fmt.Sprint(len(list))
		}
		found = append(found, fmt.Sprintf("chain %s %s: %s rules", chain.Table.Name, chain.Name, count))
	}
	return found, nil
}

// iptables reads the tables of the old kernel interface; rules made by iptables-nft are seen as nftables.
func iptables() ([]string, error) {
	data, err := os.ReadFile("/proc/net/ip_tables_names")
	if os.IsNotExist(err) {
		return nil, nil
	}
	return strings.Fields(string(data)), err
}

// leases are files of host-local, named after the address that they hold.
func leases(folders ...string) ([]string, error) {
	var found []string
	for _, folder := range folders {
		err := filepath.WalkDir(folder, func(path string, d fs.DirEntry, err error) error {
			if err != nil {
				if os.IsNotExist(err) {
					return nil
				}
				return err
			}
			if !d.IsDir() && strings.Count(d.Name(), ".") == 3 && strings.Trim(d.Name(), "0123456789.") == "" {
				found = append(found, path)
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	return found, nil
}

// runFiles are what esb and containerd may leave in /run: notify sockets, shim sockets, short socket folders.
func runFiles() ([]string, error) {
	var found []string
	for _, pattern := range []string{"/run/esb*", "/run/esb*/*", "/run/containerd/s/*"} {
		paths, err := filepath.Glob(pattern)
		if err != nil {
			return nil, err
		}
		found = append(found, paths...)
	}
	return found, nil
}
