package pool_test

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/edge-serverless-box/esb/gateway"
	"github.com/edge-serverless-box/esb/gateway/pool"
)

type (
	startHook func(ctx context.Context, fn *gateway.Function, standby bool) error
	stopHook  func(ctx context.Context, id string) error
)

// box is a Provisioner without containers. Its hooks run without mu.
type box struct {
	mu         sync.Mutex
	onStart    startHook
	onStop     stopHook
	listError  error
	seq        int
	containers map[string]pool.Observed
	standby    map[string]bool
	// starting and peak count containers by function: those that exist or are being made, now and at most.
	starting map[string]int
	peak     map[string]int
	starts   []string // function names, in the order of the calls
	stopped  []string
	reasons  map[string]string
	// frozen are the workers that stand still; thaws counts the calls. onFreeze runs without mu.
	frozen   map[string]bool
	thaws    int
	onFreeze func(ctx context.Context, id string) error
	onThaw   func() error
	// atOnce is called by those that thaw without the agent; nil when nobody can. It never changes.
	atOnce func() error
	// digest is what every image has now, but one that is named by its digest when such are kept.
	digest string
	kept   bool
	// owner has the containers that are made.
	owner string
	// conditions are those of workers that are not idle; examine runs without mu. A worker that stands gives no answer until it does not.
	conditions map[string]pool.Condition
	stands     map[string]chan struct{}
	examined   int
	examine    func(id string) error
	// parallel and parallelPeak count the starts that run at the same time.
	parallel, parallelPeak int
}

func newBox() *box {
	return &box{
		containers: map[string]pool.Observed{}, standby: map[string]bool{}, starting: map[string]int{},
		peak: map[string]int{}, reasons: map[string]string{}, frozen: map[string]bool{},
	}
}

