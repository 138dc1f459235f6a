package grpcapi

import (
	"fmt"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/edge-serverless-box/esb/agent"
	"github.com/edge-serverless-box/esb/agent/code"
	agentv1 "github.com/edge-serverless-box/esb/api/esb/agent/v1"
)

// Limits of fields about code, AWS's (Lambda API reference, CreateFunction).
const (
	maxLayers   = 5
	maxHandler  = 128
	maxLocation = 4095
)

var (
	contentVersion = regexp.MustCompile(`^sha256:[0-9a-f]{64}$`)
	objectVersion  = regexp.MustCompile(`^etag:[\x21-\x7e]{1,255}$`)
	runtimeName    = regexp.MustCompile(`^[a-z][a-z0-9.]{0,31}$`)
	handlerName    = regexp.MustCompile(`^[^\s\x00]*$`)
)

// withCode checks the fields of a function whose image has no code, and adds them to spec.
func withCode(spec agent.ContainerSpec, r *agentv1.EnsureContainerRequest) (agent.ContainerSpec, error) {
	if r.GetCode() == nil {
		if r.GetRuntime() != "" || r.GetRuntimeBase() != "" || r.GetHandler() != "" || len(r.GetLayers()) > 0 {
			return spec, agent.Errorf(agent.CodeInvalid, "runtime, handler, layers: belong to code, and there is none")
		}
		return spec, nil
	}
	invalid := func(field, format string, args ...any) (agent.ContainerSpec, error) {
		return spec, agent.Errorf(agent.CodeInvalid, field+": "+format, args...)
	}
	switch {
	case spec.Image != "" || len(spec.Entrypoint) > 0 || len(spec.Command) > 0 || spec.WorkingDirectory != "":
		return invalid("code", "excludes image, entrypoint, command and working_directory: they follow from the runtime")
	case spec.Interface != agent.Supervisor:
		return invalid("runtime_interface", "must be supervisor with code")
	case !runtimeName.MatchString(r.GetRuntime()):
		return invalid("runtime", "must be the name of a runtime such as python3.11, got %q", r.GetRuntime())
	case len(r.GetHandler()) > maxHandler || !handlerName.MatchString(r.GetHandler()):
		return invalid("handler", "must have at most %d characters and no spaces, got %q", maxHandler, r.GetHandler())
	case len(r.GetRuntimeBase()) > maxLocation || strings.ContainsAny(r.GetRuntimeBase(), " \t\n\x00"):
		return invalid("runtime_base", "must be the name of a runtime or an image reference, got %q", r.GetRuntimeBase())
	case r.GetHandler() == "" && !strings.HasPrefix(r.GetRuntime(), "provided."):
		return invalid("handler", "is missing: runtime %s needs one", r.GetRuntime())
	case len(r.GetLayers()) > maxLayers:
		return invalid("layers", "must be at most %d, got %d", maxLayers, len(r.GetLayers()))
	}
	spec.Code = &agent.FunctionCode{Runtime: r.GetRuntime(), Base: r.GetRuntimeBase(), Handler: r.GetHandler()}
	var err error
	if spec.Code.Source, err = sourceOf("code", r.GetCode()); err != nil {
		return spec, err
	}
	for i, l := range r.GetLayers() {
		layer, err := sourceOf(fmt.Sprintf("layers[%d]", i), l)
		if err != nil {
			return spec, err
		}
		spec.Code.Layers = append(spec.Code.Layers, layer)
	}
	return spec, nil
}

func sourceOf(field string, s *agentv1.CodeSource) (agent.CodeSource, error) {
	location, version := s.GetLocation(), s.GetVersion()
	want := contentVersion
	switch _, _, object := code.ParseS3(location); {
	case len(location) > maxLocation || strings.ContainsRune(location, 0):
		return agent.CodeSource{}, agent.Errorf(agent.CodeInvalid, "%s.location: must have at most %d characters", field, maxLocation)
	case object:
		want = objectVersion
	case !filepath.IsAbs(location) || filepath.Clean(location) != location:
		return agent.CodeSource{}, agent.Errorf(agent.CodeInvalid, "%s.location: must be s3://bucket/key or an absolute path, got %q", field, location)
	}
	if !want.MatchString(version) {
		return agent.CodeSource{}, agent.Errorf(agent.CodeInvalid,
			"%s.version: must be etag:<etag> for S3 and sha256:<64 hexadecimal digits> for a path, got %q", field, version)
	}
	return agent.CodeSource{Location: location, Version: version}, nil
}
