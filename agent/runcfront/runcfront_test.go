package runcfront

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	task "github.com/containerd/containerd/api/runtime/task/v3"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"
)

// mustContainer makes what runc keeps of a container whose process is this one.
func mustContainer(t *testing.T, pid int, started uint64, config string) (root, dir string) {
	t.Helper()
	root = t.TempDir()
	dir = filepath.Join(root, "one")
	require.NoError(t, os.Mkdir(dir, 0o700))
	text := fmt.Sprintf(`{"id":"one","init_process_pid":%d,"init_process_start":%d,"created":"2026-01-02T03:04:05Z","config":%s}`, pid, started, config)
	require.True(t, json.Valid([]byte(text)))
	require.NoError(t, os.WriteFile(filepath.Join(dir, stateFile), []byte(text), 0o600))
	return root, dir
}

// private is the configuration of a container with processes of its own.
const private = `{"namespaces":[{"type":"NEWNET","path":"/run/netns/x"},{"type":"NEWPID","path":""}],"Hooks":null}`

func mustStarted(t *testing.T, pid int) uint64 {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	require.NoError(t, err)
	began, err := strconv.ParseUint(strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:]))[19], 10, 64)
	require.NoError(t, err)
	return began
}

func runcCall(root string, action ...string) []string {
	return append([]string{"--root", root, "--log", "/bundle/log.json", "--log-format", "json"}, action...)
}

func TestDo_Start_LetsTheProcessGoOn(t *testing.T) {
	root, dir := mustContainer(t, os.Getpid(), 1, private)
	fifo := filepath.Join(dir, execFifo)
	require.NoError(t, unix.Mkfifo(fifo, 0o600))
	wrote := make(chan error, 1)
	go func() { // as runc's init
		f, err := os.OpenFile(fifo, os.O_WRONLY, 0)
		if err == nil {
			_, err = f.WriteString("0")
			_ = f.Close()
		}
		wrote <- err
	}()
	program, _, done := Do(runcCall(root, "start", "one"))
	for !done { // its goroutine has not come to that yet: runc would have waited on
		assert.Equal(t, "runc", program)
		program, _, done = Do(runcCall(root, "start", "one"))
	}
	require.NoError(t, <-wrote)
	assert.NoFileExists(t, fifo, "for runc it is one that has been started")
	_, _, done = Do(runcCall(root, "start", "one"))
	assert.False(t, done, "runc says why it cannot be started again")
}

func TestDo_Start_ProcessDoesNotCome_IsRuncs(t *testing.T) {
	root, dir := mustContainer(t, os.Getpid(), 1, private)
	require.NoError(t, unix.Mkfifo(filepath.Join(dir, execFifo), 0o600))
	_, _, done := Do(runcCall(root, "start", "one"))
	assert.False(t, done)
	assert.FileExists(t, filepath.Join(dir, execFifo))
}

func TestDo_Delete_OnlyOfOneThatHasEnded(t *testing.T) {
	ended := exec.Command("sleep", "1000")
	require.NoError(t, ended.Start())
	began := mustStarted(t, ended.Process.Pid)
	root, dir := mustContainer(t, ended.Process.Pid, began, private)
	_, _, done := Do(runcCall(root, "delete", "one"))
	assert.False(t, done, "it runs")
	require.NoError(t, ended.Process.Kill())
	_ = ended.Wait()
	_, _, done = Do(runcCall(root, "delete", "--force", "one"))
	assert.False(t, done, "runc makes sure of what is forced")
	_, _, done = Do(runcCall(root, "delete", "one"))
	assert.True(t, done)
	assert.NoDirExists(t, dir)
	_, _, done = Do(runcCall(root, "delete", "one"))
	assert.False(t, done, "runc says that there is none")
}

func TestDo_Delete_NumberOfAnotherProcess_HasEnded(t *testing.T) {
	root, dir := mustContainer(t, os.Getpid(), mustStarted(t, os.Getpid())+1, private)
	_, _, done := Do(runcCall(root, "delete", "one"))
	assert.True(t, done)
	assert.NoDirExists(t, dir)
}

func TestDo_Delete_WithMoreToDo_IsRuncs(t *testing.T) {
	for name, config := range map[string]string{
		"hooks":                      `{"namespaces":[{"type":"NEWPID","path":""}],"Hooks":{"poststop":[{"path":"/bin/true"}]}}`,
		"others' namespace":          `{"namespaces":[{"type":"NEWPID","path":"/proc/1/ns/pid"}]}`,
		"no namespace":               `{"namespaces":[]}`,
		"another version's settings": `{"namespaces":{}}`,
	} {
		t.Run(name, func(t *testing.T) {
			root, dir := mustContainer(t, os.Getpid(), mustStarted(t, os.Getpid())+1, config)
			_, _, done := Do(runcCall(root, "delete", "one"))
			assert.False(t, done)
			assert.DirExists(t, dir)
		})
	}
	t.Run("created", func(t *testing.T) {
		root, dir := mustContainer(t, os.Getpid(), mustStarted(t, os.Getpid())+1, private)
		require.NoError(t, unix.Mkfifo(filepath.Join(dir, execFifo), 0o600))
		_, _, done := Do(runcCall(root, "delete", "one"))
		assert.False(t, done)
		assert.DirExists(t, dir)
	})
}

