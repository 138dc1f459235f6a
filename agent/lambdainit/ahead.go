package lambdainit

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// envWait names the descriptor on which a runtime that was started ahead waits to be told what it is.
	envWait = "_ESB_WAIT_FD"
	// envRoom has so many bytes of nothing: where the kernel shows a process's first environment (proc(5), /proc/pid/environ) there has to be
	// room for the one that it is told. AWS gives a function's own variables 4 KB.
	envRoom   = "_ESB_ROOM"
	roomBytes = 8 << 10
	// aheadLimit bounds the start of such a runtime, up to where it waits.
	aheadLimit = 30 * time.Second
	// aheadFrames is its descriptor of log frames, behind input, output and error.
	aheadFrames = 3
	// tellLimit bounds the telling: what has to be told is more than a socket holds when the environment is large.
	tellLimit = 5 * time.Second
)

// Ahead is a runtime that was started before its function was known: an interpreter that has loaded its client, and nobody's code. Told
// what its arguments, environment and working folder would have been, it goes on as if it had been started with them. It becomes the
// first process of the function; those after it are started as ever.
type Ahead struct {
	// command is what it was started with: the function's begins with that.
	command   []string
	processes *processes
	pid       int
	// outputs are the read ends of its standard output and error, control is where it is told.
	outputs [2]*os.File
	control *os.File
	// frames says that it has aheadFrames.
	frames bool
	// gone is closed when it has ended.
	gone chan struct{}

	// mu guards the following.
	mu sync.Mutex
	// status is how it has ended, nil while it runs.
	status *syscall.WaitStatus
	// exited is told of its end; taken says that it is, or will never be, the function's.
	exited func(syscall.WaitStatus)
	taken  bool
}

// startAhead starts the runtime that c names and waits until it waits. ended is called when it ends before it is the function's.
func startAhead(c Call, ended func()) (_ *Ahead, err error) {
	cfg, err := ConfigFromEnv(ownSettings(c.Env), c.Args)
	if err != nil {
		return nil, err
	}
	if err := harden(cfg); err != nil {
		return nil, err
	}
	if err := enter(c.Cwd); err != nil {
		return nil, err
	}
	procs, err := openProcesses(cfg.User)
	if err != nil {
		return nil, err
	}
	a := &Ahead{command: c.Args, processes: procs, gone: make(chan struct{}), exited: func(syscall.WaitStatus) { ended() }}
	if err := a.start(execEnv(c.Env, cfg)); err != nil {
		return nil, err
	}
	if err := a.await(); err != nil {
		if wait(a.gone, lastWords) {
			err = errors.New(exitMessage(*a.status))
		}
		return nil, fmt.Errorf("start %s ahead: %w%s", c.Args[0], err, a.said())
	}
	return a, nil
}

// start makes its pipes and its process.
func (a *Ahead) start(env []string) (err error) {
	var opened []*os.File
	defer func() {
		for _, f := range opened {
			_ = f.Close()
		}
		if err != nil {
			a.close()
		}
	}()
	null, err := os.Open(os.DevNull)
	if err != nil {
		return fmt.Errorf("open the runtime's standard input: %w", err)
	}
	opened = append(opened, null)
	for n, stream := range outputStreams {
		var w *os.File
		if a.outputs[n], w, err = openPipe(stream); err != nil {
			return err
		}
		opened = append(opened, w)
	}
	if fd, err := openAgain(opened[1].Fd()); err == nil {
		opened = append(opened, os.NewFile(uintptr(fd), "frames"))
		a.frames = true
	}
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("make a socket for what the runtime is told: %w", err)
	}
	opened = append(opened, os.NewFile(uintptr(fds[1]), "control"))
	if err := unix.SetNonblock(fds[0], true); err != nil { // this end alone: the runtime's blocks
		return errors.Join(err, unix.Close(fds[0]))
	}
	a.control = os.NewFile(uintptr(fds[0]), "control")
	var files []uintptr
	for _, f := range opened {
		files = append(files, f.Fd())
	}
	env = append(slices.Clip(env), envWait+"="+strconv.Itoa(len(files)-1), envRoom+"="+strings.Repeat(" ", roomBytes))
	a.pid, err = a.processes.start(a.command, env, files, a.end)
	return err
}

// end is called by the reaper.
func (a *Ahead) end(status syscall.WaitStatus) {
	a.mu.Lock()
	a.status = &status
	exited := a.exited
	a.mu.Unlock()
	close(a.gone)
	if exited != nil {
		exited(status)
	}
}

// await waits for the byte with which the runtime says that it waits.
func (a *Ahead) await() error {
	if err := a.control.SetReadDeadline(time.Now().Add(aheadLimit)); err != nil {
		return err
	}
	_, err := a.control.Read(make([]byte, 1))
	return err
}

// said is the beginning of what it has written, for an error.
func (a *Ahead) said() string {
	var b strings.Builder
	for _, out := range a.outputs {
		text := make([]byte, 1024)
		_ = out.SetReadDeadline(time.Now().Add(lastWords))
		if n, _ := out.Read(text); n > 0 {
			_, _ = fmt.Fprintf(&b, ": %q", text[:n])
		}
	}
	return b.String()
}

// close closes this process's ends.
func (a *Ahead) close() {
	for _, f := range []*os.File{a.control, a.outputs[0], a.outputs[1]} {
		if f != nil {
			_ = f.Close()
		}
	}
}

// take makes it the function's process, once: it is told what c and env say, and exited hears of its end. It is false when it is of no
// use, then it is ended: a wrapper is to start the runtime, the command is another one, or it has ended by itself.
func (a *Ahead) take(c *Config, env []string, exited func(syscall.WaitStatus)) bool {
	if a == nil {
		return false
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.taken {
		return false
	}
	a.taken = true
	ok := a.status == nil && c.Wrapper == "" && len(c.Command) >= len(a.command) && slices.Equal(c.Command[:len(a.command)], a.command)
	if ok {
		ok = a.tell(Call{Args: c.Command, Env: env}) == nil
	}
	_ = a.control.Close()
	if !ok {
		a.exited = nil
		if a.status == nil {
			_ = syscall.Kill(a.pid, syscall.SIGKILL)
		}
		_, _ = a.outputs[0].Close(), a.outputs[1].Close()
		return false
	}
	a.exited = exited
	return true
}

// tell says what it is. The working folder is that of this process.
func (a *Ahead) tell(c Call) error {
	var err error
	if c.Cwd, err = os.Getwd(); err != nil {
		return err
	}
	text, err := json.Marshal(c)
	if err != nil {
		return err
	}
	if err := a.control.SetWriteDeadline(time.Now().Add(tellLimit)); err != nil {
		return err
	}
	_, err = a.control.Write(text)
	return err
}
