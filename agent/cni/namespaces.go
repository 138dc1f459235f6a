package cni

import (
	"errors"
	"fmt"
	"os"

	"github.com/containerd/containerd/v2/pkg/sys"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/edge-serverless-box/esb/guard/ownthread"
)

// pinNamespaces makes a user namespace, whose ids from 0 on are those of the machine from first on, and a network namespace
// that belongs to it, with its loopback up. It keeps them as mounts on the new files userns and netns. On an error nothing is
// left.
//
// The kernel counts what a user namespace has (inotify instances, processes, memory of pipes) on its owner too, so that is
// the first of the ids: containers count neither against root nor against each other.
func pinNamespaces(netns, userns string, first uint32) error {
	for try := 1; ; try++ {
		err := pinOnce(netns, userns, first)
		// The process that holds the namespaces until they are mounted dies with the thread that has started it (PR_SET_PDEATHSIG).
		// That one goes back to Go's runtime at once, and another goroutine may end it (ownthread, network plugins).
		gone := errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ESRCH)
		if !gone || try == pinTries {
			return err
		}
	}
}

// pinTries bounds the attempts of pinNamespaces.
const pinTries = 10

// pinOnce is one attempt.
func pinOnce(netns, userns string, first uint32) error {
	for _, path := range []string{netns, userns} {
		f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_RDONLY, 0o600)
		if err == nil {
			err = f.Close()
		}
		if err != nil {
			return errors.Join(fmt.Errorf("create the file of a namespace: %w", err), unpin(netns), unpin(userns))
		}
	}
	ids := fmt.Sprintf("0:%d:%d", first, IDs)
	err := sys.UnshareAfterEnterUserns(ids, ids, unix.CLONE_NEWNET, func(pid int) error {
		for kind, path := range map[string]string{"net": netns, "user": userns} {
			if err := unix.Mount(fmt.Sprintf("/proc/%d/ns/%s", pid, kind), path, "", unix.MS_BIND, ""); err != nil {
				return fmt.Errorf("mount it on %s: %w", path, err)
			}
		}
		return nil
	})
	if err != nil {
		err = fmt.Errorf("make a user and a network namespace (the kernel needs CONFIG_USER_NS, and user.max_user_namespaces above 0): %w", err)
	} else {
		err = ownthread.Do(func() error { return prepareNetns(netns) })
	}
	if err != nil {
		return errors.Join(err, unpin(netns), unpin(userns))
	}
	return nil
}

// prepareNetns moves the calling thread into a network namespace and sets that up.
func prepareNetns(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("open the network namespace: %w", err)
	}
	defer func() { _ = f.Close() }()
	if err := unix.Setns(int(f.Fd()), unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("enter the network namespace: %w", err)
	}
	// Interfaces made from here on have no IPv6 and so no wait for duplicate address detection. The loopback keeps
	// ::1, because programs listen there. A kernel without IPv6 has no such file.
	err = os.WriteFile("/proc/sys/net/ipv6/conf/default/disable_ipv6", []byte("1"), 0)
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
	return nil
}

// isPinned tells whether path holds a namespace; after a reboot only the empty file is left.
func isPinned(path string) bool {
	var stat unix.Statfs_t
	return unix.Statfs(path, &stat) == nil && stat.Type == unix.NSFS_MAGIC
}

// unpin lets go of a namespace and removes its file. One that is gone already is no error.
func unpin(path string) error {
	for {
		err := unix.Unmount(path, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
		if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOENT) {
			break
		}
		if err != nil {
			return fmt.Errorf("unmount the namespace %s: %w", path, err)
		}
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("remove the file of a namespace: %w", err)
	}
	return nil
}
