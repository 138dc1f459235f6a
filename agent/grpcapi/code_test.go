package grpcapi

import (
	"context"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/edge-serverless-box/esb/agent"
	agentv1 "github.com/edge-serverless-box/esb/api/esb/agent/v1"
)

func goodCode() *agentv1.EnsureContainerRequest {
	digest := "sha256:" + strings.Repeat("a", 64)
	return &agentv1.EnsureContainerRequest{
		FunctionName: "f", Runtime: "python3.11", Handler: "app.handler", Code: &agentv1.CodeSource{Location: "/code", Version: digest},
		Layers: []*agentv1.CodeSource{{Location: "s3://b/k/l.zip", Version: "etag:1-2"}},
	}
}

func TestEnsure_ChecksFieldsOfCode(t *testing.T) {
	conn, _ := mustServe(t, &fakeRuntime{}, Options{}) // a call that gets through panics on the nil function
	client := agentv1.NewAgentServiceClient(conn)
	for name, c := range map[string]struct {
		field  string
		change func(*agentv1.EnsureContainerRequest)
	}{
		"image too":   {"code: excludes image", func(r *agentv1.EnsureContainerRequest) { r.Image = "i" }},
		"command too": {"code: excludes image", func(r *agentv1.EnsureContainerRequest) { r.Command = []string{"c"} }},
		"rie": {"runtime_interface", func(r *agentv1.EnsureContainerRequest) {
			r.RuntimeInterface = agentv1.RuntimeInterface_RUNTIME_INTERFACE_RIE
		}},
		"no runtime":          {"runtime", func(r *agentv1.EnsureContainerRequest) { r.Runtime = "" }},
		"no handler":          {"handler", func(r *agentv1.EnsureContainerRequest) { r.Handler = "" }},
		"bad handler":         {"handler", func(r *agentv1.EnsureContainerRequest) { r.Handler = "a b" }},
		"relative path":       {"code.location", func(r *agentv1.EnsureContainerRequest) { r.Code.Location = "code" }},
		"path with dots":      {"code.location", func(r *agentv1.EnsureContainerRequest) { r.Code.Location = "/a/../b" }},
		"version of a path":   {"code.version", func(r *agentv1.EnsureContainerRequest) { r.Code.Version = "sha256:../../x" }},
		"version of another":  {"layers[0].version", func(r *agentv1.EnsureContainerRequest) { r.Layers[0].Version = r.Code.GetVersion() }},
		"six layers":          {"layers", func(r *agentv1.EnsureContainerRequest) { r.Layers = make([]*agentv1.CodeSource, 6) }},
		"layers without code": {"layers", func(r *agentv1.EnsureContainerRequest) { r.Code, r.Image = nil, "i" }},
		"neither":             {"image", func(r *agentv1.EnsureContainerRequest) { r.Code = nil }},
	} {
		t.Run(name, func(t *testing.T) {
			r := goodCode()
			c.change(r)
			_, err := client.EnsureContainer(t.Context(), r)
			assert.Equal(t, codes.InvalidArgument, status.Code(err))
			assert.ErrorContains(t, err, c.field)
		})
	}
}

func TestEnsure_Code_ReachesTheRuntime(t *testing.T) {
	var got agent.ContainerSpec
	conn, _ := mustServe(t, &fakeRuntime{ensure: func(_ context.Context, s agent.ContainerSpec) (agent.Container, error) {
		got = s
		return agent.Container{}, nil
	}}, Options{})
	r := goodCode()
	_, err := agentv1.NewAgentServiceClient(conn).EnsureContainer(t.Context(), r)
	require.NoError(t, err)
	assert.Equal(t, &agent.FunctionCode{
		Source: agent.CodeSource{Location: "/code", Version: r.GetCode().GetVersion()}, Runtime: "python3.11", Handler: "app.handler",
		Layers: []agent.CodeSource{{Location: "s3://b/k/l.zip", Version: "etag:1-2"}},
	}, got.Code)
}
