package supervise

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"time"
)

// pipeTimeout is how long what a process has left behind may hold its output open after its end.
const pipeTimeout = time.Second

// Attributes are those of a child: a session of its own, so that Ctrl-C in a terminal reaches this program alone, and the
// children of a child are in its group. It gets a SIGTERM when this program is killed.
func Attributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setsid: true, Pdeathsig: syscall.SIGTERM}
}

// Child is a child of this program.
type Child struct {
	cmd   *exec.Cmd
	ended chan struct{}
	// how is valid when ended is closed.
	how string
}

// Run starts a command, whose SysProcAttr come from Attributes, as a Process.
func Run(cmd *exec.Cmd) (*Child, error) {
	cmd.WaitDelay = pipeTimeout
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	c := &Child{cmd: cmd, ended: make(chan struct{})}
	go func() {
		defer close(c.ended)
		_ = cmd.Wait() // says no more than the state
		c.how = fmt.Sprint(cmd.ProcessState)
	}()
	return c, nil
}

// PID implements Process.
func (c *Child) PID() int { return c.cmd.Process.Pid }

// Ended implements Process.
func (c *Child) Ended() <-chan struct{} { return c.ended }

// How implements Process.
func (c *Child) How() string { return c.how }

// Terminate implements Process.
func (c *Child) Terminate() error { return ignoreEnd(c.cmd.Process.Signal(syscall.SIGTERM)) }

// Kill implements Process.
func (c *Child) Kill() error {
	// One that has ended may have left its number, as a group too, to somebody else.
	if err := c.cmd.Process.Signal(syscall.Signal(0)); err != nil {
		return ignoreEnd(err)
	}
	return ignoreEnd(syscall.Kill(-c.PID(), syscall.SIGKILL))
}

func ignoreEnd(err error) error {
	if errors.Is(err, os.ErrProcessDone) || errors.Is(err, syscall.ESRCH) {
		return nil
	}
	return err
}
