// Package shims runs containerd's shims for the agent: one for several containers of a function, started by the agent itself. containerd would start one
// for each container, by a program that starts another one, and takes any that it is told the address of.
//
// A shim ends when its last container has been removed: containerd tells it to each time that it has removed one, and the shim obeys when it has no other. One that
// is being made does not count yet, so it is seen to here that there is another one as long as one is being made.
package shims

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// Prefix is how the ids of these shims begin; those that containerd starts have the id of their container.
	Prefix = "esb-shim-"
	// program is the shim.
	program = "containerd-shim-runc-v2"
	// retirement is how long a shim without containers has to end.
	retirement = 5 * time.Second
)

// Config of a Pool.
type Config struct {
	// BinDir holds the shim and what it starts.
	BinDir string
	// Namespace and Address are containerd's.
	Namespace, Address string
	// SocketDir is for the shims' sockets, Dir for all else that they need.
	SocketDir, Dir string
	// Max is how many containers are in one shim at most.
	Max    int
	Logger *slog.Logger
}

// Pool knows which container is in which shim. Its methods may be called concurrently.
type Pool struct {
	cfg Config
	// stop is closed, at both ends, to end the watching; watching counts it.
	stop     *os.File
	stopped  *os.File
	watching sync.WaitGroup

	mu     sync.Mutex
	closed bool
	all    map[string]*Shim // by id
	of     map[string]*Shim // by container
}

// Shim is one.
type Shim struct {
	// ID tells it from others, over restarts of the agent.
	ID string
	// key says for whom it is.
	key   string
	pidfd int
	pid   int
	log   *os.File

	// The rest is guarded by Pool.mu.
	//
	// ended: it has ended, or is about to: no other container comes into it. retiring: that is seen to.
	ended, retiring bool
	// old: it runs another program than new ones do, after an upgrade. It keeps what is in it, and nothing else comes into it.
	old bool
	// making are the containers that are being made in it, there those that are in it and are not being removed.
	making, there map[string]bool
	// changed is closed, and made anew, when these change.
	changed chan struct{}
}

// Open returns a Pool with the shims that an earlier agent has left. Adopt says what is in them, and then EndEmpty is to be called.
func Open(cfg Config) (*Pool, error) {
	for _, dir := range []string{cfg.SocketDir, cfg.Dir} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, fmt.Errorf("make a folder for shims: %w", err)
		}
	}
	p := &Pool{cfg: cfg, all: map[string]*Shim{}, of: map[string]*Shim{}}
	var err error
	if p.stopped, p.stop, err = os.Pipe(); err != nil {
		return nil, fmt.Errorf("watch shims: %w", err)
	}
	if err := p.find(); err != nil {
		return nil, errors.Join(err, p.Close())
	}
	return p, nil
}

// find takes over the shims that run, and removes what others have left.
func (p *Pool) find() error {
	lines, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		return err
	}
	for _, file := range lines {
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(file)))
		if err != nil || p.idOf(file) == "" {
			continue
		}
		fd, err := unix.PidfdOpen(pid, 0)
		if err != nil {
			continue // ended
		}
		// From here on the number cannot have become another process's without the descriptor's saying so.
		s := newShim(p.idOf(file), "")
		if s.ID == "" {
			_ = unix.Close(fd)
			continue
		}
		s.pid, s.pidfd, s.old = pid, fd, !p.runsProgram(pid)
		if s.log, err = os.OpenFile(filepath.Join(p.dir(s.ID), "log"), os.O_RDWR, 0); err != nil {
			p.cfg.Logger.Warn("a shim of an earlier agent cannot be heard", "shim", s.ID, "error", err)
		}
		p.mu.Lock()
		p.all[s.ID] = s
		p.mu.Unlock()
		p.watch(s)
	}
	entries, err := os.ReadDir(p.cfg.Dir)
	if err != nil {
		return fmt.Errorf("look for what shims of an earlier agent have left: %w", err)
	}
	for _, e := range entries {
		p.mu.Lock()
		known := p.all[e.Name()] != nil
		p.mu.Unlock()
		if strings.HasPrefix(e.Name(), Prefix) && !known {
			p.forget(e.Name())
		}
	}
	return nil
}

