package containerd

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"sync"
	"time"

	tasks "github.com/containerd/containerd/api/services/tasks/v1"
	"github.com/containerd/containerd/api/types"
	"github.com/containerd/containerd/api/types/runc/options"
	"github.com/containerd/containerd/v2/core/containers"
	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/errdefs/pkg/errgrpc"
	"github.com/containerd/typeurl/v2"
	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/edge-serverless-box/esb/agent"
	"github.com/edge-serverless-box/esb/agent/cgroup"
	"github.com/edge-serverless-box/esb/agent/code"
	"github.com/edge-serverless-box/esb/agent/errcode"
	"github.com/edge-serverless-box/esb/agent/images"
	"github.com/edge-serverless-box/esb/agent/shims"
	"github.com/edge-serverless-box/esb/agent/tmpdisk"
	"github.com/edge-serverless-box/esb/guard/turns"
)

const (
	// front is what containerd starts as its shim and what that starts as runc: agent/runcfront.
	front = "esb-runc"
	// labelRoot keeps a snapshot from containerd's garbage collection while no container names it yet.
	labelRoot = "containerd.io/gc.root"
	// probeInterval is the pause between attempts to connect to a container that cannot say that it is ready (RIE).
	probeInterval = 5 * time.Millisecond
	// tailLines of a container's log go into the error of a failed start.
	tailLines = 5
	// tailPatience bounds the wait for the first of them, tailPoll is the pause between two looks.
	tailPatience, tailPoll = 500 * time.Millisecond, 20 * time.Millisecond
)

// cannotExecute is how runc says that a container's program is missing or is none.
var cannotExecute = regexp.MustCompile(`exec: |exec /|exec format error`)

// launch is one container on its way up.
type launch struct {
	r      *Runtime
	spec   agent.ContainerSpec
	image  images.Image
	record record
	state  *state
	// netns, userns, groups and rootfs are what earlier steps made for later ones.
	netns  string
	userns string
	groups []cgroup.Folder
	rootfs []mount.Mount
	// mounts are those of its spec.
	mounts []specs.Mount
	// shim is the one that it is to be in, nil for one of its own that containerd starts.
	shim *shims.Shim
	pid  uint32
	// mounted is its mount namespace, for those that are parked.
	mounted *os.File
	// parked is what it was before it was bound to its function; nil for one that was made for it.
	parked *parked
	// watch begins to look for the exit of process 1.
	watch func()
	// turn is its place among the starts.
	turn *turns.Turn
	// disk waits for what becomes /tmp; nil where that is memory.
	disk func() (*tmpdisk.Disk, error)
	// code is nil for a function whose image has its code.
	code *code.Lease
	// taking is the getting of the disk.
	taking sync.WaitGroup
	// ready is closed when lambda-init says that its endpoint listens.
	ready chan struct{}
	// exit gets the exit of process 1, once.
	exit chan exit
	// took is how long each step was, in milliseconds, for the log.
	took []any
}

// Ensure implements agent.Runtime. Its errors have a reason; a start that failed stands in the function's log.
func (r *Runtime) Ensure(ctx context.Context, spec agent.ContainerSpec) (agent.Container, error) {
	c, err := r.ensure(ctx, spec)
	if err != nil {
		r.tell(spec, err)
	}
	return c, err
}

