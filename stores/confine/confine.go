// Package confine runs a program where nobody reaches what it listens on but the process that started it: in a network
// namespace of its own, which has a loopback interface and nothing else. Servers that check no credentials, or fewer than
// the box does, so need not be trusted with a port of the machine's own loopback, which every local user can dial.
//
// The program is started by a copy of this executable, which sets the namespace up and becomes the program (Run). Another
// copy stays in the namespace and connects on behalf of the parent: it hands over connected sockets, no data passes
// through it. It ends with the program.
package confine

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// First arguments of the copies of this executable.
const (
	runCommand   = "confine-run"
	dialCommand  = "confine-dial"
	checkCommand = "confine-check"
)

// checkTimeout bounds Check.
const checkTimeout = 10 * time.Second

// Is says whether a program was started as one of the copies, and then has to call Run at once.
func Is(args []string) bool {
	return len(args) > 1 && (args[1] == runCommand || args[1] == dialCommand || args[1] == checkCommand)
}

// Check says whether this process may make network namespaces; the error says why not.
func Check(ctx context.Context) error {
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find this program: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, self, checkCommand)
	cmd.Env = []string{}
	cmd.SysProcAttr = &syscall.SysProcAttr{}
	separate(cmd.SysProcAttr)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("make a network namespace: %w: %s", err, out)
	}
	return nil
}

// separate asks for a network namespace, and for the user namespace that it takes where this process is not root. In that
// one the program has the same user as here.
func separate(attr *syscall.SysProcAttr) {
	attr.Cloneflags |= syscall.CLONE_NEWNET
	if os.Geteuid() == 0 {
		return
	}
	attr.Cloneflags |= syscall.CLONE_NEWUSER
	attr.UidMappings = []syscall.SysProcIDMap{{ContainerID: os.Geteuid(), HostID: os.Geteuid(), Size: 1}}
	attr.GidMappings = []syscall.SysProcIDMap{{ContainerID: os.Getegid(), HostID: os.Getegid(), Size: 1}}
	// To bring the loopback interface up; given away before the program is started.
	attr.AmbientCaps = []uintptr{unix.CAP_NET_ADMIN}
}

// Dialer connects to a confined program.
type Dialer struct{ control *net.UnixConn }

// Command confines cmd, which has not been started. Its ExtraFiles and SysProcAttr are set already. started is to be
// called when cmd has been started, or could not be.
func Command(cmd *exec.Cmd) (d *Dialer, started func(), err error) {
	self, err := os.Executable()
	if err != nil {
		return nil, nil, fmt.Errorf("find this program: %w", err)
	}
	ours, theirs, err := pair(unix.SOCK_SEQPACKET)
	if err != nil {
		return nil, nil, err
	}
	control, err := net.FileConn(ours)
	_ = ours.Close() // FileConn has a copy
	if err != nil {
		_ = theirs.Close()
		return nil, nil, fmt.Errorf("make a connection to the confined program: %w", err)
	}
	cmd.Args = append([]string{self, runCommand, fmt.Sprint(3 + len(cmd.ExtraFiles)), cmd.Path}, cmd.Args[1:]...)
	cmd.Path = self
	cmd.ExtraFiles = append(cmd.ExtraFiles, theirs)
	separate(cmd.SysProcAttr)
	return &Dialer{control: control.(*net.UnixConn)}, func() { _ = theirs.Close() }, nil
}

// Dial connects to an address in the program's network namespace.
func (d *Dialer) Dial(ctx context.Context, addr string) (net.Conn, error) {
	ours, theirs, err := pair(unix.SOCK_SEQPACKET)
	if err != nil {
		return nil, err
	}
	answer, err := net.FileConn(ours)
	_ = ours.Close()
	if err != nil {
		_ = theirs.Close()
		return nil, fmt.Errorf("ask for a connection: %w", err)
	}
	defer func() { _ = answer.Close() }()
	_, _, err = d.control.WriteMsgUnix([]byte(addr), unix.UnixRights(int(theirs.Fd())), nil)
	_ = theirs.Close()
	if err != nil {
		return nil, fmt.Errorf("ask for a connection: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { _ = answer.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	text, file, err := receive(answer.(*net.UnixConn))
	switch {
	case ctx.Err() != nil:
		if file != nil {
			_ = file.Close()
		}
		return nil, ctx.Err()
	case err != nil:
		return nil, fmt.Errorf("connect to %s: %w", addr, err)
	case file == nil:
		return nil, fmt.Errorf("connect to %s: %s", addr, text)
	}
	defer func() { _ = file.Close() }() // FileConn has a copy
	conn, err := net.FileConn(file)
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", addr, err)
	}
	return conn, nil
}

// Close gives the way to the program up.
func (d *Dialer) Close() error { return d.control.Close() }

// pair returns two connected sockets.
func pair(kind int) (one, other *os.File, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, kind|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("make a pair of sockets: %w", err)
	}
	return os.NewFile(uintptr(fds[0]), "pair"), os.NewFile(uintptr(fds[1]), "pair"), nil
}

// maxText bounds an address, and an error in its place.
const maxText = 1024

// receive reads one message with at most one file.
func receive(from *net.UnixConn) (text string, file *os.File, err error) {
	data, control := make([]byte, maxText), make([]byte, unix.CmsgSpace(4))
	n, controlled, _, _, err := from.ReadMsgUnix(data, control)
	if err != nil {
		return "", nil, err
	}
	messages, err := unix.ParseSocketControlMessage(control[:controlled])
	if err != nil {
		return "", nil, err
	}
	for _, m := range messages {
		fds, err := unix.ParseUnixRights(&m)
		if err != nil {
			return "", nil, err
		}
		for _, fd := range fds {
			unix.CloseOnExec(fd)
			if file != nil {
				_ = file.Close()
			}
			if err := unix.SetNonblock(fd, true); err != nil {
				return "", nil, errors.Join(err, unix.Close(fd))
			}
			file = os.NewFile(uintptr(fd), "received")
		}
	}
	if n == 0 && file == nil {
		return "", nil, errors.New("the other side has ended")
	}
	return string(data[:n]), file, nil
}
