// Package pool keeps the workers of every function: it lends one to each request, starts new ones when they are
// needed and allowed, and ends them when they are idle, broken or of an old configuration (docs/system-specification.md 8).
//
// The numbers it keeps are promises about containers: the containers of one function that are idle, busy,
// starting, standing by or being destroyed never exceed its max_capacity together.
package pool

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/edge-serverless-box/esb/gateway"
	"github.com/edge-serverless-box/esb/guard/turns"
)

// Provisioner makes and ends containers; agentclient is the one of production.
type Provisioner interface {
	// Start makes one container of fn and returns when its worker endpoint answers. With standby the function
	// process is left to the first request. When it fails nothing is left behind. A *gateway.Error with
	// Permanent set says that trying again is useless.
	Start(ctx context.Context, fn *gateway.Function, standby bool, requestID string) (gateway.Worker, error)
	// Stop destroys a container: SIGTERM, and SIGKILL after grace. One that is gone already is no error.
	Stop(ctx context.Context, workerID string, grace time.Duration, reason string) error
	// List returns every container of the box, as observed now.
	List(ctx context.Context) ([]Observed, error)
}

// Watcher tells of containers that end by themselves, and of shortages of memory; agentclient is the one of production.
type Watcher interface {
	// Watch calls begun when from then on nothing is missed, ended for each container that ends, with oom when the kernel has killed
	// processes of it for want of memory, and short again and again while there is too little memory, and once with the zero value when
	// that is over; one call at a time. It returns when ctx ends or the agent cannot be heard; its error says why.
	Watch(ctx context.Context, begun func(), ended func(function, workerID string, oom bool), short func(Shortage)) error
}

// Observed is one container as the agent reports it.
type Observed struct {
	ID        string
	Name      string
	Function  string
	CreatedAt time.Time
	// Stopped is true when its process 1 has ended, or is being ended.
	Stopped bool
	// Frozen is true when its processes stand still.
	Frozen bool
	// Owner is whose it is, "" for nobody's, and OwnerSilent for how long the agent has not heard that one.
	Owner       string
	OwnerSilent time.Duration
	// What follows is as Start was told, or has answered.
	Addr        string
	Generation  string
	ImageDigest string
	Interface   gateway.RuntimeInterface
	Standby     bool
	// Outdated is true when it was made with settings of the agent that are others now.
	Outdated bool
}

// Defaults of Options.
const (
	DefaultHeartbeatInterval = 30 * time.Second
	DefaultOrphanGrace       = 60 * time.Second
)

const (
	// idleGrace is what a worker that did nothing wrong gets between SIGTERM and SIGKILL: extensions have 2 s (AWS: "Shutdown
	// phase"), lambda-init a moment more.
	idleGrace = 3 * time.Second
	// stopTimeout bounds one attempt to destroy a container, grace not counted.
	stopTimeout = 30 * time.Second
	// stopLimit is how long the destruction of one container is tried before that is an error to look at. It is tried on, every
	// stopPause, and the container keeps its slot: it may still work.
	stopLimit = 2 * time.Minute
	stopPause = 5 * time.Second
	// closeLimit bounds the destruction of all containers when the gateway stops.
	closeLimit = 30 * time.Second
	// turnPatience is how long a start, or an end, keeps others from theirs. What takes longer waits for a registry or for the end of a
	// grace, and goes on beside the others.
	turnPatience = time.Second
	// standbyDelay is how long a start for standby keeps out of the way of the cold start that made it necessary,
	// whose function process needs the same CPU.
	standbyDelay = 500 * time.Millisecond
	// A failed start is tried again after firstBackoff, doubled with each failure in a row up to lastBackoff; up to awayBackoff while
	// the agent is away: it costs nothing to ask, and nothing tells each pool that it is back.
	firstBackoff = 200 * time.Millisecond
	lastBackoff  = 30 * time.Second
	awayBackoff  = 3 * time.Second
)

