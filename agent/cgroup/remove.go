package cgroup

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// killRetry is the pause between two looks at processes that were killed: on v1 nothing tells when the last one has ended.
const killRetry = 2 * time.Millisecond

// Kill ends every process of a container and returns when none is left. The error is fs.ErrNotExist when its group is gone, or
// has no process that this one can see.
//
// A killed process takes itself down in its group's CPU time: hundreds of them under a small quota need longer than anybody
// waits, and process 1, with whose end the kernel ends the others, does not get to run beside them. On v1 a frozen one does
// not end at all. So both go first. New processes are refused, or a fork bomb would outrun the rounds.
func (h *Hierarchy) Kill(ctx context.Context, id string) error {
	dir := h.dir("pids", id)
	left, err := pids(dir)
	if err != nil {
		return err
	}
	if len(left) == 0 {
		return fmt.Errorf("kill the processes of %s: cgroup %s has none: %w", id, dir, fs.ErrNotExist)
	}
	steps := []error{h.takeThaw(id), h.Thaw(id), h.LiftQuota(id), write(filepath.Join(dir, "pids.max"), "0")}
	if h.unified {
		// All at once; kernels before 5.14 have no such file.
		steps = append(steps, write(filepath.Join(dir, "cgroup.kill"), "1"))
	}
	for _, err := range steps {
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("kill the processes of %s: %w", id, err)
		}
	}
	tick := time.NewTicker(killRetry)
	defer tick.Stop()
	for {
		left, err := kill(dir)
		if err != nil || left == 0 {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("kill the processes of %s, of which %d are left: %w", id, left, ctx.Err())
		case <-tick.C:
		}
		// Who has opened the file before can still write it.
		if err := h.Thaw(id); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("kill the processes of %s: %w", id, err)
		}
	}
}

// Remove kills what is left in a container's groups and removes them. Groups that are gone already are no error.
func (h *Hierarchy) Remove(ctx context.Context, id string) error {
	if id == "" || id == ".." || strings.ContainsRune(id, '/') {
		return fmt.Errorf("remove cgroup: bad container id %q", id)
	}
	if err := h.Kill(ctx, id); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return h.remove(ctx, id)
}

// Purge removes the parent group with everything in it.
func (h *Hierarchy) Purge(ctx context.Context) error {
	ids, err := h.IDs()
	if err != nil {
		return err
	}
	for _, id := range ids {
		err = errors.Join(err, h.Remove(ctx, id))
	}
	return errors.Join(err, h.remove(ctx, ""))
}

// remove removes the groups of id, or the parent's when id is empty.
func (h *Hierarchy) remove(ctx context.Context, id string) error {
	var errs []error
	for _, tree := range h.trees {
		dir := filepath.Join(tree, h.parent, id)
		if _, err := os.Stat(dir); err != nil {
			continue
		}
		if err := h.removeDir(ctx, dir); err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// removeDir kills and removes until the folder is gone. The kernel says EBUSY while a killed process has not ended.
func (h *Hierarchy) removeDir(ctx context.Context, dir string) error {
	tick := time.NewTicker(killRetry)
	defer tick.Stop()
	for {
		err := syscall.Rmdir(dir)
		if err == nil || errors.Is(err, syscall.ENOENT) {
			return nil
		}
		if !errors.Is(err, syscall.EBUSY) {
			return fmt.Errorf("remove cgroup %s: %w", dir, err)
		}
		if _, err := kill(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("remove cgroup %s, which still has processes: %w", dir, ctx.Err())
		case <-tick.C:
		}
	}
}

// kill sends SIGKILL to each process of one group, and says how many it reached: those that have not ended.
func kill(dir string) (reached int, err error) {
	found, err := pids(dir)
	if err != nil {
		return 0, err
	}
	for _, pid := range found {
		err := syscall.Kill(pid, syscall.SIGKILL)
		if errors.Is(err, syscall.ESRCH) {
			continue
		}
		if err != nil {
			return reached, fmt.Errorf("kill process %d of cgroup %s: %w", pid, dir, err)
		}
		reached++
	}
	return reached, nil
}

// pids lists the processes of one group. The error is fs.ErrNotExist when it is gone.
func pids(dir string) ([]int, error) {
	b, err := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
	if errors.Is(err, syscall.ENODEV) {
		err = fs.ErrNotExist // it went between opening and reading
	}
	if err != nil {
		return nil, fmt.Errorf("read the processes of cgroup %s: %w", dir, err)
	}
	var found []int
	for _, f := range strings.Fields(string(b)) {
		if pid, err := strconv.Atoi(f); err == nil && pid > 0 { // 0: of another pid namespace, not ours to see
			found = append(found, pid)
		}
	}
	return found, nil
}
