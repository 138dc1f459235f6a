package containerd

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sync/errgroup"

	"github.com/edge-serverless-box/esb/agent"
	"github.com/edge-serverless-box/esb/agent/cgroup"
	"github.com/edge-serverless-box/esb/agent/images"
	"github.com/edge-serverless-box/esb/agent/rootmount"
)

const (
	// parkedBytes is what has to be free for a container that is nobody's.
	parkedBytes = 8 << 20
	// parkedMemoryMB is the memory of functions that have as much of the CPU.
	parkedMemoryMB = 128
	// parkPause is how long after a container was taken the next one is made: the start that took it is to be answered first.
	parkPause = 250 * time.Millisecond
	// Bounds of the pause after one could not be made; it doubles each time.
	minParkBackoff, maxParkBackoff = time.Second, time.Minute
	// bindFailures is after how many failures in a row no container is bound for a while, of which minOff and maxOff are the bounds: it
	// doubles until a bind succeeds.
	bindFailures   = 3
	minOff, maxOff = time.Minute, time.Hour
	// parkedPart is the part of FUNCTION_MEMORY_BUDGET, one in so many, that they take at most.
	parkedPart = 16
	// scarce is for how long nothing is made ahead after all of it had to go because there was no room.
	scarce = time.Minute
	// closeLimit bounds how long Close removes them: each has ended by then, and what is left of it goes with the next Open or Purge.
	closeLimit = 5 * time.Second
	// closeRemovals is how many are removed at once then.
	closeRemovals = 16
)

// lot keeps containers that are nobody's yet: with all that makes one take long to make, and lambda-init waiting in it. Bound to
// a function (bind.go), one is as any other; it is never anybody else's then.
type lot struct {
	// wake tells that one was taken, wakeStems that stem cells may be missing or can be made.
	wake, wakeStems chan struct{}
	// clearing is held while all are removed, and cleared counts those that were.
	clearing sync.Mutex
	cleared  atomic.Int64

	// mu guards the following. It is taken before Runtime.mu.
	mu    sync.Mutex
	ready []*parked
	// kinds are those of stem cells by their keys.
	kinds map[string]*kind
	// taken is when the last one was, and demand how many were wanted lately.
	taken  time.Time
	demand demand
	// scarce is until when there may be no room for any.
	scarce time.Time
	// failures of binds in a row; until off nothing is parked or bound, offFor is how long that was last, and note is what the operator
	// is told of it.
	failures int
	off      time.Time
	offFor   time.Duration
	note     string
}

// parked is a container that is nobody's.
type parked struct {
	record record
	state  *state
	groups []cgroup.Folder
	// mounts is its mount namespace: that of its process, whatever becomes of that one's number.
	mounts *os.File
	// program is the identity of the lambda-init that it was made with.
	program string
	// keep are the mount points that stay when it gets its root filesystem.
	keep []string
	// conn is to its lambda-init.
	conn *net.UnixConn
	// ready is closed when lambda-init says that its endpoint listens.
	ready chan struct{}
	// watched is closed when nobody reads conn any more.
	watched chan struct{}
	// kind is that of a stem cell, nil for one that is parked only; layers are those of its root filesystem.
	kind   *kind
	layers layers
}

func newLot() *lot {
	return &lot{wake: make(chan struct{}, 1), wakeStems: make(chan struct{}, 1), kinds: map[string]*kind{}}
}

// parkRoot is the root filesystem of what is parked: nothing but what is mounted on.
func (r *Runtime) parkRoot() string { return filepath.Join(r.filesDir(), "parked", "root") }

// openLot begins to park containers, unless that is off or this machine cannot.
func (r *Runtime) openLot() {
	l := r.parked
	if r.cfg.Parked <= 0 {
		return
	}
	err := os.MkdirAll(r.parkRoot(), 0o755)
	if err == nil {
		err = makeMountPoints(r.parkRoot(), append(slices.Clone(mountPoints), rootmount.NewRoot), mountFiles)
	}
	if err == nil {
		r.views.mounts, err = rootmount.Open(filepath.Join(r.filesDir(), "parked", "views"))
	}
	if err != nil {
		r.log.Warn("no containers are made ahead: this machine cannot give one that runs its root filesystem (PARKED_SANDBOXES=0 says so without this warning)", "error", err)
		return
	}
	l.wake <- struct{}{}
	r.background.Go(r.fillLot)
	if r.cfg.StemCells > 0 {
		r.background.Go(r.fillStems)
	}
}

