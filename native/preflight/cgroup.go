package preflight

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/edge-serverless-box/esb/native"
)

// controllers that limit a function (memory, CPU, processes). The freezer is part of cgroup v2's core and a controller
// of its own in v1.
var (
	controllersV2 = []string{"memory", "cpu", "pids"}
	controllersV1 = []string{"memory", "cpu", "pids", "freezer"}
)

// checkCgroups looks for the controllers as the agent will find them: in the unified hierarchy when that is mounted at
// mount (cgroup v2), else in hierarchies of their own (v1, also in the hybrid layout of systemd).
func checkCgroups(mountinfo, mount string) []error {
	if data, err := os.ReadFile(filepath.Join(mount, "cgroup.controllers")); err == nil {
		available := strings.Fields(string(data))
		return lackingControllers(available, controllersV2, mount+"/cgroup.controllers",
			"Boot with the controllers on (a container: give it its own cgroup namespace with the controllers delegated).")
	}
	data, err := os.ReadFile(mountinfo)
	if err != nil {
		return []error{fmt.Errorf("look for cgroups: %w", err)}
	}
	return lackingControllers(v1Controllers(string(data)), controllersV1, mountinfo,
		"Mount them (Debian: apt-get install cgroupfs-mount; or boot with systemd), or boot with cgroup v2.")
}

// v1Controllers reads the controllers that are mounted as cgroup v1 from /proc/<pid>/mountinfo (proc(5)): the super
// options of mounts of type cgroup, which stand after the separator "-".
func v1Controllers(mountinfo string) []string {
	var found []string
	for line := range strings.Lines(mountinfo) {
		_, tail, ok := strings.Cut(line, " - ")
		fields := strings.Fields(tail)
		if ok && len(fields) >= 3 && fields[0] == "cgroup" {
			found = append(found, strings.Split(fields[2], ",")...)
		}
	}
	return found
}

func lackingControllers(available, needed []string, source, do string) []error {
	var lacking []string
	for _, c := range needed {
		if !slices.Contains(available, c) {
			lacking = append(lacking, c)
		}
	}
	if len(lacking) == 0 {
		return nil
	}
	return []error{&native.Problem{
		What: fmt.Sprintf("cgroup controllers are missing: %s (looked in %s)", strings.Join(lacking, ", "), source),
		Do:   do,
	}}
}
