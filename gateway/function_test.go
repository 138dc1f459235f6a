package gateway

import (
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestImageReference_IsOfWhatRunsTheCode(t *testing.T) {
	for want, f := range map[ImageReference]*Function{
		{Image: "a:1"}:          {Image: "a:1"},
		{Runtime: "python3.11"}: {Code: &FunctionCode{Runtime: "python3.11"}},
		{Runtime: "nodejs24.x"}: {Code: &FunctionCode{Runtime: "nodejs20.x", Base: "nodejs24.x"}},
		{Image: "my/java:21"}:   {Code: &FunctionCode{Runtime: "java21", Base: "my/java:21"}},
		{Image: "java"}:         {Code: &FunctionCode{Runtime: "java21", Base: "java"}},
	} {
		assert.Equal(t, want, f.ImageReference())
	}
}