// closeLot ends what is parked, and removes it for a while. Nothing is being parked any more. What it returns waits for removals that
// have not come to their end: they do as soon as there is no containerd to be asked.
func (r *Runtime) closeLot() (wait func(), err error) {
	ctx, stop := context.WithTimeout(context.WithoutCancel(r.life), closeLimit)
	ready := r.parked.empty()
	for _, p := range ready {
		p.leave()
		p.letGo()
	}
	removed := make(chan struct{})
	go func() {
		defer close(removed)
		r.removeParked(ctx, ready, closeRemovals)
	}()
	select {
	case <-removed:
	case <-ctx.Done():
		r.log.Warn("some containers that are nobody's are left for the next agent to remove", "in_all", len(ready))
	}
	stop()
	return func() { <-removed }, r.views.close()
}

// Notes are what the operator should know.
func (r *Runtime) Notes() []string {
	r.parked.mu.Lock()
	defer r.parked.mu.Unlock()
	if r.parked.note == "" {
		return nil
	}
	return []string{r.parked.note}
}

// fillLot keeps containers parked until Close. It makes one at a time, and none while a function waits for its own.
func (r *Runtime) fillLot() {
	l := r.parked
	backoff := minParkBackoff
	for {
		select {
		case <-r.life.Done():
			return
		case <-l.wake:
		}
		for {
			missing, pause := l.missing(r.wanted)
			if missing < 0 {
				r.removeParked(r.life, l.surplus(-missing), 1)
			}
			if missing <= 0 {
				break
			}
			if pause = r.givesWay(pause); pause > 0 {
				if !sleep(r.life, pause) {
					return
				}
				continue
			}
			if err := r.park(r.life); err != nil {
				if r.life.Err() != nil {
					return
				}
				if agent.ErrorCode(err) != agent.CodeExhausted && backoff == minParkBackoff {
					r.log.Warn("no container can be made ahead; trying again at longer and longer intervals", "error", err)
				}
				if !sleep(r.life, backoff) {
					return
				}
				backoff = min(2*backoff, maxParkBackoff)
				continue
			}
			backoff = minParkBackoff
		}
	}
}

// givesWay is a pause that something made ahead has, or the one for functions that wait for their starts.
func (r *Runtime) givesWay(pause time.Duration) time.Duration {
	if pause <= 0 && r.starts.Waiting() {
		return parkPause
	}
	return pause
}

// sleep returns false when ctx ends first.
func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}

// wanted is how many containers are to be parked when so many were wanted at once lately.
func (r *Runtime) wanted(lately int) int {
	n := max(min(lately, r.cfg.ParkedMax), r.cfg.Parked)
	if r.cfg.MemoryBudget > 0 {
		n = min(n, max(int(r.cfg.MemoryBudget/parkedPart/parkedBytes), 1))
	}
	return n
}

// missing says how many are to be made, less than none when there are too many, and after which pause.
func (l *lot) missing(wanted func(lately int) int) (int, time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	if now.Before(l.off) || now.Before(l.scarce) {
		return 0, 0
	}
	return wanted(l.demand.most(now)) - len(l.ready), parkPause - now.Sub(l.taken)
}

// surplus takes so many out that nobody wants any more.
func (l *lot) surplus(n int) []*parked {
	l.mu.Lock()
	defer l.mu.Unlock()
	n = min(n, len(l.ready))
	out := slices.Clone(l.ready[:n])
	l.ready = slices.Delete(l.ready, 0, n)
	return out
}

// park makes a container that is nobody's.
func (r *Runtime) park(ctx context.Context) error {
	l := r.newLaunch(agent.ContainerSpec{Interface: agent.Supervisor}, images.Image{}, nil, randomHex(suffixBytes))
	l.record.parked = true
	l.state.record = l.record
	if err := r.memory.Reserve(l.record.sandbox, parkedBytes); err != nil {
		return err
	}
	// What it holds is counted as soon as it holds it.
	defer r.memory.Release(l.record.sandbox)
	p, err := l.park(ctx)
	if err != nil {
		if undo := r.remove(ctx, l.record, 0); undo != nil {
			r.log.ErrorContext(ctx, "what was made of a container for nobody cannot be removed yet", "container_id", l.record.ID, "error", undo)
		}
		return err
	}
	r.log.DebugContext(ctx, "container parked", "container_id", p.record.ID)
	r.parked.mu.Lock()
	off := time.Now().Before(r.parked.off)
	if !off {
		r.parked.ready = append(r.parked.ready, p)
	}
	r.parked.mu.Unlock()
	if off { // meanwhile
		r.discard(ctx, p)
		return nil
	}
	// Behind it: one that ends at once is to be found there.
	r.background.Go(func() { r.watchParked(p) })
	r.parked.refillStems()
	return nil
}

