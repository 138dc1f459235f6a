package tmpdisk

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/edge-serverless-box/esb/guard/ownthread"
)

const (
	filePrefix = "disk-"
	blockSize  = 4096
	perMB      = 1 << 20 / blockSize
	// inodesPerMB is one file a 16 KB, mkfs.ext4's own measure.
	inodesPerMB = 64
	// overhead is the first guess at what a file system takes for itself, in blocks; slack is how much larger than promised
	// it may be: a function's files need a few blocks beside their data.
	overhead, slack = 6 * perMB, perMB * 3 / 4
	// fittings bounds how often a file system is made until it has the right size.
	fittings = 5
	// loopAttempts bounds how often a free loop device is asked for, which another process may take first.
	loopAttempts = 50
	// loopMajor is the major number of loop devices, controlMajor and controlMinor are those of their control device (Linux,
	// devices.txt).
	loopMajor, controlMajor, controlMinor = 7, 10, 237
)

// template is an empty file system to copy from.
type template struct {
	sizeMB int
	file   *os.File
}

func (p *Pool) closeTemplates() error {
	var errs []error
	for _, t := range p.templates {
		errs = append(errs, t.file.Close())
	}
	p.templates = nil
	return errors.Join(errs...)
}

// make makes a disk.
func (p *Pool) make(ctx context.Context, sizeMB int) (_ *Disk, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("make a disk of %d MB for /tmp: %w", sizeMB, err)
		}
	}()
	p.making.Lock()
	defer p.making.Unlock()
	i := slices.IndexFunc(p.templates, func(t *template) bool { return t.sizeMB == sizeMB })
	if i < 0 {
		file, err := p.format(ctx, sizeMB)
		if err != nil {
			return nil, err
		}
		if len(p.templates) == templates {
			_ = p.templates[0].file.Close()
			p.templates = slices.Delete(p.templates, 0, 1)
		}
		p.templates = append(p.templates, &template{sizeMB: sizeMB, file: file})
		i = len(p.templates) - 1
	}
	file, err := p.copy(p.templates[i].file)
	if err != nil {
		return nil, err
	}
	d, err := mountFile(file)
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	d.sizeMB = sizeMB
	return d, file.Close() // the loop device has it
}

// file makes a file without a name.
func (p *Pool) file(size int64) (*os.File, error) {
	f, err := os.CreateTemp(p.cfg.Dir, filePrefix)
	if err != nil {
		return nil, err
	}
	if err := errors.Join(os.Remove(f.Name()), f.Truncate(size)); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// format makes an empty file system in which sizeMB can be written, and not a MB more.
func (p *Pool) format(ctx context.Context, sizeMB int) (*os.File, error) {
	want := int64(sizeMB) * perMB
	blocks := want + overhead
	for range fittings {
		f, err := p.file(blocks * blockSize)
		if err != nil {
			return nil, err
		}
		got, err := p.fit(ctx, f, sizeMB*inodesPerMB)
		if err != nil {
			return nil, errors.Join(err, f.Close())
		}
		if got >= want && got < want+perMB {
			return f, nil
		}
		blocks += want + slack - got
		if err := f.Close(); err != nil {
			return nil, err
		}
	}
	return nil, fmt.Errorf("mkfs.ext4 makes no file system of this size, the last one had %d blocks", blocks)
}

// fit makes a file system that fills f, and returns how many blocks can be written to it. A copy of it tells: f itself is never
// mounted, because nothing says when the kernel has written the last of what was.
func (p *Pool) fit(ctx context.Context, f *os.File, inodes int) (int64, error) {
	// No journal: nothing on it outlives a crash of the machine. Nothing reserved for root or for a file system that grows.
	cmd := exec.CommandContext(ctx, mkfs(), "-q", "-F", "-b", strconv.Itoa(blockSize), "-N", strconv.Itoa(inodes), "-m", "0", "-O", "^has_journal,^resize_inode",
		"-E", "nodiscard,lazy_itable_init=1", "/proc/self/fd/3")
	cmd.ExtraFiles = []*os.File{f}
	if out, err := cmd.CombinedOutput(); err != nil {
		return 0, fmt.Errorf("%w: %s", err, bytes.TrimSpace(out))
	}
	same, err := p.copy(f)
	if err != nil {
		return 0, err
	}
	defer func() { _ = same.Close() }()
	d, err := mountFile(same)
	if err != nil {
		return 0, err
	}
	var fs unix.Statfs_t
	err = unix.Fstatfs(int(d.root.Fd()), &fs)
	return int64(fs.Bavail), errors.Join(err, d.Close())
}

// mkfs is where distributions have it; root's PATH does not always lead there.
func mkfs() string {
	for _, name := range []string{"/usr/sbin/mkfs.ext4", "/sbin/mkfs.ext4"} {
		if _, err := os.Stat(name); err == nil {
			return name
		}
	}
	return "mkfs.ext4"
}

// copy makes a file with the same content, as sparse as the other.
func (p *Pool) copy(from *os.File) (*os.File, error) {
	about, err := from.Stat()
	if err != nil {
		return nil, err
	}
	to, err := p.file(about.Size())
	if err != nil {
		return nil, err
	}
	for at := int64(0); ; {
		begin, err := unix.Seek(int(from.Fd()), at, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) {
			return to, nil
		}
		if err == nil {
			at, err = unix.Seek(int(from.Fd()), begin, unix.SEEK_HOLE)
		}
		if err == nil {
			err = copyRange(from, to, begin, at)
		}
		if err != nil {
			return nil, errors.Join(err, to.Close())
		}
	}
}

func copyRange(from, to *os.File, begin, end int64) error {
	buf := make([]byte, min(end-begin, 1<<20))
	for begin < end {
		n, err := from.ReadAt(buf[:min(int64(len(buf)), end-begin)], begin)
		if err != nil {
			return err
		}
		if _, err := to.WriteAt(buf[:n], begin); err != nil {
			return err
		}
		begin += int64(n)
	}
	return nil
}

// mountFile makes a disk of a file, by a loop device that ends with the disk.
func mountFile(file *os.File) (_ *Disk, err error) {
	device, err := attach(file)
	if err != nil {
		return nil, fmt.Errorf("loop device: %w", err)
	}
	defer func() { err = errors.Join(err, device.Close()) }()
	fs, err := unix.Fsopen("ext4", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("fsopen ext4: %w", err)
	}
	defer func() { _ = unix.Close(fs) }()
	err = unix.FsconfigSetString(fs, "source", device.Name())
	// Room that is given up is given back to the machine. What a function syncs need not survive a power failure: the disk
	// does not.
	for _, option := range []string{"discard", "nobarrier", "noinit_itable"} {
		if err == nil {
			err = unix.FsconfigSetFlag(fs, option)
		}
	}
	if err == nil {
		err = unix.FsconfigSetString(fs, "errors", "remount-ro")
	}
	if err == nil {
		err = unix.FsconfigCreate(fs)
	}
	if err != nil {
		return nil, fmt.Errorf("mount %s: %w", device.Name(), err)
	}
	mount, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV|unix.MOUNT_ATTR_NOATIME)
	if err != nil {
		return nil, fmt.Errorf("mount %s: %w", device.Name(), err)
	}
	// ext4 keeps up to 16 MB back for its own trouble; where that cannot be set, the disk is so much larger.
	_ = os.WriteFile(filepath.Join("/sys/fs/ext4", filepath.Base(device.Name()), "reserved_clusters"), []byte("0"), 0o644)
	root, err := unix.Openat(mount, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, errors.Join(err, unix.Close(mount))
	}
	d := &Disk{mount: mount, root: os.NewFile(uintptr(root), "/tmp")}
	if err := unix.Unlinkat(root, "lost+found", unix.AT_REMOVEDIR); err != nil && !errors.Is(err, unix.ENOENT) {
		return nil, errors.Join(err, d.Close())
	}
	return d, nil
}

