package stack

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net/http"
	"net/http/httptrace"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/edge-serverless-box/esb/guard/handover"
	"github.com/edge-serverless-box/esb/guard/logfile"
	"github.com/edge-serverless-box/esb/guard/statefile"
	"github.com/edge-serverless-box/esb/guard/supervise"
	"github.com/edge-serverless-box/esb/native"
	"github.com/edge-serverless-box/esb/native/agentclient"
	"github.com/edge-serverless-box/esb/native/preflight"
	"github.com/edge-serverless-box/esb/native/process"
	"github.com/edge-serverless-box/esb/native/sdnotify"
	"github.com/edge-serverless-box/esb/native/settings"
)

const (
	// letGo has a supervisor in the background end, and leave the services as they are.
	letGo = syscall.SIGUSR1
	// letGoLimit is how long that may take: a service that is just being started is a process with a pid file then.
	letGoLimit = 30 * time.Second
	// supervisorLog is the log of a supervisor in the background, in the folder of logs.
	supervisorLog = "supervisor.log"
)

// Run starts the box as Up does, and watches it until ctx ends: what ends or hangs is started again. Then it stops the services, the
// last one first; when hasten is closed, it kills them. At a signal of relieve it lets go of the services of an installation until an
// upgrade is done, and becomes the program of the release that is the present one then.
func (s *Stack) Run(ctx context.Context, hasten <-chan struct{}, relieve <-chan os.Signal) error {
	if os.Geteuid() != 0 {
		return preflight.Run(preflight.Options{})
	}
	notifier := sdnotify.FromEnv(os.Getenv, os.Getpid())
	s.environ = sdnotify.Without(s.environ)
	if err := s.endTrial(); err != nil {
		return err
	}
	s.inherit()
	held, err := s.lock(ctx)
	if err != nil {
		return err
	}
	notifier.During(func() { err = s.bring(ctx) })
	var k *keeper
	if err == nil {
		k, err = s.keep(s.services(), false, slog.New(slog.NewTextHandler(s.console, nil)))
	}
	if err == nil {
		k.settle(ctx)
		if err = k.write(); err != nil {
			err = errors.Join(err, k.stop(nil))
		}
	}
	if err := errors.Join(err, held.Close()); err != nil {
		return err
	}
	s.sayWhere() // and no secret: a journal may be read by others
	s.console.Printf("\nIts secrets are in %s, which root alone reads.", s.settings.SecretsFile())
	s.gatewayFresh = false // the next one is not its
	for k.watch(ctx, notifier, relieve) {
		if s.layout == nil {
			continue // there is nothing that could be put in its place
		}
		if k, err = k.giveWay(ctx, notifier, hasten); k == nil {
			return err
		}
	}
	_ = notifier.Tell(sdnotify.Stopping)
	s.console.Printf("==> stopping")
	return k.stop(hasten)
}

// Supervise watches services that `up` has started, in the background, until letGo: see the command.
func (s *Stack) Supervise(ctx context.Context, services []string) error {
	if err := s.keepSecrets(); err != nil {
		return err
	}
	if err := s.askRuntimes(ctx); err != nil {
		return err
	}
	log, err := logfile.Open(filepath.Join(s.settings.LogsDir(), supervisorLog), 4<<20, 0)
	if err != nil {
		return err
	}
	k, err := s.keep(services, true, slog.New(slog.NewJSONHandler(log, nil)))
	if err != nil {
		return errors.Join(err, log.Close())
	}
	k.settle(ctx)
	if err = k.write(); err == nil {
		k.watch(ctx, sdnotify.Notifier{}, nil)
	}
	k.release()
	return errors.Join(err, k.forget(), log.Close())
}

// LetGo is the signal at which Supervise is to end.
func LetGo() os.Signal { return letGo }

