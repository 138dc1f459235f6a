// Package rootmount gives a container that runs already another root filesystem: a read-only view of an image's layers, with
// what the container had mounted and with more of this machine, moved into its mount namespace by a thread of this process.
// pivot_root(2) there moves the root and the working folder of each process of that namespace.
//
// Views are mounted in a mount namespace that nothing but a descriptor of this process holds: however it ends, nothing of
// them is left anywhere.
package rootmount

import (
	"errors"
	"fmt"
	"os"
	"path"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/edge-serverless-box/esb/guard/ownthread"
)

// Views are read-only root filesystems by their keys, each mounted once however many containers have it.
type Views struct {
	// dir is an empty folder, on which something is mounted while it is made.
	dir string
	// ns is the mount namespace of the views.
	ns *os.File

	// mu guards the following. It is held, for reading, while a view is cloned.
	mu    sync.RWMutex
	views map[string]string // by key, the folder in ns
	made  int
}

// Open makes the namespace; dir is a folder of this process alone, and is made. An error says that this kernel cannot do what
// this package needs (Linux 5.12).
func Open(dir string) (*Views, error) {
	v := &Views{dir: dir, views: map[string]string{}}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the folder of views: %w", err)
	}
	if err := ownthread.Do(v.makeNamespace); err != nil {
		return nil, errors.Join(fmt.Errorf("make the mount namespace of views: %w", err), v.Close())
	}
	return v, nil
}

// makeNamespace makes a namespace with an empty folder in memory and nothing of the machine's: what is unmounted elsewhere
// must be free then.
func (v *Views) makeNamespace() (err error) {
	if err := apart(); err != nil {
		return err
	}
	if v.ns, err = os.Open("/proc/thread-self/ns/mnt"); err != nil {
		return err
	}
	if err := unix.Mount("tmpfs", v.dir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "mode=700,size=1m"); err != nil {
		return fmt.Errorf("mount a tmpfs: %w", err)
	}
	clone, err := clone(v.dir, unix.MOUNT_ATTR_RDONLY)
	if err != nil {
		return err
	}
	if err := unix.Close(clone); err != nil {
		return err
	}
	return pivot(v.dir)
}

// Close gives up all views. Containers that have one keep it.
func (v *Views) Close() error {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.views = map[string]string{}
	if v.ns == nil {
		return nil
	}
	err := v.ns.Close()
	v.ns = nil
	return err
}

// Has says whether there is a view.
func (v *Views) Has(key string) bool {
	v.mu.RLock()
	defer v.mu.RUnlock()
	return v.views[key] != ""
}

// Add mounts a view of the layers that options of an overlay name (lowerdir=...). One that is there already stays.
func (v *Views) Add(key string, options []string) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.views[key] != "" {
		return nil
	}
	if v.ns == nil {
		return errors.New("mount a view: they are closed")
	}
	name := "/" + strconv.Itoa(v.made)
	v.made++
	err := ownthread.Do(func() error {
		if err := apart(); err != nil {
			return err
		}
		overlay, err := v.overlay(options)
		if err != nil {
			return err
		}
		defer func() { _ = unix.Close(overlay) }()
		if err := enter(v.ns); err != nil {
			return err
		}
		if err := unix.Mkdir(name, 0o700); err != nil {
			return fmt.Errorf("make its folder: %w", err)
		}
		return os.NewSyscallError("move_mount", unix.MoveMount(overlay, "", unix.AT_FDCWD, name, unix.MOVE_MOUNT_F_EMPTY_PATH))
	})
	if err != nil {
		return fmt.Errorf("mount a view: %w", err)
	}
	v.views[key] = name
	return nil
}

// overlay mounts layers by mount(2), which takes the folders of many layers when they are named from where they have in
// common; fsconfig(2) takes 256 bytes.
func (v *Views) overlay(options []string) (int, error) {
	var layers, rest []string
	for _, o := range options {
		if text, ok := strings.CutPrefix(o, "lowerdir="); ok {
			layers = strings.Split(text, ":")
		} else if o != "ro" {
			rest = append(rest, o)
		}
	}
	if len(layers) < 2 {
		return -1, fmt.Errorf("an overlay has two layers or more, got options %q", options)
	}
	common := path.Dir(layers[0])
	for _, l := range layers {
		for !strings.HasPrefix(l, strings.TrimSuffix(common, "/")+"/") {
			if common == "/" || common == "." {
				return -1, fmt.Errorf("the layer %q is named by no whole path", l)
			}
			common = path.Dir(common)
		}
	}
	for i := range layers {
		layers[i] = strings.TrimPrefix(layers[i], strings.TrimSuffix(common, "/")+"/")
	}
	if err := unix.Chdir(common); err != nil {
		return -1, fmt.Errorf("go to the layers: %w", err)
	}
	data := strings.Join(append(rest, "lowerdir="+strings.Join(layers, ":")), ",")
	if err := unix.Mount("overlay", v.dir, "overlay", unix.MS_RDONLY, data); err != nil {
		return -1, fmt.Errorf("mount the overlay: %w", err)
	}
	return clone(v.dir, unix.MOUNT_ATTR_RDONLY)
}

// Drop gives up a view. Containers that have it keep it.
func (v *Views) Drop(key string) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	name := v.views[key]
	if name == "" {
		return nil
	}
	delete(v.views, key)
	err := ownthread.Do(func() error {
		if err := leave(); err != nil {
			return err
		}
		if err := enter(v.ns); err != nil {
			return err
		}
		if err := unix.Unmount(name, unix.MNT_DETACH); err != nil {
			return err
		}
		return unix.Rmdir(name)
	})
	if err != nil {
		return fmt.Errorf("give up a view: %w", err)
	}
	return nil
}

// apart gives this thread a mount namespace of its own, from which no mount gets to others.
func apart() error {
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil { // with CLONE_FS, which it implies
		return fmt.Errorf("unshare: %w", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make the mounts private: %w", err)
	}
	return nil
}

// leave gives this thread a root and a working folder of its own, as setns(2) wants it.
func leave() error { return os.NewSyscallError("unshare", unix.Unshare(unix.CLONE_FS)) }

// enter brings this thread into a mount namespace.
func enter(ns *os.File) error {
	return os.NewSyscallError("setns", unix.Setns(int(ns.Fd()), unix.CLONE_NEWNS))
}

// pivot makes the mount at dir the root of this thread's mount namespace, and lets go of what was.
func pivot(dir string) error {
	if err := unix.Chdir(dir); err != nil {
		return fmt.Errorf("go to the new root: %w", err)
	}
	if err := unix.PivotRoot(".", "."); err != nil {
		return fmt.Errorf("pivot_root: %w", err)
	}
	// The old root is mounted on the new one now.
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return fmt.Errorf("unmount the old root: %w", err)
	}
	return nil
}

// clone returns a mount of its own of what is at a path, private and with more attributes.
func clone(of string, attributes uint64) (int, error) {
	fd, err := unix.OpenTree(unix.AT_FDCWD, of, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		return -1, fmt.Errorf("open_tree %s: %w", of, err)
	}
	attr := unix.MountAttr{Attr_set: attributes, Propagation: unix.MS_PRIVATE}
	if err := unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH, &attr); err != nil {
		return -1, errors.Join(fmt.Errorf("mount_setattr %s: %w", of, err), unix.Close(fd))
	}
	return fd, nil
}
