// Package process starts services in the background and finds them again: by pid files that name a process beyond
// doubt, so that a pid which the kernel has given to somebody else is never mistaken for ours.
package process

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/edge-serverless-box/esb/guard/logfile"
	"github.com/edge-serverless-box/esb/guard/ownthread"
	"github.com/edge-serverless-box/esb/guard/statefile"
)

// poll is how often the end of a process that is not our child is looked for.
const poll = 20 * time.Millisecond

// ErrGone says that the process which a record names has ended.
var ErrGone = errors.New("process has ended")

// Record names one process for ever: pids are used again, but not with the same start time in the same boot.
type Record struct {
	PID int `json:"pid"`
	// StartTicks is field 22 of /proc/<pid>/stat: the start time in clock ticks since boot.
	StartTicks uint64 `json:"start_ticks"`
	// BootID is the kernel's id of this boot.
	BootID string `json:"boot_id"`
	// Started is the wall-clock time of the start, for people.
	Started time.Time `json:"started"`
	// Fingerprint of what the process runs with; another one means that it must be started again.
	Fingerprint string `json:"fingerprint"`
}

// Spec says what to start.
type Spec struct {
	Path string
	Args []string
	Env  []string
	Dir  string
	// Log takes standard output and error; it is appended to.
	Log string
	// PIDFile is where the record is kept.
	PIDFile     string
	Fingerprint string
	// User runs it as somebody else than root, with no way to more rights than these; nil is this user.
	User *User
	// Files are handed on to the process, from the descriptor FirstFile on.
	Files []*os.File
	// Protected: when the machine's memory has run out, others are ended before it.
	Protected bool
}

// FirstFile is the descriptor of the first of Files.
func (s Spec) FirstFile() int {
	if s.User != nil {
		return 4 // 3 is the program
	}
	return 3
}

// protectedScore counts as half of the machine's memory less than the process has (proc(5), oom_score_adj); functions have 500 and
// more. Its children inherit it.
const protectedScore = "-500"

// plainScore is that of any process: what systemd protects the supervisor by is not for all that it starts.
const plainScore = "0"

func setScore(pid int, score string) error {
	return os.WriteFile(fmt.Sprintf("/proc/%d/oom_score_adj", pid), []byte(score), 0)
}

// User is whom a process runs as, by numbers, which need no entry in /etc/passwd.
type User struct {
	UID, GID uint32
	// Capabilities (CAP_* of golang.org/x/sys/unix) that it has all the same.
	Capabilities []uintptr
}

// Child is a process that this program has started and that outlives it.
type Child struct {
	Record
	cmd *exec.Cmd
	// logStart is the size of the log file before the start.
	logStart int64
	log      string
	// exited is the end of the process, once seen.
	exited error
}

// start starts the command. Confined, it and all of its children can never get more rights than they begin with, whatever
// they execute (PR_SET_NO_NEW_PRIVS).
func start(cmd *exec.Cmd, confined bool) error {
	if !confined {
		return cmd.Start()
	}
	// The bit is the thread's, and its children's.
	return ownthread.Do(func() error {
		if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
			return fmt.Errorf("give up new privileges: %w", err)
		}
		return cmd.Start()
	})
}

// Start starts a process in a session of its own and writes its pid file. When the pid file cannot be written, the
// process is killed again.
func Start(spec Spec) (*Child, error) {
	// The folder may be the service's, and a link in it lead anywhere.
	log, err := os.OpenFile(spec.Log, os.O_CREATE|os.O_APPEND|os.O_WRONLY|syscall.O_NOFOLLOW, 0o640)
	if err != nil {
		return nil, fmt.Errorf("open the log of %s: %w", filepath.Base(spec.Path), err)
	}
	defer func() { _ = log.Close() }()
	size, err := log.Seek(0, 2)
	if err != nil {
		return nil, fmt.Errorf("find the end of %s: %w", spec.Log, err)
	}
	// Not CommandContext: the service must outlive the context of the `up` that starts it.
	cmd := exec.Command(spec.Path, spec.Args...)
	cmd.Env, cmd.Dir = spec.Env, spec.Dir
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if u := spec.User; u != nil {
		if err := log.Chown(int(u.UID), int(u.GID)); err != nil {
			return nil, fmt.Errorf("give %s to its service: %w", spec.Log, err)
		}
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: u.UID, Gid: u.GID} // without any other group
		cmd.SysProcAttr.AmbientCaps = u.Capabilities
		// The user may not pass the folders on the way to the program, and its capabilities begin with the program: it is
		// executed by a descriptor.
		program, err := os.Open(spec.Path)
		if err != nil {
			return nil, fmt.Errorf("start %s: %w", spec.Path, err)
		}
		defer func() { _ = program.Close() }()
		cmd.ExtraFiles = []*os.File{program}
		cmd.Path = "/proc/self/fd/3"
	}
	cmd.ExtraFiles = append(cmd.ExtraFiles, spec.Files...)
	if err := start(cmd, spec.User != nil); err != nil {
		return nil, fmt.Errorf("start %s: %w", spec.Path, err)
	}
	if spec.Protected {
		// Refused to a root without CAP_SYS_RESOURCE, in some containers: it is a service that runs all the same.
		_ = setScore(cmd.Process.Pid, protectedScore)
	} else if own, err := os.ReadFile("/proc/self/oom_score_adj"); err == nil && strings.HasPrefix(string(own), "-") {
		_ = setScore(cmd.Process.Pid, plainScore) // nobody is refused to give up protection
	}
	c := &Child{cmd: cmd, log: spec.Log, logStart: size}
	c.Record, err = Identify(cmd.Process.Pid)
	if err == nil {
		c.Fingerprint, c.Started = spec.Fingerprint, time.Now().UTC().Truncate(time.Millisecond)
		err = c.Write(spec.PIDFile)
	}
	if err != nil {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		return nil, fmt.Errorf("start %s: %w", spec.Path, err)
	}
	return c, nil
}

