package rootmount

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/edge-serverless-box/esb/guard/ownthread"
)

// Add mounts more in the container of a mount namespace, which keeps its root: its processes that run see it. Links are followed as in
// the container. A container with which it has failed is good for nothing any more. The namespace stays the caller's to close.
func Add(container *os.File, binds []Bind, tmp *Tmp) (err error) {
	fail := func(err error) error {
		return fmt.Errorf("mount more in a container: %w", err)
	}
	mounts, closeMounts, err := prepare(binds, tmp)
	defer func() { err = closeMounts(err) }()
	if err != nil {
		return fail(err)
	}
	err = ownthread.Do(func() error {
		if err := leave(); err != nil {
			return err
		}
		if err := enter(container); err != nil {
			return err
		}
		root, err := unix.Open("/", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("open its root: %w", err)
		}
		defer func() { _ = unix.Close(root) }()
		return placeAll(root, mounts)
	})
	if err != nil {
		return fail(err)
	}
	return nil
}
