package membudget_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/edge-serverless-box/esb/agent"
	"github.com/edge-serverless-box/esb/agent/membudget"
	"github.com/edge-serverless-box/esb/api/reason"
)

const mb = 1 << 20

func TestBudget_CountsWhatIsHeldAndWhatStarts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		used, available := int64(0), int64(10000*mb)
		b := membudget.New(membudget.Config{
			Limit: 200 * mb, Machine: 1000 * mb,
			Used:      func() (int64, error) { return used, nil },
			Available: func() (int64, error) { return available, nil },
		})
		require.NoError(t, b.Reserve("first", 10240*mb), "a limit is a promise, not what is held")
		require.NoError(t, b.Reserve("second", 128*mb))
		require.NoError(t, b.Reserve("third", 128*mb))
		err := b.Reserve("fourth", 128*mb)
		assert.Equal(t, agent.CodeExhausted, agent.ErrorCode(err))
		assert.Equal(t, reason.NoMemory, agent.ErrorReason(err))
		require.ErrorContains(t, err, "FUNCTION_MEMORY_BUDGET")
		b.Release("first")
		b.Started("second")
		b.Started("third")
		b.Started("nobody")
		used = 20 * mb // of both
		require.Error(t, b.Reserve("fourth", 128*mb), "their functions are only being initialised")
		b.Release("third")
		require.NoError(t, b.Reserve("fourth", 128*mb), "one is gone")
		b.Release("fourth")
		b.Started("second")
		time.Sleep(3 * time.Second)
		used = 130 * mb
		require.NoError(t, b.Reserve("fourth", 128*mb), "what it holds is what counts by now")
		b.Release("fourth")
		used = 150 * mb
		require.Error(t, b.Reserve("fourth", 128*mb))
		require.NoError(t, b.Reserve("small", 32*mb), "one that cannot take more than there is")
		b.Release("small")
		used, available = 0, 80*mb
		require.ErrorContains(t, b.Reserve("fourth", 128*mb), "the machine has 80 MB left", "whatever functions may have")
	})
}

func TestBudget_Look_ContainersThatHaveGrownAreToGiveBack(t *testing.T) {
	used, available := int64(0), int64(1000)
	b := membudget.New(membudget.Config{
		Limit: 200 * mb, Machine: 1000 * mb,
		Used:      func() (int64, error) { return used * mb, nil },
		Available: func() (int64, error) { return available * mb, nil },
	})
	require.NoError(t, b.Reserve("a", 128*mb), "what is reserved is held by nobody yet")
	for _, c := range []struct {
		used, available, short int64
		machine                bool
		why                    string
	}{
		{0, 1000, 0, false, "nothing runs"},
		{200, 1000, 0, false, "all that they may"},
		{210, 1000, 10, false, "more than that"},
		{195, 1000, 5, false, "not clearly less"},
		{190, 1000, 0, false, "clearly less"},
		{200, 1000, 0, false, "it counts anew"},
		{10, 20, 0, false, "the spare part is there"},
		{10, 19, 1, true, "it is not"},
		{10, 29, 1, true, "not clearly more"},
		{10, 30, 0, false, "clearly more"},
		{200, 19, 1, true, "the machine alone"},
		{200, 30, 0, false, "they never held too much"},
		{230, 10, 30, true, "both"},
		{200, 30, 10, false, "the machine has enough, and they hold too much"},
		{200, 29, 10, false, "which says nothing about the machine"},
		{180, 29, 0, false, "over"},
	} {
		used, available = c.used, c.available
		short, err := b.Look()
		require.NoError(t, err)
		assert.Equal(t, agent.Shortage{Bytes: c.short * mb, Machine: c.machine}, short, c.why)
	}
}

func TestBudget_None_HasRoomForAll(t *testing.T) {
	b := membudget.New(membudget.Config{})
	require.NoError(t, b.Reserve("a", 1<<40))
	b.Started("a")
	b.Release("a")
	short, err := b.Look()
	require.NoError(t, err)
	assert.Zero(t, short)
}

func TestBudget_WhatCannotBeRead_IsNoRefusal(t *testing.T) {
	broken := errors.New("broken")
	b := membudget.New(membudget.Config{Limit: mb, Used: func() (int64, error) { return 0, broken }})
	err := b.Reserve("a", mb)
	require.ErrorIs(t, err, broken)
	assert.Empty(t, agent.ErrorReason(err))
	_, err = b.Look()
	require.ErrorIs(t, err, broken)
}

func TestAvailable(t *testing.T) {
	n, err := membudget.Available("/proc/meminfo")
	require.NoError(t, err)
	assert.Positive(t, n)
	file := filepath.Join(t.TempDir(), "meminfo")
	require.NoError(t, os.WriteFile(file, []byte("MemTotal:  20 kB\n"), 0o600))
	_, err = membudget.Available(file)
	require.ErrorContains(t, err, "MemAvailable")
	_, err = membudget.Available(file + "-not")
	require.Error(t, err)
}
