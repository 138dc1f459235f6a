package containerd

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/edge-serverless-box/esb/agent/cgroup"
)

// Abandon ends all containers of the stack without their containerd, which does not run and whose records are lost: processes, shims,
// mounts below stateDir, bundles. Network and files go when a Runtime is opened next, or when one that is open sees that they are gone.
func Abandon(ctx context.Context, cfg Config, stateDir string) error {
	groups, err := cgroup.Open(cgroupRoot, "esb-"+cfg.Stack)
	if err != nil {
		return err
	}
	ids, err := groups.IDs()
	if err != nil {
		return err
	}
	for _, id := range ids {
		removeCtx, cancel := context.WithTimeout(ctx, removeTimeout)
		err = errors.Join(err, groups.Remove(removeCtx, id))
		cancel()
	}
	if err != nil {
		return fmt.Errorf("end the containers: %w", err)
	}
	r := &Runtime{cfg: cfg, log: cfg.Logger}
	shimsCtx, cancel := context.WithTimeout(ctx, removeTimeout)
	defer cancel()
	if err := r.endShims(shimsCtx, "", "shim of a lost container was ended"); err != nil {
		return fmt.Errorf("end the shims: %w", err)
	}
	if err := unmountBelow(stateDir); err != nil {
		return err
	}
	for _, dir := range []string{filepath.Join(stateDir, "io.containerd.runtime.v2.task"), r.runcRoot()} {
		if err := os.RemoveAll(dir); err != nil {
			return fmt.Errorf("remove what the containers have left: %w", err)
		}
	}
	return nil
}

// mountPath makes a path of one in mountinfo.
var mountPath = strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`)

// unmountBelow takes away what is mounted below a folder. The error says what is still there: nobody may remove files through it.
func unmountBelow(dir string) error {
	for _, point := range mountsBelow(dir) {
		if err := unix.Unmount(point, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("unmount %s: %w", point, err)
		}
	}
	if left := mountsBelow(dir); len(left) > 0 {
		return fmt.Errorf("unmount %s: it is still mounted", left[0])
	}
	return nil
}

// mountsBelow lists the mount points below a folder, the innermost first.
func mountsBelow(dir string) []string {
	if real, err := filepath.EvalSymlinks(dir); err == nil {
		dir = real // as the kernel has it
	}
	data, _ := os.ReadFile("/proc/self/mountinfo")
	var points []string
	for line := range strings.Lines(string(data)) {
		if fields := strings.Fields(line); len(fields) > 4 {
			if point := mountPath.Replace(fields[4]); strings.HasPrefix(point, dir+"/") {
				points = append(points, point)
			}
		}
	}
	slices.Reverse(points) // the kernel lists them as they were mounted
	return points
}
