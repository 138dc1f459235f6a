package main

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const printed = `{"Action":"start","Package":"p"}
{"Action":"run","Package":"p","Test":"TestRoot"}
{"Action":"output","Package":"p","Test":"TestRoot","Output":"    a_test.go:26: containerd needs root\n"}
{"Action":"output","Package":"p","Test":"TestRoot","Output":"--- SKIP: TestRoot (0.00s)\n"}
{"Action":"skip","Package":"p","Test":"TestRoot","Elapsed":0.5}
{"Action":"output","Package":"p","Test":"TestDocker","Output":"    b_test.go:2: the file is in a volume of Docker's\n"}
{"Action":"skip","Package":"p","Test":"TestDocker","Elapsed":0}
not an event
{"Action":"output","Package":"q","Test":"TestDocker","Output":"    b_test.go:2: for no good reason\n"}
{"Action":"pass","Package":"q","Test":"TestDocker","Elapsed":0}
{"Action":"skip","Package":"empty","Elapsed":0}
{"Action":"pass","Package":"p","Elapsed":1}`

func TestFilter_SkippedForWantOfRoot_Fails(t *testing.T) {
	var out strings.Builder
	refused, err := filter(strings.NewReader(printed), &out, reasons("# in Docker\n\n  a volume of Docker's\n"))
	require.NoError(t, err)
	assert.Equal(t, 1, refused)
	want := strings.Replace(printed, `{"Action":"skip","Package":"p","Test":"TestRoot","Elapsed":0.5}`,
		`{"Action":"output","Package":"p","Test":"TestRoot","Output":"    skipped, which CI allows for the reasons in .ci/skips alone\n"}
{"Action":"fail","Package":"p","Test":"TestRoot","Elapsed":0.5}`, 1)
	assert.Equal(t, want, out.String())
}

func TestFilter_EverythingAllowed_ChangesNothing(t *testing.T) {
	var out strings.Builder
	refused, err := filter(strings.NewReader(printed), &out, reasons("needs root\na volume of Docker's"))
	require.NoError(t, err)
	assert.Zero(t, refused)
	assert.Equal(t, printed, out.String())
}
