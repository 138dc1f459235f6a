package rootmount

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/edge-serverless-box/esb/guard/ownthread"
)

// NewRoot is the folder of a container, as it is before, that the new root is mounted on.
const NewRoot = "/newroot"

// ErrNoView says that a view is not there, or not any more.
var ErrNoView = errors.New("its view has been given up")

// Attributes of mounts.
const (
	ReadOnly = unix.MOUNT_ATTR_RDONLY
	NoSuid   = unix.MOUNT_ATTR_NOSUID
	NoDev    = unix.MOUNT_ATTR_NODEV
	NoExec   = unix.MOUNT_ATTR_NOEXEC
)

// Root says what the root filesystem of a container is to be.
type Root struct {
	// View is the key of the view.
	View string
	// Keep are mount points of the container as it is: they go along, with all that is mounted on them.
	Keep []string
	// Binds are mounted after those, in their order.
	Binds []Bind
	// Tmp is /tmp in memory; nil for none.
	Tmp *Tmp
}

// Bind is a file or folder of this machine that a container sees.
type Bind struct {
	Source, Target string
	Attributes     uint64
}

// Tmp is a file system in memory, which everybody may write to.
type Tmp struct {
	SizeMB int
	// Owner is the user of this machine whose the folder is.
	Owner uint32
}

// placed is a mount without a place, and where it is to be.
type placed struct {
	fd     int
	target string
}

// Enter gives the container of a mount namespace its new root. Links in the view are followed as in the container. A container with
// which it has failed is good for nothing any more. The namespace stays the caller's to close.
func (v *Views) Enter(container *os.File, root Root) (err error) {
	fail := func(err error) error {
		return fmt.Errorf("give a container its root filesystem: %w", err)
	}
	mounts, closeMounts, err := prepare(root.Binds, root.Tmp)
	defer func() { err = closeMounts(err) }()
	if err != nil {
		return fail(err)
	}
	v.mu.RLock()
	defer v.mu.RUnlock()
	name := v.views[root.View]
	if name == "" {
		return fail(ErrNoView)
	}
	err = ownthread.Do(func() error {
		if err := leave(); err != nil {
			return err
		}
		if err := enter(v.ns); err != nil {
			return err
		}
		view, err := clone(name, unix.MOUNT_ATTR_RDONLY)
		if err != nil {
			return err
		}
		defer func() { _ = unix.Close(view) }()
		if err := enter(container); err != nil {
			return err
		}
		return change(view, root.Keep, mounts)
	})
	if err != nil {
		return fail(err)
	}
	return nil
}

// change makes view the root of this thread's mount namespace.
func change(view int, keep []string, mounts []placed) error {
	if err := unix.MoveMount(view, "", unix.AT_FDCWD, NewRoot, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return fmt.Errorf("mount the view: %w", err)
	}
	for _, name := range keep {
		if err := place(view, unix.AT_FDCWD, name, name, 0); err != nil {
			return fmt.Errorf("take %s along: %w", name, err)
		}
	}
	if err := placeAll(view, mounts); err != nil {
		return err
	}
	return pivot(NewRoot)
}

// prepare makes mounts without a place. What it returns second closes their descriptors, whatever happens, and adds to an error.
func prepare(binds []Bind, tmp *Tmp) (mounts []placed, closeAll func(error) error, err error) {
	closeAll = func(err error) error {
		for _, m := range mounts {
			err = errors.Join(err, unix.Close(m.fd))
		}
		return err
	}
	for _, b := range binds {
		fd, err := clone(b.Source, b.Attributes)
		if err != nil {
			return mounts, closeAll, err
		}
		mounts = append(mounts, placed{fd, b.Target})
	}
	if tmp != nil {
		fd, err := tmp.mount()
		if err != nil {
			return mounts, closeAll, err
		}
		mounts = append(mounts, placed{fd, "/tmp"})
	}
	return mounts, closeAll, nil
}

// placeAll moves mounts to their places for who has root for its root.
func placeAll(root int, mounts []placed) error {
	for _, m := range mounts {
		if err := place(root, m.fd, "", m.target, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
			return fmt.Errorf("mount %s: %w", m.target, err)
		}
	}
	return nil
}

// place moves a mount to where target is for who has root for its root.
func place(root, from int, name, target string, flags int) error {
	at, err := unix.Openat2(root, target, &unix.OpenHow{
		Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS,
	})
	if err != nil {
		return fmt.Errorf("look for it: %w", err)
	}
	defer func() { _ = unix.Close(at) }()
	return os.NewSyscallError("move_mount", unix.MoveMount(from, name, at, "", flags|unix.MOVE_MOUNT_T_EMPTY_PATH))
}

// mount makes the file system.
func (t Tmp) mount() (int, error) {
	fs, err := unix.Fsopen("tmpfs", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return -1, fmt.Errorf("fsopen tmpfs: %w", err)
	}
	defer func() { _ = unix.Close(fs) }()
	for _, o := range []struct{ key, value string }{
		{"source", "tmpfs"}, {"mode", "1777"}, {"size", fmt.Sprintf("%dm", t.SizeMB)},
		{"uid", fmt.Sprint(t.Owner)}, {"gid", fmt.Sprint(t.Owner)},
	} {
		if err := unix.FsconfigSetString(fs, o.key, o.value); err != nil {
			return -1, fmt.Errorf("tmpfs %s=%s: %w", o.key, o.value, err)
		}
	}
	if err := unix.FsconfigCreate(fs); err != nil {
		return -1, fmt.Errorf("make a tmpfs: %w", err)
	}
	fd, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, NoSuid|NoDev)
	if err != nil {
		return -1, fmt.Errorf("mount a tmpfs: %w", err)
	}
	return fd, nil
}
