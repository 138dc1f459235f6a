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
	// parkPause is how long after a container was taken the next one is made: the start that took it is to be answered first.
	parkPause = 250 * time.Millisecond
	// Bounds of the pause after one could not be made; it doubles each time.
	minParkBackoff, maxParkBackoff = time.Second, time.Minute
	// bindFailures is after how many failures in a row no container is bound any more.
	bindFailures = 3
	// viewKept is for how long a view of an image is kept that no container was bound to.
	viewKept = 10 * time.Minute
)

// lot keeps containers that are nobody's yet: with all that makes one take long to make, and lambda-init waiting in it. Bound to
// a function (bind.go), one is as any other; it is never anybody else's then.
type lot struct {
	// views are the root filesystems of functions; nil: nothing is parked.
	views *rootmount.Views
	// wake tells that one was taken.
	wake chan struct{}

	// mu guards the following. It is taken before Runtime.mu.
	mu    sync.Mutex
	ready []*parked
	// taken is when the last one was.
	taken time.Time
	// failures of binds in a row; off is why nothing is parked any more, and note what the operator is told of that.
	failures  int
	off, note string
	// used is when a view was last given to a container, and layers what it is of, by its key.
	used   map[string]time.Time
	layers map[string]layers
}

// parked is a container that is nobody's.
type parked struct {
	record record
	state  *state
	groups []cgroup.Folder
	pid    uint32
	// keep are the mount points that stay when it gets its root filesystem.
	keep []string
	// conn is to its lambda-init.
	conn *net.UnixConn
	// ready is closed when lambda-init says that its endpoint listens.
	ready chan struct{}
	// watched is closed when nobody reads conn any more.
	watched chan struct{}
}

func newLot() *lot {
	return &lot{wake: make(chan struct{}, 1), used: map[string]time.Time{}, layers: map[string]layers{}}
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
		l.views, err = rootmount.Open(filepath.Join(r.filesDir(), "parked", "views"))
	}
	if err != nil {
		l.off = "this machine cannot"
		r.log.Warn("no containers are made ahead: this machine cannot give one that runs its root filesystem (PARKED_SANDBOXES=0 says so without this warning)", "error", err)
		return
	}
	l.wake <- struct{}{}
	r.background.Go(r.fillLot)
}

// closeLot ends what is parked. Nothing is being parked any more.
func (r *Runtime) closeLot() error {
	r.clearLot(context.WithoutCancel(r.life))
	if r.parked.views == nil {
		return nil
	}
	return r.parked.views.Close()
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
			missing, pause := l.missing(r.cfg.Parked)
			if !missing {
				break
			}
			if pause <= 0 && r.starts.Waiting() {
				pause = parkPause
			}
			if pause > 0 {
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

// missing says whether one is to be made, and after which pause.
func (l *lot) missing(size int) (bool, time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.off == "" && len(l.ready) < size, parkPause - time.Since(l.taken)
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
	off := r.parked.off != ""
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
	p := &parked{record: l.record, state: l.state, ready: l.ready, watched: make(chan struct{})}
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
		{"start", "start its process", l.startProcess},
		{"wait", "wait for its process", func(ctx context.Context) (err error) {
			p.conn, err = l.accept(ctx, listener)
			return err
		}},
	})
	if err != nil {
		if p.conn != nil {
			err = errors.Join(err, p.conn.Close())
		}
		return nil, err
	}
	p.record, p.groups, p.pid, p.keep = l.record, l.groups, l.pid, outermost(l.mounts)
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
	i := slices.Index(l.ready, p)
	if i >= 0 {
		l.ready = slices.Delete(l.ready, i, i+1)
	}
	l.taken = time.Now()
	l.mu.Unlock()
	if i < 0 || r.life.Err() != nil {
		return
	}
	r.log.Warn("a container that is nobody's has ended", "container_id", p.record.ID)
	r.discard(r.life, p)
	l.refill()
}

func (l *lot) refill() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// discard removes a container that is nobody's, or could not be bound.
func (r *Runtime) discard(ctx context.Context, p *parked) {
	_ = p.conn.Close()
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

// take returns one that is nobody's, nil when there is none.
func (l *lot) take() *parked {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.off != "" || len(l.ready) == 0 {
		return nil
	}
	p := l.ready[0]
	l.ready = l.ready[1:]
	l.taken = time.Now()
	l.refill()
	return p
}

// clearLot removes all that are nobody's, and says how many there were.
func (r *Runtime) clearLot(ctx context.Context) int {
	l := r.parked
	l.mu.Lock()
	ready := l.ready
	l.ready, l.taken = nil, time.Now()
	l.mu.Unlock()
	group := errgroup.Group{}
	group.SetLimit(parallelRemovals)
	for _, p := range ready {
		group.Go(func() error {
			p.leave()
			r.discard(ctx, p)
			return nil
		})
	}
	_ = group.Wait()
	return len(ready)
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
		l.failures = 0
		l.mu.Unlock()
		return
	}
	l.failures++
	last := l.failures == bindFailures
	if last {
		l.off = "binds fail"
		l.note = fmt.Sprintf("containers are not made ahead any more, because %d in a row could not be bound to their function (PARKED_SANDBOXES); the last: %v", bindFailures, err)
	}
	l.mu.Unlock()
	if last {
		r.log.Error("containers are not made ahead any more: one after the other could not be bound to its function (PARKED_SANDBOXES)", "error", err)
		r.background.Go(func() { r.clearLot(context.WithoutCancel(r.life)) })
	}
}

// dropViews gives up the views that no container was bound to for so long: what layers of images take is free then, when no
// container has them.
func (r *Runtime) dropViews(ctx context.Context, unusedFor time.Duration) error {
	l := r.parked
	if l.views == nil {
		return nil
	}
	l.mu.Lock()
	var keys []string
	for key, at := range l.used {
		if time.Since(at) >= unusedFor {
			keys = append(keys, key)
			delete(l.used, key)
			delete(l.layers, key)
		}
	}
	l.mu.Unlock()
	var errs []error
	sn := r.client.SnapshotService(images.Snapshotter)
	for _, key := range keys {
		errs = append(errs, l.views.Drop(key), ignoreNotFound(sn.Remove(ctx, viewKey(key))))
	}
	return errors.Join(errs...)
}

// viewKey is the name of the snapshot that keeps the layers of a view.
func viewKey(base string) string { return "esb-view-" + base }
