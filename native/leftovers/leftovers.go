// Package leftovers finds what a stack has made on the machine and has not removed: `down` proves with it that nothing
// is left, and names what is.
package leftovers

import (
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/google/nftables"

	"github.com/edge-serverless-box/esb/guard/netstate"
	"github.com/edge-serverless-box/esb/native/process"
)

// programs whose processes can belong to a stack.
var programs = []string{
	"agent", "gateway", "containerd", "containerd-shim-runc-v2", "runc",
	"stores", "victoria-logs", "versitygw", "dynoxide", "registry",
}

// Scope says how to recognise a stack's things.
type Scope struct {
	// Home and RunDir are its folders.
	Home, RunDir string
	// BinDir is where its binaries are. Of one that is a link, those count, too, that are beside the folder that it leads to: releases
	// of an installation, which the link has led to or will lead to.
	BinDir string
	// Bridge names its bridge, firewall table and cgroup. Empty: do not look for them.
	Bridge string
	// Veths are the links that were plugged into its bridge.
	Veths []Veth
}

// Veth is one end of a pair, on the host's side.
type Veth struct {
	Name  string
	Index int
}

// Kind of a leftover.
type Kind string

// Kinds of leftovers.
const (
	Process  Kind = "process"
	Mount    Kind = "mount"
	Disk     Kind = "disk of a function's /tmp"
	Link     Kind = "network link"
	Cgroup   Kind = "cgroup"
	Firewall Kind = "firewall table"
	Lease    Kind = "address lease"
)

// Item is one thing that is left.
type Item struct {
	Kind Kind
	Name string
	// PID and Program of a process.
	PID     int
	Program string
}

// String says what is left, for a person.
func (i Item) String() string { return string(i.Kind) + " " + i.Name }

// Find lists everything of the stack that is there now. Network namespaces show up as the mounts that pin them.
func Find(s Scope) ([]Item, error) {
	var items []Item
	for _, find := range []func(Scope) ([]Item, error){processes, mounts, disks, links, cgroups, firewall, leases} {
		found, err := find(s)
		if err != nil {
			return nil, err
		}
		items = append(items, found...)
	}
	return items, nil
}

// Ports lists the veth links that are plugged into a bridge.
func Ports(bridge string) ([]Veth, error) {
	links, err := netstate.Links()
	if err != nil {
		return nil, err
	}
	master := -1
	for _, l := range links {
		if l.Attrs().Name == bridge {
			master = l.Attrs().Index
		}
	}
	var ports []Veth
	for _, l := range links {
		if l.Attrs().MasterIndex == master && l.Type() == "veth" {
			ports = append(ports, Veth{Name: l.Attrs().Name, Index: l.Attrs().Index})
		}
	}
	return ports, nil
}

func processes(s Scope) ([]Item, error) {
	all, err := process.All()
	if err != nil {
		return nil, err
	}
	_, err = os.Readlink(s.BinDir)
	installed := err == nil
	var items []Item
	for _, p := range all {
		if p.PID != os.Getpid() && s.owns(p, installed) {
			items = append(items, Item{Kind: Process, Name: fmt.Sprintf("%d (%s)", p.PID, strings.Join(p.Args, " ")), PID: p.PID, Program: p.Exe})
		}
	}
	return items, nil
}

// owns is true for a process of the stack: it runs one of its programs from its folder, and its environment or command
// line names this stack and not another one that shares the binaries.
func (s Scope) owns(p process.Info, installed bool) bool {
	dir := filepath.Dir(p.Exe)
	if dir != s.BinDir && (!installed || filepath.Dir(dir) != filepath.Dir(s.BinDir)) || !slices.Contains(programs, filepath.Base(p.Exe)) {
		return false
	}
	if slices.Contains(p.Env, "ESB_HOME="+s.Home) {
		return true
	}
	return slices.ContainsFunc(p.Args, func(arg string) bool {
		_, value, _ := strings.Cut(arg, "=")
		return within(arg, s.Home) || within(arg, s.RunDir) || within(value, s.Home) || within(value, s.RunDir)
	})
}

// within is true for dir itself and everything below it.
func within(path, dir string) bool {
	return dir != "" && (path == dir || strings.HasPrefix(path, dir+"/"))
}

