package stack

import (
	"bytes"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/edge-serverless-box/esb/native"
)

func TestPrintImages_SaysSizeUseAndSource(t *testing.T) {
	now := time.Now()
	var out bytes.Buffer
	require.NoError(t, printImages(&out, []native.Image{
		{Name: "my/old:1", Digest: "sha256:0123456789abcdef", Bytes: 2_500_000, Used: now.Add(-50 * time.Hour), Archive: "/box/images/old.tar"},
		{Name: "my/new:1", Digest: "sha256:fedcba9876543210", Bytes: 1, Used: now, InUse: true},
	}, 2_600_000, now))
	lines := bytes.Split(bytes.TrimSpace(out.Bytes()), []byte("\n"))
	require.Len(t, lines, 4)
	assert.Regexp(t, `^my/old:1 +sha256:0123456789ab +2\.5 MB +\S+.* ago +old\.tar$`, string(lines[1]))
	assert.Regexp(t, `^my/new:1 +sha256:fedcba987654 +0\.0 MB +now +registry$`, string(lines[2]))
	assert.Regexp(t, `^2 images, together +2\.6 MB`, string(lines[3]))
}

func TestImages_BoxIsDown_SaysSo(t *testing.T) {
	s := damagedBox(t, nil)
	var problem *native.Problem
	require.ErrorAs(t, s.Images(t.Context(), &bytes.Buffer{}, false), &problem)
	assert.Equal(t, "the box is down: its agent knows the images", problem.What)
	require.ErrorAs(t, s.RemoveImages(t.Context(), nil, 0, false), &problem)
}
