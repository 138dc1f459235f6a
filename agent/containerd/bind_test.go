package containerd

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/containerd/containerd/v2/core/containers"
	"github.com/opencontainers/runtime-spec/specs-go"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/edge-serverless-box/esb/agent"
	"github.com/edge-serverless-box/esb/agent/cgroup"
	"github.com/edge-serverless-box/esb/agent/rootmount"
)

func TestBuildSpec_Parked_IsNobodys(t *testing.T) {
	s := mustSpec(t, func(in *specInput) {
		in.parked, in.spec, in.tmpSizeMB = true, agent.ContainerSpec{Interface: agent.Supervisor}, 0
	})
	assert.Equal(t, []string{"/run/esb/lambda-init", "-park", "/run/esb/notify/bind.sock"}, s.Process.Args)
	assert.Empty(t, s.Process.Env)
	assert.Nil(t, s.Linux.Resources.Memory)
	assert.Equal(t, cgroup.Shares(128), *s.Linux.Resources.CPU.Shares, "nobody's outweighs no function")
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

// An agent may be killed between giving a container to a function and containerd's writing it down.
func TestRecordIn_OfOneThatWasJustBound_IsInItsFile(t *testing.T) {
	r := &Runtime{cfg: Config{RunDir: t.TempDir(), Stack: "esb0"}}
	parked := record{Container: agent.Container{ID: "lambda-0000abcd", Name: "lambda-0000abcd"}, sandbox: "lambda-0000abcd", parked: true, attachment: "a"}
	c := containers.Container{ID: parked.sandbox, Labels: parked.labels("esb0")}
	got, old := r.recordIn(c)
	assert.True(t, got.parked)
	assert.False(t, old)

	bound := parked
	bound.parked, bound.ID, bound.Name, bound.FunctionName, bound.view = false, "lambda-f-0000abcd", "lambda-f-0000abcd", "f", "base"
	require.NoError(t, os.MkdirAll(r.files(bound.ID), 0o700))
	require.NoError(t, r.noteBound(bound))
	got, old = r.recordIn(c)
	assert.True(t, old)
	assert.Equal(t, recordOf(c.ID, bound.labels("esb0")).Container, got.Container)
	assert.Equal(t, "f", got.FunctionName)
	assert.Equal(t, "base", got.view)
	assert.Equal(t, c.ID, got.sandbox)

	file := filepath.Join(r.files(bound.ID), boundName)
	text, err := os.ReadFile(file)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(file, text[:len(text)/2], 0o600))
	got, old = r.recordIn(c)
	assert.True(t, got.parked, "its lambda-init has not been told anything")
	assert.False(t, old)

	for _, key := range []string{viewKey("base"), "base"} { // earlier agents wrote the second
		got, old = r.recordIn(containers.Container{ID: bound.sandbox, Labels: bound.labels("esb0"), SnapshotKey: key})
		assert.False(t, old)
		assert.Equal(t, "base", got.view)
	}
	got, _ = r.recordIn(containers.Container{ID: "lambda-f-1", Labels: record{Container: agent.Container{ID: "lambda-f-1"}, sandbox: "lambda-f-1"}.labels("esb0"), SnapshotKey: "lambda-f-1"})
	assert.Empty(t, got.view, "it has a snapshot of its own")
}

// The number of a process that has ended is another one's soon.
func TestOpenProcess_IsTheContainersOwn(t *testing.T) {
	r := &Runtime{groups: &cgroup.Hierarchy{}}
	_, err := r.openProcess(uint32(os.Getpid()), "lambda-1")
	assert.ErrorContains(t, err, "not its own any more")
	_, err = r.openMounts(1<<22, "lambda-1")
	assert.ErrorIs(t, err, os.ErrNotExist)
}
