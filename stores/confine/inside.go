package confine

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// dialTimeout bounds one connection inside.
	dialTimeout = 5 * time.Second
	// maxDials bounds those that are being made at once.
	maxDials = 256
	// dialerFD is the dialer's end of the connection to the parent.
	dialerFD = 3
)

// Run is the main function of the copies; it returns the exit code. A copy that becomes the program does not return.
func Run(args []string) int {
	var err error
	switch args[1] {
	case checkCommand:
		err = loopbackUp()
	case dialCommand:
		err = serveDials()
	case runCommand:
		err = becomeProgram(args[2:])
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "confine:", err)
		return 1
	}
	return 0
}

// becomeProgram sets the namespace up, starts the dialer, and executes the program in place of this one.
func becomeProgram(args []string) error {
	// The dialer is told when the thread that started it ends, which is the one that becomes the program.
	runtime.LockOSThread()
	if len(args) < 2 {
		return errors.New("no program to run")
	}
	fd, err := strconv.Atoi(args[0])
	if err != nil {
		return fmt.Errorf("the descriptor of the parent: %w", err)
	}
	if err := loopbackUp(); err != nil {
		return err
	}
	if err := unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0); err != nil {
		return fmt.Errorf("give capabilities up: %w", err)
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("give new privileges up: %w", err)
	}
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find this program: %w", err)
	}
	control := os.NewFile(uintptr(fd), "parent") //nolint:gosec // a descriptor that the parent has named
	dialer := exec.Command(self, dialCommand)
	// Whose process it is, and no secret of the program.
	dialer.Env = []string{"ESB_HOME=" + os.Getenv("ESB_HOME"), "GOMAXPROCS=1"}
	dialer.Stderr = os.Stderr
	dialer.ExtraFiles = []*os.File{control}
	dialer.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := dialer.Start(); err != nil {
		return fmt.Errorf("start the dialer: %w", err)
	}
	_ = control.Close()
	return fmt.Errorf("execute %s: %w", args[1], syscall.Exec(args[1], args[1:], os.Environ()))
}

// loopbackUp gives the namespace a loopback interface that works.
func loopbackUp() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("bring loopback up: %w", err)
	}
	defer func() { _ = unix.Close(fd) }()
	ifreq, err := unix.NewIfreq("lo")
	if err != nil {
		return fmt.Errorf("bring loopback up: %w", err)
	}
	ifreq.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	if err := unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, ifreq); err != nil {
		return fmt.Errorf("bring loopback up: %w", err)
	}
	return nil
}

// serveDials connects for the parent until it ends.
func serveDials() error {
	file := os.NewFile(dialerFD, "parent")
	connection, err := net.FileConn(file)
	_ = file.Close()
	if err != nil {
		return fmt.Errorf("reach the parent: %w", err)
	}
	control, ok := connection.(*net.UnixConn)
	if !ok {
		return errors.New("reach the parent: not by a unix socket")
	}
	slots := make(chan struct{}, maxDials)
	for {
		addr, answer, err := receive(control)
		if err != nil {
			return nil //nolint:nilerr // the parent has ended, or wants no more
		}
		if answer == nil {
			continue
		}
		slots <- struct{}{}
		go func() {
			defer func() { <-slots }()
			dial(addr, answer)
		}()
	}
}

// dial answers one request, with the connected socket or the reason why there is none.
func dial(addr string, answer *os.File) {
	to, err := net.FileConn(answer)
	_ = answer.Close()
	if err != nil {
		return
	}
	defer func() { _ = to.Close() }()
	socket, ok := to.(*net.UnixConn)
	if !ok {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), dialTimeout)
	defer cancel()
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", addr)
	if err != nil {
		_, _ = socket.Write([]byte(err.Error()[:min(len(err.Error()), maxText)])) // who asked may have left
		return
	}
	defer func() { _ = conn.Close() }()
	raw, err := conn.(*net.TCPConn).SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Control(func(fd uintptr) {
		_, _, _ = socket.WriteMsgUnix([]byte{0}, unix.UnixRights(int(fd)), nil) // who asked may have left
	})
}
