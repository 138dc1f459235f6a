// Package cgroup reads and writes the control files of function containers, on cgroup v1 (legacy and hybrid) and on
// cgroup v2. runc puts the processes in and takes the folders away; this package does what runc has no call for or
// is too slow at: freezing, the CPU quota after the init phase, counters, and leftovers.
package cgroup

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const (
	// memoryPerCPU is the memory, in MB, that comes with one whole CPU (AWS: 1769 MB = 1 vCPU, Lambda developer
	// guide, "Configure Lambda function memory").
	memoryPerCPU = 1769
	// quotaPeriod is the CPU quota's period in microseconds.
	quotaPeriod = 100_000
	// minQuota is the least quota that the kernel accepts, in microseconds.
	minQuota = 1000
	// minShares is the least value of cpu.shares that the kernel accepts.
	minShares = 2
	// sharesPerCPU is what cpu.shares is for one CPU by convention.
	sharesPerCPU = 1024
)

// controllers are what the agent needs; in a v1 system each is a hierarchy of its own.
var (
	controllersV1 = []string{"memory", "cpu", "cpuacct", "pids", "freezer"}
	controllersV2 = []string{"memory", "cpu", "pids"}
)

// shownV1 are the hierarchies that a container is shown, by the names under which programs look for them. The JVM reads
// limits when it finds the first four, and none otherwise (OpenJDK, CgroupSubsystemFactory).
var shownV1 = []string{"memory", "cpu", "cpuacct", "cpuset", "pids"}

// Hierarchy is the agent's part of the cgroup tree: one parent group, below it one group a container.
type Hierarchy struct {
	root    string
	parent  string
	unified bool
	swap    bool
	// trees are the folders of all hierarchies: one on v2; on v1 one a controller, those that only runc uses included.
	trees []string
}

// Stats is one reading of a container's counters.
type Stats struct {
	MemoryBytes      uint64
	MemoryPeakBytes  uint64
	MemoryLimitBytes uint64 // 0: no limit
	CPUNanoseconds   uint64
	ThrottledPeriods uint64
	OOMKills         uint64
	PIDs             uint64
}

// Quota returns the CPU quota, in microseconds of each 100 ms, that comes with memoryMB.
func Quota(memoryMB int) int64 {
	return max(int64(memoryMB)*quotaPeriod/memoryPerCPU, minQuota)
}

// Shares returns the CPU shares that come with memoryMB: how CPU is divided when there is not enough for all.
func Shares(memoryMB int) uint64 {
	return max(uint64(memoryMB)*sharesPerCPU/memoryPerCPU, minShares)
}

// Open prepares the group parent below root (usually /sys/fs/cgroup). It fails when a controller is missing, and
// says which.
func Open(root, parent string) (*Hierarchy, error) {
	h := &Hierarchy{root: root, parent: parent}
	if _, err := os.Stat(filepath.Join(root, "cgroup.controllers")); err == nil {
		h.unified = true
		h.trees = []string{root}
		return h, h.openV2()
	}
	return h, h.openV1()
}

func (h *Hierarchy) openV1() error {
	for _, c := range controllersV1 {
		if _, err := os.Stat(filepath.Join(h.root, c, "cgroup.procs")); err != nil {
			return fmt.Errorf("no cgroup controller %q below %s: mount it (mount -t cgroup -o %s cgroup %s) or boot with cgroup v2: %w",
				c, h.root, c, filepath.Join(h.root, c), err)
		}
	}
	entries, err := os.ReadDir(h.root)
	if err != nil {
		return fmt.Errorf("read the cgroup hierarchies: %w", err)
	}
	for _, e := range entries {
		// Symbolic links (cpu -> cpu,cpuacct) lead to a hierarchy that is listed anyway.
		if e.IsDir() {
			h.trees = append(h.trees, filepath.Join(h.root, e.Name()))
		}
	}
	for _, c := range controllersV1 {
		if err := mkdir(filepath.Join(h.root, c, h.parent)); err != nil {
			return err
		}
	}
	// For SetWeight; runc makes it with the first container else.
	if _, err := os.Stat(filepath.Join(h.root, "blkio", "cgroup.procs")); err == nil {
		if err := mkdir(filepath.Join(h.root, "blkio", h.parent)); err != nil {
			return err
		}
	}
	_, err = os.Stat(filepath.Join(h.root, "memory", h.parent, "memory.memsw.limit_in_bytes"))
	h.swap = err == nil
	return nil
}

