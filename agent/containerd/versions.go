package containerd

import (
	"context"

	"github.com/edge-serverless-box/esb/agent"
	"github.com/edge-serverless-box/esb/agent/errcode"
	"github.com/edge-serverless-box/esb/agent/images"
)

// ImageVersions implements agent.Runtime.
func (r *Runtime) ImageVersions(ctx context.Context, refs []agent.ImageReference) ([]string, error) {
	queries := make([]images.Query, len(refs))
	for i, ref := range refs {
		queries[i] = images.Query{Image: ref.Image, AskRegistry: ref.AskRegistry}
		if ref.Runtime != "" {
			// What runs a runtime may be an image that functions.yml names.
			queries[i].Image = codeImage(agent.FunctionCode{Base: ref.Runtime})
		}
	}
	versions, err := r.images.Versions(ctx, queries)
	if err != nil {
		return nil, errcode.Of(agent.CodeInternal, err)
	}
	return versions, nil
}