func (r *Runtime) ensure(ctx context.Context, spec agent.ContainerSpec) (agent.Container, error) {
	begin := time.Now()
	spec, err := validate(spec)
	if err != nil {
		return agent.Container{}, startStage.because(err)
	}
	var leased *code.Lease
	if spec.Code != nil {
		if spec, leased, err = r.lease(ctx, spec); err != nil {
			return agent.Container{}, codeStage.because(err)
		}
		// From then on the container's record keeps the code, if there is a container.
		defer leased.Release()
	}
	img, err := r.images.Get(ctx, spec.Image, spec.PullPolicy)
	if err != nil {
		err = errcode.Of(agent.CodeInternal, err)
		if spec.Code != nil {
			err = r.noBase(ctx, *spec.Code, err)
		}
		if agent.ErrorCode(err) == agent.CodeUnavailable && r.link.lostSince(begin) {
			return agent.Container{}, startStage.because(err) // no registry's fault
		}
		return agent.Container{}, imageStage.because(err)
	}
	fetched := time.Since(begin)
	turn, err := r.awaitTurn(ctx, spec)
	if err != nil {
		return agent.Container{}, startStage.because(err)
	}
	defer func() { turn.Done() }()
	l := r.newLaunch(spec, img, leased, randomHex(suffixBytes))
	k := r.kindOf(spec, img, leased)
	p := r.takeStem(k)
	if p == nil {
		p = r.takeParked(spec, img)
	}
	if p != nil {
		b := r.newBinding(spec, img, leased, p)
		b.turn = turn
		err := b.bind(ctx)
		if err == nil {
			l = b
		} else if ctx.Err() != nil {
			return agent.Container{}, startStage.because(b.explain(err))
		} else if turn, err = r.anotherTurn(ctx, spec, turn); err != nil {
			return agent.Container{}, startStage.because(err)
		}
	}
	if l.parked == nil {
		l.turn = turn
		err := l.start(ctx)
		if errors.Is(err, errShim) && ctx.Err() == nil {
			if turn, err = r.anotherTurn(ctx, spec, turn); err != nil {
				return agent.Container{}, startStage.because(err)
			}
			l = r.newLaunch(spec, img, leased, randomHex(suffixBytes))
			l.turn = turn
			err = l.start(ctx)
		}
		if err != nil {
			return agent.Container{}, startStage.because(l.explain(err))
		}
	}
	r.wantStem(k)
	l.log().InfoContext(ctx, "container started", "image", img.Name, "ip", l.record.IP, "standby", spec.Standby, "parked", l.parked != nil, "stem", l.parked != nil && l.parked.kind != nil,
		"duration_ms", time.Since(begin).Milliseconds(), "image_ms", fetched.Milliseconds(), slog.Group("steps_ms", l.took...))
	return l.record.Container, nil
}

// awaitTurn waits for a place among the starts. The caller ends the turn.
func (r *Runtime) awaitTurn(ctx context.Context, spec agent.ContainerSpec) (*turns.Turn, error) {
	turn := r.starts.Join(spec.FunctionName, !spec.Standby)
	select {
	case <-turn.Granted():
		return turn, nil
	case <-ctx.Done():
		turn.Done()
		return turn, errcode.Of(agent.CodeInternal, fmt.Errorf("wait for other starts (MAX_CONCURRENT_STARTS): %w", ctx.Err()))
	}
}

// anotherTurn is for a start that begins anew: what began may have given its place back already, when its process ran.
func (r *Runtime) anotherTurn(ctx context.Context, spec agent.ContainerSpec, before *turns.Turn) (*turns.Turn, error) {
	before.Done()
	return r.awaitTurn(ctx, spec)
}

// start makes the container in the plain way, and undoes what it has made when that fails.
func (l *launch) start(ctx context.Context) error {
	if err := l.reserve(ctx); err != nil {
		return err
	}
	if err := l.run(ctx, l.plain()); err != nil {
		l.turn.Done() // others need not wait for what follows
		l.r.memory.Release(l.record.sandbox)
		if undo := l.r.remove(ctx, l.record, 0); undo != nil {
			l.log().ErrorContext(ctx, "failed start cannot be undone yet", "error", undo)
		}
		return err
	}
	l.r.memory.Started(l.record.sandbox)
	return nil
}

// reserve finds memory for the container: containers that are nobody's go first.
func (l *launch) reserve(ctx context.Context) error {
	limit := int64(l.spec.MemoryMB) << 20
	err := l.r.memory.Reserve(l.record.sandbox, limit)
	if agent.ErrorCode(err) == agent.CodeExhausted && l.r.makeRoom(context.WithoutCancel(ctx)) > 0 {
		err = l.r.memory.Reserve(l.record.sandbox, limit)
	}
	return err
}

func (l *launch) log() *slog.Logger {
	return l.r.log.With("request_id", l.spec.RequestID, "function", l.spec.FunctionName, "container_id", l.record.ID)
}

