package lambdainit

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/edge-serverless-box/esb/guard/ownthread"
)

// killRetry is how often a kill is repeated while processes are left: one that forked during a round has a
// child that the round did not see.
const killRetry = 20 * time.Millisecond

// oomScoreFile has what the kernel adds to the badness of this process when memory has run out.
const oomScoreFile = "/proc/self/oom_score_adj"

// processes starts the function's process and reaps every process that is or becomes a child of this one.
//
// There is exactly one place that waits for children, because a wait for any child and a wait for one child (as
// os/exec does it) take exit statuses from each other.
type processes struct {
	// user is whom processes are started as, nil for the user of this process.
	user    *User
	signals chan os.Signal
	done    chan struct{}

	// mu guards the fields below and keeps a start and a reaping pass apart: a process that ends at once is
	// registered before it can be reaped.
	mu      sync.Mutex
	waiting map[int]func(syscall.WaitStatus)
	pass    chan struct{} // closed by the next reaping pass
}

// programError says that the function's own program is missing or cannot be executed.
type programError struct {
	program string
	err     error
	// cause is what the kernel does not say of it, "" when nothing is known.
	cause string
}

func (e *programError) Unwrap() error { return e.err }

// Error is AWS's wording of Runtime.InvalidEntrypoint, and the cause; it is shown to the function's owner.
func (e *programError) Error() string {
	reason := e.err.Error()
	if errno := syscall.Errno(0); errors.As(e.err, &errno) {
		reason = errno.Error()
	} else if inner := errors.Unwrap(e.err); inner != nil {
		reason = inner.Error()
	}
	text := "fork/exec " + e.program + ": " + reason
	if e.cause != "" {
		text += ": " + e.cause
	}
	return text
}

// openProcesses makes this process the parent of every orphan below it (process 1 is that already) and starts to
// reap.
func openProcesses(user *User) (*processes, error) {
	if os.Getpid() != 1 {
		if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
			return nil, fmt.Errorf("become the reaper of orphans: %w", err)
		}
	}
	p := &processes{
		user:    user,
		signals: make(chan os.Signal, 1),
		done:    make(chan struct{}),
		waiting: make(map[int]func(syscall.WaitStatus)),
		pass:    make(chan struct{}),
	}
	signal.Notify(p.signals, syscall.SIGCHLD)
	go func() {
		defer close(p.done)
		for range p.signals {
			_, _ = p.reap()
		}
	}()
	return p, nil
}

// close stops reaping. Processes that are left are no longer looked after.
func (p *processes) close() {
	signal.Stop(p.signals)
	close(p.signals)
	<-p.done
}

// start runs argv as leader of a process group of its own. exited is called once, from the reaper, and must not
// block.
func (p *processes) start(argv, env []string, files []uintptr, exited func(syscall.WaitStatus)) (int, error) {
	path := argv[0]
	// A path is not looked at here: what the user may execute, this process need not be allowed to.
	if !strings.ContainsRune(path, '/') {
		var err error
		if path, err = exec.LookPath(path); err != nil {
			return 0, &programError{program: argv[0], err: err}
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	// The kernel shall choose the function, never the process that reports what happened to it. The figure is inherited,
	// and what another user has started cannot be given one: this process takes it for a moment. An unprivileged process may
	// always raise its own, and take it back to what it was given.
	if before, err := os.ReadFile(oomScoreFile); err == nil && os.WriteFile(oomScoreFile, []byte("1000"), 0) == nil {
		defer func() { _ = os.WriteFile(oomScoreFile, before, 0) }()
	}
	pid, err := p.forkExec(path, argv, &syscall.ProcAttr{
		Env:   env,
		Files: files,
		Sys:   &syscall.SysProcAttr{Setpgid: true, Credential: p.user.credential()},
	})
	if err != nil {
		return 0, &programError{program: path, err: err, cause: cause(path, err)}
	}
	p.waiting[pid] = exited
	return pid, nil
}

// forkExec is syscall.ForkExec. Another user's processes also lose the set of capabilities that bounds theirs, which a
// thread can only give up for good: it is one that ends with the call.
func (p *processes) forkExec(path string, argv []string, attr *syscall.ProcAttr) (pid int, err error) {
	if p.user == nil {
		return syscall.ForkExec(path, argv, attr)
	}
	err = ownthread.Do(func() error {
		for c := range uintptr(unix.CAP_LAST_CAP + 1) {
			// Those that are not in the set cannot be dropped by a process that has not CAP_SETPCAP: they are dropped already.
			_ = unix.Prctl(unix.PR_CAPBSET_DROP, c, 0, 0, 0)
		}
		var err error
		pid, err = syscall.ForkExec(path, argv, attr)
		return err
	})
	return pid, err
}

// reap takes every exit status that is there. It says whether children are left, and returns a channel that is
// closed at the end of the next pass.
func (p *processes) reap() (left bool, next <-chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	close(p.pass)
	p.pass = make(chan struct{})
	for {
		var status syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &status, syscall.WNOHANG, nil)
		switch {
		case errors.Is(err, syscall.EINTR):
		case err != nil: // ECHILD
			return false, p.pass
		case pid == 0:
			return true, p.pass
		default:
			if exited := p.waiting[pid]; exited != nil {
				delete(p.waiting, pid)
				exited(status)
			}
		}
	}
}

// killAll ends every process below this one, whatever group or session it moved to, and returns when they are
// reaped. It gives up after limit (a process in an uninterruptible wait cannot be killed) and returns false.
func (p *processes) killAll(limit time.Duration) bool {
	deadline := time.NewTimer(limit)
	defer deadline.Stop()
	retry := time.NewTicker(killRetry)
	defer retry.Stop()
	for {
		if os.Getpid() == 1 {
			// kill(2): -1 means every process of the namespace but process 1, the caller.
			_ = syscall.Kill(-1, syscall.SIGKILL)
		} else {
			for _, pid := range descendants(os.Getpid()) {
				_ = syscall.Kill(pid, syscall.SIGKILL)
			}
		}
		left, pass := p.reap()
		if !left {
			return true
		}
		select {
		case <-pass:
		case <-retry.C:
		case <-deadline.C:
			return false
		}
	}
}

// descendants returns the processes below root by /proc.
func descendants(root int) []int {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil
	}
	children := make(map[int][]int)
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		stat, err := os.ReadFile(filepath.Join("/proc", e.Name(), "stat"))
		if err != nil {
			continue
		}
		// "pid (name) state ppid ...": the name may hold spaces and parentheses.
		fields := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])
		if len(fields) < 2 {
			continue
		}
		if ppid, err := strconv.Atoi(string(fields[1])); err == nil {
			children[ppid] = append(children[ppid], pid)
		}
	}
	found := children[root]
	for i := 0; i < len(found); i++ {
		found = append(found, children[found[i]]...)
	}
	return found
}