// keeper watches services.
type keeper struct {
	stack      *Stack
	services   []string
	background bool
	log        *slog.Logger
	watchers   []*supervise.Supervisor
	// settled is true when the watchers have taken the services, as far as they have within settle.
	settled bool
	// released is true when it has let go of them, for an upgrade.
	released bool
	// changed has a token when the state has changed since it was written.
	changed chan struct{}
	self    process.Record
	// starting is held while a service is started: what a Stack knows is one goroutine's.
	starting sync.Mutex
	// held are the sockets of the services.
	held *holder
}

// keep begins to watch services, which run already, or are started. Others find the supervisor before it touches one.
func (s *Stack) keep(services []string, background bool, log *slog.Logger) (*keeper, error) {
	k := &keeper{stack: s, services: services, background: background, log: log, changed: make(chan struct{}, 1)}
	if err := k.write(); err != nil {
		return nil, err
	}
	k.held = newHolder(s, log)
	for _, service := range services {
		k.watchers = append(k.watchers, supervise.Start(supervise.Config{
			Name: service, Logger: log, StartTimeout: s.settings.StartTimeout, StopTimeout: s.grace(service),
			Start:  func(context.Context) (supervise.Process, error) { return k.start(service) },
			Probe:  func(ctx context.Context) error { return s.answers(ctx, service) },
			Serves: func() { k.held.serves(service) },
			Ended:  func() { k.held.ended(service) },
			Changed: func() {
				select {
				case k.changed <- struct{}{}:
				default:
				}
			},
		}))
	}
	return k, nil
}

// settle waits, within bounds, until the services are in its hands: what ends from now on is counted, and told.
func (k *keeper) settle(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, recoverLimit)
	defer cancel()
	for _, w := range k.watchers {
		_ = w.First(ctx)
	}
	k.settled = true
}

// start takes the process of a service that runs, or starts one.
func (k *keeper) start(service string) (supervise.Process, error) {
	k.starting.Lock()
	defer k.starting.Unlock()
	s := k.stack
	record, alive, err := s.running(service)
	if err != nil {
		return nil, err
	}
	if alive {
		if p, err := record.Watch(); !errors.Is(err, process.ErrGone) {
			return p, err
		}
	}
	user := s.user(service)
	fingerprint, err := s.fingerprint(service, user)
	if err != nil {
		return nil, err
	}
	var child *process.Child
	if err := k.held.start(service, func(held *handover.Held) error {
		child, err = s.launch(service, user, fingerprint, held)
		return err
	}); err != nil {
		return nil, err
	}
	return child.Watch(), nil
}

// watch returns when ctx ends, or with true when it is to be relieved. It tells the service manager that the services run, and writes
// what changes.
func (k *keeper) watch(ctx context.Context, notifier sdnotify.Notifier, relieve <-chan os.Signal) bool {
	for _, w := range k.watchers {
		_ = w.First(ctx) // what does not start is started again, and said by the watcher
	}
	if err := notifier.Tell(sdnotify.Ready); err != nil && ctx.Err() == nil {
		k.log.Error("the service manager does not listen", "error", err)
	}
	var alive <-chan time.Time
	if notifier.Every > 0 {
		ticker := time.NewTicker(notifier.Every)
		defer ticker.Stop()
		alive = ticker.C
	}
	for {
		select {
		case <-ctx.Done():
			return false
		case <-relieve:
			return true
		case <-alive:
			_ = notifier.Tell(sdnotify.Alive)
		case <-k.changed:
			notifier.During(func() { // a disk may take its time
				if err := k.write(); err != nil {
					k.log.Error("what `esb status` reads cannot be written", "error", err)
				}
			})
		}
	}
}

// release leaves the services as they are.
func (k *keeper) release() {
	for _, w := range slices.Backward(k.watchers) {
		w.Release()
	}
	k.held.close()
}

