// Package containerd is the agent.Runtime on containerd v2: images from archives and registries, one sandbox a
// container with its network attached before the process starts, readiness told by lambda-init, and a clean end.
//
// Nothing is remembered that containerd, the kernel or a container's labels can tell: an agent that starts anew
// adopts the containers that run and removes what is left of others.
package containerd

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"time"

	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/errdefs"
	"golang.org/x/sync/singleflight"

	"github.com/edge-serverless-box/esb/agent"
	"github.com/edge-serverless-box/esb/agent/cgroup"
	"github.com/edge-serverless-box/esb/agent/cni"
	"github.com/edge-serverless-box/esb/agent/hostfiles"
	"github.com/edge-serverless-box/esb/agent/images"
	"github.com/edge-serverless-box/esb/agent/logfiles"
	"github.com/edge-serverless-box/esb/agent/membudget"
	"github.com/edge-serverless-box/esb/agent/notify"
	"github.com/edge-serverless-box/esb/agent/shims"
	"github.com/edge-serverless-box/esb/agent/tmpdisk"
	"github.com/edge-serverless-box/esb/guard/turns"
)

const (
	// cgroupRoot is where the cgroup file systems are mounted.
	cgroupRoot = "/sys/fs/cgroup"
	// connectTimeout bounds the first connection to containerd.
	connectTimeout = 10 * time.Second
	// launchTimeout bounds the making of one container, from network to process start. It does not end with the
	// caller: containerd leaves things behind when a call of it is cut off, so the caller's end is seen between steps.
	launchTimeout = 60 * time.Second
	// removeTimeout bounds the removal of one container, its grace period not counted.
	removeTimeout = 30 * time.Second
	// endedRetention is how long a container that ended by itself stays listed as STOPPED, with exit code and counters,
	// before what is left of it is removed. Its network goes at once.
	endedRetention = 60 * time.Second
	// upkeepInterval is how often code is pruned, the room for images is looked at, ends that an event did not tell are looked for, and removals that
	// failed are tried again.
	upkeepInterval = 10 * time.Second
	// reconnectInterval is the pause between attempts to hear containerd's events again.
	reconnectInterval = 100 * time.Millisecond
	// parallelRemovals bounds how many containers are removed at once at start and purge.
	parallelRemovals = 4
)

// Network gives containers their place on the function network; *cni.Network does.
type Network interface {
	// Attach returns a network namespace with an address.
	Attach(ctx context.Context) (cni.Attachment, error)
	// Detach releases an attachment; one that is gone is no error.
	Detach(ctx context.Context, id string) error
	// Reconcile releases the attachments whose id is not in live.
	Reconcile(ctx context.Context, live []string) error
	// Gateway is the box's address.
	Gateway() netip.Addr
}

// Disks are empty disks of so many MB; *tmpdisk.Pool has them.
type Disks interface {
	Take(ctx context.Context, sizeMB int) (*tmpdisk.Disk, error)
}

