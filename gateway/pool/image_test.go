package pool_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/edge-serverless-box/esb/gateway"
	"github.com/edge-serverless-box/esb/gateway/pool"
)

// imaged is fn with an image of that digest, or one that is not known.
func imaged(fn *gateway.Function, digest string) *gateway.Function {
	copied := *fn
	copied.BaseGeneration, copied.ImageDigest = fn.Generation, digest
	if digest != "" {
		copied.Generation = fn.Generation + " " + digest
	}
	return &copied
}

// TestApply_DigestBecomesKnown_KeepsTheWorkersThatHaveIt: after a restart of the gateway the agent may be slow to say what it has.
func TestApply_DigestBecomesKnown_KeepsTheWorkersThatHaveIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBox()
		b.digest = "sha256:1"
		fn := function("f", gateway.Scaling{MaxCapacity: 2, Queue: 5})
		m := mustOpen(t, b, pool.Options{}, imaged(fn, ""))
		idle, busy := mustAcquire(t, m, fn), mustAcquire(t, m, fn)
		idle.Release()
		apply(m, imaged(fn, "sha256:1"))
		busy.Release()
		synctest.Wait()
		assert.Equal(t, 2, state(m, "f").Idle)
		assert.Empty(t, b.reason(idle.Worker().ID)+b.reason(busy.Worker().ID))

		b.setDigest("sha256:2")
		apply(m, imaged(fn, "sha256:2"))
		synctest.Wait()
		assert.Equal(t, "configuration changed", b.reason(idle.Worker().ID))
		assert.Equal(t, "configuration changed", b.reason(busy.Worker().ID))
		next := mustAcquire(t, m, fn)
		assert.Equal(t, "sha256:2", next.Worker().ImageDigest)
		next.Release()
	})
}

// TestApply_DigestBecomesKnown_WhileAContainerStarts: the start counts when it comes to the same image, and not otherwise.
func TestApply_DigestBecomesKnown_WhileAContainerStarts(t *testing.T) {
	for digest, starts := range map[string]int{"sha256:1": 1, "sha256:2": 2} {
		t.Run(digest, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBox()
				b.digest = "sha256:1"
				fn := function("f", gateway.Scaling{MaxCapacity: 1, Queue: 5})
				n := 0
				b.setStart(func(ctx context.Context, fn *gateway.Function, standby bool) error {
					n++
					return slow(time.Second)(ctx, fn, standby)
				})
				m := mustOpen(t, b, pool.Options{}, imaged(fn, ""))
				time.AfterFunc(500*time.Millisecond, func() { apply(m, imaged(fn, digest)) })
				time.AfterFunc(1500*time.Millisecond, func() { b.setDigest(digest) })
				l := mustAcquire(t, m, fn)
				assert.Equal(t, digest, l.Worker().ImageDigest)
				assert.Equal(t, starts, n)
				l.Release()
			})
		})
	}
}
