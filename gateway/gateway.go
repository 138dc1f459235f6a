// Package gateway holds the domain of the esb gateway: functions, routes, workers, invocations and the errors
// that clients see. It depends on nothing but the standard library; each package below it wraps one
// dependency or does one job (httpapi, auth, route, event, pool, invoke, ...).
package gateway

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/edge-serverless-box/esb/api/reason"
)

// RuntimeInterface says how a worker is reached (docs/system-specification.md 6).
type RuntimeInterface string

// Runtime interfaces.
const (
	Supervisor RuntimeInterface = "supervisor"
	RIE        RuntimeInterface = "rie"
)

// PullAlways is the PullPolicy of a function whose image is looked up in its registry at each start.
const PullAlways = "always"

// Function is one entry of functions.yml with its defaults applied. It is immutable: a reload makes new ones.
type Function struct {
	Name       string
	Image      string        // empty when Code is given
	Code       *FunctionCode // nil for a function whose image has its code
	PullPolicy string        // PullAlways, if_not_present, never

	Environment map[string]string
	// Timeout of one invocation (AWS: 1 to 900 s, default 3 s).
	Timeout time.Duration
	// MemoryMB is the memory limit (AWS: 128 to 10240 MB); CPU follows it.
	MemoryMB int
	// EphemeralStorageMB is the size of /tmp (AWS: 512 to 10240 MB).
	EphemeralStorageMB int
	Interface          RuntimeInterface
	// Entrypoint, Command and WorkingDirectory replace the image's when not empty (AWS: ImageConfig).
	Entrypoint       []string
	Command          []string
	WorkingDirectory string
	// Logging is the format of its log and what is left out of it.
	Logging Logging
	// Freeze stops the function's processes between invocations, as AWS does; a request then waits for their thaw.
	Freeze  bool
	Scaling Scaling
	// Async is for its asynchronous invocations.
	Async Async
	// AllowLoops lets it be invoked however often one chain of invocations comes back to it (AWS: RecursiveLoop Allow;
	// package lineage).
	AllowLoops bool
	// Invoke are the names of the functions that this one's own keys may invoke through the Invoke API; none by default.
	Invoke []string
	// Stores is what its own keys open at S3 and DynamoDB.
	Stores StoreAccess
	// Schedules call the function at times.
	Schedules []Schedule
	// Generation is a digest of everything a running container depends on (not of Scaling, Async, Invoke, Stores and Schedules): containers of
	// another generation are drained, never used again.
	Generation string
	// ImageDigest is that of the image as the agent has it, empty while nobody knows: it is a part of Generation then.
	// BaseGeneration is Generation without it.
	ImageDigest    string
	BaseGeneration string
}

// PinImage is a reference to the image of that digest in the repository of image, whatever its tag points at.
func PinImage(image, digest string) string {
	repository, _, _ := strings.Cut(image, "@")
	// A colon behind the last slash is a tag's; one before it is a port's.
	if i := strings.LastIndexByte(repository, ':'); i > strings.LastIndexByte(repository, '/') {
		repository = repository[:i]
	}
	return repository + "@" + digest
}

// GenerationWith is the generation of a function whose image's digest is known; base is that of the same function without it.
func GenerationWith(base, digest string) string {
	sum := sha256.Sum256([]byte(base + "\x00" + digest))
	return hex.EncodeToString(sum[:16])
}

// Startable is false while the version of the function's code is not known: no container can be made of it then.
func (f *Function) Startable() bool {
	if f.Code == nil {
		return true
	}
	return f.Code.Source.Version != "" && !slices.ContainsFunc(f.Code.Layers, func(l CodeSource) bool { return l.Version == "" })
}

// Logging is how a function's log is written (AWS: LoggingConfig). The zero value is text, with everything in it.
type Logging struct {
	// JSON says that the log format is JSON, not text: the lines of the box, and what the function's runtime logs.
	JSON bool
	// ApplicationLevel is the least level of the function's own lines, TRACE to FATAL, and SystemLevel that of the box's, DEBUG to
	// WARN. Empty for text.
	ApplicationLevel, SystemLevel string
}