// Config of a Runtime. agent/settings documents those that are settings.
type Config struct {
	// Address is containerd's socket.
	Address string
	// ShimSockets is the folder of the sockets of its shims when they are this stack's alone, else empty.
	ShimSockets string
	// Stack tells this agent's containers from those of another agent on the same containerd, and names their cgroup.
	Stack string
	// GatewayUID is the user who may thaw containers by their files.
	GatewayUID int
	// RunDir holds the files of running containers; short, because there are unix sockets in it.
	RunDir string
	// LogDir takes the logs of containers.
	LogDir string
	// BinDir holds runc, containerd's shim, esb-runc and lambda-init.
	BinDir string
	// ArchivesDir holds image archives.
	ArchivesDir string
	// Registry is where references without a host are looked for.
	Registry       string
	PlainHTTP      []string
	RegistryConfig string
	// RegistryPoll is the pause between two questions to a registry that is not this machine's own; 0 asks none.
	RegistryPoll time.Duration
	// ImageMaxMB bounds the layers of one image, unpacked.
	ImageMaxMB int
	// ImagesUnusedFor and ArchivesUnusedFor are for how long nothing uses an image, or an archive, that is removed then; 0 is for ever.
	// ImageStoreMaxMB bounds all images, ArchivesMaxMB all archives; 0 bounds nothing.
	ImagesUnusedFor, ArchivesUnusedFor time.Duration
	ImageStoreMaxMB, ArchivesMaxMB     int
	// ImagesDisk is a folder on the disk that containerd has images on; empty when that is not known.
	ImagesDisk string
	// RegistryUser, when not empty, and RegistryPassword, or what is in RegistryPasswordFile, are the credentials for Registry.
	RegistryUser, RegistryPassword, RegistryPasswordFile string
	TmpSizeMB                                            int
	// Disks are what /tmp of containers is; nil makes it memory. TmpOnDisk says what it is to be.
	Disks     Disks
	TmpOnDisk bool
	// CPUWeight is what all containers together count against everything else on the machine, which has 100 each.
	CPUWeight int
	// MemoryBudget is how many bytes all containers together may hold; 0 is no bound. Machine is what this machine, or the agent's
	// own container, has.
	MemoryBudget, Machine int64
	PIDsLimit             int
	NoFile                int
	// LogRate is how many bytes of log a container may write a second.
	LogRate      int
	ReadyTimeout time.Duration
	MaxStarts    int
	// Parked is how many containers are kept that are nobody's yet; 0 is none. ParkedMax is up to how many that grows when functions
	// need more at once.
	Parked, ParkedMax int
	// StemCells is how many more of them have a runtime started, of each kind that functions need; 0 is none.
	StemCells int
	Region    string
	AccountID string
	DNS       []netip.Addr
	// Environment is that of every function, under what its image and the function itself say.
	Environment map[string]string
	// Code keeps the code of functions whose image has none; nil refuses such functions.
	Code   CodeStore
	Logger *slog.Logger
}

// Runtime implements agent.Host. Its methods may be called concurrently.
type Runtime struct {
	cfg     Config
	log     *slog.Logger
	client  *containerd.Client
	link    *link
	network Network
	groups  *cgroup.Hierarchy
	logs    *logfiles.Dir
	images  *images.Store
	// shims are those that containers share; nil where containerd starts one for each.
	shims *shims.Pool
	// marks are the digests of the settings that reach containers; they do not change.
	marks map[string]string
	// starts bounds containers being made at once.
	starts *turns.Turns
	// memory is what containers may hold.
	memory *membudget.Budget
	// users holds whom images name, by root filesystem and name.
	users sync.Map // string -> user
	// removals lets two that remove the same container share the work.
	removals singleflight.Group
	watchers watchers
	// life ends at Close; background counts what runs until then.
	life       context.Context
	end        context.CancelFunc
	background sync.WaitGroup

	// toldMu guards told, what the logs of failed starts say, by their name. No other lock is taken while it is held.
	toldMu sync.Mutex
	told   map[string]told

	// parked are containers that are nobody's yet, views the root filesystems that they get.
	parked *lot
	views  views

	// mu guards states, which holds each container that this process made or adopted, by its id in containerd. A state's own
	// mutex may be taken while mu is held, never the other way round.
	mu     sync.Mutex
	states map[string]*state
}

var (
	_ agent.Host   = (*Runtime)(nil)
	_ agent.Thawer = (*Runtime)(nil)
)

// state is what goes with a container while this process knows it: things that no other place can hold.
type state struct {
	record record
	// socket is nil for containers without lambda-init.
	socket *notify.Socket

	// mu guards the following.
	mu sync.Mutex
	// starting: an Ensure owns the container, nobody else sees it yet.
	starting bool
	// ended: process 1 has ended by itself.
	ended bool
	// pid is its process 1, 0 when that is not known.
	pid uint32
	// alone: its shim has ended, and it runs on. containerd knows of no process of it any more.
	alone bool
	// dying: it is being removed, and must not be frozen any more.
	dying bool
	// disk is its /tmp, nil when that is memory.
	disk *tmpdisk.Disk
	// view is what it holds of Runtime.views.
	view string
	// unfinished: a removal has failed, and is to be tried again.
	unfinished bool
	lastUsed   time.Time
}

// Open connects to containerd, adopts the stack's running containers, and removes what is left of others: stopped
// containers, snapshots, network attachments, cgroups, files.
func Open(ctx context.Context, cfg Config, network Network) (*Runtime, error) {
	r, err := connect(ctx, cfg, network)
	if err != nil {
		return nil, err
	}
	r.marks = marksOf(cfg, network.Gateway())
	if err := r.open(ctx); err != nil {
		return nil, errors.Join(err, r.Close())
	}
	return r, nil
}

