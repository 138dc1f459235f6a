package containerd

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/edge-serverless-box/esb/agent"
	"github.com/edge-serverless-box/esb/agent/code"
	"github.com/edge-serverless-box/esb/agent/errcode"
	"github.com/edge-serverless-box/esb/api/reason"
)

// CodeStore keeps the code of functions whose image has none; *code.Store does.
type CodeStore interface {
	// Get leases code and layers, unpacked.
	Get(ctx context.Context, c agent.FunctionCode) (*code.Lease, error)
	// Prune removes what is too much; inUse says whether a container has a tree mounted.
	Prune(inUse func(id string) bool) error
}

// baseImages is the name of all base images, before the runtime's family; functions/samples makes them.
const baseImages = "esb/runtime-"

// runtimeVersion takes AWS's names of runtimes apart.
var runtimeVersion = regexp.MustCompile(`^(?:(python)(\d+\.\d+)|(nodejs)(\d+)\.x|(provided)\.[a-z0-9]+)$`)

// baseImage returns the base image of a runtime, "" for a name that is no runtime's.
func baseImage(runtime string) string {
	m := runtimeVersion.FindStringSubmatch(runtime)
	switch {
	case m == nil:
		return ""
	case m[5] != "":
		return baseImages + m[5] + ":latest"
	}
	return baseImages + m[1] + m[3] + ":" + m[2] + m[4]
}

// codeImage returns the image that runs a function's code.
func codeImage(c agent.FunctionCode) string {
	if c.Base == "" {
		return baseImage(c.Runtime)
	}
	return firstOf(baseImage(c.Base), c.Base)
}

// runtimeOf is baseImage turned round, for messages.
func runtimeOf(image string) string {
	_, rest, _ := strings.Cut(image, baseImages)
	family, tag, _ := strings.Cut(rest, ":")
	switch family {
	case "nodejs":
		return family + tag + ".x"
	case "provided":
		return "provided.al2023"
	}
	return family + tag
}

// lease gets the code that a spec names and completes the spec: image, entrypoint and command follow from the runtime.
func (r *Runtime) lease(ctx context.Context, spec agent.ContainerSpec) (agent.ContainerSpec, *code.Lease, error) {
	if r.cfg.Code == nil {
		return spec, nil, agent.Errorf(agent.CodePrecondition, "function %s: this agent takes no code but that of images", spec.FunctionName)
	}
	leased, err := r.cfg.Code.Get(ctx, *spec.Code)
	if err != nil {
		return spec, nil, errcode.Of(agent.CodeInternal, err)
	}
	spec.Image = codeImage(*spec.Code)
	if strings.HasPrefix(spec.Code.Runtime, "provided.") {
		program, err := leased.Bootstrap()
		if err != nil {
			leased.Release()
			return spec, nil, errcode.Of(agent.CodeInternal, err)
		}
		spec.Entrypoint, spec.Command = []string{program}, nil
	} else {
		spec.Entrypoint, spec.Command = nil, []string{spec.Code.Handler}
	}
	return spec, leased, nil
}

// noBase explains a base image that cannot be had.
func (r *Runtime) noBase(ctx context.Context, c agent.FunctionCode, cause error) error {
	if agent.ErrorCode(cause) != agent.CodePrecondition {
		return cause
	}
	if c.Base != "" && baseImage(c.Base) == "" {
		return &agent.Error{
			Code: agent.CodePrecondition, Reason: reason.RuntimeInvalid,
			Message: fmt.Sprintf("runtime %s: the image %s, which runtimes in functions.yml names for it: %s", c.Runtime, c.Base, cause),
		}
	}
	runtime := firstOf(c.Base, c.Runtime)
	var have []string
	found, err := r.client.ImageService().List(ctx)
	if err != nil {
		return cause
	}
	for _, img := range found {
		if strings.Contains(img.Name, "/"+baseImages) || strings.HasPrefix(img.Name, baseImages) {
			have = append(have, runtimeOf(img.Name))
		}
	}
	if len(have) == 0 {
		have = []string{`none (make them with "esb-image build-samples")`}
	}
	slices.Sort(have)
	return &agent.Error{
		Code: agent.CodePrecondition, Reason: reason.RuntimeInvalid,
		Message: fmt.Sprintf("runtime %s: this box has no base image for it, it has: %s; %s", runtime, strings.Join(slices.Compact(have), ", "), cause),
	}
}

// mounted says whether a container has a tree of code mounted. One that is being removed counts until it is gone.
func (r *Runtime) mounted(id string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, s := range r.states {
		if slices.Contains(s.record.code, id) {
			return true
		}
	}
	return false
}
