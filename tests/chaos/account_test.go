package chaos

import (
	"net/http"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/edge-serverless-box/esb/tests/traffic"
)

func TestAccount(t *testing.T) {
	a := &account{plan: plan{minutes: 1, seed: 7}, began: time.Now()}
	t.Run("part", func(t *testing.T) {
		p := a.open(t, "power loss 1")
		p.count([]traffic.Sample{{Stream: "warm", Status: http.StatusOK}, {Stream: "warm", Err: syscall.ECONNREFUSED}, {Stream: "event", Status: http.StatusAccepted},
			{Stream: "cold", Status: http.StatusServiceUnavailable}})
		p.hold(t, true, "nothing is lost")
		p.within(t, "up took", 7*time.Second, upLimit) // said alone
		p.miss(2)
		p.leak(3)
	})
	text := a.String()
	assert.Regexp(t, `part +took +sent +answered +lost +leaked +hold +failed by cause`, text)
	assert.Regexp(t, `power loss 1 +\S+ +4 +2 +2 +3 +1 of 2 +1 x cold 503, 1 x warm refused`, text)
	assert.Regexp(t, `all +\S+ +4 +2 +2 +3 +1 of 2`, text)
	assert.Contains(t, text, "power loss 1: 1 of 2 hold; up took 7s; NOT: up took 7s, more than 5s (load ")
	assert.Contains(t, text, "seed 7")
	assert.Contains(t, text, " warm 1 of 2 answered,")
	assert.Contains(t, text, "\n1 of 2 hold\n")
}

// What must hold fails the test; what others may hinder does where that is asked for.
func TestPart_Fails(t *testing.T) {
	for _, c := range []struct {
		strict, fails bool
		look          func(*testing.T, *part)
	}{
		{false, true, func(t *testing.T, p *part) { p.hold(t, false, "lost") }},
		{false, false, func(t *testing.T, p *part) { p.target(t, false, "slow") }},
		{true, true, func(t *testing.T, p *part) { p.target(t, false, "slow") }},
		{true, true, func(t *testing.T, p *part) { p.within(t, "it", 2, 1) }},
		{true, false, func(t *testing.T, p *part) { p.within(t, "it", 1, 1) }},
	} {
		var inner testing.T
		c.look(&inner, &part{plan: plan{strict: c.strict}})
		assert.Equal(t, c.fails, inner.Failed())
	}
}

func TestOwned_More(t *testing.T) {
	text, n := owned{"veths": 3, "mounts": 2, "leases": 1, "disks": 1}.more(owned{"veths": 1, "mounts": 2, "leases": 2})
	assert.Equal(t, "disks 1 instead of 0, veths 3 instead of 1", text)
	assert.Equal(t, 3, n)
	text, n = owned{"veths": 1}.more(owned{"veths": 1})
	assert.Empty(t, text)
	assert.Zero(t, n)
}
