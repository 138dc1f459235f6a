package pool_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/edge-serverless-box/esb/gateway"
)

// outdateAll makes all containers those of an agent that has other settings now.
func (b *box) outdateAll() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for id, o := range b.containers {
		o.Outdated = true
		b.containers[id] = o
	}
}

// TestOutdate_AgentWithOtherSettings_MakeBeforeBreak: workers keep the settings that they were made with, with min_capacity for ever.
func TestOutdate_AgentWithOtherSettings_MakeBeforeBreak(t *testing.T) {
	for name, c := range map[string]struct {
		scaling gateway.Scaling
		restart bool
	}{
		"the gateway goes on":               {scaling: gateway.Scaling{MinCapacity: 2, MaxCapacity: 3, Queue: 10}},
		"the gateway starts again, too":     {scaling: gateway.Scaling{MinCapacity: 2, MaxCapacity: 3, Queue: 10}, restart: true},
		"one slot":                          {scaling: gateway.Scaling{MinCapacity: 1, MaxCapacity: 1, Queue: 10}},
		"one slot, and another gateway":     {scaling: gateway.Scaling{MinCapacity: 1, MaxCapacity: 1, Queue: 10}, restart: true},
		"on standby":                        {scaling: gateway.Scaling{MinCapacity: 1, MaxCapacity: 3, Standby: 1, Queue: 10}},
		"on standby, and another gateway":   {scaling: gateway.Scaling{MinCapacity: 1, MaxCapacity: 3, Standby: 1, Queue: 10}, restart: true},
		"nothing is to be warm":             {scaling: gateway.Scaling{MaxCapacity: 3, Queue: 10}},
		"nothing warm, and another gateway": {scaling: gateway.Scaling{MaxCapacity: 3, Queue: 10}, restart: true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBox()
				fn := function("f", c.scaling)
				opts := owned(b)
				opts.HeartbeatInterval = time.Second
				m := mustOpen(t, b, opts, fn)
				warmUp(t, m, fn, max(1, c.scaling.MinCapacity))
				time.Sleep(5 * time.Second)
				old := ids(state(m, "f"))
				require.NotEmpty(t, old)
				b.setStart(slow(5 * time.Second))
				if c.restart {
					gone(t, m)
				}
				b.outdateAll()
				if c.restart {
					m = mustOpen(t, b, opts, fn)
				}
				time.Sleep(2 * time.Second)
				if c.scaling.MaxCapacity > 1 {
					l := mustAcquire(t, m, fn)
					assert.Contains(t, old, l.Worker().ID, "the old ones serve until the first new one is ready")
					l.Release()
				}
				time.Sleep(2 * time.Minute)
				s := state(m, "f")
				assert.Zero(t, s.Outdated)
				assert.GreaterOrEqual(t, s.Idle, max(1, c.scaling.MinCapacity), "one on standby that was adopted counts as in use")
				assert.Equal(t, c.scaling.Standby, s.Standby)
				for _, id := range ids(s) {
					assert.NotContains(t, old, id)
				}
				peak, _ := b.peaks("f")
				assert.LessOrEqual(t, peak, c.scaling.MaxCapacity)
				// A configuration that comes again makes none of them current.
				starts, _, _ := b.count()
				again := function("f", c.scaling)
				again.Generation = "g2"
				apply(m, again)
				apply(m, fn)
				time.Sleep(time.Minute)
				now, _, _ := b.count()
				assert.LessOrEqual(t, now-starts, len(s.Workers)+1)
			})
		})
	}
}

// TestOutdate_TheNewSettingsCannotStartIt_TheOldServesOn: what was made with the old ones works.
func TestOutdate_TheNewSettingsCannotStartIt_TheOldServesOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBox()
		fn := function("f", gateway.Scaling{MaxCapacity: 2, Queue: 10})
		opts := owned(b)
		opts.HeartbeatInterval = time.Second
		m := mustOpen(t, b, opts, fn)
		warmUp(t, m, fn, 1)
		old := ids(state(m, "f"))
		b.setStart(func(context.Context, *gateway.Function, bool) error { return errors.New("no such region") })
		b.outdateAll()
		for range 30 {
			time.Sleep(time.Second)
			l := mustAcquire(t, m, fn)
			assert.Equal(t, old, []string{l.Worker().ID})
			l.Release()
			apply(m, fn) // a reload
		}
		assert.Equal(t, 1, state(m, "f").Outdated)
		b.setStart(nil)
		time.Sleep(time.Minute)
		assert.NotContains(t, ids(state(m, "f")), old[0])
	})
}
