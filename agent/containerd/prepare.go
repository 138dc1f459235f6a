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

	"golang.org/x/sys/unix"

	"github.com/edge-serverless-box/esb/agent/images"
)

// mountPoints are the folders, and mountFiles the files, of a container's root filesystem that something is mounted on. runc
// makes what an image lacks, but not as the root of a user namespace, to whom the image's folders do not belong.
var (
	mountPoints = []string{"/dev", "/opt", "/proc", "/sys", "/tmp", "/var/task", notifyDir}
	mountFiles  = []string{"/etc/hosts", "/etc/resolv.conf", initPath, logPath}
)

// prepared returns the snapshot that containers of an image are made on: the image's own, and in it what there must be to mount
// on, the working folder, and the user that functions run as.
func (r *Runtime) prepared(ctx context.Context, img images.Image, workingDir string) (string, error) {
	folders := append(slices.Clone(mountPoints), path.Clean("/"+workingDir))
	sum := sha256.Sum256([]byte(strings.Join(slices.Concat(folders, mountFiles, []string{defaultAccount}), "\n")))
	return r.images.Derive(ctx, img, "esb-"+hex.EncodeToString(sum[:8]), func(root string) error {
		return errors.Join(makeMountPoints(root, folders, mountFiles), addAccount(root))
	})
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
		var s unix.Stat_t
		if err := errors.Join(unix.Fstat(fd, &s), unix.Close(fd)); err != nil {
			return err
		}
		// What is something else would only be found when something is mounted on it.
		switch isFolder := s.Mode&unix.S_IFMT == unix.S_IFDIR; {
		case folder && !isFolder:
			return unix.ENOTDIR
		case !folder && isFolder:
			return unix.EISDIR
		}
		return nil
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
