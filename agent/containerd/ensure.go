package containerd

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math"
	"net"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"

	tasks "github.com/containerd/containerd/api/services/tasks/v1"
	"github.com/containerd/containerd/api/types"
	"github.com/containerd/containerd/api/types/runc/options"
	"github.com/containerd/containerd/v2/core/containers"
	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"
	"github.com/containerd/errdefs/pkg/errgrpc"
	"github.com/containerd/typeurl/v2"

	"github.com/edge-serverless-box/esb/agent"
	"github.com/edge-serverless-box/esb/agent/cgroup"
	"github.com/edge-serverless-box/esb/agent/code"
	"github.com/edge-serverless-box/esb/agent/errcode"
	"github.com/edge-serverless-box/esb/agent/hostfiles"
	"github.com/edge-serverless-box/esb/agent/images"
	"github.com/edge-serverless-box/esb/agent/notify"
	"github.com/edge-serverless-box/esb/agent/tmpdisk"
	"github.com/edge-serverless-box/esb/guard/turns"
)

const (
	// runtimeName is the shim.
	runtimeName = "io.containerd.runc.v2"
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
	pid    uint32
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

// exit is how a process 1 ended; err says why that could not be learned.
type exit struct {
	code uint32
	err  error
}

// exitError is a process 1 that ended before it was ready.
type exitError struct {
	code uint32
	oom  bool
}

// Error implements error.
func (e *exitError) Error() string {
	why := ""
	if e.oom {
		why = ", out of memory"
	}
	return fmt.Sprintf("the container ended with exit code %d%s before it was ready", e.code, why)
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
	turn := r.starts.Join(spec.FunctionName, !spec.Standby)
	defer turn.Done()
	select {
	case <-turn.Granted():
	case <-ctx.Done():
		return agent.Container{}, startStage.because(errcode.Of(agent.CodeInternal, fmt.Errorf("wait for other starts (MAX_CONCURRENT_STARTS): %w", ctx.Err())))
	}
	l := r.newLaunch(spec, img, leased)
	l.turn = turn
	if err := r.memory.Reserve(l.record.ID, int64(spec.MemoryMB)<<20); err != nil {
		return agent.Container{}, startStage.because(errcode.Of(agent.CodeInternal, err))
	}
	log := r.log.With("request_id", spec.RequestID, "function", spec.FunctionName, "container_id", l.record.ID)
	if err := l.run(ctx); err != nil {
		r.memory.Release(l.record.ID)
		if undo := r.remove(ctx, l.record, 0); undo != nil {
			log.ErrorContext(ctx, "failed start cannot be undone yet", "error", undo)
		}
		return agent.Container{}, startStage.because(l.explain(err))
	}
	r.memory.Started(l.record.ID)
	log.InfoContext(ctx, "container started", "image", img.Name, "ip", l.record.IP, "standby", spec.Standby,
		"duration_ms", time.Since(begin).Milliseconds(), "image_ms", fetched.Milliseconds(), slog.Group("steps_ms", l.took...))
	return l.record.Container, nil
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

func (r *Runtime) newLaunch(spec agent.ContainerSpec, img images.Image, leased *code.Lease) *launch {
	id := containerID(spec.FunctionName, randomHex(suffixBytes))
	now := time.Now()
	rec := record{
		Container: agent.Container{
			ID: id, Name: id, FunctionName: spec.FunctionName, Status: agent.StatusRunning, Port: agent.WorkerPort(spec.Interface),
			Image: img.Name, ImageDigest: img.Manifest.String(), Generation: spec.Generation, Interface: spec.Interface,
			Standby: spec.Standby, CreatedAt: now, LastUsedAt: now, Owner: spec.Owner,
		},
		memoryMB: spec.MemoryMB,
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
func (l *launch) run(ctx context.Context) error {
	watch, stop := context.WithCancel(context.WithoutCancel(ctx))
	var watching sync.WaitGroup
	defer watching.Wait()
	defer stop()
	err := l.steps(ctx, func() {
		watching.Go(func() { l.exit <- l.r.waitExit(watch, l.record.ID) })
	})
	l.turn.Done()
	if err != nil {
		return err
	}
	begin := time.Now()
	if err := l.waitReady(ctx); err != nil {
		return err
	}
	l.took = append(l.took, "ready", milliseconds(time.Since(begin)))
	return l.publish()
}

// milliseconds has two digits behind the point: some steps take less than one.
func milliseconds(d time.Duration) float64 { return math.Round(d.Seconds()*1e5) / 100 }

// steps goes from nothing to a running process. watch is called when there is a process to watch. The caller's end is
// seen between steps only: see launchTimeout.
func (l *launch) steps(ctx context.Context, watch func()) error {
	work, cancel := context.WithTimeout(context.WithoutCancel(ctx), launchTimeout)
	defer cancel()
	l.takeDisk(work)
	defer l.dropDisk()
	for _, step := range []struct {
		key, name string
		do        func(context.Context) error
	}{
		{"network", "attach it to the network", l.attach},
		{"files", "make its files", l.makeFiles},
		{"cgroup", "make its cgroup", l.makeGroup},
		{"snapshot", "make its root filesystem", l.makeSnapshot},
		{"record", "make its record", l.makeContainer},
		{"task", "make its process", l.makeTask},
		{"tmp", "give it its /tmp", l.bindDisk},
		{"start", "start its process", func(ctx context.Context) error {
			watch()
			_, err := l.r.client.TaskService().Start(ctx, &tasks.StartRequest{ContainerID: l.record.ID})
			return executable(errgrpc.ToNative(err))
		}},
	} {
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
	if err := disk.Bind(int(l.pid), l.record.firstID); err != nil {
		return err
	}
	l.state.mu.Lock()
	l.state.disk = disk
	l.state.mu.Unlock()
	return nil
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
	if err != nil {
		return err
	}
	l.netns, l.userns = a.NetnsPath, a.UsernsPath
	l.record.firstID = a.FirstID
	l.record.IP = a.IP.String()
	l.record.attachment = a.ID
	l.state.record = l.record
	l.r.mu.Lock()
	l.r.states[l.record.ID] = l.state
	l.r.mu.Unlock()
	return nil
}

func (l *launch) makeFiles(context.Context) error {
	dir := l.r.files(l.record.ID)
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	ip, err := netip.ParseAddr(l.record.IP)
	if err != nil {
		return err
	}
	hosts := hostfiles.Hosts(hostname(l.record.ID), ip, l.r.network.Gateway())
	if err := os.WriteFile(filepath.Join(dir, "hosts"), hosts, 0o644); err != nil {
		return err
	}
	owner := -1 // root alone: the shim writes it
	if l.spec.Interface == agent.Supervisor {
		owner = int(l.record.firstID)
	}
	if err := l.r.logs.Create(l.record.ID, owner); err != nil {
		return err
	}
	if l.spec.Interface != agent.Supervisor {
		return nil
	}
	// What the container sees of it: the socket, which is lambda-init's alone.
	if err := os.Mkdir(l.r.notifyDir(l.record.ID), 0o711); err != nil {
		return err
	}
	var once sync.Once
	l.state.socket, err = l.r.listen(l.record, func() { once.Do(func() { close(l.ready) }) })
	return err
}

// meminfo returns the file that is /proc/meminfo in containers of so much memory. It is made once.
func (r *Runtime) meminfo(memoryMB int) (string, error) {
	file := filepath.Join(r.filesDir(), fmt.Sprintf("meminfo-%d", memoryMB))
	if _, err := os.Stat(file); err == nil {
		return file, nil
	}
	fresh := file + "-" + randomHex(suffixBytes)
	err := os.WriteFile(fresh, hostfiles.Meminfo(memoryMB), 0o644)
	if err == nil {
		err = os.Rename(fresh, file)
	}
	if err != nil {
		return "", fmt.Errorf("write what containers see of their memory: %w", err)
	}
	return file, nil
}

// hostname is short: the kernel takes 64 characters, a container's id may have more.
func hostname(id string) string { return "lambda-" + shortID(id) }

// listen hears what a container's lambda-init says; ready may be called more than once.
func (r *Runtime) listen(rec record, ready func()) (*notify.Socket, error) {
	return notify.Listen(filepath.Join(r.notifyDir(rec.ID), notifyName), rec.firstID, func(m notify.Message) {
		if lines, ok := m.LogLost(); ok {
			r.log.Warn("log lines of a container were lost: its file could not be written, or took too long", "container_id", rec.ID,
				"function", rec.FunctionName, "lines", lines)
			return
		}
		switch m {
		case notify.Ready:
			ready()
		case notify.InitStart:
			// All the CPU there is, as AWS gives the init phase. A new life of the function's process needs it as the first one did:
			// with the quota of a small function, imports of a second take longer than an init may.
			if err := r.groups.LiftQuota(rec.ID); err != nil {
				r.log.Warn("container has its CPU quota in its init phase, too", "container_id", rec.ID, "function", rec.FunctionName, "error", err)
			}
		case notify.InitOK, notify.InitError:
			r.setQuota(rec)
		}
	})
}

// setQuota limits a container's CPU, unless it is being removed: its quota was lifted for that.
func (r *Runtime) setQuota(rec record) {
	if s := r.state(rec.ID); s != nil {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.dying {
			return
		}
	}
	if err := r.groups.SetQuota(rec.ID, rec.memoryMB); err != nil {
		r.log.Warn("container has no CPU quota", "container_id", rec.ID, "function", rec.FunctionName, "error", err)
	}
}

func (l *launch) makeGroup(context.Context) (err error) {
	l.groups, err = l.r.groups.Create(l.record.ID)
	return err
}

func (l *launch) makeSnapshot(ctx context.Context) error {
	sn := l.r.client.SnapshotService(images.Snapshotter)
	labels := map[string]string{labelRoot: time.Now().UTC().Format(time.RFC3339), labelStack: l.r.cfg.Stack}
	if namesUser(l.image.Config.User) {
		maps.Copy(labels, mappedRoot(l.record.firstID))
	}
	opt := snapshots.WithLabels(labels)
	err := l.prepare(ctx, sn, opt)
	if cleaner, ok := sn.(snapshots.Cleaner); ok && err != nil && strings.Contains(err.Error(), "file exists") {
		// A containerd that was killed has made a snapshot's folder and not written it down: its number is used again.
		if err := cleaner.Cleanup(ctx); err != nil {
			return fmt.Errorf("remove folders of snapshots that a killed containerd has left: %w", err)
		}
		err = l.prepare(ctx, sn, opt)
	}
	if !images.Lost(err) {
		return err
	}
	// What is known of the image may be of before containerd has tidied up: it was removed, or its tag is another one's now, and what
	// was derived from it has gone in order.
	l.r.images.Forget(l.image)
	if err = l.prepareAnew(ctx, sn, opt); !images.Lost(err) {
		return err
	}
	// Something of it has gone from containerd's store that should be there.
	mended, mendErr := l.r.images.Mend(ctx, l.image.Name, l.spec.PullPolicy)
	if !mended {
		return errors.Join(err, mendErr)
	}
	return l.prepareAnew(ctx, sn, opt)
}

// prepareAnew is prepare with the image as it is now: a registry may have another one meanwhile.
func (l *launch) prepareAnew(ctx context.Context, sn snapshots.Snapshotter, opt snapshots.Opt) error {
	img, err := l.r.images.Get(ctx, l.image.Name, l.spec.PullPolicy)
	if err != nil {
		return err
	}
	l.image, l.record.ImageDigest = img, img.Manifest.String()
	return l.prepare(ctx, sn, opt)
}

// prepare makes the container's snapshot. The error is images.Lost when folders of layers have gone.
func (l *launch) prepare(ctx context.Context, sn snapshots.Snapshotter, opt snapshots.Opt) error {
	base, err := l.r.prepared(ctx, l.image, firstOf(l.spec.WorkingDirectory, l.image.Config.WorkingDir))
	if err != nil {
		return err
	}
	if l.rootfs, err = sn.Prepare(ctx, l.record.ID, base, opt); err != nil {
		return err
	}
	if images.Missing(l.rootfs) {
		return errors.Join(fmt.Errorf("a layer of image %s has no files any more: %w", l.image.Name, errdefs.ErrNotFound), sn.Remove(ctx, l.record.ID))
	}
	return nil
}

func (l *launch) makeContainer(ctx context.Context) error {
	r, id := l.r, l.record.ID
	dir := r.files(id)
	c := containers.Container{
		ID: id, Image: l.image.Name, Labels: l.record.labels(r.cfg.Stack), Snapshotter: images.Snapshotter, SnapshotKey: id,
		Runtime: containers.RuntimeInfo{Name: runtimeName},
	}
	who, err := l.functionUser(ctx, &c)
	if err != nil {
		return err
	}
	meminfo, err := r.meminfo(l.record.memoryMB)
	if err != nil {
		return err
	}
	tmpInMemory := 0
	if l.disk == nil {
		tmpInMemory = l.tmpSizeMB()
	}
	spec, err := buildSpec(ctx, specInput{
		id: id, spec: l.spec, image: l.image.Config, netns: l.netns, userns: l.userns, firstID: l.record.firstID,
		user: who, hostname: hostname(id),
		cgroupsPath: r.groups.Path(id), groups: l.groups, limitSwap: r.groups.LimitsSwap(),
		lambdaInit: r.binary("lambda-init"), notifyDir: r.notifyDir(id),
		hosts: filepath.Join(dir, "hosts"), resolvConf: r.resolvConf(), meminfo: meminfo, logFile: r.logs.File(id), logRate: r.cfg.LogRate,
		tmpSizeMB: tmpInMemory, pidsLimit: r.cfg.PIDsLimit, noFile: r.cfg.NoFile,
		region: r.cfg.Region, account: r.cfg.AccountID, logStream: logStream(l.record.CreatedAt), code: l.code,
		environment: r.cfg.Environment,
	})
	if err != nil {
		return err
	}
	if c.Spec, err = typeurl.MarshalAny(spec); err != nil {
		return err
	}
	if c.Runtime.Options, err = typeurl.MarshalAny(&options.Options{BinaryName: r.binary("runc"), Root: r.runcRoot()}); err != nil {
		return err
	}
	_, err = r.client.ContainerService().Create(ctx, c)
	return err
}

// logStream makes a name as AWS does: date, version, 32 hexadecimal digits.
func logStream(t time.Time) string {
	return t.UTC().Format("2006/01/02") + "/[$LATEST]" + randomHex(16)
}

func (l *launch) makeTask(ctx context.Context) error {
	log := (&url.URL{Scheme: "file", Path: l.r.logs.File(l.record.ID)}).String()
	request := &tasks.CreateTaskRequest{ContainerID: l.record.ID, Stdout: log, Stderr: log}
	for _, m := range l.rootfs {
		request.Rootfs = append(request.Rootfs, &types.Mount{Type: m.Type, Source: m.Source, Target: m.Target, Options: m.Options})
	}
	made, err := l.r.client.TaskService().Create(ctx, request)
	if err != nil {
		return executable(errgrpc.ToNative(err))
	}
	l.pid = made.Pid
	if l.spec.Interface == agent.RIE {
		return l.r.groups.SetQuota(l.record.ID, l.record.memoryMB)
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

// waitExit waits until process 1 of a container has ended.
func (r *Runtime) waitExit(ctx context.Context, id string) exit {
	resp, err := r.client.TaskService().Wait(ctx, &tasks.WaitRequest{ContainerID: id})
	if err != nil {
		return exit{err: errgrpc.ToNative(err)}
	}
	return exit{code: resp.ExitStatus}
}

// waitReady waits until the worker endpoint answers, the process ends, the time is up or the caller leaves.
func (l *launch) waitReady(ctx context.Context) error {
	limit := l.r.cfg.ReadyTimeout
	timer := time.NewTimer(limit)
	defer timer.Stop()
	if l.spec.Interface == agent.RIE {
		probe, stop := context.WithCancel(ctx)
		var probing sync.WaitGroup
		defer probing.Wait()
		defer stop()
		probing.Go(func() { l.probe(probe) })
	}
	select {
	case <-l.ready:
		return nil
	case e := <-l.exit:
		return l.early(e)
	case <-timer.C:
		return agent.Errorf(agent.CodeDeadline, "container %s was not ready within %s (CONTAINER_READY_TIMEOUT_SECONDS)", l.record.ID, limit)
	case <-ctx.Done():
		return fmt.Errorf("the caller left while container %s started: %w", l.record.ID, ctx.Err())
	}
}

// probe closes l.ready when the worker port accepts connections. It sends nothing: any request to RIE is an invocation.
func (l *launch) probe(ctx context.Context) {
	addr := net.JoinHostPort(l.record.IP, strconv.Itoa(l.record.Port))
	tick := time.NewTicker(probeInterval)
	defer tick.Stop()
	for {
		dialer := net.Dialer{Timeout: time.Second}
		if conn, err := dialer.DialContext(ctx, "tcp", addr); err == nil {
			_ = conn.Close()
			close(l.ready)
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// early is the error for a process 1 that ended before it was ready. Unless a signal ended it, it will do so again.
func (l *launch) early(e exit) error {
	if e.err != nil {
		return fmt.Errorf("container %s: watch its process: %w", l.record.ID, e.err)
	}
	stats, err := l.r.groups.Stats(l.record.ID)
	died := &exitError{code: e.code, oom: err == nil && stats.OOMKills > 0}
	code := agent.CodePrecondition
	if e.code > 128 && !died.oom {
		code = agent.CodeInternal
	}
	return agent.Errorf(code, "container %s: %w", l.record.ID, died)
}

// publish hands the container from this launch to the rest of the Runtime.
func (l *launch) publish() error {
	l.state.mu.Lock()
	defer l.state.mu.Unlock()
	if l.state.ended {
		return l.early(exit{err: errors.New("it ended as soon as it was ready")})
	}
	l.state.starting = false
	return nil
}

// lastOutput returns the end of the container's log. The shim copies what the container prints and is sometimes a moment behind
// its exit, so an empty log is looked at again for up to tailPatience.
func (l *launch) lastOutput() string {
	for end := time.Now().Add(tailPatience); ; time.Sleep(tailPoll) {
		if tail := l.r.logs.Tail(l.record.ID, tailLines); tail != "" || !time.Now().Before(end) {
			return tail
		}
	}
}

// explain gives the error its code, and the last lines of the log when the container ended by itself. It is called
// after the removal, which waits for the shim to write them, but not for ever.
func (l *launch) explain(err error) error {
	var died *exitError
	if errors.As(err, &died) {
		if tail := l.lastOutput(); tail != "" {
			err = agent.Errorf(agent.ErrorCode(err), "%w; its last output: %s", err, strings.ToValidUTF8(tail, "?"))
		}
	}
	return errcode.Of(agent.CodeInternal, err)
}
