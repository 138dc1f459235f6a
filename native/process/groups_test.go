package process

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const (
	mountsHybrid = `30 25 0:26 / /sys/fs/cgroup rw - tmpfs tmpfs rw
31 30 0:27 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw,nsdelegate
32 30 0:28 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd
33 30 0:29 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct
34 30 0:30 /docker/x /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory
`
	mountsUnified = "30 25 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n"
)

func TestGroupsIn(t *testing.T) {
	for name, tt := range map[string]struct {
		mounts, own, theirs string
		want                Groups
		wrong               string
	}{
		"v2": {mountsUnified, "0::/user.slice/user-0.slice/session-3.scope\n", "0::/system.slice/esb.service\n", Groups{unified: "/sys/fs/cgroup/system.slice/esb.service"}, ""},
		"hybrid": {
			mountsHybrid, "12:memory:/docker/x/a\n4:cpu,cpuacct:/\n1:name=systemd:/user.slice\n0::/user.slice\n",
			"12:memory:/docker/x/b\n4:cpu,cpuacct:/\n1:name=systemd:/system.slice/esb.service\n0::/system.slice/esb.service\n",
			Groups{unified: "/sys/fs/cgroup/unified/system.slice/esb.service", v1: []string{"/sys/fs/cgroup/memory/b", "/sys/fs/cgroup/systemd/system.slice/esb.service"}}, "",
		},
		"the same":       {mountsUnified, "0::/a\n", "0::/a\n", Groups{}, ""},
		"out of sight":   {mountsHybrid, "12:memory:/docker/x\n", "12:memory:/docker/xy\n", Groups{}, "12:memory:/docker/xy is mounted nowhere"},
		"not mounted":    {mountsUnified, "", "3:pids:/a\n", Groups{}, "mounted nowhere"},
		"namespace":      {mountsUnified, "0::/\n", "0::/../other\n", Groups{}, "mounted nowhere"},
		"nothing of use": {mountsUnified, "", "x\n", Groups{}, "no line of"},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := groupsIn(tt.mounts, tt.own, tt.theirs)
			if tt.wrong != "" {
				require.ErrorContains(t, err, tt.wrong)
				return
			}
			require.NoError(t, err)
			assert.Equal(t, tt.want, got)
		})
	}
}

// mustGroup starts a process in groups of its own, in all hierarchies that this machine lets this test have.
func mustGroup(t *testing.T) (pid int, lines []string) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: it makes control groups")
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	require.NoError(t, err)
	own, err := os.ReadFile("/proc/self/cgroup")
	require.NoError(t, err)
	cmd := exec.Command("/bin/sleep", "300")
	require.NoError(t, cmd.Start())
	var dirs []string
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		for _, dir := range dirs {
			assert.NoError(t, os.Remove(dir))
		}
	})
	for line := range strings.Lines(string(own)) {
		fields := strings.SplitN(strings.TrimSuffix(line, "\n"), ":", 3)
		if fields[1] != "" && fields[1] != "freezer" && fields[1] != "pids" && fields[1] != "name=systemd" {
			continue // a group of cpuset, for example, takes nobody as it is made
		}
		name := fmt.Sprintf("esb-test-%d", cmd.Process.Pid)
		dir := filepath.Join(mountOf(string(mounts), fields[1], fields[2]), name)
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Logf("%s: %v", dir, err)
			continue
		}
		dirs = append(dirs, dir)
		require.NoError(t, os.WriteFile(filepath.Join(dir, "cgroup.procs"), fmt.Append(nil, cmd.Process.Pid), 0))
		lines = append(lines, fields[0]+":"+fields[1]+":"+filepath.Join(fields[2], name))
	}
	require.NotEmpty(t, lines)
	return cmd.Process.Pid, lines
}

func TestGroupsStart_IsInTheGroupsOfTheOther(t *testing.T) {
	pid, lines := mustGroup(t)
	g, err := GroupsOf(pid)
	require.NoError(t, err)
	before, err := os.ReadFile("/proc/self/cgroup")
	require.NoError(t, err)
	var out bytes.Buffer
	cmd := exec.Command("/bin/cat", "/proc/self/cgroup")
	cmd.Stdout = &out
	require.NoError(t, g.Start(cmd))
	require.NoError(t, cmd.Wait())
	for _, line := range lines {
		assert.Contains(t, out.String(), line+"\n")
	}
	after, err := os.ReadFile("/proc/self/cgroup")
	require.NoError(t, err)
	assert.Equal(t, string(before), string(after), "this process stays where it is")
}