// Exited says how the process ended, or nil while it runs.
func (c *Child) Exited() error {
	if c.exited != nil || c.Alive() {
		return c.exited
	}
	// The child is a zombie of ours: Wait returns at once, and reaps it.
	c.exited = errors.New("ended with exit status 0")
	if err := c.cmd.Wait(); err != nil {
		c.exited = fmt.Errorf("ended: %w", err)
	}
	return c.exited
}

// LogTail returns at most n bytes from the end of what the process has written since its start.
func (c *Child) LogTail(n int64) string { return logfile.Tail(c.log, c.logStart, n) }

// Identify makes the record of a running process, without fingerprint and wall-clock time.
func Identify(pid int) (Record, error) {
	boot, err := bootID()
	if err != nil {
		return Record{}, err
	}
	stat, err := readStat(pid)
	if err != nil {
		return Record{}, err
	}
	return Record{PID: pid, StartTicks: stat.startTicks, BootID: boot}, nil
}

// Read reads a pid file. A missing one gives an error that is fs.ErrNotExist.
func Read(file string) (Record, error) {
	var r Record
	if err := statefile.Process().Read(file, &r); err != nil {
		return Record{}, fmt.Errorf("read pid file: %w", err)
	}
	if r.PID < 2 {
		return Record{}, fmt.Errorf("pid file %s is damaged: remove it after making sure that its process is gone", file)
	}
	return r, nil
}

// Write writes the pid file in one step.
func (r Record) Write(file string) error {
	if err := statefile.Process().Write(file, r, 0o600); err != nil {
		return fmt.Errorf("pid file: %w", err)
	}
	return nil
}

// Alive is true while the very process of the record runs. A zombie has ended.
func (r Record) Alive() bool {
	boot, err := bootID()
	if err != nil || boot != r.BootID {
		return false
	}
	stat, err := readStat(r.PID)
	return err == nil && stat.startTicks == r.StartTicks && stat.state != 'Z' && stat.state != 'X'
}

// Signal sends sig to the process of the record and to no other. It returns ErrGone when that process has ended.
func (r Record) Signal(sig syscall.Signal) error {
	// The handle is taken first (a pidfd, Linux 5.3) and the identity checked after it, so that the process
	// cannot be replaced between the check and the signal.
	p, err := os.FindProcess(r.PID)
	if err != nil {
		return fmt.Errorf("find process %d: %w", r.PID, err)
	}
	defer func() { _ = p.Release() }()
	if !r.Alive() {
		return ErrGone
	}
	if err := p.Signal(sig); errors.Is(err, os.ErrProcessDone) {
		return ErrGone
	} else if err != nil {
		return fmt.Errorf("send %s to process %d: %w", sig, r.PID, err)
	}
	return nil
}

// Stop ends the process: SIGTERM, and SIGKILL when it has not ended after grace or ctx ends. It returns whether SIGKILL
// was needed. A process that has ended already is no error.
func (r Record) Stop(ctx context.Context, grace time.Duration) (killed bool, err error) {
	return r.End(ctx, syscall.SIGTERM, grace)
}

// End is Stop for a process that another signal than SIGTERM asks to end.
func (r Record) End(ctx context.Context, sig syscall.Signal, grace time.Duration) (killed bool, err error) {
	if err := r.Signal(sig); errors.Is(err, ErrGone) {
		return false, nil
	} else if err != nil {
		return false, err
	}
	waiting, cancel := context.WithTimeout(ctx, grace)
	defer cancel()
	if r.wait(waiting) {
		return false, nil
	}
	if err := r.Signal(syscall.SIGKILL); errors.Is(err, ErrGone) {
		return false, nil
	} else if err != nil {
		return true, err
	}
	// A killed process is gone as soon as the kernel has torn it down, whatever ctx says.
	dying, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	if !r.wait(dying) {
		return true, fmt.Errorf("process %d is still there 10 s after SIGKILL: it hangs in the kernel", r.PID)
	}
	return true, nil
}

// Inherit has the end of the process taken note of when it is a child of this process from a time when that was another program
// (execve(2)): it would stay as a zombie.
func (r Record) Inherit() {
	p, err := os.FindProcess(r.PID)
	if err != nil || !r.Alive() {
		return
	}
	go func() { _, _ = p.Wait() }() // ends with the process; at once when it is nobody's child here
}

// wait returns true when the process has ended, false when ctx has.
func (r Record) wait(ctx context.Context) bool {
	ticker := time.NewTicker(poll)
	defer ticker.Stop()
	for r.Alive() {
		select {
		case <-ctx.Done():
			return !r.Alive()
		case <-ticker.C:
		}
	}
	return true
}
