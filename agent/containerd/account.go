package containerd

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// passwdFile is where the C library looks for users.
const passwdFile = "/etc/passwd"

// passwdLimit is the largest file of users that is read: a list of the people of a company, not an accident.
const passwdLimit = 4 << 20

// addAccount gives the user that functions run as his line in the file of users of a root filesystem, which is made where there is
// none. Programs ask for it: id, ssh, Python's getpass and os.path.expanduser, Node's os.userInfo, which fails without. Everything else that is there
// stays; a line of the same number comes behind, because the first one counts. What is no plain file is left as it is.
func addAccount(root string) error {
	fail := func(err error) error { return fmt.Errorf("add a user to %s: %w", passwdFile, err) }
	fd, err := unix.Open(root, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fail(err)
	}
	defer func() { _ = unix.Close(fd) }()
	if err := makeMountPoint(fd, passwdFile, false, maxLinks); err != nil {
		if errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.EISDIR) || errors.Is(err, unix.ELOOP) {
			return nil // an image without a usable /etc has no users at all
		}
		return fail(err)
	}
	in, err := unix.Openat2(fd, passwdFile, &unix.OpenHow{
		Flags: unix.O_RDWR | unix.O_CLOEXEC | unix.O_NONBLOCK | unix.O_NOCTTY, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS,
	})
	if errors.Is(err, unix.EISDIR) || errors.Is(err, unix.ENXIO) {
		return nil
	}
	if err != nil {
		return fail(err)
	}
	f := os.NewFile(uintptr(in), passwdFile)
	defer func() { _ = f.Close() }()
	info, err := f.Stat()
	if err != nil {
		return fail(err)
	}
	if !info.Mode().IsRegular() || info.Size() > passwdLimit {
		return nil
	}
	before, err := io.ReadAll(io.LimitReader(f, passwdLimit+1))
	if err != nil {
		return fail(err)
	}
	after := withAccount(string(before))
	if after == string(before) {
		return nil
	}
	if err := f.Truncate(0); err != nil {
		return fail(err)
	}
	if _, err := f.WriteAt([]byte(after), 0); err != nil {
		return fail(err)
	}
	return nil
}

// withAccount adds defaultAccount to a file of users.
func withAccount(passwd string) string {
	lines := strings.SplitAfter(passwd, "\n")
	if last := len(lines) - 1; lines[last] == "" {
		lines = lines[:last]
	} else {
		lines[last] += "\n"
	}
	his := func(line string) bool {
		fields := strings.Split(line, ":")
		return len(fields) > 2 && fields[2] == strconv.Itoa(defaultUID)
	}
	at := slices.IndexFunc(lines, his)
	switch {
	case at < 0:
		at = len(lines)
	case strings.TrimSpace(lines[at]) == defaultAccount:
		return passwd
	}
	return strings.Join(slices.Insert(lines, at, defaultAccount+"\n"), "")
}