// shimID is what Join makes. Part of a path, it must not be a path itself.
var shimID = regexp.MustCompile("^" + Prefix + "[0-9a-f]+$")

// idOf is the id of a shim of such a pool, by its command line; "" for any other process. Functions can have any command line, but no
// process outside of their own namespace of process numbers.
func (p *Pool) idOf(cmdline string) string {
	line, err := os.ReadFile(cmdline)
	args := strings.Split(string(line), "\x00")
	if err != nil || filepath.Base(args[0]) != program || option(args, "-address") != p.cfg.Address || option(args, "-namespace") != p.cfg.Namespace {
		return ""
	}
	if id := option(args, "-id"); shimID.MatchString(id) && ownNamespace(filepath.Dir(cmdline)) {
		return id
	}
	return ""
}

// ownNamespace says whether a process, by its folder in /proc, has the namespace of process numbers that this one has.
func ownNamespace(dir string) bool {
	ours, err := os.Readlink("/proc/self/ns/pid")
	theirs, theirErr := os.Readlink(filepath.Join(dir, "ns", "pid"))
	return err == nil && theirErr == nil && ours == theirs
}

// runsProgram says whether a process runs the very program that new shims get.
func (p *Pool) runsProgram(pid int) bool {
	now, err := os.Stat(filepath.Join(p.cfg.BinDir, program))
	its, itsErr := os.Stat(fmt.Sprintf("/proc/%d/exe", pid))
	return err == nil && itsErr == nil && os.SameFile(now, its)
}

func option(args []string, name string) string {
	if i := slices.Index(args, name); i >= 0 && i+1 < len(args) {
		return args[i+1]
	}
	return ""
}

func newShim(id, key string) *Shim {
	return &Shim{ID: id, key: key, pidfd: -1, making: map[string]bool{}, there: map[string]bool{}, changed: make(chan struct{})}
}

// Adopt says that a container of an earlier agent is in a shim; what is not known is no error.
func (p *Pool) Adopt(id, key, container string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.all[id]
	if s == nil {
		return
	}
	s.key = key
	s.there[container] = true
	p.of[container] = s
}

// EndEmpty ends the shims that no container was said to be in.
func (p *Pool) EndEmpty() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, s := range p.all {
		p.retire(s)
	}
}

func (p *Pool) dir(id string) string    { return filepath.Join(p.cfg.Dir, id) }
func (p *Pool) socket(id string) string { return filepath.Join(p.cfg.SocketDir, id) }

// Address is where containerd reaches a shim (containerd v2.4, CreateTaskRequest.task_api_address).
func (p *Pool) Address(s *Shim) string { return "ttrpc+unix://" + p.socket(s.ID) }

// Version is that of the shims' API.
const Version = 3

// Join finds a place for a container in a shim for those with its key, and starts one when none has room. Made has to follow.
func (p *Pool) Join(key, container string) (*Shim, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil, errors.New("the agent stops")
	}
	for _, s := range p.all {
		if s.key == key && !s.ended && !s.old && len(s.making)+len(s.there) < p.cfg.Max {
			s.making[container] = true
			p.of[container] = s
			return s, nil
		}
	}
	s, err := p.start(key)
	if err != nil {
		return nil, fmt.Errorf("start a shim: %w", err)
	}
	s.making[container] = true
	p.of[container] = s
	p.all[s.ID] = s
	p.watch(s)
	return s, nil
}

// Made says that a container is in its shim, or has not come into it.
func (p *Pool) Made(container string, ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.of[container]
	if s == nil || !s.making[container] {
		return
	}
	delete(s.making, container)
	if ok {
		s.there[container] = true
	} else {
		delete(p.of, container)
		p.retire(s)
	}
	s.tell()
}

// tell wakes who waits for a change.
func (s *Shim) tell() {
	close(s.changed)
	s.changed = make(chan struct{})
}

