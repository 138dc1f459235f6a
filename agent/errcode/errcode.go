// Package errcode gives errors of containerd, of contexts and of a full machine the codes of the agent's domain.
package errcode

import (
	"context"
	"errors"
	"strings"

	"github.com/containerd/errdefs"

	"github.com/edge-serverless-box/esb/agent"
)

// Of gives an error its code: the one that it has, or that follows from what containerd or a context says, else code.
func Of(code agent.Code, err error) error {
	var known *agent.Error
	switch {
	case errors.As(err, &known):
		code = known.Code
	case errors.Is(err, context.Canceled), errdefs.IsCanceled(err):
		code = agent.CodeCanceled
	case errors.Is(err, context.DeadlineExceeded), errdefs.IsDeadlineExceeded(err):
		code = agent.CodeDeadline
	case errdefs.IsUnavailable(err):
		code = agent.CodeUnavailable
	case errdefs.IsResourceExhausted(err), strings.Contains(err.Error(), "no space left on device"), strings.Contains(err.Error(), "cannot allocate memory"):
		code = agent.CodeExhausted
	}
	return agent.Errorf(code, "%w", err)
}