func (h *Hierarchy) openV2() error {
	have, err := os.ReadFile(filepath.Join(h.root, "cgroup.controllers"))
	if err != nil {
		return fmt.Errorf("read the cgroup controllers: %w", err)
	}
	for _, c := range controllersV2 {
		if !slices.Contains(strings.Fields(string(have)), c) {
			return fmt.Errorf("no cgroup controller %q in %s/cgroup.controllers: enable it in the kernel, or delegate it to this container", c, h.root)
		}
	}
	dir := filepath.Join(h.root, h.parent)
	if err := mkdir(dir); err != nil {
		return err
	}
	enable := []byte("+" + strings.Join(controllersV2, " +"))
	for _, d := range []string{h.root, dir} {
		if err := os.WriteFile(filepath.Join(d, "cgroup.subtree_control"), enable, 0o644); err != nil {
			return fmt.Errorf("enable the cgroup controllers %s in %s: when processes are in it, as in a container with a cgroup namespace of its own, move them to a child group first: %w",
				strings.Join(controllersV2, ", "), d, err)
		}
	}
	// The parent itself has the files that its children will have.
	_, err = os.Stat(filepath.Join(dir, "memory.swap.max"))
	h.swap = err == nil
	return nil
}

// SetWeight says how much all containers together count against everything else on the machine that wants the CPU or the disk
// at the same time, which has 100 each. It takes nothing from them while there is enough. A kernel without weights of
// disks is no error.
func (h *Hierarchy) SetWeight(weight int) error {
	file, value := filepath.Join(h.dir("cpu", ""), "cpu.shares"), strconv.Itoa(max(weight*sharesPerCPU/100, minShares))
	if h.unified {
		file, value = filepath.Join(h.dir("", ""), "cpu.weight"), strconv.Itoa(weight)
	}
	if err := write(file, value); err != nil {
		return fmt.Errorf("set the CPU weight of all functions: %w", err)
	}
	return h.setDiskWeight(weight)
}

func (h *Hierarchy) setDiskWeight(weight int) error {
	if h.unified {
		// The parent group alone has to have it. It is refused where it is not delegated.
		_ = write(filepath.Join(h.root, "cgroup.subtree_control"), "+io")
	}
	bfq := strconv.Itoa(min(weight, 1000))
	for _, f := range []struct{ controller, name, value string }{
		{"blkio", "blkio.bfq.weight", bfq},
		{"blkio", "blkio.weight", strconv.Itoa(min(max(weight*5, 10), 1000))}, // has 500 in place of 100
		{"", "io.bfq.weight", bfq},
		{"", "io.weight", "default " + strconv.Itoa(weight)},
	} {
		if h.unified != (f.controller == "") {
			continue
		}
		if err := write(filepath.Join(h.dir(f.controller, ""), f.name), f.value); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("set the disk weight of all functions: %w", err)
		}
	}
	return nil
}

// LimitsSwap says whether the kernel can limit swap: then a memory limit must limit it too.
func (h *Hierarchy) LimitsSwap() bool { return h.swap }

// Path returns the group of a container as runc wants it, relative to the root.
func (h *Hierarchy) Path(id string) string { return "/" + h.parent + "/" + id }

// Has says whether a process is in the group of a container, by what its file /proc/<pid>/cgroup says.
func (h *Hierarchy) Has(id, groups string) bool {
	for line := range strings.Lines(groups) {
		// An agent in a container may see more in front of it.
		if strings.HasSuffix(strings.TrimSuffix(line, "\n"), h.Path(id)) {
			return true
		}
	}
	return false
}

// Folder is one of a container's groups: Host is its folder on the machine, Name what it is called below the folder where
// cgroups are looked for, empty when it is that folder itself (v2).
type Folder struct{ Host, Name string }

// Create makes those groups of a container ahead of runc that it is shown, so that they can be mounted into it.
func (h *Hierarchy) Create(id string) ([]Folder, error) {
	if h.unified {
		dir := h.dir("", id)
		return []Folder{{Host: dir}}, mkdir(dir)
	}
	var folders []Folder
	for _, c := range shownV1 {
		if _, err := os.Stat(filepath.Join(h.root, c)); err != nil {
			continue // Open has found those that the agent needs
		}
		dir := h.dir(c, id)
		if err := mkdir(dir); err != nil {
			return nil, err
		}
		folders = append(folders, Folder{Host: dir, Name: c})
	}
	return folders, nil
}

// SetQuota limits a container to the CPU time that comes with memoryMB.
func (h *Hierarchy) SetQuota(id string, memoryMB int) error {
	quota := strconv.FormatInt(Quota(memoryMB), 10)
	return h.limit(id, quota, quota)
}

// LiftQuota lets a container have all the CPU time that nobody else asks for: its shares hold on.
func (h *Hierarchy) LiftQuota(id string) error { return h.limit(id, "max", "-1") }