// Options of a Manager. Zero values mean the defaults.
type Options struct {
	// HeartbeatInterval is the time between two comparisons with the agent's list (HEARTBEAT_INTERVAL).
	HeartbeatInterval time.Duration
	// OrphanGrace is the age at which a container that no pool knows is destroyed
	// (ORPHAN_GRACE_PERIOD_SECONDS).
	OrphanGrace time.Duration
	// MaxConcurrentStarts bounds the starts that run at the same time, over all functions, and the ends; starts that no
	// request waits for use at most half of it. A function never has all of it, and one that takes longer than a second does not
	// count any more (package turns). Default: twice the cores.
	MaxConcurrentStarts int
	// MaxWaiting bounds the requests that wait for a worker, over all functions (GATEWAY_MAX_WAITING).
	MaxWaiting int
	// Watcher tells of workers that end by themselves, and of shortages of memory. Without one the janitor finds those at its next
	// heartbeat, and nobody these.
	Watcher Watcher
	// Inits says whether the first worker of a changed function can serve. Without one it counts as able to as soon as it listens.
	Inits Inits
	// Owner is who the Provisioner says has the containers that it makes. With one, workers are left when the Manager is closed, and
	// those that are left are adopted; Examiner is needed then. Without one they end with the Manager.
	Owner string
	// Proofs keeps what functions were last seen to work with. Without one that is forgotten with the Manager.
	Proofs Proofs
	// Examiner asks workers for signs of life. Without one nobody finds those that stand still.
	Examiner Examiner
	// Freezer freezes the idle workers of functions that ask for it. Without one none is frozen.
	Freezer Freezer
	// Logger gets one line an event. Default: slog.Default().
	Logger *slog.Logger
}

// StartError marks, in the chain of an error of Acquire, that a container could not be started: a failure of
// the box, not of the request.
type StartError struct {
	err error
}

// Error implements error.
func (e *StartError) Error() string { return e.err.Error() }

// Unwrap returns the Provisioner's error.
func (e *StartError) Unwrap() error { return e.err }

// Manager owns the pools of all functions.
type Manager struct {
	provisioner Provisioner
	opts        Options
	log         *slog.Logger

	// ctx is the context of starts and of the janitor: it ends with Close.
	ctx    context.Context
	cancel context.CancelFunc
	// stopCtx is the context of destructions: it ends when Close has waited for them for closeLimit.
	stopCtx     context.Context
	cancelStops context.CancelFunc
	// tasks counts every goroutine and timer of the Manager and its pools.
	tasks sync.WaitGroup

	// look is of one: the janitor is to look now. adopt is of one: there are pools that have not adopted yet.
	look, adopt chan struct{}
	// shortages is of one: the last that the Watcher told.
	shortages chan Shortage
	// configured is closed by the first Apply.
	configured     chan struct{}
	configuredOnce sync.Once

	// claims makes the decision what becomes of a container that no pool knows one at a time; claimed are those that the janitor
	// destroys. Order: claims before a functionPool's mu.
	claims  sync.Mutex
	claimed map[string]bool

	// A start that no request waits for takes a turn of background first.
	starts     *turns.Turns
	background *turns.Turns
	stops      *turns.Turns

	room *room
	away away

	// closing is closed when every pool has stopped lending; drained when, after that, no lease is out.
	closing   chan struct{}
	drained   chan struct{}
	drainOnce sync.Once
	leases    atomic.Int64
	// stranded counts containers whose destruction was given up.
	stranded atomic.Int64

	// mu makes Apply, the purge of empty pools and the beginning of Close one at a time. Order: mu before a
	// functionPool's mu.
	mu     sync.Mutex
	closed bool
	// pools is replaced as a whole, under mu, and read without it. The map itself never changes.
	pools atomic.Pointer[map[string]*functionPool]
}

