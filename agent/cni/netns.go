package cni

import (
	"errors"
	"fmt"
	"os"
	"runtime"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// pinNetns makes a network namespace with its loopback up and keeps it as a mount on the new file path. On an error
// nothing is left.
func pinNetns(path string) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_RDONLY, 0o600)
	if err != nil {
		return fmt.Errorf("create the file of a network namespace: %w", err)
	}
	if err := f.Close(); err != nil {
		return errors.Join(fmt.Errorf("create the file of a network namespace: %w", err), os.Remove(path))
	}
	done := make(chan error, 1)
	go func() {
		// Never unlocked: a thread that has changed its namespace ends with its goroutine and serves nobody else.
		runtime.LockOSThread()
		done <- pinThreadNetns(path)
	}()
	if err := <-done; err != nil {
		return errors.Join(err, unpinNetns(path))
	}
	return nil
}

// pinThreadNetns moves the calling thread into a new network namespace and mounts that on path.
func pinThreadNetns(path string) error {
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("make a network namespace: %w", err)
	}
	// Interfaces made from here on have no IPv6 and so no wait for duplicate address detection. The loopback keeps
	// ::1, because programs listen there. A kernel without IPv6 has no such file.
	err := os.WriteFile("/proc/sys/net/ipv6/conf/default/disable_ipv6", []byte("1"), 0)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("turn IPv6 off in the network namespace: %w", err)
	}
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return fmt.Errorf("find the loopback interface: %w", err)
	}
	if err := netlink.LinkSetUp(lo); err != nil {
		return fmt.Errorf("set the loopback interface up: %w", err)
	}
	source := fmt.Sprintf("/proc/self/task/%d/ns/net", unix.Gettid())
	if err := unix.Mount(source, path, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("mount the network namespace on %s: %w", path, err)
	}
	return nil
}

// isPinned tells whether path holds a namespace; after a reboot only the empty file is left.
func isPinned(path string) bool {
	var stat unix.Statfs_t
	return unix.Statfs(path, &stat) == nil && stat.Type == unix.NSFS_MAGIC
}

// unpinNetns lets go of a namespace and removes its file. One that is gone already is no error.
func unpinNetns(path string) error {
	for {
		err := unix.Unmount(path, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
		if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOENT) {
			break
		}
		if err != nil {
			return fmt.Errorf("unmount the network namespace %s: %w", path, err)
		}
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("remove the file of a network namespace: %w", err)
	}
	return nil
}