// stop ends the services, the last one first.
func (k *keeper) stop(hasten <-chan struct{}) error {
	k.held.close() // clients are to be refused
	ended, killing := make(chan struct{}), sync.WaitGroup{}
	killing.Go(func() {
		select {
		case <-ended:
			return
		case <-hasten:
		}
		k.stack.console.Printf("==> killing what has not stopped yet")
		for _, service := range k.services {
			if r, alive, _ := k.stack.running(service); alive {
				_ = r.Signal(syscall.SIGKILL)
			}
		}
	})
	var errs []error
	for i, service := range slices.Backward(k.services) {
		k.watchers[i].Close()
		if err := os.Remove(k.stack.pidFile(service)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, fmt.Errorf("remove the pid file of %s: %w", service, err))
		}
	}
	close(ended)
	killing.Wait()
	return errors.Join(append(errs, k.forget())...)
}

// supervisorState is what a supervisor tells others about itself and its services.
type supervisorState struct {
	Process process.Record `json:"process"`
	// Background: `up` has started it, and it lets go of the services when it ends.
	Background bool `json:"background"`
	// Settled: it has the services in its hands.
	Settled bool `json:"settled"`
	// Released: it has let go of them and waits until an upgrade is done.
	Released bool                       `json:"released,omitempty"`
	Services map[string]supervisedState `json:"services"`
}

type supervisedState struct {
	Restarts int       `json:"restarts"`
	Serving  bool      `json:"serving"`
	Since    time.Time `json:"since"`
	Error    string    `json:"error,omitempty"`
}

func (s *Stack) supervisorFile() string { return filepath.Join(s.settings.RunDir(), "supervisor.json") }

// write writes the state in one step.
func (k *keeper) write() error {
	if k.self.PID == 0 {
		self, err := process.Identify(os.Getpid())
		if err != nil {
			return err
		}
		k.self = self
	}
	state := supervisorState{Process: k.self, Background: k.background, Settled: k.settled, Released: k.released, Services: map[string]supervisedState{}}
	for i, w := range k.watchers {
		now := w.State()
		one := supervisedState{Restarts: now.Restarts, Serving: now.Serving, Since: now.Since.UTC()}
		if now.Err != nil {
			one.Error = now.Err.Error()
		}
		state.Services[k.services[i]] = one
	}
	if err := statefile.Supervisor().Write(k.stack.supervisorFile(), state, 0o600); err != nil {
		return fmt.Errorf("keep the supervisor's state: %w", err)
	}
	return nil
}

func (k *keeper) forget() error {
	if err := os.Remove(k.stack.supervisorFile()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("forget the supervisor: %w", err)
	}
	return nil
}

// supervisor returns the state of the supervisor that watches this stack; false when there is none. What a power cut has left of
// the file is none.
func (s *Stack) supervisor() (supervisorState, bool) {
	var state supervisorState
	if err := statefile.Supervisor().Read(s.supervisorFile(), &state); err != nil {
		return supervisorState{}, false
	}
	return state, state.Process.PID > 1 && state.Process.Alive()
}

// unattended refuses to touch a box that `esb run` keeps running.
func (s *Stack) unattended() error {
	if state, alive := s.supervisor(); alive && !state.Background && !state.Released {
		return &native.Problem{
			What: fmt.Sprintf("`esb run` (process %d) keeps this box running already", state.Process.PID),
			Do:   "Restart that (`systemctl restart esb`, if it is a service of systemd), or stop it first.",
		}
	}
	return nil
}

// release has the supervisor in the background let go of the services, so that nobody starts them but the caller, who has the
// lock. It returns true when there was one.
func (s *Stack) release(ctx context.Context) (bool, error) {
	if err := s.unattended(); err != nil {
		return false, err
	}
	state, alive := s.supervisor()
	if !alive || state.Released {
		return false, nil
	}
	killed, err := state.Process.End(ctx, letGo, letGoLimit)
	if killed {
		s.console.Printf("    the supervisor did not end within %s and was killed", letGoLimit)
	}
	if err != nil {
		return false, fmt.Errorf("stop the supervisor: %w", err)
	}
	return true, nil
}