// validate checks a spec and fills in defaults.
func validate(spec agent.ContainerSpec) (agent.ContainerSpec, error) {
	if spec.Interface == "" {
		spec.Interface = agent.Supervisor
	}
	if spec.PullPolicy == "" {
		spec.PullPolicy = agent.PullIfNotPresent
	}
	name := spec.FunctionName
	switch {
	case !functionName.MatchString(name):
		return spec, agent.Errorf(agent.CodeInvalid, "function name %q: must be 1 to 64 letters, digits, hyphens or underscores", name)
	case spec.Image == "" && spec.Code == nil:
		return spec, agent.Errorf(agent.CodeInvalid, "function %s: neither an image nor code is named", name)
	case spec.Code != nil && codeImage(*spec.Code) == "":
		return spec, agent.Errorf(agent.CodeInvalid, "function %s: runtime %q is not known: python3.N, nodejsN.x and provided.al2023 are", name, spec.Code.Runtime)
	case spec.Code != nil && spec.Interface != agent.Supervisor:
		return spec, agent.Errorf(agent.CodeInvalid, "function %s: code needs the supervisor interface", name)
	case spec.Standby && spec.Interface != agent.Supervisor:
		return spec, agent.Errorf(agent.CodeInvalid, "function %s: only the supervisor interface can stand by", name)
	case spec.MemoryMB <= 0:
		return spec, agent.Errorf(agent.CodeInvalid, "function %s: the memory size must be positive, got %d MB", name, spec.MemoryMB)
	case spec.Timeout < time.Second:
		return spec, agent.Errorf(agent.CodeInvalid, "function %s: the timeout must be 1 s or more, got %s", name, spec.Timeout)
	}
	return spec, nil
}

func (r *Runtime) newLaunch(spec agent.ContainerSpec, img images.Image, leased *code.Lease, suffix string) *launch {
	id := containerID(spec.FunctionName, suffix)
	now := time.Now()
	rec := record{
		Container: agent.Container{
			ID: id, Name: id, FunctionName: spec.FunctionName, Status: agent.StatusRunning, Port: agent.WorkerPort(spec.Interface),
			Image: img.Name, ImageDigest: img.Manifest.String(), Generation: spec.Generation, Interface: spec.Interface,
			Standby: spec.Standby, CreatedAt: now, LastUsedAt: now, Owner: spec.Owner,
		},
		sandbox:  id,
		memoryMB: spec.MemoryMB,
		madeWith: r.madeWith(spec),
	}
	if leased != nil {
		rec.code = leased.IDs
	}
	return &launch{
		r: r, spec: spec, image: img, code: leased, record: rec, state: &state{record: rec, starting: true, lastUsed: now},
		ready: make(chan struct{}), exit: make(chan exit, 1),
	}
}

// randomHex returns n random bytes in hexadecimal. crypto/rand cannot fail (it ends the process first).
func randomHex(n int) string {
	b := make([]byte, n)
	_, _ = rand.Read(b)
	return hex.EncodeToString(b)
}

// run makes the container and waits until it is ready. It holds one of r.starts, and gives it back as soon as the
// process runs. What was made when it fails is the caller's to remove.
func (l *launch) run(ctx context.Context, steps []step) error {
	watch, stop := context.WithCancel(context.WithoutCancel(ctx))
	var watching sync.WaitGroup
	defer watching.Wait()
	defer stop()
	l.watch = func() { watching.Go(func() { l.exit <- l.r.waitExit(watch, l.record.sandbox) }) }
	if err := l.take(ctx, steps); err != nil {
		return err
	}
	l.turn.Done()
	begin := time.Now()
	if err := l.waitReady(ctx); err != nil {
		return err
	}
	l.took = append(l.took, "ready", milliseconds(time.Since(begin)))
	return l.publish()
}

// milliseconds has two digits behind the point: some steps take less than one.
func milliseconds(d time.Duration) float64 { return math.Round(d.Seconds()*1e5) / 100 }

// step is one of those that lead to a running process; key is what it is in the log.
type step struct {
	key, name string
	do        func(context.Context) error
}

