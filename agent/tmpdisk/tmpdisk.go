// Package tmpdisk makes the disks that are /tmp in function containers: ext4 file systems of a fixed size, each in a sparse
// file of the machine's disk, which a loop device makes a disk of.
//
// A disk has no name anywhere: its file is unlinked before anything is in it, its loop device goes with its last user, and
// it is mounted in the container alone. So nothing is left of it when the container and the agent have let go of it,
// however they end: kill -9 and power failures included.
//
// What the kernel caches of it is charged to the container that writes, and taken back from it when its memory is short:
// the disk is larger than the memory.
package tmpdisk

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/edge-serverless-box/esb/agent"
)

const (
	// spares is how many disks are kept ready.
	spares = 2
	// refillPause is how long after a disk was taken the next one is made: not in the middle of the start that took it.
	refillPause = 200 * time.Millisecond
	// templates bounds the empty file systems that are kept to copy from, one a size.
	templates = 8
	// written is how much there must be on a disk before what the kernel has not written of it yet is worth throwing away.
	written = 16 << 20
	// shutdownNow is FS_IOC_SHUTDOWN with EXT4_GOING_FLAGS_NOLOGFLUSH (Linux, fs/ext4/ext4.h).
	fsIocShutdown, shutdownNow = 0x8004587d, 2
)

// Config of a Pool.
type Config struct {
	// Dir is a folder on the disk that the disks are cut from; it is made.
	Dir string
	// SizeMB is the size of those kept ready.
	SizeMB int
	// ReserveMB is what has to stay free in Dir when a disk that is taken is filled.
	ReserveMB int
	Logger    *slog.Logger
}

// Pool makes disks. Its methods may be called concurrently.
type Pool struct {
	cfg  Config
	log  *slog.Logger
	life context.Context
	end  context.CancelFunc
	wake chan struct{}
	done chan struct{}

	// making guards templates, the newest last.
	making    sync.Mutex
	templates []*template
	// mu guards ready.
	mu    sync.Mutex
	ready []*Disk
}

// Open tries whether disks can be had here, by making one.
func Open(ctx context.Context, cfg Config) (*Pool, error) {
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the folder of disks for /tmp: %w", err)
	}
	p := &Pool{cfg: cfg, log: cfg.Logger, wake: make(chan struct{}, 1), done: make(chan struct{})}
	p.life, p.end = context.WithCancel(context.WithoutCancel(ctx))
	if err := p.removeStale(); err != nil {
		return nil, err
	}
	first, err := p.make(ctx, cfg.SizeMB)
	if err != nil {
		return nil, errors.Join(err, p.closeTemplates())
	}
	p.ready = append(p.ready, first)
	p.wake <- struct{}{}
	go p.refill()
	return p, nil
}

// removeStale removes the files of an agent that was killed between making and unlinking one.
func (p *Pool) removeStale() error {
	entries, err := os.ReadDir(p.cfg.Dir)
	errs := []error{err}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), filePrefix) {
			errs = append(errs, os.Remove(filepath.Join(p.cfg.Dir, e.Name())))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("remove files of disks for /tmp: %w", err)
	}
	return nil
}

// Close gives up the disks that are ready. Those that were taken live on.
func (p *Pool) Close() error {
	p.end()
	<-p.done
	p.mu.Lock()
	defer p.mu.Unlock()
	errs := []error{p.closeTemplates()}
	for _, d := range p.ready {
		errs = append(errs, d.Close())
	}
	p.ready = nil
	return errors.Join(errs...)
}

// Take returns a disk of so many MB, which is empty. It is the caller's to close.
func (p *Pool) Take(ctx context.Context, sizeMB int) (*Disk, error) {
	if err := p.room(sizeMB); err != nil {
		return nil, err
	}
	p.mu.Lock()
	i := slices.IndexFunc(p.ready, func(d *Disk) bool { return d.sizeMB == sizeMB })
	var d *Disk
	if i >= 0 {
		d = p.ready[i]
		p.ready = slices.Delete(p.ready, i, i+1)
	}
	p.mu.Unlock()
	select {
	case p.wake <- struct{}{}:
	default:
	}
	if d != nil {
		return d, nil
	}
	return p.make(ctx, sizeMB)
}

