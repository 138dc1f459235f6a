package process

import (
	"context"
	"errors"
	"fmt"
	"os"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/edge-serverless-box/esb/guard/supervise"
)

// watched is a process of this package as package supervise keeps it running.
type watched struct {
	record Record
	ended  chan struct{}
	// how is valid when ended is closed.
	how string
}

// Watch watches a process that another program has started. ErrGone says that it has ended.
func (r Record) Watch() (supervise.Process, error) { return r.watch(unix.PidfdOpen) }

func (r Record) watch(open func(pid, flags int) (int, error)) (supervise.Process, error) {
	fd, err := open(r.PID, unix.PIDFD_NONBLOCK)
	if errors.Is(err, unix.ESRCH) || err == nil && !r.Alive() { // the handle first: after it nobody else can have the number
		if err == nil {
			_ = unix.Close(fd)
		}
		return nil, ErrGone
	}
	w := &watched{record: r, ended: make(chan struct{}), how: "somebody else's child, so nobody knows how"}
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOSYS) { // the flag is Linux 5.10's, pidfds 5.3's
		if !r.Alive() {
			return nil, ErrGone
		}
		go func() { // ends with the process
			defer close(w.ended)
			r.wait(context.Background())
		}()
		return w, nil
	}
	if err != nil {
		return nil, fmt.Errorf("watch process %d: %w", r.PID, err)
	}
	handle := os.NewFile(uintptr(fd), "pidfd")
	conn, err := handle.SyscallConn()
	if err != nil {
		return nil, errors.Join(fmt.Errorf("watch process %d: %w", r.PID, err), handle.Close())
	}
	go func() { // ends with the process
		defer close(w.ended)
		defer func() { _ = handle.Close() }()
		// The kernel says that a pidfd can be read when its process has ended (pidfd_open(2)).
		if err := conn.Read(ended); err != nil {
			r.wait(context.Background()) // no pidfd can be waited for here
		}
	}()
	return w, nil
}

func ended(fd uintptr) bool {
	n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0)
	return err == nil && n > 0
}

// Watch watches the process; Exited and LogTail are not for one that is watched.
func (c *Child) Watch() supervise.Process {
	w := &watched{record: c.Record, ended: make(chan struct{})}
	go func() { // ends with the process
		defer close(w.ended)
		_ = c.cmd.Wait() // says no more than the state
		w.how = fmt.Sprintf("%s; the end of %s:\n%s", c.cmd.ProcessState, c.log, c.LogTail(watchedTail))
	}()
	return w
}

// watchedTail is how much of the log of a process that has ended is told, in bytes.
const watchedTail = 2 << 10

// PID implements supervise.Process.
func (w *watched) PID() int { return w.record.PID }

// Ended implements supervise.Process.
func (w *watched) Ended() <-chan struct{} { return w.ended }

// How implements supervise.Process.
func (w *watched) How() string { return w.how }

// Terminate implements supervise.Process.
func (w *watched) Terminate() error { return unlessGone(w.record.Signal(syscall.SIGTERM)) }

// Kill implements supervise.Process.
func (w *watched) Kill() error {
	if !w.record.Alive() {
		return nil
	}
	// The process leads the group of its session. What is left of that after its end is not worth a race.
	if err := syscall.Kill(-w.record.PID, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
		return fmt.Errorf("kill process %d and its group: %w", w.record.PID, err)
	}
	return unlessGone(w.record.Signal(syscall.SIGKILL))
}

func unlessGone(err error) error {
	if errors.Is(err, ErrGone) {
		return nil
	}
	return err
}
