package containerd

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/edge-serverless-box/esb/agent/membudget"
)

func TestDemand_IsWhatWasWantedAtOnceInTheLastMinutes(t *testing.T) {
	var d demand
	now := time.Unix(1_000_000, 0)
	assert.Zero(t, d.most(now))
	for range 3 {
		d.add(now)
	}
	d.add(now.Add(demandSpan))
	assert.Equal(t, 3, d.most(now.Add(demandSpan)))
	for i := range 20 { // one each second is two at once
		d.add(now.Add(10*time.Second + time.Duration(i)*time.Second))
	}
	assert.Equal(t, 3, d.most(now.Add(time.Minute)))
	later := now.Add(demandSpan * demandSpans)
	assert.Equal(t, 2, d.most(later), "the three are too long ago")
	d.add(later.Add(-time.Hour))
	assert.Equal(t, 2, d.most(later), "the clock was set back")
	assert.Zero(t, d.most(later.Add(24*time.Hour)))
}

func TestWanted_IsWithinItsBounds(t *testing.T) {
	r := &Runtime{cfg: Config{Parked: 4, ParkedMax: 16}, memory: membudget.New(membudget.Config{})}
	assert.Equal(t, 4, r.wanted(0))
	assert.Equal(t, 9, r.wanted(9))
	assert.Equal(t, 16, r.wanted(64))
	r.cfg.ParkedMax = 2
	assert.Equal(t, 4, r.wanted(64), "not less than what is always kept")
	r.cfg.ParkedMax, r.cfg.MemoryBudget = 16, 6*parkedBytes*parkedPart
	assert.Equal(t, 6, r.wanted(64))
	r.cfg.MemoryBudget = 1
	assert.Equal(t, 1, r.wanted(64))
}
