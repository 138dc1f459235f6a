package pool_test

import (
	"fmt"
	"maps"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/edge-serverless-box/esb/gateway"
	"github.com/edge-serverless-box/esb/gateway/pool"
)

// proofs are Proofs that outlive a Manager.
type proofs struct {
	mu   sync.Mutex
	kept map[string]pool.Proof
}

func (p *proofs) Proof(function string) (pool.Proof, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	kept, ok := p.kept[function]
	return kept, ok
}

func (p *proofs) Keep(function string, proof pool.Proof) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.kept == nil {
		p.kept = map[string]pool.Proof{}
	}
	p.kept[function] = proof
}

func (p *proofs) Forget(gone func(function string) bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	maps.DeleteFunc(p.kept, func(function string, _ pool.Proof) bool { return gone(function) })
}

// powerCut ends all containers, and with them the Manager.
func powerCut(t *testing.T, b *box, m *pool.Manager) {
	t.Helper()
	gone(t, m)
	b.mu.Lock()
	defer b.mu.Unlock()
	clear(b.containers)
	clear(b.starting)
}

// TestProof_RestartDuringABadChange_TheOneBeforeServesOn, whether its workers outlive the Manager or not, and the next good one takes over.
func TestProof_RestartDuringABadChange_TheOneBeforeServesOn(t *testing.T) {
	for _, maxCapacity := range []int{1, 3} {
		for _, cut := range []bool{false, true} {
			for _, serves := range []bool{true, false} {
				t.Run(fmt.Sprintf("max %d, power cut %v, changed while it served %v", maxCapacity, cut, serves), func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) {
						b, store := newBox(), &proofs{}
						b.kept = true
						b.pushImage("sha256:old")
						opts := owned(b)
						opts.Proofs = store
						opts.Inits = inits{takes: 100 * time.Millisecond, bad: "bad"}
						end := gone
						if cut {
							end = func(t *testing.T, m *pool.Manager) { t.Helper(); powerCut(t, b, m) }
						}
						fn := function("f", gateway.Scaling{MaxCapacity: maxCapacity, Queue: 20})
						m := mustOpen(t, b, opts, fn)
						warmUp(t, m, fn, maxCapacity)
						bad := changed(fn, "bad")
						b.pushImage("sha256:bad")
						b.setStart(slow(100 * time.Millisecond))
						if serves {
							apply(m, bad)
							time.Sleep(7 * time.Second)
						}
						for range 3 {
							end(t, m)
							m = mustOpen(t, b, opts, bad)
							l := mustLoad(t, m, bad, maxCapacity)
							time.Sleep(20 * time.Minute)
							l.stop()
							assert.Zero(t, l.failures.Load())
							s := state(m, "f")
							require.Positive(t, s.Outdated)
							assert.Contains(t, s.Error, "the configuration before the present one still serves: ")
							held := mustAcquire(t, m, bad)
							assert.Equal(t, []string{"g1", "sha256:old"}, []string{held.Worker().Generation, held.Worker().ImageDigest})
							held.Release()
						}
						good := changed(fn, "g2")
						b.pushImage("sha256:good")
						end(t, m)
						m = mustOpen(t, b, opts, good)
						mustAcquire(t, m, good).Release()
						time.Sleep(2 * time.Minute)
						assert.Equal(t, "g2", served(t, m, good))
						assert.Empty(t, state(m, "f").Error)
						kept, _ := store.Proof("f")
						assert.Equal(t, []string{"g2", "sha256:good", "esb/f@sha256:good"}, []string{kept.Function.Generation, kept.Digest, kept.Function.Image})
						peak, _ := b.peaks("f")
						assert.LessOrEqual(t, peak, maxCapacity)
					})
				})
			}
		}
	}
}

// TestProof_DigestKnownLater: a gateway that is started with the agent knows only a moment later which image a tag has.
func TestProof_DigestKnownLater(t *testing.T) {
	for _, image := range []string{"sha256:old", "sha256:bad"} {
		t.Run(image, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b, store := newBox(), &proofs{}
				b.kept = true
				b.pushImage("sha256:old")
				opts := owned(b)
				opts.Proofs, opts.Inits = store, badImage("sha256:bad")
				fn := function("f", gateway.Scaling{MaxCapacity: 3, Queue: 20, Standby: 1})
				m := mustOpen(t, b, opts, imaged(fn, "sha256:old"))
				warmUp(t, m, fn, 1)
				powerCut(t, b, m)
				b.pushImage(image)
				m = mustOpen(t, b, opts, imaged(fn, ""))
				time.Sleep(time.Second)
				apply(m, imaged(fn, image))
				for range 100 {
					l := mustAcquire(t, m, fn)
					assert.Equal(t, "sha256:old", l.Worker().ImageDigest)
					l.Release()
					time.Sleep(time.Second)
				}
				s := state(m, "f")
				if image == "sha256:old" {
					assert.Equal(t, []int{0, 1}, []int{s.Outdated, s.Standby})
					assert.Empty(t, s.Error)
				} else {
					assert.Positive(t, s.Outdated)
				}
			})
		})
	}
}

// TestProof_NothingHasChanged_NothingIsStarted: a restart alone costs nobody a container.
func TestProof_NothingHasChanged_NothingIsStarted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, store := newBox(), &proofs{}
		opts := owned(b)
		opts.Proofs = store
		fn := function("f", gateway.Scaling{MaxCapacity: 2, Queue: 20})
		m := mustOpen(t, b, opts, fn)
		warmUp(t, m, fn, 1)
		powerCut(t, b, m)
		for _, now := range []*gateway.Function{fn, changed(fn, "g2")} {
			m = mustOpen(t, b, opts, now)
			time.Sleep(time.Hour)
			starts, _, live := b.count()
			assert.Equal(t, []int{1, 0}, []int{starts, live})
			gone(t, m)
		}
		m = mustOpen(t, b, opts)
		time.Sleep(time.Second)
		_, ok := store.Proof("f")
		assert.False(t, ok, "a function that is not there any more has none")
		gone(t, m)
	})
}

// TestAdopt_TrialOfABadChange_EndsNothing: a worker of the present configuration that is in the middle of its init shows nothing.
func TestAdopt_TrialOfABadChange_EndsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBox()
		opts := owned(b)
		left(b, "g1", false, time.Now(), "a", "b")
		left(b, "bad", false, time.Now(), "c")
		b.setCondition("c", pool.ConditionBusy)
		b.setStart(broken("bad", 100*time.Millisecond))
		fn := changed(function("f", gateway.Scaling{MaxCapacity: 5, Queue: 10}), "bad")
		m := mustOpen(t, b, opts, fn)
		time.Sleep(3 * time.Second)
		b.setCondition("c", pool.ConditionUnfit)
		time.Sleep(3 * time.Minute)
		assert.Equal(t, 2, state(m, "f").Outdated)
		assert.Equal(t, "g1", served(t, m, fn))
		assert.Equal(t, "not fit to be adopted", b.reason("c"))
	})
}