// park goes from nothing to a lambda-init that waits.
func (l *launch) park(ctx context.Context) (*parked, error) {
	watch, stop := context.WithCancel(context.WithoutCancel(ctx))
	var watching sync.WaitGroup
	defer watching.Wait()
	defer stop()
	l.watch = func() { watching.Go(func() { l.exit <- l.r.waitExit(watch, l.record.sandbox) }) }
	var listener *net.UnixListener
	defer func() {
		if listener != nil {
			_ = listener.Close() // which removes its file
		}
	}()
	p := &parked{record: l.record, state: l.state, ready: l.ready, program: identity(l.r.binary("lambda-init")), watched: make(chan struct{})}
	err := l.take(ctx, []step{
		{"shim", "find it a shim", l.joinShim},
		{"network", "attach it to the network", l.attach},
		{"files", "make its files", l.makeFiles},
		{"socket", "make its socket", func(context.Context) (err error) {
			listener, err = l.listenParked()
			return err
		}},
		{"cgroup", "make its cgroup", l.makeGroup},
		{"record", "make its record", func(ctx context.Context) error {
			l.rootfs = []mount.Mount{{Type: "bind", Source: l.r.parkRoot(), Options: []string{"bind", "ro"}}}
			return l.makeContainer(ctx)
		}},
		{"task", "make its process", l.makeTask},
		{"namespace", "open its mount namespace", l.openMounted},
		{"start", "start its process", l.startProcess},
		{"wait", "wait for its process", func(ctx context.Context) (err error) {
			p.conn, err = l.accept(ctx, listener)
			return err
		}},
	})
	p.record, p.groups, p.mounts, p.keep = l.record, l.groups, l.mounted, outermost(l.mounts)
	if err != nil {
		p.letGo()
		return nil, err
	}
	return p, nil
}

// listenParked makes the socket on which lambda-init says that it waits.
func (l *launch) listenParked() (*net.UnixListener, error) {
	file := filepath.Join(l.r.notifyDir(l.record.ID), bindName)
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: file, Net: "unix"})
	if err != nil {
		return nil, err
	}
	if err := errors.Join(os.Chmod(file, 0o600), os.Lchown(file, int(l.record.firstID), int(l.record.firstID))); err != nil {
		return nil, errors.Join(err, listener.Close())
	}
	return listener, nil
}

// accept waits for lambda-init.
func (l *launch) accept(ctx context.Context, listener *net.UnixListener) (*net.UnixConn, error) {
	ctx, stop := context.WithTimeout(ctx, l.r.cfg.ReadyTimeout)
	defer stop()
	context.AfterFunc(ctx, func() { _ = listener.SetDeadline(time.Unix(1, 0)) })
	var watching sync.WaitGroup
	defer watching.Wait()
	defer stop()
	early := make(chan error, 1)
	watching.Go(func() {
		select {
		case e := <-l.exit:
			early <- l.early(e)
			stop()
		case <-ctx.Done():
		}
	})
	conn, err := listener.AcceptUnix()
	if err == nil {
		return conn, nil
	}
	select {
	case died := <-early:
		return nil, died
	default:
		return nil, fmt.Errorf("wait for its lambda-init: %w", err)
	}
}

// outermost are the mount points that are on no other one.
func outermost(mounts []specs.Mount) []string {
	var out []string
	for _, m := range mounts {
		if !slices.ContainsFunc(mounts, func(o specs.Mount) bool { return strings.HasPrefix(m.Destination, path.Clean(o.Destination)+"/") }) {
			out = append(out, path.Clean(m.Destination))
		}
	}
	return out
}

// watchParked removes a container that ends while it is nobody's.
func (r *Runtime) watchParked(p *parked) {
	defer context.AfterFunc(r.life, p.hush)()
	// It says nothing: this ends with the connection, or when take wants it to.
	_, err := p.conn.Read(make([]byte, 1))
	close(p.watched)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return
	}
	l := r.parked
	l.mu.Lock()
	list := &l.ready
	if p.kind != nil {
		list = &p.kind.ready
	}
	i := slices.Index(*list, p)
	if i >= 0 {
		*list = slices.Delete(*list, i, i+1)
		if p.kind != nil {
			p.kind.failed()
		}
	}
	l.taken = time.Now()
	l.mu.Unlock()
	if i < 0 || r.life.Err() != nil {
		return
	}
	r.log.Warn("a container that is nobody's has ended", "container_id", p.record.ID)
	r.discard(r.life, p)
	l.refill()
	l.refillStems()
}