func mounts(s Scope) ([]Item, error) {
	data, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, fmt.Errorf("list mounts: %w", err)
	}
	var items []Item
	for _, point := range mountPoints(string(data)) {
		// A home that is a mount of its own is the machine's, not the stack's.
		if (within(point, s.Home) && point != s.Home) || within(point, s.RunDir) {
			items = append(items, Item{Kind: Mount, Name: point})
		}
	}
	return items, nil
}

// disks are loop devices of files in the home. Their files have no name any more, which the kernel says behind the one that
// they had; a device that is free meanwhile has none.
func disks(s Scope) ([]Item, error) {
	files, err := filepath.Glob("/sys/block/loop*/loop/backing_file")
	if err != nil {
		return nil, fmt.Errorf("list loop devices: %w", err)
	}
	var items []Item
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			continue
		}
		if within(strings.TrimSpace(string(text)), filepath.Join(s.Home, "tmp")) {
			items = append(items, Item{Kind: Disk, Name: "/dev/" + strings.Split(file, "/")[3]})
		}
	}
	return items, nil
}

// mountPoints reads field 5 of /proc/<pid>/mountinfo, in which blanks and the like are octal escapes (proc(5)).
func mountPoints(mountinfo string) []string {
	unescape := strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`)
	var points []string
	for line := range strings.Lines(mountinfo) {
		if fields := strings.Fields(line); len(fields) > 4 {
			points = append(points, unescape.Replace(fields[4]))
		}
	}
	return points
}

func links(s Scope) ([]Item, error) {
	if s.Bridge == "" {
		return nil, nil
	}
	all, err := netstate.Links()
	if err != nil {
		return nil, err
	}
	var items []Item
	for _, l := range all {
		attrs := l.Attrs()
		if attrs.Name == s.Bridge || slices.Contains(s.Veths, Veth{Name: attrs.Name, Index: attrs.Index}) {
			items = append(items, Item{Kind: Link, Name: attrs.Name})
		}
	}
	return items, nil
}

func cgroups(s Scope) ([]Item, error) {
	if s.Bridge == "" {
		return nil, nil
	}
	var items []Item
	// cgroup v2 has one tree; v1 one a controller.
	for _, pattern := range []string{"/sys/fs/cgroup/esb-" + s.Bridge, "/sys/fs/cgroup/*/esb-" + s.Bridge} {
		found, err := filepath.Glob(pattern)
		if err != nil {
			return nil, fmt.Errorf("list cgroups: %w", err)
		}
		for _, path := range found {
			// /sys/fs/cgroup has links such as cpu -> cpu,cpuacct.
			if real, err := filepath.EvalSymlinks(path); err == nil && real == path {
				items = append(items, Item{Kind: Cgroup, Name: path})
			}
		}
	}
	return items, nil
}

func firewall(s Scope) ([]Item, error) {
	if s.Bridge == "" {
		return nil, nil
	}
	conn, err := nftables.New()
	if err != nil {
		return nil, fmt.Errorf("ask for the firewall's tables: %w", err)
	}
	tables, err := conn.ListTables()
	if err != nil {
		return nil, fmt.Errorf("list the firewall's tables: %w", err)
	}
	var items []Item
	for _, t := range tables {
		if t.Name == "esb_"+s.Bridge {
			items = append(items, Item{Kind: Firewall, Name: t.Name})
		}
	}
	return items, nil
}

// leases finds the files of CNI's host-local below folders called leases: their names are the addresses.
func leases(s Scope) ([]Item, error) {
	var items []Item
	for _, root := range []string{s.Home, s.RunDir} {
		for _, pattern := range []string{"leases/*/*", "*/leases/*/*"} {
			files, err := filepath.Glob(filepath.Join(root, pattern))
			if err != nil {
				return nil, fmt.Errorf("list address leases: %w", err)
			}
			for _, file := range files {
				info, err := os.Lstat(file)
				if _, isAddr := netip.ParseAddr(filepath.Base(file)); err == nil && isAddr == nil && info.Mode()&fs.ModeType == 0 {
					items = append(items, Item{Kind: Lease, Name: filepath.Base(file)})
				}
			}
		}
	}
	return items, nil
}
