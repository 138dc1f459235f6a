package containerd

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/edge-serverless-box/esb/agent"
	"github.com/edge-serverless-box/esb/agent/code"
	"github.com/edge-serverless-box/esb/agent/images"
	"github.com/edge-serverless-box/esb/agent/lambdainit"
	"github.com/edge-serverless-box/esb/agent/rootmount"
)

// A stem cell is a parked container that has been given the root filesystem of a base image, with the interpreter started and the runtime
// client loaded: the client waits to be told its environment, arguments and working folder, and imports the handler then. It has run
// nobody's code, and becomes one function's, once. What an interpreter reads when it starts has to be the same for that function as
// for any other of its kind, else the function has its interpreter started in the plain way.

const (
	// labelWaits of a base image says that its client can wait (functions/runtimes).
	labelWaits = "io.esb.client.waits"
	// stemBytes has to be free for a stem cell: more than what Node.js takes with its client loaded.
	stemBytes = 64 << 20
	// stemLimit bounds the start of an interpreter.
	stemLimit = 30 * time.Second
	// stemFailures is after how many failures in a row a kind is given up for as long as binds are at most. Those that end before a function
	// has them count, too.
	stemFailures = 3
	// stemKept is for how long there are stem cells of a kind that no function has started with, and stemKinds bounds the kinds: the one
	// that was not needed for longest goes.
	stemKept  = 24 * time.Hour
	stemKinds = 8
	// stemRest is for how long a kind is not wanted before another one may take its place.
	stemRest = 5 * time.Minute
)

// startNames and startPrefixes are the variables that an interpreter, the C library or the loader may read when a process starts, or
// that say how it is started. A function that has one of them otherwise than the box does is of no kind.
var (
	startNames = []string{
		"LANG", "LANGUAGE", "LOCPATH", "NLSPATH", "GCONV_PATH", "TZ", "TZDIR", "HOSTALIASES", "LOCALDOMAIN", "RES_OPTIONS", "AWS_LAMBDA_EXEC_WRAPPER",
		// Node.js looks for packages there (node:module, globalPaths).
		"HOME",
	}
	startPrefixes = []string{"PYTHON", "NODE_", "LD_", "LC_", "GLIBC_", "MALLOC_", "OPENSSL_", "SSL_", "UV_", "ICU_", "V8_", "_ESB_"}
)

// atStart returns those of a list of variables that count at the start of a process.
func atStart(env []string) []string {
	var out []string
	for _, kv := range env {
		name, _, _ := strings.Cut(kv, "=")
		if slices.Contains(startNames, name) || slices.ContainsFunc(startPrefixes, func(p string) bool { return strings.HasPrefix(name, p) }) {
			out = append(out, kv)
		}
	}
	return out
}

// kind is what all stem cells are that can serve the same functions.
type kind struct {
	// key has all that tells it from other kinds, name is for people.
	key, name string
	image     images.Image
	start     lambdainit.Call

	// The following is guarded by lot.mu.
	ready []*parked
	used  time.Time
	// failures since one was of use, and when the last one was.
	failures int
	failedAt time.Time
}

// kindOf returns the kind of stem cells that can serve a function, nil when none can.
func (r *Runtime) kindOf(spec agent.ContainerSpec, img images.Image, leased *code.Lease) *kind {
	if r.cfg.StemCells <= 0 || r.views.mounts == nil || spec.Code == nil || spec.Standby || img.Config.Labels[labelWaits] == "" || namesUser(img.Config.User) {
		return nil
	}
	in := specInput{
		spec: spec, image: img.Config, environment: r.cfg.Environment, user: user{uid: defaultUID, gid: defaultGID},
		noFile: r.cfg.NoFile, pidsLimit: r.cfg.PIDsLimit, region: r.cfg.Region, account: r.cfg.AccountID,
	}
	if !in.managed() {
		return nil
	}
	given := atStart(environment(in))
	in.environment, in.spec.Env = nil, nil
	bare := environment(in)
	if !slices.Equal(given, atStart(bare)) {
		return nil
	}
	if found, err := leased.HasLibraries(); found || err != nil {
		return nil // one that cannot be looked at will be told when it is mounted
	}
	args := nodeHeap(in.entrypoint(), spec.MemoryMB, variable(bare, "NODE_OPTIONS"))
	k := &kind{name: spec.Code.Runtime, image: img, start: lambdainit.Call{Start: true, Args: args, Cwd: "/", Env: append(slices.Clip(atStart(bare)),
		"PATH="+variable(bare, "PATH"), "ESB_INIT_HOME="+string(lambdainit.HomeNone), "ESB_INIT_USER="+in.user.setting(),
		"ESB_INIT_NOFILE="+strconv.Itoa(in.noFile), "ESB_INIT_NPROC="+strconv.Itoa(in.pidsLimit))}}
	k.key = strings.Join(slices.Concat([]string{img.Name, string(img.Content), img.Chain}, args, k.start.Env), "\x00")
	return k
}

