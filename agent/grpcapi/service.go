package grpcapi

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/edge-serverless-box/esb/agent"
	agentv1 "github.com/edge-serverless-box/esb/api/esb/agent/v1"
)

// Limits of fields, AWS's unless it says otherwise (Lambda developer guide, "Lambda quotas").
const (
	maxMemoryMB  = 10240
	minMemoryMB  = 16 // AWS: 128; less is enough for tests and tiny functions
	maxTimeout   = 900
	minStorageMB = 512
	maxStorageMB = 10240
	maxGrace     = 900
	maxImage     = 1024
	maxImages    = 4096
	maxID        = 128
)

var (
	functionName = regexp.MustCompile(`^[a-zA-Z0-9_-]{1,64}$`)
	variableName = regexp.MustCompile(`^[a-zA-Z_][a-zA-Z0-9_]*$`)
)

// service implements the generated interface.
type service struct {
	agentv1.UnimplementedAgentServiceServer
	runtime agent.Runtime
	// notes may be nil.
	notes func() []string
	// stopping is closed when the server stops: calls that have no end of their own end then.
	stopping <-chan struct{}
	owners   *owners
	launches *launches
}

// EnsureContainer implements esb.agent.v1.
func (s *service) EnsureContainer(ctx context.Context, r *agentv1.EnsureContainerRequest) (*agentv1.WorkerInfo, error) {
	spec, err := specOf(r)
	if err != nil {
		return nil, err
	}
	s.owners.heard(spec.Owner)
	ended := s.launches.begin(ctx)
	defer ended()
	c, err := s.runtime.Ensure(ctx, spec)
	if err == nil && ctx.Err() != nil {
		// Nobody would learn of it.
		err = errors.Join(fmt.Errorf("the caller left while container %s started: %w", c.ID, ctx.Err()),
			s.runtime.Destroy(context.WithoutCancel(ctx), c.ID, 0, "its caller left"))
	}
	if err != nil {
		return nil, err
	}
	return &agentv1.WorkerInfo{Id: c.ID, Name: c.Name, IpAddress: c.IP, Port: uint32(c.Port), ImageDigest: c.ImageDigest}, nil
}

// specOf checks a request field by field; the error names the first one that is wrong.
func specOf(r *agentv1.EnsureContainerRequest) (agent.ContainerSpec, error) {
	spec := agent.ContainerSpec{
		FunctionName: r.GetFunctionName(), Image: r.GetImage(), Env: r.GetEnv(), MemoryMB: int(r.GetMemorySizeMb()),
		Timeout: time.Duration(r.GetTimeoutSeconds()) * time.Second, Generation: r.GetGeneration(),
		EphemeralStorageMB: int(r.GetEphemeralStorageMb()), Standby: r.GetStandby(), Entrypoint: r.GetEntrypoint(),
		Command: r.GetCommand(), WorkingDirectory: r.GetWorkingDirectory(), RequestID: r.GetRequestId(), Owner: r.GetOwner(),
	}
	if spec.MemoryMB == 0 {
		spec.MemoryMB = 128 // AWS's default
	}
	if spec.Timeout == 0 {
		spec.Timeout = 3 * time.Second // AWS's default
	}
	invalid := func(field, format string, args ...any) (agent.ContainerSpec, error) {
		return spec, agent.Errorf(agent.CodeInvalid, field+": "+format, args...)
	}
	switch r.GetRuntimeInterface() {
	case agentv1.RuntimeInterface_RUNTIME_INTERFACE_UNSPECIFIED, agentv1.RuntimeInterface_RUNTIME_INTERFACE_SUPERVISOR:
		spec.Interface = agent.Supervisor
	case agentv1.RuntimeInterface_RUNTIME_INTERFACE_RIE:
		spec.Interface = agent.RIE
	default:
		return invalid("runtime_interface", "%d is not known", r.GetRuntimeInterface())
	}
	switch r.GetPullPolicy() {
	case agentv1.PullPolicy_PULL_POLICY_UNSPECIFIED, agentv1.PullPolicy_PULL_POLICY_IF_NOT_PRESENT:
		spec.PullPolicy = agent.PullIfNotPresent
	case agentv1.PullPolicy_PULL_POLICY_ALWAYS:
		spec.PullPolicy = agent.PullAlways
	case agentv1.PullPolicy_PULL_POLICY_NEVER:
		spec.PullPolicy = agent.PullNever
	default:
		return invalid("pull_policy", "%d is not known", r.GetPullPolicy())
	}
	for name, value := range spec.Env {
		if !variableName.MatchString(name) {
			return invalid("env", "%q is not a variable's name: letters, digits and underscores, not a digit first", name)
		}
		if strings.ContainsRune(value, 0) {
			return invalid("env", "the value of %s has a zero byte in it", name)
		}
	}
	for field, values := range map[string][]string{
		"entrypoint": spec.Entrypoint, "command": spec.Command, "working_directory": {spec.WorkingDirectory},
	} {
		if strings.ContainsRune(strings.Join(values, ""), 0) {
			return invalid(field, "has a zero byte in it")
		}
	}
	switch {
	case !functionName.MatchString(spec.FunctionName):
		return invalid("function_name", "must be 1 to 64 letters, digits, hyphens or underscores, got %q", spec.FunctionName)
	case r.GetCode() == nil && (spec.Image == "" || len(spec.Image) > maxImage):
		return invalid("image", "must have 1 to %d characters, got %d", maxImage, len(spec.Image))
	case spec.MemoryMB < minMemoryMB || spec.MemoryMB > maxMemoryMB:
		return invalid("memory_size_mb", "must be %d to %d, got %d", minMemoryMB, maxMemoryMB, spec.MemoryMB)
	case spec.Timeout > maxTimeout*time.Second:
		return invalid("timeout_seconds", "must be 1 to %d, got %d", maxTimeout, r.GetTimeoutSeconds())
	case spec.EphemeralStorageMB != 0 && (spec.EphemeralStorageMB < minStorageMB || spec.EphemeralStorageMB > maxStorageMB):
		return invalid("ephemeral_storage_mb", "must be 0 or %d to %d, got %d", minStorageMB, maxStorageMB, spec.EphemeralStorageMB)
	case spec.Standby && spec.Interface != agent.Supervisor:
		return invalid("standby", "only containers with runtime_interface supervisor can stand by")
	case len(spec.Owner) > maxID:
		return invalid("owner", "must have at most %d characters, got %d", maxID, len(spec.Owner))
	case len(spec.Generation) > maxID:
		return invalid("generation", "must have at most %d characters, got %d", maxID, len(spec.Generation))
	}
	return withCode(spec, r)
}

