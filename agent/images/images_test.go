package images

import (
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/edge-serverless-box/esb/agent"
	"github.com/edge-serverless-box/esb/api/reason"
)

func TestUnusable_BlamesTheImageForWhatStays(t *testing.T) {
	for code, want := range map[agent.Code]reason.Reason{agent.CodePrecondition: reason.ImageInvalid, agent.CodeUnavailable: "", agent.CodeExhausted: ""} {
		err := unusable(agent.Errorf(code, "x"))
		assert.Equal(t, want, agent.ErrorReason(err), "%s", code)
		assert.Equal(t, code, agent.ErrorCode(err))
	}
}
