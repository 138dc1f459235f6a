package gateway

import (
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestReason_EachHasATextAndAnUnknownOneHasNone(t *testing.T) {
	permanent := 0
	for _, r := range []Reason{
		ReasonImageMissing, ReasonImageInvalid, ReasonRuntimeInvalid, ReasonCodeMissing, ReasonCodeInvalid, ReasonConfiguration,
		ReasonAgentAway, ReasonRegistryAway, ReasonStoreAway, ReasonCodeChanging, ReasonExhausted, ReasonSlow,
	} {
		assert.NotEmpty(t, r.Text(), r)
		if r.Permanent() {
			permanent++
		}
	}
	assert.Equal(t, 6, permanent)
	assert.Empty(t, Reason("?").Text())
	assert.False(t, Reason("?").Permanent())
}
