package stack

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/edge-serverless-box/esb/native"
	"github.com/edge-serverless-box/esb/native/process"
)

// replaces has a gateway ask the one that runs to hand its sockets over, and to end (gateway/settings).
const replaces = "GATEWAY_REPLACES"

// replaceMargin is what a gateway that is replaced may take longer than its grace for requests in flight.
const replaceMargin = 10 * time.Second

// replaceable is true when a gateway that runs and is well offers its sockets to the next one (gateway/internal/handover), which would run
// as user: no client is refused then.
func (s *Stack) replaceable(ctx context.Context, running process.Record, user *process.User) bool {
	socket, err := os.Lstat(filepath.Join(s.settings.ServiceHome(native.Gateway), "handover"))
	if err != nil || socket.Mode()&os.ModeSocket == 0 {
		return false
	}
	uid := uint32(os.Geteuid())
	if user != nil {
		uid = user.UID
	}
	owner, err := os.Stat(fmt.Sprintf("/proc/%d", running.PID))
	if err != nil {
		return false
	}
	if is, ok := owner.Sys().(*syscall.Stat_t); !ok || is.Uid != uid {
		return false
	}
	return s.serves(ctx, native.Gateway) == nil
}

// replaced waits until the gateway child serves in the place of the one before.
func (s *Stack) replaced(ctx context.Context, before process.Record, child *process.Child) error {
	grace := s.settings.ShutdownGrace + replaceMargin
	served := time.Now()
	err := s.await(ctx, native.Gateway, s.settings.StartTimeout+grace, child, func(ctx context.Context) error {
		if before.Alive() {
			switch {
			case s.goesOn(ctx):
				served = time.Now()
			case time.Since(served) > grace:
				// It has been asked to end, and whatever hinders it, the next one waits for it.
				_ = before.Signal(syscall.SIGKILL)
			}
			return fmt.Errorf("the gateway before it (process %d) answers its last requests", before.PID)
		}
		return s.serves(ctx, native.Gateway)
	})
	if err == nil || !before.Alive() {
		return err
	}
	if child.Exited() == nil {
		if !s.goesOn(context.WithoutCancel(ctx)) {
			return err // it ends, and the next one is all that there will be
		}
		if killErr := child.Signal(syscall.SIGKILL); killErr != nil && !errors.Is(killErr, process.ErrGone) {
			return errors.Join(err, killErr)
		}
	}
	// It serves on.
	return errors.Join(err, before.Write(s.pidFile(native.Gateway)))
}

// goesOn says whether a gateway serves, and has not been asked to end.
func (s *Stack) goesOn(ctx context.Context) bool {
	err := s.ready(ctx, native.Gateway)
	var lacks *lackError
	return err == nil || errors.As(err, &lacks)
}