// connect makes a Runtime that runs nothing yet.
func connect(ctx context.Context, cfg Config, network Network) (*Runtime, error) {
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	groups, err := cgroup.Open(cgroupRoot, "esb-"+cfg.Stack)
	if err != nil {
		return nil, err
	}
	logs, err := logfiles.Open(cfg.LogDir)
	if err != nil {
		return nil, err
	}
	l := &link{}
	client, err := containerd.New(cfg.Address, containerd.WithDefaultNamespace(agent.Namespace), containerd.WithTimeout(connectTimeout), l.options())
	if err != nil {
		return nil, fmt.Errorf("connect to containerd at %s (CONTAINERD_ADDRESS): %w", cfg.Address, err)
	}
	var r *Runtime
	config := imagesConfig(cfg)
	config.BeforeMend = func(ctx context.Context) error {
		// Stem cells stand on layers that would otherwise not be made again.
		r.clearLot(context.WithoutCancel(ctx))
		return r.dropViews(ctx, 0)
	}
	store, err := images.Open(ctx, client, config)
	if err != nil {
		return nil, errors.Join(err, client.Close())
	}
	life, end := context.WithCancel(context.WithoutCancel(ctx))
	memory := membudget.New(membudget.Config{
		Limit: cfg.MemoryBudget, Used: groups.MemoryUsed, Machine: cfg.Machine,
		Available: func() (int64, error) { return membudget.Available("/proc/meminfo") },
	})
	r = &Runtime{
		cfg: cfg, log: cfg.Logger, client: client, link: l, network: network, groups: groups, logs: logs, images: store,
		parked: newLot(), views: views{of: map[string]*view{}}, starts: turns.New(cfg.MaxStarts, 0), memory: memory, life: life, end: end, states: map[string]*state{}, told: map[string]told{},
	}
	return r, nil
}

func imagesConfig(cfg Config) images.Config {
	return images.Config{
		ArchivesDir: cfg.ArchivesDir, Registry: cfg.Registry, PlainHTTP: cfg.PlainHTTP, RegistryPoll: cfg.RegistryPoll, RegistryConfig: cfg.RegistryConfig,
		RegistryUser: cfg.RegistryUser, RegistryPassword: cfg.RegistryPassword, RegistryPasswordFile: cfg.RegistryPasswordFile,
		MaxMB: cfg.ImageMaxMB, UnusedFor: cfg.ImagesUnusedFor, ArchivesUnusedFor: cfg.ArchivesUnusedFor, StoreMaxMB: cfg.ImageStoreMaxMB, ArchivesMaxMB: cfg.ArchivesMaxMB, Disk: cfg.ImagesDisk, Logger: cfg.Logger,
	}
}

func (r *Runtime) open(ctx context.Context) error {
	if err := r.checkFiles(); err != nil {
		return err
	}
	// Also of a group that an earlier agent has made.
	if err := r.groups.SetWeight(r.cfg.CPUWeight); err != nil {
		r.log.WarnContext(ctx, "functions that take all of the CPU or the disk can hold up the box itself (FUNCTION_CPU_WEIGHT)", "error", err)
	}
	if err := r.openShims(ctx); err != nil {
		return err
	}
	if err := r.adopt(ctx); err != nil {
		return err
	}
	r.openLot()
	r.background.Go(r.watchExits)
	r.background.Go(r.upkeep)
	r.background.Go(r.tendImages)
	if r.cfg.MemoryBudget > 0 {
		r.background.Go(r.watchMemory)
	}
	r.images.Prefetch()
	return nil
}

// checkFiles prepares the folder of running containers and says what is missing before the first container needs it.
func (r *Runtime) checkFiles() error {
	// What is mounted from there into containers needs no way from outside.
	if err := errors.Join(os.MkdirAll(r.filesDir(), 0o700), os.Chmod(r.filesDir(), 0o700)); err != nil {
		return fmt.Errorf("make the folder of running containers: %w", err)
	}
	if err := os.WriteFile(r.resolvConf(), hostfiles.ResolvConf(r.cfg.DNS), 0o644); err != nil {
		return fmt.Errorf("write the containers' resolv.conf: %w", err)
	}
	for _, name := range []string{"runc", front, "lambda-init"} {
		if _, err := os.Stat(r.binary(name)); err != nil {
			return fmt.Errorf("%s is not in %s (ESB_BIN_DIR): %w", name, r.cfg.BinDir, err)
		}
	}
	return nil
}

