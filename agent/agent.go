// Package agent holds the domain of the esb agent: what a function container is, what can go wrong with one,
// and the Runtime that makes and ends them. It depends on nothing but the standard library; the packages
// below it are each named after the one thing they wrap (containerd, cni, nftables, ...).
package agent

import (
	"context"
	"net/netip"
	"time"
)

// Labels and names that identify what this agent made (docs/system-specification.md 6).
const (
	// Namespace is the containerd namespace of all function containers.
	Namespace = "esb-runtime"
	// LabelFunction holds the function's name.
	LabelFunction = "esb_function"
	// LabelCreatedBy marks a container as the agent's; its value is CreatedBy.
	LabelCreatedBy = "created_by"
	// CreatedBy is the value of LabelCreatedBy.
	CreatedBy = "esb-agent"
)

// TCP ports of a container's worker endpoint (docs/system-specification.md 6). The numbers are part of what a container was made
// with: Container.Port says which one it has.
const (
	// SupervisorPort is lambda-init's. All others but 9001, the Runtime API's, are the function's, 8080 first of all: what is built
	// for Lambda Web Adapter, and most images of web servers, listen there. This one is below the ports that the kernel hands out
	// (32768 to 60999), nobody's at IANA, and no multiple that a person would choose.
	SupervisorPort = 27182
	// RIEPort is where the Runtime Interface Emulator listens.
	RIEPort = 8080
)

// WorkerPort returns the port of the worker endpoint behind an interface.
func WorkerPort(i RuntimeInterface) int {
	if i == RIE {
		return RIEPort
	}
	return SupervisorPort
}

// RuntimeInterface says how a function process is reached (docs/system-specification.md 6).
type RuntimeInterface string

// Runtime interfaces.
const (
	Supervisor RuntimeInterface = "supervisor"
	RIE        RuntimeInterface = "rie"
)

// PullPolicy says when a registry is asked for an image.
type PullPolicy string

// Pull policies.
const (
	PullIfNotPresent PullPolicy = "if_not_present"
	PullAlways       PullPolicy = "always"
	PullNever        PullPolicy = "never"
)

// Status is the observed state of a container.
type Status string

// Container states.
const (
	StatusRunning Status = "RUNNING"
	StatusPaused  Status = "PAUSED"
	StatusStopped Status = "STOPPED"
	StatusUnknown Status = "UNKNOWN"
)

// ContainerSpec says which container to make.
type ContainerSpec struct {
	FunctionName string
	// Image is a reference "name[:tag][@digest]"; empty when Code is given.
	Image string
	// Code is nil for a function whose image has its code.
	Code *FunctionCode
	// Env is the function's own environment; the runtime adds AWS's variables.
	Env map[string]string
	// MemoryMB is the memory limit; CPU follows it.
	MemoryMB int
	// Timeout of one invocation.
	Timeout    time.Duration
	Interface  RuntimeInterface
	PullPolicy PullPolicy
	// Generation is an opaque digest of the function's configuration.
	Generation string
	// EphemeralStorageMB is the size of /tmp; 0 means the agent's setting.
	EphemeralStorageMB int
	// Standby leaves the function process to the first request.
	Standby bool
	// Entrypoint, Command and WorkingDirectory replace the image's when not empty.
	Entrypoint       []string
	Command          []string
	WorkingDirectory string
	// RequestID is the request that caused the start, for log lines.
	RequestID string
	// Owner is whose the container is; empty for nobody's.
	Owner string
}

// FunctionCode is a function's code apart from its image; the image is then the base image of its runtime.
type FunctionCode struct {
	Source CodeSource
	// Layers become one tree at /opt, in which the later ones count.
	Layers []CodeSource
	// Runtime is AWS's name, "python3.11".
	Runtime string
	// Base is what runs it in place of the base image for Runtime: the name of another runtime, or an image; empty for none.
	Base string
	// Handler is what the runtime calls, "module.function".
	Handler string
}

// CodeSource is a zip file or folder in one version (api: CodeSource).
type CodeSource struct {
	Location, Version string
}

// Container is one container as observed.
type Container struct {
	ID           string
	Name         string
	FunctionName string
	Status       Status
	IP           string
	Port         int
	Image        string
	ImageDigest  string
	Generation   string
	Interface    RuntimeInterface
	Standby      bool
	CreatedAt    time.Time
	LastUsedAt   time.Time
	Owner        string
	// Outdated is true when it was made with settings of the agent that are others now.
	Outdated bool
}

// CPULoad is how much functions want the CPU.
type CPULoad struct {
	// CPUs is how many this machine has.
	CPUs int
	// Functions is the part of all CPU time that functions use, 0 to 1.
	Functions float64
	// Runnable is how many threads of the machine run or could, for each CPU.
	Runnable float64
}