// Leave has to come before a container is removed: it waits while there is no other one in its shim, and one is being made there.
func (p *Pool) Leave(ctx context.Context, container string) error {
	for {
		p.mu.Lock()
		s := p.of[container]
		if s == nil || !s.there[container] {
			p.mu.Unlock()
			return nil
		}
		if len(s.there) > 1 || len(s.making) == 0 || s.ended {
			delete(s.there, container)
			if len(s.there)+len(s.making) == 0 {
				s.ended = true
			}
			s.tell()
			p.mu.Unlock()
			return nil
		}
		changed := s.changed
		p.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("wait for containers that are being made in its shim: %w", ctx.Err())
		}
	}
}

// Left says that a container is in its shim no more, or has never come so far.
func (p *Pool) Left(container string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.of[container]
	if s == nil {
		return
	}
	delete(p.of, container)
	delete(s.making, container)
	delete(s.there, container)
	p.retire(s)
	s.tell()
}

// retire sees to it that a shim without containers ends. p.mu is held.
func (p *Pool) retire(s *Shim) {
	if len(s.there)+len(s.making) > 0 || p.closed || s.retiring || p.all[s.ID] != s {
		return
	}
	for _, in := range p.of {
		if in == s {
			return // one is being removed
		}
	}
	s.ended, s.retiring = true, true
	fd, err := unix.FcntlInt(uintptr(s.pidfd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		p.cfg.Logger.Warn("whether a shim without containers ends is not seen to", "shim", s.ID, "error", err)
		return
	}
	p.watching.Go(func() {
		defer func() { _ = unix.Close(fd) }()
		if p.wait(fd, retirement) == late {
			_ = unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0)
		}
	})
}

// Gone says whether a shim has ended.
func (p *Pool) Gone(s *Shim) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.all[s.ID] != s || p.wait(s.pidfd, 0) == ended
}

// Lives says whether the shim with an id is one of the pool's and has not ended.
func (p *Pool) Lives(id string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.all[id]
	return s != nil && p.wait(s.pidfd, 0) != ended
}

// start starts a shim. p.mu is held.
func (p *Pool) start(key string) (_ *Shim, err error) {
	s := newShim(Prefix+randomHex(), key)
	dir := p.dir(s.ID)
	defer func() {
		if err != nil {
			if s.log != nil {
				_ = s.log.Close()
			}
			p.forget(s.ID)
		}
	}()
	if err := os.Mkdir(dir, 0o700); err != nil {
		return nil, err
	}
	log := filepath.Join(dir, "log")
	if err := unix.Mkfifo(log, 0o600); err != nil {
		return nil, fmt.Errorf("make %s: %w", log, err)
	}
	// Also for writing: there is no end then while the shim has not opened it yet.
	if s.log, err = os.OpenFile(log, os.O_RDWR, 0); err != nil {
		return nil, err
	}
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: p.socket(s.ID), Net: "unix"})
	if err != nil {
		return nil, err
	}
	listener.SetUnlinkOnClose(false)
	defer func() { _ = listener.Close() }()
	socket, err := listener.File()
	if err != nil {
		return nil, err
	}
	defer func() { _ = socket.Close() }()

	// As containerd's own start of it does (containerd v2.4, cmd/containerd-shim-runc-v2/manager).
	cmd := exec.Command(filepath.Join(p.cfg.BinDir, program), "-namespace", p.cfg.Namespace, "-id", s.ID, "-address", p.cfg.Address)
	cmd.Dir = dir
	cmd.Env = []string{
		"PATH=" + p.cfg.BinDir + ":/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "GOMAXPROCS=2", "MAX_SHIM_VERSION=2",
		"TTRPC_ADDRESS=" + p.cfg.Address + ".ttrpc", "GRPC_ADDRESS=" + p.cfg.Address, "NAMESPACE=" + p.cfg.Namespace,
	}
	for _, name := range []string{"HOME", "TMPDIR"} {
		if value, ok := os.LookupEnv(name); ok {
			cmd.Env = append(cmd.Env, name+"="+value)
		}
	}
	cmd.ExtraFiles = []*os.File{socket}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, PidFD: &s.pidfd}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	s.pid = cmd.Process.Pid
	_ = cmd.Process.Release() // watch reaps it
	if s.pidfd < 0 {
		_ = unix.Kill(s.pid, unix.SIGKILL)
		_, _ = unix.Wait4(s.pid, nil, 0, nil)
		return nil, errors.New("the kernel has no descriptors for processes: it must be Linux 5.4 or newer")
	}
	p.oomScore(s.pid)
	return s, nil
}