// Environment is what a function's container is told of l.
func (l Logging) Environment() map[string]string {
	if !l.JSON {
		return nil
	}
	return map[string]string{"AWS_LAMBDA_LOG_FORMAT": "JSON", "AWS_LAMBDA_LOG_LEVEL": l.ApplicationLevel, "ESB_SYSTEM_LOG_LEVEL": l.SystemLevel}
}

// Schedule calls its function asynchronously at times (AWS: an EventBridge rule with the function as target).
type Schedule struct {
	// Name is the rule's, unique on the box.
	Name string
	// Expression is AWS's, "rate(5 minutes)" or "cron(0 18 ? * MON-FRI *)" (package schedule).
	Expression string
	// Timezone of a cron expression, a name of the IANA database; empty is UTC.
	Timezone string
	// Input is the event, JSON; nil is EventBridge's scheduled event.
	Input   []byte
	Enabled bool
}

// ImageReference names the image that containers of a function are made of: by itself, or by what runs the function's code, its
// runtime or its base.
type ImageReference struct {
	Image, Runtime string
	// AskRegistry says that its registry is asked for it, which may have another image under its tag: pull_policy is always.
	AskRegistry bool
}

// ImageReference returns that of the function.
func (f *Function) ImageReference() ImageReference {
	ref := ImageReference{AskRegistry: f.PullPolicy == PullAlways}
	switch {
	case f.Code == nil:
		ref.Image = f.Image
	case f.Code.Base == "":
		ref.Runtime = f.Code.Runtime
	case boxRuntime.MatchString(f.Code.Base):
		ref.Runtime = f.Code.Base
	default:
		ref.Image = f.Code.Base
	}
	return ref
}

// boxRuntime matches the runtimes that a box has base images of; any other base is an image.
var boxRuntime = regexp.MustCompile(`^(?:python3\.[0-9]+|nodejs[0-9]+\.x|provided\.al[0-9]+)$`)

// FunctionCode is a function's code apart from an image (AWS: package type Zip).
type FunctionCode struct {
	Source CodeSource
	// Layers become one tree at /opt, in which the later ones count.
	Layers []CodeSource
	// Runtime is AWS's name, "python3.11"; Handler is what it calls, "module.function", empty for provided runtimes.
	Runtime, Handler string
	// Base is what runs it when that is not the box's base image for Runtime: the name of another runtime, or an image.
	Base string `json:",omitempty"`
}

// CodeSource is a zip file or a folder.
type CodeSource struct {
	// Location is "s3://bucket/key" or an absolute path, at which the agent sees the same.
	Location string
	// Version is what is there (package codeversion), empty while nobody could find out.
	Version string
	// Problem is the kind of reason why Version is empty; empty when nobody has looked yet.
	Problem reason.Reason `json:"-"`
}

// Scaling bounds the pool of one function (docs/system-specification.md 8).
type Scaling struct {
	// MinCapacity workers stay warm.
	MinCapacity int
	// MaxCapacity bounds containers: idle, busy, starting and standing by together. 0 means that every
	// request is refused as throttled (AWS: reserved concurrency 0).
	MaxCapacity int
	// IdleTimeout after which an idle worker is destroyed.
	IdleTimeout time.Duration
	// AcquireTimeout bounds the wait for a worker.
	AcquireTimeout time.Duration
	// Queue is how many requests may wait for a worker.
	Queue int
	// Standby is how many sandboxes stand by without a function process, within MaxCapacity.
	Standby int
}

// AuthKind is how a route authenticates its callers.
type AuthKind string

// Kinds of authentication.
const (
	AuthJWT    AuthKind = "jwt"
	AuthAPIKey AuthKind = "api_key"
	AuthNone   AuthKind = "none"
	// AuthFunction is a Lambda authorizer.
	AuthFunction AuthKind = "function"
)

// PayloadVersion is the event format of a route.
type PayloadVersion string

// Event formats of API Gateway.
const (
	PayloadV1 PayloadVersion = "1.0"
	PayloadV2 PayloadVersion = "2.0"
)

