package chaos

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestReadPlan(t *testing.T) {
	read := func(settings map[string]string) (plan, error) {
		return readPlan(func(name string) string { return settings[name] })
	}
	standard, err := read(nil)
	require.NoError(t, err)
	assert.InDelta(t, standardMinutes, standard.minutes, 0)
	assert.Equal(t, 5, standard.rounds)
	assert.False(t, standard.strict)
	assert.False(t, standard.clock, "the clock is the whole machine's")

	long, err := read(map[string]string{"ESB_CHAOS_MINUTES": "48", "ESB_CHAOS_SEED": "7", "ESB_CHAOS_STRICT": "true", "ESB_CHAOS_CLOCK": "true"})
	require.NoError(t, err)
	assert.Equal(t, plan{minutes: 48, rounds: 20, seed: 7, churn: longChurn, strict: true, clock: true}, long)
	assert.Equal(t, 40, long.times(10, 1, 100))
	assert.Equal(t, 30, long.times(10, 1, 30))
	assert.Equal(t, 8*time.Second, long.lasts(2*time.Second, time.Second, time.Minute))
	assert.Equal(t, long.random(1).Uint64(), long.random(1).Uint64())
	assert.NotEqual(t, long.random(1).Uint64(), long.random(2).Uint64())

	short, err := read(map[string]string{"ESB_CHAOS_MINUTES": "2", "ESB_CHAOS_ROUNDS": "20"})
	require.NoError(t, err)
	assert.Equal(t, 20, short.rounds)
	assert.Zero(t, short.churn)
	many, err := read(map[string]string{"ESB_CHAOS_MINUTES": "2", "ESB_CHAOS_CHURN": "70"})
	require.NoError(t, err)
	assert.Equal(t, 70, many.churn)
	assert.True(t, short.allRounds)
	assert.True(t, short.late(time.Now().Add(-90*time.Second), 0.5))
	assert.False(t, short.late(time.Now(), 0.5))
	assert.Equal(t, 1, short.times(5, 1, 100))
	assert.Equal(t, 3*time.Second, short.lasts(6*time.Second, 3*time.Second, time.Minute))

	for name, value := range map[string]string{"ESB_CHAOS_MINUTES": "0", "ESB_CHAOS_ROUNDS": "-1", "ESB_CHAOS_CHURN": "many", "ESB_CHAOS_SEED": "x", "ESB_CHAOS_STRICT": "maybe", "ESB_CHAOS_CLOCK": "2 h"} {
		_, err := read(map[string]string{name: value})
		assert.ErrorContains(t, err, name)
	}
}