// room refuses a disk that could not be filled: what a function writes is on the machine's disk later, when it cannot be
// told any more that there is no room.
func (p *Pool) room(sizeMB int) error {
	var fs unix.Statfs_t
	if err := unix.Statfs(p.cfg.Dir, &fs); err != nil {
		return fmt.Errorf("look how much of the disk is free for /tmp: %w", err)
	}
	free := fs.Bavail * uint64(fs.Bsize) >> 20
	if free < uint64(sizeMB+p.cfg.ReserveMB) {
		return agent.Errorf(agent.CodeExhausted, "the disk of %s is nearly full: it has %d MB left, a container needs %d MB for /tmp, and %d MB "+
			"have to stay free (FUNCTION_TMP_RESERVE_MB): make room, or set FUNCTION_TMP=memory", p.cfg.Dir, free, sizeMB, p.cfg.ReserveMB)
	}
	return nil
}

// refill keeps disks ready until Close.
func (p *Pool) refill() {
	defer close(p.done)
	for {
		select {
		case <-p.life.Done():
			return
		case <-p.wake:
		}
		select {
		case <-p.life.Done():
			return
		case <-time.After(refillPause):
		}
		for p.life.Err() == nil && p.missing() {
			d, err := p.make(p.life, p.cfg.SizeMB)
			if err != nil {
				if p.life.Err() == nil {
					p.log.Warn("no disk for /tmp can be made ahead", "error", err)
				}
				break
			}
			p.mu.Lock()
			p.ready = append(p.ready, d)
			p.mu.Unlock()
		}
	}
}

func (p *Pool) missing() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.ready) < spares
}

// Disk is an empty disk, mounted nowhere until Bind.
type Disk struct {
	sizeMB int
	// mount is the file system before it has a place, -1 afterwards; root is its top folder.
	mount int
	root  *os.File
}

// Adopt returns the disk that is /tmp of a process, nil when that is none of ours. process is the process's folder in /proc.
func Adopt(process *os.File) (*Disk, error) {
	fd, err := unix.Openat(int(process.Fd()), "root/tmp", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("look at /tmp of the process %s: %w", process.Name(), err)
	}
	root := os.NewFile(uintptr(fd), "/tmp")
	var fs unix.Statfs_t
	if err := unix.Fstatfs(int(root.Fd()), &fs); err != nil || fs.Type != unix.EXT4_SUPER_MAGIC {
		return nil, errors.Join(err, root.Close())
	}
	return &Disk{mount: -1, root: root}, nil
}

// Bind makes the disk /tmp of a container: of all that is in its mount namespace, which stays the caller's to close. owner is the
// machine's id that is root in there; everybody may write to it.
func (d *Disk) Bind(container *os.File, owner uint32) error {
	if d.mount < 0 {
		return errors.New("the disk has its place already")
	}
	if err := errors.Join(d.root.Chown(int(owner), int(owner)), d.root.Chmod(os.ModeSticky|0o777)); err != nil {
		return fmt.Errorf("give the disk to the container: %w", err)
	}
	if err := moveInto(container, d.mount, "/tmp"); err != nil {
		return fmt.Errorf("mount the disk in the container: %w", err)
	}
	err := unix.Close(d.mount)
	d.mount = -1
	return err
}

// Close lets go of the disk. When no container has it, or the one that has it has ended, that is its end: what is on it is
// lost, and not written to the machine's disk any more where the kernel has not done so.
func (d *Disk) Close() error {
	if d == nil || d.root == nil {
		return nil
	}
	var errs []error
	if d.mount >= 0 {
		errs = append(errs, unix.Close(d.mount))
		d.mount = -1
	}
	errs = append(errs, d.root.Close())
	d.root = nil
	return errors.Join(errs...)
}

// Discard is Close for a disk whose container has ended. Without it the kernel would write what is in its cache, to remove it
// right after: some hundred MB may be seconds of a slow disk's time, and of its life.
func (d *Disk) Discard() error {
	if d == nil || d.root == nil {
		return nil
	}
	var fs unix.Statfs_t
	fd := int(d.root.Fd())
	if err := unix.Fstatfs(fd, &fs); err == nil && fs.Type == unix.EXT4_SUPER_MAGIC && (fs.Blocks-fs.Bfree)*uint64(fs.Bsize) > written {
		// Where the kernel cannot, it writes.
		_ = unix.IoctlSetPointerInt(fd, fsIocShutdown, shutdownNow)
	}
	return d.Close()
}
