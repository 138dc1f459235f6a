package stack

import (
	"context"
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"

	"github.com/edge-serverless-box/esb/guard/handover"
	"github.com/edge-serverless-box/esb/native"
	"github.com/edge-serverless-box/esb/native/process"
)

// replaces has a service ask the one that runs to hand its sockets over, and to end (gateway/settings, stores/settings). Services without
// such a setting are stopped before they are started again.
var replaces = map[string]string{native.Gateway: "GATEWAY_REPLACES", native.Stores: "STORES_REPLACES"}

// replaceMargin is what a service that is replaced may take longer than its grace for requests in flight.
const replaceMargin = 10 * time.Second

// offers is the folder of the state in which a service offers its sockets.
func (s *Stack) offers(service string) string {
	if service == native.Stores {
		return s.settings.DataDir
	}
	return s.settings.ServiceHome(service)
}

// replaceable is true when a service that runs and is well offers its sockets to the next one (guard/handover), which would run
// as user: no client is refused then.
func (s *Stack) replaceable(ctx context.Context, service string, running process.Record, user *process.User) bool {
	if replaces[service] == "" {
		return false
	}
	if !handover.Offered(ctx, s.offers(service)) {
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
	return s.serves(ctx, service) == nil
}

// replaced waits until the process child of a service serves in the place of the one before.
func (s *Stack) replaced(ctx context.Context, service string, before process.Record, child *process.Child) error {
	grace := s.settings.ShutdownGrace + replaceMargin
	served := time.Now()
	err := s.await(ctx, service, s.settings.StartTimeout+grace, child, func(ctx context.Context) error {
		if before.Alive() {
			switch {
			case s.goesOn(ctx, service):
				served = time.Now()
			case time.Since(served) > grace:
				// It has been asked to end, and whatever hinders it, the next one waits for it.
				_ = before.Signal(syscall.SIGKILL)
			}
			return fmt.Errorf("the %s before it (process %d) answers the last requests", service, before.PID)
		}
		return s.serves(ctx, service)
	})
	if err == nil || !before.Alive() {
		return err
	}
	if child.Exited() == nil {
		if !s.goesOn(context.WithoutCancel(ctx), service) {
			return err // it ends, and the next one is all that there will be
		}
		if killErr := child.Signal(syscall.SIGKILL); killErr != nil && !errors.Is(killErr, process.ErrGone) {
			return errors.Join(err, killErr)
		}
	}
	// It serves on.
	return errors.Join(err, before.Write(s.pidFile(service)))
}

// goesOn says whether a service serves, and has not been asked to end.
func (s *Stack) goesOn(ctx context.Context, service string) bool {
	err := s.ready(ctx, service)
	var lacks *lackError
	var some *missingError
	return err == nil || errors.As(err, &lacks) || errors.As(err, &some)
}
