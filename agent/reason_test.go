package agent_test

import (
	"errors"
	"fmt"
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/edge-serverless-box/esb/agent"
	"github.com/edge-serverless-box/esb/api/reason"
)

func TestBecause_TheNearestKnowsBest(t *testing.T) {
	root := agent.Errorf(agent.CodePrecondition, "no such object")
	near := agent.Because(reason.CodeMissing, root)
	far := agent.Because(reason.CodeInvalid, fmt.Errorf("get code: %w", agent.Errorf(agent.CodePrecondition, "layer: %w", near)))
	assert.Equal(t, reason.CodeMissing, agent.ErrorReason(far))
	assert.Equal(t, agent.CodePrecondition, agent.ErrorCode(far))
	assert.EqualError(t, far, "get code: layer: no such object")
	assert.Empty(t, agent.ErrorReason(root))
	assert.Empty(t, agent.ErrorReason(errors.New("a stranger")))
	assert.NoError(t, agent.Because(reason.Slow, nil))
	internal := agent.Because(reason.Slow, errors.New("a stranger"))
	assert.Equal(t, agent.CodeInternal, agent.ErrorCode(internal))
}
