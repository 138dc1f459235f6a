package security

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

// nobody is a user of this machine without any rights (Debian and most others: nobody).
const nobody = 65534

// asUser is set in the environment of a copy of this test program that runs one of deeds as another user.
const asUser = "ESB_SECURITY_DEED"

// deeds are what the tests do as an unprivileged user inside of a program of their own: a name, and what runs there with
// the arguments that the test gives. What it prints is what the test gets; an error is one too, and printed.
var deeds = map[string]func(args []string, out io.Writer) error{
	"read": func(args []string, out io.Writer) error {
		data, err := os.ReadFile(args[0])
		if err != nil {
			return err
		}
		_, err = out.Write(data)
		return err
	},
	"agent": callAgent,
	"stat": func(args []string, out io.Writer) error {
		info, err := os.Stat(args[0])
		if err == nil {
			_, _ = fmt.Fprintln(out, args[0], info.Mode())
		}
		return err
	},
	"connect": connect,
}

// doDeed is main of the copy.
func doDeed(name string) int {
	deed, ok := deeds[name]
	if !ok {
		fmt.Fprintln(os.Stderr, "no deed", name)
		return 2
	}
	if err := deed(os.Args[1:], os.Stdout); err != nil {
		fmt.Println(err)
		return 1
	}
	return 0
}

// program is the copy of this test program that others may run.
var program string

// shareProgram copies this program to where every user of the machine can run it.
func shareProgram() (remove func(), err error) {
	dir, err := os.MkdirTemp("", "esb-security-program-")
	if err != nil {
		return nil, err
	}
	remove = func() { _ = os.RemoveAll(dir) }
	self, err := os.Executable()
	if err != nil {
		return remove, err
	}
	data, err := os.ReadFile(self)
	if err != nil {
		return remove, err
	}
	program = filepath.Join(dir, "deeds")
	if err := os.WriteFile(program, data, 0o755); err != nil {
		return remove, err
	}
	return remove, os.Chmod(dir, 0o755)
}

// asNobody runs a deed as an unprivileged user of this machine, and returns what it printed and whether it succeeded.
func asNobody(t *testing.T, deed string, args ...string) (output string, ok bool) {
	t.Helper()
	return as(t, nobody, deed, args...)
}

// requireClosed checks that a file is there, and that nobody reads it.
func requireClosed(t *testing.T, path string) {
	t.Helper()
	require.FileExists(t, path)
	out, ok := asNobody(t, "read", path)
	require.False(t, ok, "%s", out)
}

// as runs a deed as a user, without any group.
func as(t *testing.T, uid int, deed string, args ...string) (output string, ok bool) {
	t.Helper()
	require.Contains(t, deeds, deed)
	cmd := exec.CommandContext(t.Context(), program, args...)
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", asUser + "=" + deed}
	return run(t, cmd, uid)
}

// commandAsNobody runs a command of this machine as an unprivileged user.
func commandAsNobody(t *testing.T, command string, args ...string) (output string, ok bool) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), command, args...)
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin"}
	return run(t, cmd, nobody)
}

func run(t *testing.T, cmd *exec.Cmd, uid int) (string, bool) {
	t.Helper()
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(uid)}}
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	require.NotNil(t, cmd.ProcessState, "start %s: %v", cmd.Path, err)
	return strings.TrimSpace(out.String()), err == nil
}
