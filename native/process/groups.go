package process

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/edge-serverless-box/esb/guard/ownthread"
)

// Groups are the control groups that a process is in, as folders: whoever ends a login session, or a unit of systemd, ends all that is in the
// groups of that.
type Groups struct {
	// unified is that of cgroup v2, "" without one; v1 those of the hierarchies of version 1.
	unified string
	v1      []string
}

// GroupsOf returns the control groups of a process in which this one is not (cgroups(7)).
func GroupsOf(pid int) (Groups, error) {
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return Groups{}, fmt.Errorf("find the control groups: %w", err)
	}
	own, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return Groups{}, fmt.Errorf("find the control groups of this process: %w", err)
	}
	theirs, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
	if err != nil {
		return Groups{}, fmt.Errorf("find the control groups of process %d: %w", pid, err)
	}
	return groupsIn(string(mounts), string(own), string(theirs))
}

// groupsIn finds the folders of the groups that theirs, of the form of /proc/PID/cgroup, has, and own has not.
func groupsIn(mounts, own, theirs string) (Groups, error) {
	var g Groups
	for line := range strings.Lines(theirs) {
		line = strings.TrimSuffix(line, "\n")
		if slices.Contains(strings.Split(own, "\n"), line) {
			continue
		}
		// "4:memory:/path", "9:name=systemd:/path", or "0::/path" of the unified hierarchy.
		fields := strings.SplitN(line, ":", 3)
		if len(fields) != 3 {
			return Groups{}, fmt.Errorf("find the control groups: %q is no line of /proc/PID/cgroup", line)
		}
		dir := mountOf(mounts, fields[1], fields[2])
		switch {
		case dir == "":
			return Groups{}, fmt.Errorf("find the control groups: %s is mounted nowhere", line)
		case fields[1] == "":
			g.unified = dir
		default:
			g.v1 = append(g.v1, dir)
		}
	}
	return g, nil
}

// mountOf is the folder of a group of a hierarchy, "" when that cannot be seen: controllers are those of version 1, none is the unified one.
func mountOf(mounts, controllers, group string) string {
	for line := range strings.Lines(mounts) {
		own, of, ok := strings.Cut(strings.TrimSuffix(line, "\n"), " - ")
		fields, kind := strings.Fields(own), strings.Fields(of)
		if !ok || len(fields) < 5 || len(kind) < 3 {
			continue
		}
		root, point := fields[3], fields[4]
		if controllers == "" && kind[0] != "cgroup2" || controllers != "" && (kind[0] != "cgroup" || !hasAll(strings.Split(kind[2], ","), controllers)) {
			continue
		}
		// A group outside of this process's cgroup namespace begins with "/..".
		below, ok := strings.CutPrefix(group, strings.TrimSuffix(root, "/"))
		if ok && (below == "" || below[0] == '/') && !strings.HasPrefix(below, "/..") {
			return filepath.Join(point, below)
		}
	}
	return ""
}

func hasAll(options []string, controllers string) bool {
	for c := range strings.SplitSeq(controllers, ",") {
		if !slices.Contains(options, c) {
			return false
		}
	}
	return true
}

// Start starts a command in the groups, and nowhere else before.
func (g Groups) Start(cmd *exec.Cmd) error {
	if g.unified != "" {
		dir, err := os.Open(g.unified)
		if err != nil {
			return fmt.Errorf("start %s in a control group: %w", cmd.Path, err)
		}
		defer func() { _ = dir.Close() }()
		if cmd.SysProcAttr == nil {
			cmd.SysProcAttr = &syscall.SysProcAttr{}
		}
		cmd.SysProcAttr.UseCgroupFD, cmd.SysProcAttr.CgroupFD = true, int(dir.Fd())
	}
	// In version 1 each thread has groups of its own, and its children begin in them.
	err := ownthread.Do(func() error {
		var errs []error
		for _, dir := range g.v1 {
			errs = append(errs, os.WriteFile(filepath.Join(dir, "tasks"), fmt.Appendf(nil, "%d", unix.Gettid()), 0))
		}
		if err := errors.Join(errs...); err != nil {
			return err
		}
		return cmd.Start()
	})
	if err != nil {
		return fmt.Errorf("start %s in the control groups of another process: %w", cmd.Path, err)
	}
	return nil
}
