package chaos

import (
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/google/nftables"

	"github.com/edge-serverless-box/esb/native/leftovers"
	"github.com/edge-serverless-box/esb/tests/hoststate"
	"github.com/edge-serverless-box/esb/tests/stack"
)

// shimProgram is containerd's shim, of which several boxes may run the same.
const shimProgram = "containerd-shim-runc-v2"

// owned is how many things of each kind a box has on the machine. With the same containers it has the same, however often others
// have come and gone.
type owned map[string]int

// readOwned counts them.
func readOwned(box *stack.Stack) (owned, error) {
	state, err := hoststate.Read(box.Home, filepath.Join(box.Home, "none"), box.Bridge)
	if err != nil {
		return nil, err
	}
	found, shims := owned{}, 0
	for _, kind := range []string{"mounts", "disks", "cgroups", "leases", "nftables"} {
		for _, line := range state[kind] {
			if (strings.Contains(line, box.Home) || strings.Contains(line, box.Bridge)) && (kind != "leases" || !resting(line)) {
				found[kind]++
			}
		}
	}
	for _, line := range state["processes"] {
		_, command, _ := strings.Cut(line, " ")
		program, _, _ := strings.Cut(command, " ")
		if name := filepath.Base(program); name != shimProgram {
			found["processes "+name]++
		}
	}
	processes, err := hoststate.Processes(box.Home, box.BinDir, box.Bridge)
	if err != nil {
		return nil, err
	}
	for _, p := range processes {
		if filepath.Base(p.Program) != shimProgram || !strings.Contains(p.Command, "/"+box.Bridge+"/") {
			continue
		}
		// How many there are follows from which containers have come first: one without a container is one too many.
		if shims++; children(fmt.Sprint(p.PID)) == 0 {
			found["processes "+shimProgram]++
		}
	}
	ports, err := leftovers.Ports(box.Bridge)
	if err != nil {
		return nil, err
	}
	found["veths"] = len(ports)
	if found["network namespaces"], err = networkNamespaces(box); err != nil {
		return nil, err
	}
	if found["firewall elements"], err = firewallElements(box.Bridge); err != nil {
		return nil, err
	}
	for _, kind := range []string{"leases", "containers"} {
		list, err := ctr(box, kind, "list", "-q")
		if err != nil {
			return nil, err
		}
		found["containerd's "+kind] = len(strings.Fields(list))
	}
	run := filepath.Join("/run/esb", box.Bridge)
	for kind, pattern := range map[string]string{
		"shim sockets": filepath.Join(run, "containerd", "s", "*"),
		"bundles":      filepath.Join(run, "containerd", "state", "*.task", "*", "*"),
		"runc's state": filepath.Join(run, "runc", "*", "*"),
		"files":        filepath.Join(run, "c", "*", "hosts"),
	} {
		paths, err := filepath.Glob(pattern)
		if err != nil {
			return nil, err
		}
		found[kind] = len(paths)
	}
	found["shim sockets"] = max(found["shim sockets"]-shims, 0) // each has one
	found["snapshots"], err = snapshots(box)
	return found, err
}

// ctr is what containerd's own client says.
func ctr(box *stack.Stack, args ...string) (string, error) {
	socket := filepath.Join("/run/esb", box.Bridge, "containerd", "containerd.sock")
	cmd := exec.Command(filepath.Join(box.BinDir, "ctr"), append([]string{"--address", socket, "--namespace", "esb-runtime"}, args...)...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("ctr %s: %w: %s", strings.Join(args, " "), err, out)
	}
	return string(out), nil
}

// networkNamespaces counts those of the box's processes, beside the machine's.
func networkNamespaces(box *stack.Stack) (int, error) {
	own, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		return 0, err
	}
	processes, err := hoststate.Processes(box.Home, box.BinDir, box.Bridge)
	if err != nil {
		return 0, err
	}
	seen := map[string]bool{}
	look := func(pid string) {
		if name, err := os.Readlink(filepath.Join("/proc", pid, "ns", "net")); err == nil && name != own { // it may have ended
			seen[name] = true
		}
	}
	for _, p := range processes {
		look(fmt.Sprint(p.PID))
		// What a function starts has another program.
		children, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", p.PID))
		for _, file := range children {
			text, _ := os.ReadFile(file)
			for _, child := range strings.Fields(string(text)) {
				look(child)
			}
		}
	}
	return len(seen), nil
}

// firewallElements counts what the sets of the box's firewall have.
func firewallElements(bridge string) (n int, err error) {
	conn, err := nftables.New()
	if err != nil {
		return 0, err
	}
	tables, err := conn.ListTables()
	if err != nil {
		return 0, err
	}
	for _, table := range tables {
		if !strings.Contains(table.Name, bridge) {
			continue
		}
		sets, err := conn.GetSets(table)
		if err != nil {
			return 0, err
		}
		for _, set := range sets {
			elements, err := conn.GetSetElements(set)
			if err != nil {
				return 0, err
			}
			n += len(elements)
		}
	}
	return n, nil
}

// children counts those of a process.
func children(pid string) (n int) {
	files, _ := filepath.Glob(filepath.Join("/proc", pid, "task", "*", "children"))
	for _, file := range files {
		text, _ := os.ReadFile(file) // it may be gone
		n += len(strings.Fields(string(text)))
	}
	return n
}

// snapshots counts the root filesystems that no container has. Those that were parked share theirs; layers of images come when there
// is time.
func snapshots(box *stack.Stack) (n int, err error) {
	out, err := ctr(box, "snapshots", "list")
	if err != nil {
		return 0, err
	}
	containers, err := ctr(box, "containers", "list", "-q")
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(out) {
		fields := strings.Fields(line)
		if len(fields) == 0 || fields[len(fields)-1] != "Active" {
			continue
		}
		if !slices.Contains(strings.Fields(containers), fields[0]) {
			n++
		}
	}
	return n, nil
}

// more names what there is more of than before, and counts it.
func (o owned) more(before owned) (text string, n int) {
	var all []string
	for _, name := range slices.Sorted(maps.Keys(o)) {
		if d := o[name] - before[name]; d > 0 {
			all = append(all, fmt.Sprintf("%s %d instead of %d", name, o[name], before[name]))
			n += d
		}
	}
	return strings.Join(all, ", "), n
}

// resting is true for the lease of an address that nobody has: it is not given to the next one for a while.
func resting(file string) bool {
	text, err := os.ReadFile(file)
	return err != nil || strings.HasPrefix(string(text), "resting since ")
}
