package gateway

import (
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestFunction_ImageReference_IsWhatItsContainersAreMadeOf(t *testing.T) {
	for want, fn := range map[ImageReference]*Function{
		{Image: "my/hello:1"}:                     {Image: "my/hello:1"},
		{Runtime: "python3.11"}:                   {Code: &FunctionCode{Runtime: "python3.11"}},
		{Runtime: "nodejs24.x"}:                   {Code: &FunctionCode{Runtime: "nodejs20.x", Base: "nodejs24.x"}},
		{Image: "my/pushed:1", AskRegistry: true}: {Image: "my/pushed:1", PullPolicy: PullAlways},
		{Image: "my/kept:1"}:                      {Image: "my/kept:1", PullPolicy: "if_not_present"},
		{Image: "my/python:3.9"}:                  {Code: &FunctionCode{Runtime: "python3.9", Base: "my/python:3.9"}},
	} {
		assert.Equal(t, want, fn.ImageReference())
	}
}