func TestDo_OtherCalls_AreTheirs(t *testing.T) {
	root, dir := mustContainer(t, os.Getpid(), mustStarted(t, os.Getpid())+1, private)
	for _, args := range [][]string{
		nil, {"--version"}, {"features"}, {"delete", "one"}, {"--root", root, "--debug", "delete", "one"}, {"--root", root, "--systemd-cgroup", "delete", "one"},
		runcCall(root, "delete"), runcCall(root, "delete", ".."), runcCall(root, "delete", "../one"), runcCall(root, "delete", ""), runcCall("relative", "delete", "one"),
		runcCall(root, "kill", "one", "9"), runcCall(root, "create", "--bundle", "/b", "one"), runcCall(root, "state", "one"),
	} {
		program, _, done := Do(args)
		assert.False(t, done, args)
		assert.Equal(t, "runc", program, args)
	}
	for _, args := range [][]string{
		{"-info"}, {"-v"}, {"-namespace", "n", "-id", "one", "-address", "/a", "start"}, {"-namespace", "n", "-id", "one", "-address", "/a"},
	} {
		program, _, done := Do(args)
		assert.False(t, done, args)
		assert.Equal(t, "containerd-shim-runc-v2", program, args)
	}
	assert.DirExists(t, dir)
}

func TestDo_ShimsDelete_OnlyWhereNothingIsLeft(t *testing.T) {
	root, bundle := t.TempDir(), filepath.Join(t.TempDir(), "one")
	call := []string{"-namespace", "n", "-address", "/a", "-publish-binary", "/c", "-id", "one", "-bundle", bundle, "delete"}
	program, _, done := Do(call)
	assert.False(t, done, "its bundle is not there")
	assert.Equal(t, "containerd-shim-runc-v2", program)
	require.NoError(t, os.MkdirAll(filepath.Join(bundle, "rootfs"), 0o711))
	_, _, done = Do(call)
	assert.False(t, done, "nobody knows where runc has had it")
	require.NoError(t, os.WriteFile(filepath.Join(bundle, "options.json"), fmt.Appendf(nil, `{"binary_name":"/x","root":%q}`, root), 0o600))
	_, output, done := Do(call)
	assert.True(t, done)
	var said task.DeleteResponse
	require.NoError(t, proto.Unmarshal(output, &said))
	assert.Equal(t, uint32(137), said.GetExitStatus())
	require.NoError(t, os.MkdirAll(filepath.Join(root, "n", "one"), 0o700))
	_, _, done = Do(call)
	assert.False(t, done, "runc has it still")
	require.NoError(t, os.RemoveAll(filepath.Join(root, "n")))
	if os.Geteuid() != 0 {
		t.Skip("mounts need root")
	}
	require.NoError(t, unix.Mount(root, filepath.Join(bundle, "rootfs"), "", unix.MS_BIND, ""))
	defer func() { _ = unix.Unmount(filepath.Join(bundle, "rootfs"), unix.MNT_DETACH) }()
	_, _, done = Do(call)
	assert.False(t, done, "its root filesystem is mounted")
}

func TestDo_ShimsDelete_ContainerRunsOn_IsNotKilled(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("mounts need root")
	}
	root, bundle := t.TempDir(), filepath.Join(t.TempDir(), "one")
	call := []string{"-namespace", "n", "-address", "/a", "-publish-binary", "/c", "-id", "one", "-bundle", bundle, "delete"}
	runs := exec.Command("sleep", "1000")
	require.NoError(t, runs.Start())
	defer func() { _, _ = runs.Process.Kill(), runs.Wait() }()
	_, dir := mustContainer(t, runs.Process.Pid, mustStarted(t, runs.Process.Pid), private)
	require.NoError(t, os.MkdirAll(filepath.Join(root, "n"), 0o700))
	require.NoError(t, os.Rename(dir, filepath.Join(root, "n", "one")))
	rootfs := filepath.Join(bundle, "rootfs")
	require.NoError(t, os.MkdirAll(rootfs, 0o711))
	require.NoError(t, os.WriteFile(filepath.Join(bundle, "options.json"), fmt.Appendf(nil, `{"root":%q}`, root), 0o600))
	require.NoError(t, unix.Mount(root, rootfs, "", unix.MS_BIND, ""))
	defer func() { _ = unix.Unmount(rootfs, unix.MNT_DETACH) }()
	_, output, done := Do(call)
	assert.True(t, done)
	assert.NotEmpty(t, output)
	mounted, err := isMounted(rootfs)
	require.NoError(t, err)
	assert.False(t, mounted, "containerd removes the bundle with all that is in it")
	require.NoError(t, runs.Process.Signal(unix.Signal(0)))
	require.NoError(t, runs.Process.Kill())
	_ = runs.Wait()
	_, _, done = Do(call)
	assert.False(t, done, "what has ended is the shim's to clean up")
}
