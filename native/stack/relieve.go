package stack

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/edge-serverless-box/esb/native"
	"github.com/edge-serverless-box/esb/native/lock"
	"github.com/edge-serverless-box/esb/native/process"
	"github.com/edge-serverless-box/esb/native/sdnotify"
)

const (
	// probation is how long the services of another release have to go on before it is accepted.
	probation = 5 * time.Second
	// takeBackLimit is how long a supervisor that has become another program may take until it has the services in its hands.
	takeBackLimit = 2 * time.Minute
	// yieldLimit is how long an `esb up` that is told to end may take to do so.
	yieldLimit = time.Minute
)

// upgradeLock is held by whoever puts a release in the place of another one. While it is, and no longer, a supervisor that was asked to
// lets others start the services.
func (s *Stack) upgradeLock() string { return filepath.Join(s.settings.RunDir(), "upgrade.lock") }

// Relief is the time in which nobody but its holder starts the services of an installation.
type Relief struct {
	stack *Stack
	held  *lock.Lock
	// foreground is the `esb run` that waits, nil when there is none.
	foreground *process.Record
	// environ is that of who started the services.
	environ []string
	// groups are the control groups that they are in.
	groups process.Groups
	// running is true when there are any.
	running bool
	// lost is true when foreground has ended as the program of the present release.
	lost bool
}

// Lost says, after Done, whether the `esb run` that was relieved has ended when it became the program of the present release.
func (r *Relief) Lost() bool { return r.lost }

// Runs says whether there are services to take over.
func (r *Relief) Runs() bool { return r.running }

// Relieve has an `esb run` that keeps the box let go of it, until Done. Other upgrades are waited for.
func (s *Stack) Relieve(ctx context.Context) (_ *Relief, err error) {
	held, err := lock.Take(ctx, s.upgradeLock(), func() { s.console.Printf("waiting for another upgrade to end") })
	if err != nil {
		return nil, err
	}
	r := &Relief{stack: s, held: held, environ: s.environ}
	defer func() {
		if err != nil {
			err = errors.Join(err, held.Close())
		}
	}()
	box := 0
	for _, service := range allServices {
		record, alive, err := s.running(service)
		if err != nil {
			return nil, err
		}
		if alive {
			r.running, box = true, record.PID
		}
	}
	state, alive := s.supervisor()
	if alive {
		r.running, box = true, state.Process.PID
	}
	if r.running {
		if r.groups, err = process.GroupsOf(box); err != nil {
			s.console.Printf("==> note: the services will live where this is called until they are started again: %v", err)
		}
	}
	if !alive {
		return r, nil
	}
	// What the services were started with, so that those are not started again that stay the same.
	environ, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", state.Process.PID))
	if err != nil {
		return nil, fmt.Errorf("ask what the box was started with: %w", err)
	}
	if r.environ, err = s.layout.Environ(strings.FieldsFunc(string(environ), func(c rune) bool { return c == 0 })); err != nil {
		return nil, err
	}
	if state.Background {
		return r, nil
	}
	if err := s.awaitSupervisor(ctx, state.Process, takeBackLimit, func(now supervisorState) bool { return now.Settled && !now.Released }); err != nil {
		return nil, fmt.Errorf("`esb run` is not in a state to be relieved: %w", err)
	}
	if err := state.Process.Signal(letGo); err != nil {
		return nil, fmt.Errorf("ask `esb run` to let go of the services: %w", err)
	}
	if err := s.awaitSupervisor(ctx, state.Process, letGoLimit, func(now supervisorState) bool { return now.Released }); err != nil {
		return nil, fmt.Errorf("`esb run` does not let go of the services: %w", err)
	}
	r.foreground = &state.Process
	return r, nil
}

// awaitSupervisor waits until a supervisor says of itself what is wanted.
func (s *Stack) awaitSupervisor(ctx context.Context, who process.Record, limit time.Duration, wanted func(supervisorState) bool) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	ticker := time.NewTicker(readyPoll)
	defer ticker.Stop()
	for {
		if !who.Alive() {
			return fmt.Errorf("process %d has ended", who.PID)
		}
		if state, _ := s.supervisor(); state.Process.PID == who.PID && wanted(state) {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("process %d: %w", who.PID, ctx.Err())
		case <-ticker.C:
		}
	}
}

// Take has the programs of the present release take the box over, as `esb up` does, and returns when it has served for a while.
func (r *Relief) Take(ctx context.Context) error {
	s := r.stack
	var out bytes.Buffer
	up := func() *exec.Cmd {
		cmd := exec.CommandContext(ctx, filepath.Join(s.layout.Current(), "esb"), "up", "-brief")
		cmd.Env, cmd.Dir, cmd.Stdout, cmd.Stderr = sdnotify.Without(r.environ), "/", &out, &out
		cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
		cmd.WaitDelay = yieldLimit
		return cmd
	}
	// What it starts has to outlive the session or the unit in which somebody has called this.
	cmd := up()
	err := r.groups.Start(cmd)
	if err != nil && ctx.Err() == nil {
		s.console.Printf("==> note: the services will live where this is called until they are started again: %v", err)
		cmd = up()
		err = cmd.Start()
	}
	if err == nil {
		err = cmd.Wait()
	}
	if err != nil {
		return fmt.Errorf("the programs do not take the box over (%w):\n%s", errors.Join(err, ctx.Err()), native.Indent(out.String(), "      "))
	}
	before := map[string]int{}
	for end := time.Now().Add(probation); ; {
		for _, service := range s.services() {
			record, alive, err := s.running(service)
			if err != nil {
				return err
			}
			if !alive || before[service] != 0 && before[service] != record.PID {
				return fmt.Errorf("%s has ended after it had taken over; its log is %s", service, s.settings.LogFile(service))
			}
			before[service] = record.PID
		}
		if time.Now().After(end) {
			break
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(readyPoll):
		}
	}
	for _, service := range s.services() {
		if err := s.recovers(ctx, service); err != nil {
			return fmt.Errorf("%s does not serve: %w", service, err)
		}
	}
	return nil
}

