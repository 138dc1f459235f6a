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
	// Whatever hinders it, the next one waits for it.
	late := time.AfterFunc(s.settings.ShutdownGrace+replaceMargin, func() { _ = before.Signal(syscall.SIGKILL) })
	defer late.Stop()
	err := s.await(ctx, native.Gateway, child, func(ctx context.Context) error {
		if before.Alive() {
			return fmt.Errorf("the gateway before it (process %d) answers its last requests", before.PID)
		}
		return s.serves(ctx, native.Gateway)
	})
	if err != nil && before.Alive() && child.Exited() != nil {
		// It serves on.
		return errors.Join(err, before.Write(s.pidFile(native.Gateway)))
	}
	return err
}
