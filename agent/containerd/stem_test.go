package containerd

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// kinds makes a lot with so many kinds of stem cells, each used so long ago, with one that is ready.
func kinds(n int, since time.Duration) *lot {
	l := newLot()
	for i := range n {
		l.kinds[fmt.Sprint(i)] = &kind{key: fmt.Sprint(i), used: time.Now().Add(-since), ready: []*parked{{}}}
	}
	return l
}

func TestLot_MoreKindsInTurnThanPlaces_KeepThoseThatAreThere(t *testing.T) {
	assert.True(t, kinds(stemKinds-1, 0).admits())
	assert.False(t, kinds(stemKinds, 0).admits())
	assert.True(t, kinds(stemKinds, 2*stemRest).admits())
}

func TestLot_KindThatNobodyWants_IsTakenOut(t *testing.T) {
	l := kinds(3, 0)
	l.kinds["1"].used = time.Now().Add(-2 * stemKept)
	assert.Len(t, l.unwanted(), 1)
	assert.Len(t, l.kinds, 2)
	assert.Empty(t, l.unwanted())
}

func TestLot_KindThatFails_IsTriedAgainLater(t *testing.T) {
	l := newLot()
	k := &kind{key: "k", used: time.Now()}
	l.kinds["k"] = k
	missing := func() bool { found, _ := l.missingStem(1); return found != nil }
	for range stemFailures {
		assert.True(t, missing())
		l.failedStem(k)
	}
	assert.False(t, missing())
	k.failedAt = time.Now().Add(-2 * maxOff)
	assert.True(t, missing())
}

func TestLot_NoRoom_NothingIsMadeForAWhile(t *testing.T) {
	l := kinds(1, 0)
	l.kinds["0"].ready = nil
	one := func(int) int { return 1 }
	missing := func() (int, bool) {
		n, _ := l.missing(one)
		k, _ := l.missingStem(1)
		return n, k != nil
	}
	n, stem := missing()
	assert.Equal(t, 1, n)
	assert.True(t, stem)
	l.scarce = time.Now().Add(time.Hour)
	n, stem = missing()
	assert.Zero(t, n)
	assert.False(t, stem)
}

// Else nothing could be mounted on it later, and that would be taken for a fault of the box.
func TestMakeMountPoints_WhatIsSomethingElse_IsRefused(t *testing.T) {
	root := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(root, "opt"), nil, 0o600))
	require.NoError(t, os.Mkdir(filepath.Join(root, "hosts"), 0o700))
	require.ErrorIs(t, makeMountPoints(root, []string{"opt"}, nil), unix.ENOTDIR)
	require.ErrorIs(t, makeMountPoints(root, nil, []string{"hosts"}), unix.EISDIR)
	require.NoError(t, makeMountPoints(root, []string{"hosts", "new"}, []string{"opt", "file"}))
}
