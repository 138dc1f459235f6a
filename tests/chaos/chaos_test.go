// Package chaos gives a whole box all that may happen to it where nobody is there to help, while clients ask it without waiting for
// each other: processes die and stand still, the power fails, the disk fills, files are damaged, functions are overloaded, misbehave,
// come and go, and change. It ends with an account of what was sent, answered, failed, lost and left over.
//
//	go tool task test:chaos
//
// The settings are those of plan. What must hold on any machine fails the test; times and ratios are said, and fail it with
// ESB_CHAOS_STRICT=true.
//
// A clock that jumps is among it with ESB_CHAOS_CLOCK=true alone: the kernel has one CLOCK_REALTIME for the whole machine, also for
// namespaces of time, and this one may belong to others as well. Files that were written under another clock always are.
package chaos

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/edge-serverless-box/esb/tests/hoststate"
	"github.com/edge-serverless-box/esb/tests/smalldisk"
	"github.com/edge-serverless-box/esb/tests/stack"
)

func TestChaos(t *testing.T) {
	p, err := readPlan(os.Getenv)
	require.NoError(t, err)
	t.Log("chaos:", p)
	a := &account{plan: p, began: time.Now()}
	root, err := stack.RepositoryRoot()
	require.NoError(t, err)
	t.Cleanup(func() {
		text := a.String()
		fmt.Println(text)
		assert.NoError(t, os.WriteFile(filepath.Join(root, ".esb", "chaos.txt"), []byte(text), 0o644))
	})
	t.Run("Box", func(t *testing.T) {
		b := mustBox(t, p, t.TempDir(), false)
		for _, part := range []struct {
			name string
			run  func(*testing.T, *box, *account)
		}{
			{"Faults", runFaults}, {"Power", runPower}, {"Overload", runOverload}, {"Neighbours", runNeighbours}, {"Churn", runChurn}, {"Reload", runReload},
			{"Clock", runClock},
		} {
			t.Run(part.name, func(t *testing.T) { part.run(t, b, a) })
		}
		t.Run("End", func(t *testing.T) { b.end(t, a.open(t, "end of the box")) })
	})
	t.Run("SmallBox", func(t *testing.T) {
		b := mustBox(t, p, mustDisk(t), true)
		t.Run("Disk", func(t *testing.T) { runDisk(t, b, a) })
		t.Run("Damage", func(t *testing.T) { runDamage(t, b, a) })
		t.Run("End", func(t *testing.T) { b.end(t, a.open(t, "end of the small box")) })
	})
}

// diskBytes is room for a box with the sample functions, twice: one damage has all images made anew.
const diskBytes = 8 << 30

func mustDisk(t *testing.T) string {
	t.Helper()
	home := smalldisk.Mount(t, diskBytes)
	require.NoError(t, os.Mkdir(home, 0o711))
	return home
}

// end stops a box and looks for what is left of it.
func (b *box) end(t *testing.T, p *part) {
	began := time.Now()
	p.hold(t, b.Down() == nil, "the box must end")
	p.measure("down took %s", short(time.Since(began)))
	state, err := hoststate.Read(b.Home, filepath.Join(b.Home, "none"), b.Bridge)
	require.NoError(t, err)
	var left []string
	for kind, lines := range state {
		for _, line := range lines {
			// The disk of a small box is the test's.
			if path, _, _ := strings.Cut(line, " "); (strings.Contains(line, b.Bridge) || strings.Contains(line, b.Home)) && path != filepath.Dir(b.Home) {
				left = append(left, kind+": "+line)
			}
		}
	}
	p.leak(len(left))
	p.hold(t, len(left) == 0, "%d things are left: %v", len(left), left[:min(len(left), 10)])
}
