package images

import (
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/edge-serverless-box/esb/agent"
)

func TestUnusable_BlamesTheImageForWhatStays(t *testing.T) {
	for code, want := range map[agent.Code]agent.Reason{agent.CodePrecondition: agent.ReasonImageInvalid, agent.CodeUnavailable: "", agent.CodeExhausted: ""} {
		err := unusable(agent.Errorf(code, "x"))
		assert.Equal(t, want, agent.ErrorReason(err), "%s", code)
		assert.Equal(t, code, agent.ErrorCode(err))
	}
}