// plain are the steps from nothing.
func (l *launch) plain() []step {
	return []step{
		{"shim", "find it a shim", l.joinShim},
		{"network", "attach it to the network", l.attach},
		{"files", "make its files", l.makeFiles},
		{"cgroup", "make its cgroup", l.makeGroup},
		{"snapshot", "make its root filesystem", l.makeSnapshot},
		{"record", "make its record", l.makeContainer},
		{"task", "make its process", l.makeTask},
		{"tmp", "give it its /tmp", l.bindDisk},
		{"start", "start its process", l.startProcess},
	}
}

func (l *launch) startProcess(ctx context.Context) error {
	l.watch()
	_, err := l.r.client.TaskService().Start(ctx, &tasks.StartRequest{ContainerID: l.record.sandbox})
	return executable(errgrpc.ToNative(err))
}

// take goes through steps. The caller's end is seen between them only: see launchTimeout.
func (l *launch) take(ctx context.Context, steps []step) error {
	work, cancel := context.WithTimeout(context.WithoutCancel(ctx), launchTimeout)
	defer cancel()
	if !l.record.parked {
		l.takeDisk(work)
		defer l.dropDisk()
	}
	for _, step := range steps {
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("the caller left before step %q: %w", step.name, err)
		}
		begin := time.Now()
		if err := step.do(work); err != nil {
			return fmt.Errorf("container %s: %s: %w", l.record.ID, step.name, err)
		}
		l.took = append(l.took, step.key, milliseconds(time.Since(begin)))
	}
	return nil
}

// tmpSizeMB is the size of /tmp.
func (l *launch) tmpSizeMB() int {
	if l.spec.EphemeralStorageMB > 0 {
		return l.spec.EphemeralStorageMB
	}
	return l.r.cfg.TmpSizeMB
}

// takeDisk begins to get a disk, which takes a while when none is ready: beside the other steps.
func (l *launch) takeDisk(ctx context.Context) {
	if l.r.cfg.Disks == nil {
		return
	}
	l.disk = sync.OnceValues(func() (*tmpdisk.Disk, error) { return l.r.cfg.Disks.Take(ctx, l.tmpSizeMB()) })
	l.taking.Go(func() { _, _ = l.disk() })
}

// bindDisk makes the disk the container's /tmp, before anything runs in there.
func (l *launch) bindDisk(context.Context) error {
	if l.disk == nil {
		return nil
	}
	disk, err := l.disk()
	if err != nil {
		return err
	}
	container := l.mounted
	if container == nil {
		if container, err = l.r.openMounts(l.pid, l.record.sandbox); err != nil {
			return err
		}
		defer func() { _ = container.Close() }()
	}
	if err := disk.Bind(container, l.record.firstID); err != nil {
		return err
	}
	l.state.mu.Lock()
	l.state.disk = disk
	l.state.mu.Unlock()
	return nil
}

// openMounted opens the mount namespace of a process that waits.
func (l *launch) openMounted(context.Context) (err error) {
	l.mounted, err = l.r.openMounts(l.pid, l.record.sandbox)
	return err
}

// dropDisk gives the disk up that no step has bound.
func (l *launch) dropDisk() {
	l.taking.Wait()
	if l.disk == nil {
		return
	}
	disk, err := l.disk()
	l.state.mu.Lock()
	bound := l.state.disk == disk
	l.state.mu.Unlock()
	if err == nil && !bound {
		if err := disk.Close(); err != nil {
			l.r.log.Warn("disk of a failed start cannot be given up", "container_id", l.record.ID, "error", err)
		}
	}
}

func (l *launch) attach(ctx context.Context) error {
	a, err := l.r.network.Attach(ctx)
	if agent.ErrorCode(err) == agent.CodeExhausted && !l.record.parked && l.r.makeRoom(context.WithoutCancel(ctx)) > 0 {
		a, err = l.r.network.Attach(ctx) // those that are nobody's have given theirs back
	}
	if err != nil {
		return err
	}
	l.netns, l.userns = a.NetnsPath, a.UsernsPath
	l.record.firstID = a.FirstID
	l.record.IP = a.IP.String()
	l.record.attachment = a.ID
	l.state.record = l.record
	l.r.mu.Lock()
	l.r.states[l.record.sandbox] = l.state
	l.r.mu.Unlock()
	return nil
}