// Open starts a Manager without functions; Apply gives it some.
func Open(p Provisioner, opts Options) *Manager {
	if opts.HeartbeatInterval <= 0 {
		opts.HeartbeatInterval = DefaultHeartbeatInterval
	}
	if opts.OrphanGrace <= 0 {
		opts.OrphanGrace = DefaultOrphanGrace
	}
	if opts.MaxConcurrentStarts <= 0 {
		opts.MaxConcurrentStarts = 2 * runtime.NumCPU()
	}
	if opts.MaxWaiting <= 0 {
		opts.MaxWaiting = DefaultMaxWaiting
	}
	if opts.Logger == nil {
		opts.Logger = slog.Default()
	}
	m := &Manager{
		provisioner: p,
		opts:        opts,
		log:         opts.Logger,
		starts:      turns.New(opts.MaxConcurrentStarts, turnPatience),
		background:  turns.New(opts.MaxConcurrentStarts/2, turnPatience),
		stops:       turns.New(opts.MaxConcurrentStarts, turnPatience),
		look:        make(chan struct{}, 1),
		room:        newRoom(opts.MaxWaiting),
		adopt:       make(chan struct{}, 1),
		shortages:   make(chan Shortage, 1),
		configured:  make(chan struct{}),
		claimed:     make(map[string]bool),
		closing:     make(chan struct{}),
		drained:     make(chan struct{}),
	}
	m.ctx, m.cancel = context.WithCancel(context.Background())
	m.stopCtx, m.cancelStops = context.WithCancel(context.Background())
	m.pools.Store(&map[string]*functionPool{})
	m.tasks.Go(m.janitor)
	if m.adopts() {
		m.tasks.Go(m.adoptions)
	}
	if opts.Watcher != nil {
		m.tasks.Go(m.watch)
		m.tasks.Go(m.relieve)
	}
	if opts.Examiner != nil {
		m.tasks.Go(m.beats)
	}
	return m
}

// Apply makes functions the current configuration. Workers of removed functions are drained: idle ones are destroyed
// now, busy ones when their request ends. Those of a changed function serve until the first worker of the new configuration is
// ready, and are replaced then; its waiting requests wait on. Those of a removed one have the workers that it still has, and are
// refused when there are none.
func (m *Manager) Apply(functions map[string]*gateway.Function) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return
	}
	old := *m.pools.Load()
	pools := make(map[string]*functionPool, len(functions))
	for name, fn := range functions {
		p := old[name]
		if p == nil {
			p = newFunctionPool(m, fn)
		}
		pools[name] = p
		p.apply(fn)
	}
	for name, p := range old {
		if pools[name] == nil && !p.remove() {
			pools[name] = p
		}
	}
	m.pools.Store(&pools)
	if m.opts.Proofs != nil {
		m.opts.Proofs.Forget(func(function string) bool { return functions[function] == nil })
	}
	m.configuredOnce.Do(func() { close(m.configured) })
	m.wantAdoption()
}

// purge forgets removed functions whose last container is gone.
func (m *Manager) purge() {
	m.mu.Lock()
	defer m.mu.Unlock()
	pools := maps.Clone(*m.pools.Load())
	maps.DeleteFunc(pools, func(_ string, p *functionPool) bool { return p.empty() })
	m.pools.Store(&pools)
}

// Acquire lends a worker of fn to the request, for one invocation. It is one of the configuration that was applied last, even
// when fn is an older one, or, until the first of those is ready, of the one before. The errors:
//
//   - CodeThrottled: the queue is full, or max_capacity is 0; or as many requests wait as may over all functions, and those of
//     this one have their share.
//   - CodeUnavailable: acquire_timeout has passed; or, with a StartError in the chain, no worker could be started
//     and none is left that could serve the request; or the function was removed; or the gateway is stopping.
//   - CodeIntegrationTimeout, CodeCanceled: ctx has ended, by its deadline or otherwise.
func (m *Manager) Acquire(ctx context.Context, fn *gateway.Function, requestID string) (*Lease, error) {
	p := (*m.pools.Load())[fn.Name]
	if p == nil {
		return nil, errRemoved(fn.Name)
	}
	return p.acquire(ctx, requestID)
}

// Generation is what the present workers of fn are, or the next ones will be: it covers the versions of code and image too, which fn
// itself may not know. Of a function without a pool it is fn's own.
func (m *Manager) Generation(fn *gateway.Function) string {
	p := (*m.pools.Load())[fn.Name]
	if p == nil {
		return fn.Generation
	}
	return *p.generation.Load()
}

