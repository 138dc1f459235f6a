package rootmount

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// firstID is the machine's id that is 0 in the test's containers.
const firstID = 1879179264

// The test binary is started again as process 1 of a container.
func TestMain(m *testing.M) {
	if len(os.Args) == 3 && os.Args[1] == "@container" {
		if err := contain(os.Args[2]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// contain makes of this process what runc makes of a parked container's, and then answers each line with what it sees.
func contain(root string) error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SLAVE, ""); err != nil {
		return err
	}
	if err := unix.Mount(root, root, "", unix.MS_BIND, ""); err != nil {
		return err
	}
	for _, m := range []struct {
		source, target, kind string
		flags                uintptr
	}{
		{"proc", "/proc", "proc", unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC},
		{"tmpfs", "/dev", "tmpfs", unix.MS_NOSUID},
		{"tmpfs", "/dev/within", "tmpfs", unix.MS_NOSUID},
		{filepath.Join(root, "secret"), "/etc/hosts", "", unix.MS_BIND},
	} {
		if m.target == "/dev/within" {
			if err := os.Mkdir(filepath.Join(root, m.target), 0o755); err != nil {
				return err
			}
		}
		if err := unix.Mount(m.source, filepath.Join(root, m.target), m.kind, m.flags, ""); err != nil {
			return fmt.Errorf("mount %s: %w", m.target, err)
		}
	}
	if err := pivot(root); err != nil {
		return err
	}
	in := bufio.NewScanner(os.Stdin)
	fmt.Println("{}")
	for in.Scan() {
		s := seen{Mounts: map[string]string{}, Files: map[string]string{}, Written: map[string]bool{}}
		entries, _ := os.ReadDir("/")
		for _, e := range entries {
			s.Root = append(s.Root, e.Name())
		}
		s.Cwd, _ = os.Getwd()
		mounts, _ := os.ReadFile("/proc/self/mountinfo")
		for line := range strings.Lines(string(mounts)) {
			f := strings.Fields(line)
			s.Mounts[f[4]] = f[5]
			if f[6] != "-" {
				s.Mounts[f[4]] += " " + f[6]
			}
		}
		for _, name := range []string{"/layer", "/etc/hosts", "/real/config", "/var/task/code", "/secret", "/linked/config"} {
			text, err := os.ReadFile(name)
			if err != nil {
				text = []byte(err.Error())
			}
			s.Files[name] = string(text)
		}
		for _, dir := range []string{"/", "/tmp", "/var/task", "/real"} {
			s.Written[dir] = os.WriteFile(filepath.Join(dir, "new"), nil, 0o600) == nil
		}
		if err := json.NewEncoder(os.Stdout).Encode(s); err != nil {
			return err
		}
	}
	return in.Err()
}

// seen is what a container sees.
type seen struct {
	Root          []string
	Cwd           string
	Mounts, Files map[string]string
	Written       map[string]bool
}

type container struct {
	ns  *os.File
	ask func() seen
}

// mustContain starts a container that has a user namespace of its own, as those of functions have.
func mustContain(t *testing.T) container {
	t.Helper()
	root := t.TempDir()
	for _, dir := range []string{"proc", "dev", "etc", NewRoot} {
		require.NoError(t, os.MkdirAll(filepath.Join(root, dir), 0o755))
	}
	require.NoError(t, os.WriteFile(filepath.Join(root, "etc/hosts"), nil, 0o644))
	require.NoError(t, os.WriteFile(filepath.Join(root, "secret"), []byte("of the parked time"), 0o644))
	for dir := root; dir != "/"; dir = filepath.Dir(dir) {
		info, err := os.Stat(dir)
		require.NoError(t, err)
		require.NoError(t, os.Chmod(dir, info.Mode()|0o711)) // it is another user that goes there
	}
	cmd := exec.Command("/proc/self/exe", "@container", root)
	ids := []syscall.SysProcIDMap{{ContainerID: 0, HostID: firstID, Size: 65536}}
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWUSER,
		UidMappings: ids, GidMappings: ids, Credential: &syscall.Credential{},
	}
	in, err := cmd.StdinPipe()
	require.NoError(t, err)
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	cmd.Stderr = t.Output()
	require.NoError(t, cmd.Start())
	t.Cleanup(func() {
		_ = in.Close()
		_ = cmd.Wait()
	})
	answers := json.NewDecoder(out)
	var s seen
	require.NoError(t, answers.Decode(&s), "it is there")
	ns, err := os.Open(fmt.Sprintf("/proc/%d/ns/mnt", cmd.Process.Pid))
	require.NoError(t, err)
	t.Cleanup(func() { _ = ns.Close() })
	return container{ns: ns, ask: func() seen {
		var s seen
		_, err := fmt.Fprintln(in)
		require.NoError(t, err)
		require.NoError(t, answers.Decode(&s))
		return s
	}}
}

