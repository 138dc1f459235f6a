package stack

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/edge-serverless-box/esb/native"
	"github.com/edge-serverless-box/esb/native/leftovers"
	"github.com/edge-serverless-box/esb/native/process"
)

const (
	// purgeTimeout bounds the removal of all containers.
	purgeTimeout = 3 * time.Minute
	// settle is how long the kernel may take to let go of what was removed; network namespaces are torn down in the
	// background.
	settle = 15 * time.Second
	// strayGrace is the grace of a process that nobody watches any more.
	strayGrace = 5 * time.Second
)

// Down stops the services, removes all containers and everything else that the stack has made on the machine, and
// checks that nothing is left. Images, logs, keys, the stores' data and binaries stay. It works from any state that a crash or a reboot
// may leave, and is harmless when nothing is up.
func (s *Stack) Down(ctx context.Context) error {
	if os.Geteuid() != 0 {
		return &native.Problem{What: "not running as root", Do: "Run it as root: containers, networks and firewall rules are root's."}
	}
	if _, err := os.Stat(s.settings.Home); errors.Is(err, fs.ErrNotExist) {
		s.console.Printf("nothing is up: %s does not exist", s.settings.Home)
		return nil
	}
	held, err := s.lock(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = held.Close() }()
	if err := s.understood(); err != nil {
		return err
	}
	// First: what is stopped is to stay so.
	if err := s.stopSupervisor(ctx); err != nil {
		return err
	}
	record, err := Recorded(s.settings.Home)
	if err != nil {
		return err
	}
	if record == nil {
		left, err := leftovers.Find(s.certain())
		if err != nil {
			return err
		}
		if len(left) == 0 {
			s.console.Printf("nothing is up")
			return nil
		}
		if err := s.others(); err != nil {
			return err
		}
	}
	for _, service := range slices.Backward(allServices) {
		err := s.console.Step("stopping "+service, func() error { return s.stop(ctx, service) })
		if err != nil {
			return err
		}
	}
	return s.console.Step("removing containers, network and firewall", func() error { return s.remove(ctx) })
}

// others refuses to remove what is of a stack with another home, which has this one's folder of sockets.
func (s *Stack) others() error {
	all, err := process.All()
	if err != nil {
		return fmt.Errorf("look for other stacks: %w", err)
	}
	for _, p := range all {
		if !slices.Contains(p.Env, "ESB_RUN_DIR="+s.settings.AgentRunDir) {
			continue
		}
		i := slices.IndexFunc(p.Env, func(v string) bool { return strings.HasPrefix(v, "ESB_HOME=") })
		if i >= 0 && slices.Contains(allServices, filepath.Base(p.Exe)) && p.Env[i] != "ESB_HOME="+s.settings.Home {
			return &native.Problem{
				What: fmt.Sprintf("the stack of %s has %s, too, and runs (process %d)", strings.TrimPrefix(p.Env[i], "ESB_HOME="), s.settings.AgentRunDir, p.PID),
				Do:   "Set ESB_BRIDGE to the bridge of the stack that is to be removed: " + recordFile(s.settings.Home) + ", which names it, is missing.",
			}
		}
	}
	return nil
}

// grace is how long a service may take to end.
func (s *Stack) grace(service string) time.Duration {
	switch service {
	case native.Gateway:
		return s.settings.ShutdownGrace + 5*time.Second
	case native.Stores:
		return storesGrace
	}
	return agentGrace
}

// stop stops a service: the process of the pid file, and one that has lost it.
func (s *Stack) stop(ctx context.Context, service string) error {
	grace := s.grace(service)
	record, alive, err := s.running(service)
	if err != nil {
		return err
	}
	if alive {
		killed, err := record.Stop(ctx, grace)
		if err != nil {
			return fmt.Errorf("stop %s: %w", service, err)
		}
		if killed {
			s.console.Printf("    %s did not end within %s and was killed", service, grace)
		}
	}
	strays, err := s.strays(service)
	if err != nil {
		return err
	}
	for _, stray := range strays {
		s.console.Printf("    found a %s without a pid file: process %d", service, stray.PID)
		if _, err := stray.Stop(ctx, grace); err != nil {
			return fmt.Errorf("stop %s: %w", service, err)
		}
	}
	if err := os.Remove(s.pidFile(service)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove the pid file of %s: %w", service, err)
	}
	return nil
}