// Close implements agent.Host.
func (r *Runtime) Close() error {
	r.end()
	r.images.Close()
	r.background.Wait()
	wait, parkedErr := r.closeLot()
	defer wait()
	r.mu.Lock()
	states := r.states
	r.states = map[string]*state{}
	r.mu.Unlock()
	errs := []error{parkedErr}
	for _, s := range states {
		// Without the lock: this waits for the handler of the socket's last message, which asks for the container's state.
		errs = append(errs, s.closeSocket())
		s.mu.Lock()
		errs = append(errs, s.disk.Close())
		s.mu.Unlock()
	}
	return errors.Join(append(errs, r.closeShims(), r.client.Close())...)
}

// Healthy implements agent.Host: it says whether containerd answers.
func (r *Runtime) Healthy(ctx context.Context) error {
	ok, err := r.client.IsServing(ctx)
	if err != nil {
		return fmt.Errorf("containerd does not answer: %w", err)
	}
	if !ok {
		return errors.New("containerd says that it is not serving")
	}
	return nil
}

// state returns what goes with a container, by its id or that in containerd, nil when this process does not know it.
func (r *Runtime) state(id string) *state {
	r.mu.Lock()
	defer r.mu.Unlock()
	if s := r.states[id]; s != nil {
		return s
	}
	if s := r.states[parkedID(id)]; s != nil && s.record.ID == id {
		return s
	}
	return nil
}

// Container implements agent.Host.
func (r *Runtime) Container(id string) (function string, supervised, alive bool) {
	s := r.state(id)
	if s == nil {
		// The agent alone writes those of failed starts, as if it were a lambda-init.
		function := r.teller(id)
		return function, function != "", false
	}
	return s.record.FunctionName, s.record.Interface == agent.Supervisor, true
}

// At implements agent.Host.
func (r *Runtime) At(ip netip.Addr) (container, function string, ok bool) {
	text := ip.String()
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, s := range r.states {
		if s.record.IP == text {
			return s.record.ID, s.record.FunctionName, true
		}
	}
	return "", "", false
}

// notifyName is the file name of the notify socket.
const notifyName = "agent.sock"

// Paths.
func (r *Runtime) filesDir() string           { return filepath.Join(r.cfg.RunDir, "c") }
func (r *Runtime) files(id string) string     { return filepath.Join(r.filesDir(), shortID(id)) }
func (r *Runtime) notifyDir(id string) string { return filepath.Join(r.files(id), "notify") }
func (r *Runtime) resolvConf() string         { return filepath.Join(r.filesDir(), "resolv.conf") }
func (r *Runtime) binary(name string) string  { return filepath.Join(r.cfg.BinDir, name) }
func (r *Runtime) runcRoot() string           { return filepath.Join(r.cfg.RunDir, "runc") }

// functionName is what AWS allows, and what becomes part of container names and paths.
var functionName = regexp.MustCompile(`^[a-zA-Z0-9_-]{1,64}$`)

// separators are what containerd does not allow twice in a row in an identifier.
var separators = regexp.MustCompile(`[-_]{2,}`)

// maxFunctionPart is what is left of containerd's 76 characters for an identifier, without "lambda-" and "-" + suffix.
const (
	suffixBytes     = 4
	maxFunctionPart = 76 - len("lambda-") - 1 - 2*suffixBytes
)

// containerID makes the name lambda-<function>-<suffix>, which is also the id. A function's name that containerd would
// not take is shortened there; the label has the whole of it.
func containerID(function string, suffix string) string {
	part := separators.ReplaceAllStringFunc(function, func(s string) string { return s[:1] })
	part = strings.Trim(part[:min(len(part), maxFunctionPart)], "-_")
	if part == "" {
		return "lambda-" + suffix
	}
	return "lambda-" + part + "-" + suffix
}

// parkedID is the id in containerd of a container that was made before its function was known.
func parkedID(id string) string { return containerID("", shortID(id)) }

// shortID is the random part of a container's id, for paths that must be short.
func shortID(id string) string { return id[strings.LastIndexByte(id, '-')+1:] }

func ignoreNotFound(err error) error {
	if errdefs.IsNotFound(err) {
		return nil
	}
	return err
}