func (l *launch) makeGroup(context.Context) (err error) {
	l.groups, err = l.r.groups.Create(l.record.sandbox)
	return err
}

func (l *launch) makeContainer(ctx context.Context) error {
	r := l.r
	c := containers.Container{
		ID: l.record.sandbox, Image: l.image.Name, Labels: l.record.labels(r.cfg.Stack), Snapshotter: images.Snapshotter, SnapshotKey: l.record.sandbox,
		Runtime: containers.RuntimeInfo{Name: r.binary(front)},
	}
	if l.record.parked {
		c.SnapshotKey = ""
	}
	if l.shim != nil {
		c.SandboxID = r.shimSandbox()
	}
	in, err := l.input(ctx, &c)
	if err != nil {
		return err
	}
	spec, err := buildSpec(ctx, in)
	if err != nil {
		return err
	}
	l.mounts = spec.Mounts
	if c.Spec, err = typeurl.MarshalAny(spec); err != nil {
		return err
	}
	if c.Runtime.Options, err = typeurl.MarshalAny(&options.Options{BinaryName: r.binary(front), Root: r.runcRoot()}); err != nil {
		return err
	}
	_, err = r.client.ContainerService().Create(ctx, c)
	return err
}

// input is all that the container's spec depends on; c has its root filesystem.
func (l *launch) input(ctx context.Context, c *containers.Container) (specInput, error) {
	r, id := l.r, l.record.ID
	who, err := l.functionUser(ctx, c)
	if err != nil {
		return specInput{}, err
	}
	meminfo, tmpInMemory := "", 0
	if !l.record.parked {
		if meminfo, err = r.meminfo(l.record.memoryMB); err != nil {
			return specInput{}, err
		}
		if l.disk == nil {
			tmpInMemory = l.tmpSizeMB()
		}
	}
	return specInput{
		id: id, parked: l.record.parked, spec: l.spec, image: l.image.Config, netns: l.netns, userns: l.userns, firstID: l.record.firstID,
		user: who, hostname: hostname(id),
		cgroupsPath: r.groups.Path(l.record.sandbox), groups: l.groups, limitSwap: r.groups.LimitsSwap(),
		lambdaInit: r.binary("lambda-init"), notifyDir: r.notifyDir(id),
		hosts: filepath.Join(r.files(id), "hosts"), resolvConf: r.resolvConf(), meminfo: meminfo, logFile: l.logFile(), logRate: r.cfg.LogRate,
		tmpSizeMB: tmpInMemory, pidsLimit: r.cfg.PIDsLimit, noFile: r.cfg.NoFile,
		region: r.cfg.Region, account: r.cfg.AccountID, logStream: logStream(l.record.CreatedAt), code: l.code,
		environment: r.cfg.Environment,
	}, nil
}

// logStream makes a name as AWS does: date, version, 32 hexadecimal digits.
func logStream(t time.Time) string {
	return t.UTC().Format("2006/01/02") + "/[$LATEST]" + randomHex(16)
}

func (l *launch) makeTask(ctx context.Context) error {
	log := (&url.URL{Scheme: "file", Path: l.logFile()}).String()
	request := &tasks.CreateTaskRequest{ContainerID: l.record.sandbox, Stdout: log, Stderr: log}
	for _, m := range l.rootfs {
		request.Rootfs = append(request.Rootfs, &types.Mount{Type: m.Type, Source: m.Source, Target: m.Target, Options: m.Options})
	}
	if err := l.createTask(ctx, request); err != nil {
		return executable(err)
	}
	if l.spec.Interface == agent.RIE {
		return l.r.groups.SetQuota(l.record.sandbox, l.record.memoryMB)
	}
	return nil
}

// executable marks errors that say that a container's program cannot be executed.
func executable(err error) error {
	if err != nil && cannotExecute.MatchString(err.Error()) {
		return agent.Errorf(agent.CodePrecondition, "the entrypoint cannot be executed: %w", err)
	}
	return err
}