// DestroyContainer implements esb.agent.v1.
func (s *service) DestroyContainer(ctx context.Context, r *agentv1.DestroyContainerRequest) (*agentv1.DestroyContainerResponse, error) {
	if err := checkID(r); err != nil {
		return nil, err
	}
	if r.GetGraceSeconds() > maxGrace {
		return nil, agent.Errorf(agent.CodeInvalid, "grace_seconds: must be 0 to %d, got %d", maxGrace, r.GetGraceSeconds())
	}
	grace := time.Duration(r.GetGraceSeconds()) * time.Second
	if err := s.runtime.Destroy(ctx, r.GetContainerId(), grace, r.GetReason()); err != nil {
		return nil, err
	}
	return &agentv1.DestroyContainerResponse{}, nil
}

// ListContainers implements esb.agent.v1.
func (s *service) ListContainers(ctx context.Context, r *agentv1.ListContainersRequest) (*agentv1.ListContainersResponse, error) {
	if name := r.GetFunctionName(); name != "" && !functionName.MatchString(name) {
		return nil, agent.Errorf(agent.CodeInvalid, "function_name: must be 1 to 64 letters, digits, hyphens or underscores, got %q", name)
	}
	if n := len(r.GetOwner()); n > maxID {
		return nil, agent.Errorf(agent.CodeInvalid, "owner: must have at most %d characters, got %d", maxID, n)
	}
	s.owners.heard(r.GetOwner())
	s.launches.settle(ctx)
	found, err := s.runtime.List(ctx, r.GetFunctionName())
	if err != nil {
		return nil, err
	}
	out := &agentv1.ListContainersResponse{}
	if s.notes != nil {
		out.Notes = s.notes()
	}
	for _, c := range found {
		out.Containers = append(out.Containers, &agentv1.ContainerInfo{
			ContainerId: c.ID, ContainerName: c.Name, FunctionName: c.FunctionName, Status: statusPB(c.Status),
			LastUsedAt: timestamppb.New(c.LastUsedAt), CreatedAt: timestamppb.New(c.CreatedAt), IpAddress: c.IP, Port: uint32(c.Port),
			Generation: c.Generation, ImageDigest: c.ImageDigest, Image: c.Image, RuntimeInterface: interfacePB(c.Interface), Standby: c.Standby,
			Owner: c.Owner, OwnerSilentSeconds: s.owners.silent(c.Owner), Outdated: c.Outdated,
		})
	}
	return out, nil
}