// takeStem returns a stem cell of a kind, nil when there is none.
func (r *Runtime) takeStem(of *kind) *parked {
	if of == nil {
		return nil
	}
	l := r.parked
	for {
		l.mu.Lock()
		k := l.kinds[of.key]
		if time.Now().Before(l.off) || k == nil || len(k.ready) == 0 {
			l.mu.Unlock()
			return nil
		}
		p := k.ready[0]
		k.ready, k.failures = k.ready[1:], 0
		l.taken = time.Now()
		l.mu.Unlock()
		p.leave()
		// What the interpreter has open is of layers that may have been replaced since then, and so may lambda-init.
		if !r.hasLostShim(p) && p.layers.unchanged() && p.program == identity(r.binary("lambda-init")) {
			return p
		}
		r.discard(context.WithoutCancel(r.life), p) // now: what it stands on may have to be mended
	}
}

// wantStem has stem cells made of a kind that a function has started with, for the next ones.
func (r *Runtime) wantStem(of *kind) {
	if of == nil {
		return
	}
	l := r.parked
	var gone []*parked
	l.mu.Lock()
	k := l.kinds[of.key]
	if k == nil && !l.admits() {
		l.mu.Unlock()
		return
	}
	if k == nil {
		k = of
		l.kinds[of.key] = k
	}
	k.used = time.Now()
	var oldest *kind
	for key, other := range l.kinds {
		if other.image.Name == k.image.Name && other.image.Content != k.image.Content { // replaced
			gone = append(gone, other.ready...)
			delete(l.kinds, key)
		} else if oldest == nil || other.used.Before(oldest.used) {
			oldest = other
		}
	}
	if len(l.kinds) > stemKinds {
		gone = append(gone, oldest.ready...)
		delete(l.kinds, oldest.key)
	}
	l.mu.Unlock()
	for _, p := range gone {
		r.background.Go(func() {
			p.leave()
			r.discard(context.WithoutCancel(r.life), p)
		})
	}
	l.refillStems()
}

// unwanted takes out the stem cells of kinds that no function has started with for long.
func (l *lot) unwanted() (gone []*parked) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for key, k := range l.kinds {
		if time.Since(k.used) > stemKept {
			gone = append(gone, k.ready...)
			delete(l.kinds, key)
		}
	}
	return gone
}

// fillStems keeps stem cells until Close, each made of a parked container. It makes one at a time, and none while a function waits for
// its start.
func (r *Runtime) fillStems() {
	l := r.parked
	backoff := minParkBackoff
	for {
		select {
		case <-r.life.Done():
			return
		case <-l.wakeStems:
		}
		for {
			k, pause := l.missingStem(r.cfg.StemCells)
			if k == nil {
				break
			}
			if pause = r.givesWay(pause); pause > 0 {
				if !sleep(r.life, pause) {
					return
				}
				continue
			}
			p := l.spare(r.wanted)
			if p == nil {
				break // the next one that is parked wakes this
			}
			p.leave()
			err := r.makeStem(r.life, k, p)
			if r.life.Err() != nil {
				return
			}
			if err == nil {
				backoff = minParkBackoff
				continue
			}
			if agent.ErrorCode(err) != agent.CodeExhausted {
				l.failedStem(k)
				r.log.Warn("a runtime cannot be started ahead of its function (STEM_CELLS)", "runtime", k.name, "error", err)
			}
			if !sleep(r.life, backoff) {
				return
			}
			backoff = min(2*backoff, maxParkBackoff)
		}
	}
}

// missingStem returns a kind of which one is to be made, and after which pause; nil when none is missing.
func (l *lot) missingStem(size int) (*kind, time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if now := time.Now(); now.Before(l.off) || now.Before(l.scarce) {
		return nil, 0
	}
	var found *kind
	for _, k := range l.kinds {
		if len(k.ready) < size && (k.failures < stemFailures || time.Since(k.failedAt) > maxOff) && (found == nil || k.used.After(found.used)) {
			found = k
		}
	}
	return found, parkPause - time.Since(l.taken)
}

