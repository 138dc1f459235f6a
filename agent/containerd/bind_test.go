package containerd

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/opencontainers/runtime-spec/specs-go"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/edge-serverless-box/esb/agent"
	"github.com/edge-serverless-box/esb/agent/rootmount"
)

func TestBuildSpec_Parked_IsNobodys(t *testing.T) {
	s := mustSpec(t, func(in *specInput) {
		in.parked, in.spec, in.tmpSizeMB = true, agent.ContainerSpec{Interface: agent.Supervisor}, 0
	})
	assert.Equal(t, []string{"/run/esb/lambda-init", "-park", "/run/esb/notify/bind.sock"}, s.Process.Args)
	assert.Empty(t, s.Process.Env)
	assert.Nil(t, s.Linux.Resources.Memory)
	assert.Nil(t, s.Linux.Resources.CPU)
	for _, late := range []string{"/tmp", "/proc/meminfo", "/var/task", "/opt"} {
		assert.Nil(t, mountOf(s, late), late)
	}
	plain := mustSpec(t, nil)
	assert.Equal(t, plain.Process.Capabilities, s.Process.Capabilities)
	assert.Equal(t, plain.Linux.Seccomp, s.Linux.Seccomp)
	assert.Equal(t, plain.Linux.MaskedPaths, s.Linux.MaskedPaths)
	assert.Equal(t, plain.Linux.Namespaces, s.Linux.Namespaces)
	keep := outermost(s.Mounts)
	assert.ElementsMatch(t, []string{"/proc", "/dev", "/sys", "/etc/resolv.conf", "/etc/hosts", initPath, notifyDir, logPath}, keep)
	assert.True(t, within("/sys/fs/cgroup/memory", keep))
	assert.False(t, within("/var/task", keep))
}

func TestAttributes_AreTheOptionsOfMounts(t *testing.T) {
	assert.EqualValues(t, rootmount.ReadOnly|rootmount.NoSuid|rootmount.NoDev|rootmount.NoExec, attributes(bind("/a", "/b", "nosuid", "nodev", "noexec")))
	assert.EqualValues(t, rootmount.NoDev, attributes(specs.Mount{Options: []string{"bind", "rw", "nodev"}}))
}

func TestLayers_OfAStoreThatWasMadeAgain_AreOthers(t *testing.T) {
	dir := t.TempDir()
	one, two := filepath.Join(dir, "1"), filepath.Join(dir, "2")
	for _, d := range []string{one, two} {
		require.NoError(t, os.Mkdir(d, 0o755))
	}
	l := layersOf(mount.Mount{Options: []string{"index=off", "lowerdir=" + two + ":" + one}})
	assert.True(t, l.unchanged())
	require.NoError(t, os.WriteFile(filepath.Join(one, "file"), nil, 0o644))
	assert.True(t, l.unchanged())
	require.NoError(t, os.Rename(one, one+"-old"))
	assert.False(t, l.unchanged())
	require.NoError(t, os.Mkdir(one, 0o755))
	assert.False(t, l.unchanged(), "it has its name alone")
}