// Close ends the Manager: waiting requests are refused, requests in flight have until ctx ends to give their workers
// back, then every container is destroyed, for which there are 30 s, or, with an Owner, left for the next Manager. It returns when
// everything the Manager started has ended, and an error when containers are left over that were to be destroyed. Only the first
// call does anything.
func (m *Manager) Close(ctx context.Context) error {
	m.mu.Lock()
	if m.closed {
		m.mu.Unlock()
		return nil
	}
	m.closed = true
	pools := *m.pools.Load()
	m.mu.Unlock()

	for _, p := range pools {
		p.close()
	}
	m.cancel()
	// Nothing lends any more. Closing this earlier would let the last lease of one pool report all as drained
	// while another pool still lends.
	close(m.closing)
	if m.leases.Load() == 0 {
		m.drainOnce.Do(func() { close(m.drained) })
	}
	select {
	case <-m.drained:
	case <-ctx.Done():
		if !m.adopts() {
			for _, p := range pools {
				p.evict()
			}
		}
	}
	if m.adopts() {
		for _, p := range pools {
			p.leaveWorkers()
		}
	}
	timer := time.AfterFunc(closeLimit, m.cancelStops)
	m.tasks.Wait()
	timer.Stop()
	m.cancelStops()
	if n := m.stranded.Load(); n > 0 {
		return fmt.Errorf("closing the pools: %d containers could not be destroyed; the next gateway's janitor will try again", n)
	}
	return nil
}

// leaseEnded counts a lease that has ended.
func (m *Manager) leaseEnded() {
	if m.leases.Add(-1) > 0 {
		return
	}
	select {
	case <-m.closing:
		m.drainOnce.Do(func() { close(m.drained) })
	default:
	}
}

// Phase is what a worker does.
type Phase string

// Phases of a worker.
const (
	PhaseIdle     Phase = "idle"
	PhaseBusy     Phase = "busy"
	PhaseStandby  Phase = "standby"
	PhaseStopping Phase = "stopping"
)

// State describes the pool of one function at one moment.
type State struct {
	Function    string `json:"function"`
	Generation  string `json:"generation"`
	MaxCapacity int    `json:"max_capacity"`
	// Idle counts the frozen ones too.
	Idle     int `json:"idle"`
	Frozen   int `json:"frozen"`
	Busy     int `json:"busy"`
	Starting int `json:"starting"`
	Standby  int `json:"standby"`
	Stopping int `json:"stopping"`
	// Outdated counts those of an older configuration, which serve until a worker of the present one is ready.
	Outdated int           `json:"outdated"`
	Waiting  int           `json:"waiting"`
	Workers  []WorkerState `json:"workers"`
	// Failures counts the starts that failed since the last one that did not, and Error says why the last of them did, or why
	// none can succeed at present.
	Failures int    `json:"failures,omitempty"`
	Error    string `json:"error,omitempty"`
}

// WorkerState describes one worker.
type WorkerState struct {
	ID    string `json:"id"`
	Name  string `json:"name"`
	Addr  string `json:"addr"`
	State Phase  `json:"state"`
	// Frozen is true while its processes stand still between two invocations.
	Frozen bool `json:"frozen,omitempty"`
	// Since is when it entered its state.
	Since time.Time `json:"since"`
}

// Snapshot describes every pool, ordered by function.
func (m *Manager) Snapshot() []State {
	pools := *m.pools.Load()
	states := make([]State, 0, len(pools))
	for _, p := range pools {
		states = append(states, p.state())
	}
	slices.SortFunc(states, func(a, b State) int { return strings.Compare(a.Function, b.Function) })
	return states
}

func errRemoved(function string) *gateway.Error {
	return gateway.Errorf(gateway.CodeUnavailable, "function %s is not in the configuration any more", function)
}

func errClosing(function string) *gateway.Error {
	err := gateway.Errorf(gateway.CodeUnavailable, "no worker for function %s: the gateway is stopping", function)
	err.RetryAfter = time.Second
	return err
}

// contextError says why ctx ended the wait.
func contextError(ctx context.Context, function string) *gateway.Error {
	return gateway.Left(ctx, "while waiting for a worker of function "+function)
}