// Done lets the supervisor have the services again, and returns when it has them.
func (r *Relief) Done(ctx context.Context) error {
	s := r.stack
	if r.foreground != nil && !r.foreground.Alive() {
		// It was told to stop meanwhile, and meant the services, too.
		for _, service := range slices.Backward(allServices) {
			if err := s.stop(ctx, service); err != nil {
				return errors.Join(err, r.held.Close())
			}
		}
		return errors.Join(&native.Problem{What: "`esb run` was ended meanwhile, so the box is stopped", Do: "Start it again when you want it to run."}, r.held.Close())
	}
	if err := r.held.Close(); err != nil {
		return fmt.Errorf("give the lock of the upgrade back: %w", err)
	}
	if r.foreground == nil {
		return nil
	}
	err := s.awaitSupervisor(ctx, *r.foreground, takeBackLimit, func(now supervisorState) bool { return now.Settled && !now.Released })
	if err != nil {
		r.lost = !r.foreground.Alive()
		return &native.Problem{What: fmt.Sprintf("the services run, but `esb run` has not come back to them: %v", err), Do: "Start it again: `systemctl restart esb`, if it is a service of systemd. Its log says why."}
	}
	return nil
}

// giveWay lets go of the services until nobody is at an upgrade any more. Then this process becomes the present release's program, which
// takes them as they are. It returns no keeper when ctx has ended meanwhile and the services are stopped.
func (k *keeper) giveWay(ctx context.Context, notifier sdnotify.Notifier, hasten <-chan struct{}) (*keeper, error) {
	s := k.stack
	k.release()
	k.released = true
	err := k.write()
	k.log.Info("an upgrade is under way: the services are its")
	var held *lock.Lock
	if err == nil {
		notifier.During(func() { held, err = lock.Take(ctx, s.upgradeLock(), nil) })
	}
	if ctx.Err() != nil {
		return nil, errors.Join(ignoreCancel(err), k.stopReleased(notifier, hasten))
	}
	if err == nil {
		if err = s.undoTrial(); err == nil {
			err = s.become()
		}
		err = errors.Join(err, held.Close())
	}
	k.log.Error("the services are taken back by the program that had them before", "error", err)
	next, err := s.keep(k.services, false, k.log)
	if err != nil {
		return nil, err
	}
	next.settle(ctx)
	return next, next.write()
}

func ignoreCancel(err error) error {
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// stopReleased stops services that it does not watch.
func (k *keeper) stopReleased(notifier sdnotify.Notifier, hasten <-chan struct{}) error {
	_ = notifier.Tell(sdnotify.Stopping)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() {
		select {
		case <-hasten:
			cancel()
		case <-ctx.Done():
		}
	}()
	var errs []error
	for _, service := range slices.Backward(k.services) {
		errs = append(errs, k.stack.stop(ctx, service))
	}
	return errors.Join(append(errs, k.forget())...)
}

// become makes this process the program of the present release, with the same arguments. It returns when that fails.
func (s *Stack) become() error {
	program := filepath.Join(s.layout.Current(), "esb")
	if err := syscall.Exec(program, os.Args, os.Environ()); err != nil {
		return fmt.Errorf("become %s: %w", program, err)
	}
	return nil
}

// inherit takes note of the services that this process has started when it was another program.
func (s *Stack) inherit() {
	for _, service := range allServices {
		if record, err := process.Read(s.pidFile(service)); err == nil {
			record.Inherit()
		}
	}
}

// endTrial goes back to the release of before when an upgrade was broken off, by a power cut for example, before the new one had proved
// itself: it is on trial, and nobody is at it. This process becomes the program of that release then.
func (s *Stack) endTrial() error {
	if s.layout == nil {
		return nil
	}
	if _, on := s.layout.Trial(); !on {
		return nil
	}
	now, cancel := context.WithCancel(context.Background())
	cancel()
	held, err := lock.Take(now, s.upgradeLock(), nil)
	if errors.Is(err, context.Canceled) {
		return nil // the upgrade itself starts the box
	}
	if err != nil {
		return err
	}
	if err := errors.Join(s.undoTrial(), held.Close()); err != nil {
		return err
	}
	return s.become()
}

// undoTrial is for who has the lock.
func (s *Stack) undoTrial() error {
	trial, on := s.layout.Trial()
	if !on {
		return nil
	}
	s.console.Printf("==> the upgrade to %s was broken off: going back to %s", trial.To, trial.From)
	return s.layout.Undo()
}