func mustViews(t *testing.T) *Views {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: it makes mount namespaces")
	}
	v, err := Open(filepath.Join(t.TempDir(), "views"))
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, v.Close()) })
	return v
}

// mustLayers makes two layers and returns the options of their overlay.
func mustLayers(t *testing.T) []string {
	t.Helper()
	dir := t.TempDir()
	for _, name := range []string{"1/fs/proc", "1/fs/dev", "1/fs/etc", "2/fs/tmp", "2/fs/var/task", "2/fs/real"} {
		require.NoError(t, os.MkdirAll(filepath.Join(dir, name), 0o755))
	}
	for name, text := range map[string]string{"1/fs/layer": "lower", "2/fs/layer": "upper", "1/fs/etc/hosts": "image's", "2/fs/real/config": ""} {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644))
	}
	require.NoError(t, os.Symlink("/real", filepath.Join(dir, "2/fs/linked")))
	return []string{"index=off", "lowerdir=" + filepath.Join(dir, "2/fs") + ":" + filepath.Join(dir, "1/fs")}
}

// mustFile makes a folder of this machine with a file in it.
func mustFile(t *testing.T, name, text string) (dir string) {
	t.Helper()
	dir = t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644))
	return dir
}

func TestEnter_GivesAContainerThatRunsAnotherRoot(t *testing.T) {
	v := mustViews(t)
	require.NoError(t, v.Add("image", mustLayers(t)))
	code, config := mustFile(t, "code", "the function's"), mustFile(t, "config", "of this machine")
	c := mustContain(t)
	before := c.ask()
	assert.Equal(t, "of the parked time", before.Files["/secret"])

	require.NoError(t, v.Enter(c.ns, Root{
		View: "image", Keep: []string{"/proc", "/dev", "/etc/hosts"}, Tmp: &Tmp{SizeMB: 8, Owner: firstID},
		Binds: []Bind{
			{Source: code, Target: "/var/task", Attributes: ReadOnly | NoSuid | NoDev},
			{Source: filepath.Join(config, "config"), Target: "/linked/config", Attributes: ReadOnly | NoSuid | NoDev | NoExec},
		},
	}))
	got := c.ask()
	slices.Sort(got.Root)
	assert.Equal(t, []string{"dev", "etc", "layer", "linked", "proc", "real", "tmp", "var"}, got.Root)
	assert.Equal(t, "/", got.Cwd)
	assert.Equal(t, map[string]string{
		"/": "ro,relatime", "/proc": "rw,nosuid,nodev,noexec,relatime", "/dev": "rw,nosuid,relatime", "/dev/within": "rw,nosuid,relatime",
		"/etc/hosts": before.Mounts["/etc/hosts"], "/tmp": "rw,nosuid,nodev,relatime", "/var/task": "ro,nosuid,nodev,relatime",
		"/real/config": "ro,nosuid,nodev,noexec,relatime",
	}, got.Mounts, "nothing of what was before, and nothing that gets out or in")
	assert.Equal(t, "upper", got.Files["/layer"])
	assert.Equal(t, "of the parked time", got.Files["/etc/hosts"], "it was taken along")
	assert.Equal(t, "of this machine", got.Files["/real/config"], "the link is followed as in there")
	assert.Equal(t, "the function's", got.Files["/var/task/code"])
	assert.Contains(t, got.Files["/secret"], "no such file")
	assert.Equal(t, map[string]bool{"/": false, "/tmp": true, "/var/task": false, "/real": false}, got.Written)
}