// PauseContainer implements esb.agent.v1.
func (s *service) PauseContainer(ctx context.Context, r *agentv1.PauseContainerRequest) (*agentv1.PauseContainerResponse, error) {
	if err := checkID(r); err != nil {
		return nil, err
	}
	if err := s.runtime.Pause(ctx, r.GetContainerId()); err != nil {
		return nil, err
	}
	res := &agentv1.PauseContainerResponse{}
	if from, ok := peer.FromContext(ctx); ok && from.Addr.Network() == unixNetwork {
		if thawer, ok := s.runtime.(agent.Thawer); ok {
			// Without the file the container is frozen all the same, and is thawed by a call.
			res.ThawFile, res.ThawText, _ = thawer.ThawFile(r.GetContainerId())
		}
	}
	return res, nil
}

// ResumeContainer implements esb.agent.v1.
func (s *service) ResumeContainer(ctx context.Context, r *agentv1.ResumeContainerRequest) (*agentv1.ResumeContainerResponse, error) {
	if err := checkID(r); err != nil {
		return nil, err
	}
	if err := s.runtime.Resume(ctx, r.GetContainerId()); err != nil {
		return nil, err
	}
	return &agentv1.ResumeContainerResponse{}, nil
}

// GetContainerMetrics implements esb.agent.v1.
func (s *service) GetContainerMetrics(ctx context.Context, r *agentv1.GetContainerMetricsRequest) (*agentv1.GetContainerMetricsResponse, error) {
	if err := checkID(r); err != nil {
		return nil, err
	}
	m, err := s.runtime.Metrics(ctx, r.GetContainerId())
	if err != nil {
		return nil, err
	}
	c := m.Container
	return &agentv1.GetContainerMetricsResponse{
		ContainerId: c.ID, ContainerName: c.Name, FunctionName: c.FunctionName, Status: statusPB(c.Status),
		MemoryCurrentBytes: m.MemoryBytes, MemoryPeakBytes: m.MemoryPeakBytes, MemoryLimitBytes: m.MemoryLimitBytes,
		CpuUsageNanoseconds: m.CPUNanoseconds, CpuThrottledPeriods: m.ThrottledPeriods, OomKills: m.OOMKills,
		PidsCurrent: m.PIDs, ExitCode: m.ExitCode,
	}, nil
}

func checkID(r interface{ GetContainerId() string }) error {
	if id := r.GetContainerId(); id == "" || len(id) > maxID {
		return agent.Errorf(agent.CodeInvalid, "container_id: must have 1 to %d characters, got %d", maxID, len(id))
	}
	return nil
}

func statusPB(s agent.Status) agentv1.ContainerStatus {
	switch s {
	case agent.StatusRunning:
		return agentv1.ContainerStatus_RUNNING
	case agent.StatusPaused:
		return agentv1.ContainerStatus_PAUSED
	case agent.StatusStopped:
		return agentv1.ContainerStatus_STOPPED
	}
	return agentv1.ContainerStatus_UNKNOWN
}

func interfacePB(i agent.RuntimeInterface) agentv1.RuntimeInterface {
	if i == agent.RIE {
		return agentv1.RuntimeInterface_RUNTIME_INTERFACE_RIE
	}
	return agentv1.RuntimeInterface_RUNTIME_INTERFACE_SUPERVISOR
}

// WatchContainers implements esb.agent.v1.
func (s *service) WatchContainers(_ *agentv1.WatchContainersRequest, stream grpc.ServerStreamingServer[agentv1.WatchContainersResponse]) error {
	ctx := stream.Context()
	events := s.runtime.Watch(ctx)
	if err := stream.Send(&agentv1.WatchContainersResponse{}); err != nil {
		return err
	}
	for {
		select {
		case e, ok := <-events:
			switch {
			case !ok && ctx.Err() != nil:
				return status.FromContextError(ctx.Err()).Err()
			case !ok:
				return agent.Errorf(agent.CodeExhausted, "the caller takes what it is told too slowly, or the agent stops")
			}
			if err := stream.Send(eventPB(e)); err != nil {
				return err
			}
		case <-s.stopping:
			return agent.Errorf(agent.CodeUnavailable, "the agent stops")
		}
	}
}