// stopSupervisor ends whatever supervisor there is; `esb run` stops the services with itself.
func (s *Stack) stopSupervisor(ctx context.Context) error {
	state, alive := s.supervisor()
	if !alive {
		return nil
	}
	if state.Background {
		_, err := s.release(ctx)
		return err
	}
	return s.console.Step(fmt.Sprintf("stopping `esb run`, process %d", state.Process.PID), func() error {
		limit := letGoLimit
		for _, service := range allServices {
			limit += s.grace(service)
		}
		_, err := state.Process.Stop(ctx, limit)
		return err
	})
}

// superviseRunning has those services watched in the background that run, and returns when they are.
func (s *Stack) superviseRunning() error {
	var services []string
	for _, service := range s.services() {
		if _, alive, err := s.running(service); err != nil {
			return err
		} else if alive {
			services = append(services, service)
		}
	}
	if !s.settings.Supervisor || len(services) == 0 {
		return nil
	}
	if _, waits := s.supervisor(); waits {
		return nil // it takes them when the upgrade is done
	}
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find this program: %w", err)
	}
	log, err := os.OpenFile(filepath.Join(s.settings.LogsDir(), supervisorLog), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("open the supervisor's log: %w", err)
	}
	defer func() { _ = log.Close() }()
	from, err := log.Seek(0, io.SeekEnd)
	if err != nil {
		return fmt.Errorf("find the end of the supervisor's log: %w", err)
	}
	// Not CommandContext: it outlives this program.
	args := []string{"run", "-background"}
	if s.layout == nil {
		args = append(args, "-root", s.settings.Root)
	}
	cmd := exec.Command(self, append(args, services...)...)
	cmd.Env, cmd.Dir = sdnotify.Without(s.environ), "/"
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start the supervisor: %w", err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }() // ends with the process
	limit := time.NewTimer(s.settings.StartTimeout)
	defer limit.Stop()
	ticker := time.NewTicker(readyPoll)
	defer ticker.Stop()
	for {
		if state, alive := s.supervisor(); alive && state.Settled && state.Process.PID == cmd.Process.Pid {
			s.console.Printf("==> process %d starts again what ends or hangs", cmd.Process.Pid)
			return nil
		}
		select {
		case err := <-ended:
			return fmt.Errorf("the supervisor ended (%w); the end of %s:\n%s", err, log.Name(), logfile.Tail(log.Name(), from, tailSize))
		case <-limit.C:
			_ = cmd.Process.Kill()
			return fmt.Errorf("the supervisor did not begin within %s (ESB_START_TIMEOUT_SECONDS); the end of %s:\n%s", s.settings.StartTimeout, log.Name(), logfile.Tail(log.Name(), from, tailSize))
		case <-ticker.C:
		}
	}
}

// answers asks whether a service does anything at all. Unlike ready, it does not ask whether what the service needs is there: to
// start it again would mend nothing then.
func (s *Stack) answers(ctx context.Context, service string) error {
	switch service {
	case native.Agent:
		client, err := agentclient.Dial(s.settings)
		if err != nil {
			return err
		}
		defer func() { _ = client.Close() }()
		return client.Answers(ctx)
	case native.Gateway:
		return httpAnswers(ctx, "http://"+settings.Reachable(s.settings.AdminAddr)+"/healthz")
	}
	// All fronts are one program's. It answers for itself, whatever it has for an answer, where a path is no store's; S3 has every path.
	url := ""
	for _, store := range s.settings.Stores() {
		url = store.Health
		if i := strings.Index(url[len("http://"):], "/"); store.Name != "s3" {
			url = url[:len("http://")+i] + "/no-such-path"
			break
		}
	}
	return httpAnswers(ctx, url)
}

// httpAnswers is content with any answer, also with a connection that is accepted and closed at once: so does one that has as many as it
// takes.
func httpAnswers(ctx context.Context, url string) error {
	accepted := false
	traced := httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotConn: func(httptrace.GotConnInfo) { accepted = true }})
	req, err := http.NewRequestWithContext(traced, http.MethodGet, url, nil)
	if err != nil {
		return fmt.Errorf("ask %s: %w", url, err)
	}
	_, _, err = answerOf(req, url)
	if accepted && ctx.Err() == nil {
		return nil
	}
	return err
}
