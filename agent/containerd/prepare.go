package containerd

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// labelContent keeps a snapshot for as long as there is the content that it names (containerd, "Garbage collection", back
// references).
const labelContent = "containerd.io/gc.bref.content"

// mountPoints are the folders, and mountFiles the files, of a container's root filesystem that something is mounted on. runc
// makes what an image lacks, but not as the root of a user namespace, to whom the image's folders do not belong.
var (
	mountPoints = []string{"/dev", "/opt", "/proc", "/sys", "/tmp", "/var/task", notifyDir}
	mountFiles  = []string{"/etc/hosts", "/etc/resolv.conf", initPath, logPath}
)

// prepared returns the snapshot that containers of an image are made on: the image's own, and in it what there must be to mount
// on, the working folder, and the user that functions run as. It is made once.
func (s *imageStore) prepared(ctx context.Context, img image, workingDir string) (string, error) {
	folders := append(slices.Clone(mountPoints), path.Clean("/"+workingDir))
	sum := sha256.Sum256([]byte(strings.Join(slices.Concat(folders, mountFiles, []string{defaultAccount}), "\n")))
	name := img.chain + "-esb-" + hex.EncodeToString(sum[:8])
	if _, ok := s.ready.Load(name); ok {
		return name, nil
	}
	_, err := s.once(ctx, "prepare "+name, func(ctx context.Context) (any, error) {
		sn := s.client.SnapshotService(snapshotter)
		if _, err := sn.Stat(ctx, name); err == nil || !errdefs.IsNotFound(err) {
			return nil, err
		}
		keep := snapshots.WithLabels(map[string]string{labelContent: img.content.String()})
		key := name + "-" + randomHex(suffixBytes)
		mounts, err := sn.Prepare(ctx, key, img.chain, keep)
		if err != nil {
			return nil, err
		}
		err = mount.WithTempMount(ctx, mounts, func(root string) error {
			return errors.Join(makeMountPoints(root, folders, mountFiles), addAccount(root))
		})
		if err == nil {
			err = sn.Commit(ctx, name, key, keep)
		}
		if err != nil {
			return nil, errors.Join(err, sn.Remove(ctx, key))
		}
		return nil, nil
	})
	if err != nil {
		return "", fmt.Errorf("prepare the root filesystem of image %s: %w", img.name, err)
	}
	s.ready.Store(name, struct{}{})
	return name, nil
}

// makeMountPoints makes what is not there. Links are followed as in the container.
func makeMountPoints(root string, folders, files []string) error {
	fd, err := unix.Open(root, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open the root filesystem: %w", err)
	}
	defer func() { _ = unix.Close(fd) }()
	for _, name := range folders {
		if err := makeMountPoint(fd, name, true, maxLinks); err != nil {
			return fmt.Errorf("make the folder %s: %w", name, err)
		}
	}
	for _, name := range files {
		if err := makeMountPoint(fd, name, false, maxLinks); err != nil {
			return fmt.Errorf("make the file %s: %w", name, err)
		}
	}
	return nil
}

// maxLinks is how many links the kernel follows (path_resolution(7)).
const maxLinks = 40

func makeMountPoint(root int, name string, folder bool, links int) error {
	if fd, err := openInRoot(root, name); err == nil {
		return unix.Close(fd)
	} else if !errors.Is(err, unix.ENOENT) {
		return err
	}
	dir, base := path.Split(name)
	if err := makeMountPoint(root, path.Clean(dir), true, links); err != nil {
		return err
	}
	parent, err := openInRoot(root, path.Clean(dir))
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(parent) }()
	if folder {
		err = unix.Mkdirat(parent, base, 0o755)
	} else {
		var fd int
		if fd, err = unix.Openat(parent, base, unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY|unix.O_CLOEXEC, 0o644); err == nil {
			err = unix.Close(fd)
		}
	}
	if !errors.Is(err, unix.EEXIST) {
		return err
	}
	// A link to what is not there: that is what is missing.
	buf := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(parent, base, buf)
	if err != nil || links == 0 {
		return errors.Join(err, unix.ELOOP)
	}
	target := string(buf[:n])
	if !path.IsAbs(target) {
		target = path.Join(dir, target)
	}
	return makeMountPoint(root, path.Clean(target), folder, links-1)
}

// openInRoot opens a path as one that has this folder for its root does.
func openInRoot(root int, name string) (int, error) {
	return unix.Openat2(root, name, &unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS})
}
