package main

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// inside is what the sandbox is like for who looks for what could be of use: everything that two containers of one function must
// have alike, whatever was there before.
func inside() string {
	var mounts, folders []string
	for line := range strings.Lines(read("/proc/self/mountinfo")) {
		f := strings.Fields(line)
		kind := f[len(f)-3]
		for i, field := range f {
			if field == "-" {
				kind = f[i+1]
			}
		}
		mounts = append(mounts, f[4]+" "+kind+" "+f[5])
	}
	for _, root := range []string{"/", "/run", "/dev", "/opt", "/var", "/etc", "/sys/fs/cgroup", "/tmp"} {
		_ = filepath.WalkDir(root, func(name string, d fs.DirEntry, err error) error {
			if err != nil {
				folders = append(folders, fmt.Sprint(name, " ", err))
				return nil
			}
			var s syscall.Stat_t
			_ = syscall.Lstat(name, &s)
			folders = append(folders, fmt.Sprintf("%s %o %d:%d", name, s.Mode, s.Uid, s.Gid))
			if d.IsDir() && (root == "/" && name != "/" || strings.Count(name, "/") > 4) {
				return fs.SkipDir
			}
			return nil
		})
	}
	text := map[string]string{}
	for _, name := range []string{
		"/proc/self/limits", "/proc/1/limits", "/proc/self/cgroup", "/proc/self/uid_map", "/proc/self/gid_map", "/proc/self/setgroups", "/proc/self/oom_score_adj",
		"/proc/1/oom_score_adj", "/proc/self/coredump_filter", "/proc/1/comm", "/proc/1/environ", "/proc/1/maps", "/proc/1/mem", "/proc/1/mountinfo",
		"/proc/meminfo", "/proc/sys/kernel/hostname", "/proc/sys/kernel/domainname", "/etc/hosts", "/etc/resolv.conf", "/etc/passwd",
		"/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.memsw.limit_in_bytes", "/sys/fs/cgroup/cpu/cpu.shares",
		"/sys/fs/cgroup/pids/pids.max", "/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.swap.max", "/sys/fs/cgroup/cpu.weight", "/sys/fs/cgroup/pids.max",
		"/sys/fs/cgroup/cpuset/cpuset.cpus",
	} {
		text[name] = read(name)
	}
	for _, process := range []string{"self", "1"} {
		for line := range strings.Lines(read("/proc/" + process + "/status")) {
			key, value, _ := strings.Cut(line, ":")
			switch key {
			case "Uid", "Gid", "Groups", "CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs", "Seccomp", "Seccomp_filters", "Umask", "Cpus_allowed":
				text["status of "+process+": "+key] = strings.TrimSpace(value)
			}
		}
		for _, link := range []string{"cwd", "root", "exe", "fd/0", "fd/3", "ns/mnt"} {
			to, err := os.Readlink("/proc/" + process + "/" + link)
			if to, _, _ = strings.Cut(to, "["); err != nil {
				to = err.Error()
			}
			text["link of "+process+": "+link] = to
		}
	}
	names := []string{}
	entries, _ := os.ReadDir("/proc")
	for _, e := range entries {
		if e.Name()[0] > '9' || e.Name() == "1" {
			names = append(names, e.Name())
		}
	}
	descriptors := map[string]string{}
	entries, _ = os.ReadDir("/proc/self/fd")
	for _, e := range entries {
		to, _ := os.Readlink("/proc/self/fd/" + e.Name())
		descriptors[e.Name()], _, _ = strings.Cut(to, "[")
	}
	writable := []string{}
	for _, dir := range []string{"/", "/dev", "/run", "/run/esb", "/run/esb/notify", "/var/task", "/opt", "/etc", "/tmp", "/proc", "/sys", "/sys/fs/cgroup", "/newroot"} {
		if write(dir+"/new") == "written" {
			writable = append(writable, dir)
			_ = os.Remove(dir + "/new")
		}
	}
	b, _ := json.Marshal(map[string]any{
		"mounts": mounts, "folders": folders, "text": text, "proc": names, "descriptors": descriptors, "env": os.Environ(), "writable": writable,
		"process 1": read("/proc/1/cmdline"),
	})
	return string(b)
}
