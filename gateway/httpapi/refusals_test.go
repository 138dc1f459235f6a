package httpapi

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
)

func TestRefusals_ManyInASecond_HaveSomeLinesAndACount(t *testing.T) {
	var r refusals
	now := time.Unix(1000, 0)
	for range refusalLines {
		line, unlogged := r.take("busy", now)
		assert.True(t, line)
		assert.Zero(t, unlogged)
	}
	for range 500 {
		line, _ := r.take("busy", now.Add(999*time.Millisecond))
		assert.False(t, line)
	}
	line, unlogged := r.take("other", now)
	assert.True(t, line, "each function has its own")
	assert.Zero(t, unlogged)
	line, unlogged = r.take("busy", now.Add(time.Second))
	assert.True(t, line)
	assert.Equal(t, 500, unlogged)
	line, unlogged = r.take("busy", now.Add(time.Second))
	assert.True(t, line)
	assert.Zero(t, unlogged, "they are said once")
}