// spare takes one of those that are parked, when none of them is missing: starts need them more.
func (l *lot) spare(wanted func(lately int) int) *parked {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	if now.Before(l.off) || len(l.ready) == 0 || len(l.ready) < wanted(l.demand.most(now)) {
		return nil
	}
	p := l.ready[0]
	l.ready = slices.Delete(l.ready, 0, 1)
	l.taken = now
	l.refill()
	return p
}

func (l *lot) failedStem(k *kind) {
	l.mu.Lock()
	defer l.mu.Unlock()
	k.failed()
}

// failed counts a failure. Callers hold lot.mu.
func (k *kind) failed() {
	k.failures++
	k.failedAt = time.Now()
}

// admits says whether there is a place for one more kind: more of them in turn than there are places would each find that its own has
// just gone. Callers hold mu.
func (l *lot) admits() bool {
	if len(l.kinds) < stemKinds {
		return true
	}
	for _, k := range l.kinds {
		if time.Since(k.used) > stemRest {
			return true
		}
	}
	return false
}

func (l *lot) refillStems() {
	select {
	case l.wakeStems <- struct{}{}:
	default:
	}
}

// makeStem makes a stem cell of a parked container, which is removed when that fails.
func (r *Runtime) makeStem(ctx context.Context, k *kind, p *parked) error {
	err := r.memory.Reserve(p.record.sandbox, stemBytes)
	if err == nil {
		err = r.startStem(ctx, k, p)
		r.memory.Release(p.record.sandbox) // what it holds is counted now
	}
	if err != nil {
		r.discard(context.WithoutCancel(ctx), p)
		return err
	}
	l := r.parked
	l.mu.Lock()
	now := time.Now()
	wanted := !now.Before(l.off) && !now.Before(l.scarce) && l.kinds[k.key] == k
	if wanted {
		p.kind = k
		k.ready = append(k.ready, p)
	}
	l.mu.Unlock()
	if !wanted { // meanwhile
		r.discard(context.WithoutCancel(ctx), p)
		return nil
	}
	r.log.DebugContext(ctx, "runtime started ahead", "container_id", p.record.ID, "runtime", k.name)
	r.background.Go(func() { r.watchParked(p) })
	return nil
}

// startStem gives a parked container the root filesystem of a kind and has its lambda-init start the interpreter.
func (r *Runtime) startStem(ctx context.Context, k *kind, p *parked) error {
	work, cancel := context.WithTimeout(context.WithoutCancel(ctx), launchTimeout)
	defer cancel()
	base, err := r.prepared(work, k.image, k.image.Config.WorkingDir)
	if err != nil {
		return err
	}
	err = r.holdView(work, base, k.image)
	// From here on the removal of the container releases it.
	p.state.mu.Lock()
	p.state.view = base
	p.state.mu.Unlock()
	if err != nil {
		return err
	}
	if err := r.views.mounts.Enter(p.mounts, rootmount.Root{View: base, Keep: p.keep}); err != nil {
		return err
	}
	text, err := json.Marshal(k.start)
	if err != nil {
		return err
	}
	if err := p.conn.SetDeadline(time.Now().Add(stemLimit)); err != nil {
		return err
	}
	defer context.AfterFunc(ctx, p.hush)()
	if _, err := p.conn.Write(text); err != nil {
		return fmt.Errorf("tell its lambda-init what to start ahead: %w", err)
	}
	answer := make([]byte, 4<<10)
	n, err := p.conn.Read(answer)
	if err != nil {
		return fmt.Errorf("wait for what its lambda-init has started ahead: %w", err)
	}
	if said := string(answer[:n]); said != lambdainit.Waits {
		return fmt.Errorf("its lambda-init: %s", strings.ToValidUTF8(said, "?"))
	}
	p.layers, p.watched = r.views.layers(base), make(chan struct{})
	return p.conn.SetDeadline(time.Time{})
}

// addMounts mounts in a stem cell what the function has beyond the root filesystem, which it has already.
func (l *launch) addMounts(ctx context.Context) error {
	in, err := l.input(ctx, nil)
	if err != nil {
		return err
	}
	root, err := l.rootOf(in)
	if err != nil {
		return err
	}
	return rootmount.Add(l.parked.mounts, root.Binds, root.Tmp)
}