// oomScore makes the kernel end a shim before the agent and after its containers, as containerd does with its own.
func (p *Pool) oomScore(pid int) {
	text, err := os.ReadFile("/proc/self/oom_score_adj")
	own, convErr := strconv.Atoi(strings.TrimSpace(string(text)))
	if err = errors.Join(err, convErr); err == nil {
		err = os.WriteFile(fmt.Sprintf("/proc/%d/oom_score_adj", pid), []byte(strconv.Itoa(min(own+1, 1000))), 0o644)
	}
	if err != nil {
		p.cfg.Logger.Warn("a shim has the agent's own place among what the kernel ends for want of memory", "error", err)
	}
}

func randomHex() string {
	b := make([]byte, 4)
	_, _ = rand.Read(b) // it cannot fail
	return hex.EncodeToString(b)
}

// watch forgets a shim when it has ended, and says what it says. p.mu may be held.
func (p *Pool) watch(s *Shim) {
	if s.log != nil {
		p.watching.Go(func() {
			for lines := bufio.NewReader(s.log); ; {
				line, _, err := lines.ReadLine()
				if err != nil {
					return
				}
				p.cfg.Logger.Log(context.Background(), levelOf(line), "a shim says", "shim", s.ID, "line", string(line))
			}
		})
	}
	fd := s.pidfd
	p.watching.Go(func() {
		if s.log != nil {
			defer func() { _ = s.log.Close() }()
		}
		how := p.wait(fd, -1)
		p.mu.Lock()
		left := len(s.there)
		s.ended = true
		s.tell()
		delete(p.all, s.ID)
		_ = unix.Close(fd)
		p.mu.Unlock()
		if how != ended {
			return
		}
		_, _ = unix.Wait4(s.pid, nil, unix.WNOHANG, nil) // it is a child unless an earlier agent has started it
		p.forget(s.ID)
		if left > 0 {
			p.cfg.Logger.Warn("a shim has ended under its containers", "shim", s.ID, "containers", left)
		}
	})
}

// levelOf is how much what a shim says is worth: a warning, unless it says that it is less. A panic has no level.
func levelOf(line []byte) slog.Level {
	if bytes.Contains(line, []byte("level=info")) || bytes.Contains(line, []byte("level=debug")) {
		return slog.LevelDebug
	}
	return slog.LevelWarn
}

// outcome is how a wait has ended.
type outcome int

const (
	ended outcome = iota
	late
	stopping
)

// wait waits until the process has ended that a descriptor is of, the time is over (never when it is negative) or the pool is closed.
func (p *Pool) wait(pidfd int, limit time.Duration) outcome {
	until := time.Now().Add(limit)
	for {
		left := -1
		if limit >= 0 {
			left = max(int(time.Until(until).Milliseconds()), 0)
		}
		poll := []unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}, {Fd: int32(p.stopped.Fd()), Events: unix.POLLIN}}
		switch n, err := unix.Poll(poll, left); {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return stopping
		case poll[0].Revents != 0:
			return ended
		case poll[1].Revents != 0:
			return stopping
		case n == 0:
			return late
		}
	}
}

// forget removes the files of a shim that does not run.
func (p *Pool) forget(id string) {
	for _, err := range []error{os.Remove(p.socket(id)), os.RemoveAll(p.dir(id))} {
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			p.cfg.Logger.Warn("files of a shim that has ended stay", "shim", id, "error", err)
		}
	}
}

// Close ends the watching. Shims and what is in them live on.
func (p *Pool) Close() error {
	p.mu.Lock()
	again := p.closed
	p.closed = true
	p.mu.Unlock()
	if again {
		return nil
	}
	err := p.stop.Close()
	p.watching.Wait()
	return errors.Join(err, p.stopped.Close())
}