func (l *lot) refill() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// letGo closes what is open of it.
func (p *parked) letGo() {
	if p.conn != nil {
		_ = p.conn.Close()
	}
	if p.mounts != nil {
		_ = p.mounts.Close()
	}
}

// discard removes a container that is nobody's, or could not be bound.
func (r *Runtime) discard(ctx context.Context, p *parked) {
	p.letGo()
	if err := r.logs.RemoveWaiting(p.record.sandbox); err != nil {
		r.log.WarnContext(ctx, "the log of a container that is nobody's stays", "container_id", p.record.ID, "error", err)
	}
	rec := p.record
	if s := r.state(rec.sandbox); s != nil {
		rec = s.record
	}
	if err := r.remove(ctx, rec, 0); err != nil {
		r.log.ErrorContext(ctx, "a container that is nobody's cannot be removed yet", "container_id", rec.ID, "error", err)
	}
}

// stale says whether what is parked was made with another program than this one: it was installed anew meanwhile, and is what
// functions are to have.
func (l *lot) stale(program string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.ContainsFunc(l.ready, func(p *parked) bool { return p.program != program })
}

// take returns one that is nobody's, nil when there is none.
func (l *lot) take() *parked {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	l.demand.add(now)
	l.refill()
	if now.Before(l.off) || len(l.ready) == 0 {
		return nil
	}
	p := l.ready[0]
	l.ready = slices.Delete(l.ready, 0, 1)
	l.taken = now
	return p
}

// clearLot removes all that are nobody's, and says how many there were, those included that another call has removed meanwhile. When ctx
// ends before, what is left is the next Open's.
func (r *Runtime) clearLot(ctx context.Context) int {
	l := r.parked
	before := l.cleared.Load()
	l.clearing.Lock()
	defer l.clearing.Unlock()
	ready := l.empty()
	r.removeParked(ctx, ready, parallelRemovals)
	l.cleared.Add(int64(len(ready)))
	return int(l.cleared.Load() - before)
}

// makeRoom is clearLot for what a function needs: for a while nothing takes the room again.
func (r *Runtime) makeRoom(ctx context.Context) int {
	l := r.parked
	l.mu.Lock()
	l.scarce = time.Now().Add(scarce)
	l.mu.Unlock()
	return r.clearLot(ctx) // upkeep has them made again
}

// count is how many are nobody's.
func (l *lot) count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := len(l.ready)
	for _, k := range l.kinds {
		n += len(k.ready)
	}
	return n
}

// empty takes all out that are nobody's.
func (l *lot) empty() []*parked {
	l.mu.Lock()
	defer l.mu.Unlock()
	ready := l.ready
	l.ready, l.taken = nil, time.Now()
	for _, k := range l.kinds {
		ready = append(ready, k.ready...)
		k.ready = nil
	}
	return ready
}

// removeParked removes containers that are nobody's and in no lot any more, so many at once. Each ends by itself as soon as it is let
// go; when ctx has ended, what is left of it is the next Open's.
func (r *Runtime) removeParked(ctx context.Context, list []*parked, atOnce int) {
	group := errgroup.Group{}
	group.SetLimit(atOnce)
	for _, p := range list {
		group.Go(func() error {
			p.leave()
			p.letGo()
			if ctx.Err() == nil {
				r.discard(ctx, p)
			}
			return nil
		})
	}
	_ = group.Wait()
}

// leave ends watchParked.
func (p *parked) leave() {
	p.hush()
	<-p.watched
}

func (p *parked) hush() { _ = p.conn.SetReadDeadline(time.Unix(1, 0)) }

// bound keeps account of binds: when one after the other fails, there is something that more of them will not cure.
func (r *Runtime) bound(err error) {
	l := r.parked
	l.mu.Lock()
	if err == nil {
		l.failures, l.offFor, l.note = 0, 0, ""
		l.mu.Unlock()
		return
	}
	l.failures++
	now := time.Now()
	off := l.failures >= bindFailures && !now.Before(l.off)
	if off {
		l.offFor = min(max(2*l.offFor, minOff), maxOff)
		l.off = now.Add(l.offFor)
		l.note = fmt.Sprintf("containers are not made ahead until %s, because %d in a row could not be bound to their function (PARKED_SANDBOXES); the last: %v",
			l.off.UTC().Format(time.TimeOnly), l.failures, err)
	}
	pause := l.offFor
	l.mu.Unlock()
	if off {
		r.log.Error("no containers are made ahead for a while: one after the other could not be bound to its function (PARKED_SANDBOXES)", "seconds", int(pause.Seconds()), "error", err)
		r.background.Go(func() { r.clearLot(r.life) })
	}
}