// strays are processes of this stack that run a program.
func (s *Stack) strays(program string) ([]process.Record, error) {
	left, err := leftovers.Find(leftovers.Scope{Home: s.settings.Home, RunDir: s.settings.AgentRunDir, BinDir: s.settings.BinDir})
	if err != nil {
		return nil, err
	}
	var strays []process.Record
	for _, item := range left {
		if item.Kind != leftovers.Process || filepath.Base(item.Program) != program {
			continue
		}
		// One that ends meanwhile is none.
		if r, err := process.Identify(item.PID); err == nil {
			strays = append(strays, r)
		}
	}
	return strays, nil
}

// remove lets the agent remove what it has made, and checks that.
func (s *Stack) remove(ctx context.Context) error {
	scope := s.scope()
	veths, err := leftovers.Ports(scope.Bridge)
	if err != nil {
		return err
	}
	scope.Veths = veths
	if err := s.purge(ctx); err != nil {
		return err
	}
	left, err := s.settled(ctx, scope)
	if err != nil {
		return err
	}
	for _, program := range []string{native.Containerd, "containerd-shim-runc-v2"} {
		strays, err := s.strays(program)
		if err != nil {
			return err
		}
		for _, stray := range strays {
			s.console.Printf("    ending a %s that was left: process %d", program, stray.PID)
			if _, err := stray.Stop(ctx, strayGrace); err != nil {
				return fmt.Errorf("stop %s: %w", program, err)
			}
		}
		if len(strays) > 0 {
			if left, err = leftovers.Find(scope); err != nil {
				return err
			}
		}
	}
	if len(left) > 0 {
		names := make([]string, len(left))
		for i, item := range left {
			names[i] = item.String()
		}
		return &native.Problem{
			What: "these could not be removed:\n" + native.Indent(strings.Join(names, "\n"), "      "),
			Do:   "Run `" + s.command() + " down` again; if that does not help, the end of " + s.settings.LogFile(native.Agent) + " says why, and a reboot removes all of them but leases.",
		}
	}
	if err := os.Remove(recordFile(s.settings.Home)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("forget the stack's settings: %w", err)
	}
	return nil
}

// purge runs `agent purge`.
func (s *Stack) purge(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, purgeTimeout)
	defer cancel()
	binary := filepath.Join(s.settings.BinDir, native.Agent)
	if _, err := os.Stat(binary); err != nil {
		cure := "Run `go tool task build`, then `go tool task down` again."
		if s.layout != nil {
			cure = "Bring it again with `esb install RELEASE`, then run `esb down` again."
		}
		return &native.Problem{What: fmt.Sprintf("the agent's program is gone (%v), and only it knows how to remove containers", err), Do: cure}
	}
	cmd := exec.CommandContext(ctx, binary, "purge")
	cmd.Env, cmd.Dir = s.env(native.Agent), s.settings.Root
	if out, err := cmd.CombinedOutput(); err != nil {
		return &native.Problem{
			What: fmt.Sprintf("`agent purge` failed (%v):\n%s", err, native.Indent(string(out), "      ")),
			Do:   "Cure what its last line names, and run `" + s.command() + " down` again.",
		}
	}
	return nil
}

// settled waits until nothing is left, and returns what is left when it has waited long enough.
func (s *Stack) settled(ctx context.Context, scope leftovers.Scope) ([]leftovers.Item, error) {
	ctx, cancel := context.WithTimeout(ctx, settle)
	defer cancel()
	ticker := time.NewTicker(readyPoll)
	defer ticker.Stop()
	for {
		left, err := leftovers.Find(scope)
		if err != nil || len(left) == 0 {
			return left, err
		}
		select {
		case <-ctx.Done():
			return left, nil
		case <-ticker.C:
		}
	}
}
