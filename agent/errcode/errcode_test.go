package errcode

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/stretchr/testify/assert"

	"github.com/edge-serverless-box/esb/agent"
)

func TestOf_KeepsAndFindsCodes(t *testing.T) {
	for code, err := range map[agent.Code]error{
		agent.CodeExhausted:    fmt.Errorf("attach: %w", agent.Errorf(agent.CodeExhausted, "no address")),
		agent.CodeCanceled:     fmt.Errorf("x: %w", context.Canceled),
		agent.CodeDeadline:     fmt.Errorf("x: %w", context.DeadlineExceeded),
		agent.CodeUnavailable:  fmt.Errorf("x: %w", errdefs.ErrUnavailable),
		agent.CodePrecondition: errors.New("anything else"),
	} {
		assert.Equal(t, code, agent.ErrorCode(Of(agent.CodePrecondition, err)), "%v", err)
	}
}