func TestViews_AreMountedNowhereElse_AndAreKeptByContainersAlone(t *testing.T) {
	v := mustViews(t)
	require.NoError(t, v.Add("image", mustLayers(t)))
	require.NoError(t, v.Add("image", nil), "it is there already")
	require.True(t, v.Has("image"))
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	require.NoError(t, err)
	assert.NotContains(t, string(mounts), v.dir)

	root := Root{View: "image", Keep: []string{"/proc"}}
	first := mustContain(t)
	require.NoError(t, v.Enter(first.ns, root))
	require.NoError(t, v.Drop("image"))
	require.NoError(t, v.Drop("image"))
	assert.False(t, v.Has("image"))
	assert.Equal(t, "upper", first.ask().Files["/layer"])
	second := mustContain(t)
	assert.ErrorContains(t, v.Enter(second.ns, root), "given up")
	assert.Contains(t, second.ask().Root, "secret", "nothing has changed there")

	require.NoError(t, v.Add("image", mustLayers(t)), "again")
	require.NoError(t, v.Close())
	assert.Equal(t, "upper", first.ask().Files["/layer"])
	assert.Error(t, v.Enter(second.ns, root))
	assert.ErrorContains(t, v.Add("image", mustLayers(t)), "closed")
}

func TestEnter_ManyAtOnce(t *testing.T) {
	v := mustViews(t)
	require.NoError(t, v.Add("image", mustLayers(t)))
	var all sync.WaitGroup
	for range 8 {
		c := mustContain(t)
		all.Go(func() { assert.NoError(t, v.Enter(c.ns, Root{View: "image", Keep: []string{"/proc", "/dev"}})) })
		t.Cleanup(func() { assert.Equal(t, "upper", c.ask().Files["/layer"]) })
	}
	all.Wait()
}

func TestEnter_WhatIsNotThere_IsSaid(t *testing.T) {
	v := mustViews(t)
	require.NoError(t, v.Add("image", mustLayers(t)))
	c := mustContain(t)
	for text, root := range map[string]Root{
		"/no/such/file": {View: "image", Binds: []Bind{{Source: "/no/such/file", Target: "/tmp"}}},
		"given up":      {View: "other"},
	} {
		assert.ErrorContains(t, v.Enter(c.ns, root), text)
		assert.Contains(t, c.ask().Root, "secret", "nothing has changed there")
	}
	assert.ErrorContains(t, v.Enter(c.ns, Root{View: "image", Keep: []string{"/nowhere"}}), "take /nowhere along")
	other, err := os.Open("/proc/self/ns/net")
	require.NoError(t, err)
	defer func() { _ = other.Close() }()
	assert.ErrorContains(t, v.Enter(other, Root{View: "image"}), "setns", "it is no mount namespace")
	assert.ErrorContains(t, v.Add("one", []string{"lowerdir=/usr"}), "two layers")
	assert.ErrorContains(t, v.Add("none", []string{"lowerdir=/no/such/a:/no/such/b"}), "no such file")
	assert.False(t, v.Has("none"))
}

// Each layer's folder in full would be more than the page that mount(2) takes.
func TestAdd_ManyLayers(t *testing.T) {
	v := mustViews(t)
	dir := filepath.Join(t.TempDir(), strings.Repeat("long", 20))
	var layers []string
	for i := range 60 {
		layers = append(layers, filepath.Join(dir, fmt.Sprint(i), "fs"))
		require.NoError(t, os.MkdirAll(layers[i], 0o755))
	}
	require.NoError(t, v.Add("image", []string{"lowerdir=" + strings.Join(layers, ":")}))
}

func TestAdd_MountsInAContainerThatHasItsRoot(t *testing.T) {
	v := mustViews(t)
	require.NoError(t, v.Add("image", mustLayers(t)))
	code := mustFile(t, "code", "the function's")
	c := mustContain(t)
	require.NoError(t, v.Enter(c.ns, Root{View: "image", Keep: []string{"/proc", "/dev", "/etc/hosts"}}))
	before := c.ask()
	require.NoError(t, Add(c.ns, []Bind{{Source: code, Target: "/var/task", Attributes: ReadOnly | NoSuid | NoDev}}, &Tmp{SizeMB: 8, Owner: firstID}))
	got := c.ask()
	assert.Equal(t, "the function's", got.Files["/var/task/code"])
	assert.Equal(t, map[string]bool{"/": false, "/tmp": true, "/var/task": false, "/real": false}, got.Written)
	want := before.Mounts
	want["/tmp"], want["/var/task"] = "rw,nosuid,nodev,relatime", "ro,nosuid,nodev,relatime"
	assert.Equal(t, want, got.Mounts)
	assert.ErrorContains(t, Add(c.ns, []Bind{{Source: code, Target: "/no/such/folder"}}, nil), "mount /no/such/folder")
	assert.ErrorContains(t, Add(c.ns, []Bind{{Source: "/no/such/file", Target: "/tmp"}}, nil), "/no/such/file")
}