// Thawer is a Runtime whose frozen containers another process of this machine can thaw itself.
type Thawer interface {
	// ThawFile lets the gateway's user write the file that thaws a container, and returns its path and what is to be written.
	ThawFile(id string) (path, text string, err error)
}

// CPUMeter is a Runtime that knows the CPULoad.
type CPUMeter interface {
	// WatchCPU returns a channel that has readings while functions are busy. It is closed when ctx ends, or when nothing can be read.
	WatchCPU(ctx context.Context) <-chan CPULoad
}

// Metrics is one reading of a container's cgroup.
type Metrics struct {
	Container        Container
	MemoryBytes      uint64
	MemoryPeakBytes  uint64
	MemoryLimitBytes uint64
	CPUNanoseconds   uint64
	ThrottledPeriods uint64
	OOMKills         uint64
	PIDs             uint64
	// ExitCode of process 1, when it has ended.
	ExitCode *uint32
}

// Event is what a watcher is told of.
type Event struct {
	// Exit is a container that has ended by itself; nil when it is a shortage.
	Exit *Exit
	// Shortage is one of memory.
	Shortage Shortage
}

// Shortage is that containers hold more memory than they may together, or that the machine has next to none left.
type Shortage struct {
	// Bytes is how much is to be given back; 0 when it is over.
	Bytes int64
	// Machine is true when the machine itself has next to none left.
	Machine bool
}

// Exit is a container that has ended by itself.
type Exit struct {
	ID, FunctionName string
	// Code is the exit code of process 1.
	Code uint32
	// OOM is true when the kernel has killed processes of it for want of memory.
	OOM bool
}

// ImageReference names an image by itself, or by what runs function code: a runtime, whose base image it is, or an image.
type ImageReference struct {
	Image, Runtime string
	// AskRegistry has the image's registry asked, in the background, whether it has another one under its tag.
	AskRegistry bool
}

// Runtime makes and ends function containers. Every method answers with *Error.
type Runtime interface {
	// Ensure makes one container and returns when its worker endpoint answers. When it fails, or ctx ends
	// first, everything that it had made is undone.
	Ensure(ctx context.Context, spec ContainerSpec) (Container, error)
	// Destroy ends a container: SIGTERM, SIGKILL after grace (at once when grace is 0), thawed first.
	Destroy(ctx context.Context, id string, grace time.Duration, reason string) error
	// List returns the agent's containers as containerd reports them, all when function is empty.
	List(ctx context.Context, function string) ([]Container, error)
	// Pause freezes a container; pausing a paused one is no error.
	Pause(ctx context.Context, id string) error
	// Resume thaws a container; resuming a running one is no error.
	Resume(ctx context.Context, id string) error
	// Metrics reads a container's counters.
	Metrics(ctx context.Context, id string) (Metrics, error)
	// Watch tells of containers that end by themselves from now on, and of shortages of memory: each second while there is one, and
	// once when it is over. The channel is closed when ctx ends, when the Runtime is
	// closed, or when its reader does not keep up.
	Watch(ctx context.Context) <-chan Event
	// ImageVersions returns the digests of the manifests of images as they are here now, "" for one that is not. Archives
	// that have changed are taken over first; registries are asked in the background, and what they had is here at a later call.
	ImageVersions(ctx context.Context, images []ImageReference) ([]string, error)
}

// Image is an image that is here.
type Image struct {
	Name, Digest string
	// Bytes of its content and its unpacked layers; what images share counts for each of them.
	Bytes int64
	// UsedAt is when a container was last made of it, or a function last configured with it; InUse says whether one is now.
	UsedAt time.Time
	InUse  bool
	// Archive is the file that it came from, "" for one of a registry.
	Archive string
}

// ImageKeeper is what a Runtime may be, too, that keeps images on this machine.
type ImageKeeper interface {
	// Images lists them by name, and says how many bytes all of them take.
	Images(ctx context.Context) (images []Image, bytes int64, err error)
	// RemoveImages removes those that are named, or, when none is, those that nothing has used for so long; archives says whether
	// their archives go, too. It returns names and paths of what it has removed. One that is in use is not removed.
	RemoveImages(ctx context.Context, names []string, unusedFor time.Duration, archives bool) ([]string, error)
}

// Host is a Runtime as the agent runs it: what its logs, its health and its end ask for beside what its callers do. Another way to run
// containers takes the place of agent/containerd when it is one.
type Host interface {
	Runtime
	// Healthy says whether containers can be made and ended now.
	Healthy(ctx context.Context) error
	// Container returns the function of a container and whether lambda-init writes its log, and false for one of which
	// nothing is left that could write a log line.
	Container(id string) (function string, supervised, alive bool)
	// At returns the container that has an address on the function network, false when none has.
	At(ip netip.Addr) (container, function string, ok bool)
	// Close ends what the runtime itself runs and waits for it. Containers live on; the next one adopts them.
	Close() error
}