// WatchCPU implements esb.agent.v1.
func (s *service) WatchCPU(_ *agentv1.WatchCPURequest, stream grpc.ServerStreamingServer[agentv1.WatchCPUResponse]) error {
	meter, ok := s.runtime.(agent.CPUMeter)
	if !ok {
		return s.UnimplementedAgentServiceServer.WatchCPU(nil, stream)
	}
	ctx, cancel := context.WithCancel(stream.Context())
	defer cancel()
	loads := meter.WatchCPU(ctx)
	for {
		select {
		case l, ok := <-loads:
			switch {
			case !ok && stream.Context().Err() != nil:
				return status.FromContextError(stream.Context().Err()).Err()
			case !ok:
				return agent.Errorf(agent.CodePrecondition, "the use of the CPU cannot be read")
			}
			if err := stream.Send(&agentv1.WatchCPUResponse{Cpus: uint32(l.CPUs), Functions: l.Functions, Runnable: l.Runnable}); err != nil {
				return err
			}
		case <-s.stopping:
			return agent.Errorf(agent.CodeUnavailable, "the agent stops")
		}
	}
}

func eventPB(e agent.Event) *agentv1.WatchContainersResponse {
	if x := e.Exit; x != nil {
		return &agentv1.WatchContainersResponse{ContainerId: x.ID, FunctionName: x.FunctionName, ExitCode: x.Code, Oom: x.OOM}
	}
	short := &agentv1.MemoryShortage{Bytes: uint64(max(e.Shortage.Bytes, 0)), Machine: e.Shortage.Machine}
	return &agentv1.WatchContainersResponse{MemoryShortage: short}
}

// GetImageVersions implements esb.agent.v1.
func (s *service) GetImageVersions(ctx context.Context, r *agentv1.GetImageVersionsRequest) (*agentv1.GetImageVersionsResponse, error) {
	if n := len(r.GetImages()); n > maxImages {
		return nil, agent.Errorf(agent.CodeInvalid, "images: must be at most %d, got %d", maxImages, n)
	}
	images := make([]agent.ImageReference, 0, len(r.GetImages()))
	for i, ref := range r.GetImages() {
		if (ref.GetImage() == "") == (ref.GetRuntime() == "") || len(ref.GetImage()) > maxImage || len(ref.GetRuntime()) > maxImage {
			return nil, agent.Errorf(agent.CodeInvalid, "images[%d]: must have an image of at most %d characters, or a runtime", i, maxImage)
		}
		images = append(images, agent.ImageReference{Image: ref.GetImage(), Runtime: ref.GetRuntime(), AskRegistry: ref.GetAskRegistry()})
	}
	versions, err := s.runtime.ImageVersions(ctx, images)
	if err != nil {
		return nil, err
	}
	out := &agentv1.GetImageVersionsResponse{}
	for i, v := range versions {
		out.Versions = append(out.Versions, &agentv1.ImageVersion{Image: r.GetImages()[i], Digest: v})
	}
	return out, nil
}

// ListImages implements esb.agent.v1.
func (s *service) ListImages(ctx context.Context, _ *agentv1.ListImagesRequest) (*agentv1.ListImagesResponse, error) {
	keeper, ok := s.runtime.(agent.ImageKeeper)
	if !ok {
		return s.UnimplementedAgentServiceServer.ListImages(ctx, nil)
	}
	list, bytes, err := keeper.Images(ctx)
	if err != nil {
		return nil, err
	}
	out := &agentv1.ListImagesResponse{Bytes: bytes}
	for _, img := range list {
		out.Images = append(out.Images, &agentv1.Image{
			Name: img.Name, Digest: img.Digest, Bytes: img.Bytes, UsedAt: timestamppb.New(img.UsedAt), InUse: img.InUse, Archive: img.Archive,
		})
	}
	return out, nil
}

// RemoveImages implements esb.agent.v1.
func (s *service) RemoveImages(ctx context.Context, r *agentv1.RemoveImagesRequest) (*agentv1.RemoveImagesResponse, error) {
	keeper, ok := s.runtime.(agent.ImageKeeper)
	if !ok {
		return s.UnimplementedAgentServiceServer.RemoveImages(ctx, nil)
	}
	if r.GetUnusedFor().AsDuration() < 0 {
		return nil, agent.Errorf(agent.CodeInvalid, "unused_for: must not be negative, got %s", r.GetUnusedFor().AsDuration())
	}
	removed, err := keeper.RemoveImages(ctx, r.GetNames(), r.GetUnusedFor().AsDuration(), r.GetArchives())
	if err != nil {
		return nil, err
	}
	return &agentv1.RemoveImagesResponse{Removed: removed}, nil
}