// attach makes a loop device of a file; it ends when nobody uses it any more.
func attach(file *os.File) (*os.File, error) {
	control, err := openDevice("/dev/loop-control", unix.S_IFCHR, unix.Mkdev(controlMajor, controlMinor), os.O_RDWR)
	if err != nil {
		return nil, err
	}
	defer func() { _ = control.Close() }()
	for range loopAttempts {
		number, err := unix.IoctlRetInt(int(control.Fd()), unix.LOOP_CTL_GET_FREE)
		if err != nil {
			return nil, fmt.Errorf("ask for a free one: %w", err)
		}
		device, err := openDevice("/dev/loop"+strconv.Itoa(number), unix.S_IFBLK, unix.Mkdev(loopMajor, uint32(number)), os.O_RDWR)
		if err != nil {
			return nil, err
		}
		// Direct: what is cached is cached once, as the container's.
		config := unix.LoopConfig{Fd: uint32(file.Fd()), Size: blockSize, Info: unix.LoopInfo64{Flags: unix.LO_FLAGS_AUTOCLEAR | unix.LO_FLAGS_DIRECT_IO}}
		copy(config.Info.File_name[:], "esb-tmp")
		if err = unix.IoctlLoopConfigure(int(device.Fd()), &config); err == nil {
			return device, nil
		}
		if err = errors.Join(err, device.Close()); !errors.Is(err, unix.EBUSY) {
			return nil, fmt.Errorf("set up %s: %w", device.Name(), err)
		}
	}
	return nil, errors.New("others take each free one")
}

// openDevice opens a device of /dev, and makes it first where that folder does not show the machine's devices (Docker).
func openDevice(name string, kind uint32, number uint64, flag int) (*os.File, error) {
	f, err := os.OpenFile(name, flag, 0)
	if !errors.Is(err, os.ErrNotExist) {
		return f, err
	}
	if err := unix.Mknod(name, kind|0o600, int(number)); err != nil && !errors.Is(err, unix.EEXIST) {
		return nil, fmt.Errorf("make %s: %w", name, err)
	}
	return os.OpenFile(name, flag, 0)
}

// moveInto gives a mount its place in another mount namespace.
func moveInto(namespace *os.File, mount int, target string) error {
	return ownthread.Do(func() error {
		if err := unix.Unshare(unix.CLONE_FS); err != nil {
			return fmt.Errorf("unshare: %w", err)
		}
		if err := unix.Setns(int(namespace.Fd()), unix.CLONE_NEWNS); err != nil {
			return fmt.Errorf("setns: %w", err)
		}
		// A link at the target is followed as in there: the thread's root is the container's.
		return os.NewSyscallError("move_mount", unix.MoveMount(mount, "", unix.AT_FDCWD, target, unix.MOVE_MOUNT_F_EMPTY_PATH|unix.MOVE_MOUNT_T_SYMLINKS))
	})
}