// limit sets the quota of the CPU, in the words of either version of cgroups.
func (h *Hierarchy) limit(id, v2, v1 string) error {
	period := strconv.Itoa(quotaPeriod)
	var err error
	if h.unified {
		err = write(filepath.Join(h.dir("", id), "cpu.max"), v2+" "+period)
	} else {
		dir := h.dir("cpu", id)
		if err = write(filepath.Join(dir, "cpu.cfs_period_us"), period); err == nil {
			err = write(filepath.Join(dir, "cpu.cfs_quota_us"), v1)
		}
	}
	if err != nil {
		return fmt.Errorf("set the CPU quota of %s: %w", id, err)
	}
	return nil
}

// SetLimits gives a container that was made without them memory, without swap where that is limited, and its CPU shares, as runc
// does for one that is made with them.
func (h *Hierarchy) SetLimits(id string, memoryMB int) error {
	limit, shares := strconv.FormatInt(int64(memoryMB)<<20, 10), Shares(memoryMB)
	files := []struct{ controller, name, value string }{
		{"memory", "memory.limit_in_bytes", limit},
		{"memory", "memory.memsw.limit_in_bytes", limit}, // with swap; it is never less than the other
		{"cpu", "cpu.shares", strconv.FormatUint(shares, 10)},
	}
	if h.unified {
		files = []struct{ controller, name, value string }{
			{"", "memory.max", limit}, {"", "memory.swap.max", "0"}, {"", "cpu.weight", strconv.FormatUint(weight(shares), 10)},
		}
	}
	for _, f := range files {
		if strings.Contains(f.name, "sw") && !h.swap {
			continue
		}
		if err := write(filepath.Join(h.dir(f.controller, id), f.name), f.value); err != nil {
			return fmt.Errorf("set the limits of %s: %s: %w", id, f.name, err)
		}
	}
	return nil
}

// weight is what shares of cgroup v1 are on v2: between the least, the usual and the largest of both by the curve that runc has
// (opencontainers/cgroups v0.1.0, ConvertCPUSharesToCgroupV2Value).
func weight(shares uint64) uint64 {
	switch {
	case shares <= minShares:
		return 1
	case shares >= 1<<18:
		return 10_000
	}
	l := math.Log2(float64(shares))
	return uint64(math.Ceil(math.Pow(10, (l*l+125*l)/612-7.0/34)))
}

// Freeze stops every process of a container. It does not wait until the last one stands still: that takes up to some
// milliseconds, and nothing depends on it.
func (h *Hierarchy) Freeze(id string) error { return h.setFrozen(id, true) }

// Thaw lets the processes of a container run again.
func (h *Hierarchy) Thaw(id string) error { return h.setFrozen(id, false) }

func (h *Hierarchy) setFrozen(id string, frozen bool) error {
	file, value := h.freezer(id)
	v := value[0]
	if frozen {
		v = value[1]
	}
	if err := write(file, v); err != nil {
		return fmt.Errorf("write %s to the freezer of %s: %w", v, id, err)
	}
	return nil
}

// ShareThaw lets a user write the file that thaws a container, and returns its path and what is to be written.
func (h *Hierarchy) ShareThaw(id string, uid int) (path, text string, err error) {
	path, value := h.freezer(id)
	if err := os.Chown(path, uid, -1); err != nil {
		return "", "", fmt.Errorf("let user %d thaw %s: %w", uid, id, err)
	}
	return path, value[0], nil
}

// takeThaw ends what ShareThaw gave: its user could freeze what is to end.
func (h *Hierarchy) takeThaw(id string) error {
	path, _ := h.freezer(id)
	return os.Chown(path, 0, -1)
}

// Frozen says whether a container is frozen or being frozen. The error is fs.ErrNotExist when its group is gone.
func (h *Hierarchy) Frozen(id string) (bool, error) {
	file, value := h.freezer(id)
	b, err := os.ReadFile(file)
	if err != nil {
		return false, err
	}
	return strings.TrimSpace(string(b)) != value[0], nil
}

// freezer returns the control file and its values for thawed and frozen.
func (h *Hierarchy) freezer(id string) (file string, value [2]string) {
	if h.unified {
		return filepath.Join(h.dir("", id), "cgroup.freeze"), [2]string{"0", "1"}
	}
	return filepath.Join(h.dir("freezer", id), "freezer.state"), [2]string{"THAWED", "FROZEN"}
}

// Stats reads the counters of a container. The error is fs.ErrNotExist when its group is gone.
func (h *Hierarchy) Stats(id string) (Stats, error) {
	if h.unified {
		return h.statsV2(id)
	}
	return h.statsV1(id)
}