// Route is one entry of routing.yml.
type Route struct {
	// Path is the template, "/api/users/{id}" or "/files/{proxy+}".
	Path string
	// Methods in upper case; empty means ANY.
	Methods  []string
	Function *Function
	Auth     AuthKind
	// Tokens says, with AuthJWT, whose tokens are good; nil means the box's own.
	Tokens *TokenPolicy
	// APIKeys are, with AuthAPIKey, the names of the keys that are good; empty means all.
	APIKeys []string
	// Authorizer decides, with AuthFunction.
	Authorizer *Authorizer
	// CORS and Throttle are nil for none.
	CORS     *CORS
	Throttle *Throttle
	Payload  PayloadVersion
	// API is the type of API that the route is like; empty means that Payload says so (HTTPAPI).
	API APIType
	// OperationName is told to the function of a REST API, empty for none (AWS: the method's operationName).
	OperationName string
	// Timeout of the whole integration, waiting for a worker included (AWS: 29 s, 15 minutes of a route that streams).
	Timeout time.Duration
	// BinaryMediaTypes whose bodies travel as base64 (AWS: binaryMediaTypes).
	BinaryMediaTypes []string
	// Stream passes the function's result on while it arrives (AWS: responseTransferMode STREAM); Timeout then bounds
	// the whole stream.
	Stream bool
}

// Worker is a container that takes one invocation at a time.
type Worker struct {
	ID          string
	Name        string
	Addr        string // host:port
	Function    string
	Generation  string
	ImageDigest string
	Interface   RuntimeInterface
	// Standby is true until the first invocation has started the function process.
	Standby   bool
	CreatedAt time.Time
}

// Container is a function container and what it uses, as the agent observes it.
type Container struct {
	ID       string
	Name     string
	Function string
	// State is RUNNING, PAUSED, STOPPED or UNKNOWN.
	State     string
	CreatedAt time.Time
	// MemoryCurrent, MemoryPeak and MemoryLimit are bytes.
	MemoryCurrent, MemoryPeak, MemoryLimit uint64
	// CPU is the time that all CPUs together have worked for it.
	CPU time.Duration
	// ThrottledPeriods is how often its CPU quota held it back.
	ThrottledPeriods uint64
	// OOMKills are the processes that the kernel killed in it for want of memory.
	OOMKills uint64
	// Processes are its processes and threads.
	Processes uint64
}

// Invocation is one call of a function.
type Invocation struct {
	RequestID string
	// TraceID is a whole X-Amzn-Trace-Id value: Root, Parent and Sampled.
	TraceID       string
	ClientContext string
	// Qualifier is the version that the caller has named, "$LATEST", empty when it named none (AWS: it then ends the ARN that
	// the function is told).
	Qualifier string
	LogTail   bool
	// Inner says that another function waits for this invocation.
	Inner bool
	// EndsWithCaller says that the invocation must not outlive its caller's context: its caller will have it run again.
	EndsWithCaller bool
	Payload        []byte
	// Memory takes the bytes of a result that is not small, so that the sum of all results is bounded; nil does not count
	// them. Its owner releases it when the result has been dealt with.
	Memory Memory
}

// Memory is what a request holds of the gateway's memory; budget.Claim is the one of production.
type Memory interface {
	// GrowWait takes n more bytes, and waits for them until ctx ends. Its error says that there are none.
	GrowWait(ctx context.Context, n int64) error
}

// StreamWriter takes a function's result while it arrives. Its methods are called by one goroutine, in order.
type StreamWriter interface {
	// Begin is called once, before the first Write, with the Content-Type that the runtime gave to the result.
	Begin(contentType string) error
	// Write takes the next bytes as the function wrote them and does not keep p. It may block: the function then waits.
	// Its error ends the invocation.
	Write(p []byte) (int, error)
}

// Result is what a function answered.
type Result struct {
	Payload []byte
	// FunctionError is "Unhandled" when the function failed, else empty; Payload then describes the error.
	FunctionError string
	// TimedOut is true when the function ran past its own timeout.
	TimedOut bool
	// LogTail is the last 4 KB of the invocation's log, base64, when asked for.
	LogTail string
	// InitDuration is set when this invocation paid for a cold start.
	InitDuration time.Duration
	// ContentType is the payload's, as the function named it.
	ContentType string
}