func (b *box) Start(ctx context.Context, fn *gateway.Function, standby bool, _ string) (gateway.Worker, error) {
	b.mu.Lock()
	b.starts = append(b.starts, fn.Name)
	b.starting[fn.Name]++
	b.peak[fn.Name] = max(b.peak[fn.Name], b.starting[fn.Name])
	b.parallel++
	b.parallelPeak = max(b.parallelPeak, b.parallel)
	hook := b.onStart
	b.mu.Unlock()
	var err error
	if hook != nil {
		err = hook(ctx, fn, standby)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.parallel--
	if err != nil {
		b.starting[fn.Name]--
		return gateway.Worker{}, err
	}
	b.seq++
	digest := b.digest
	if _, named, ok := strings.Cut(fn.Image, "@"); ok && b.kept {
		digest = named
	}
	id := fmt.Sprintf("%s-%d", fn.Name, b.seq)
	b.containers[id] = pool.Observed{ID: id, Name: "lambda-" + id, Function: fn.Name, CreatedAt: time.Now(), Owner: b.owner,
		Addr: "10.88.0.2:8080", Generation: fn.Generation, ImageDigest: digest, Interface: fn.Interface, Standby: standby}
	b.standby[id] = standby
	return gateway.Worker{ID: id, Name: "lambda-" + id, Addr: "10.88.0.2:8080", Function: fn.Name, Generation: fn.Generation, ImageDigest: digest, Interface: fn.Interface, Standby: standby}, nil
}

func (b *box) Stop(ctx context.Context, id string, _ time.Duration, reason string) error {
	b.mu.Lock()
	hook := b.onStop
	b.mu.Unlock()
	if hook != nil {
		if err := hook(ctx, id); err != nil {
			return err
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.stopped = append(b.stopped, id)
	b.reasons[id] = reason
	if o, ok := b.containers[id]; ok {
		b.starting[o.Function]--
		delete(b.containers, id)
	}
	return nil
}

func (b *box) setDigest(digest string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.digest = digest
}

func (b *box) Freeze(ctx context.Context, w gateway.Worker) (func() error, error) {
	b.mu.Lock()
	hook := b.onFreeze
	b.mu.Unlock()
	if hook != nil {
		if err := hook(ctx, w.ID); err != nil {
			return nil, err
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.frozen[w.ID] = true
	if b.atOnce == nil {
		return nil, nil
	}
	return func() error {
		if err := b.atOnce(); err != nil {
			return err
		}
		b.mu.Lock()
		defer b.mu.Unlock()
		delete(b.frozen, w.ID)
		return nil
	}, nil
}

func (b *box) Thaw(_ context.Context, id string) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.thaws++
	if b.onThaw != nil {
		if err := b.onThaw(); err != nil {
			return err
		}
	}
	delete(b.frozen, id)
	return nil
}

// isFrozen says whether a worker stands still, and how often one was thawed.
func (b *box) isFrozen(id string) (frozen bool, thaws int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.frozen[id], b.thaws
}

func (b *box) List(context.Context) ([]pool.Observed, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.listError != nil {
		return nil, b.listError
	}
	var list []pool.Observed
	for _, o := range b.containers {
		o.Frozen = b.frozen[o.ID]
		list = append(list, o)
	}
	return list, nil
}

// Examine finds a worker idle, unless conditions says otherwise.
func (b *box) Examine(ctx context.Context, w gateway.Worker) (pool.Condition, error) {
	b.mu.Lock()
	hook, stands := b.examine, b.stands[w.ID]
	b.examined++
	b.mu.Unlock()
	if stands != nil {
		select {
		case <-stands:
		case <-ctx.Done():
			return 0, ctx.Err()
		}
	}
	if hook != nil {
		if err := hook(w.ID); err != nil {
			return 0, err
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if condition, ok := b.conditions[w.ID]; ok {
		return condition, nil
	}
	return pool.ConditionIdle, nil
}

// stop has a worker stand still until run is called.
func (b *box) stop(id string) (run func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.stands == nil {
		b.stands = map[string]chan struct{}{}
	}
	stands := make(chan struct{})
	b.stands[id] = stands
	return func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		delete(b.stands, id)
		close(stands)
	}
}

// questions counts the calls of Examine.
func (b *box) questions() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.examined
}

func (b *box) setCondition(id string, c pool.Condition) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.conditions == nil {
		b.conditions = map[string]pool.Condition{}
	}
	b.conditions[id] = c
}

func (b *box) pushImage(digest string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.digest = digest
}

func (b *box) setStart(h startHook) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.onStart = h
}

func (b *box) setStop(h stopHook) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.onStop = h
}

func (b *box) setListError(err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.listError = err
}

// peaks returns the most containers that function ever had, and the most starts that ever ran at once.
func (b *box) peaks(function string) (containers, starts int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.peak[function], b.parallelPeak
}

func (b *box) started(function string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Contains(b.starts, function)
}

// change edits the observed state of a container; nil makes it vanish.
func (b *box) change(id string, f func(*pool.Observed)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	o := b.containers[id]
	if f == nil {
		b.starting[o.Function]--
		delete(b.containers, id)
		return
	}
	f(&o)
	b.containers[o.ID] = o
}

func (b *box) count() (starts, stops, live int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.starts), len(b.stopped), len(b.containers)
}

func (b *box) reason(id string) string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.reasons[id]
}

func function(name string, sc gateway.Scaling) *gateway.Function {
	if sc.IdleTimeout == 0 {
		sc.IdleTimeout = 5 * time.Minute
	}
	if sc.AcquireTimeout == 0 {
		sc.AcquireTimeout = 30 * time.Second
	}
	return &gateway.Function{Name: name, Image: "esb/" + name, Generation: "g1", Timeout: 3 * time.Second, Scaling: sc}
}

func apply(m *pool.Manager, fns ...*gateway.Function) {
	functions := map[string]*gateway.Function{}
	for _, fn := range fns {
		functions[fn.Name] = fn
	}
	m.Apply(functions)
}

// mustOpen opens a Manager of fns, and closes it at the end of the test when the test did not.
func mustOpen(t testing.TB, b *box, opts pool.Options, fns ...*gateway.Function) *pool.Manager {
	t.Helper()
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.DiscardHandler)
	}
	if opts.MaxConcurrentStarts == 0 {
		opts.MaxConcurrentStarts = 100
	}
	m := pool.Open(b, opts)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_ = m.Close(ctx)
	})
	apply(m, fns...)
	return m
}