func (h *Hierarchy) statsV1(id string) (Stats, error) {
	var s Stats
	var r reader
	mem := h.dir("memory", id)
	s.MemoryBytes = r.number(mem, "memory.usage_in_bytes")
	s.MemoryPeakBytes = r.number(mem, "memory.max_usage_in_bytes")
	s.MemoryLimitBytes = r.number(mem, "memory.limit_in_bytes")
	if s.MemoryLimitBytes >= 1<<62 { // v1 says "no limit" with the largest page-aligned number
		s.MemoryLimitBytes = 0
	}
	s.OOMKills = r.field(mem, "memory.oom_control", "oom_kill")
	s.CPUNanoseconds = r.number(h.dir("cpuacct", id), "cpuacct.usage")
	s.ThrottledPeriods = r.field(h.dir("cpu", id), "cpu.stat", "nr_throttled")
	s.PIDs = r.number(h.dir("pids", id), "pids.current")
	return s, r.err
}

func (h *Hierarchy) statsV2(id string) (Stats, error) {
	var s Stats
	var r reader
	dir := h.dir("", id)
	s.MemoryBytes = r.number(dir, "memory.current")
	s.MemoryLimitBytes = r.number(dir, "memory.max")
	s.OOMKills = r.field(dir, "memory.events", "oom_kill")
	s.CPUNanoseconds = r.field(dir, "cpu.stat", "usage_usec") * 1000
	s.ThrottledPeriods = r.field(dir, "cpu.stat", "nr_throttled")
	s.PIDs = r.number(dir, "pids.current")
	// memory.peak came with Linux 5.19.
	var peak reader
	s.MemoryPeakBytes = max(peak.number(dir, "memory.peak"), s.MemoryBytes)
	return s, r.err
}

// Processes returns how many processes a container has. The error is fs.ErrNotExist when its group is gone.
func (h *Hierarchy) Processes(id string) (int, error) {
	b, err := os.ReadFile(filepath.Join(h.dir("memory", id), "cgroup.procs"))
	if err != nil {
		return 0, err
	}
	return len(strings.Fields(string(b))), nil
}

// PIDs lists a container's processes, by their numbers here. The error is fs.ErrNotExist when its group is gone.
func (h *Hierarchy) PIDs(id string) ([]int, error) { return pids(h.dir("pids", id)) }

// IDs lists the containers that have a group.
func (h *Hierarchy) IDs() ([]string, error) {
	var ids []string
	for _, tree := range h.trees {
		entries, err := os.ReadDir(filepath.Join(tree, h.parent))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("list the cgroups: %w", err)
		}
		for _, e := range entries {
			if e.IsDir() && !slices.Contains(ids, e.Name()) {
				ids = append(ids, e.Name())
			}
		}
	}
	return ids, nil
}

// dir returns the folder of a container in the hierarchy of controller.
func (h *Hierarchy) dir(controller, id string) string {
	if h.unified {
		controller = ""
	}
	return filepath.Join(h.root, controller, h.parent, id)
}

func mkdir(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("make cgroup: %w", err)
	}
	return nil
}

// write writes a control file, which must exist: creating one would hide that the group is gone.
func write(file, value string) error {
	f, err := os.OpenFile(file, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(value)
	if errors.Is(err, syscall.ENODEV) {
		err = fs.ErrNotExist // the group went between opening and writing
	}
	return errors.Join(err, f.Close())
}

// reader reads control files and keeps the first error.
type reader struct{ err error }

func (r *reader) read(dir, file string) string {
	b, err := os.ReadFile(filepath.Join(dir, file))
	if err != nil && r.err == nil {
		r.err = err
	}
	return string(b)
}

// number reads a file with one number; "max" is 0.
func (r *reader) number(dir, file string) uint64 {
	return r.parse(file, strings.TrimSpace(r.read(dir, file)))
}

// field reads one value of a file with "key value" lines; a missing key is 0.
func (r *reader) field(dir, file, key string) uint64 {
	lines := bufio.NewScanner(strings.NewReader(r.read(dir, file)))
	for lines.Scan() {
		if k, v, ok := strings.Cut(lines.Text(), " "); ok && k == key {
			return r.parse(file, v)
		}
	}
	return 0
}

func (r *reader) parse(file, s string) uint64 {
	if s == "" || s == "max" {
		return 0
	}
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil && r.err == nil {
		r.err = fmt.Errorf("%s: %w", file, err)
	}
	return n
}

// CPUUsed returns the CPU time that all containers together have used.
func (h *Hierarchy) CPUUsed() (time.Duration, error) {
	var r reader
	var used uint64
	if h.unified {
		used = r.field(h.dir("", ""), "cpu.stat", "usage_usec") * 1000
	} else {
		used = r.number(h.dir("cpuacct", ""), "cpuacct.usage")
	}
	if r.err != nil {
		return 0, fmt.Errorf("read the CPU time of all functions: %w", r.err)
	}
	return time.Duration(used), nil
}
